"""Plans of rows: which pieces of a corpus form a row, by their positions.

The functions call the native module. Python versions next to them do the same, with the same random
numbers drawn in the same order.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from itertools import pairwise
from typing import TypeVar

import numpy as np
import numpy.typing as npt

try:
    from zhbert.data import _rows
except ImportError:  # not compiled: the functions in Python below give the same results, slowly
    _rows = None  # type: ignore[assignment]

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]

_Key = TypeVar("_Key", bound=Hashable)
_Made = TypeVar("_Made")


def one_of_two(kept: dict[_Key, _Made], key: _Key, make: Callable[[_Key], _Made]) -> _Made:
    """Return what belongs to an epoch or a window, keeping that of two: a batch may span two.

    Args:
        kept: what is kept, by keys; it changes.
        key: of what is wanted.
        make: makes it.
    """
    if key not in kept:
        while len(kept) >= 2:
            del kept[next(iter(kept))]
        kept[key] = make(key)
    return kept[key]


def plan_pairs(
    sentences: IntArray,
    documents: IntArray,
    max_pieces: int,
    short_probability: float,
    rng: np.random.Generator,
) -> IntArray:
    """Choose the sentences of every pair of one epoch, as in Google's code.

    In each document, sentences are collected until the target length is reached, and divided into
    A and B at a random place. Half of the time, and always if there is only one sentence, B is
    taken from a random other document; the replaced sentences are used for the next pair.
    (``create_instances_from_document`` in
    https://github.com/google-research/bert/blob/master/create_pretraining_data.py)

    Args:
        sentences: (sentences + 1,) first piece of each sentence, and the end of the last.
        documents: (documents + 1,) first sentence of each document, and the number of sentences.
        max_pieces: maximum number of pieces in A and B together: the target length.
        short_probability: share of documents with a random shorter target, of 2 pieces or more.
        rng: the generator of random numbers.

    Raises:
        ValueError: positions do not increase or are out of bounds.

    Returns:
        (rows, 5): first piece and length of A, first piece and length of B, 1 if B is random.
    """
    if _rows is not None:
        planned = _rows.plan_pairs(
            sentences, documents, max_pieces, short_probability, rng.bit_generator.capsule
        )
        return np.frombuffer(planned, dtype=np.int64).reshape(-1, 5)
    _check_increasing(sentences, False, (1 << 63) - 1, "sentences")
    _check_increasing(documents, True, len(sentences) - 1, "documents")
    planner = _PairPlanner(sentences, documents, rng)
    rows = [
        row
        for document in range(len(documents) - 1)
        for row in planner.pairs(document, max_pieces, short_probability)
    ]
    return np.array(rows, dtype=np.int64).reshape(-1, 5)


class _PairPlanner:
    def __init__(self, sentences: IntArray, documents: IntArray, rng: np.random.Generator) -> None:
        self._starts = sentences.tolist()
        self._firsts = documents.tolist()
        self._rng = rng

    def _below(self, n: int) -> int:
        return int(self._rng.random() * n)

    def pairs(
        self, document: int, max_pieces: int, short_probability: float
    ) -> Iterator[tuple[int, int, int, int, bool]]:
        target = max_pieces
        if self._rng.random() < short_probability:
            target = 2 + self._below(max_pieces - 1)
        starts = self._starts
        first, last = self._firsts[document : document + 2]
        while first < last:
            end = self._collect(first, last, target)
            size = end - first
            a_end = first + 1 + (self._below(size - 1) if size >= 2 else 0)
            a_length = starts[a_end] - starts[first]
            is_random = size == 1 or self._rng.random() < 0.5
            b_first, b_end = a_end, end
            if is_random:
                other = self._another(document)
                b_last = self._firsts[other + 1]
                b_first = self._firsts[other] + self._below(b_last - self._firsts[other])
                b_end = self._collect(b_first, b_last, target - a_length)
            b_length = starts[b_end] - starts[b_first]
            yield starts[first], a_length, starts[b_first], b_length, is_random
            first = a_end if is_random else end

    def _collect(self, first: int, last: int, target: int) -> int:
        """Return the end of the sentences from ``first`` on that reach the target length."""
        end = first + 1
        while end < last and self._starts[end] - self._starts[first] < target:
            end += 1
        return end

    def _another(self, document: int) -> int:
        """Choose another document (the same one if there is no other)."""
        count = len(self._firsts) - 1
        for _ in range(10):
            other = self._below(count)
            if other != document:
                return other
        return (document + 1) % count


def _check_increasing(values: IntArray, strictly: bool, limit: int, name: str) -> None:
    """Raise ValueError for positions that are out of bounds, like the native module."""
    before, after = values[:-1], values[1:]
    steps = after > before if strictly else after >= before
    if not len(values) or values[0] < 0 or not steps.all() or values[-1] > limit:
        raise ValueError(f"{name}: must increase from 0 or more to {limit} at most")


def truncate_pair(
    a_words: BoolArray, b_words: BoolArray, max_pieces: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Cut a pair to ``max_pieces`` pieces, word by word.

    Repeatedly, the longer segment loses its first or its last word, with equal probability.
    (Google's ``truncate_seq_pair`` removes single pieces.) A segment's only word is cut piece by
    piece.

    Args:
        a_words, b_words: (length,) True for the first piece of a word.
        max_pieces: maximum number of pieces to keep.
        rng: the generator of random numbers.

    Returns:
        first and end of A, first and end of B.

    >>> one_word_each = np.array([True, False, False])
    >>> truncate_pair(one_word_each, one_word_each, 6, np.random.default_rng(0))
    (0, 3, 0, 3)
    """
    if _rows is not None:
        cut: tuple[int, int, int, int] = _rows.truncate_pair(
            np.ascontiguousarray(a_words).view(np.uint8),
            np.ascontiguousarray(b_words).view(np.uint8),
            max_pieces,
            rng.bit_generator.capsule,
        )
        return cut
    words = (a_words, b_words)
    first, end = [0, 0], [len(a_words), len(b_words)]
    while end[0] - first[0] + end[1] - first[1] > max_pieces:
        longer = 0 if end[0] - first[0] > end[1] - first[1] else 1
        starts = np.flatnonzero(words[longer][first[longer] + 1 : end[longer]]) + first[longer] + 1
        if rng.random() < 0.5:
            first[longer] = int(starts[0]) if len(starts) else first[longer] + 1
        else:
            end[longer] = int(starts[-1]) if len(starts) else end[longer] - 1
    return first[0], end[0], first[1], end[1]


def plan_packed(
    sentences: IntArray,
    groups: IntArray,
    word_start_bits: npt.NDArray[np.uint8],
    capacity: int,
    extra_separators: int,
) -> IntArray:
    """Pack the whole sentences of one shard into rows of at most ``capacity`` pieces.

    A sentence longer than a row is cut before the last word that does not fit; no piece is lost.

    Args:
        sentences: (sentences + 1,) first piece of each sentence, and the end of the last.
        groups: first pieces of the groups (documents or lines), increasing.
        word_start_bits: Arrow bitmap of the shard's word starts.
        capacity: maximum number of pieces in a row besides [CLS] and the last [SEP].
        extra_separators: number of extra [SEP]s at the end of a group inside a row; -1: no row
            crosses the end of a group.

    Raises:
        ValueError: positions do not increase or exceed the bitmap, or there is no capacity.

    Returns:
        (rows, 2): first piece and end of each row. Rows follow each other without a gap.
    """
    if _rows is not None:
        planned = _rows.plan_packed(sentences, groups, word_start_bits, capacity, extra_separators)
        return np.frombuffer(planned, dtype=np.int64).reshape(-1, 2)
    _check_increasing(sentences, False, 8 * len(word_start_bits), "sentences")
    if capacity < 1:
        raise ValueError("capacity: must be 1 at least")
    first_of_groups = set(groups.tolist())
    rows: list[tuple[int, int]] = []
    starts = sentences.tolist()
    start, used = (starts[0] if len(starts) > 1 else 0), 0
    for position, end in pairwise(starts):
        new_group = position in first_of_groups and position > start
        cost = extra_separators if new_group else 0
        full = used + cost + (end - position) > capacity
        if position > start and (full or cost < 0):
            rows.append((start, position))
            start, used, cost = position, 0, 0
        while end - position > capacity:
            cut = _place_to_cut(word_start_bits, position, position + capacity)
            rows.append((position, cut))
            position = start = cut
        used += cost + (end - position)
    if len(starts) > 1 and starts[-1] > start:
        rows.append((start, starts[-1]))
    return np.array(rows, dtype=np.int64).reshape(-1, 2)


def _place_to_cut(word_start_bits: npt.NDArray[np.uint8], first: int, last: int) -> int:
    """Return the last word start after ``first`` and up to ``last``; ``last`` if there is none."""
    for place in range(last, first, -1):
        if word_start_bits[place >> 3] >> (place & 7) & 1:
            return place
    return last
