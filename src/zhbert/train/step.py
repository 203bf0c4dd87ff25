"""One optimiser step: forward, backward and update, operation by operation.

`zhbert.train.graphs` does the same on a GPU without the host's part.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from zhbert.train.distributed import Ranks
from zhbert.train.optim import Optimizer, global_norm
from zhbert.train.prefetch import Batch, pinned, to_device

BatchIn = TypeVar("BatchIn", contravariant=True)

WholeStep = Callable[[nn.Module, Sequence[Batch], int], Sequence[Batch]]


class Objective(Protocol[BatchIn]):
    """A training objective in parts, each with a loss and, in evaluation, an accuracy."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts' names; ``masked_lm`` is logged as ``masked_lm_loss``."""

    def counts(self, batch: BatchIn) -> tuple[int, ...]:
        """Return each part's number of predictions; the batch is on the CPU."""

    def pieces(self, batch: BatchIn) -> int:
        """Return the number of pieces in a micro-batch, without padding."""

    def __call__(self, model: nn.Module, batch: BatchIn, seed: int) -> tuple[Tensor, Tensor]:
        """Return (parts,) summed losses with gradients, and (parts,) counts of right predictions.

        ``seed`` is the same for all micro-batches of a step. Dropout depends on it and on each
        row's index in the global batch, which the micro-batch contains.
        """


class Step(Protocol):
    """A way to make optimiser steps."""

    scale: int
    """The weights must be multiplied by it."""

    def prepared(self, batches: Sequence[Any], seed: int) -> Sequence[Any]:
        """Prepare a step's micro-batches; called in another thread, while earlier steps run."""

    def make(
        self,
        batches: Sequence[Any],
        seed: int,
        *,
        weights: Sequence[float],
        learning_rate: float,
        stopped: Callable[[], object],
    ) -> Tensor | None:
        """Make one step; return the gradient's norm and the parts' sums of losses, (1 + parts,).

        Args:
            batches: this rank's prepared micro-batches.
            seed: the step's seed.
            weights: (parts,) the factors of the summed losses.
            learning_rate: of this step.
            stopped: asked before each micro-batch; if it returns something true, the step is
                dropped and the result is None.
        """

    def running(self) -> AbstractContextManager[None]:
        """Return the context in which steps are made; its end releases the gradients."""


@dataclass
class EagerStep(Generic[Batch]):
    """Steps whose operations the host starts one by one."""

    model: nn.Module
    objective: Objective[Batch]
    optimizer: Optimizer
    ranks: Ranks
    dtype: torch.dtype
    clip_norm: float
    whole_step: WholeStep[Batch] | None = None
    divided: Forward | None = None

    def __post_init__(self) -> None:
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._forward = self.divided or self.ranks.wrap(Forward(self.model))
        # The sums over ranks are needed, but DDP and FSDP average.
        self.scale = self.ranks.world_size

    def prepared(self, batches: Sequence[Batch], seed: int) -> Sequence[Batch]:
        """Put micro-batches into pinned memory for a GPU."""
        return [pinned(batch, self.ranks.device) for batch in batches]

    def make(
        self,
        batches: Sequence[Batch],
        seed: int,
        *,
        weights: Sequence[float],
        learning_rate: float,
        stopped: Callable[[], object],
    ) -> Tensor | None:
        """Make one step, as `Step` says."""
        sums = self._backward(batches, seed, weights, stopped)
        if sums is None:
            self._drop_gradients()
            return None
        norm = global_norm(self._parameters)
        self.optimizer.step(learning_rate, clip_divisor(norm, self.clip_norm))
        self._drop_gradients()
        return torch.cat([norm.reshape(1), self.ranks.sum_tensor(sums)])

    def running(self) -> AbstractContextManager[None]:
        """Do nothing: each step drops its gradients."""
        return nullcontext()

    def _drop_gradients(self) -> None:
        for parameter in self._parameters:
            parameter.grad = None

    def _backward(
        self,
        batches: Sequence[Batch],
        seed: int,
        weights: Sequence[float],
        stopped: Callable[[], object],
    ) -> Tensor | None:
        """Accumulate the gradient of the weighted losses; return this rank's sums, or None."""
        device = self.ranks.device
        factors = torch.tensor(weights).to(device, non_blocking=True)
        total = torch.zeros(len(weights), device=device)
        if self.whole_step is not None:
            moved = [to_device(batch, device) for batch in batches]
            with torch.no_grad(), autocast(device, self.dtype):
                batches = self.whole_step(self.model, moved, seed)
        rounds = self.ranks.most(len(batches)) if self.divided else len(batches)
        for index in range(rounds):
            if stopped():
                return None
            exchange: AbstractContextManager[Any] = nullcontext()
            if self.ranks.connected and not self.divided and index < rounds - 1:
                exchange = cast(Any, self._forward).no_sync()
            # All ranks must call a divided model equally often: some repeat their last micro-batch.
            counts = index < len(batches)
            batch = to_device(batches[index if counts else -1], device)
            with exchange:
                with autocast(device, self.dtype):
                    sums, _ = self._forward(self.objective, batch, seed)
                sums = sums if counts else sums * 0.0
                torch.dot(sums.float(), factors).backward()  # type: ignore[no-untyped-call]
            total += sums.detach()
        return total


class Forward(nn.Module):
    """What an objective does with a model, as the call of a module that DDP or FSDP can wrap."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(
        self, objective: Objective[Batch], batch: Batch, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Return the objective's sums of losses and counts."""
        return objective(self.model, batch, seed)


def clip_divisor(norm: Tensor, clip_norm: float) -> Tensor | None:
    """Return the divisor that makes the gradient's norm at most ``clip_norm``.

    None: the gradient stays unchanged. On a GPU the result is never None, since a comparison here
    would wait for the GPU.
    """
    if not clip_norm or (not norm.is_cuda and not norm.item() > clip_norm):
        return None
    return (norm / clip_norm).clamp(min=1.0)


def mix(*numbers: int) -> int:
    """Mix several numbers into one 63-bit seed; each number affects all of its bits.

    The method is splitmix64: https://prng.di.unimi.it/splitmix64.c
    """
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    """Return the context of mixed precision; for float32 it does nothing."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)
