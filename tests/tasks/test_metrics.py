"""Scores of labels, numbers and tags: equal to scikit-learn's, SciPy's and, slowly, seqeval's."""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tests.tasks.slow_entities import default_entities, f1

from zhbert.errors import ZhbertError
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.metrics import (
    of_all,
    resampled_accuracy,
    resampled_entity_f1,
    resampled_f1_binary,
    resampled_matthews,
    resampled_pearson,
    resampled_spearman,
    resampled_tag_accuracy,
)
from zhbert.tasks.schemes import entities


def plain(metric: Callable[..., Any]) -> Callable[..., float]:
    return lambda gold, *more, **named: of_all(metric(gold, *more, **named), len(gold))


accuracy, f1_binary, matthews, pearson, spearman, entity_f1 = map(
    plain,
    (
        resampled_accuracy,
        resampled_f1_binary,
        resampled_matthews,
        resampled_pearson,
        resampled_spearman,
        resampled_entity_f1,
    ),
)


def labels_of(names: str) -> st.SearchStrategy[tuple[list[str], list[str]]]:
    pairs = st.lists(st.tuples(*[st.sampled_from(names)] * 2), min_size=1, max_size=40)
    return pairs.map(lambda rows: ([a for a, _ in rows], [b for _, b in rows]))


def numbers() -> st.SearchStrategy[tuple[list[float], list[float]]]:
    # Few values, so that there are ties; and any, so that there are none.
    values = st.one_of(
        st.integers(0, 5).map(float), st.floats(-1e6, 1e6, allow_subnormal=False, width=32)
    )
    pairs = st.lists(st.tuples(values, values), min_size=2, max_size=40)
    return pairs.map(lambda rows: ([a for a, _ in rows], [b for _, b in rows]))


TAGS = ["O", "B-A", "I-A", "B-B", "I-B", "B-A-B", "I-A-B", "B", "I", "B_A", "I_A", "E-A", "S-B"]
Rows = list[list[str]]


@st.composite
def tag_rows(draw: st.DrawFn) -> tuple[Rows, Rows]:
    lengths = draw(st.lists(st.integers(0, 12), min_size=1, max_size=5))
    tag = st.sampled_from(TAGS)
    gold, predicted = (
        [draw(st.lists(tag, min_size=length, max_size=length)) for length in lengths]
        for _ in range(2)
    )
    return gold, predicted


# -- against the libraries -----------------------------------------------------------------------


@given(labels_of("01"))
def test_accuracy_is_scikit_learns(pair: tuple[list[str], list[str]]) -> None:
    from sklearn.metrics import accuracy_score

    assert accuracy(*pair) == pytest.approx(100 * accuracy_score(*pair))


@given(labels_of("01"))
def test_f1_of_the_positive_class_is_scikit_learns(pair: tuple[list[str], list[str]]) -> None:
    from sklearn.metrics import f1_score

    expected = f1_score(*pair, pos_label="1", average="binary", zero_division=0) if (
        "1" in pair[0] + pair[1]
    ) else 0.0  # fmt: skip
    assert f1_binary(*pair) == pytest.approx(100 * expected)


@given(labels_of("ab"))
def test_f1_takes_another_positive_class(pair: tuple[list[str], list[str]]) -> None:
    swapped = [["10"["ab".index(label)] for label in side] for side in pair]
    assert f1_binary(*pair, positive="a") == f1_binary(*swapped)


@pytest.mark.parametrize("names", ["01", "abc", "abcdefg"])
def test_matthews_is_scikit_learns(names: str) -> None:
    from sklearn.metrics import matthews_corrcoef

    @given(labels_of(names))
    def check(pair: tuple[list[str], list[str]]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about a single label
            expected = matthews_corrcoef(*pair)
        assert matthews(*pair) == pytest.approx(100 * expected, abs=1e-9)

    check()


@given(numbers())
@example(([0.1] * 7, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]))
@example(([1e-100, 2e-100, 4e-100], [1e100, 3e100, 1e100]))
def test_correlations_are_scipys(pair: tuple[list[float], list[float]]) -> None:
    from scipy import stats

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about constant rows
        by_value, by_rank = stats.pearsonr(*pair)[0], stats.spearmanr(*pair)[0]
    # A correlation with a constant is not a number there, and 0 here.
    expected = 0.0 if math.isnan(by_value) else 100 * by_value
    if not any(np.ptp(side) < 1e-12 * np.max(np.abs(side)) for side in pair):
        assert pearson(*pair) == pytest.approx(expected, abs=1e-6)
    assert spearman(*pair) == pytest.approx(0.0 if math.isnan(by_rank) else 100 * by_rank, abs=1e-9)


def test_a_constant_has_no_correlation() -> None:
    # Of some lengths the mean of equal numbers is not that number, to the last bit.
    for length in range(2, 60):
        varied = [float(n % 5) for n in range(length)]
        for constant in (0.0, 0.1, -1e9 / 3):
            for score in (pearson, spearman):
                same = [constant] * length
                assert score(same, varied) == score(varied, same) == 0.0


@given(tag_rows())
@settings(max_examples=1000)
def test_entities_are_seqevals(pair: tuple[Rows, Rows]) -> None:
    from sklearn.metrics import accuracy_score

    gold, predicted = pair
    assert entities(gold[0]) == default_entities(gold[0])
    assert entity_f1(gold, predicted) == pytest.approx(f1(gold, predicted))
    if any(gold):
        right = resampled_tag_accuracy(gold, predicted)(np.ones((1, len(gold))))[0]
        assert right == pytest.approx(
            100 * accuracy_score(*map(list, map(chain.from_iterable, pair)))
        )


def test_every_short_row_of_tags_gives_the_entities_of_seqeval() -> None:
    """Broken rows, too: I without B, changes of type, B inside."""
    tags = ["O", "B-A", "I-A", "B-B", "I-B"]
    for number in range(len(tags) ** 5):
        row = [tags[number // len(tags) ** place % len(tags)] for place in range(5)]
        assert entities(row) == default_entities(row), row


def test_long_rows_of_real_looking_tags_score_as_seqeval_says() -> None:
    rng = random.Random(0)
    gold = [[rng.choice(TAGS[:5]) for _ in range(rng.randint(1, 80))] for _ in range(500)]
    predicted = [[tag if rng.random() < 0.8 else rng.choice(TAGS[:5]) for tag in r] for r in gold]
    assert entity_f1(gold, predicted) == pytest.approx(f1(gold, predicted))


def test_no_entities_at_all_score_0() -> None:
    assert entity_f1([["O", "O"], []], [["O", "O"], []]) == 0.0


# -- resamples -----------------------------------------------------------------------------------

RESAMPLED = [
    *((kind, name, ["a", "b", "b", "a", "b", "a", "b"]) for kind, name in
      [("classify", "accuracy"), ("classify", "matthews")]),
    ("classify", "f1", ["0", "1", "1", "1", "0", "0", "1"]),
    ("regress", "pearson", [0.0, 1.0, 2.5, 2.5, 5.0, 1.0, 3.0]),
    ("regress", "spearman", [0.0, 1.0, 2.5, 2.5, 5.0, 1.0, 3.0]),
    ("tag", "f1", [["B-A", "I-A"], ["O"], ["B-B", "O"], ["I-A"], ["B-A", "B-A"], ["O", "O"], []]),
    ("tag", "accuracy", [["B-A", "O"], ["O"], ["B-B", "O"], ["O"], ["I-A", "O"], ["O", "O"], []]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "name", "gold"), RESAMPLED, ids=[" ".join(row[:2]) for row in RESAMPLED]
)
def test_a_resamples_score_is_that_of_its_examples_written_out(
    kind: str, name: str, gold: Sequence[object]
) -> None:
    """Weights of 0, 1, 2, … are the same as leaving examples out or repeating them."""
    metric = KINDS[kind].metrics[name]
    rng = np.random.default_rng(0)
    if kind == "tag":
        predicted = [[rng.choice(["O", "B-A", "I-A", "B-B"]) for _ in row] for row in gold]
    else:
        predicted = [gold[i] for i in (0, 2, 1, 3, 4, 6, 5)]
    weights = rng.multinomial(len(gold), [1 / len(gold)] * len(gold), size=200).astype(float)
    scores = metric(gold, predicted, ())(weights)
    assert scores.shape == (200,)
    for row, score in zip(weights.astype(int), scores, strict=True):
        which = [index for index, times in enumerate(row) for _ in range(times)]
        alone = metric([gold[i] for i in which], [predicted[i] for i in which], ())
        assert score == pytest.approx(alone(np.ones((1, len(which))))[0], abs=1e-9)


# -- what cannot be scored -----------------------------------------------------------------------


@pytest.mark.parametrize("score", [accuracy, f1_binary, matthews, pearson, spearman, entity_f1])
def test_unequal_and_empty_are_refused(score: Callable[..., float]) -> None:
    with pytest.raises(ZhbertError, match=r"^2 examples, but 1 predictions$"):
        score([[], []], [[]])
    with pytest.raises(ZhbertError, match=r"^no examples to score$"):
        score([], [])


def test_rows_of_tags_must_have_the_length_of_their_sentence() -> None:
    with pytest.raises(ZhbertError, match=r"^sentence 2: 1 tokens, but 2 tags$"):
        entity_f1([["O"], ["O"]], [["O"], ["O", "O"]])


@pytest.mark.parametrize("tag", ["X-A", "", "0", "OB", "Brand", "PER"])
def test_what_is_no_tag_is_refused(tag: str) -> None:
    with pytest.raises(ZhbertError, match=f'^tag "{tag}": of no scheme'):
        entities(["O", tag])
