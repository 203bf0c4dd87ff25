"""The order of rows: which row of which epoch stands at each place of an endless stream.

The stream goes through the epochs, through the windows of each epoch, and through the rows of each
window. A corpus that memory can hold is one window, and its epochs are permutations of all rows. A
larger one has many (``row_windows``), and only those that are being read are planned.

Place n of the stream depends on the seed and on n, not on how one came there: to find it, the rows
of the windows before it are counted, once.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from zhbert.data.examples import RowBuilder
from zhbert.data.random_streams import ORDER, generator
from zhbert.data.row_plans import IntArray, one_of_two

# A row's number in its epoch, by which its masks are drawn, has its window above these bits. There
# is room for 2^12 windows (see random_streams), and none has so many pieces, let alone rows.
_WINDOW_BITS = 28


class RowSource(Protocol):
    """The rows of every epoch, in windows."""

    @property
    def sequence_length(self) -> int:
        """The maximum number of pieces in a row."""

    @property
    def windows(self) -> int:
        """The number of windows of an epoch."""

    @property
    def rows_per_epoch(self) -> int:
        """The number of rows in the first epoch; an estimate if there are several windows."""

    @property
    def random_share(self) -> float | None:
        """The share of the first window's pairs with a random second segment; None: no pairs."""

    def order(self, epoch: int, repeated: int) -> IntArray:
        """Return the order of an epoch's windows; their rows are those of epoch ``repeated``."""

    def count(self, epoch: int, window: int) -> int:
        """Return the number of rows in a window."""

    def rows(self, epoch: int, window: int) -> RowBuilder:
        """Return what makes a window's rows, numbered from 0 in each window."""

    def prepare(self, epoch: int, window: int) -> None:
        """Begin to plan the rows of a window that will be needed next."""

    def forget(self) -> None:
        """Free the memory of what is planned; it is planned again when needed."""


class WholeCorpus:
    """Rows that are planned all at once: one window."""

    windows = 1

    def __init__(self, rows: RowBuilder) -> None:
        self._rows = rows

    @property
    def sequence_length(self) -> int:
        """The maximum number of pieces in a row."""
        return self._rows.sequence_length

    @property
    def rows_per_epoch(self) -> int:
        """The number of rows in the first epoch."""
        return self._rows.count(0)

    @property
    def random_share(self) -> float | None:
        """The share of the first epoch's pairs with a random second segment; None: no pairs."""
        return self._rows.random_share(0)

    def order(self, epoch: int, repeated: int) -> IntArray:
        """Return the order of the one window."""
        return np.zeros(1, np.int64)

    def count(self, epoch: int, window: int) -> int:
        """Return the number of rows in the epoch."""
        return self._rows.count(epoch)

    def rows(self, epoch: int, window: int) -> RowBuilder:
        """Return what makes all rows."""
        return self._rows

    def prepare(self, epoch: int, window: int) -> None:
        """Do nothing: rows are planned when they are counted."""

    def forget(self) -> None:
        """Do nothing: they are all needed."""


@dataclass(frozen=True)
class Stretch:
    """Consecutive rows of the stream that stand in one window."""

    rows: RowBuilder
    """makes them"""
    epoch: int
    """the epoch whose rows and masks they are: an earlier one than theirs if masks are static"""
    indices: IntArray
    """(n,) their numbers for ``rows``"""
    base: int
    """plus an index: the row's number in the epoch, on which its masks depend"""


class RowOrder:
    """The order of the rows of a source.

    Args:
        source: the rows.
        seed: determines the order.
        static_masks: the rows and masks of the first so many epochs are used again and again, in
            another order; 0: every epoch has its own.
        ends: what another order of these rows had in ``ends``.
    """

    def __init__(
        self, source: RowSource, *, seed: int, static_masks: int = 0, ends: Sequence[int] = ()
    ) -> None:
        self._source, self._seed, self._static_masks = source, seed, static_masks
        self._visits: list[tuple[int, int]] = []  # (epoch, window), as the stream goes
        self.ends = list(ends)
        """number of rows up to the end of each visit to a window, as far as they are counted"""
        self._orders: dict[int, IntArray] = {}
        self._inverses: dict[int, IntArray] = {}

    def stretches(self, begin: int, end: int) -> Iterator[Stretch]:
        """Yield the rows at the places ``begin`` to ``end`` of the stream, in order."""
        while begin < end:
            visit = self._find(begin)
            first, stop = self._begin(visit), min(end, self.ends[visit])
            epoch, window = self._repeated(visit)
            rows = self._source.rows(epoch, window)
            self._source.prepare(*self._repeated(visit + 1))
            indices = self._order(visit)[begin - first : stop - first]
            yield Stretch(rows, epoch, indices, window << _WINDOW_BITS)
            begin = stop

    def firsts(self, begin: int, end: int) -> IntArray:
        """Return, for places of the stream, the first place that has the same row and masks.

        Returns:
            (end - begin,) places, none greater than the row's own
        """
        numbers = np.arange(begin, end)
        if not self._static_masks or not len(numbers):
            return numbers
        self._find(end - 1)
        visits = np.searchsorted(self.ends, numbers, "right")
        for visit in np.unique(visits).tolist():
            if (repeated := self._repeated(visit)) != self._visits[visit]:
                first = self._visits.index(repeated)
                here = visits == visit
                rows = self._order(visit)[numbers[here] - self._begin(visit)]
                numbers[here] = self._inverse(first)[rows] + self._begin(first)
        return numbers

    def in_first_epoch(self, rows: int) -> int:
        """Return how many of the stream's first ``rows`` rows belong to the first epoch."""
        windows = self._source.windows
        while len(self.ends) < windows and (not self.ends or self.ends[-1] < rows):
            self._count_next()
        return min(rows, self.ends[min(windows, len(self.ends)) - 1])

    def _find(self, number: int) -> int:
        """Return the number of the visit, counted over all epochs, to which a row belongs."""
        while not self.ends or self.ends[-1] <= number:
            self._count_next()
        return bisect_right(self.ends, number)

    def _count_next(self) -> None:
        count = self._source.count(*self._repeated(len(self.ends)))
        self.ends.append(count + (self.ends[-1] if self.ends else 0))

    def _begin(self, visit: int) -> int:
        """Return the place of a visit's first row."""
        return self.ends[visit - 1] if visit else 0

    def _window(self, visit: int) -> tuple[int, int]:
        """Return which window is visited, as (epoch, window)."""
        while visit >= len(self._visits):
            epoch = len(self._visits) // self._source.windows
            order = self._source.order(epoch, self._source_epoch(epoch))
            self._visits += [(epoch, window) for window in order.tolist()]
        return self._visits[visit]

    def _source_epoch(self, epoch: int) -> int:
        """Return the epoch whose rows and masks are used: an earlier one if masks are static."""
        return epoch % self._static_masks if self._static_masks else epoch

    def _repeated(self, visit: int) -> tuple[int, int]:
        """Return whose rows and masks a visit has, as (epoch, window)."""
        epoch, window = self._window(visit)
        return self._source_epoch(epoch), window

    def _order(self, visit: int) -> IntArray:
        return one_of_two(self._orders, visit, self._permutation)

    def _inverse(self, visit: int) -> IntArray:
        """Return where each row of a visited window stands in the visit's order."""
        return one_of_two(self._inverses, visit, lambda one: np.argsort(self._permutation(one)))

    def _permutation(self, visit: int) -> IntArray:
        rng = generator(self._seed, ORDER, *self._window(visit))
        return rng.permutation(self.ends[visit] - self._begin(visit))
