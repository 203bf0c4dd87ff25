"""Masking strategies by themselves: what they choose from the words of a row."""

from __future__ import annotations

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


def test_a_strategy_that_chooses_a_piece_twice_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice:
        def choose(self, words, limit, rng):
            return [words[0], words[0]]

    monkeypatch.setitem(STRATEGIES, "twice", Twice())
    masker = Masker(MaskingSettings(strategy="twice"), ["[CLS]", "[SEP]", "[MASK]", "字"])
    with pytest.raises(ValueError, match="overlap"):
        masker.mask(np.array([0, 3, 1]), np.ones(3, bool), np.random.default_rng(0))


def test_an_unknown_strategy_is_told_with_those_that_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(STRATEGIES, "mine", STRATEGIES["wwm"])
    with pytest.raises(ZhbertError, match=r"masking.strategy = .*known: char, wwm.*, mine"):
        parse_recipe({"masking": {"strategy": "xyz"}})
