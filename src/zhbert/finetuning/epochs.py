"""The micro-batches of each training step, epoch after epoch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from zhbert.tasks.batches import Batches, BatchLimits
from zhbert.tasks.rows import LabelledBatch


def steps_of(
    batches: Batches, *, batch_size: int, seed: int, done: int, limits: BatchLimits
) -> Iterator[Sequence[LabelledBatch]]:
    """Yield the micro-batches of each step after the first ``done`` steps, without end."""
    epoch, skip = divmod(done, batches.per_epoch(batch_size))
    while True:
        for chosen in batches.plan(batch_size, seed, epoch)[skip:]:
            yield batches.gather(chosen, limits)
        epoch, skip = epoch + 1, 0
