"""Raw files -> blocks of whole documents: about 16 MB of bytes, processed in one go.

One process cuts the input at documents' ends; any process can decode a block
(``zhbert.data.outline``). Of a plain file of lines, the process that cuts looks only at the places
where a block may end: the process that works on a block reads it. What is compressed, encoded
otherwise, or consists of records is read where it is cut. Memory is bounded for every input: a
document or a line that does not fit into a block is split and counted. Nothing is dropped silently:
unreadable input is counted in ``TextBlock.counts``, with its place.
"""

from __future__ import annotations

import array
import hashlib
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
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
from zhbert.errors import ZhbertError
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


@dataclass(frozen=True)
class FilePart:
    """Bytes of a file that the process which works on them reads."""

    path: Path
    offset: int
    size: int

    def read(self) -> bytes:
        """Return the bytes; raise ZhbertError if the file has become shorter."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            raw = file.read(self.size)
        if len(raw) < self.size:
            raise ZhbertError(
                f"{self.path}: became shorter while it was read; run the same command again"
            )
        return raw


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
    unread: FilePart | None = None
    """where to read ``raw``, which is empty until then; ``first_line`` does not count the lines of
    such parts of the file"""


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
            self.size += found.unread.size if found.unread else len(found.raw)
        elif isinstance(found, Place):
            self.places.append(found)
        else:
            self.counts.update(found)

    def load(self) -> dict[int, int]:
        """Read the parts of files that were not read yet; return how many lines end there.

        The numbers are by source. Such a part is the last of its source in the block.
        """
        lines = {}
        for segment in self.segments:
            if segment.unread is not None:
                segment.raw, segment.unread = segment.unread.read(), None
                lines[segment.source] = segment.raw.count(b"\n")
        return lines

    def fingerprint(self) -> str:
        """Return a SHA-256 of all that the block's documents depend on; file names do not count."""
        digest = hashlib.sha256()
        for segment in self.segments:
            raw = segment.raw if segment.unread is None else segment.unread.read()
            lengths = b"" if segment.lengths is None else segment.lengths.tobytes()
            head = f"{segment.kind} {len(raw)} {len(lengths)}\n"
            digest.update(head.encode())
            digest.update(lengths)
            digest.update(raw)
        return digest.hexdigest()


# Reading a file yields parts of it, places to report, and counts.
_Found = Segment | Place | Mapping[str, int]


def read_blocks(
    sources: Iterable[Source], reading: ReadOptions, *, unread: bool = False
) -> Iterator[TextBlock]:
    """Cut the input into blocks at documents' ends, in order; a pure function of the input.

    With ``unread``, plain files of lines are not read here: `TextBlock.load` does it, and the
    line numbers in the block lack the lines that earlier calls of it have returned.
    """
    block = TextBlock(0)
    done = 0

    def room() -> int:
        return reading.block_bytes - block.size

    for source in sources:
        with opened(source) as raw:
            for found in _read(source, raw, reading, room, unread):
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
    source: Source, raw: BinaryIO, reading: ReadOptions, room: Callable[[], int], unread: bool
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
                lines = _LineFile(source, stream, content.form, reading)
                if unread and stream.begin is not None and _can_be_opened_again(source):
                    lines.leave_unread(raw, stream.begin)
                yield from lines.parts(room)
            else:
                yield from _records(source, stream, content.form, reading, room)
    except DamagedError as error:
        yield {"files.damaged": 1}
        yield Place(source.number, source.name, 0, str(error))


def _can_be_opened_again(source: Source) -> bool:
    """Return True if another process finds the same file by the path."""
    path = source.path
    return path is not None and path.is_file() and path.absolute().parts[1] not in ("dev", "proc")


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
    """A file of lines that is being cut, with a buffer of the bytes not yet yielded.

    Of a file that is left unread, the buffer begins where the current part may end.
    """

    def __init__(self, source: Source, stream: Stream, form: str, reading: ReadOptions) -> None:
        self._source, self._form, self._reading = source, form, reading
        documents = "line" if form == JSON_LINES else reading.documents
        self._document_end = {"blank": _BLANK_LINE, "line": _LINE_END, "file": None}[documents]
        self._bytes = b""
        self._line = 1  # the number of the buffer's first line
        self._damage: DamagedError | None = None  # why the file ends here
        self._pull: Callable[[int], bytes] = stream.read
        self._unread: BinaryIO | None = None  # the file, if it is left unread
        self._at = 0  # the offset in that file of the current part
        self._skipped = 0  # bytes of the current part that precede the buffer

    def leave_unread(self, raw: BinaryIO, begin: int) -> None:
        """Yield parts to be read by others; the text begins at this offset of the file."""
        self._unread, self._pull, self._at = raw, raw.read, begin
        self._size = os.fstat(raw.fileno()).st_size

    def parts(self, room: Callable[[], int]) -> Iterator[_Found]:
        """Yield parts that each fill a block and end with a document, if that ends soon enough."""
        while self._reaches(want := room()):
            first = want - self._skipped
            limit = first + self._reading.document_bytes
            end = self._boundary(first, limit)
            if end is not None:
                yield self._take(self._skipped + end)
            elif self._form == JSON_LINES:
                yield from self._skip_record(want)
            else:
                yield from self._split_document(first, limit)
        if left := self._skipped + len(self._bytes):
            yield self._take(left)
        if self._damage is not None:
            raise self._damage

    def _reaches(self, want: int) -> bool:
        """Return True if more than ``want`` bytes are left, and have the buffer begin there."""
        if self._unread is None:
            return self._grow(want + 1)
        left = max(0, self._size - self._at)
        # A document's end is looked for from the last of the bytes on that are wanted.
        self._skip(want - 1 if left > want else left)
        return left > want

    def _skip(self, size: int) -> None:
        """Have the buffer begin ``size`` bytes after the current part's beginning."""
        assert self._unread is not None
        self._bytes, self._skipped = b"", size
        self._unread.seek(self._at + size)

    def _grow(self, to: int) -> bool:
        """Read until the buffer has ``to`` bytes; return False if the file ends before."""
        parts, size = [self._bytes], len(self._bytes)
        try:
            while size < to and self._damage is None:
                part = self._pull(max(_CHUNK, min(to - size, 4 << 20)))
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
        """Return the current part, of ``size`` bytes; the next one begins after it."""
        source, first_line = self._source, self._line
        begin, self._at = self._at, self._at + size
        if self._skipped:
            assert source.path is not None
            unread = FilePart(source.path.absolute(), begin, size)
            self._skip(0)
            return Segment(source.number, source.name, self._form, b"", first_line, unread=unread)
        taken, self._bytes = self._bytes[:size], self._bytes[size:]
        self._line += taken.count(b"\n")
        return Segment(source.number, source.name, self._form, taken, first_line)

    def _skip_record(self, want: int) -> Iterator[_Found]:
        """Yield the whole lines before a record that is too large for a block, and skip it."""
        if self._skipped:
            self._skip(0)
            self._grow(want)
        if whole := self._bytes.rfind(b"\n", 0, want) + 1:
            yield self._take(whole)
        yield {"documents.found": 1, "documents.too_long": 1}
        yield self._place(self._reading.too_long.reason, error=True)
        while (end := self._bytes.find(b"\n")) < 0:
            self._take(len(self._bytes))
            if not self._grow(1):
                return
        self._take(end + 1)

    def _split_document(self, first: int, limit: int) -> Iterator[_Found]:
        """Yield the beginning of a document that is too large for a block."""
        end, inside_line = place_to_split(self._bytes, first, limit)
        yield self._take(self._skipped + end)
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
