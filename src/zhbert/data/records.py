"""Recognition of a file's form (text or records), and the readers of records.

``examine`` recognises the form by a file's first bytes or else its name. ``READERS`` yield the
records' texts one at a time, in bounded memory.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from zhbert.data.articles import NEWS, WIKI, articles
from zhbert.data.json_records import json_lines, json_values
from zhbert.data.read_options import ReadOptions
from zhbert.data.record_lines import NumberedText
from zhbert.data.sources import (
    CSV,
    JSON_LINES,
    PARQUET,
    SUFFIXES,
    TEXT,
    TSV,
    Source,
    Stream,
    check_encoding,
    is_parquet,
)
from zhbert.data.tables import table
from zhbert.signatures import HEAD

JSON_VALUES = "json"

READERS: dict[str, Callable[[Stream, str, ReadOptions], Iterator[NumberedText]]] = {
    JSON_LINES: json_lines,
    JSON_VALUES: json_values,
    CSV: table,
    TSV: table,
    WIKI: articles,
    NEWS: articles,
}

_OBJECT = re.compile(rb'\{\s*(?:"(?:[^"\\\n]|\\.)*"\s*:|\})')
_SPREAD_OBJECT = re.compile(rb"\{[ \t]*\r?\n")
_ARRAY = re.compile(rb'\[\s*(?:\{\s*["}]|"(?:[^"\\\n]|\\.)*(?:"\s*[,\]]|\Z))')
_ARTICLE = re.compile(rb"<doc\s+id=")
_NEWS = re.compile(rb"<doc>\s*<(?:url|docno|contenttitle|content)>")


def form_of(source: Source, head: bytes, field: str | None) -> tuple[str, str]:
    """Return the form of a file that begins with ``head``: a key of READERS, or TEXT.

    The second string describes the form if it is not clear from the file's name; else it is empty.

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


# A first line that does not end within this many bytes was cut off and cannot be parsed.
_SURELY_CUT = 4000


@dataclass(frozen=True)
class Content:
    """A file's form and its text."""

    form: str
    """a key of READERS, TEXT or PARQUET"""
    stream: Stream | None = None
    """the text; None for parquet, which is not a stream"""
    remarks: tuple[str, ...] = ()
    """how the file is read, if that is not clear from its name"""


def examine(source: Source, raw: BinaryIO, reading: ReadOptions, enough: int = HEAD) -> Content:
    """Recognise the form of an opened file by its first ``enough`` bytes.

    Raises:
        DamagedError: it is not text, or its encoding has to be given.
    """
    if is_parquet(source, raw):
        return Content(PARQUET)
    stream = Stream(source, raw, check_encoding(reading.encoding), enough)
    form, told = form_of(source, stream.head, reading.field)
    remarks = [told] if told else []
    if stream.old_line_ends:
        remarks.append("lines that carriage returns alone end")
    return Content(form, stream, tuple(remarks))
