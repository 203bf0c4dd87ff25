"""Documents to rows: which pieces of a corpus stand together in one input of the model.

Three builders, all over positions in the shards, none over text:

* ``pairs``: Google's sentence pairs for next-sentence prediction. A pair that is too long is cut
  at its ends as Google does, but by whole words, and what is dropped is counted.
* ``full-sentences``: RoBERTa's rows of consecutive whole sentences, over the borders of documents
  (an extra [SEP] stands there). Drops nothing.
* ``lines``: one line of the input, one row. Drops nothing.

A sentence longer than a row is split before the last word that does not fit; its tail is kept.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from zhbert.config import CHOICES
from zhbert.errors import ZhbertError

try:
    from zhbert.data import _rows
except ImportError:  # no compiler at installation: the plain versions below, with the same results
    _rows = None  # type: ignore[assignment]

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class ShardLike(Protocol):
    """What a builder reads of a shard (zhbert.data.shards.Shard has it)."""

    @property
    def pieces(self) -> npt.NDArray[Any]:
        """(pieces,) ids, without special tokens; read by the rows alone, not by their plan."""

    @property
    def word_start_bits(self) -> npt.NDArray[np.uint8]:
        """Arrow bitmap: bit i is set where piece i starts a word."""

    @property
    def document_starts(self) -> IntArray:
        """(documents + 1,) first piece of each document, and the end of the last."""

    def sentence_starts(self) -> IntArray:
        """(sentences,) first piece of each sentence, increasing."""

    def line_starts(self) -> IntArray:
        """(lines,) first piece of each line, increasing."""


@dataclass(frozen=True)
class TrainingRow:
    """One input of the model, not masked yet."""

    piece_ids: IntArray
    """(length,) with [CLS] and [SEP]"""
    word_starts: BoolArray
    """(length,) True at [CLS] and [SEP], too"""
    first_length: int
    """pieces of the first segment, [CLS] and its [SEP] included: token type 0"""
    next_sentence_label: int | None
    """0: B follows A; 1: B is random; None: no pair"""
    dropped: int
    """pieces that were cut off to make the pair fit"""


class RowBuilder(Protocol):
    """A numbered set of rows for every epoch."""

    def count(self, epoch: int) -> int:
        """How many rows the epoch has."""

    def row(self, epoch: int, index: int, rng: np.random.Generator) -> TrainingRow:
        """Row ``index`` of the epoch; ``rng`` decides where a long pair is cut."""

    def random_share(self, epoch: int) -> float | None:
        """Of the epoch's pairs, those whose second sentence is random; None: no pairs."""


def generator(seed: int, stream: int, epoch: int, index: int = 0) -> np.random.Generator:
    """A generator that depends on its four numbers alone (Philox, a counter-based generator)."""
    key = np.array(_key(seed, stream, epoch, index), dtype=np.uint64)
    return np.random.Generator(np.random.Philox(key=key))


class ReusableGenerator:
    """``generator`` without the cost of making one: ten times as fast, for use a row.

    >>> reused = ReusableGenerator()
    >>> bool(reused.at(1, 2, 3, 4).random() == generator(1, 2, 3, 4).random())
    True
    """

    def __init__(self) -> None:
        self._bits = np.random.Philox(key=np.zeros(2, dtype=np.uint64))
        self._generator = np.random.Generator(self._bits)
        self._state = self._bits.state

    def at(self, seed: int, stream: int, epoch: int, index: int) -> np.random.Generator:
        """The generator of these four numbers; valid until the next call."""
        key = self._state["state"]["key"]
        key[0], key[1] = _key(seed, stream, epoch, index)
        self._bits.state = self._state
        return self._generator


def _key(seed: int, stream: int, epoch: int, index: int) -> tuple[int, int]:
    """Two 64-bit words, one to one for seeds below 2^60, 16 streams, 2^24 epochs, 2^40 rows."""
    return ((seed << 4) | stream) & 0xFFFFFFFFFFFFFFFF, (epoch << 40 | index) & 0xFFFFFFFFFFFFFFFF


# Streams of random numbers, so that none is used for two purposes.
PLAN, ORDER, MASKS = 0, 1, 2


class _ShardedPieces:
    """The shards' pieces under one numbering: position 0 is the first piece of the first shard."""

    def __init__(self, shards: Sequence[ShardLike]) -> None:
        self.shards = shards
        self.bits = [shard.word_start_bits for shard in shards]
        self.bases = [0]
        for shard in shards:
            self.bases.append(self.bases[-1] + int(shard.document_starts[-1]))

    def slice(self, start: int, length: int) -> tuple[npt.NDArray[Any], BoolArray]:
        """Ids and word starts of a run of pieces that lies in one shard."""
        shard = bisect_right(self.bases, start) - 1
        first = start - self.bases[shard]
        # Asked for here and not before: a shard is verified when its first piece is read.
        pieces = self.shards[shard].pieces[first : first + length]
        return pieces, unpack_bits(self.bits[shard], first, length)


def unpack_bits(bits: npt.NDArray[np.uint8], start: int, length: int) -> BoolArray:
    """Flags ``start`` to ``start + length`` of an Arrow bitmap.

    >>> unpack_bits(np.array([0b00010110], dtype=np.uint8), 1, 4).tolist()
    [True, True, False, True]
    """
    packed = bits[start >> 3 : (start + length + 7) >> 3]
    first = start & 7
    return np.unpackbits(packed, bitorder="little")[first : first + length].view(np.bool_)


class PairRows:
    """Google's sentence pairs (``create_instances_from_document``), drawn anew every epoch.

    Memory: 8 bytes a sentence and 40 bytes a row of the two newest epochs.
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
    ) -> None:
        if sequence_length < 5:
            raise ZhbertError(
                f"sequence_length = {sequence_length}: a pair needs at least 5 pieces"
            )
        self._data = _ShardedPieces(shards)
        self._marks = (cls_id, sep_id)
        self._max_pieces = sequence_length - 3
        self._seed = seed
        self._short = short_row_probability
        sentences: list[IntArray] = []
        documents: list[IntArray] = []
        done = 0
        for shard, base in zip(shards, self._data.bases, strict=False):
            starts = shard.sentence_starts()
            documents.append(np.searchsorted(starts, shard.document_starts[:-1]) + done)
            sentences.append(starts + base)
            done += len(starts)
        end = np.array([self._data.bases[-1]])
        self._sentences: IntArray = np.concatenate([*sentences, end]).astype(np.int64)
        self._documents: IntArray = np.concatenate([*documents, np.array([done])]).astype(np.int64)
        self._plans: dict[int, IntArray] = {}

    def _plan(self, epoch: int) -> IntArray:
        if epoch not in self._plans:
            while len(self._plans) >= 2:  # a batch may span two epochs
                del self._plans[next(iter(self._plans))]
            self._plans[epoch] = plan_pairs(
                self._sentences,
                self._documents,
                self._max_pieces,
                self._short,
                generator(self._seed, PLAN, epoch),
            )
        return self._plans[epoch]

    def count(self, epoch: int) -> int:
        """How many pairs the epoch has."""
        return len(self._plan(epoch))

    def random_share(self, epoch: int) -> float | None:
        """The share of the label "not next"."""
        return float(self._plan(epoch)[:, 4].mean())

    def row(self, epoch: int, index: int, rng: np.random.Generator) -> TrainingRow:
        """[CLS] A [SEP] B [SEP]"""
        a_start, a_length, b_start, b_length, is_random = self._plan(epoch)[index].tolist()
        a, a_words = self._data.slice(a_start, a_length)
        b, b_words = self._data.slice(b_start, b_length)
        dropped = a_length + b_length - self._max_pieces
        if dropped > 0:
            a_first, a_end, b_first, b_end = truncate_pair(a_words, b_words, self._max_pieces, rng)
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


class WholeSentenceRows:
    """Rows of whole consecutive sentences: ``full-sentences`` and ``lines``; alike every epoch.

    Memory: 16 bytes a row.
    """

    def __init__(
        self,
        shards: Sequence[ShardLike],
        *,
        cls_id: int,
        sep_id: int,
        sequence_length: int,
        lines: bool,
    ) -> None:
        if sequence_length < 3:
            raise ZhbertError(f"sequence_length = {sequence_length}: a row needs at least 3 pieces")
        self._data = _ShardedPieces(shards)
        self._marks = (cls_id, sep_id)
        self._lines = lines
        self._documents = [shard.document_starts for shard in shards]
        plans = []
        for shard, base in zip(shards, self._data.bases, strict=False):
            sentences = np.append(shard.sentence_starts(), shard.document_starts[-1])
            groups = shard.line_starts() if lines else shard.document_starts
            plan = plan_packed(
                sentences,
                np.ascontiguousarray(groups, dtype=np.int64),
                shard.word_start_bits,
                sequence_length - 2,
                -1 if lines else 1,
            )
            plans.append(plan + base)
        self._rows = np.concatenate(plans) if plans else np.empty((0, 2), dtype=np.int64)

    def count(self, epoch: int) -> int:
        """How many rows there are, in every epoch."""
        return len(self._rows)

    def random_share(self, epoch: int) -> float | None:
        """There are no pairs."""
        return None

    def row(self, epoch: int, index: int, rng: np.random.Generator) -> TrainingRow:
        """[CLS] sentences [SEP], with a [SEP] more where a document ends inside the row."""
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


BUILDERS = CHOICES["rows.builder"]


def make_rows(
    builder: str,
    shards: Sequence[ShardLike],
    *,
    cls_id: int,
    sep_id: int,
    sequence_length: int,
    seed: int,
    short_row_probability: float = 0.1,
) -> RowBuilder:
    """The rows of ``builder`` (``pairs``, ``full-sentences`` or ``lines``) over some shards."""
    if builder == "pairs":
        return PairRows(
            shards,
            cls_id=cls_id,
            sep_id=sep_id,
            sequence_length=sequence_length,
            seed=seed,
            short_row_probability=short_row_probability,
        )
    if builder not in BUILDERS:
        raise ZhbertError(f"rows: builder = {builder!r}; known: {', '.join(BUILDERS)}")
    return WholeSentenceRows(
        shards,
        cls_id=cls_id,
        sep_id=sep_id,
        sequence_length=sequence_length,
        lines=builder == "lines",
    )


def plan_pairs(
    sentences: IntArray,
    documents: IntArray,
    max_pieces: int,
    short_probability: float,
    rng: np.random.Generator,
) -> IntArray:
    """Choose the sentences of every pair of one epoch.

    For each document: collect sentences until the target length is reached (``max_pieces``; with
    ``short_probability`` a shorter one, uniform from 2), cut the collection at a random sentence
    into A and B; half of the time, and always when it is one sentence, B is instead drawn from
    another document, and the sentences it displaced are used again for the next pair.

    Args:
        sentences: (sentences + 1,) first piece of each sentence, and the end of the last.
        documents: (documents + 1,) first sentence of each document, and the number of sentences.
        max_pieces: pieces of A and B together that a row can hold.
        short_probability: share of documents with a shorter target.
        rng: where the randomness comes from.

    Raises:
        ValueError: positions that do not increase, or lead outside of what they count.

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
    num_documents = len(documents) - 1
    starts = sentences.tolist()
    first_of = documents.tolist()

    def below(n: int) -> int:
        return int(rng.random() * n)

    rows: list[tuple[int, int, int, int, int]] = []
    for document in range(num_documents):
        first, last = first_of[document], first_of[document + 1]
        target = max_pieces
        if rng.random() < short_probability:
            target = 2 + below(max_pieces - 1)
        chunk = i = first
        while i < last:
            if i != last - 1 and starts[i + 1] - starts[chunk] < target:
                i += 1
                continue
            size = i + 1 - chunk
            a_end = chunk + 1 + (below(size - 1) if size >= 2 else 0)
            a_length = starts[a_end] - starts[chunk]
            b_first, b_end = a_end, i + 1
            is_random = size == 1 or rng.random() < 0.5
            if is_random:
                other = document
                for _ in range(10):
                    if other != document:
                        break
                    other = below(num_documents)
                if other == document:
                    other = (document + 1) % num_documents
                b_first = first_of[other] + below(first_of[other + 1] - first_of[other])
                b_end = b_first + 1
                while (
                    b_end < first_of[other + 1]
                    and starts[b_end] - starts[b_first] < target - a_length
                ):
                    b_end += 1
                i = a_end - 1
            rows.append(
                (
                    starts[chunk],
                    a_length,
                    starts[b_first],
                    starts[b_end] - starts[b_first],
                    int(is_random),
                )
            )
            i += 1
            chunk = i
    return np.array(rows, dtype=np.int64).reshape(-1, 5)


def _check_increasing(values: IntArray, strictly: bool, limit: int, name: str) -> None:
    """What the native versions check, too: positions that lead outside of an array."""
    before, after = values[:-1], values[1:]
    steps = after > before if strictly else after >= before
    if not len(values) or values[0] < 0 or not steps.all() or values[-1] > limit:
        raise ValueError(f"{name}: must increase from 0 or more to {limit} at most")


def truncate_pair(
    a_words: BoolArray, b_words: BoolArray, max_pieces: int, rng: np.random.Generator
) -> tuple[int, int, int, int]:
    """Cut a pair to ``max_pieces``: a word off the longer segment's front or back, by a coin.

    Google's ``truncate_seq_pair``, by words instead of pieces. A segment's only word is cut
    piece by piece: there is nothing better to do.

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
        following = first[longer] + 1
        while following < end[longer] and not words[longer][following]:
            following += 1
        single = following == end[longer]
        if rng.random() < 0.5:
            first[longer] = first[longer] + 1 if single else following
        else:
            last = end[longer] - 1
            while not single and last > first[longer] and not words[longer][last]:
                last -= 1
            end[longer] = last
    return first[0], end[0], first[1], end[1]


def plan_packed(
    sentences: IntArray,
    groups: IntArray,
    word_start_bits: npt.NDArray[np.uint8],
    capacity: int,
    joint: int,
) -> IntArray:
    """Pack the whole sentences of one shard into rows of at most ``capacity`` pieces.

    Args:
        sentences: (sentences + 1,) first piece of each sentence, and the end of the last.
        groups: first pieces of the groups (documents or lines), increasing.
        word_start_bits: Arrow bitmap of the shard's word starts.
        capacity: pieces a row can hold besides [CLS] and the last [SEP].
        joint: pieces that a group's border inside a row costs; -1: a row never crosses it.

    Raises:
        ValueError: positions that do not increase or lead outside of the bitmap; no capacity.

    Returns:
        (rows, 2): first piece and end of each row. Rows follow each other without a gap.
    """
    if _rows is not None:
        planned = _rows.plan_packed(sentences, groups, word_start_bits, capacity, joint)
        return np.frombuffer(planned, dtype=np.int64).reshape(-1, 2)
    _check_increasing(sentences, False, 8 * len(word_start_bits), "sentences")
    if capacity < 1:
        raise ValueError("capacity: must be 1 at least")
    borders = set(groups.tolist())
    rows: list[tuple[int, int]] = []
    starts = sentences.tolist()
    start, used = (starts[0] if len(starts) > 1 else 0), 0
    for at, end in pairwise(starts):
        opens_group = at in borders and at > start
        cost = joint if opens_group else 0
        if at > start and ((opens_group and joint < 0) or used + cost + (end - at) > capacity):
            rows.append((start, at))
            start, used, cost = at, 0, 0
        if at == start:
            cost = 0
        position = at
        while end - position > capacity:
            cut = position + capacity
            while cut > position and not word_start_bits[cut >> 3] >> (cut & 7) & 1:
                cut -= 1
            if cut == position:
                cut = position + capacity
            rows.append((position, cut))
            position = start = cut
        used += cost + (end - position)
    if len(starts) > 1 and starts[-1] > start:
        rows.append((start, starts[-1]))
    return np.array(rows, dtype=np.int64).reshape(-1, 2)
