"""The numbered lines of a file of records."""

from __future__ import annotations

import re
from collections.abc import Iterator

from zhbert.data.read_options import Problem, ReadOptions
from zhbert.data.sources import DamagedError, Stream

# Bytes to read at a time.
CHUNK = 256 << 10

NumberedText = tuple[int, str | Problem]
"""The first line of a record (from 1), and its text."""

# The characters into which "surrogateescape" turns bytes that are not UTF-8.
ESCAPED_BYTE = re.compile("[\udc80-\udcff]")


def numbered_lines(stream: Stream, reading: ReadOptions) -> Iterator[tuple[int, bytes]]:
    """Yield the lines and their numbers, without line ends."""
    rest: list[bytes] = []
    size, number = 0, 0
    while chunk := stream.read(CHUNK):
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


def text_lines(stream: Stream, reading: ReadOptions) -> Iterator[tuple[int, str]]:
    """Yield the decoded lines and their numbers; ESCAPED_BYTE matches what is not UTF-8."""
    for number, raw in numbered_lines(stream, reading):
        yield number, raw.decode(errors="surrogateescape").removesuffix("\r")
