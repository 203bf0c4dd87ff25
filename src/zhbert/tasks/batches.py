"""Which rows each training step takes, determined by the seed and the epoch number alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from zhbert.inference.rows import micro_batches, padding_share
from zhbert.tasks.rows import LabelledBatch, LabelledRows, gather

Numbers = NDArray[np.int64]

# An epoch's rows are sorted by length inside windows of up to 100 batches, which makes the rows of
# a batch nearly equally long. Every data set is cut into at least two windows: sorted as a whole, a
# small one would yield nearly the same batches in every epoch.
BATCHES_PER_WINDOW, WINDOWS = 100, 2


@dataclass(frozen=True)
class BatchLimits:
    """The size of one forward pass, and of a step's passes together."""

    max_padded_tokens: int
    """The largest forward pass, as rows times the longest row's length."""
    max_rows: int = 0
    """The most rows of a forward pass; 0: no limit."""
    max_kept_tokens: int = 0
    """The padded tokens whose activations memory can hold; used by losses of a whole batch."""


class Batches(Protocol):
    """The batches of a training set; what a step takes is numbered by rows or by examples."""

    def per_epoch(self, batch_size: int) -> int:
        """Return the number of steps of an epoch."""

    def plan(self, batch_size: int, seed: int, epoch: int) -> list[Numbers]:
        """Return what each step of an epoch takes; everything occurs once."""

    def parts_of(self, chosen: Numbers, limits: BatchLimits) -> list[Numbers]:
        """Return the row numbers of a step that takes ``chosen``, in parts of similar length."""

    def gather(self, chosen: Numbers, limits: BatchLimits) -> Sequence[LabelledBatch]:
        """Return the micro-batches of a step that takes ``chosen``."""


@dataclass(frozen=True)
class RowBatches:
    """Batches of ``batch_size`` rows, of which each has a loss of its own."""

    rows: LabelledRows

    def per_epoch(self, batch_size: int) -> int:
        """Return the number of steps of an epoch."""
        return -(-len(self.rows) // batch_size)

    def plan(self, batch_size: int, seed: int, epoch: int) -> list[Numbers]:
        """Return the row numbers of each step of an epoch; every row occurs once."""
        return plan_epoch(self.rows.lengths, batch_size, seed, epoch)

    def parts_of(self, chosen: Numbers, limits: BatchLimits) -> list[Numbers]:
        """Return ``chosen``, which is of similar length."""
        return [chosen]

    def gather(self, chosen: Numbers, limits: BatchLimits) -> list[LabelledBatch]:
        """Return the chosen rows in parts of limited size."""
        lengths = self.rows.lengths
        parts = micro_batches(chosen, lengths, limits.max_padded_tokens, limits.max_rows)
        firsts = np.cumsum([0, *map(len, parts)]).tolist()
        return [gather(self.rows, part, first) for part, first in zip(parts, firsts, strict=False)]


def plan_epoch(lengths: Numbers, batch_size: int, seed: int, epoch: int) -> list[Numbers]:
    """Return the row numbers of each step of an epoch; every row occurs once.

    Rows are shuffled, sorted by length inside windows of many batches and cut into batches; then
    the batches are shuffled.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches: list[Numbers] = []
    window = batch_size * min(BATCHES_PER_WINDOW, max(1, len(order) // (WINDOWS * batch_size)))
    for begin in range(0, len(order), window):
        rows = order[begin : begin + window]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += np.split(rows, range(batch_size, len(rows), batch_size))
    return [batches[number] for number in rng.permutation(len(batches))]


def steps_of(
    batches: Batches, *, batch_size: int, seed: int, done: int, limits: BatchLimits
) -> Iterator[Sequence[LabelledBatch]]:
    """Yield the micro-batches of each step after the first ``done`` steps, without end."""
    epoch, skip = divmod(done, batches.per_epoch(batch_size))
    while True:
        for chosen in batches.plan(batch_size, seed, epoch)[skip:]:
            yield batches.gather(chosen, limits)
        epoch, skip = epoch + 1, 0


def planned_padding(
    batches: Batches, lengths: Numbers, batch_size: int, seed: int, limits: BatchLimits
) -> float:
    """Return the share of padding if each part of an epoch were padded to its longest row."""
    plan = batches.plan(batch_size, seed, 0)
    parts = [part for chosen in plan for part in batches.parts_of(chosen, limits)]
    return padding_share(lengths, parts)
