"""Raw files to blocks of documents: txt, jsonl and parquet, compressed or not, and stdin.

One process reads the input and cuts it into blocks of about 16 MB at documents' ends
(``read_blocks``); any process can take a block apart (``outline``). Memory stays bounded whatever
a file holds: a document or line that does not fit is split and counted. Nothing is dropped
silently: what cannot be read is counted in ``Block.counts`` or ``Outline.counts``, with its place.
"""

from __future__ import annotations

import array
import hashlib
import json
import os
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.files import HALF_SURROGATE, describe_os_error
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

BLOCK_BYTES = 16 << 20
# How far beyond a block's end the end of its last document is looked for; also the longest record
# of a jsonl file. A block is therefore at most twice as large as BLOCK_BYTES.
DOCUMENT_BYTES = 16 << 20
_CHUNK = 256 << 10
# So much of a file's beginning tells whether it can be UTF-8.
_HEAD = 4096

DOCUMENTS = ("blank", "line", "file")
_TEXT, _RECORDS, _COLUMN = "txt", "jsonl", "parquet"
_KINDS = {
    ".txt": _TEXT,
    ".text": _TEXT,
    "": _TEXT,
    ".jsonl": _RECORDS,
    ".ndjson": _RECORDS,
    ".json": _RECORDS,
    ".parquet": _COLUMN,
}
_MAGIC = {
    ".gz": b"\x1f\x8b",
    ".bz2": b"BZh",
    ".xz": b"\xfd7zXZ\x00",
    ".zst": b"\x28\xb5\x2f\xfd",
}


@dataclass(frozen=True)
class Reading:
    """How the input is to be read.

    ``documents``: what separates documents in txt: a "blank" line, each "line" is one, each "file"
    is one. ``field``: which field of jsonl and parquet holds the text (stdin is read as jsonl where
    it is given; "text" otherwise).
    """

    documents: str = "blank"
    field: str | None = None
    block_bytes: int = BLOCK_BYTES
    document_bytes: int = DOCUMENT_BYTES


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


@dataclass(frozen=True)
class Source:
    """One file to read, or stdin (``path`` is None)."""

    number: int
    name: str
    path: Path | None
    size: int


@dataclass
class Segment:
    """A part of one file: whole documents, or a part of one that was too long."""

    source: int
    name: str
    kind: str
    raw: bytes
    first_line: int
    lengths: array.array[int] | None = None  # parquet: bytes of each text, -1 for a null


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


# ---------------------------------------------------------------- finding files


def find_sources(inputs: Iterable[str | Path], *, leave_out: Path | None = None) -> list[Source]:
    """The files that ``inputs`` name: files as given, folders recursively and sorted, "-" stdin.

    Of a folder, files named .txt, .jsonl, .ndjson, .json, .parquet (and .gz, .bz2, .xz, .zst of
    these) or without an ending are taken; hidden ones and the folder ``leave_out`` are not.
    Raises ZhbertError for a missing or unreadable file and for a folder without text.
    """
    sources: list[Source] = []
    hidden = leave_out.resolve() if leave_out is not None else None

    def add(path: Path | None, name: str) -> None:
        size = path.stat().st_size if path is not None and path.is_file() else 0
        sources.append(Source(len(sources), name, path, size))

    for given in inputs:
        if str(given) == "-":
            add(None, "stdin")
            continue
        path = Path(given)
        if path.is_dir():
            found = sorted(_text_files(path, hidden), key=lambda file: file.parts)
            if not found:
                raise ZhbertError(
                    f"{path}: no text in this folder (.txt, .jsonl, .json, .parquet, or these "
                    "with .gz, .bz2, .xz, .zst)"
                )
            for file in found:
                add(file, str(file))
        elif path.exists():
            add(path, str(path))
        else:
            raise ZhbertError(f"{path}: no such file or folder")
    for source in sources:
        if source.path is not None and not os.access(source.path, os.R_OK):
            raise ZhbertError(f"{source.path}: no permission to read it")
    if not sources:
        raise ZhbertError("no input: name files or folders, or - for stdin")
    return sources


def _text_files(folder: Path, hidden: Path | None) -> Iterator[Path]:
    for entry in folder.iterdir():
        if entry.name.startswith("."):
            continue
        if entry.is_dir():
            if not entry.is_symlink() and entry.resolve() != hidden:
                yield from _text_files(entry, hidden)
        elif entry.is_file() and _suffixes(entry.name)[0] in _KINDS:
            yield entry


def _suffixes(name: str) -> tuple[str, str]:
    """The ending that says what a file is, and that of its compression.

    >>> _suffixes("news.jsonl.gz"), _suffixes("wiki_00")
    (('.jsonl', '.gz'), ('', ''))
    """
    path = Path(name)
    packed = path.suffix.lower() if path.suffix.lower() in _MAGIC else ""
    if packed:
        path = path.with_suffix("")
    return path.suffix.lower(), packed


# ---------------------------------------------------------------- reading and cutting


class _DamagedError(Exception):
    """A file that cannot be read any further."""


class _Stream:
    """The bytes of one file, decompressed, with read errors as _DamagedError."""

    def __init__(self, source: Source, raw: BinaryIO) -> None:
        self._raw = raw
        head = raw.peek(8)[:8] if hasattr(raw, "peek") else b""
        expected = _suffixes(source.name)[1]
        packed = next((name for name, magic in _MAGIC.items() if head.startswith(magic)), "")
        if expected and head and packed != expected:
            raise _DamagedError(f"named {expected}, but its content is not")
        self.packed = packed
        self._file = _unpack(raw, packed)

    def read(self, size: int) -> bytes:
        """At least one byte and at most ``size``, as they come; none at the end."""
        try:
            # read1, not read: read would lose what stands before the place where a file is damaged,
            # and wait for more of a pipe than is needed.
            data: bytes = self._file.read1(size)
            return data
        except EOFError as error:
            raise _DamagedError("cut short: the compressed data ends too early") from error
        except OSError as error:
            if error.errno is not None:
                raise
            raise _DamagedError(f"damaged: {error}") from error
        except Exception as error:
            # zlib.error, LZMAError and ZstdError have nothing but Exception in common.
            raise _DamagedError(f"damaged: {error}") from error

    def position(self) -> int:
        """Bytes of the file, as it lies on disk, that were read."""
        try:
            return self._raw.tell()
        except OSError:
            return 0


def _unpack(raw: BinaryIO, packed: str) -> Any:
    if packed == ".gz":
        import gzip

        return gzip.GzipFile(fileobj=raw)
    if packed == ".bz2":
        import bz2

        return bz2.BZ2File(raw)
    if packed == ".xz":
        import lzma

        return lzma.LZMAFile(raw)
    if packed == ".zst":
        return _Zstandard(raw)
    return raw


class _Zstandard:
    """A zstandard file; unlike the library's own reader it notices where one was cut short."""

    def __init__(self, raw: BinaryIO) -> None:
        import zstandard

        # Long-distance files (zstd --long) ask for windows up to 2 GB; 128 MB is zstd's own limit.
        self._decompressor = zstandard.ZstdDecompressor(max_window_size=1 << 27)
        self._raw = raw
        self._frame: Any = None
        self._rest = b""
        self._ready = b""
        self._at = 0

    def read1(self, size: int) -> bytes:
        while self._at == len(self._ready):
            # Small steps: 4 KB of zstandard can hold as much as 128 MB.
            data = self._rest or self._raw.read(4096)
            self._rest = b""
            if not data:
                if self._frame is not None:
                    raise EOFError
                return b""
            if self._frame is None:
                self._frame = self._decompressor.decompressobj()
            self._ready, self._at = self._frame.decompress(data), 0
            if self._frame.eof:
                self._rest = self._frame.unused_data
                self._frame = None
        part = self._ready[self._at : self._at + size]
        self._at += len(part)
        return part


# What a reader of one file yields: a part of it, a place, or counts; and how far it has read.
_Found = tuple[Segment | Place | dict[str, int], int]


def read_blocks(sources: Iterable[Source], reading: Reading) -> Iterator[Block]:
    """Cut the input into blocks at documents' ends, in order; a pure function of the input."""
    block = Block(0)
    done = 0

    def room() -> int:
        return reading.block_bytes - block.size

    for source in sources:
        try:
            for found, position in _read(source, reading, room):
                if isinstance(found, Segment):
                    block.add(found)
                elif isinstance(found, Place):
                    block.places.append(found)
                else:
                    block.counts.update(found)
                block.read_to = done + position
                if room() <= 0:
                    yield block
                    block = Block(block.number + 1, read_to=block.read_to)
        except OSError as error:
            error.filename = source.name
            raise describe_os_error(error, "reading") from error
        done += source.size
        block.read_to = done
    if block.segments or block.places or block.counts:
        yield block


def _read(source: Source, reading: Reading, room: Callable[[], int]) -> Iterator[_Found]:
    if source.path is None:
        raw: BinaryIO = sys.stdin.buffer
        kind = _RECORDS if reading.field is not None else _TEXT
        yield from _read_open(source, raw, kind, reading, room)
        return
    kind = _KINDS.get(_suffixes(source.name)[0], _TEXT)
    with source.path.open("rb") as raw:
        yield from _read_open(source, raw, kind, reading, room)


def _read_open(
    source: Source, raw: BinaryIO, kind: str, reading: Reading, room: Callable[[], int]
) -> Iterator[_Found]:
    yield {"files.read": 1}, 0
    stream: _Stream | None = None
    try:
        if kind == _COLUMN:
            yield from _column(source, raw, reading, room)
            return
        stream = _Stream(source, raw)
        yield from _cut(source, stream, kind, reading, room)
    except _DamagedError as error:
        place = Place(source.number, source.name, 0, str(error))
        yield {"files.damaged": 1}, 0
        yield place, stream.position() if stream is not None else 0


_BLANK_LINE = re.compile(rb"\n(?:[ \t\r\f\v]|\xe3\x80\x80|\xc2\xa0)*\n")
_LINE_END = re.compile(rb"\n")
# 。！？… and closing quotes after them; where a text has none of these, a blank.
_SENTENCE_END = re.compile(
    rb"(?:\xe3\x80\x82|\xef\xbc[\x81\x9f]|\xe2\x80\xa6)+"
    rb"(?:\xe2\x80[\x99\x9d]|\xe3\x80[\x8d\x8f]|\xef\xbc\x89)*"
)
_BLANK = re.compile(rb"[ \t]")


def _cut(
    source: Source, stream: _Stream, kind: str, reading: Reading, room: Callable[[], int]
) -> Iterator[_Found]:
    """One file of lines, cut where the next block is full."""
    boundary = {"blank": _BLANK_LINE, "line": _LINE_END, "file": None}[reading.documents]
    if kind == _RECORDS:
        boundary = _LINE_END
    line = 1
    buffer = b""
    damage: _DamagedError | None = None

    def grow(to: int) -> bool:
        """Read until the buffer holds ``to`` bytes; False if the file ends before."""
        nonlocal buffer, damage
        parts = [buffer]
        size = len(buffer)
        while size < to and damage is None:
            try:
                part = stream.read(max(_CHUNK, min(to - size, 4 << 20)))
            except _DamagedError as error:
                damage = error
                break
            if not part:
                break
            parts.append(part)
            size += len(part)
        if len(parts) > 1:
            buffer = b"".join(parts)
        return size >= to

    def boundary_from(want: int, limit: int) -> int | None:
        """The first boundary at or after ``want``, the file's end, or None: none before limit."""
        searched = want - 1
        ended = False
        while True:
            found = boundary.search(buffer, searched) if boundary is not None else None
            if found and found.end() <= limit:
                return found.end()
            if ended:
                return len(buffer)
            if len(buffer) >= limit:
                return None
            # A blank line may straddle what has been read so far.
            searched = max(want - 1, buffer.rfind(b"\n", want - 1))
            ended = not grow(min(len(buffer) + _CHUNK, limit))

    def part(size: int) -> tuple[Segment, int]:
        """The buffer's first bytes as a segment."""
        nonlocal line, buffer
        raw, buffer = buffer[:size], buffer[size:]
        first = line
        line += raw.count(b"\n")
        return Segment(source.number, source.name, kind, raw, first), stream.position()

    def note(reason: str, *, error: bool) -> tuple[Place, int]:
        return Place(source.number, source.name, line, reason, error), stream.position()

    grow(_HEAD)
    if not buffer and damage is None:
        yield {"files.empty": 1}, 0
        yield Place(source.number, source.name, 0, "empty", error=False), 0
        return
    _must_look_like_utf8(buffer)
    buffer = buffer.removeprefix(b"\xef\xbb\xbf")
    while True:
        want = room()
        if not grow(want + 1):
            break
        limit = want + reading.document_bytes
        at = boundary_from(want, limit)
        if at is not None:
            yield part(at)
        elif kind == _RECORDS:
            whole = buffer.rfind(b"\n", 0, want) + 1
            if whole:
                yield part(whole)
            yield {"documents.found": 1, "documents.too_long": 1}, stream.position()
            yield note(_too_long(reading), error=True)
            while (end := buffer.find(b"\n")) < 0:
                buffer = b""
                if not grow(1):
                    break
            line += 1
            buffer = buffer[end + 1 :] if end >= 0 else b""
        else:
            at, inside_line = _place_to_split(buffer, want, limit)
            what = "line" if inside_line else "document"
            yield part(at)
            yield {"documents.split": 1, "lines.split": int(inside_line)}, stream.position()
            yield note(f"a {what} too long to be kept whole was split here", error=False)
    if buffer:
        yield part(len(buffer))
    if damage is not None:
        raise damage


def _too_long(reading: Reading) -> str:
    return f"a record longer than {reading.document_bytes >> 20} MB was skipped"


def _place_to_split(buffer: bytes, want: int, limit: int) -> tuple[int, bool]:
    """Where to split what has no boundary: a line's end, a sentence's, a blank, a character's."""
    end = buffer.find(b"\n", want - 1, limit)
    if end >= 0:
        return end + 1, False
    for pattern in (_SENTENCE_END, _BLANK):
        found = pattern.search(buffer, want, limit)
        if found:
            return found.end(), True
    at = want
    while at < min(want + 3, len(buffer)) and buffer[at] & 0xC0 == 0x80:
        at += 1
    return at, True


def _must_look_like_utf8(head: bytes) -> None:
    sample = head[:_HEAD]
    if head[:2] in (b"\xff\xfe", b"\xfe\xff") or sample.count(0) > len(sample) // 5:
        raise _DamagedError("UTF-16, not UTF-8: convert it first (iconv -f UTF-16 -t UTF-8)")
    if head.startswith(b"PAR1"):
        raise _DamagedError("parquet data, but not named .parquet; it cannot be read from stdin")


def _column(
    source: Source, raw: BinaryIO, reading: Reading, room: Callable[[], int]
) -> Iterator[_Found]:
    """One parquet file's texts, a few hundred rows at a time."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    name = reading.field or "text"
    if not source.size:
        yield {"files.empty": 1}, 0
        yield Place(source.number, source.name, 0, "empty", error=False), 0
        return
    try:
        file = pq.ParquetFile(raw, buffer_size=1 << 20, pre_buffer=False)
        if name not in file.schema_arrow.names:
            raise _DamagedError(
                f"no column '{name}'; it has {', '.join(file.schema_arrow.names[:10])}; "
                "--field names the column"
            )
        kind = file.schema_arrow.field(name).type
        values = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(values) or pa.types.is_large_string(values)):
            raise _DamagedError(f"column '{name}' holds {kind}, not text; --field names the column")
        row = 1
        for batch in file.iter_batches(batch_size=256, columns=[name]):
            texts = batch.column(0).cast(pa.large_string())
            offsets = np.frombuffer(texts.buffers()[1], np.int64)
            offsets = offsets[texts.offset : texts.offset + len(texts) + 1]
            lengths = np.where(np.asarray(texts.is_null()), -1, np.diff(offsets))
            data = texts.buffers()[2]
            content = b"" if data is None else data.slice(offsets[0], offsets[-1] - offsets[0])
            yield (
                Segment(
                    source.number,
                    source.name,
                    _COLUMN,
                    bytes(content),
                    row,
                    array.array("q", lengths.astype(np.int64).tobytes()),
                ),
                raw.tell(),
            )
            row += len(texts)
    except pa.ArrowException as error:
        raise _DamagedError(f"not readable as parquet: {' '.join(str(error).split())}") from error


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

    def __init__(self, reading: Reading) -> None:
        self.reading = reading
        self.parts: list[str] = []
        self.size = 0
        self.starts: list[Array] = []  # documents' starts, in characters
        self.numbers: list[tuple[Segment, Iterable[int]]] = []  # the lines they stand on
        self.counts: Counter[str] = Counter()
        self.places: list[Place] = []

    def bad(self, segment: Segment, line: int, what: str, reason: str, *, document: bool) -> None:
        if document:
            self.counts["documents.found"] += 1
        self.counts[f"{'documents' if document else 'lines'}.{what}"] += 1
        self.places.append(Place(segment.source, segment.name, line, reason))

    def add(self, text: str) -> None:
        if "\r" in text:
            text = text.replace("\r\n", "\n")
        if not text.endswith("\n"):
            text += "\n"
        self.parts.append(text)
        self.size += len(text)

    def add_lines(self, segment: Segment) -> None:
        one_a_line = self.reading.documents == "line"
        begin = self.size
        numbers: Iterable[int] = (segment.first_line,)
        try:
            text = segment.raw.decode()
        except UnicodeDecodeError:
            kept = []
            kept_numbers = []
            lines = segment.raw.split(b"\n")
            last = segment.first_line + len(lines) - 1
            for number, raw in enumerate(lines, segment.first_line):
                if number != last:
                    # Part of the line's end, also where the line after it is left out.
                    raw = raw.removesuffix(b"\r")
                try:
                    kept.append(raw.decode())
                    kept_numbers.append(number)
                except UnicodeDecodeError:
                    self.bad(segment, number, "broken_utf8", "not UTF-8", document=one_a_line)
            text = "\n".join(kept)
            if one_a_line:
                if not kept:
                    return
                numbers = kept_numbers
        else:
            if one_a_line:
                numbers = range(segment.first_line, sys.maxsize)
        self.add(text)
        if one_a_line:
            added = self.parts[-1]
            ends = np.flatnonzero(codes_of(added) == 10)
            self.starts.append(begin + np.concatenate(([0], ends[:-1] + 1)))
        else:
            self.starts.append(np.array([begin]))
        self.numbers.append((segment, numbers))

    def add_records(self, segment: Segment) -> None:
        texts = []
        numbers = []
        for number, text in self._texts(segment):
            texts.append(_BLANK_LINES.sub("\n", text) if "\n" in text else text)
            numbers.append(number)
        starts = []
        for text in texts:
            starts.append(self.size)
            self.add(text)
        self.starts.append(np.array(starts, np.int64))
        self.numbers.append((segment, numbers))

    def _texts(self, segment: Segment) -> Iterator[tuple[int, str]]:
        if segment.lengths is None:
            yield from self._json_texts(segment)
            return
        at = 0
        for number, length in enumerate(segment.lengths, segment.first_line):
            if length < 0:
                self.bad(segment, number, "missing_field", "no text: null", document=True)
                continue
            raw = segment.raw[at : at + length]
            at += length
            try:
                yield number, raw.decode()
            except UnicodeDecodeError:
                self.bad(segment, number, "broken_utf8", "not UTF-8", document=True)

    def _json_texts(self, segment: Segment) -> Iterator[tuple[int, str]]:
        name = self.reading.field or "text"
        for number, raw in enumerate(segment.raw.split(b"\n"), segment.first_line):
            if not raw or raw.isspace():
                continue
            problem = None
            if len(raw) > self.reading.document_bytes:
                problem = "too_long", _too_long(self.reading)
            else:
                try:
                    record = json.loads(raw.decode())
                except UnicodeDecodeError:
                    problem = "broken_utf8", "not UTF-8"
                except (ValueError, RecursionError) as error:
                    problem = "bad_json", f"not JSON: {error}"
                else:
                    if not isinstance(record, dict):
                        problem = "bad_json", "not a JSON object"
                    elif name not in record:
                        known = ", ".join(list(record)[:5])
                        problem = "missing_field", f"no field '{name}'; it has: {known[:80]}"
                    elif not isinstance(record[name], str):
                        kind = type(record[name]).__name__
                        problem = "wrong_type", f"field '{name}' is not a string but {kind}"
                    else:
                        text = record[name]
                        # Only an escape can bring in half a surrogate pair.
                        if b"\\u" in raw:
                            text, lone = HALF_SURROGATE.subn("\ufffd", text)
                            self.counts["characters.lone_surrogates"] += lone
                        yield number, text
            if problem is not None:
                self.bad(segment, number, *problem, document=True)


# A blank line inside a record does not end it.
_BLANK_LINES = re.compile(r"\n\s+")


def outline(block: Block, reading: Reading) -> Outline:
    """Decode a block and find its documents, lines and sentences."""
    collector = _Collector(reading)
    for segment in block.segments:
        if segment.kind == _TEXT:
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
    counts["characters.nul"] += text.count("\0")
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
                line = _nth(numbers, k - base)
                places.append(
                    Place(segment.source, segment.name, line, "an empty document", error=False)
                )
        base += len(these)
    return places


def _nth(numbers: Iterable[int], n: int) -> int:
    if isinstance(numbers, range | list | tuple):
        return int(numbers[n])
    raise TypeError("numbers")


def read_lines(file: str | Path, longest: int = 1 << 20) -> Iterator[tuple[list[str], int]]:
    """The lines of one text file (or "-"), as soon as they are there; and how many were not UTF-8.

    Bytes that are not UTF-8 become U+FFFD; a line longer than ``longest`` bytes comes in parts.
    """
    (source,) = find_sources([file]) if str(file) == "-" or not Path(file).is_dir() else (None,)
    if source is None:
        raise ZhbertError(f"{file}: a folder; name a text file")

    def decoded(raws: list[bytes]) -> tuple[list[str], int]:
        broken = 0
        lines = []
        for raw in raws:
            try:
                lines.append(raw.decode().removesuffix("\r"))
            except UnicodeDecodeError:
                lines.append(raw.decode(errors="replace").removesuffix("\r"))
                broken += 1
        return lines, broken

    with ExitStack() as stack:
        raw: Any = sys.stdin.buffer
        if source.path is not None:
            raw = stack.enter_context(source.path.open("rb"))
        try:
            stream = _Stream(source, raw)
            rest = b""
            first = True
            while chunk := stream.read(_CHUNK):
                if first:
                    _must_look_like_utf8(chunk)
                    chunk = chunk.removeprefix(b"\xef\xbb\xbf")
                    first = False
                *raws, rest = (rest + chunk).split(b"\n")
                while len(rest) > longest:
                    at, _ = _place_to_split(rest, longest // 2, longest)
                    raws.append(rest[:at])
                    rest = rest[at:]
                if raws:
                    yield decoded(raws)
            if rest:
                yield decoded([rest])
        except _DamagedError as error:
            raise ZhbertError(f"{source.name}: {error}") from error
        except OSError as error:
            error.filename = source.name
            raise describe_os_error(error, "reading") from error
