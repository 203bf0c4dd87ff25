"""Raw files -> blocks of whole documents: about 16 MB of bytes, processed in one go.

One process reads the input and cuts it at documents' ends; any process can decode a block
(``zhbert.data.outline``). Memory is bounded for every input: a document or a line that does not
fit into a block is split and counted. Nothing is dropped silently: unreadable input is counted in
``TextBlock.counts``, with its place.
"""

from __future__ import annotations

import array
import hashlib
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import BinaryIO

from zhbert.data.parquet import parquet_cells
from zhbert.data.read_options import Problem, ReadOptions
from zhbert.data.records import READERS, examine
from zhbert.data.sources import (
    JSON_LINES,
    TEXT,
    DamagedError,
    Source,
    Stream,
    opened,
)
from zhbert.data.tables import READ_AS
from zhbert.files import HALF_SURROGATE

_CHUNK = 256 << 10
_RECORDS = "records"
# Maximum number of records in a segment.
_MOST_RECORDS = 4096


@dataclass(frozen=True)
class Place:
    """A place that could not be read, and the reason. ``line`` is 0 for a whole file."""

    source: int
    name: str
    line: int
    reason: str
    error: bool = True  # False: worth reporting, but nothing was lost

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
    """``txt`` or ``jsonl``: unchanged lines of the file; ``records``: concatenated texts"""
    raw: bytes
    first_line: int
    lengths: array.array[int] | None = None
    """for records: the size of each text in bytes, -1 for a record without text"""
    lines: array.array[int] | None = None
    """for records: their first lines; None: one record per line, from ``first_line`` on"""


@dataclass
class TextBlock:
    """Documents that are processed in one go, with the counts and problems of reading them."""

    number: int
    segments: list[Segment] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    places: list[Place] = field(default_factory=list)
    read_to: int = 0
    """bytes of the files on disk that were read up to this block's end"""
    size: int = 0
    """bytes of the block's segments, decompressed"""

    def add(self, found: Segment | Place | Mapping[str, int]) -> None:
        """Add a part of a file, a place to report, or counts."""
        if isinstance(found, Segment):
            self.segments.append(found)
            self.size += len(found.raw)
        elif isinstance(found, Place):
            self.places.append(found)
        else:
            self.counts.update(found)

    def fingerprint(self) -> str:
        """Return a SHA-256 of all that the block's documents depend on; file names do not count."""
        digest = hashlib.sha256()
        for segment in self.segments:
            lengths = b"" if segment.lengths is None else segment.lengths.tobytes()
            head = f"{segment.kind} {len(segment.raw)} {len(lengths)}\n"
            digest.update(head.encode())
            digest.update(lengths)
            digest.update(segment.raw)
        return digest.hexdigest()


# Reading a file yields parts of it, places to report, and counts.
_Found = Segment | Place | Mapping[str, int]


def read_blocks(sources: Iterable[Source], reading: ReadOptions) -> Iterator[TextBlock]:
    """Cut the input into blocks at documents' ends, in order; a pure function of the input."""
    block = TextBlock(0)
    done = 0

    def room() -> int:
        return reading.block_bytes - block.size

    for source in sources:
        with opened(source) as raw:
            for found in _read(source, raw, reading, room):
                block.add(found)
                block.read_to = done + _position(raw)
                if room() <= 0:
                    yield block
                    block = TextBlock(block.number + 1, read_to=block.read_to)
        done += source.size
        block.read_to = done
    if block.segments or block.places or block.counts:
        yield block


def _position(raw: BinaryIO) -> int:
    """Return how many bytes of the file on disk were read; 0 for a pipe."""
    try:
        return raw.tell()
    except OSError:
        return 0


def _read(
    source: Source, raw: BinaryIO, reading: ReadOptions, room: Callable[[], int]
) -> Iterator[_Found]:
    """Yield one file's parts; ``room()`` is the space left in the current block, in bytes."""
    yield {"files.read": 1}
    try:
        content = examine(source, raw, reading)
        stream = content.stream
        if source.size == 0 if stream is None else stream.empty:
            yield {"files.empty": 1}
            yield Place(source.number, source.name, 0, "empty", error=False)
        elif stream is None:
            yield from _parquet(source, raw, reading)
        else:
            yield {f"form.{content.form}": 1}
            yield {f"told.{told}": 1 for told in content.remarks}
            if content.form in (TEXT, JSON_LINES):
                yield from _LineFile(source, stream, content.form, reading).parts(room)
            else:
                yield from _records(source, stream, content.form, reading, room)
    except DamagedError as error:
        yield {"files.damaged": 1}
        yield Place(source.number, source.name, 0, str(error))


# ---------------------------------------------------------------- text and JSON lines

_BLANK_LINE = re.compile(rb"\n(?:[ \t\r\f\v]|\xe3\x80\x80|\xc2\xa0)*\n")
_LINE_END = re.compile(rb"\n")
# A sentence ends with one of these marks and the closing quotes and brackets after it.
_SENTENCE_ENDS = [mark.encode() for mark in "。！？…"]
_SENTENCE_END = re.compile(
    rb"(?:\xe3\x80\x82|\xef\xbc[\x81\x9f]|\xe2\x80\xa6)+"
    rb"(?:\xe2\x80[\x99\x9d]|\xe3\x80[\x8d\x8f]|\xef\xbc\x89)*"
)
_BLANK = re.compile(rb"[ \t]")


class _LineFile:
    """A file of lines that is being cut, with a buffer of the bytes not yet yielded."""

    def __init__(self, source: Source, stream: Stream, form: str, reading: ReadOptions) -> None:
        self._source, self._stream, self._form, self._reading = source, stream, form, reading
        documents = "line" if form == JSON_LINES else reading.documents
        self._document_end = {"blank": _BLANK_LINE, "line": _LINE_END, "file": None}[documents]
        self._bytes = b""
        self._line = 1  # the number of the buffer's first line
        self._damage: DamagedError | None = None  # why the file ends here

    def parts(self, room: Callable[[], int]) -> Iterator[_Found]:
        """Yield parts that each fill a block and end with a document, if that ends soon enough."""
        while self._grow((want := room()) + 1):
            limit = want + self._reading.document_bytes
            end = self._boundary(want, limit)
            if end is not None:
                yield self._take(end)
            elif self._form == JSON_LINES:
                yield from self._skip_record(want)
            else:
                yield from self._split_document(want, limit)
        if self._bytes:
            yield self._take(len(self._bytes))
        if self._damage is not None:
            raise self._damage

    def _grow(self, to: int) -> bool:
        """Read until the buffer has ``to`` bytes; return False if the file ends before."""
        parts, size = [self._bytes], len(self._bytes)
        try:
            while size < to and self._damage is None:
                part = self._stream.read(max(_CHUNK, min(to - size, 4 << 20)))
                if not part:
                    break
                parts.append(part)
                size += len(part)
        except DamagedError as error:
            self._damage = error
        if len(parts) > 1:
            self._bytes = b"".join(parts)
        return size >= to

    def _boundary(self, want: int, limit: int) -> int | None:
        """Return the end of the first document from ``want`` on, or of the file; None: too far."""
        pattern = self._document_end
        searched = want - 1
        ended = False
        while True:
            found = pattern.search(self._bytes, searched) if pattern is not None else None
            if found and found.end() <= limit:
                return found.end()
            size = len(self._bytes)
            if ended:
                return size
            if size >= limit:
                return None
            # A blank line may continue beyond the buffer.
            line_end = self._bytes.rfind(b"\n", searched)
            searched = line_end if line_end >= 0 else size
            # Twice as much each time, so that joining takes no more time than reading.
            ended = not self._grow(min(size + max(_CHUNK, size - want), limit))

    def _take(self, size: int) -> Segment:
        """Remove the first bytes from the buffer and return them."""
        taken, self._bytes = self._bytes[:size], self._bytes[size:]
        first_line = self._line
        self._line += taken.count(b"\n")
        return Segment(self._source.number, self._source.name, self._form, taken, first_line)

    def _skip_record(self, want: int) -> Iterator[_Found]:
        """Yield the whole lines before a record that is too large for a block, and skip it."""
        if whole := self._bytes.rfind(b"\n", 0, want) + 1:
            yield self._take(whole)
        yield {"documents.found": 1, "documents.too_long": 1}
        yield self._place(self._reading.too_long.reason, error=True)
        while (end := self._bytes.find(b"\n")) < 0:
            self._bytes = b""
            if not self._grow(1):
                return
        self._take(end + 1)

    def _split_document(self, want: int, limit: int) -> Iterator[_Found]:
        """Yield the beginning of a document that is too large for a block."""
        end, inside_line = place_to_split(self._bytes, want, limit)
        yield self._take(end)
        yield {"documents.split": 1, "lines.split": int(inside_line)}
        what = "line" if inside_line else "document"
        yield self._place(f"a {what} too long to be kept whole was split here", error=False)

    def _place(self, reason: str, *, error: bool) -> Place:
        return Place(self._source.number, self._source.name, self._line, reason, error)


def place_to_split(buffer: bytes, want: int, limit: int) -> tuple[int, bool]:
    """Find a place to split a text that has no boundary; return if that is inside a line, too.

    The place is the first line end from ``want`` on; else a sentence's end, a blank, or the end of
    a character.
    """
    end = buffer.find(b"\n", want - 1, limit)
    if end >= 0:
        return end + 1, False
    # The pattern alone takes a second for 16 MB without a sentence's end; this takes 10 ms.
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


# ---------------------------------------------------------------- records


class _Records:
    """Records that become one segment."""

    def __init__(self) -> None:
        self.raw = bytearray()
        self.lengths, self.lines = array.array("q"), array.array("q")

    def add(self, line: int, text: str) -> None:
        encoded = text.encode()
        self.raw += encoded
        self.lengths.append(len(encoded))
        self.lines.append(line)

    def segment(self, source: Source) -> Segment:
        return Segment(
            source.number,
            source.name,
            _RECORDS,
            bytes(self.raw),
            self.lines[0],
            self.lengths,
            self.lines,
        )


def _records(
    source: Source, stream: Stream, form: str, reading: ReadOptions, room: Callable[[], int]
) -> Iterator[_Found]:
    """Yield one file's records in parts that fit into the current block."""
    held = _Records()
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
            held.add(line, text)
            if len(held.raw) >= min(_CHUNK, room()) or len(held.lengths) >= _MOST_RECORDS:
                yield held.segment(source)
                held = _Records()
    except DamagedError:
        # The records before the damage are kept.
        if held.lengths:
            yield held.segment(source)
        raise
    if held.lengths:
        yield held.segment(source)


def _counts_of(problem: Problem) -> dict[str, int]:
    if problem.what == READ_AS:
        return {f"told.{problem.reason}": 1}
    if problem.what == "broken_line":
        return {"lines.found": 1, "lines.broken_utf8": 1}
    return {f"documents.{problem.what}": 1} | ({"documents.found": 1} if problem.error else {})


def _parquet(source: Source, raw: BinaryIO, reading: ReadOptions) -> Iterator[_Found]:
    """Yield one parquet file's texts, a few hundred rows at a time."""
    for cells in parquet_cells(source, raw, reading):
        yield Segment(
            source.number, source.name, _RECORDS, bytes(cells.raw), cells.first, cells.lengths
        )
