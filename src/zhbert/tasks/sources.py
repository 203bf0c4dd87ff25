"""Lines and JSON records of a file or of stdin, each with its number for errors."""

from __future__ import annotations

import codecs
import io
import json
import re
import sys
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, parse_json
from zhbert.signatures import HEAD, how_to_convert, no_text
from zhbert.wording import show


class StandardInput:
    """A stream to read examples from, once, whose first lines can be looked at before.

    >>> stdin = StandardInput(io.BytesIO("一\\n二\\n".encode()))
    >>> head(stdin, 1), [text for _, text in numbered_lines(stdin)]
    (['一'], ['一', '二'])
    """

    name = "stdin"
    suffix = ""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._seen: deque[bytes] = deque()

    def __str__(self) -> str:
        return self.name

    @contextmanager
    def open(self, mode: Literal["rb"]) -> Iterator[Iterable[bytes]]:
        """All lines, those that were looked at included."""
        yield chain(self._seen, self._stream)

    def peek(self, count: int) -> list[bytes]:
        """The first lines, no more of them read than that."""
        self._seen.extend(islice(self._stream, max(0, count - len(self._seen))))
        return list(islice(self._seen, count))


class Converted:
    """A file or stdin of another encoding: read whole, and given out as UTF-8."""

    def __init__(self, source: Path | StandardInput, encoding: str) -> None:
        self.name, self.suffix, self._shown = source.name, source.suffix, str(source)
        with source.open("rb") as stream:
            raw = b"".join(stream)
        try:
            text = raw.decode(encoding)
        except UnicodeError as error:
            at = getattr(error, "start", 0)
            line = raw[:at].decode(encoding, "replace").count("\n") + 1
            raise ZhbertError(f"{source}:{line}: not {encoding}: {error}") from None
        self._raw = text.removeprefix("\ufeff").encode()

    def __str__(self) -> str:
        return self._shown

    @contextmanager
    def open(self, mode: Literal["rb"]) -> Iterator[Iterable[bytes]]:
        """All lines."""
        yield io.BytesIO(self._raw)

    def peek(self, count: int) -> list[bytes]:
        """The first lines."""
        return list(islice(io.BytesIO(self._raw), count))


Source = Path | StandardInput | Converted


def check_encoding(encoding: str, where: str) -> None:
    """Refuse what is no encoding of text that Python knows."""
    try:
        codecs.lookup(encoding)
        "".encode(encoding)
    except LookupError:
        raise ZhbertError(
            f"{where} {show(encoding)}: not an encoding; known are utf-8, gb18030, gbk, big5, "
            "utf-16 and others of Python"
        ) from None


def in_encoding(source: Source, encoding: str) -> Source:
    """A source as UTF-8, whatever encoding it is in; '' stands for UTF-8."""
    if not encoding or codecs.lookup(encoding).name == "utf-8" or isinstance(source, Converted):
        return source
    try:
        return Converted(source, encoding)
    except OSError as error:
        raise describe_os_error(error, "reading") from None


def beginning(source: Source) -> bytes:
    """The first bytes of a file; of stdin its first line, which can be read again."""
    if not isinstance(source, Path):
        return b"".join(source.peek(1))[:HEAD]
    with source.open("rb") as file:
        return file.read(HEAD)


def check_text(source: Source) -> None:
    """Refuse, by its first bytes, what is no text: an archive, a workbook, a web page, …"""
    if (what := no_text(beginning(source))) is not None:
        raise ZhbertError(f"{source}: it is {what}")


def numbered_lines(path: Source, *, ends: bool = False) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends, unless ``ends``; a line feed ends a line, or CR and LF.

    Chinese text holds U+2028, U+0085 and form feeds, at which str.splitlines would cut. Where a
    whole file has no line feed, carriage returns alone end its lines, as in files of old Macs.
    """
    with path.open("rb") as file:
        yield from _decoded(path, file, ends)


def head(path: Source, count: int) -> list[str]:
    """The first lines of a file or of stdin, which can be read from its beginning after that."""
    if not isinstance(path, Path):
        return [text for _, text in _decoded(path, path.peek(count), ends=False)]
    return [text for _, text in islice(numbered_lines(path), count)]


def full_head(path: Source, count: int) -> list[str]:
    """The first lines that are not blank."""
    looked = count
    while True:
        lines = head(path, looked)
        full = [line for line in lines if line.strip()]
        if len(full) >= count or len(lines) < looked:
            return full[:count]
        looked *= 2


def _decoded(path: Source, lines: Iterable[bytes], ends: bool) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(lines, start=1):
        if number == 1:
            raw = raw.removeprefix(codecs.BOM_UTF8)
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            advice = how_to_convert(raw[:HEAD] if number == 1 else b"")
            if advice.startswith("convert"):
                advice += ", or name its encoding: --encoding gb18030, for example"
            raise ZhbertError(
                f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start + 1} of the "
                f"line); {advice}"
            ) from None
        if number == 1 and text.count("\r") > 1 and not text.endswith("\n"):
            for place, line in enumerate(text.removesuffix("\r").split("\r"), start=1):
                yield place, line + "\n" if ends else line
            continue
        yield number, text if ends else text.removesuffix("\n").removesuffix("\r")


def whole_text(path: Source) -> str:
    """All of it."""
    return "".join(line for _, line in numbered_lines(path, ends=True))


def first_object(path: Source) -> dict[str, Any] | None:
    """The JSON object that the first line holds, where it holds one."""
    lines = full_head(path, 1)
    try:
        record = json.loads(lines[0]) if lines else None
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def first_record(path: Source) -> dict[Any, Any] | None:
    """The object that the first line holds, or the first of a list of objects."""
    first = next(iter(full_head(path, 1)), "").strip()
    if not re.fullmatch(r"\[\s*(\{.*)?|\{", first):
        return first_object(path)
    if isinstance(path, StandardInput):
        path.peek(sys.maxsize)
    try:
        return next(json_records(path))[1]
    except ZhbertError:
        return first_object(path)


def json_records(path: Source) -> Iterator[tuple[int, dict[str | int, Any]]]:
    """The objects of JSON lines, or of a list of objects, each with its line's number from 1.

    JSON lines are read one after the other, all else whole: a list, or an object that holds one.
    """
    first = next(iter(full_head(path, 1)), "").strip()
    if first.startswith("[") or first == "{":
        yield from _listed_records(path)
        return
    for line, text in numbered_lines(path):
        if not text.strip():
            continue
        record = parse_json(text, path, line, "; write one object a line")
        if not isinstance(record, dict):
            raise ZhbertError(f"{path}:{line}: not a JSON object; write one object a line")
        yield line, record


_BETWEEN = re.compile(r"[\s,]*")


def _listed_records(path: Source) -> Iterator[tuple[int, dict[str | int, Any]]]:
    text = whole_text(path)
    table = parse_json(text, path, hint="; write one object a line, or a list of objects")
    if isinstance(table, Mapping):
        # {"data": [{...}, ...]}: of its values exactly one is a list of objects.
        lists = [one for one in table.values() if isinstance(one, list) and _are_objects(one)]
        if len(lists) != 1:
            raise ZhbertError(f"{path}: an object alone; write an object a line, or a list of them")
        yield from enumerate(lists[0], start=1)
        return
    if not _are_objects(table):
        raise ZhbertError(f"{path}: not a list of objects; write one object a line, or such a list")
    # The same once more, to know the lines.
    decoder, at, line = json.JSONDecoder(), text.index("[") + 1, 1
    counted_to = 0
    for record in table:
        match = _BETWEEN.match(text, at)
        assert match is not None
        line += text.count("\n", counted_to, match.end())
        counted_to = match.end()
        yield line, record
        at = decoder.raw_decode(text, match.end())[1]


def _are_objects(values: list[Any]) -> bool:
    return bool(values) and all(isinstance(one, dict) for one in values)
