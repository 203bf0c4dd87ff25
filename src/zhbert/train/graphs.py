"""Training steps that a GPU repeats by itself: operations are recorded once, as CUDA graphs.

The host's part of a step, which starts a thousand operations, takes longer than the GPU's for
small models. A CUDA graph starts all of them at once. Its operations read and write the same memory
at each replay, so everything that differs from step to step is copied there first.

CUDA graphs: https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-graphs
"""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from zhbert.train.distributed import Ranks
from zhbert.train.optim import RecordableOptimizer, global_norm
from zhbert.train.prefetch import Batch, map_tensors, pinned
from zhbert.train.step import Objective, autocast, mix

# Shapes of micro-batches whose graphs are kept.
_SHAPES_KEPT = 8
# Gradients begin at multiples of so many numbers, so that the GPU reads them in wide words.
_ALIGNMENT = 64

Call = Callable[[], None]
Recorder = Callable[[Call], Call]
"""Returns a call that repeats the operations of the given one, which it runs or only records."""


@runtime_checkable
class RecordableObjective(Objective[Batch], Protocol[Batch]):
    """An objective whose call consists of operations on the tensors of its batch alone."""

    def prepared(self, model: nn.Module, batch: Batch, seed: int) -> Batch:
        """Do the host's part of a micro-batch of the step of ``seed``.

        Everything drawn on the host enters the batch, as tensors on the CPU. Few shapes should
        occur. Called in the thread that prepares the batches.
        """


class RecordedStep(Generic[Batch]):
    """Steps recorded once for each shape of micro-batches, and then repeated.

    The first call of each kind is made operation by operation: it compiles, and allocates what
    lasts. The second is recorded. Gradients are views of one buffer, which is summed over the ranks
    after the last micro-batch.

    Args:
        model: its gradients are set here; they are zero between steps.
        objective, optimizer: what is recorded.
        ranks: the processes that share a step.
        dtype: float32 or bfloat16.
        clip_norm: the maximum norm of the gradient; 0: any.
        record: records a call.
    """

    scale = 1

    def __init__(
        self,
        model: nn.Module,
        objective: RecordableObjective[Batch],
        optimizer: RecordableOptimizer,
        ranks: Ranks,
        *,
        dtype: torch.dtype,
        clip_norm: float,
        record: Recorder,
    ) -> None:
        self._model, self._objective, self._optimizer = model, objective, optimizer
        self._ranks, self._dtype, self._clip_norm = ranks, dtype, clip_norm
        self._record = record
        ranks.broadcast([one.detach() for one in (*model.parameters(), *model.buffers())])
        self._parameters = [one for one in model.parameters() if one.requires_grad]
        self._gradients = _flat_gradients(self._parameters)
        parts, device = len(objective.parts), ranks.device
        self._weights = torch.zeros(parts, device=device)
        self._sums = torch.zeros(parts, device=device)
        self._found = torch.zeros(1 + parts, device=device)
        self._numbers: Tensor | None = None
        self._shapes: OrderedDict[Any, tuple[list[Tensor], Call]] = OrderedDict()
        self._update = _Recorded(self._update_call, record)

    def prepared(self, batches: Sequence[Batch], seed: int) -> Sequence[Batch]:
        """Do the host's part of all micro-batches, and put them into pinned memory for a GPU."""
        ready = (self._objective.prepared(self._model, batch, seed) for batch in batches)
        return [pinned(batch, self._ranks.device) for batch in ready]

    def make(
        self,
        batches: Sequence[Batch],
        seed: int,
        *,
        weights: Sequence[float],
        learning_rate: float,
        stopped: Callable[[], object],
    ) -> Tensor | None:
        """Make one step, as `zhbert.train.step.Step` says."""
        self._set(self._weights, weights)
        for index, batch in enumerate(batches):
            if stopped():
                self._gradients.zero_()
                self._sums.zero_()
                return None
            if self._ranks.device.type == "cuda":
                # For dropout inside of library kernels; a graph reads the seed at each replay.
                torch.cuda.manual_seed(mix(seed, self._ranks.rank, index))
            self._accumulate(batch)
        self._ranks.sum_tensor(self._gradients)
        self._ranks.sum_tensor(self._sums)
        numbers = self._optimizer.advance(learning_rate)
        if self._numbers is None:
            self._numbers = torch.zeros(len(numbers), device=self._ranks.device)
        self._set(self._numbers, numbers)
        self._update()
        return self._found.clone()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Use a stream of its own, as recording demands; release gradients and graphs at the end.

        https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
        """
        try:
            with _stream_of_its_own(self._ranks.device):
                yield
        finally:
            self._shapes.clear()
            del self._update
            for parameter in self._parameters:
                parameter.grad = None

    def _set(self, numbers: Tensor, values: Sequence[float]) -> None:
        """Overwrite a tensor on the device, without waiting for it."""
        fresh = torch.tensor(values, dtype=numbers.dtype)
        numbers.copy_(fresh.pin_memory() if numbers.is_cuda else fresh, non_blocking=True)

    def _accumulate(self, batch: Batch) -> None:
        """Add a micro-batch's gradients and sums of losses."""
        values = [*_leaves(batch)]
        key = tuple((one.shape, one.dtype) if isinstance(one, Tensor) else one for one in values)
        if key not in self._shapes:
            device = self._ranks.device
            fixed = map_tensors(batch, lambda one: torch.empty_like(one, device=device))
            made = _Recorded(lambda: self._micro_batch_call(fixed), self._record)
            self._shapes[key] = (_tensors(_leaves(fixed)), made)
            if len(self._shapes) > _SHAPES_KEPT:
                self._shapes.popitem(last=False)
        self._shapes.move_to_end(key)
        inputs, call = self._shapes[key]
        torch._foreach_copy_(inputs, _tensors(values), non_blocking=True)
        call()

    def _micro_batch_call(self, batch: Batch) -> None:
        with autocast(self._ranks.device, self._dtype):
            sums, _ = self._objective(self._model, batch, 0)
        torch.dot(sums.float(), self._weights).backward()  # type: ignore[no-untyped-call]
        self._sums.add_(sums.detach())

    def _update_call(self) -> None:
        assert self._numbers is not None
        norm = global_norm(self._parameters)
        divisor = (norm / self._clip_norm).clamp(min=1.0) if self._clip_norm else None
        self._optimizer.update(self._numbers.unbind(), divisor)
        self._found.copy_(torch.cat([norm.reshape(1), self._sums]))
        self._gradients.zero_()
        self._sums.zero_()


class _Recorded:
    """A call that is made once as it is, then recorded, and from then on repeated."""

    def __init__(self, call: Call, record: Recorder) -> None:
        self._call, self._record = call, record
        self._calls = 0

    def __call__(self) -> None:
        if self._calls == 1:
            self._call = self._record(self._call)
        self._calls += 1
        self._call()


class CudaGraphs:
    """Records calls as CUDA graphs, which share their memory, on the current stream.

    Args:
        say: called with a line if a call cannot be recorded; from then on, all calls are made
            operation by operation.
    """

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._pool = torch.cuda.graph_pool_handle()
        self._failed = False

    def __call__(self, call: Call) -> Call:
        """Record a call without running it; return its replay."""
        if self._failed:
            return call
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: the thread that prepares batches may allocate memory meanwhile.
            with torch.cuda.graph(
                graph,
                pool=self._pool,
                stream=torch.cuda.current_stream(),
                capture_error_mode="thread_local",
            ):
                call()
        except Exception as error:
            self._give_up(error)
            return call
        # After a failure the generator no longer seeds the graphs recorded before.
        return lambda: (call if self._failed else graph.replay)()

    def _give_up(self, error: Exception) -> None:
        self._failed = True
        torch.cuda.synchronize()
        # The generator believes that it is still being recorded: it gets a fresh state.
        device = torch.cuda.current_device()
        fresh: Any = torch.Generator(torch.device("cuda", device))
        torch.cuda.default_generators[device].graphsafe_set_state(fresh.graphsafe_get_state())
        # Ending a failed recording raises an error of its own; the first says the reason.
        while isinstance(error.__context__, Exception):
            error = error.__context__
        reason = str(error).strip().partition("\n")[0]
        self._say(f"steps are not recorded as CUDA graphs, and so are slower: {reason}")


def _flat_gradients(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Give all parameters gradients of zero that are views of one buffer; return it."""
    sizes = [-(-one.numel() // _ALIGNMENT) * _ALIGNMENT for one in parameters]
    flat = torch.zeros(sum(sizes), dtype=parameters[0].dtype, device=parameters[0].device)
    for parameter, room in zip(parameters, torch.split(flat, sizes), strict=True):
        parameter.grad = room[: parameter.numel()].view_as(parameter)
    return flat


def _leaves(value: Any) -> Iterator[Any]:
    """Yield the values of a batch, a dataclass of tensors, dataclasses, tuples and others."""
    if dataclasses.is_dataclass(value):
        for item in dataclasses.fields(value):
            yield from _leaves(getattr(value, item.name))
    elif isinstance(value, tuple):
        for one in value:
            yield from _leaves(one)
    else:
        yield value


def _tensors(values: Iterable[Any]) -> list[Tensor]:
    return [one for one in values if isinstance(one, Tensor)]


@contextmanager
def _stream_of_its_own(device: torch.device) -> Iterator[None]:
    if device.type != "cuda":
        yield
        return
    usual, own = torch.cuda.current_stream(device), torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
    own.wait_stream(usual)
    try:
        with torch.cuda.stream(own):
            yield
    finally:
        usual.wait_stream(own)
