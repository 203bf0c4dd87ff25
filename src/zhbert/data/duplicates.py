"""Duplicate lines, found through their hashes in bounded memory.

Each block stores the hashes of its lines, sorted by the hashes' first bits into partitions. Equal
lines have equal hashes, so partitions can be searched separately, by any worker: as many at a time
as have a few million lines in all blocks together. A line that occurs in a block again is found
there already; so even one that is everywhere takes up as many places only as there are blocks.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from zhbert.data.corpus_folder import CorpusPaths
from zhbert.files import atomic_file

Array = np.ndarray[Any, Any]

_PARTITIONS = 4096
# Lines to sort at a time: 60 bytes each.
MOST_LINES = 8_000_000


@dataclass(frozen=True)
class Partitions:
    """Some partitions of the lines' hashes, to be searched for duplicates together."""

    number: int
    begin: int
    end: int
    lines: int
    """the number of lines in them, in all blocks"""
    blocks: int


def store_hashes(paths: CorpusPaths, block: int, hashes: Array) -> None:
    """Store the hashes of a block's lines, (lines, 2) uint64, and which lines repeat others there.

    The hashes' file has the partitions' ends, then lines of three uint64: the hashes, and the
    line's number in the block.
    """
    repeated = _repeated(hashes)
    numbers = np.delete(np.arange(len(hashes)), repeated)
    partition = (hashes[numbers, 0] >> np.uint64(52)).astype(np.int64)
    numbers = numbers[np.argsort(partition, kind="stable")]
    rows = np.column_stack([hashes[numbers], numbers.astype(np.uint64)])
    ends = np.cumsum(np.bincount(partition, minlength=_PARTITIONS)).astype(np.uint64)
    _write(paths.repeated(block), repeated.astype(np.uint32))
    _write(paths.line_hashes(block), np.zeros(1, np.uint64), ends, rows)


def _write(path: Path, *arrays: Array) -> None:
    """Write arrays at once: a worker that was thought dead may write the same file once more."""
    with atomic_file(path, flush=False) as temporary, temporary.open("wb") as file:
        for array in arrays:
            file.write(array.data)  # the errors of numpy's tofile do not have a reason


def partitions(paths: CorpusPaths, blocks: int, most_lines: int = MOST_LINES) -> list[Partitions]:
    """Divide the partitions of all blocks' lines into runs of at most ``most_lines`` lines.

    A partition of more lines is a run of its own.
    """
    ends: Array = np.zeros(_PARTITIONS + 1, np.int64)
    for block in range(blocks):
        ends += np.fromfile(paths.line_hashes(block), np.int64, _PARTITIONS + 1)
    return [
        Partitions(number, begin, end, int(ends[end] - ends[begin]), blocks)
        for number, (begin, end) in enumerate(_runs(ends, most_lines))
    ]


def _runs(ends: Array, most: int) -> Iterator[tuple[int, int]]:
    """Yield runs of partitions (first, end) with at most ``most`` lines, or of a single partition.

    >>> list(_runs(np.array([0, 1, 2, 7, 8, 9]), 2))
    [(0, 2), (2, 3), (3, 5)]
    """
    begin = 0
    while begin < len(ends) - 1:
        end = int(np.searchsorted(ends, ends[begin] + most, "right")) - 1
        yield begin, max(begin + 1, end)
        begin = max(begin + 1, end)


def find_duplicates(paths: CorpusPaths, searched: Partitions) -> None:
    """Write which lines of each block occur in earlier blocks.

    The file holds, for each block, the place of its first number; then the lines' numbers, uint32.
    """
    rows = np.empty((searched.lines, 3), np.uint64)
    stops = np.zeros(searched.blocks + 1, np.int64)
    for block in range(searched.blocks):
        with paths.line_hashes(block).open("rb") as file:
            begin, end = (_number(file, at) for at in (searched.begin, searched.end))
            stops[block + 1] = stops[block] + end - begin
            file.seek(8 * (_PARTITIONS + 1 + 3 * begin))
            file.readinto(rows[stops[block] : stops[block + 1]].data)
    repeated = _repeated(rows)
    places = 8 * len(stops) + 4 * np.searchsorted(repeated, stops)
    numbers = rows[repeated, 2].astype(np.uint32)
    _write(paths.duplicates(searched.number), places.astype(np.int64), numbers)


def _number(file: BinaryIO, index: int) -> int:
    """Return one of the int64 at a file's beginning."""
    file.seek(8 * index)
    return int.from_bytes(file.read(8), sys.byteorder)


def _repeated(rows: Array) -> Array:
    """Return which rows, (lines, 3), have the hashes of an earlier one; increasing."""
    # The sort is stable, so that the first of equal lines stays in front.
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    equal = np.ones(max(0, len(rows) - 1), bool)
    for column in range(2):
        hashes = rows[order, column]
        equal &= hashes[1:] == hashes[:-1]
    return np.sort(order[1:][equal])


def duplicates_of(paths: CorpusPaths, block: int) -> Array:
    """Return which of a block's lines occur earlier in the input: uint32, increasing.

    There are none where no duplicates were looked for.
    """
    found = [np.zeros(0, np.uint32)]
    with suppress(FileNotFoundError):
        found.append(np.fromfile(paths.repeated(block), np.uint32))
        for number in itertools.count():
            with paths.duplicates(number).open("rb") as file:
                begin, end = _number(file, block), _number(file, block + 1)
                file.seek(begin)
                found.append(np.frombuffer(file.read(end - begin), np.uint32))
    return np.sort(np.concatenate(found))
