"""Documents -> rows: the pieces of a corpus that form one input of the model.

There are three builders:

* ``pairs``: sentence pairs for next-sentence prediction, as in Google's
  https://github.com/google-research/bert/blob/master/create_pretraining_data.py. A pair that is too
  long is cut at its ends as there, but by whole words; dropped pieces are counted.
* ``full-sentences``: consecutive whole sentences, even of several documents, with an extra [SEP]
  between documents: the FULL-SENTENCES of RoBERTa, https://arxiv.org/abs/1907.11692. Drops nothing.
* ``lines``: one line of the input is one row. Drops nothing.

With the last two, a sentence longer than a row is cut before the last word that does not fit, and
its rest begins the next row.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from zhbert.config import CHOICES
from zhbert.data.random_streams import PLAN, generator
from zhbert.data.row_plans import (
    BoolArray,
    IntArray,
    one_of_two,
    plan_packed,
    plan_pairs,
    truncate_pair,
)
from zhbert.errors import ZhbertError

BUILDERS = CHOICES["rows.builder"]


class ShardLike(Protocol):
    """The attributes of a shard that builders read (as in zhbert.data.shards.Shard)."""

    @property
    def pieces(self) -> npt.NDArray[Any]:
        """(pieces,) ids without special tokens; not read while rows are planned."""

    @property
    def word_start_bits(self) -> npt.NDArray[np.uint8]:
        """Arrow bitmap: bit i is set if piece i starts a word."""

    @property
    def document_starts(self) -> IntArray:
        """(documents + 1,) first piece of each document, and the end of the last."""

    def sentence_starts(self) -> IntArray:
        """Return the first piece of each sentence: (sentences,), increasing."""

    def line_starts(self) -> IntArray:
        """Return the first piece of each line: (lines,), increasing."""


ShardArrays = tuple[int, npt.NDArray[Any], npt.NDArray[np.uint8], IntArray]
"""A shard's first piece among those of all shards, its pieces, the bitmap of its word starts, and
the first pieces of the documents that a [SEP] separates inside a row."""


@dataclass(frozen=True)
class TrainingRow:
    """One input of the model before masking."""

    piece_ids: IntArray
    """(length,) with [CLS] and [SEP]"""
    word_starts: BoolArray
    """(length,) True for the first piece of a word, [CLS] and [SEP]"""
    first_length: int
    """number of pieces in the first segment (token type 0), with [CLS] and its [SEP]"""
    next_sentence_label: int | None
    """0: B follows A; 1: B is random; None: no pair"""
    dropped: int
    """number of pieces that were cut off to make the pair fit"""


class RowBuilder(Protocol):
    """A source of the rows of every epoch, by number."""

    @property
    def sequence_length(self) -> int:
        """The maximum number of pieces in a row."""

    def count(self, epoch: int) -> int:
        """Return the number of rows in the epoch."""

    def plan(self, epoch: int, indices: IntArray) -> IntArray:
        """Return which pieces stand in rows ``indices`` of the epoch.

        Returns:
            (rows, 5): first piece and length of A, first piece and length of B, 1 if B is random.
            (Rows that are no pairs have an empty B.)
        """

    @property
    def max_pair_pieces(self) -> int:
        """The maximum number of pieces in A and B together; -1: rows are no pairs."""

    def arrays(self, plan: IntArray) -> tuple[ShardArrays, ...]:
        """Return the arrays of the shards, in order, that have the pieces of planned rows."""

    def row(self, epoch: int, index: int, rng: np.random.Generator) -> TrainingRow:
        """Return row ``index`` of the epoch in new arrays, which masking overwrites.

        ``rng`` determines where a long pair is cut.
        """

    def random_share(self, epoch: int) -> float | None:
        """Return the share of the epoch's pairs with a random second segment; None: no pairs."""


class _ShardedPieces:
    """The concatenated pieces of the shards; position 0 is the first piece of the first shard."""

    def __init__(self, shards: Sequence[ShardLike]) -> None:
        self.shards = list(shards)
        self.bits = [shard.word_start_bits for shard in shards]
        self.bases = [0]
        for shard in shards:
            self.bases.append(self.bases[-1] + int(shard.document_starts[-1]))

    def arrays(self, plan: IntArray, *, separated: bool) -> tuple[ShardArrays, ...]:
        """Return the arrays of the shards, in order, that have the pieces of planned rows."""
        nothing = np.empty(0, dtype=np.int64)
        # Pieces are accessed only here and in slice: the first access to them verifies a shard.
        numbers = np.unique(np.searchsorted(self.bases, plan[:, [0, 2]], "right") - 1).tolist()
        return tuple(
            (
                self.bases[number],
                self.shards[number].pieces,
                self.bits[number],
                self.shards[number].document_starts if separated else nothing,
            )
            for number in numbers
        )

    def slice(self, start: int, length: int) -> tuple[npt.NDArray[Any], BoolArray]:
        """Return ids and word starts of some consecutive pieces of one shard."""
        shard = bisect_right(self.bases, start) - 1
        first = start - self.bases[shard]
        pieces = self.shards[shard].pieces[first : first + length]
        return pieces, unpack_bits(self.bits[shard], first, length)


def unpack_bits(bits: npt.NDArray[np.uint8], start: int, length: int) -> BoolArray:
    """Return flags ``start`` to ``start + length`` of an Arrow bitmap.

    >>> unpack_bits(np.array([0b00010110], dtype=np.uint8), 1, 4).tolist()
    [True, True, False, True]
    """
    packed = bits[start >> 3 : (start + length + 7) >> 3]
    first = start & 7
    return np.unpackbits(packed, bitorder="little")[first : first + length].view(np.bool_)


class PairRows:
    """Sentence pairs, drawn anew every epoch.

    Takes 40 bytes per row of the two newest epochs, and while these are planned some more, and
    16 bytes per sentence.
    """

    def __init__(
        self,
        shards: Sequence[ShardLike],
        *,
        cls_id: int,
        sep_id: int,
        sequence_length: int,
        seed: int,
        short_row_probability: float = 0.1,
        window: int = 0,
    ) -> None:
        if sequence_length < 5:
            raise ZhbertError(
                f"sequence_length = {sequence_length}: a pair needs at least 5 pieces"
            )
        self.sequence_length = sequence_length
        self._data = _ShardedPieces(shards)
        self._marks = (cls_id, sep_id)
        self.max_pair_pieces = sequence_length - 3
        self._seed, self._window = seed, window
        self._short = short_row_probability
        self._plans: dict[int, IntArray] = {}

    def _plan(self, epoch: int) -> IntArray:
        return one_of_two(self._plans, epoch, self._planned)

    def _planned(self, epoch: int) -> IntArray:
        return plan_pairs(
            *self._sentences_and_documents(),
            self.max_pair_pieces,
            self._short,
            generator(self._seed, PLAN, epoch, self._window),
        )

    def _sentences_and_documents(self) -> tuple[IntArray, IntArray]:
        """Return the first piece of each sentence and the first sentence of each document.

        At the end of both there is what would come next.
        """
        sentences: list[IntArray] = []
        documents: list[IntArray] = []
        done = 0
        for shard, base in zip(self._data.shards, self._data.bases, strict=False):
            starts = shard.sentence_starts()
            documents.append(np.searchsorted(starts, shard.document_starts[:-1]) + done)
            sentences.append(starts + base)
            done += len(starts)
        ends = np.array([self._data.bases[-1]]), np.array([done])
        return (
            np.concatenate([*sentences, ends[0]], dtype=np.int64),
            np.concatenate([*documents, ends[1]], dtype=np.int64),
        )

    def count(self, epoch: int) -> int:
        """Return the number of pairs in the epoch."""
        return len(self._plan(epoch))

    def random_share(self, epoch: int) -> float | None:
        """Return the share of pairs with a random second segment."""
        return float(self._plan(epoch)[:, 4].mean())

    def plan(self, epoch: int, indices: IntArray) -> IntArray:
        """Return the first piece and the length of A and of B, and whether B is random."""
        return self._plan(epoch)[indices]

    def arrays(self, plan: IntArray) -> tuple[ShardArrays, ...]:
        """Return the arrays of the shards that have these pieces."""
        return self._data.arrays(plan, separated=False)

    def row(self, epoch: int, index: int, rng: np.random.Generator) -> TrainingRow:
        """Return [CLS] A [SEP] B [SEP]."""
        a_start, a_length, b_start, b_length, is_random = self._plan(epoch)[index].tolist()
        a, a_words = self._data.slice(a_start, a_length)
        b, b_words = self._data.slice(b_start, b_length)
        dropped = a_length + b_length - self.max_pair_pieces
        if dropped > 0:
            a_first, a_end, b_first, b_end = truncate_pair(
                a_words, b_words, self.max_pair_pieces, rng
            )
            a, a_words = a[a_first:a_end], a_words[a_first:a_end]
            b, b_words = b[b_first:b_end], b_words[b_first:b_end]
            dropped = a_length + b_length - len(a) - len(b)
        first_length = len(a) + 2
        ids = np.empty(first_length + len(b) + 1, dtype=np.int64)
        words = np.ones(len(ids), dtype=np.bool_)
        ids[0] = self._marks[0]
        ids[1 : first_length - 1] = a
        ids[first_length - 1] = ids[-1] = self._marks[1]
        ids[first_length:-1] = b
        words[1 : first_length - 1] = a_words
        words[first_length:-1] = b_words
        return TrainingRow(ids, words, first_length, is_random, max(dropped, 0))


def plan_sentences(shard: ShardLike, sequence_length: int, *, lines: bool = False) -> IntArray:
    """Plan rows of whole sentences.

    Returns:
        (rows, 2): first piece and end of each row. Rows follow each other without a gap.

    Raises:
        ZhbertError: the rows are too short.
    """
    if sequence_length < 3:
        raise ZhbertError(f"sequence_length = {sequence_length}: a row needs at least 3 pieces")
    groups = shard.line_starts() if lines else shard.document_starts
    return plan_packed(
        np.append(shard.sentence_starts(), shard.document_starts[-1]),
        np.ascontiguousarray(groups, dtype=np.int64),
        shard.word_start_bits,
        capacity=sequence_length - 2,
        extra_separators=-1 if lines else 1,
    )


class WholeSentenceRows:
    """Rows of consecutive whole sentences (``full-sentences``, ``lines``), the same every epoch.

    Takes 16 bytes per row.
    """

    max_pair_pieces = -1

    def __init__(
        self,
        shards: Sequence[ShardLike],
        *,
        cls_id: int,
        sep_id: int,
        sequence_length: int,
        lines: bool,
    ) -> None:
        self.sequence_length = sequence_length
        self._data = _ShardedPieces(shards)
        self._marks = (cls_id, sep_id)
        self._lines = lines
        self._documents = [shard.document_starts for shard in shards]
        plans = [
            plan_sentences(shard, sequence_length, lines=lines) + base
            for shard, base in zip(shards, self._data.bases, strict=False)
        ]
        self._rows = np.concatenate(plans) if plans else np.empty((0, 2), dtype=np.int64)

    def count(self, epoch: int) -> int:
        """Return the number of rows, the same in every epoch."""
        return len(self._rows)

    def random_share(self, epoch: int) -> float | None:
        """Return None: there are no pairs."""
        return None

    def plan(self, epoch: int, indices: IntArray) -> IntArray:
        """Return the first piece and the length of each row, and an empty B."""
        starts, ends = self._rows[indices].T
        nothing = np.zeros_like(starts)
        return np.column_stack((starts, ends - starts, starts, nothing, nothing))

    def arrays(self, plan: IntArray) -> tuple[ShardArrays, ...]:
        """Return the arrays of the shards that have these pieces."""
        return self._data.arrays(plan, separated=not self._lines)

    def row(self, epoch: int, index: int, rng: np.random.Generator) -> TrainingRow:
        """Return [CLS] sentences [SEP], with an extra [SEP] if a document ends inside the row."""
        start, end = self._rows[index].tolist()
        pieces, words = self._data.slice(start, end - start)
        sep = self._marks[1]
        ids = np.empty(len(pieces) + 2, dtype=np.int64)
        flags = np.ones(len(ids), dtype=np.bool_)
        ids[0] = self._marks[0]
        ids[1:-1] = pieces
        ids[-1] = sep
        flags[1:-1] = words
        flags[1] = True
        if not self._lines:
            shard = bisect_right(self._data.bases, start) - 1
            documents = self._documents[shard]
            base = self._data.bases[shard]
            first, last = np.searchsorted(documents, (start - base + 1, end - base)).tolist()
            if last > first:
                borders = documents[first:last] - (start - base) + 1
                ids = np.insert(ids, borders, sep)
                flags = np.insert(flags, borders, True)
        return TrainingRow(ids, flags, len(ids), None, 0)


def make_rows(
    builder: str,
    shards: Sequence[ShardLike],
    *,
    cls_id: int,
    sep_id: int,
    sequence_length: int,
    seed: int,
    short_row_probability: float = 0.1,
    window: int = 0,
) -> RowBuilder:
    """Build the rows of some shards.

    Args:
        builder: ``pairs``, ``full-sentences`` or ``lines``; see the top of this file.
        shards: the shards, in order.
        cls_id, sep_id: the ids of [CLS] and [SEP].
        sequence_length: maximum number of pieces in a row, including [CLS] and [SEP].
        seed: determines the pairs.
        short_row_probability: share of documents whose pairs have a random shorter target length.
        window: the number of these shards among the windows of a large corpus: the pairs of each
            are drawn by other random numbers.

    Raises:
        ZhbertError: the builder is unknown, or the rows are too short.
    """
    if builder not in BUILDERS:
        raise ZhbertError(f"rows: builder = {builder!r}; known: {', '.join(BUILDERS)}")
    if builder == "pairs":
        return PairRows(
            shards,
            cls_id=cls_id,
            sep_id=sep_id,
            sequence_length=sequence_length,
            seed=seed,
            short_row_probability=short_row_probability,
            window=window,
        )
    return WholeSentenceRows(
        shards,
        cls_id=cls_id,
        sep_id=sep_id,
        sequence_length=sequence_length,
        lines=builder == "lines",
    )
