"""The processes of one run, started by torchrun and connected by gloo (CPUs) or NCCL (GPUs)."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error
from zhbert.runtime import launched_rank

# Timeout of one exchange: long enough for the first process to end writing a large checkpoint when
# the next one is due, but not hours if a process hangs.
PATIENCE = timedelta(minutes=10)

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class Ranks:
    """This process's rank among those of a run. Without torchrun, exchanges do nothing."""

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    connected: bool = False
    """True: torchrun started this process, be it the only one, so that there is a process group."""

    @property
    def first(self) -> bool:
        """True for the process that writes and prints."""
        return self.rank == 0

    def sum(self, values: Sequence[float]) -> list[float]:
        """Return the elementwise sums of all ranks' ``values``, exact for integers to 2^53."""
        if not self.connected:
            return list(values)
        # On the CPU, through gloo: an answer from a GPU would have to be waited for.
        tensor = torch.tensor(values, dtype=torch.float64)
        dist.all_reduce(tensor)
        return [float(value) for value in tensor.tolist()]

    def sum_tensor(self, tensor: Tensor) -> Tensor:
        """Sum all ranks' tensors in place, without synchronising with the GPU."""
        if self.connected:
            dist.all_reduce(tensor)
        return tensor

    def most(self, number: int) -> int:
        """Return the largest of all ranks' numbers."""
        if not self.connected:
            return number
        tensor = torch.tensor(number)
        dist.all_reduce(tensor, dist.ReduceOp.MAX)
        return int(tensor)

    def broadcast(self, tensors: Sequence[Tensor]) -> None:
        """Overwrite every rank's tensors with the first rank's."""
        if self.connected:
            for tensor in tensors:
                dist.broadcast(tensor, 0)

    def on_first(self, work: Callable[[], _Value]) -> _Value:
        """Run ``work`` on the first rank alone and give all ranks its value or its ZhbertError.

        Without this, an error there would leave the others waiting in their next exchange.
        """
        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = work()
            except ZhbertError as error:
                outcome[1] = str(error)
            except OSError as error:
                outcome[1] = str(describe_os_error(error, "pretrain:"))
        if self.connected:
            dist.broadcast_object_list(outcome, 0, device=self.device)
        if outcome[1] is not None:
            raise ZhbertError(outcome[1])
        value: _Value = outcome[0]
        return value

    def wrap(self, module: nn.Module) -> nn.Module:
        """Wrap a module so that every backward pass averages its gradients over the ranks."""
        if not self.connected:
            return module
        return nn.parallel.DistributedDataParallel(module, gradient_as_bucket_view=True)


ALONE = Ranks()


def _is_of_an_exchange(error: RuntimeError) -> bool:
    """Return True if an exchange failed (NCCL's errors have a type; gloo's name source files)."""
    return isinstance(error, dist.DistError) or "/gloo/" in str(error)


def _own_store() -> dict[str, Any]:
    """Return what keeps restarted processes apart from the dead ones, as arguments of the group.

    torchrun's store outlives the processes, and has the addresses of those that are dead. All of
    one machine count the restarts alike; several machines do not
    (https://github.com/pytorch/pytorch/issues/135712).

    Raises:
        ZhbertError: torchrun was told to restart processes, but not how several machines can.
    """
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":
        return {}
    if os.environ["GROUP_WORLD_SIZE"] != "1":
        if os.environ["TORCHELASTIC_MAX_RESTARTS"] != "0":
            raise ZhbertError(
                "--max-restarts: on several machines, processes that are started again find each"
                " other only with --rdzv-backend c10d, and if TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1"
                " is set before torchrun"
            )
        return {}
    store, rank, world_size = next(rendezvous("env://", timeout=PATIENCE))
    attempt = os.environ["TORCHELASTIC_RESTART_COUNT"]
    own = dist.PrefixStore(f"attempt {attempt}", store)  # type: ignore[attr-defined]
    return {"store": own, "rank": rank, "world_size": world_size}


@contextmanager
def process_group(choose_device: Callable[[int], torch.device]) -> Iterator[Ranks]:
    """Connect the processes that torchrun started, even one; without torchrun, use only this one.

    ``choose_device`` maps a process's number on its machine to a device.

    Raises:
        ZhbertError: there are too few GPUs, the processes cannot be connected, or one has gone.
    """
    local_rank = int(os.environ.get("LOCAL_RANK", "0"))
    device = choose_device(local_rank)
    if device.type == "cuda":
        processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        if processes > (gpus := torch.cuda.device_count()):
            raise ZhbertError(
                f"--nproc-per-node {processes}: more than this machine's GPUs, {gpus}"
            )
        torch.cuda.set_device(device)
    if launched_rank() is None:
        yield Ranks(device=device)
        return
    on_gpu = device.type == "cuda"
    try:
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
            timeout=PATIENCE,
            device_id=device if on_gpu else None,
            **_own_store(),
        )
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise ZhbertError(f"connecting the run's processes: {reason}") from error
    try:
        yield Ranks(dist.get_rank(), dist.get_world_size(), local_rank, device, connected=True)
    except RuntimeError as error:
        if not _is_of_an_exchange(error):
            raise
        raise ZhbertError(
            "another process of this run has gone or no longer answers; its own message, or its"
            " launcher's, says why; what follows the newest checkpoint is not saved"
        ) from error
    # Only after success, since the others would wait here for a process that has ended. All at the
    # same time, since gloo may abort a process while another closes its connections.
    dist.barrier()
    dist.destroy_process_group()
