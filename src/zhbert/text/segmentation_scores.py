"""Comparison of two segmentations of one text: word boundaries, words and differences.

Blanks are ignored, so that a text with blanks between its words can be compared with one without
any. The start and end of a line are not boundaries.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.text.segmenters import Segmenter, load_segmenter
from zhbert.text.segmenters.protocol import word_ends_of
from zhbert.text.sentences import Array

Difference = tuple[tuple[str, ...], tuple[str, ...]]
"""The words of a passage that two sides cut differently: A's words, B's words."""

# Maximum number of distinct differences that are counted (some 100 MB). Beyond that, the rarer half
# is dropped, so that a count may be too low; the frequent ones stay.
_DISTINCT = 200_000
# Characters kept of a difference: it may be as long as a line, if one side does not cut that.
_KEPT = 60
# Differences kept in an example of a line: a line may have a megabyte.
_OF_A_LINE = 5


@dataclass(frozen=True)
class Agreement:
    """Counts of words or boundaries: found by one side, expected by the other, common to both."""

    found: int = 0
    expected: int = 0
    both: int = 0

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(
            self.found + other.found, self.expected + other.expected, self.both + other.both
        )

    @property
    def precision(self) -> float:
        """The share of ``both`` in ``found``, 0 to 1; 1 if neither side has any."""
        return self.both / self.found if self.found else float(not self.expected)

    @property
    def recall(self) -> float:
        """The share of ``both`` in ``expected``, 0 to 1; 1 if neither side has any."""
        return self.both / self.expected if self.expected else float(not self.found)

    @property
    def f1(self) -> float:
        """The harmonic mean of precision and recall."""
        total = self.found + self.expected
        return 2 * self.both / total if total else 1.0

    def as_dict(self) -> dict[str, int | float]:
        """Return the three counts and the three scores for JSON."""
        names = ("found", "expected", "both", "precision", "recall", "f1")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class _Cuts:
    """A text without blanks, and the ends of its words without blank ones: int64, increasing."""

    text: str
    ends: Array

    def words(self, start: int, end: int) -> tuple[str, ...]:
        """Return the words between two ends, truncated after 60 characters."""
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
    """Remove the blanks from a text.

    >>> without_blanks("使用 语言\u3000模型")
    '使用语言模型'
    """
    return "".join(text.split())


def cuts(text: str, ends: Array) -> _Cuts:
    """Convert a text and its word ends to the text without its blanks.

    >>> cuts("使用 模型", np.array([2, 3, 5])).ends.tolist()
    [2, 4]
    """
    bare = without_blanks(text)
    places = np.arange(len(text) + 1)
    if len(bare) < len(text):
        places[1:] = np.cumsum([not character.isspace() for character in text])
    moved = np.unique(places[ends])
    return _Cuts(bare, moved[moved > 0])


class DifferingLine(NamedTuple):
    """A line that the two sides cut differently: its first differences, and how many follow."""

    line: int
    differences: list[Difference]
    more: int


@dataclass
class SegmentationComparison:
    """A line-by-line comparison of two segmentations: ``add`` the lines, then read the scores.

    ``top``: maximum number of differing lines in ``examples``.

    >>> comparison = SegmentationComparison()
    >>> text = "研究生命起源"
    >>> comparison.add(text, np.array([3, 4, 6]), text, np.array([2, 4, 6]))
    [(('研究生', '命'), ('研究', '生命'))]
    >>> comparison.boundaries.f1, comparison.words.both
    (0.5, 1)
    """

    top: int = 10
    lines: int = 0
    lines_different: int = 0
    examples: list[DifferingLine] = field(default_factory=list)
    differences: Counter[Difference] = field(default_factory=Counter)
    boundaries: Agreement = Agreement()
    """Word boundaries inside the lines."""
    words: Agreement = Agreement()
    """Words with the same start and end on both sides, as the SIGHAN bakeoffs count them
    (https://aclanthology.org/I05-3017/)."""

    def add(self, text: str, ends: Array, other_text: str, other_ends: Array) -> list[Difference]:
        """Count a line; return the passages that the two sides cut differently, in order.

        The two texts may differ in blanks. ``ends`` and ``other_ends`` are the results of
        ``Segmenter.segment`` for each.
        """
        found, expected = cuts(text, ends), cuts(other_text, other_ends)
        assert found.text == expected.text
        self.lines += 1
        if not len(found.text):
            return []
        common = np.intersect1d(found.ends, expected.ends, assume_unique=True)
        # There is a common word between two common ends if neither side cuts there.
        found_at = np.searchsorted(found.ends, common)
        expected_at = np.searchsorted(expected.ends, common)
        found_words = np.diff(found_at, prepend=-1)
        expected_words = np.diff(expected_at, prepend=-1)
        same = (found_words == 1) & (expected_words == 1)
        both = int(np.count_nonzero(same))
        self.boundaries += Agreement(len(found.ends) - 1, len(expected.ends) - 1, len(common) - 1)
        self.words += Agreement(len(found.ends), len(expected.ends), both)
        if same.all():
            return []
        self.lines_different += 1
        starts = np.concatenate(([0], common[:-1]))
        differences = [
            (found.words(start, end), expected.words(start, end))
            for start, end in zip(starts[~same].tolist(), common[~same].tolist(), strict=True)
        ]
        if len(self.examples) < self.top:
            more = max(0, len(differences) - _OF_A_LINE)
            self.examples.append(DifferingLine(self.lines, differences[:_OF_A_LINE], more))
        self.differences.update(differences)
        if len(self.differences) > _DISTINCT:
            self.differences = Counter(dict(self.differences.most_common(_DISTINCT // 2)))
        return differences

    def most_frequent(self) -> list[tuple[Difference, int]]:
        """Return the ``top`` most frequent differences; ties are in the text's order."""
        return self.differences.most_common(self.top)

    def as_dict(self) -> dict[str, Any]:
        """Return all figures for JSON; A is the first side, B the other."""
        return {
            "lines": self.lines,
            "lines_different": self.lines_different,
            "words": self.words.as_dict(),
            "boundaries": self.boundaries.as_dict(),
            "differences": [
                {"count": count, "a": list(a), "b": list(b)}
                for (a, b), count in self.most_frequent()
            ],
            "examples": [
                {
                    "line": example.line,
                    "differences": [{"a": list(a), "b": list(b)} for a, b in example.differences],
                    "more": example.more,
                }
                for example in self.examples
            ],
        }


def compare_segmenters(
    lines: Iterable[Sequence[str]], segmenter: Segmenter, other: Segmenter, *, top: int = 10
) -> SegmentationComparison:
    """Compare the words of two segmenters in batches of lines."""
    comparison = SegmentationComparison(top)
    for batch in lines:
        sides = word_ends_of(segmenter, batch), word_ends_of(other, batch)
        for line, found, expected in zip(batch, *sides, strict=True):
            comparison.add(line, found, line, expected)
    return comparison


def compare_with_gold(
    lines: Iterable[Sequence[str]],
    gold: Iterable[Sequence[str]],
    segmenter: Segmenter,
    *,
    names: tuple[str, str] = ("the text", "gold"),
    top: int = 10,
) -> SegmentationComparison:
    """Compare a segmenter's words in some lines with the gold words, separated by blanks.

    ``lines`` and ``gold`` come in batches, whose sizes may differ.

    Raises:
        ZhbertError: the lines differ in more than blanks; the error calls the two ``names``.

    >>> found = compare_with_gold([["研究生命"]], [["研究 生命"]], load_segmenter("whitespace"))
    >>> found.words.precision, found.boundaries.recall
    (0.0, 0.0)
    """
    comparison = SegmentationComparison(top)
    right = load_segmenter("whitespace")
    gold_lines = (line for batch in gold for line in batch)
    number = 0
    for batch in lines:
        for line, found in zip(batch, word_ends_of(segmenter, batch), strict=True):
            number += 1
            expected = next(gold_lines, "")
            _check_same_text(line, expected, number, names)
            comparison.add(line, found, expected, right.segment([expected])[0])
    for expected in gold_lines:
        number += 1
        _check_same_text("", expected, number, names)
    return comparison


def _check_same_text(line: str, gold: str, number: int, names: tuple[str, str]) -> None:
    text, expected = without_blanks(line), without_blanks(gold)
    if text == expected:
        return
    at = next(
        (k for k, (a, b) in enumerate(zip(text, expected, strict=False)) if a != b),
        min(len(text), len(expected)),
    )
    start = max(0, at - 5)
    raise ZhbertError(
        f"{names[1]}:{number}: not the text of {names[0]}: '{expected[start : at + 10]}' here, "
        f"'{text[start : at + 10]}' there; the two must have the same lines but for blanks"
    )
