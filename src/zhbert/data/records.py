"""Records with a text each: JSON lines and arrays, tables, articles, parquet.

``examine`` finds out what a file holds, by its first bytes or else by its name. ``READERS`` yield
its records one at a time, in bounded memory.
"""

from __future__ import annotations

import array
import codecs
import csv
import html
import json
import re
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from zhbert.data.read_options import Problem, ReadOptions
from zhbert.data.sources import (
    CSV,
    JSON_LINES,
    PARQUET,
    SUFFIXES,
    TEXT,
    TSV,
    DamagedError,
    Source,
    Stream,
    check_encoding,
    is_parquet,
    way_out,
)
from zhbert.files import reason_of
from zhbert.signatures import HEAD
from zhbert.wording import listed

JSON_VALUES, WIKI, NEWS = "json", "wiki", "news"
_CHUNK = 256 << 10


NumberedText = tuple[int, str | Problem]
"""The line where a record begins (from 1), and its text."""


# ---------------------------------------------------------------- what a file holds

_OBJECT = re.compile(rb'\{\s*(?:"(?:[^"\\\n]|\\.)*"\s*:|\})')
_SPREAD_OBJECT = re.compile(rb"\{[ \t]*\r?\n")
_ARRAY = re.compile(rb'\[\s*(?:\{\s*["}]|"(?:[^"\\\n]|\\.)*(?:"\s*[,\]]|\Z))')
_ARTICLE = re.compile(rb"<doc\s+id=")
_NEWS = re.compile(rb"<doc>\s*<(?:url|docno|contenttitle|content)>")


def form_of(source: Source, head: bytes, field: str | None) -> tuple[str, str]:
    """What a file that begins with ``head`` holds: a key of READERS, or TEXT.

    The second string names it for people if the file's name does not say it; else it is empty.

    >>> form_of(Source(0, "stdin", None, 0), b'{"text": "..."}', None)
    ('jsonl', 'JSON lines')
    """
    named = SUFFIXES.get(source.suffix, TEXT)
    begin = head.lstrip()
    if _ARTICLE.match(begin):
        return WIKI, "WikiExtractor's articles"
    if _NEWS.match(begin):
        return NEWS, "SogouCS' articles"
    if _ARRAY.match(begin):
        return JSON_VALUES, "a JSON array"
    if _SPREAD_OBJECT.match(begin) and _OBJECT.match(begin):
        return JSON_VALUES, "JSON objects over several lines"
    if named == JSON_LINES:
        return JSON_LINES, ""
    if _begins_with_json(begin):
        return JSON_LINES, "JSON lines"
    if named in (CSV, TSV):
        return named, ""
    if field is not None:
        first = begin.partition(b"\n")[0].decode(errors="replace")
        for form, delimiter in ((TSV, "\t"), (CSV, ",")):
            if field in (cell.strip().strip('"') for cell in first.split(delimiter)):
                return form, "a table"
        if source.path is None:
            return JSON_LINES, ""
    return TEXT, ""


def _begins_with_json(begin: bytes) -> bool:
    line, end, _ = begin.partition(b"\n")
    if not _OBJECT.match(line):
        return False
    if not end and len(begin) >= _SURELY_CUT:
        return True
    try:
        return isinstance(json.loads(line.decode(errors="replace")), dict)
    except (ValueError, RecursionError):
        return False


# A first line that does not end within so many bytes was cut off: it cannot be parsed.
_SURELY_CUT = 4000


@dataclass(frozen=True)
class Content:
    """What a file holds, and its text."""

    form: str
    """a key of READERS, TEXT or PARQUET"""
    stream: Stream | None = None
    """the text; None for parquet, which is no stream"""
    remarks: tuple[str, ...] = ()
    """how the file is read, where its name does not say so"""


def examine(source: Source, raw: BinaryIO, reading: ReadOptions, enough: int = HEAD) -> Content:
    """Tell by its first ``enough`` bytes what an opened file holds.

    Raises:
        DamagedError: it is no text, or in an encoding that has to be named.
    """
    if is_parquet(source, raw):
        return Content(PARQUET)
    stream = Stream(source, raw, check_encoding(reading.encoding), enough)
    form, told = form_of(source, stream.head, reading.field)
    remarks = [told] if told else []
    if stream.old_line_ends:
        remarks.append("lines that carriage returns alone end")
    return Content(form, stream, tuple(remarks))


# ---------------------------------------------------------------- JSON


def text_of(record: Any, reading: ReadOptions) -> str | Problem:
    """A JSON value's text: its field, or the value itself if it is a string."""
    if isinstance(record, str):
        return record
    if not isinstance(record, dict):
        return Problem("bad_json", "not a JSON object")
    name = reading.field or "text"
    if name not in record:
        return Problem(
            "missing_field",
            f"no field '{name}'; it has: {listed(record) or 'none'}; --field names the text's",
        )
    if not isinstance(record[name], str):
        kind = type(record[name]).__name__
        return Problem("wrong_type", f"field '{name}' is not a string but {kind}")
    return str(record[name])


def json_line(raw: bytes, reading: ReadOptions) -> str | Problem | None:
    """The text of one line of JSON lines; None for a blank line.

    Unpaired surrogates stay in the text.

    >>> json_line(b'{"text": "a"}', ReadOptions()), json_line(b" ", ReadOptions())
    ('a', None)
    """
    if not raw or raw.isspace():
        return None
    if len(raw) > reading.document_bytes:
        return reading.too_long
    try:
        record = json.loads(raw.removeprefix(codecs.BOM_UTF8).decode())
    except UnicodeDecodeError:
        return reading.broken
    except (ValueError, RecursionError) as error:
        return _bad_json(error)
    return text_of(record, reading)


def _bad_json(error: Exception) -> Problem:
    deep = isinstance(error, RecursionError)
    return Problem("bad_json", f"not JSON: {'nested too deeply' if deep else error}")


def _json_lines(stream: Stream, form: str, reading: ReadOptions) -> Iterator[NumberedText]:
    for number, raw in _lines(stream, reading):
        if (text := json_line(raw, reading)) is not None:
            yield number, text


def _json_values(stream: Stream, form: str, reading: ReadOptions) -> Iterator[NumberedText]:
    """The elements of arrays, and values one after another, which may span lines."""
    reader = _JsonReader(stream, reading)
    while (opening := reader.next_character()) is not None:
        if opening == "[":
            yield from reader.array()
        else:
            yield reader.value()


class _JsonReader:
    """Reads JSON values from a stream, and holds one of them at a time."""

    def __init__(self, stream: Stream, reading: ReadOptions) -> None:
        self._stream, self._reading = stream, reading
        self._decode = codecs.getincrementaldecoder("utf-8")("surrogateescape").decode
        self._scan = json.JSONDecoder().raw_decode
        self._text, self._at, self._ended = "", 0, False
        self.line = 1

    def _more(self, size: int) -> None:
        parts, got = [self._text[self._at :]], 0
        self._at = 0
        while got < size and not self._ended:
            raw = self._stream.read(_CHUNK)
            self._ended = not raw
            parts.append(self._decode(raw, final=self._ended))
            got += len(raw)
        self._text = "".join(parts)

    def skip(self, to: int | None = None) -> None:
        to = self._at + 1 if to is None else to
        self.line += self._text.count("\n", self._at, to)
        self._at = to

    def next_character(self) -> str | None:
        """The next character that is not white space; None at the end."""
        while True:
            found = _NO_BLANK.search(self._text, self._at)
            self.skip(found.start() if found else len(self._text))
            if found:
                return found[0]
            if self._ended:
                return None
            self._more(1)

    def array(self) -> Iterator[NumberedText]:
        """The elements of the array that begins here."""
        self.skip()
        while (following := self.next_character()) != "]":
            if following is None:
                raise DamagedError("cut short: its JSON array does not end")
            yield self.value()
            if (following := self.next_character()) == ",":
                self.skip()
            elif following not in ("]", None):
                raise DamagedError(f"line {self.line}: not JSON: no comma between two records")
        self.skip()

    def value(self) -> NumberedText:
        """The value that begins here, with its line."""
        line = self.line
        while True:
            try:
                value, end = self._scan(self._text, self._at)
                if end < len(self._text) or self._ended:
                    break
            except RecursionError:
                raise DamagedError(f"line {line}: not JSON: nested too deeply") from None
            except ValueError as error:
                if self._ended:
                    raise DamagedError(f"line {line}: not JSON: {error}") from None
            held = len(self._text) - self._at
            if held > self._reading.document_bytes:
                raise DamagedError(
                    f"line {line}: not JSON, or a record longer than {self._reading.longest}"
                )
            # Twice as much each time: a record is looked at a few times only.
            self._more(max(held, _CHUNK))
        source = self._text[self._at : end]
        self.skip(end)
        return line, self._reading.broken if _ESCAPED_BYTE.search(source) else text_of(
            value, self._reading
        )


_NO_BLANK = re.compile(r"[^ \t\r\n\ufeff]")
# The characters that "surrogateescape" makes of bytes that are not UTF-8.
_ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


# ---------------------------------------------------------------- lines


def _lines(stream: Stream, reading: ReadOptions) -> Iterator[tuple[int, bytes]]:
    """The lines and their numbers, without line ends."""
    rest: list[bytes] = []
    size, number = 0, 0
    while chunk := stream.read(_CHUNK):
        *whole, last = chunk.split(b"\n")
        for raw in whole:
            number += 1
            yield number, b"".join([*rest, raw])
            rest, size = [], 0
        rest.append(last)
        size += len(last)
        if size > reading.document_bytes:
            raise DamagedError(
                f"line {number + 1}: longer than {reading.longest}: no table or records"
            )
    if rest := [part for part in rest if part]:
        yield number + 1, b"".join(rest)


def _text_lines(stream: Stream, reading: ReadOptions) -> Iterator[tuple[int, str]]:
    for number, raw in _lines(stream, reading):
        yield number, raw.decode(errors="surrogateescape").removesuffix("\r")


# ---------------------------------------------------------------- tables

# A cell in quotes, or one that does not begin with a quote; {0} stands for the delimiter.
_CELL = '(?:"[^"]*(?:""[^"]*)*"|[^"{0}\\r\\n][^{0}\\r\\n]*|)'
READ_AS = "read_as"


def _table(stream: Stream, form: str, reading: ReadOptions) -> Iterator[NumberedText]:
    """The cells of one column, which a header names or which is the only one."""
    rows = _cells(_text_lines(stream, reading), form, reading)
    first = next(rows, None)
    if first is None:
        return
    line, header, text = first
    if _ESCAPED_BYTE.search(text):
        what = (stream.encoding or "UTF-8").upper()
        raise DamagedError(f"its first line is not {what}; {way_out(stream.encoding)}")
    column, has_header, how = _column_of(header, reading.field)
    yield 0, Problem(READ_AS, f"{form.upper()}, {how}", error=False)
    if not has_header:
        yield line, header[column]
    width = len(header)
    for line, cells, text in rows:
        if width == 1 and len(cells) > 1:
            found: str | Problem = text  # a delimiter is then part of the text
        elif len(cells) != width:
            found = Problem(
                "missing_field", f"{len(cells)} columns where the first line has {width}"
            )
        else:
            found = cells[column]
        broken = isinstance(found, str) and _ESCAPED_BYTE.search(found)
        yield line, reading.broken if broken else found


def _column_of(header: Sequence[str], field: str | None) -> tuple[int, bool, str]:
    """The text's column, whether the first line is a header, and a phrase that says both.

    >>> _column_of(["id", "text"], None), _column_of(["1", "好"], "2")
    ((1, True, "the column 'text'"), (1, False, 'column 2; no header'))
    """
    names = [cell.strip() for cell in header]
    if (name := field or "text") in names:
        return names.index(name), True, f"the column '{name}'"
    if field is not None and field.isdecimal() and 1 <= int(field) <= len(names):
        return int(field) - 1, False, f"column {int(field)}; no header"
    if field is None and len(names) == 1:
        return 0, False, "one column; no header"
    raise DamagedError(
        f"no column '{name}' in its first line: {listed(names)}; --field names the text's column, "
        "or its number from 1 where no line of names stands first"
    )


def _cells(
    lines: Iterator[tuple[int, str]], form: str, reading: ReadOptions
) -> Iterator[tuple[int, list[str], str]]:
    """Each record's first line, its cells, and the record as it stands in the file.

    Quotes enclose cells where they can be paired; where they cannot, they are text.
    """
    delimiter = "\t"
    whole: re.Pattern[str] | None = None
    csv.field_size_limit(max(reading.document_bytes, csv.field_size_limit()))
    waiting: deque[tuple[int, str]] = deque()
    while (taken := _next(waiting, lines)) is not None:
        line, record = taken
        if not record:
            continue
        if whole is None:
            if form == CSV:
                # Excel writes semicolons where a comma is the decimal sign.
                delimiter = max(",", "\t", ";", key=record.count)
            whole = re.compile(f"{_CELL}(?:{delimiter}{_CELL})*".format(delimiter))
        if '"' not in record:
            yield line, record.split(delimiter), record
            continue
        added = _up_to_the_next_quote(record, waiting, lines, reading.document_bytes)
        joined = "\n".join([record, *(text for _, text in added)])
        if whole.fullmatch(joined):
            yield line, next(csv.reader([joined], delimiter=delimiter)), joined
        else:
            waiting.extendleft(reversed(added))
            yield line, record.split(delimiter), record


def _next(
    waiting: deque[tuple[int, str]], lines: Iterator[tuple[int, str]]
) -> tuple[int, str] | None:
    return waiting.popleft() if waiting else next(lines, None)


def _up_to_the_next_quote(
    record: str, waiting: deque[tuple[int, str]], lines: Iterator[tuple[int, str]], longest: int
) -> list[tuple[int, str]]:
    """The lines that a record with an odd number of quotes would span, if it spans any."""
    added: list[tuple[int, str]] = []
    size = len(record)
    odd = record.count('"') % 2 == 1
    while odd and size <= longest and (taken := _next(waiting, lines)) is not None:
        added.append(taken)
        size += len(taken[1])
        odd = taken[1].count('"') % 2 == 0
    return added


# ---------------------------------------------------------------- articles

_BEGIN = re.compile(r'<doc\s+id=.*?(?:\stitle="(?P<title>.*)")?[^"]*>\s*')
_END = "</doc>"
# A longer line is no article's first line; matching takes time with the square of the length.
_LONGEST_BEGIN = 2_000


def _articles(stream: Stream, form: str, reading: ReadOptions) -> Iterator[NumberedText]:
    """The text between <doc ...> and </doc>, without the title if the text begins with it."""
    first, title, size, inside = 1, "", 0, False
    body: list[str] = []

    def article() -> Iterator[NumberedText]:
        nonlocal size
        # Blank lines outside of <doc> are nothing; inside they are an article without text.
        if inside or any(map(str.strip, body)):
            yield first, "\n".join(body)
        body.clear()
        size = 0

    lines = _text_lines(stream, reading)
    for number, line in _without_marks(lines) if form == NEWS else lines:
        if len(line) <= _LONGEST_BEGIN and (begins := _BEGIN.fullmatch(line)):
            yield from article()
            first, inside = number, True
            title = html.unescape(begins["title"] or "").strip()
            continue
        if _ESCAPED_BYTE.search(line):
            yield number, Problem("broken_line", reading.broken.reason)
            continue
        ends = inside and line.rstrip().endswith(_END)
        if ends:
            line = line.rstrip().removesuffix(_END)
        if title and html.unescape(line).strip() not in ("", title):
            title = ""
        if not title:
            if size > reading.document_bytes:
                yield from article()
                yield number, Problem("split", "a document too long was split here", error=False)
                first = number
            body.append(line)
            size += len(line.encode())
        if ends:
            yield from article()
            first, inside, title = number + 1, False, ""
    yield from article()


# The parts of a SogouCS article that are no text.
_MARKS = re.compile(r"<(url|docno)>[^<]*</\1>|</?content(?:title)?>")


def _without_marks(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """SogouCS' lines with WikiExtractor's tags; title and text get lines of their own."""
    for number, line in lines:
        for part in _MARKS.sub("\n", line.replace("<doc>", '<doc id="">\n')).split("\n"):
            if part.strip():
                yield number, part


READERS: dict[str, Callable[[Stream, str, ReadOptions], Iterator[NumberedText]]] = {
    JSON_LINES: _json_lines,
    JSON_VALUES: _json_values,
    CSV: _table,
    TSV: _table,
    WIKI: _articles,
    NEWS: _articles,
}


# ---------------------------------------------------------------- parquet


@dataclass
class Cells:
    """Some rows of a parquet file's column of text."""

    first: int
    """the number of the first row, from 1"""
    raw: bytearray = field(default_factory=bytearray)
    """the texts, one after another"""
    lengths: array.array[int] = field(default_factory=lambda: array.array("q"))
    """the bytes of each text; -1: a null"""

    def add(self, column: Any) -> None:
        """Add the texts of a pyarrow array."""
        import pyarrow as pa

        texts = column.cast(pa.large_string())
        offsets = np.frombuffer(texts.buffers()[1], np.int64)
        offsets = offsets[texts.offset : texts.offset + len(texts) + 1]
        lengths = np.where(np.asarray(texts.is_null()), -1, np.diff(offsets))
        data = texts.buffers()[2]
        if data is not None:
            self.raw += data.slice(offsets[0], offsets[-1] - offsets[0])
        self.lengths.frombytes(lengths.astype(np.int64).tobytes())


_ROWS = 256
# A chunk of a column that unpacks to more than this, and to a thousand times the file, is refused.
_SUSPICIOUS = 256 << 20


def parquet_cells(source: Source, raw: BinaryIO, reading: ReadOptions) -> Iterator[Cells]:
    """One parquet file's texts, a few hundred rows at a time.

    Raises:
        DamagedError: no such column of text, not parquet, or it unpacks to what no memory holds.
    """
    import pyarrow.parquet as pq

    name = reading.field or "text"
    try:
        file = pq.ParquetFile(raw, buffer_size=1 << 20, pre_buffer=False)
        _check_text_column(file.schema_arrow, name)
        rows = _rows_at_a_time(file.metadata, name, source.size, reading)
        cells = Cells(1)
        for batch in file.iter_batches(batch_size=rows, columns=[name]):
            cells.add(batch.column(0))
            if len(cells.lengths) >= _ROWS or len(cells.raw) > _SUSPICIOUS >> 2:
                yield cells
                cells = Cells(cells.first + len(cells.lengths))
        if cells.lengths:
            yield cells
    except DamagedError:
        raise
    except Exception as error:
        # pyarrow's errors have nothing but Exception in common.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise DamagedError(f"not readable as parquet: {reason_of(error)}") from error


def _check_text_column(schema: Any, name: str) -> None:
    import pyarrow as pa

    if name not in schema.names:
        raise DamagedError(
            f"no column '{name}'; it has {listed(schema.names)}; --field names the column"
        )
    kind = schema.field(name).type
    values = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(values) or pa.types.is_large_string(values)):
        raise DamagedError(f"column '{name}' holds {kind}, not text; --field names the column")


def _rows_at_a_time(metadata: Any, name: str, size: int, reading: ReadOptions) -> int:
    """How many rows can be read at a time in bounded memory.

    Raises:
        DamagedError: a few kilobytes unpack to gigabytes.
    """
    rows = _ROWS
    for group in range(metadata.num_row_groups):
        part = metadata.row_group(group)
        for column in map(part.column, range(part.num_columns)):
            if column.path_in_schema.partition(".")[0] != name:
                continue
            unpacked = column.total_uncompressed_size
            if unpacked > _SUSPICIOUS and (
                unpacked > 1000 * size or unpacked > reading.document_bytes * max(1, part.num_rows)
            ):
                raise DamagedError(
                    f"{size:,} bytes that unpack to {unpacked:,} in {part.num_rows:,} rows: "
                    "no memory holds such texts"
                )
            if column.has_dictionary_page:
                # A long text of the dictionary may stand in every row.
                share = column.data_page_offset - column.dictionary_page_offset
                longest = unpacked * share // max(1, column.total_compressed_size)
                while rows > 1 and rows * longest > _SUSPICIOUS >> 1:
                    rows //= 2
    return rows
