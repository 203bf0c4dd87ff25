"""Lines and JSON records of a file or of stdin, each with its number for errors."""

from __future__ import annotations

import codecs
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal

from zhbert.data.sources import DamagedError, check_encoding, encoding_of
from zhbert.errors import ZhbertError
from zhbert.files import parse_json
from zhbert.signatures import HEAD, how_to_convert, no_text
from zhbert.wording import name, shortly


class Lines:
    """Lines that can be read like a file's, from the beginning each time they are opened."""

    def __init__(self, name: str, shown: str, lines: Callable[[], Iterable[bytes]]) -> None:
        self.name, self._shown, self._lines = name, shown, lines

    def __str__(self) -> str:
        return self._shown

    @contextmanager
    def open(self, mode: Literal["rb"]) -> Iterator[Iterable[bytes]]:
        """Yield all lines."""
        yield self._lines()


class StandardInput(Lines):
    """A stream that can be read only once, but whose first lines can be examined before.

    >>> stdin = StandardInput(io.BytesIO("一\\n二\\n".encode()))
    >>> head(stdin, 1), [text for _, text in numbered_lines(stdin)]
    (['一'], ['一', '二'])
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__("stdin", "stdin", lambda: chain(self._seen, stream))
        self._seen: list[bytes] = []
        self._stream = stream

    def kept(self) -> Iterator[bytes]:
        """Yield all lines, read on demand and kept to be read again."""
        yield from self._seen
        for line in self._stream:
            self._seen.append(line)
            yield line


Source = Path | Lines


def named_source(name: str | os.PathLike[str]) -> Source:
    """Return a file, or stdin for ``-``; raise ZhbertError if there is no such file."""
    path = Path(name)
    if os.fspath(name) == "-":
        if sys.stdin is None:
            raise ZhbertError("stdin is closed; name a file")
        return StandardInput(sys.stdin.buffer)
    if not path.is_file():
        what = "a folder; name a file in it" if path.is_dir() else "no such file"
        raise ZhbertError(f"{path}: {what}")
    return path


def ahead(source: Source) -> Source:
    """Return a view to look ahead in; afterwards stdin can be read from its beginning."""
    if isinstance(source, StandardInput):
        return Lines(source.name, str(source), source.kept)
    return source


def in_encoding(source: Source, encoding: str | None) -> Source:
    """Return a source converted to UTF-8; unchanged if ``encoding`` is None or ''.

    Other encodings are read whole. A byte order mark overrides ``encoding``.
    """
    codec = check_encoding(encoding or None)
    if codec is None:
        return source
    with source.open("rb") as stream:
        raw = b"".join(stream)
    try:
        codec = encoding_of(raw[:HEAD], codec) or "utf-8"
        converted = raw.decode(codec).removeprefix("\ufeff").encode()
    except DamagedError as error:
        raise ZhbertError(f"{source}: it is {error}") from None
    except UnicodeError as error:
        line = raw[: getattr(error, "start", 0)].decode(codec, "replace").count("\n") + 1
        raise ZhbertError(f"{source}:{line}: not {codec}: {error}") from None
    return Lines(source.name, str(source), lambda: io.BytesIO(converted))


def beginning(source: Source) -> bytes:
    """Return the first bytes of a file, or the first line of stdin, which stays readable."""
    with ahead(source).open("rb") as file:
        return file.read(HEAD) if isinstance(file, io.BufferedReader) else next(iter(file), b"")


def is_parquet(source: Source) -> bool:
    """Return whether a file is parquet, which is opened by its path, not read as text."""
    return isinstance(source, Path) and beginning(source).startswith(b"PAR1")


def as_text(source: Source, encoding: str | None) -> Source:
    """Return a source as UTF-8; parquet is unchanged.

    Raises ZhbertError if its first bytes show that it is not text.
    """
    if is_parquet(source):
        return source
    source = in_encoding(source, encoding)
    if (what := no_text(beginning(source))) is not None:
        raise ZhbertError(f"{source}: it is {what}")
    return source


def numbered_lines(path: Source, *, ends: bool = False) -> Iterator[tuple[int, str]]:
    """Yield numbered lines, without their ends unless ``ends``; LF or CR LF ends a line.

    Chinese text contains U+2028, U+0085 and form feeds, at which str.splitlines would cut. If a
    whole file has no line feed, single carriage returns end its lines, as in old Mac files.
    """
    with path.open("rb") as file:
        yield from _decoded(path, file, ends)


def plain_lines(source: Source, remark: Callable[[str], None]) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not blank with their numbers, from 1; blank ones are counted."""
    blank = 0
    for number, line in numbered_lines(source):
        if line.strip():
            yield number, line
        else:
            blank += 1
    if blank:
        remark(f"{source.name}: blank lines left out: {blank:,}; an id is a line's number, from 0")


def head(path: Source, count: int) -> list[str]:
    """Return the first lines that are not blank; stdin stays readable from its beginning."""
    lines = (text for _, text in numbered_lines(ahead(path)) if text.strip())
    return list(islice(lines, count))


def first_line(path: Source) -> str:
    """Return the first line that is not blank, stripped; '' if there is none."""
    return next(iter(head(path, 1)), "").strip()


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
    """Return the whole text of a source."""
    return "".join(line for _, line in numbered_lines(path, ends=True))


def holds_json(path: Source) -> bool:
    """Return whether a file contains JSON: objects, or a list of them."""
    first = first_line(path)
    return re.fullmatch(r"\[\s*(\{.*)?|\{", first) is not None or json_object(first) is not None


def json_object(text: str) -> dict[str, Any] | None:
    """Return the JSON object that a text contains, or None."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def first_record(path: Source) -> dict[Any, Any] | None:
    """Return the object in the first line, or the first of a list of objects."""
    try:
        return next(json_records(ahead(path)))[1] if holds_json(path) else None
    except ZhbertError:
        return None


def json_records(path: Source) -> Iterator[tuple[int, dict[str | int, Any]]]:
    """Yield the objects of JSON lines, or of a list of objects, with their lines' numbers from 1.

    JSON lines are read one by one; a list, or an object that contains one, is read whole.
    """
    first = first_line(path)
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
        # {"data": [{...}, ...]}: exactly one of the values is a list of objects.
        lists = [one for one in table.values() if isinstance(one, list) and _are_objects(one)]
        if len(lists) != 1:
            raise ZhbertError(f"{path}: an object alone; write an object a line, or a list of them")
        yield from enumerate(lists[0], start=1)
        return
    if not _are_objects(table):
        raise ZhbertError(f"{path}: not a list of objects; write one object a line, or such a list")
    # A second scan of the text finds the line of each record.
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


# -- fields of a record ----------------------------------------------------------------------------


def first_of(record: Mapping[Any, Any], names: Sequence[str]) -> Any:
    """Return the value of the first of the names that is present and not null, or None."""
    return next((record[name] for name in names if record.get(name) is not None), None)


def scalar(value: Any, where: str) -> str:
    """Return a text, or a number as a text; 1.0 becomes 1.

    >>> scalar("a", "x"), scalar(1, "x"), scalar(1.0, "x"), scalar(0.5, "x")
    ('a', '1', '1', '0.5')
    """
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, int | float) and not isinstance(value, bool) and value == value:
        return str(value)
    raise ZhbertError(f"{where} is {shortly(value)}: must be a text or a number")


def check_new(identity: str, seen: set[str], where: str) -> None:
    """Refuse an id that is in ``seen``, and add it there."""
    if identity in seen:
        raise ZhbertError(f"{where}: the id '{name(identity)}' stands there twice")
    seen.add(identity)
