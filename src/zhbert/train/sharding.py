"""A model whose weights are divided among the processes of a run, because it does not fit on one.

Each rank keeps some rows of every weight, and the same rows of its gradient and of the optimiser's
running means. A block gets its whole weights before it computes, forward and backward, and gives
them back at once; its gradient is summed over the ranks, each of which receives its own rows. That
is FSDP: https://arxiv.org/abs/2304.11277 , by PyTorch's ``fully_shard``:
https://docs.pytorch.org/docs/stable/distributed.fsdp.fully_shard.html

Gradients are exchanged in each micro-batch, as the weights are: to sum them up first, each rank
would need room for whole ones.

A divided tensor (a DTensor) has the shape of the whole one. Its ``local`` part is a usual tensor.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from zhbert.train.distributed import Ranks


def shard(
    root: nn.Module, blocks: Iterable[nn.Module], ranks: Ranks, dtype: torch.dtype = torch.float32
) -> None:
    """Divide the first rank's weights among all ranks, in place, and move them to their devices.

    From then on all ranks must call ``root`` equally often.

    Args:
        root: the module whose calls are the training's forward passes; its own weights are whole
            from the beginning of a call to its end.
        blocks: parts of it, each of which has whole weights only while it computes.
        ranks: the processes, at least two.
        dtype: the number format of the products. On GPUs a block's whole weights have it, too:
            copies that mixed precision made of them would be kept for the backward pass, all
            whole. What is divided stays as it is, and gradients are summed in float32.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard

    with torch.no_grad():
        for tensor in (*root.parameters(), *root.buffers()):
            there = tensor.to(ranks.device)
            ranks.broadcast([there])
            tensor.copy_(there)
    mesh = init_device_mesh(ranks.device.type, (ranks.world_size,))
    # On a CPU, a norm's weights must have the format of its input, which stays float32.
    kind = dtype if ranks.device.type == "cuda" else None
    narrow = MixedPrecisionPolicy(kind, reduce_dtype=torch.float32, cast_forward_inputs=False)
    for block in blocks:
        fully_shard(block, mesh=mesh, reshard_after_forward=True, mp_policy=narrow)
    fully_shard(root, mesh=mesh, reshard_after_forward=True)


def is_divided(tensor: Tensor) -> bool:
    """Return True if this rank has only a part of the tensor."""
    # Not isinstance: the import of DTensor takes half a second.
    return hasattr(tensor, "full_tensor")


def local(tensor: Tensor) -> Tensor:
    """Return this rank's part of a tensor, which shares its memory; of an undivided one, all."""
    return cast(Any, tensor.detach()).to_local() if is_divided(tensor) else tensor


def whole(tensor: Tensor) -> Tensor:
    """Return a tensor put together from all ranks' parts; all ranks must call this."""
    return cast(Any, tensor.detach()).full_tensor() if is_divided(tensor) else tensor


def divided_like(like: Tensor, tensor: Tensor) -> Tensor:
    """Divide a whole tensor, which every rank has, as ``like`` is divided."""
    if not is_divided(like):
        return tensor
    from torch.distributed.tensor import distribute_tensor

    divided = cast(Any, like)
    return distribute_tensor(tensor, divided.device_mesh, divided.placements, src_data_rank=None)


def divided_from(like: Tensor, part: Tensor) -> Tensor:
    """Return the tensor of which every rank has a ``part``, divided as ``like`` is."""
    if not is_divided(like):
        return part
    from torch.distributed.tensor import DTensor

    divided = cast(Any, like)
    return DTensor.from_local(
        part,
        divided.device_mesh,
        divided.placements,
        run_check=False,
        shape=like.shape,
        stride=like.stride(),
    )


def norms(tensors: Sequence[Tensor], parts: bool = False) -> Tensor:
    """Return the Euclidean norms of tensors, (n,): of whole ones, even if they are divided.

    Args:
        tensors: at least one; all of them divided, or none.
        parts: True if they are the local parts of divided tensors.
    """
    found = torch.stack(torch._foreach_norm([local(tensor) for tensor in tensors]))
    if parts or is_divided(tensors[0]):
        found = found.square()
        dist.all_reduce(found)
        found = found.sqrt()
    return found


def from_first(
    like: Mapping[str, Tensor], first: Mapping[str, Tensor], ranks: Ranks
) -> dict[str, Tensor]:
    """Give all ranks the tensors that the first has read, divided as those of ``like`` are.

    Args:
        like: the names and shapes, the same on all ranks. Those that ``first`` lacks are left out.
        first: the whole tensors; on other ranks, anything.
        ranks: the processes.
    """
    there = ranks.on_first(
        lambda: [n for n in like if n in first and first[n].shape == like[n].shape]
    )
    found = {}
    for name in there:
        tensor = like[name]
        value = first[name] if ranks.first else torch.empty(tensor.shape)
        value = value.to(ranks.device, tensor.dtype)
        ranks.broadcast([value])
        found[name] = divided_like(tensor, value)
    return found
