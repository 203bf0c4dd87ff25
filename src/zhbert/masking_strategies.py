"""Masking strategies: which words of a row the model has to predict.

``STRATEGIES`` is the one table of them. A recipe's ``masking.strategy`` and
``evaluation.strategies``, the loader and ``zhbert mask`` look names up in it, so a new strategy is
a class with ``choose`` and one more entry:

    STRATEGIES["mine"] = MyMasking()
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    import numpy as np


class Word(NamedTuple):
    """A run of neighbouring pieces of a row: a word of its text, or what is predicted of one."""

    start: int
    """position of its first piece in the row, in which [CLS] stands at 0"""
    length: int
    """number of its pieces"""
    part: int
    """number of the row's part that it stands in; special tokens separate the parts"""


class MaskingStrategy(Protocol):
    """Chooses what is predicted in a row; what replaces the chosen pieces is not its concern.

    That is [MASK], most often; or similar words, if the strategy has the attribute
    ``by_similar_words = True``.
    """

    def choose(self, words: Sequence[Word], limit: int, rng: np.random.Generator) -> Iterable[Word]:
        """Choose from the words of one row.

        Args:
            words: the row's words by position, at least one; special tokens are in none of them.
            limit: the greatest number of pieces to predict in all of the row, at least 1. (A
                strategy with the attribute ``limit_is_expected = True`` may choose more: its
                number varies from row to row, and ``limit`` is what it should be on average.)
            rng: the only source of randomness, so that the same seed gives the same masks.

        Returns:
            What is predicted, in any order and without overlap: some of ``words``, or parts of
            them. Fewer pieces than ``limit`` are fine, and so are none.
        """


_T = TypeVar("_T")


def shuffled(items: Sequence[_T], rng: np.random.Generator) -> Iterator[_T]:
    """Return the items in random order; an item costs one draw, and only if it is asked for.

    (Fisher and Yates' shuffle from the front.)
    """
    order = list(items)
    for index in range(len(order)):
        other = index + int(rng.random() * (len(order) - index))
        order[index], order[other] = order[other], order[index]
        yield order[index]


class WholeWordMasking:
    """Google's rule: random words, until ``limit`` pieces are chosen.

    https://arxiv.org/abs/1906.08101 (words of Chinese), and ``create_masked_lm_predictions`` in
    https://github.com/google-research/bert/blob/master/create_pretraining_data.py
    """

    def choose(self, words: Sequence[Word], limit: int, rng: np.random.Generator) -> list[Word]:
        """Words in random order; a word that would exceed the limit is passed over."""
        chosen = []
        left = limit
        for word in shuffled(words, rng):
            # It is skipped, not cut: half a word would leak its other half.
            if word.length <= left:
                chosen.append(word)
                left -= word.length
            if not left:
                break
        return chosen


class CharacterMasking:
    """The original BERT's rule: random pieces, whatever word they belong to."""

    def choose(self, words: Sequence[Word], limit: int, rng: np.random.Generator) -> list[Word]:
        """Exactly ``limit`` pieces, or all that there are."""
        pieces = [
            Word(position, 1, part)
            for start, length, part in words
            for position in range(start, start + length)
        ]
        return WholeWordMasking().choose(pieces, limit, rng)


class UnbiasedMasking:
    """Every word with the same probability.

    Google's rule passes long words over when little of the limit is left, so it predicts them less
    often than short ones. Here the number of predicted pieces varies around ``limit`` instead.
    """

    limit_is_expected = True

    def choose(self, words: Sequence[Word], limit: int, rng: np.random.Generator) -> list[Word]:
        """Choose each word by an independent draw; ``limit`` is the expected number of pieces."""
        probability = limit / sum(word.length for word in words)
        return [word for word in words if rng.random() < probability]


class NgramMasking:
    """Spans of one to four neighbouring words (40, 30, 20 and 10 % of the spans).

    The lengths are those of MacBERT: https://arxiv.org/abs/2004.13922
    """

    def choose(self, words: Sequence[Word], limit: int, rng: np.random.Generator) -> list[Word]:
        """Spans from random words on; one that would exceed the limit is shortened by words."""
        chosen: set[Word] = set()
        left = limit
        for start in shuffled(range(len(words)), rng):
            if words[start] in chosen:
                continue
            draw = rng.random()
            longest = 1 + (draw >= 0.4) + (draw >= 0.7) + (draw >= 0.9)
            for length in range(longest, 0, -1):
                span = words[start : start + length]
                added = {word for word in span if word.part == words[start].part} - chosen
                cost = sum(word.length for word in added)
                if cost <= left:
                    chosen |= added
                    left -= cost
                    break
            if not left:
                break
        return list(chosen)


class MacMasking(NgramMasking):
    """MacBERT's: spans as of `NgramMasking`, whose words are replaced by similar words.

    No input has a [MASK], as none has one in fine-tuning: https://arxiv.org/abs/2004.13922
    """

    by_similar_words = True


STRATEGIES: dict[str, MaskingStrategy] = {
    "char": CharacterMasking(),
    "wwm": WholeWordMasking(),
    "wwm-unbiased": UnbiasedMasking(),
    "ngram": NgramMasking(),
    "mac": MacMasking(),
}
"""The strategies by name."""


def by_similar_words(strategy: str) -> bool:
    """Return whether a strategy's words are replaced by similar words, which a file lists."""
    return getattr(STRATEGIES[strategy], "by_similar_words", False)
