"""Small corpora whose every piece is another number, and slow, obviously right row builders."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from tests.data.reference_masking import WORD_LENGTH_SHARES

# A word is a list of pieces, a sentence one of words, a line one of sentences, a document of lines.
Word = list[int]
Sentence = list[Word]
Document = list[list[Sentence]]

CLS, SEP = 0, 1
FIRST_PIECE = 10


def random_documents(
    count: int, rng: random.Random, *, lines: int = 4, sentences: int = 4, words: int = 12
) -> list[Document]:
    """Documents of up to so many lines, sentences a line and words a sentence; pieces count up."""
    piece = FIRST_PIECE
    documents: list[Document] = []
    for _ in range(count):
        document: Document = []
        for _ in range(rng.randint(1, lines)):
            line: list[Sentence] = []
            for _ in range(rng.randint(1, sentences)):
                sentence: Sentence = []
                for _ in range(rng.randint(1, words)):
                    length = rng.choices(range(1, 7), WORD_LENGTH_SHARES)[0]
                    sentence.append(list(range(piece, piece + length)))
                    piece += length
                line.append(sentence)
            document.append(line)
        documents.append(document)
    return documents


def sentences_of(document: Document) -> list[list[int]]:
    """The document's sentences as flat pieces."""
    return [[p for word in sentence for p in word] for line in document for sentence in line]


@dataclass(frozen=True)
class MemoryShard:
    """What the builders read of a shard, made from documents."""

    documents: Sequence[Document]

    @cached_property
    def pieces(self) -> np.ndarray:
        flat = [p for document in self.documents for s in sentences_of(document) for p in s]
        return np.array(flat, dtype=np.uint32)

    @cached_property
    def word_start_bits(self) -> np.ndarray:
        flags = [
            index == 0
            for document in self.documents
            for line in document
            for sentence in line
            for word in sentence
            for index in range(len(word))
        ]
        return np.packbits(np.array(flags, dtype=bool), bitorder="little")

    @cached_property
    def document_starts(self) -> np.ndarray:
        sizes = [sum(map(len, sentences_of(document))) for document in self.documents]
        return np.cumsum([0, *sizes], dtype=np.int64)

    def sentence_starts(self) -> np.ndarray:
        sizes = [len(s) for document in self.documents for s in sentences_of(document)]
        return np.cumsum([0, *sizes], dtype=np.int64)[:-1]

    def line_starts(self) -> np.ndarray:
        sizes = [
            sum(len(word) for sentence in line for word in sentence)
            for document in self.documents
            for line in document
        ]
        return np.cumsum([0, *sizes], dtype=np.int64)[:-1]


@dataclass(frozen=True)
class Pair:
    a: list[list[int]]
    b: list[list[int]]
    is_random: bool


def google_pairs(
    documents: list[list[list[int]]],
    document_index: int,
    max_pieces: int,
    short_probability: float,
    rng: random.Random,
) -> list[Pair]:
    """One document's sentence pairs before truncation, step by step as the published procedure."""
    document = documents[document_index]
    target = max_pieces
    if rng.random() < short_probability:
        target = rng.randint(2, max_pieces)
    pairs = []
    held: list[list[int]] = []
    position = 0
    while position < len(document):
        held.append(document[position])
        at_end = position == len(document) - 1
        if at_end or sum(map(len, held)) >= target:
            split = rng.randint(1, len(held) - 1) if len(held) > 1 else 1
            a, displaced = held[:split], held[split:]
            b = displaced
            is_random = len(held) == 1 or rng.random() < 0.5
            if is_random:
                for _ in range(10):
                    other = rng.randint(0, len(documents) - 1)
                    if other != document_index:
                        break
                start = rng.randint(0, len(documents[other]) - 1)
                b = []
                for sentence in documents[other][start:]:
                    b.append(sentence)
                    if sum(map(len, b)) >= target - sum(map(len, a)):
                        break
                position -= len(displaced)
            pairs.append(Pair(a, b, is_random))
            held = []
        position += 1
    return pairs


def google_truncation(
    a: list[int], b: list[int], max_pieces: int, rng: random.Random
) -> tuple[list[int], list[int]]:
    """Piece by piece off the longer one's front or back (B's when they are equal)."""
    a, b = list(a), list(b)
    while len(a) + len(b) > max_pieces:
        longer = a if len(a) > len(b) else b
        longer.pop(0 if rng.random() < 0.5 else -1)
    return a, b


def packed(documents: Sequence[Document], sequence_length: int, *, lines: bool) -> list[list[int]]:
    """Rows of consecutive sentences with their marks; too long a sentence is cut by words."""
    rows: list[list[int]] = []
    row: list[int] = []

    def close() -> None:
        if row:
            rows.append([CLS, *row, SEP])
            row.clear()

    room = sequence_length - 2
    for document in documents:
        opens = bool(row)  # a [SEP] where a document ends inside a row
        for line in document:
            for sentence in line:
                length = sum(map(len, sentence))
                if len(row) + opens + length > room:
                    close()
                    opens = False
                if opens:
                    row.append(SEP)
                    opens = False
                for word in sentence:
                    if len(row) + len(word) > room:
                        close()
                    row.extend(word)
            if lines:
                close()
                opens = False
    close()
    return rows
