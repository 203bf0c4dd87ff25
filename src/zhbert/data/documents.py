"""Raw files to blocks of documents: text, and records of all the kinds that records.py reads.

One process reads the input and cuts it into blocks of about 16 MB at documents' ends
(``read_blocks``); any process can take a block apart (``outline``). Memory stays bounded whatever
a file holds: a document or line that does not fit is split and counted. Nothing is dropped
silently: what cannot be read is counted in ``Block.counts`` or ``Outline.counts``, with its place.
"""

from __future__ import annotations

import array
import hashlib
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from zhbert.data.read_options import Problem, ReadOptions
from zhbert.data.records import (
    READ_AS,
    READERS,
    form_of,
    json_line,
    parquet_cells,
)
from zhbert.data.sources import (
    JSON_LINES,
    PARQUET,
    TEXT,
    DamagedError,
    Source,
    Stream,
    check_encoding,
    form_of_bytes,
    opened,
)
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

_CHUNK = 256 << 10
_RECORDS = "records"
_ROWS = 4096


@dataclass(frozen=True)
class Place:
    """Where something could not be read, and why. ``line`` is 0 for a file as a whole."""

    source: int
    name: str
    line: int
    reason: str
    error: bool = True  # False: worth telling, but nothing was lost

    def __str__(self) -> str:
        return (
            f"{self.name}:{self.line}: {self.reason}"
            if self.line
            else f"{self.name}: {self.reason}"
        )


@dataclass
class Segment:
    """A part of one file: whole documents, or a part of one that was too long."""

    source: int
    name: str
    kind: str
    raw: bytes
    first_line: int
    # Records: the bytes of each text, -1 for none; and their lines, where not one after another.
    lengths: array.array[int] | None = None
    lines: array.array[int] | None = None


@dataclass
class Block:
    """Documents to be worked on in one go, and what reading them brought to light."""

    number: int
    segments: list[Segment] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    places: list[Place] = field(default_factory=list)
    read_to: int = 0  # bytes of the files, compressed as they are, that were read so far
    size: int = 0

    def add(self, segment: Segment) -> None:
        """Put one more part of a file into the block."""
        self.segments.append(segment)
        self.size += len(segment.raw)

    def fingerprint(self) -> str:
        """SHA-256 of all that the block's documents depend on; file names are not part of it."""
        digest = hashlib.sha256()
        for segment in self.segments:
            lengths = b"" if segment.lengths is None else segment.lengths.tobytes()
            head = f"{segment.kind} {len(segment.raw)} {len(lengths)}\n"
            digest.update(head.encode())
            digest.update(lengths)
            digest.update(segment.raw)
        return digest.hexdigest()


# ---------------------------------------------------------------- reading and cutting

# What a reader of one file yields: a part of it, a place, or counts.
_Found = Segment | Place | dict[str, int]


def read_blocks(sources: Iterable[Source], reading: ReadOptions) -> Iterator[Block]:
    """Cut the input into blocks at documents' ends, in order; a pure function of the input."""
    block = Block(0)
    done = 0

    def room() -> int:
        return reading.block_bytes - block.size

    for source in sources:
        with opened(source) as raw:
            for found in _read(source, raw, reading, room):
                if isinstance(found, Segment):
                    block.add(found)
                elif isinstance(found, Place):
                    block.places.append(found)
                else:
                    block.counts.update(found)
                block.read_to = done + _position(raw)
                if room() <= 0:
                    yield block
                    block = Block(block.number + 1, read_to=block.read_to)
        done += source.size
        block.read_to = done
    if block.segments or block.places or block.counts:
        yield block


def _position(raw: BinaryIO) -> int:
    """Bytes of the file, as it lies on disk, that were read; 0 for a pipe."""
    try:
        return raw.tell()
    except OSError:
        return 0


def _read(
    source: Source, raw: BinaryIO, reading: ReadOptions, room: Callable[[], int]
) -> Iterator[_Found]:
    yield {"files.read": 1}
    try:
        if form_of_bytes(source, raw) == PARQUET:
            yield from _column(source, raw, reading)
            return
        stream = Stream(source, raw, check_encoding(reading.encoding))
        if stream.empty:
            yield from _empty(source)
            return
        form, told = form_of(source, stream.head, reading.field)
        yield {f"form.{form}": 1} | ({f"told.{told}": 1} if told else {})
        if stream.old_line_ends:
            yield {"told.lines that carriage returns alone end": 1}
        if form in (TEXT, JSON_LINES):
            yield from _cut(source, stream, form, reading, room)
        else:
            yield from _records(source, stream, form, reading, room)
    except DamagedError as error:
        yield {"files.damaged": 1}
        yield Place(source.number, source.name, 0, str(error))


def _empty(source: Source) -> Iterator[_Found]:
    yield {"files.empty": 1}
    yield Place(source.number, source.name, 0, "empty", error=False)


_BLANK_LINE = re.compile(rb"\n(?:[ \t\r\f\v]|\xe3\x80\x80|\xc2\xa0)*\n")
_LINE_END = re.compile(rb"\n")
# These and closing quotes after them; where a text has none of these, a blank.
_SENTENCE_ENDS = [mark.encode() for mark in "。！？…"]
_SENTENCE_END = re.compile(
    rb"(?:\xe3\x80\x82|\xef\xbc[\x81\x9f]|\xe2\x80\xa6)+"
    rb"(?:\xe2\x80[\x99\x9d]|\xe3\x80[\x8d\x8f]|\xef\xbc\x89)*"
)
_BLANK = re.compile(rb"[ \t]")


class _Buffer:
    """What was read of a file of lines and not given out yet.

    Where the file is damaged it ends; ``damage`` then says why.
    """

    def __init__(self, stream: Stream) -> None:
        self.bytes = b""
        self.line = 1  # the number of the first line in it
        self.damage: DamagedError | None = None
        self._stream = stream

    def grow(self, to: int) -> bool:
        """Read until ``to`` bytes are there; False if the file ends before."""
        parts, size = [self.bytes], len(self.bytes)
        try:
            while size < to and self.damage is None:
                part = self._stream.read(max(_CHUNK, min(to - size, 4 << 20)))
                if not part:
                    break
                parts.append(part)
                size += len(part)
        except DamagedError as error:
            self.damage = error
        if len(parts) > 1:
            self.bytes = b"".join(parts)
        return size >= to

    def boundary(self, pattern: re.Pattern[bytes] | None, want: int, limit: int) -> int | None:
        """Where the first boundary from ``want`` on ends, or the file; None: not before limit."""
        searched = want - 1
        ended = False
        while True:
            found = pattern.search(self.bytes, searched) if pattern is not None else None
            if found and found.end() <= limit:
                return found.end()
            size = len(self.bytes)
            if ended:
                return size
            if size >= limit:
                return None
            # A blank line may straddle what has been read so far.
            line_end = self.bytes.rfind(b"\n", searched)
            searched = line_end if line_end >= 0 else size
            # Twice as much each time: joining what was read takes no more time than reading it.
            ended = not self.grow(min(size + max(_CHUNK, size - want), limit))

    def take(self, size: int) -> bytes:
        """Give out the first bytes."""
        taken, self.bytes = self.bytes[:size], self.bytes[size:]
        self.line += taken.count(b"\n")
        return taken

    def skip_line(self) -> None:
        """Drop the rest of the first line."""
        while (end := self.bytes.find(b"\n")) < 0:
            self.bytes = b""
            if not self.grow(1):
                return
        self.take(end + 1)


def _cut(
    source: Source, stream: Stream, kind: str, reading: ReadOptions, room: Callable[[], int]
) -> Iterator[_Found]:
    """One file of lines, cut where the next block is full."""
    documents = "line" if kind == JSON_LINES else reading.documents
    pattern = {"blank": _BLANK_LINE, "line": _LINE_END, "file": None}[documents]
    buffer = _Buffer(stream)

    def part(size: int) -> Segment:
        line = buffer.line
        return Segment(source.number, source.name, kind, buffer.take(size), line)

    def note(reason: str, *, error: bool) -> Place:
        return Place(source.number, source.name, buffer.line, reason, error)

    while buffer.grow((want := room()) + 1):
        limit = want + reading.document_bytes
        at = buffer.boundary(pattern, want, limit)
        if at is not None:
            yield part(at)
        elif kind == JSON_LINES:
            if whole := buffer.bytes.rfind(b"\n", 0, want) + 1:
                yield part(whole)
            yield {"documents.found": 1, "documents.too_long": 1}
            yield note(reading.too_long.reason, error=True)
            buffer.skip_line()
        else:
            at, inside_line = place_to_split(buffer.bytes, want, limit)
            what = "line" if inside_line else "document"
            yield part(at)
            yield {"documents.split": 1, "lines.split": int(inside_line)}
            yield note(f"a {what} too long to be kept whole was split here", error=False)
    if buffer.bytes:
        yield part(len(buffer.bytes))
    if buffer.damage is not None:
        raise buffer.damage


def place_to_split(buffer: bytes, want: int, limit: int) -> tuple[int, bool]:
    """Where to split what has no boundary: a line's end, a sentence's, a blank, a character's."""
    end = buffer.find(b"\n", want - 1, limit)
    if end >= 0:
        return end + 1, False
    # Not the pattern alone: over 16 MB without a sentence's end it takes a second, this 10 ms.
    first = limit
    for mark in _SENTENCE_ENDS:
        at = buffer.find(mark, want, first)
        first = at if at >= 0 else first
    if found := _SENTENCE_END.match(buffer, first, limit) or _BLANK.search(buffer, want, limit):
        return found.end(), True
    at = want
    while at < min(want + 3, len(buffer)) and buffer[at] & 0xC0 == 0x80:
        at += 1
    return at, True


def _records(
    source: Source, stream: Stream, form: str, reading: ReadOptions, room: Callable[[], int]
) -> Iterator[_Found]:
    """One file's records, put together to parts of about a block."""
    raw = bytearray()
    lengths, lines = array.array("q"), array.array("q")

    def part() -> Iterator[Segment]:
        nonlocal raw, lengths, lines
        if lengths:
            yield Segment(
                source.number, source.name, _RECORDS, bytes(raw), lines[0], lengths, lines
            )
            raw, lengths, lines = bytearray(), array.array("q"), array.array("q")

    try:
        for line, text in READERS[form](stream, form, reading):
            if isinstance(text, Problem):
                yield _counts_of(text)
                if line:
                    yield Place(source.number, source.name, line, text.reason, text.error)
                continue
            text, lone = HALF_SURROGATE.subn("\ufffd", text)
            if lone:
                yield {"characters.lone_surrogates": lone}
            added = text.encode()
            raw += added
            lengths.append(len(added))
            lines.append(line)
            if len(raw) >= min(_CHUNK, room()) or len(lengths) >= _ROWS:
                yield from part()
    except DamagedError:
        yield from part()
        raise
    yield from part()


def _counts_of(problem: Problem) -> dict[str, int]:
    if problem.what == READ_AS:
        return {f"told.{problem.reason}": 1}
    if problem.what == "broken_line":
        return {"lines.found": 1, "lines.broken_utf8": 1}
    return {f"documents.{problem.what}": 1} | ({"documents.found": 1} if problem.error else {})


def _column(source: Source, raw: BinaryIO, reading: ReadOptions) -> Iterator[_Found]:
    """One parquet file's texts, a few hundred rows at a time."""
    if not source.size:
        yield from _empty(source)
        return
    for cells in parquet_cells(source, raw, reading):
        yield Segment(
            source.number, source.name, _RECORDS, bytes(cells.raw), cells.first, cells.lengths
        )


# ---------------------------------------------------------------- taking a block apart


@dataclass
class Outline:
    """A block's text, its sentences, lines and documents.

    The text's lines end with \\n. ``documents`` and ``lines`` say for each sentence whether it is
    its document's or line's first.
    """

    text: str
    codes: Array
    sentences: Sentences
    counts: Counter[str]
    places: list[Place]

    @property
    def documents(self) -> Array:
        """(sentences,) bool: starts a document."""
        return (self.sentences.flags & STARTS_DOCUMENT).astype(bool)

    @property
    def lines(self) -> Array:
        """(sentences,) bool: starts a line."""
        return (self.sentences.flags & STARTS_LINE).astype(bool)

    def spans(self, first: Array) -> tuple[Array, Array]:
        """Starts and ends, in characters, of the runs that begin at the sentences ``first``."""
        ends = self.sentences.ends
        begins = np.flatnonzero(first)
        starts = np.where(begins > 0, ends[begins - 1], 0)
        stops = np.append(starts[1:], len(self.codes))[: len(begins)]
        return starts.astype(np.int32), stops.astype(np.int32)

    def document_hashes(self) -> Array:
        """(documents,) uint64, of each document's text."""
        return hash_spans(self.codes, *self.spans(self.documents))

    def line_hashes(self) -> Array:
        """(lines, 2) uint64: 128 bits of each line's text, blanks at its ends apart."""
        spans = self.spans(self.lines)
        seeds = (0x243F6A8885A308D3, 0x13198A2E03707344)
        return np.stack([hash_spans(self.codes, *spans, seed) for seed in seeds], axis=1)


class _Collector:
    """Builds a block's text out of its segments."""

    def __init__(self, reading: ReadOptions) -> None:
        self.reading = reading
        self.parts: list[str] = []
        self.size = 0
        self.starts: list[Array] = []  # documents' starts, in characters
        self.numbers: list[tuple[Segment, Sequence[int]]] = []  # the lines they stand on
        self.counts: Counter[str] = Counter()
        self.places: list[Place] = []

    def bad(self, segment: Segment, line: int, problem: Problem, *, document: bool = True) -> None:
        if document:
            self.counts["documents.found"] += 1
        self.counts[f"{'documents' if document else 'lines'}.{problem.what}"] += 1
        self.places.append(Place(segment.source, segment.name, line, problem.reason))

    def add(self, text: str) -> None:
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        if not text.endswith("\n"):
            text += "\n"
        self.parts.append(text)
        self.size += len(text)

    def add_lines(self, segment: Segment) -> None:
        one_a_line = self.reading.documents == "line"
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
        begin = self.size
        self.add(text)
        starts = np.zeros(1, np.int64)
        if one_a_line:
            ends = np.flatnonzero(codes_of(self.parts[-1]) == 10)
            starts = np.append(starts, ends[:-1] + 1)
        self.starts.append(begin + starts)
        self.numbers.append((segment, numbers))

    def _decodable(self, segment: Segment, one_a_line: bool) -> Iterator[tuple[int, str]]:
        """The lines that are what they should be, with their numbers; the others are counted."""
        *lines, last = segment.raw.split(b"\n")
        # CR is part of the line's end, also where the line after it is left out.
        lines = [*(line.removesuffix(b"\r") for line in lines), last]
        for number, raw in enumerate(lines, segment.first_line):
            try:
                yield number, raw.decode()
            except UnicodeDecodeError:
                self.bad(segment, number, self.reading.broken, document=one_a_line)

    def add_records(self, segment: Segment) -> None:
        starts, numbers = [], []
        texts = self._json_texts if segment.lengths is None else self._texts
        for number, text in texts(segment):
            starts.append(self.size)
            numbers.append(number)
            self.add(_BLANK_LINES.sub("\n", text) if "\n" in text else text)
        self.starts.append(np.array(starts, np.int64))
        self.numbers.append((segment, numbers))

    def _texts(self, segment: Segment) -> Iterator[tuple[int, str]]:
        at = 0
        numbers = segment.lines or range(segment.first_line, sys.maxsize)
        for number, length in zip(numbers, segment.lengths or (), strict=False):
            if length < 0:
                self.bad(segment, number, Problem("missing_field", "no text: null"))
                continue
            raw = segment.raw[at : at + length]
            at += length
            try:
                yield number, raw.decode()
            except UnicodeDecodeError:
                self.bad(segment, number, self.reading.broken)

    def _json_texts(self, segment: Segment) -> Iterator[tuple[int, str]]:
        for number, raw in enumerate(segment.raw.split(b"\n"), segment.first_line):
            found = json_line(raw, self.reading)
            if isinstance(found, Problem):
                self.bad(segment, number, found)
            elif found is not None:
                # Only an escape can bring in half a surrogate pair.
                if b"\\u" in raw:
                    found, lone = HALF_SURROGATE.subn("\ufffd", found)
                    self.counts["characters.lone_surrogates"] += lone
                yield number, found


# A blank line inside a record does not end it.
_BLANK_LINES = re.compile(r"\n\s+")


def outline(block: Block, reading: ReadOptions) -> Outline:
    """Decode a block and find its documents, lines and sentences."""
    collector = _Collector(reading)
    for segment in block.segments:
        if segment.kind == TEXT:
            collector.add_lines(segment)
        else:
            collector.add_records(segment)
    text = "".join(collector.parts)
    collector.parts.clear()
    codes = codes_of(text)
    starts = np.concatenate(collector.starts or [np.zeros(0, np.int64)])
    sentences = split_text(codes, starts, blank_lines_separate=reading.documents == "blank")
    counts, places = collector.counts, collector.places
    flags = sentences.flags
    given = (flags & GIVEN).astype(bool)
    empty = len(starts) - int(np.count_nonzero(given))
    if empty:
        places += _empty_places(collector, sentences, given, starts)
    documents = int(np.count_nonzero(flags & STARTS_DOCUMENT))
    counts["documents.found"] += documents + empty
    counts["documents.empty"] += empty
    counts["lines.found"] += sentences.lines + counts["lines.broken_utf8"]
    counts["lines.blank"] += sentences.blank_lines
    counts["sentences.cut"] += int(np.count_nonzero(flags & CUT))
    for kind, count in dropped(codes).items():
        counts[f"characters.{kind}"] += count
    places.sort(key=lambda place: (place.source, place.line))
    return Outline(text, codes, sentences, +counts, places)


def _empty_places(
    collector: _Collector, sentences: Sentences, given: Array, starts: Array, most: int = 10
) -> list[Place]:
    """Where the first few documents stand that hold nothing."""
    ends = sentences.ends
    begins = np.flatnonzero(given)
    # The last given start at or before the document's first sentence is its own; a first sentence
    # may begin with the blank lines before it only at the very start of the text.
    first = np.where(begins > 0, ends[begins - 1], -1)
    if len(first) and first[0] < 0:
        text = collector.size
        first[0] = min(text, int(ends[begins[0]]) - 1)
    filled = np.searchsorted(starts, first, "right") - 1
    empty = np.ones(len(starts), bool)
    empty[filled] = False
    wanted = np.flatnonzero(empty)[:most].tolist()
    places = []
    base = 0
    for (segment, numbers), these in zip(collector.numbers, collector.starts, strict=True):
        for k in wanted:
            if base <= k < base + len(these):
                line = numbers[k - base]
                places.append(
                    Place(segment.source, segment.name, line, "an empty document", error=False)
                )
        base += len(these)
    return places
