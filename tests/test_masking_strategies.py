"""Masking strategies by themselves: what they choose from the words of a row."""

from __future__ import annotations

import re
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhbert.config import MaskingSettings, parse_recipe
from zhbert.data.masking import Masker
from zhbert.errors import ZhbertError
from zhbert.masking_strategies import STRATEGIES, Word, shuffled

LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=30)
SEEDS = st.integers(0, 2**32)


def words_of(lengths: list[int]) -> list[Word]:
    ends = np.cumsum(lengths).tolist()
    return [Word(end - length, length, 0) for end, length in zip(ends, lengths, strict=True)]


@pytest.mark.parametrize("strategy", ["wwm", "ngram", "wwm-unbiased"])
@given(LENGTHS, st.integers(1, 20), SEEDS)
def test_whole_words_are_chosen_and_each_once(
    strategy: str, lengths: list[int], limit: int, seed: int
) -> None:
    words = words_of(lengths)
    chosen = list(STRATEGIES[strategy].choose(words, limit, np.random.default_rng(seed)))
    assert len(set(chosen)) == len(chosen)
    assert set(chosen) <= set(words)
    if strategy != "wwm-unbiased":
        assert sum(word.length for word in chosen) <= limit


@given(LENGTHS, st.integers(1, 20), SEEDS)
def test_characters_are_chosen_up_to_the_limit(lengths: list[int], limit: int, seed: int) -> None:
    chosen = STRATEGIES["char"].choose(words_of(lengths), limit, np.random.default_rng(seed))
    starts = [word.start for word in chosen]
    assert len(set(starts)) == len(starts) == min(limit, sum(lengths))


def test_an_n_gram_never_leaves_its_part() -> None:
    words = [Word(number, 1, number // 2) for number in range(40)]
    for seed in range(50):
        rng = np.random.default_rng(seed)
        chosen = sorted(STRATEGIES["ngram"].choose(words, 1, rng))
        assert all(one.part == other.part for one, other in pairwise(chosen))


def test_shuffling_draws_only_for_what_is_taken() -> None:
    rng, other = np.random.default_rng(0), np.random.default_rng(0)
    taken = shuffled(range(10), rng)
    assert len({next(taken), next(taken)}) == 2
    other.random(2)
    assert rng.random() == other.random()


class Choosing:
    """Chooses the same in every row, and takes from the given words what it likes."""

    def __init__(self, *chosen: object) -> None:
        self.chosen = chosen

    def choose(self, words, limit, rng):
        words.clear()
        return self.chosen


def masked_by(strategy: object, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Positions that are predicted in [CLS] ABCD EF [SEP] at a limit of four pieces."""
    monkeypatch.setitem(STRATEGIES, "mine", strategy)
    masker = Masker(MaskingSettings(strategy="mine", rate=0.5), ["[CLS]", "[SEP]", "[MASK]", "字"])
    starts = np.array([1, 1, 0, 0, 0, 1, 0, 1], dtype=bool)
    labels = masker.mask(np.array([0, *[3] * 6, 1]), starts, np.random.default_rng(0))
    return np.flatnonzero(labels != -100).tolist()


@pytest.mark.parametrize(
    ("chosen", "positions"),
    [
        ([], []),
        ([Word(5, 2, 1)], [5, 6]),
        ([Word(6, 1, 1), Word(2, 3, 1)], [2, 3, 4, 6]),
        ([Word(1, 1, 1), Word(3, 1, 1), Word(2, 1, 1)], [1, 2, 3]),
    ],
)
def test_words_and_parts_of_words_up_to_the_limit_are_predicted(
    chosen: list[Word], positions: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert masked_by(Choosing(*chosen), monkeypatch) == positions


@pytest.mark.parametrize(
    ("chosen", "problem"),
    [
        ([Word(0, 1, 0)], "Word(start=0, length=1, part=0), which is not inside any of the row's"),
        ([Word(5, 3, 1)], "Word(start=5, length=3, part=1), which is not inside any of the row's"),
        ([Word(4, 2, 1)], "Word(start=4, length=2, part=1), which is not inside any of the row's"),
        ([Word(7, 1, 1)], "Word(start=7, length=1, part=1), which is not inside any of the row's"),
        ([Word(3, 0, 1)], "Word(start=3, length=0, part=1), which is not inside any of the row's"),
        ([Word(-2, 1, 1)], "which is not inside any of the row's words"),
        ([Word(10_000, 1, 1)], "which is not inside any of the row's words"),
        ([3, 4], "3, which is not a Word"),
        ([Word(1, 2, 1), Word(1, 2, 1)], "which overlap"),
        ([Word(2, 3, 1), Word(1, 2, 1)], "which overlap"),
        ([Word(1, 4, 1), Word(5, 2, 1)], "6 pieces, but the limit is 4"),
    ],
)
def test_a_choice_that_cannot_be_masked_is_refused(
    chosen: list[object], problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ZhbertError) as refused:
        masked_by(Choosing(*chosen), monkeypatch)
    assert str(refused.value).startswith("masking strategy 'mine': chose ")
    assert problem in str(refused.value)


def test_a_strategy_whose_number_varies_may_exceed_the_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Varying(Choosing):
        limit_is_expected = True

    strategy = Varying(Word(1, 4, 1), Word(5, 2, 1))
    assert masked_by(strategy, monkeypatch) == [1, 2, 3, 4, 5, 6]


def test_a_class_in_place_of_a_strategy_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ZhbertError, match=r"'mine': .* is a class; add Choosing\(\) instead"):
        masked_by(Choosing, monkeypatch)


def test_an_unknown_strategy_is_told_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(STRATEGIES, "mine", STRATEGIES["wwm"])
    known = "known: char, wwm, wwm-unbiased, ngram, mac, mine; one of your own? run the script"
    with pytest.raises(ZhbertError, match=rf'masking.strategy = "xyz": .*{re.escape(known)}'):
        parse_recipe({"masking": {"strategy": "xyz"}})
