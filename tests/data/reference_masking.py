"""Slow, obviously right masking: written from the rules alone, and the oracle of the tests.

A row is a list of piece ids with its [CLS] and [SEP] marks; a word is a list of positions. Python's
``random`` and plain loops only: nothing here is shared with the code under test.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Collection, Sequence
from typing import Any

Word = list[int]


def words_of(
    row: Sequence[int], word_starts: Sequence[bool], marks: Collection[int]
) -> list[list[Word]]:
    """The words of a row, one list per segment between marks. A mark belongs to no word."""
    segments: list[list[Word]] = [[]]
    for position, piece in enumerate(row):
        if piece in marks:
            segments.append([])
        elif word_starts[position] or not segments[-1]:
            segments[-1].append([position])
        else:
            segments[-1][-1].append(position)
    return [segment for segment in segments if segment]


def quota_of(row_length: int, rate: float, max_predictions: int) -> int:
    return min(max_predictions, max(1, int(round(row_length * rate))))  # noqa: RUF046


def _fill(candidates: list[Word], quota: int, rng: random.Random) -> list[Word]:
    """Google's walk: shuffled candidates; one that overshoots is skipped, never cut."""
    candidates = list(candidates)
    rng.shuffle(candidates)
    chosen: list[Word] = []
    taken = 0
    for word in candidates:
        if taken == quota:
            break
        if taken + len(word) > quota:
            continue
        chosen.append(word)
        taken += len(word)
    return chosen


def choose_char(segments: list[list[Word]], quota: int, rng: random.Random) -> list[Word]:
    pieces = [[position] for segment in segments for word in segment for position in word]
    return _fill(pieces, quota, rng)


def choose_wwm(segments: list[list[Word]], quota: int, rng: random.Random) -> list[Word]:
    return _fill([word for segment in segments for word in segment], quota, rng)


def choose_unbiased(segments: list[list[Word]], quota: int, rng: random.Random) -> list[Word]:
    words = [word for segment in segments for word in segment]
    maskable = sum(map(len, words))
    return [word for word in words if rng.random() < quota / maskable]


def choose_ngram(segments: list[list[Word]], quota: int, rng: random.Random) -> list[Word]:
    """Spans of 1 to 4 words. A span ends at a mark; a word in it that is chosen already is free."""
    every = [(s, w) for s, segment in enumerate(segments) for w in range(len(segment))]
    untried = set(every)
    chosen: set[tuple[int, int]] = set()
    taken = 0
    while taken < quota:
        starts = sorted(untried - chosen)
        if not starts:
            break
        segment, first = rng.choice(starts)
        n = rng.choices([1, 2, 3, 4], [40, 30, 20, 10])[0]
        untried.discard((segment, first))
        for size in range(n, 0, -1):
            last = min(first + size, len(segments[segment]))
            span = {(segment, word) for word in range(first, last)} - chosen
            cost = sum(len(segments[s][w]) for s, w in span)
            if taken + cost <= quota:
                chosen |= span
                taken += cost
                break
    return [segments[s][w] for s, w in sorted(chosen)]


CHOOSE = {
    "char": choose_char,
    "wwm": choose_wwm,
    "wwm-unbiased": choose_unbiased,
    "ngram": choose_ngram,
    "mac": choose_ngram,
}


def choose(
    row: Sequence[int],
    word_starts: Sequence[bool],
    marks: Collection[int],
    *,
    strategy: str,
    rate: float = 0.15,
    max_predictions: int = 20,
    rng: random.Random,
) -> list[Word]:
    """The words (for ``char``: the single pieces) that the strategy predicts in this row."""
    segments = words_of(row, word_starts, marks)
    if not segments:
        return []
    return CHOOSE[strategy](segments, quota_of(len(row), rate, max_predictions), rng)


def replace(
    row: Sequence[int],
    chosen: list[Word],
    *,
    mask_id: int,
    random_pieces: Sequence[int],
    per_word: bool = False,
    rng: random.Random,
) -> tuple[list[int], list[int]]:
    """80/10/10 per piece, or one action a word; labels are -100 where nothing is predicted."""
    inputs, labels = list(row), [-100] * len(row)
    for word in chosen:
        action = rng.random()
        for position in word:
            if not per_word:
                action = rng.random()
            labels[position] = row[position]
            if action < 0.8:
                inputs[position] = mask_id
            elif action < 0.9:
                inputs[position] = rng.choice(random_pieces)
    return inputs, labels


# Shares of the words of 1, 2, 3, 4, 5 and 6 pieces in Chinese encyclopaedia text cut by jieba.
WORD_LENGTH_SHARES = (0.425, 0.43, 0.068, 0.049, 0.01, 0.018)


def replace_by_words(
    row: Sequence[int],
    chosen: list[Word],
    *,
    similar: dict[tuple[int, ...], list[tuple[int, ...]]],
    random_pieces: Sequence[int],
    rng: random.Random,
) -> tuple[list[int], list[int]]:
    """MacBERT's 80/10/10 a word: similar, random, kept; a random word has as many pieces."""
    inputs, labels = list(row), [-100] * len(row)
    known = {*similar, *(other for others in similar.values() for other in others)}
    for word in chosen:
        own = tuple(row[position] for position in word)
        alike = sorted(other for other in known if len(other) == len(own))
        action = rng.choices(["similar", "random", "kept"], [80, 10, 10])[0]
        if action == "similar" and similar.get(own):
            new = rng.choice(similar[own])
        elif action == "kept":
            new = own
        elif alike:
            new = rng.choice(alike)
        else:
            new = tuple(rng.choice(random_pieces) for _ in own)
        for position, piece in zip(word, new, strict=True):
            labels[position], inputs[position] = row[position], piece
    return inputs, labels


def random_words(num_pieces: int, rng: random.Random) -> list[bool]:
    """Word starts of running text, ``num_pieces`` long."""
    starts: list[bool] = []
    while len(starts) < num_pieces:
        length = rng.choices(range(1, 7), WORD_LENGTH_SHARES)[0]
        starts += ([True] + [False] * (length - 1))[: num_pieces - len(starts)]
    return starts


def chi_square_p(observed: Sequence[float], expected: Sequence[float], lost: int = 1) -> float:
    """P-value of observed counts against expected ones (Wilson and Hilferty's approximation).

    Cells that are expected fewer than 5 times are pooled. ``lost``: degrees of freedom used up.
    """
    cells: list[tuple[float, float]] = []
    pooled_seen = pooled_due = 0.0
    for seen, due in zip(observed, expected, strict=True):
        if due >= 5:
            cells.append((seen, due))
        else:
            pooled_seen, pooled_due = pooled_seen + seen, pooled_due + due
    if pooled_due >= 5:
        cells.append((pooled_seen, pooled_due))
    elif pooled_due == 0 and pooled_seen:
        return 0.0  # something happened that cannot
    return _upper_tail(sum((s - d) ** 2 / d for s, d in cells), len(cells) - lost)


def two_sample_p(first: Counter[Any], second: Counter[Any]) -> float:
    """P-value that two histograms come from one distribution (chi-square, rare cells pooled)."""
    total = first.total() + second.total()
    keys = sorted(first.keys() | second.keys(), key=lambda key: -(first[key] + second[key]))
    cells: list[tuple[int, int]] = []
    rare = (0, 0)
    for key in keys:
        both = first[key] + second[key]
        if both * min(first.total(), second.total()) / total >= 5:
            cells.append((first[key], second[key]))
        else:
            rare = (rare[0] + first[key], rare[1] + second[key])
    if sum(rare):
        cells.append(rare)
    statistic = 0.0
    for one, other in cells:
        for seen, size in ((one, first.total()), (other, second.total())):
            due = (one + other) * size / total
            statistic += (seen - due) ** 2 / due
    return _upper_tail(statistic, len(cells) - 1)


def _upper_tail(statistic: float, freedom: int) -> float:
    if freedom <= 0:
        return 1.0
    spread = 2 / (9 * freedom)
    z = ((statistic / freedom) ** (1 / 3) - (1 - spread)) / math.sqrt(spread)
    return 0.5 * math.erfc(z / math.sqrt(2))
