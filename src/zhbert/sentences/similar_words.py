"""The similar words of a corpus's words, for the masking strategy ``mac``.

Words are similar if their vectors are. These are read from a file, or counted in the corpus itself:
how much more often than by chance a word stands beside each of the most frequent words (positive
pointwise mutual information), and of that the principal components. With these settings counting
is as good as word2vec: https://aclanthology.org/Q15-1016
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zhbert.data.read_options import ReadOptions
from zhbert.data.shards import Corpus
from zhbert.data.similar_words import WordIds, write_similar_words
from zhbert.data.sources import check_encoding
from zhbert.data.texts import read_lines
from zhbert.errors import ZhbertError
from zhbert.files import make_folder, read_head
from zhbert.folders import check_file
from zhbert.sentences.nearest import nearest
from zhbert.text.tokenizer import Tokenizer
from zhbert.wording import counted

Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

LONGEST = 6
"""Longer words, in pieces, get no similar words: too few are of the same length."""
MOST_WORDS = 30_000
"""Of a corpus's words, the most frequent ones."""
# The words beside which words are counted: 30,000 x 2,000 numbers take 240 MB.
_CONTEXTS = 2_000
# Near neighbours find words that can stand in the same place, farther ones words of the same topic.
_WINDOW = 2
_DIMENSIONS = 200
# Frequent words would look improbable beside rare ones otherwise (Q15-1016, section 3.1).
_SMOOTHING = 0.75
_CHUNK = 1 << 19
# The numbers of words and dimensions, a word, and bytes that are no number's digits.
_BINARY = re.compile(rb"\d+ \d+\n[^ \n]+ (?![-+.\w\s]{4})")
_NO_NUMBERS = frozenset(sign + name for sign in ("", "-") for name in ("nan", "NaN", "inf", "Inf"))
_FACTOR = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True, kw_only=True)
class SimilarWordsMade:
    """What `make_similar_words` has written."""

    out: Path
    words: int
    """Words that have similar words."""
    share: float
    """Their share of the corpus's words."""
    broken: int
    """Lines of the file of vectors that were left out."""
    cut_off: str
    """What tells that the file of vectors is not whole; "" otherwise."""
    examples: list[tuple[str, list[str]]]
    """Some of the most frequent words, and their similar words."""


@dataclass(frozen=True)
class _Words:
    """The frequent words of a corpus, the most frequent first."""

    ids: list[WordIds]
    hashes: NDArray[np.uint64]
    """(words,)"""
    counts: Ints
    """(words,)"""
    total: int
    """Number of words in the corpus, rare and long ones too."""

    def numbers(self, hashes: NDArray[np.uint64]) -> Ints:
        """Return the number of the word with each hash; -1 where there is none."""
        order = np.argsort(self.hashes)
        place = np.searchsorted(self.hashes, hashes, sorter=order).clip(max=len(order) - 1)
        found = order[place]
        return np.where(self.hashes[found] == hashes, found, -1)


def make_similar_words(
    corpus: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    vectors: str | os.PathLike[str] | None = None,
    encoding: str | None = None,
    most: int = 5,
    min_frequency: int = 10,
    overwrite: bool = False,
) -> SimilarWordsMade:
    """Write the similar words of a corpus's most frequent words to the file ``out``.

    The same corpus gives the same bytes.

    Args:
        corpus: a folder made by ``prepare``.
        out: the file (``zhbert.data.similar_words`` describes it).
        vectors: a file of word vectors in word2vec's or GloVe's text format, compressed or not;
            None: vectors that are counted in the corpus.
        encoding: of ``vectors``, if it is not UTF-8.
        most: so many similar words of each word, the most similar ones.
        min_frequency: words that occur less often are left out.
        overwrite: replace the file ``out``.

    Raises:
        ZhbertError: a file cannot be read or written, or no word has a vector.
    """
    for option, value in (("most", most), ("min-frequency", min_frequency)):
        if value < 1:
            raise ZhbertError(f"--{option} {value}: must be 1 or more")
    opened = Corpus.open(os.fspath(corpus))
    tokenizer = opened.tokenizer()
    inputs = {"file of vectors": Path(vectors)} if vectors is not None else {}
    check_file(out, overwrite=overwrite, needed=inputs, make_parents=True)
    words = _frequent_words(opened, tokenizer, min_frequency)
    broken, cut_off = 0, ""
    if vectors is None:
        table, known = _counted_vectors(opened, words), np.arange(len(words.ids))
    else:
        table, known, broken, cut_off = _read_vectors(vectors, words, tokenizer, encoding)
    found = list(_neighbours(words, table, known, most))
    if not found and vectors is not None:
        raise ZhbertError(
            f"{os.fspath(vectors)}: no similar words: it has vectors of only "
            f"{counted(len(known), 'word')} of the corpus" + (f"; {cut_off}" if cut_off else "")
        )
    if not found:
        raise ZhbertError(f"{opened.folder}: no similar words: it has too few words; use more text")
    make_folder(Path(out).parent)
    write_similar_words(out, tokenizer.vocabulary, found)
    similar: dict[WordIds, list[WordIds]] = {}
    for word, other, _ in found:
        similar.setdefault(word, []).append(other)
    covered = sum(
        int(n) for word, n in zip(words.ids, words.counts, strict=True) if word in similar
    )
    return SimilarWordsMade(
        out=Path(out),
        words=len(similar),
        share=covered / words.total,
        broken=broken,
        cut_off=cut_off,
        examples=[
            (tokenizer.decode(word), [tokenizer.decode(other) for other in similar[word]])
            for word in [word for word in similar if len(word) > 1][:200:20]
        ],
    )


# --- the words of a corpus ------------------------------------------------------------------------


def _chunks(corpus: Corpus) -> Iterator[tuple[NDArray[np.uint64], Ints, NDArray[np.int32]]]:
    """Yield of some words at a time: their hashes, sentences' numbers and pieces.

    Pieces are (words, LONGEST), -1 where a word ends; the hash of a longer word is 0.
    """
    for shard in corpus.shards("train"):
        pieces = np.asarray(shard.pieces)
        starts = np.flatnonzero(shard.word_starts())
        lengths = np.diff(starts, append=len(pieces))
        sentences = np.searchsorted(shard.sentence_starts(), starts, "right")
        for first in range(0, len(starts), _CHUNK):
            part = slice(first, first + _CHUNK)
            places = starts[part, None] + np.arange(LONGEST)
            table = pieces[places.clip(max=len(pieces) - 1)].astype(np.int32)
            table[np.arange(LONGEST) >= lengths[part, None]] = -1
            hashes = _hashes(table)
            hashes[lengths[part] > LONGEST] = 0
            yield hashes, sentences[part], table


def _hashes(table: NDArray[np.int32]) -> NDArray[np.uint64]:
    """Return a number for each word; different words have the same by a chance of 2^-64."""
    hashes = np.zeros(len(table), np.uint64)
    for column in table.T:
        hashes = (hashes ^ (hashes >> np.uint64(29))) * _FACTOR + column.astype(np.uint64)
    return hashes


def _frequent_words(corpus: Corpus, tokenizer: Tokenizer, min_frequency: int) -> _Words:
    hashes = np.empty(0, np.uint64)
    counts, table, total = np.empty(0, np.int64), np.empty((0, LONGEST), np.int32), 0
    for more, _, pieces in _chunks(corpus):
        total += len(more)
        new, index, times = np.unique(more, return_index=True, return_counts=True)
        hashes, first, inverse = np.unique(
            np.concatenate([hashes, new]), return_index=True, return_inverse=True
        )
        sums = np.zeros(len(hashes), np.int64)
        np.add.at(sums, inverse, np.concatenate([counts, times]))
        counts, table = sums, np.concatenate([table, pieces[index]])[first]
    # A special token has no similar word, and a piece with a blank cannot be written.
    strange = [
        number
        for number, piece in enumerate(tokenizer.vocabulary)
        if number in tokenizer.special_ids or piece.split() != [piece]
    ]
    fine = (counts >= min_frequency) & (hashes != 0) & ~np.isin(table, strange).any(1)
    hashes, counts, table = hashes[fine], counts[fine], table[fine]
    order = np.lexsort((*table.T[::-1], -counts))[:MOST_WORDS]
    ids = [tuple(piece for piece in row if piece >= 0) for row in table[order].tolist()]
    if not ids:
        raise ZhbertError(
            f"{corpus.folder}: no word occurs {min_frequency} times; use more text, or a lower "
            "--min-frequency"
        )
    return _Words(ids, hashes[order], counts[order], total)


# --- their vectors --------------------------------------------------------------------------------


def _counted_vectors(corpus: Corpus, words: _Words) -> Floats:
    """Return the vectors of words by their neighbours in the corpus: (words, dimensions)."""
    contexts = min(_CONTEXTS, len(words.ids))
    beside = np.zeros((len(words.ids), contexts), np.float32)
    for hashes, sentences, _ in _chunks(corpus):
        numbers = words.numbers(hashes)
        for distance in range(1, _WINDOW + 1):
            left, right = numbers[:-distance], numbers[distance:]
            near = (sentences[:-distance] == sentences[distance:]) & (left >= 0) & (right >= 0)
            for word, other in ((left[near], right[near]), (right[near], left[near])):
                cells = (word * contexts + other)[other < contexts]
                np.add.at(beside.reshape(-1), cells, np.float32(1))
    shares = beside.sum(0, dtype=np.float64) ** _SMOOTHING
    shares = np.maximum(shares / max(shares.sum(), 1), 1e-12).astype(np.float32)
    products = np.zeros((contexts, contexts))
    for block in _blocks(beside):
        block /= np.maximum(block.sum(1, keepdims=True), 1) * shares
        np.log(np.maximum(block, 1, out=block), out=block)
        products += block.T @ block
    # The right singular vectors: the products of all columns are small, whatever the words' number.
    squares, directions = np.linalg.eigh(products)
    best = np.argsort(-squares)[:_DIMENSIONS]
    best = best[squares[best] > 1e-6 * max(squares.max(), 1e-30)]
    # Singular values to the power of 1/2 weigh the components (Q15-1016, section 3.3).
    weighted = (directions[:, best] / squares[best] ** 0.25).astype(np.float32)
    return np.concatenate([block @ weighted for block in _blocks(beside)])


def _blocks(table: Floats) -> Iterator[Floats]:
    return (table[first : first + 4096] for first in range(0, len(table), 4096))


def _read_vectors(
    path: str | os.PathLike[str], words: _Words, tokenizer: Tokenizer, encoding: str | None
) -> tuple[Floats, Ints, int, str]:
    """Read the vectors of words.

    Returns:
        them, the words' numbers, how many lines are broken, and what tells that some are missing.
    """
    if Path(path).is_file() and _BINARY.match(read_head(path)):
        raise ZhbertError(
            f"{os.fspath(path)}: word2vec's binary format; save it as text, for example with "
            "gensim: KeyedVectors.load_word2vec_format(FILE, binary=True)"
            ".save_word2vec_format(OUT)"
        )
    index = {word: number for number, word in enumerate(words.ids)}
    found: dict[int, Floats] = {}
    dimensions = broken = promised = there = 0
    for lines in read_lines(os.fspath(path), ReadOptions(encoding=check_encoding(encoding))):
        rows = [fields for line in lines if (fields := line.split())]
        if not dimensions and rows:
            header = len(rows[0]) == 2 and all(field.isdecimal() for field in rows[0])
            dimensions = int(rows[0][1]) if header else len(rows[0]) - 1
            promised = int(rows[0][0]) if header else 0
            rows = rows[header:]
        there += len(rows)
        fine = [
            row
            for row in rows
            if len(row) > dimensions > 0 and _NO_NUMBERS.isdisjoint(row[-dimensions:])
        ]
        broken += len(rows) - len(fine)
        texts = [" ".join(row[:-dimensions]) for row in fine]
        for row, ids in zip(
            fine, tokenizer.encode_batch(texts, special_tokens=False) if texts else [], strict=True
        ):
            number = index.get(tuple(ids.tolist()), -1)
            if number < 0 or number in found:
                continue
            vector = _numbers_of(row[-dimensions:])
            broken += vector is None
            if vector is not None:
                found[number] = vector
    if not found:
        raise ZhbertError(
            f"{os.fspath(path)}: no vector of any word of the corpus; it must have a word and its "
            "numbers on each line, as word2vec and GloVe write text"
        )
    known = np.array(sorted(found), np.int64)
    cut_off = (
        f"its first line promises {counted(promised, 'word')}, {there:,} "
        f"{'is' if there == 1 else 'are'} there"
        if there < promised
        else ""
    )
    return np.stack([found[number] for number in known.tolist()]), known, broken, cut_off


def _numbers_of(fields: Sequence[str]) -> Floats | None:
    try:
        vector = np.array(fields, np.float32)
    except ValueError:
        return None
    return vector if np.isfinite(vector).all() else None


def _neighbours(
    words: _Words, table: Floats, known: Ints, most: int
) -> Iterator[tuple[WordIds, WordIds, float]]:
    """Yield each word with each of its similar words of as many pieces, and their similarity."""
    lengths = np.array([len(words.ids[number]) for number in known.tolist()])
    for length in range(1, LONGEST + 1):
        group, own = known[lengths == length], table[lengths == length]
        if not len(group):
            continue
        scores, others = nearest(own, own, most + 1)
        for row, (similarities, columns) in enumerate(
            zip(scores.tolist(), others.tolist(), strict=True)
        ):
            best = [
                (words.ids[group[column]], similarity)
                for column, similarity in zip(columns, similarities, strict=True)
                if column != row and similarity > 0
            ]
            for other, similarity in best[:most]:
                yield words.ids[group[row]], other, similarity
