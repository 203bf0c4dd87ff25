"""The rows of each training step, determined by the seed and the epoch number alone."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from zhbert.inference.rows import micro_batches
from zhbert.tasks.rows import LabelledBatch, LabelledRows, gather

# An epoch's rows are sorted by length inside windows of up to 100 batches, which makes the rows of
# a batch nearly equally long. Every data set is cut into at least two windows: sorted as a whole, a
# small one would yield nearly the same batches in every epoch.
BATCHES_PER_WINDOW, WINDOWS = 100, 2


def plan_epoch(
    lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Return the row numbers of each step of an epoch; every row occurs once.

    Rows are shuffled, sorted by length inside windows of many batches and cut into batches; then
    the batches are shuffled.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    window = batch_size * min(BATCHES_PER_WINDOW, max(1, len(order) // (WINDOWS * batch_size)))
    for begin in range(0, len(order), window):
        rows = order[begin : begin + window]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += np.split(rows, range(batch_size, len(rows), batch_size))
    return [batches[number] for number in rng.permutation(len(batches))]


def steps_of(
    rows: LabelledRows,
    *,
    batch_size: int,
    seed: int,
    done: int,
    max_padded_tokens: int,
    max_rows: int = 0,
) -> Iterator[list[LabelledBatch]]:
    """Yield the micro-batches of each step after the first ``done`` steps, without end.

    ``max_padded_tokens`` and ``max_rows`` (0: no limit) are passed to `micro_batches`.
    """
    lengths = rows.lengths
    per_epoch = -(-len(rows) // batch_size)
    epoch, skip = divmod(done, per_epoch)
    while True:
        for chosen in plan_epoch(lengths, batch_size, seed, epoch)[skip:]:
            parts = micro_batches(chosen, lengths, max_padded_tokens, max_rows)
            firsts = np.cumsum([0, *map(len, parts)]).tolist()
            yield [gather(rows, part, first) for part, first in zip(parts, firsts, strict=False)]
        epoch, skip = epoch + 1, 0
