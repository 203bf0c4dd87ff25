"""Reading of texts from JSON: JSON lines, arrays, and values over several lines."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from typing import Any

from zhbert.data.read_options import Problem, ReadOptions
from zhbert.data.record_lines import CHUNK, ESCAPED_BYTE, NumberedText, numbered_lines
from zhbert.data.sources import DamagedError, Stream
from zhbert.wording import listed

_NO_BLANK = re.compile(r"[^ \t\r\n\ufeff]")


def text_of(record: Any, reading: ReadOptions) -> str | Problem:
    """Return a JSON value's text: its field, or the value itself if it is a string."""
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
    """Return the text of one line of JSON lines; None for a blank line.

    Unpaired surrogates are kept.

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


def json_lines(stream: Stream, form: str, reading: ReadOptions) -> Iterator[NumberedText]:
    """Yield the texts of JSON lines."""
    for number, raw in numbered_lines(stream, reading):
        if (text := json_line(raw, reading)) is not None:
            yield number, text


def json_values(stream: Stream, form: str, reading: ReadOptions) -> Iterator[NumberedText]:
    """Yield the texts of array elements or of consecutive values, which may span lines."""
    reader = _JsonReader(stream, reading)
    while (opening := reader.next_character()) is not None:
        if opening == "[":
            yield from reader.array()
        else:
            yield reader.value()


class _JsonReader:
    """A reader of JSON values from a stream, with one value in memory at a time."""

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
            raw = self._stream.read(CHUNK)
            self._ended = not raw
            parts.append(self._decode(raw, final=self._ended))
            got += len(raw)
        self._text = "".join(parts)

    def skip(self, to: int | None = None) -> None:
        to = self._at + 1 if to is None else to
        self.line += self._text.count("\n", self._at, to)
        self._at = to

    def next_character(self) -> str | None:
        """Return the next character that is not white space; None at the end."""
        while True:
            found = _NO_BLANK.search(self._text, self._at)
            self.skip(found.start() if found else len(self._text))
            if found:
                return found[0]
            if self._ended:
                return None
            self._more(1)

    def array(self) -> Iterator[NumberedText]:
        """Yield the elements of the array that begins here."""
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
        """Return the value that begins here, with its line."""
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
            # Twice as much each time, so that a record is parsed a few times only.
            self._more(max(held, CHUNK))
        source = self._text[self._at : end]
        self.skip(end)
        return line, self._reading.broken if ESCAPED_BYTE.search(source) else text_of(
            value, self._reading
        )
