"""Two segmentations compared: the counts of a slow definition, blanks left out, memory bounded."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.text import segmentation_scores
from zhbert.text.segmentation_scores import (
    Agreement,
    SegmentationComparison,
    compare_segmenters,
    compare_with_gold,
    cuts,
    without_blanks,
)
from zhbert.text.segmenters import load_segmenter

WORDS = st.lists(st.text("使用语言a ", min_size=1, max_size=3), max_size=8)


def ends_of(words: list[str]) -> np.ndarray:
    return np.cumsum([len(word) for word in words], dtype=np.int32)


def compare(a: str, b: str) -> SegmentationComparison:
    """Two lines whose words stand apart, of one text without blanks."""
    comparison = SegmentationComparison()
    comparison.add(without_blanks(a), ends_of(a.split()), without_blanks(b), ends_of(b.split()))
    return comparison


@given(st.text("使用语言模型", max_size=12), st.data())
def test_scores_are_those_of_spans_and_places(text: str, draw: st.DataObject) -> None:
    places = st.sets(st.integers(1, max(1, len(text))))
    sides = [sorted(draw.draw(places) | {len(text)}) if text else [] for _ in "ab"]
    comparison = SegmentationComparison()
    differences = comparison.add(text, np.array(sides[0], int), text, np.array(sides[1], int))
    spans = [set(pairwise([0, *side])) for side in sides]
    inner = [set(side) - {len(text)} for side in sides]
    assert comparison.words == Agreement(len(spans[0]), len(spans[1]), len(spans[0] & spans[1]))
    assert comparison.boundaries == Agreement(
        len(inner[0]), len(inner[1]), len(inner[0] & inner[1])
    )
    assert bool(differences) == (sides[0] != sides[1]) == bool(comparison.lines_different)
    for one, other in differences:
        assert "".join(one) == "".join(other)
        assert "".join(one) in text
        # Nothing that both cut alike is inside a difference.
        assert not set(ends_of(list(one))[:-1].tolist()) & set(ends_of(list(other))[:-1].tolist())


@given(WORDS)
def test_blanks_do_not_count(words: list[str]) -> None:
    text = "".join(words)
    moved = cuts(text, ends_of(words))
    assert moved.text == without_blanks(text)
    spoken = [without_blanks(word) for word in words if word.strip()]
    assert moved.ends.tolist() == ends_of(spoken).tolist()
    comparison = SegmentationComparison()
    assert comparison.add(text, ends_of(words), without_blanks(text), ends_of(spoken)) == []
    assert comparison.words.f1 == comparison.boundaries.f1 == 1


def test_a_worked_example() -> None:
    comparison = compare("研究生 命 的 起源", "研究 生命 的 起源")
    assert comparison.words == Agreement(4, 4, 2)
    assert comparison.boundaries == Agreement(3, 3, 2)
    assert comparison.words.precision == comparison.words.recall == comparison.words.f1 == 0.5
    assert comparison.differences == {(("研究生", "命"), ("研究", "生命")): 1}


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (Agreement(0, 0, 0), (1, 1, 1)),
        (Agreement(0, 2, 0), (0, 0, 0)),
        (Agreement(2, 0, 0), (0, 0, 0)),
        (Agreement(4, 2, 1), (0.25, 0.5, 1 / 3)),
    ],
)
def test_shares_of_nothing_are_defined(
    score: Agreement, expected: tuple[float, float, float]
) -> None:
    assert (score.precision, score.recall, score.f1) == pytest.approx(expected)


def test_frequent_differences_come_first_and_the_rest_is_bounded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(segmentation_scores, "_DISTINCT", 20)
    comparison = SegmentationComparison(top=1)
    for number in range(200):
        for text in ("使用", f"{number:03}"):
            comparison.add(text, np.array([1, len(text)]), text, np.array([len(text)]))
        assert len(comparison.differences) <= 20
    assert comparison.most_frequent() == [((("使", "用"), ("使用",)), 200)]
    assert comparison.lines_different == comparison.lines == 400


def test_a_line_that_one_side_does_not_cut_is_kept_short() -> None:
    text = "模" * 1_000_000
    comparison = SegmentationComparison()
    ((one, other),) = comparison.add(text, np.arange(1, len(text) + 1), text, np.array([len(text)]))
    assert len("".join(one)) < 100
    assert len("".join(other)) < 100
    assert comparison.words == Agreement(len(text), 1, 0)


def test_gold_lines_may_come_in_other_batches_and_must_be_the_same_text() -> None:
    whitespace = load_segmenter("whitespace")
    lines, gold = [["使用 语言", "模型"], ["a b"]], [["使 用 语言"], ["模型", "ab"]]
    found = compare_with_gold(lines, gold, whitespace)
    assert (found.lines, found.words) == (3, Agreement(5, 5, 2))
    with pytest.raises(
        ZhbertError, match="gold:2: not the text of the text: '模型' here, '' there"
    ):
        compare_with_gold([["使用语言"]], gold, whitespace)


def test_two_segmenters_are_compared_without_files() -> None:
    found = compare_segmenters(
        [["使用 语言", "模型"]], load_segmenter("whitespace"), load_segmenter()
    )
    assert (found.lines, found.lines_different) == (2, 0)
    assert found.as_dict()["words"]["f1"] == 1
