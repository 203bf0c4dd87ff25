"""The rows of a corpus that is too large to be planned at once: window by window.

An epoch takes the shards in a random order and cuts this order into windows of about equal size.
The rows of a window are those of a corpus of its shards alone: a pair's random second segment comes
from another document of the window. They are planned when the window is reached, the next window's
meanwhile in a thread. Planning begins with the shards' checksums, that is, with reading them from
their first byte to their last: what rows then take at random is already in memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cached_property, partial
from typing import Any

import numpy as np

from zhbert.data.examples import RowBuilder, ShardLike, make_rows
from zhbert.data.random_streams import WINDOWS, generator
from zhbert.data.row_order import RowSource, WholeCorpus
from zhbert.data.row_plans import IntArray, one_of_two
from zhbert.data.shards import Shards

WHOLE_BYTES = 2_000_000_000
"""A split with fewer bytes of pieces is planned as a whole."""

WINDOW_PIECES = 1 << 27
"""The size of a window: 134 M pieces, 400 MB of Chinese text, a million rows of 128."""

# A window has fewer pieces if sentences are shorter than this: planning takes memory for each.
_SENTENCE_PIECES = 20


class ShardWindows:
    """The rows of every epoch, in windows of shards; those of two windows are held.

    Args:
        shards: the shards.
        sizes: (shards,) their sizes, in pieces.
        make: makes the rows of some shards, which are a window with this number.
        seed: determines which shards form a window, and the order of the windows.
        sequence_length: the maximum number of pieces in a row.
        window_pieces: the size of a window.
    """

    def __init__(
        self,
        shards: Sequence[ShardLike],
        sizes: Sequence[int],
        make: Callable[[Sequence[ShardLike], int], RowBuilder],
        *,
        seed: int,
        sequence_length: int,
        window_pieces: int,
    ) -> None:
        self._shards, self._make, self._seed = shards, make, seed
        self.sequence_length = sequence_length
        self._sizes = np.array(sizes, dtype=np.int64)
        total, largest = int(self._sizes.sum()), int(self._sizes.max())
        # No shard is larger than a window: then none is empty (see _numbers).
        self.windows = max(1, min(round(total / window_pieces), total // largest))
        self._planned: dict[tuple[int, int], Future[RowBuilder]] = {}
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="plan")

    @property
    def rows_per_epoch(self) -> int:
        """The number of rows in the first epoch, estimated from its first window."""
        share = float(self._sizes[self._numbers(0, 0)].sum() / self._sizes.sum())
        return round(self._first_window[0] / share)

    @property
    def random_share(self) -> float | None:
        """The share of the first window's pairs with a random second segment; None: no pairs."""
        return self._first_window[1]

    def order(self, epoch: int, repeated: int) -> IntArray:
        """Return the order of an epoch's windows."""
        # Those of a new order of shards are in a random order as they are.
        if epoch == repeated:
            return np.arange(self.windows)
        return generator(self._seed, WINDOWS, epoch).permutation(self.windows)

    def count(self, epoch: int, window: int) -> int:
        """Return the number of rows in a window."""
        if (epoch, window) in self._planned:
            return self.rows(epoch, window).count(epoch)
        return self._unread(epoch, window).count(epoch)

    def rows(self, epoch: int, window: int) -> RowBuilder:
        """Return what makes a window's rows."""
        return self._being_planned(epoch, window).result()

    def prepare(self, epoch: int, window: int) -> None:
        """Begin to plan the rows of a window, in a thread."""
        self._being_planned(epoch, window)

    def _being_planned(self, epoch: int, window: int) -> Future[RowBuilder]:
        return one_of_two(
            self._planned, (epoch, window), lambda key: self._thread.submit(self._plan, *key)
        )

    def forget(self) -> None:
        """Forget the rows that are planned."""
        self._planned.clear()

    @cached_property
    def _first_window(self) -> tuple[int, float | None]:
        """The number of its rows, and the share of random pairs."""
        rows = self._unread(0, 0)
        return rows.count(0), rows.random_share(0)

    def _unread(self, epoch: int, window: int) -> RowBuilder:
        """Plan a window's rows without reading its pieces: many windows may have to be counted."""
        return self._make(self._members(epoch, window), window)

    def _members(self, epoch: int, window: int) -> list[ShardLike]:
        """Open a window's shards."""
        return [self._shards[number] for number in self._numbers(epoch, window).tolist()]

    def _numbers(self, epoch: int, window: int) -> IntArray:
        """Return which shards form a window: a part of the epoch's random order of them."""
        order = generator(self._seed, WINDOWS, epoch).permutation(len(self._sizes))
        ends = np.cumsum(self._sizes[order])
        # A shard belongs to the window in which its middle lies.
        middles = ends - self._sizes[order] / 2
        return np.sort(order[(middles * self.windows / ends[-1]).astype(np.int64) == window])

    def _plan(self, epoch: int, window: int) -> RowBuilder:
        shards = self._members(epoch, window)
        for shard in shards:
            shard.pieces  # noqa: B018 - the first access compares the checksum
        rows = self._make(shards, window)
        rows.count(epoch)
        return rows


def rows_of_split(
    builder: str,
    shards: Shards,
    *,
    seed: int,
    sequence_length: int,
    whole_bytes: int = WHOLE_BYTES,
    window_pieces: int = WINDOW_PIECES,
    **options: Any,
) -> RowSource:
    """Build the rows of a split, at once or in windows.

    Args:
        builder: ``pairs``, ``full-sentences`` or ``lines``.
        shards: the shards.
        seed: determines the pairs and the windows.
        sequence_length: the maximum number of pieces in a row.
        whole_bytes: a split with fewer bytes of pieces is planned at once.
        window_pieces: the size of a window.
        options: see `make_rows`.

    Raises:
        ZhbertError: the builder is unknown, or the rows are too short.
    """
    make = partial(_make, builder, {"seed": seed, "sequence_length": sequence_length, **options})
    if shards.piece_bytes < whole_bytes:
        return WholeCorpus(make(shards, 0))
    sizes = [
        max(entry["pieces"], _SENTENCE_PIECES * entry["sentences"]) for entry in shards.entries
    ]
    return ShardWindows(
        shards,
        sizes,
        make,
        seed=seed,
        sequence_length=sequence_length,
        window_pieces=window_pieces,
    )


def _make(
    builder: str, options: dict[str, Any], shards: Sequence[ShardLike], window: int
) -> RowBuilder:
    return make_rows(builder, shards, window=window, **options)
