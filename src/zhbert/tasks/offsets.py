"""Positions of quotations in their contexts, in whatever unit a file counts offsets."""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

UNITS = {"UTF-16 units": ("utf-16-le", 2), "bytes": ("utf-8", 1)}
"""Units of offsets other than code points: the encoding, and the bytes of one unit."""


def whole_number(value: Any) -> int | None:
    """Return a whole number in any spelling, or None.

    >>> [whole_number(value) for value in (25, "25", 25.0, "25.0", 2.5, True, "x", None)]
    [25, 25, 25, 25, None, None, None, None]
    """
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return int(number) if number.is_integer() else None


class Offsets:
    """Finds a file's quotations, and counts those that are not at the stated offset.

    An offset is read as UTF-16 units (as in JavaScript and Java) or bytes of UTF-8 if the quotation
    is at that position, unless an earlier quotation has shown that the file counts code points.

    >>> offsets = Offsets(counts := Counter(), "answers")
    >>> offsets.place("😀甲乙甲乙", "乙", 5), dict(counts)
    (4, {'answers whose places are counted in UTF-16 units': 1})
    """

    def __init__(self, counts: Counter[str], what: str) -> None:
        self._counts, self._what = counts, what
        self._possible = list(UNITS)

    def place(self, context: str, quoted: str, start: int) -> int:
        """Return a quotation's begin in code points, at or near ``start``; -1: not found."""
        place = nearest_place(context, quoted, start)
        if place < 0:
            self._counts[f"{self._what} that do not stand in their text"] += 1
            return place
        if place == start:
            for unit in list(self._possible):
                if not context.isascii() and place_in(context, start, unit) != start:
                    self._possible.remove(unit)
            return place
        for unit in self._possible if start >= 0 else ():
            there = place_in(context, start, unit)
            if there not in (-1, start) and context.startswith(quoted, there):
                self._counts[f"{self._what} whose places are counted in {unit}"] += 1
                return there
        self._counts[f"{self._what} found again, not where the file says"] += 1
        return place


def place_in(text: str, place: int, unit: str) -> int:
    """Convert an offset from one of UNITS to code points; -1: inside a character.

    >>> place_in("😀甲", 2, "UTF-16 units"), [place_in("甲乙", place, "bytes") for place in (3, 4)]
    (1, [1, -1])
    """
    encoding, size = UNITS[unit]
    before = text.encode(encoding, "surrogatepass")[: max(0, place) * size]
    try:
        return len(before.decode(encoding))
    except UnicodeDecodeError:
        return -1


def nearest_place(context: str, quoted: str, start: int) -> int:
    """Return a quotation's begin: ``start``, or the nearest occurrence, or -1.

    >>> [nearest_place("甲乙甲乙", "乙", start) for start in (1, 4)], nearest_place("甲", "丙", 0)
    ([1, 3], -1)
    """
    if start < 0:
        return context.find(quoted)
    before = context.rfind(quoted, 0, start + len(quoted))
    after = context.find(quoted, start)
    if before < 0 or after < 0:
        return max(before, after)
    return before if start - before <= after - start else after
