"""Rows -> masked batches: the batches of a step are a pure function of the seed and the step.

The rows of a step and their masks depend only on the seed, the epoch and the row's number in it;
not on the number of ranks, the micro-batches, or the step at which a run was interrupted. An epoch
is a permutation of all rows of the corpus, or of a large corpus's windows and of their rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np
import torch
from torch import Tensor

from zhbert.data.examples import ShardArrays, TrainingRow
from zhbert.data.masking import IGNORED, IntArray, Masker
from zhbert.data.random_streams import MASKS, ReusableGenerator, row_keys
from zhbert.data.row_order import RowOrder, RowSource, Stretch
from zhbert.errors import ZhbertError
from zhbert.packing import PackedBatch, pack_rows

try:
    from zhbert.data import _rows
except ImportError:  # not compiled: batches are made in Python, with the same results, slowly
    _rows = None  # type: ignore[assignment]

PIECES_PER_THREAD = 32_768
"""A thread for fewer pieces would take longer to start than it saves."""


@dataclass(frozen=True)
class MaskedBatch:
    """Masked rows and the labels of their predicted pieces; all tensors are on the CPU."""

    packed: PackedBatch
    """the rows, masked"""
    predicted_positions: Tensor
    """(predictions,) int64 into the packed pieces, increasing"""
    labels: Tensor
    """(predictions,) int64: the original pieces at these positions"""
    next_sentence_labels: Tensor | None
    """(rows,) int64: 0 if segment B follows A, 1 if it is random; None without pairs"""
    dropped_pieces: int
    """number of pieces that were cut off to make pairs fit"""
    first_row: int = 0
    """index of the first row among the step's rows of all ranks"""


class PretrainingLoader:
    """An endless stream of masked batches.

    Args:
        rows: the rows of every epoch (``zhbert.data.row_windows.rows_of_split``).
        masker: masks them.
        batch_size: rows of one optimiser step, over all ranks and micro-batches.
        micro_batch_size: rows of one forward pass; 0: all rows of the rank.
        seed: determines the order of the rows and their masks.
        rank, world_size: this process's number, and how many processes share each step's rows.
        total_steps: number of steps of the run, for a masking rate that changes.
        window_ends: what another loader of these rows had in ``window_ends``; this saves counting
            the rows of windows again.
        threads: how many make the rows of a micro-batch.

    Raises:
        ZhbertError: there are no rows, or a step has fewer rows than there are ranks.
    """

    def __init__(
        self,
        rows: RowSource,
        masker: Masker,
        *,
        batch_size: int,
        micro_batch_size: int = 0,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        total_steps: int = 1,
        window_ends: Sequence[int] = (),
        threads: int = 1,
    ) -> None:
        if batch_size < world_size:
            raise ZhbertError(f"batch_size = {batch_size} is less than the {world_size} processes")
        if rows.rows_per_epoch == 0:
            raise ZhbertError("the corpus has no rows to train on: is it empty?")
        self._rows = rows
        self._order = RowOrder(
            rows, seed=seed, static_masks=masker.settings.static_masks, ends=window_ends
        )
        self._masker = masker
        self._seed = seed
        self._batch_size = batch_size
        self._micro_batch_size = micro_batch_size
        self._rank, self._world_size = rank, world_size
        self._total_steps = max(total_steps, 1)
        self._threads = threads
        self._generator = ReusableGenerator()
        self.made_pieces = 0
        """number of pieces in the rows that ``step`` has made so far"""
        self.dropped_pieces = 0
        """number of pieces that were cut off these rows to make pairs fit"""

    @property
    def sequence_length(self) -> int:
        """The maximum number of pieces in a row."""
        return self._rows.sequence_length

    @property
    def batch_size(self) -> int:
        """Number of rows of one step, over all ranks."""
        return self._batch_size

    @property
    def rows_per_epoch(self) -> int:
        """Number of rows in the first epoch. (The number of pairs varies between epochs.)

        It is an estimate if there are several windows.
        """
        return self._rows.rows_per_epoch

    @property
    def windows(self) -> int:
        """Number of windows of an epoch: 1, unless the corpus is large."""
        return self._rows.windows

    @property
    def window_ends(self) -> list[int]:
        """Number of rows up to the end of each window of the stream that has been reached."""
        return self._order.ends if self._rows.windows > 1 else []

    @property
    def random_share(self) -> float | None:
        """Share of the first epoch's pairs with a random second segment; None: no pairs."""
        return self._rows.random_share

    def steps(self, start_step: int = 0) -> Iterator[list[MaskedBatch]]:
        """Yield this rank's micro-batches of each step from ``start_step`` on, without end."""
        step = start_step
        while True:
            yield self.step(step)
            step += 1

    def step(self, step: int) -> list[MaskedBatch]:
        """Make this rank's micro-batches of one step."""
        first = step * self._batch_size
        begin = first + self._batch_size * self._rank // self._world_size
        end = first + self._batch_size * (self._rank + 1) // self._world_size
        batches = list(self.rows(begin, end))
        self.made_pieces += sum(batch.packed.num_pieces for batch in batches)
        self.dropped_pieces += sum(batch.dropped_pieces for batch in batches)
        return batches

    def rows(self, begin: int, end: int) -> Iterator[MaskedBatch]:
        """Make rows of the endless stream, as the steps that they belong to do, in micro-batches.

        Args:
            begin, end: numbers of rows, counted from 0; step s has those from s * batch_size on.
        """
        while begin < end:
            step = begin // self._batch_size
            first = step * self._batch_size
            size = self._micro_batch_size or self._batch_size
            stop = min(begin + size, first + self._batch_size, end)
            # A run of one step has the first rate; longer ones reach the last rate in their last.
            rate = self._masker.settings.rate_at(step / max(self._total_steps - 1, 1))
            batch = self._batch(self._order.stretches(begin, stop), rate)
            yield replace(batch, first_row=begin - first)
            begin = stop

    def forget(self) -> None:
        """Free the memory of the rows that are planned; they are planned again when needed."""
        self._rows.forget()

    def firsts(self, begin: int, end: int) -> IntArray:
        """Return, for rows of the endless stream, the number of the first row that is the same.

        That is a row with the same pieces and the same masks: with ``masking.static_masks``, epochs
        repeat, in another order. (Not if the masking rate changes: then all masks differ.)

        Returns:
            (end - begin,) numbers of rows, none greater than the row's own
        """
        if self._masker.settings.final_rate is not None:
            return np.arange(begin, end)
        return self._order.firsts(begin, end)

    def evaluation(self, rows: int, *, strategy: str | None = None) -> list[MaskedBatch]:
        """Make batches of the first epoch's rows, with the same masks in every call.

        Args:
            rows: number of rows; fewer if the split is smaller.
            strategy: masking strategy to use instead of the masker's.

        Returns:
            batches of ``micro_batch_size`` rows (of ``batch_size`` rows if that is 0).
        """
        count = self._order.in_first_epoch(rows)
        size = self._micro_batch_size or self._batch_size
        return [
            self._batch(self._order.stretches(start, min(start + size, count)), strategy=strategy)
            for start in range(0, count, size)
        ]

    def _batch(
        self,
        stretches: Iterable[Stretch],
        rate: float | None = None,
        strategy: str | None = None,
    ) -> MaskedBatch:
        """Mask rows as one batch."""
        native = self._masker.native_strategy(strategy)
        if _rows is None or native is None:
            return self._plain_batch(stretches, rate, strategy)
        stretches = list(stretches)
        max_pair_pieces = stretches[0].rows.max_pair_pieces
        shards, plan = _planned(stretches)
        keys = [
            row_keys(self._seed, MASKS, stretch.epoch, stretch.base + stretch.indices)
            for stretch in stretches
        ]
        *made, longest, dropped = _rows.make_batch(
            shards,
            plan,
            keys[0][0],
            np.concatenate([of_rows for _, of_rows in keys]),
            max_pair_pieces,
            *native,
            self._masker.settings.rate if rate is None else rate,
            self._masker.native_settings,
            min(self._threads, 1 + int(plan[:, [1, 3]].sum()) // PIECES_PER_THREAD),
        )
        pieces, token_types, positions, begins, predicted, labels, pairs = (
            torch.from_numpy(np.frombuffer(array, np.int32 if place == 3 else np.int64))
            for place, array in enumerate(made)
        )
        return MaskedBatch(
            packed=PackedBatch(pieces, token_types, positions, begins, longest),
            predicted_positions=predicted,
            labels=labels,
            next_sentence_labels=pairs if max_pair_pieces >= 0 else None,
            dropped_pieces=dropped,
        )

    def _plain_batch(
        self, stretches: Iterable[Stretch], rate: float | None, strategy: str | None
    ) -> MaskedBatch:
        """Do the same in Python: for strategies from outside, or without the native module."""
        rows: list[TrainingRow] = []
        all_labels: list[np.ndarray] = []
        for stretch in stretches:
            for index in stretch.indices.tolist():
                rng = self._generator.at(self._seed, MASKS, stretch.epoch, stretch.base + index)
                row = stretch.rows.row(stretch.epoch, index, rng)
                rows.append(row)
                all_labels.append(
                    self._masker.mask(
                        row.piece_ids, row.word_starts, rng, rate=rate, strategy=strategy
                    )
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


def _planned(stretches: Sequence[Stretch]) -> tuple[tuple[ShardArrays, ...], IntArray]:
    """Return the shards' arrays and the plans of all these rows."""
    shards: list[ShardArrays] = []
    plans = []
    for number, stretch in enumerate(stretches):
        plan = stretch.rows.plan(stretch.epoch, stretch.indices)
        shift = number << 44  # each stretch may count pieces from another first shard on
        shards += [(shift + arrays[0], *arrays[1:]) for arrays in stretch.rows.arrays(plan)]
        plans.append(plan + np.array([shift, 0, shift, 0, 0]))
    return tuple(shards), np.concatenate(plans)


class GrowingRows:
    """A sequence of loaders for a run that begins with shorter rows.

    Each loader gets the run's step numbers, so that a step's rows do not depend on the step at
    which a run was interrupted. (Each loader skips the batches of the others' steps.)

    Args:
        short: loaders of short rows, each with the (increasing) step before which it ends.
        last: the loader of all later steps.
    """

    def __init__(
        self, short: Sequence[tuple[int, PretrainingLoader]], last: PretrainingLoader
    ) -> None:
        self._short, self._last = short, last

    def steps(self, start_step: int = 0) -> Iterator[list[MaskedBatch]]:
        """Yield this rank's micro-batches of each step from ``start_step`` on, without end."""
        for step in count(start_step):
            for end, loader in self._short:
                if end == step:
                    loader.forget()
            yield self.loader_at(step).step(step)

    def loader_at(self, step: int) -> PretrainingLoader:
        """Return the loader that makes a step's rows."""
        return next((loader for end, loader in self._short if step < end), self._last)

    def stretches(self, begin: int, end: int) -> Iterator[tuple[PretrainingLoader, int, int]]:
        """Yield each loader with the range of steps that it makes of those from ``begin`` on."""
        for stop, loader in (*self._short, (end, self._last)):
            if begin < (stop := min(stop, end)):
                yield loader, begin, stop
                begin = stop

    @property
    def rows_per_epoch(self) -> int:
        """Number of rows in the last loader's first epoch."""
        return self._last.rows_per_epoch

    @property
    def windows(self) -> int:
        """Number of windows of its epochs."""
        return self._last.windows

    @property
    def window_ends(self) -> dict[str, list[int]]:
        """The loaders' ``window_ends``, by the length of their rows."""
        ends = {str(loader.sequence_length): loader.window_ends for loader in self._all()}
        return {length: numbers for length, numbers in ends.items() if numbers}

    @property
    def random_share(self) -> float | None:
        """Share of the last loader's pairs with a random second segment; None: no pairs."""
        return self._last.random_share

    @property
    def made_pieces(self) -> int:
        """Number of pieces in the rows made so far."""
        return sum(loader.made_pieces for loader in self._all())

    @property
    def dropped_pieces(self) -> int:
        """Number of pieces that were cut off these rows to make pairs fit."""
        return sum(loader.dropped_pieces for loader in self._all())

    def _all(self) -> list[PretrainingLoader]:
        return [*(loader for _, loader in self._short), self._last]
