"""A block of raw text -> its decoded text, with its documents, lines and sentences."""

from __future__ import annotations

import re
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from zhbert.data.blocks import Place, Segment, TextBlock
from zhbert.data.json_records import json_line
from zhbert.data.read_options import Problem, ReadOptions
from zhbert.data.sources import TEXT
from zhbert.files import HALF_SURROGATE
from zhbert.text.normalize import dropped
from zhbert.text.sentences import (
    CUT,
    GIVEN,
    STARTS_DOCUMENT,
    STARTS_LINE,
    Sentences,
    codes_of,
    hash_spans,
    split_text,
)

Array = np.ndarray[Any, Any]

# Maximum number of empty documents per block whose places are reported.
_MOST_EMPTY = 10


@dataclass
class Outline:
    """A block's text and sentences, with the counts and problems of decoding it."""

    text: str
    """all documents, concatenated; every line ends with a line feed"""
    codes: Array
    """(characters,) uint32: the text's code points"""
    sentences: Sentences
    counts: Counter[str]
    places: list[Place]

    @property
    def documents(self) -> Array:
        """(sentences,) bool: True for the first sentence of a document."""
        return (self.sentences.flags & STARTS_DOCUMENT).astype(bool)

    @property
    def lines(self) -> Array:
        """(sentences,) bool: True for the first sentence of a line."""
        return (self.sentences.flags & STARTS_LINE).astype(bool)

    def spans(self, first: Array) -> tuple[Array, Array]:
        """Return starts and ends, in characters, of the runs that begin at sentences ``first``."""
        ends = self.sentences.ends
        begins = np.flatnonzero(first)
        starts = np.where(begins > 0, ends[begins - 1], 0)
        stops = np.append(starts[1:], len(self.codes))[: len(begins)]
        return starts.astype(np.int32), stops.astype(np.int32)

    def document_hashes(self) -> Array:
        """Return a hash of each document's text: (documents,) uint64."""
        return hash_spans(self.codes, *self.spans(self.documents))

    def line_hashes(self) -> Array:
        """Return 128 bits of hashes of each line's text without outer blanks: (lines, 2) uint64."""
        spans = self.spans(self.lines)
        seeds = (0x243F6A8885A308D3, 0x13198A2E03707344)
        return np.stack([hash_spans(self.codes, *spans, seed) for seed in seeds], axis=1)


def outline(block: TextBlock, reading: ReadOptions) -> Outline:
    """Decode a block and find its documents, lines and sentences."""
    decoded = _DecodedBlock(reading)
    for segment in block.segments:
        if segment.kind == TEXT:
            decoded.add_lines(segment)
        else:
            decoded.add_records(segment)
    text = "".join(decoded.parts)
    decoded.parts.clear()
    codes = codes_of(text)
    starts = np.concatenate(decoded.starts or [np.zeros(0, np.int64)])
    sentences = split_text(codes, starts, blank_lines_separate=reading.documents == "blank")
    places = decoded.places
    empty = _empty_documents(sentences, starts)
    if len(empty):
        places += decoded.places_of(empty[:_MOST_EMPTY].tolist(), "an empty document")
    places.sort(key=lambda place: (place.source, place.line))
    counts = decoded.counts + _counts(sentences, codes, len(empty))
    counts["lines.found"] += counts["lines.broken_utf8"]
    return Outline(text, codes, sentences, +counts, places)


def _counts(sentences: Sentences, codes: Array, empty: int) -> Counter[str]:
    documents = int(np.count_nonzero(sentences.flags & STARTS_DOCUMENT))
    counts = Counter(
        {
            "documents.found": documents + empty,
            "documents.empty": empty,
            "lines.found": sentences.lines,
            "lines.blank": sentences.blank_lines,
            "sentences.cut": int(np.count_nonzero(sentences.flags & CUT)),
        }
    )
    for kind, count in dropped(codes).items():
        counts[f"characters.{kind}"] += count
    return counts


def _empty_documents(sentences: Sentences, starts: Array) -> Array:
    """Return which of the documents with given ``starts`` contain no sentence."""
    ends = sentences.ends
    begins = np.flatnonzero(sentences.flags & GIVEN)
    if len(begins) == len(starts):
        return np.zeros(0, np.int64)
    # A document's start is the last given start at or before its first sentence. Only the block's
    # first sentence may begin with blank lines, so for that one its last character counts.
    first = np.where(begins > 0, ends[begins - 1], ends[begins] - 1)
    empty = np.ones(len(starts), bool)
    empty[np.searchsorted(starts, first, "right") - 1] = False
    return np.flatnonzero(empty)


# A blank line inside a record does not end it.
_BLANK_LINES = re.compile(r"\n\s+")


class _DecodedBlock:
    """A builder of a block's text from its segments."""

    def __init__(self, reading: ReadOptions) -> None:
        self.parts: list[str] = []
        self.starts: list[Array] = []
        """for each segment: the starts of its documents, in characters of the block's text"""
        self.counts: Counter[str] = Counter()
        self.places: list[Place] = []
        self._reading = reading
        self._size = 0
        self._lines: list[tuple[Segment, Sequence[int]]] = []  # these documents' lines

    def add_lines(self, segment: Segment) -> None:
        """Decode lines of text."""
        one_a_line = self._reading.documents == "line"
        numbers: Sequence[int] = range(segment.first_line, sys.maxsize)
        try:
            text = segment.raw.decode()
        except UnicodeDecodeError:
            kept = list(self._decodable(segment, one_a_line))
            if not kept and one_a_line:
                return
            text = "\n".join(line for _, line in kept)
            if one_a_line:
                numbers = [number for number, _ in kept]
        begin = self._size
        self._add(text)
        starts = np.zeros(1, np.int64)
        if one_a_line:
            ends = np.flatnonzero(codes_of(self.parts[-1]) == ord("\n"))
            starts = np.append(starts, ends[:-1] + 1)
        self.starts.append(begin + starts)
        self._lines.append((segment, numbers))

    def _decodable(self, segment: Segment, one_a_line: bool) -> Iterator[tuple[int, str]]:
        """Yield the lines that can be decoded, with their numbers; count the others."""
        *lines, last = segment.raw.split(b"\n")
        # CR is part of the line's end, even if the next line is left out.
        lines = [*(line.removesuffix(b"\r") for line in lines), last]
        for number, raw in enumerate(lines, segment.first_line):
            try:
                yield number, raw.decode()
            except UnicodeDecodeError:
                self._skip(segment, number, self._reading.broken, document=one_a_line)

    def add_records(self, segment: Segment) -> None:
        """Decode records, each of which is a document."""
        starts, numbers = [], []
        texts = self._json_texts if segment.lengths is None else self._texts
        for number, text in texts(segment):
            starts.append(self._size)
            numbers.append(number)
            self._add(_BLANK_LINES.sub("\n", text) if "\n" in text else text)
        self.starts.append(np.array(starts, np.int64))
        self._lines.append((segment, numbers))

    def _texts(self, segment: Segment) -> Iterator[tuple[int, str]]:
        at = 0
        numbers = segment.lines or range(segment.first_line, sys.maxsize)
        for number, length in zip(numbers, segment.lengths or (), strict=False):
            if length < 0:
                self._skip(segment, number, Problem("missing_field", "no text: null"))
                continue
            raw = segment.raw[at : at + length]
            at += length
            try:
                yield number, raw.decode()
            except UnicodeDecodeError:
                self._skip(segment, number, self._reading.broken)

    def _json_texts(self, segment: Segment) -> Iterator[tuple[int, str]]:
        for number, raw in enumerate(segment.raw.split(b"\n"), segment.first_line):
            found = json_line(raw, self._reading)
            if isinstance(found, Problem):
                self._skip(segment, number, found)
            elif found is not None:
                # Half a surrogate pair can only come from an escape.
                if b"\\u" in raw:
                    found, lone = HALF_SURROGATE.subn("\ufffd", found)
                    self.counts["characters.lone_surrogates"] += lone
                yield number, found

    def _add(self, text: str) -> None:
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        if not text.endswith("\n"):
            text += "\n"
        self.parts.append(text)
        self._size += len(text)

    def _skip(
        self, segment: Segment, line: int, problem: Problem, *, document: bool = True
    ) -> None:
        """Count a document or a line that is left out, and record its place."""
        if document:
            self.counts["documents.found"] += 1
        self.counts[f"{'documents' if document else 'lines'}.{problem.what}"] += 1
        self.places.append(Place(segment.source, segment.name, line, problem.reason))

    def places_of(self, documents: Sequence[int], reason: str) -> Iterator[Place]:
        """Yield the places of some documents, given by their numbers in the block."""
        base = 0
        for (segment, lines), starts in zip(self._lines, self.starts, strict=True):
            for number in documents:
                if base <= number < base + len(starts):
                    line = lines[number - base]
                    yield Place(segment.source, segment.name, line, reason, error=False)
            base += len(starts)
