"""Shards to masked batches, endlessly: a pure function of (seed, step).

Which rows a step holds, and how each is masked, depends on the seed, the epoch and the row's
number alone: not on workers, ranks, micro-batches or where a run was interrupted. An epoch is a
permutation of all rows of the corpus.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from zhbert.data.examples import RowBuilder, TrainingRow
from zhbert.data.masking import IGNORED, Masker
from zhbert.data.random_streams import MASKS, ORDER, ReusableGenerator, generator
from zhbert.errors import ZhbertError
from zhbert.packing import PackedBatch, pack_rows


@dataclass(frozen=True)
class MaskedBatch:
    """Rows with masks, and what stood there; all tensors are on the CPU."""

    packed: PackedBatch
    """the rows, masked"""
    predicted_positions: Tensor
    """(predictions,) int64 into the packed pieces, increasing"""
    labels: Tensor
    """(predictions,) int64: the pieces that stood there"""
    next_sentence_labels: Tensor | None
    """(rows,) int64: 0 B follows A, 1 B is random; None without pairs"""
    dropped_pieces: int
    """pieces cut off to make pairs fit"""
    first_row: int = 0
    """the place of the first row in the step's global batch"""


class PretrainingLoader:
    """Masked batches of rows, without end.

    Args:
        rows: the rows of every epoch (``zhbert.data.examples.make_rows``).
        masker: what masks them.
        batch_size: rows of one optimiser step, over all ranks and micro-batches.
        micro_batch_size: rows of one forward pass; 0: as many as the rank has.
        seed: decides the order of the rows and their masks.
        rank, world_size: this process among those that share each step's rows.
        total_steps: the length of the run, for a masking rate that changes.

    Raises:
        ZhbertError: there are no rows, or fewer rows a step than ranks.
    """

    def __init__(
        self,
        rows: RowBuilder,
        masker: Masker,
        *,
        batch_size: int,
        micro_batch_size: int = 0,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        total_steps: int = 1,
    ) -> None:
        if batch_size < world_size:
            raise ZhbertError(f"batch_size = {batch_size} is less than the {world_size} processes")
        if rows.count(0) == 0:
            raise ZhbertError("the corpus has no rows to train on: is it empty?")
        self._rows = rows
        self._masker = masker
        self._seed = seed
        self._batch_size = batch_size
        self._micro_batch_size = micro_batch_size
        self._rank, self._world_size = rank, world_size
        self._total_steps = max(total_steps, 1)
        self._ends: list[int] = []  # rows of all epochs up to and including this one
        self._orders: dict[int, np.ndarray] = {}
        self._generator = ReusableGenerator()
        self.made_pieces = 0
        """pieces in the rows that ``step`` has made so far"""
        self.dropped_pieces = 0
        """pieces that were cut off these rows to make pairs fit"""

    @property
    def rows_per_epoch(self) -> int:
        """Rows of the first epoch (pairs are drawn anew each epoch: their number varies)."""
        return self._rows.count(0)

    @property
    def random_share(self) -> float | None:
        """Of the first epoch's pairs, those whose second sentence is random; None: no pairs."""
        return self._rows.random_share(0)

    def steps(self, start_step: int = 0) -> Iterator[list[MaskedBatch]]:
        """This rank's micro-batches of step ``start_step``, then of the next one, without end."""
        step = start_step
        while True:
            yield self.step(step)
            step += 1

    def step(self, step: int) -> list[MaskedBatch]:
        """This rank's micro-batches of one step."""
        first = step * self._batch_size
        begin = first + self._batch_size * self._rank // self._world_size
        end = first + self._batch_size * (self._rank + 1) // self._world_size
        size = self._micro_batch_size or end - begin
        # Written so that a run of one step has its first rate, and a longer one ends at the last.
        rate = self._masker.settings.rate_at(step / max(self._total_steps - 1, 1))
        batches = [
            replace(
                self._batch([*map(self._locate, range(start, min(start + size, end)))], rate),
                first_row=start - first,
            )
            for start in range(begin, end, size)
        ]
        self.made_pieces += sum(batch.packed.num_pieces for batch in batches)
        self.dropped_pieces += sum(batch.dropped_pieces for batch in batches)
        return batches

    def evaluation(self, rows: int, *, strategy: str | None = None) -> list[MaskedBatch]:
        """Up to ``rows`` rows of the first epoch, masked in the same way at every call.

        Args:
            rows: how many rows; fewer if the split is smaller.
            strategy: masks of another strategy than the run's, over the same rows.

        Returns:
            batches of ``micro_batch_size`` rows (of ``batch_size`` when that is 0).
        """
        count = min(rows, self._rows.count(0))
        order = self._order(0)[:count].tolist()
        size = self._micro_batch_size or self._batch_size
        return [
            self._batch([(0, row) for row in order[start : start + size]], strategy=strategy)
            for start in range(0, count, size)
        ]

    def _locate(self, number: int) -> tuple[int, int]:
        """Row ``number`` of the endless stream as (epoch, row of the epoch)."""
        while not self._ends or self._ends[-1] <= number:
            last = self._ends[-1] if self._ends else 0
            self._ends.append(last + self._rows.count(self._repeated(len(self._ends))))
        epoch = bisect_right(self._ends, number)
        within = number - (self._ends[epoch - 1] if epoch else 0)
        return epoch, int(self._order(epoch)[within])

    def _repeated(self, epoch: int) -> int:
        """The epoch whose rows and masks this one has: an earlier one where masks are static."""
        static = self._masker.settings.static_masks
        return epoch % static if static else epoch

    def _order(self, epoch: int) -> np.ndarray:
        if epoch not in self._orders:
            while len(self._orders) >= 2:  # a batch may span two epochs
                del self._orders[next(iter(self._orders))]
            rng = generator(self._seed, ORDER, epoch)
            self._orders[epoch] = rng.permutation(self._rows.count(self._repeated(epoch)))
        return self._orders[epoch]

    def _batch(
        self,
        places: Sequence[tuple[int, int]],
        rate: float | None = None,
        strategy: str | None = None,
    ) -> MaskedBatch:
        """The rows at these (epoch, row of the epoch), masked."""
        rows: list[TrainingRow] = []
        all_labels: list[np.ndarray] = []
        for epoch, index in places:
            epoch = self._repeated(epoch)
            rng = self._generator.at(self._seed, MASKS, epoch, index)
            row = self._rows.row(epoch, index, rng)
            rows.append(row)
            all_labels.append(
                self._masker.mask(row.piece_ids, row.word_starts, rng, rate=rate, strategy=strategy)
            )
        inputs = np.concatenate([row.piece_ids for row in rows])
        lengths = np.array([len(row.piece_ids) for row in rows])
        first_lengths = np.array([row.first_length for row in rows])
        labels = np.concatenate(all_labels)
        predicted = np.flatnonzero(labels != IGNORED)
        pairs = [row.next_sentence_label for row in rows]
        return MaskedBatch(
            packed=pack_rows(inputs, lengths, first_lengths),
            predicted_positions=torch.from_numpy(predicted),
            labels=torch.from_numpy(labels[predicted]),
            next_sentence_labels=None if pairs[0] is None else torch.tensor(pairs),
            dropped_pieces=sum(row.dropped for row in rows),
        )


class GrowingRows:
    """The first steps from loaders of short rows, all others from the last loader.

    All of them count the run's steps, so that a step's rows do not depend on where a run was
    interrupted; what a loader would have given at the others' steps is passed over.

    Args:
        short: loaders of short rows, each with the step at which its steps end, increasing.
        last: what all later steps come from.
    """

    def __init__(
        self, short: Sequence[tuple[int, PretrainingLoader]], last: PretrainingLoader
    ) -> None:
        self._short, self._last = short, last

    def steps(self, start_step: int = 0) -> Iterator[list[MaskedBatch]]:
        """This rank's micro-batches of step ``start_step``, then of the next one, without end."""
        begin = start_step
        for end, loader in self._short:
            for step in range(begin, end):
                yield loader.step(step)
            begin = max(begin, end)
        yield from self._last.steps(begin)

    @property
    def rows_per_epoch(self) -> int:
        """Long rows of the first epoch."""
        return self._last.rows_per_epoch

    @property
    def random_share(self) -> float | None:
        """Of the first epoch's long pairs, those whose second sentence is random."""
        return self._last.random_share

    @property
    def made_pieces(self) -> int:
        """Pieces in the rows made so far."""
        return sum(loader.made_pieces for loader in self._all())

    @property
    def dropped_pieces(self) -> int:
        """Pieces that were cut off these rows to make pairs fit."""
        return sum(loader.dropped_pieces for loader in self._all())

    def _all(self) -> list[PretrainingLoader]:
        return [*(loader for _, loader in self._short), self._last]
