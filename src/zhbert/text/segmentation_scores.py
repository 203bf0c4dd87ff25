"""Two segmentations of one text compared: boundaries, words, and where they differ.

Blanks do not count: a boundary stands between two characters that are none, so that a text whose
words stand apart compares with one that has no blanks at all. A line's start and end are none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from zhbert.text.sentences import Array

# The words of a stretch of text as one side cuts it, and as the other does.
Difference = tuple[tuple[str, ...], tuple[str, ...]]
# Different stretches that are counted at a time: some 100 MB. Beyond it the rarer half is
# forgotten, so that a count may come out too low, but what is frequent stays.
_DISTINCT = 200_000
# Characters of a stretch that are kept: a line that one side does not cut at all is one stretch.
_KEPT = 60


@dataclass(frozen=True)
class Agreement:
    """What one side found, what the other holds, and what both have."""

    found: int
    expected: int
    both: int

    @property
    def precision(self) -> float:
        """The share of what was found that is right; 1 where there was nothing to find."""
        return self.both / self.found if self.found else float(not self.expected)

    @property
    def recall(self) -> float:
        """The share of what is right that was found; 1 where there was nothing to find."""
        return self.both / self.expected if self.expected else float(not self.found)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        total = self.found + self.expected
        return 2 * self.both / total if total else 1.0

    def as_dict(self) -> dict[str, int | float]:
        """All six, for JSON."""
        return {
            "found": self.found,
            "expected": self.expected,
            "both": self.both,
            "precision": self.precision,
            "recall": self.recall,
            "f1": self.f1,
        }


@dataclass(frozen=True)
class _Cuts:
    """A text without its blanks, and where words end in it: int64, increasing, no blank word."""

    text: str
    ends: Array

    def words(self, start: int, end: int) -> tuple[str, ...]:
        """The words of a stretch between two ends, shortened where it is very long."""
        inner = self.ends[(self.ends > start) & (self.ends < end)].tolist()
        words, left = [], _KEPT
        for a, b in pairwise([start, *inner, end]):
            word = self.text[a:b]
            if len(word) > left:
                words.append(word[:left] + "…")
                break
            words.append(word)
            left -= len(word)
        return tuple(words)


def without_blanks(text: str) -> str:
    """The text's characters that are no blanks.

    >>> without_blanks("使用 语言\u3000模型")
    '使用语言模型'
    """
    return "".join(text.split())


def cuts(text: str, ends: Array) -> _Cuts:
    """A segmenter's ends, moved to the text without its blanks.

    >>> cuts("使用 模型", np.array([2, 3, 5])).ends.tolist()
    [2, 4]
    """
    kept = np.zeros(len(text) + 1, np.int64)
    bare = text
    if any(map(str.isspace, text)):
        kept[1:] = np.cumsum([not character.isspace() for character in text])
        bare = without_blanks(text)
    else:
        kept = np.arange(len(text) + 1)
    moved = np.unique(kept[ends])
    return _Cuts(bare, moved[moved > 0])


@dataclass
class SegmentationComparison:
    """What the lines of a text gave so far: ``add`` each, then read the scores.

    >>> comparison = SegmentationComparison()
    >>> text = "研究生命起源"
    >>> comparison.add(text, np.array([3, 4, 6]), text, np.array([2, 4, 6]))
    [(('研究生', '命'), ('研究', '生命'))]
    >>> comparison.boundaries.f1, comparison.words.both
    (0.5, 1)
    """

    lines: int = 0
    lines_different: int = 0
    differences: Counter[Difference] = field(default_factory=Counter)
    _boundaries: tuple[int, int, int] = (0, 0, 0)
    _words: tuple[int, int, int] = (0, 0, 0)

    @property
    def boundaries(self) -> Agreement:
        """Word boundaries inside the lines."""
        return Agreement(*self._boundaries)

    @property
    def words(self) -> Agreement:
        """Words whose start and end both are the other side's, as the SIGHAN bakeoffs count."""
        return Agreement(*self._words)

    def add(self, text: str, ends: Array, other_text: str, other_ends: Array) -> list[Difference]:
        """Count a line; the stretches that the two sides cut differently, in their order.

        The two texts may differ in blanks; ``ends`` are what a segmenter gives for each.
        """
        found, expected = cuts(text, ends), cuts(other_text, other_ends)
        assert found.text == expected.text
        self.lines += 1
        if not len(found.text):
            return []
        common = np.intersect1d(found.ends, expected.ends, assume_unique=True)
        # A word that both have begins and ends where both do, and neither cuts it between.
        found_at = np.searchsorted(found.ends, common)
        expected_at = np.searchsorted(expected.ends, common)
        found_words = np.diff(found_at, prepend=-1)
        expected_words = np.diff(expected_at, prepend=-1)
        same = (found_words == 1) & (expected_words == 1)
        self._boundaries = _plus(
            self._boundaries, (len(found.ends) - 1, len(expected.ends) - 1, len(common) - 1)
        )
        self._words = _plus(
            self._words, (len(found.ends), len(expected.ends), int(np.count_nonzero(same)))
        )
        if same.all():
            return []
        self.lines_different += 1
        starts = np.concatenate(([0], common[:-1]))
        differences = [
            (found.words(start, end), expected.words(start, end))
            for start, end in zip(starts[~same].tolist(), common[~same].tolist(), strict=True)
        ]
        self.differences.update(differences)
        if len(self.differences) > _DISTINCT:
            self.differences = Counter(dict(self.differences.most_common(_DISTINCT // 2)))
        return differences

    def most_frequent(self, number: int) -> list[tuple[Difference, int]]:
        """The stretches that differ most often; equally frequent ones in the text's order."""
        return self.differences.most_common(number)


def _plus(a: tuple[int, int, int], b: Sequence[int]) -> tuple[int, int, int]:
    return a[0] + b[0], a[1] + b[1], a[2] + b[2]
