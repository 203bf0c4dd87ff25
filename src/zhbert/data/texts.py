"""Raw text without its documents: in large parts for counting, or line by line as it arrives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from zhbert.data.blocks import Place, place_to_split, read_blocks
from zhbert.data.outline import outline
from zhbert.data.read_options import Problem, ReadOptions
from zhbert.data.records import READERS, examine
from zhbert.data.sources import TEXT, DamagedError, Source, Stream, find_sources, opened
from zhbert.errors import ZhbertError

# Bytes to count at a time.
_BLOCK = 1 << 21

Advance = Callable[[Source, int], None]
"""A progress callback: gets the file and the number of its bytes read since the last call."""


def silent(source: Source, read: int) -> None:
    """Do nothing: the callback if no progress is shown."""


def read_texts(
    sources: Iterable[Source], reading: ReadOptions, advance: Advance = silent
) -> Iterator[str]:
    """Yield the text of some files, in parts of whole lines.

    Raises:
        ZhbertError: a file cannot be read, has no text, or is broken in places: nothing is
            skipped.
    """
    # Documents do not matter here, so a part may end at any line.
    reading = replace(reading, documents="line", block_bytes=_BLOCK)
    for source in sources:
        read_to = 0
        found = False
        for block in read_blocks([source], reading):
            content = outline(block, reading)
            for place in (*block.places, *content.places):
                if place.error:
                    raise refusal(place, reading)
            found = found or bool(content.text.strip())
            yield content.text
            advance(source, block.read_to - read_to)
            read_to = block.read_to
        if not found:
            raise ZhbertError(f"{source.name}: empty; name a file with text in it")


def refusal(place: Place, reading: ReadOptions) -> ZhbertError:
    """Return the error about a place that cannot be read, with advice."""
    broken = place.reason == reading.broken.reason
    return ZhbertError(f"{place}; {reading.way_out}" if broken else str(place))


def read_lines(
    file: str | Path, reading: ReadOptions | None = None, longest: int = 1 << 20
) -> Iterator[list[str]]:
    """Yield the lines of one file (or "-"), or of its records' texts, as soon as they arrive.

    A line of plain text that is longer than ``longest`` bytes is yielded in parts.

    Raises:
        ZhbertError: it is a folder, or a part of the file cannot be read.
    """
    reading = reading or ReadOptions()
    if str(file) != "-" and Path(file).is_dir():
        raise ZhbertError(f"{file}: a folder; name a text file")
    (source,) = find_sources([file])
    with opened(source) as raw:
        try:
            content = examine(source, raw, reading, enough=1)
            if content.stream is None:
                for text in read_texts([source], reading):
                    yield text.removesuffix("\n").split("\n")
            elif content.form == TEXT:
                yield from _text_lines(source, content.stream, reading, longest)
            else:
                for text in _record_texts(source, content.stream, content.form, reading):
                    yield text.split("\n")
        except DamagedError as error:
            raise ZhbertError(f"{source.name}: {error}") from error


def _record_texts(source: Source, stream: Stream, form: str, reading: ReadOptions) -> Iterator[str]:
    for line, found in READERS[form](stream, form, reading):
        if not isinstance(found, Problem):
            yield found
        elif found.error:
            raise refusal(Place(source.number, source.name, line, found.reason), reading)


def _text_lines(
    source: Source, stream: Stream, reading: ReadOptions, longest: int
) -> Iterator[list[str]]:
    number = 1  # of the first line in ``parts``
    parts: list[bytes] = []
    size = 0
    ended = False
    while not ended:
        chunk = stream.read(256 << 10)
        ended = not chunk
        parts.append(chunk)
        size += len(chunk)
        if not ended and b"\n" not in chunk and size <= longest:
            continue
        *whole, rest = b"".join(parts).split(b"\n")
        numbered = list(enumerate(whole, number))
        number += len(whole)
        while len(rest) > longest:
            at, _ = place_to_split(rest, longest // 2, longest)
            numbered.append((number, rest[:at]))
            rest = rest[at:]
        if ended and rest:
            numbered.append((number, rest))
        parts, size = [rest], len(rest)
        if numbered:
            yield [_decoded(source, line, raw, reading) for line, raw in numbered]


def _decoded(source: Source, line: int, raw: bytes, reading: ReadOptions) -> str:
    try:
        return raw.decode().removesuffix("\r")
    except UnicodeDecodeError:
        place = Place(source.number, source.name, line, reading.broken.reason)
        raise refusal(place, reading) from None
