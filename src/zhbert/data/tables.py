"""Reading of texts from a column of a csv or tsv file."""

from __future__ import annotations

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence

from zhbert.data.read_options import Problem, ReadOptions
from zhbert.data.record_lines import ESCAPED_BYTE, NumberedText, text_lines
from zhbert.data.sources import CSV, DamagedError, Stream, way_out
from zhbert.wording import listed

# A cell in quotes, or one that does not begin with a quote; {0} is the delimiter.
_CELL = '(?:"[^"]*(?:""[^"]*)*"|[^"{0}\\r\\n][^{0}\\r\\n]*|)'
READ_AS = "read_as"


def table(stream: Stream, form: str, reading: ReadOptions) -> Iterator[NumberedText]:
    """Yield the cells of the column that the header names, or of the only column."""
    rows = _cells(text_lines(stream, reading), form, reading)
    first = next(rows, None)
    if first is None:
        return
    line, header, text = first
    if ESCAPED_BYTE.search(text):
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
        broken = isinstance(found, str) and ESCAPED_BYTE.search(found)
        yield line, reading.broken if broken else found


def _column_of(header: Sequence[str], field: str | None) -> tuple[int, bool, str]:
    """Return the text's column, True if the first line is a header, and a phrase with both.

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
    """Yield each record's first line, its cells, and the raw record.

    Quotes that can be paired enclose cells; others are text.
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
                # Excel writes semicolons in locales with a decimal comma.
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
    """Return the further lines that a record with an odd number of quotes spans, if any."""
    added: list[tuple[int, str]] = []
    size = len(record)
    odd = record.count('"') % 2 == 1
    while odd and size <= longest and (taken := _next(waiting, lines)) is not None:
        added.append(taken)
        size += len(taken[1])
        odd = taken[1].count('"') % 2 == 0
    return added
