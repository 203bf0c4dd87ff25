"""Duplicate lines, found through their hashes in bounded memory.

Each block stores the hashes of its lines in partitions by the hashes' first byte. Equal lines have
equal hashes, so each of the 256 partitions can be searched for duplicates separately.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from zhbert.data.corpus_folder import CorpusPaths

Array = np.ndarray[Any, Any]

_PARTITIONS = 256


def store_hashes(path: Path, hashes: Array) -> None:
    """Store a block's hashes, (lines, 2) uint64: the sizes of the partitions, then their lines.

    A line is three uint64: its two hashes and its number in the block.
    """
    partition = (hashes[:, 0] >> np.uint64(56)).astype(np.int64)
    order = np.argsort(partition, kind="stable")
    rows = np.column_stack([hashes[order], order.astype(np.uint64)])
    sizes = np.bincount(partition, minlength=_PARTITIONS).astype(np.uint64)
    # The errors of numpy's tofile do not have a reason.
    path.write_bytes(np.concatenate([sizes, rows.ravel()]).data)


def find_duplicates(paths: CorpusPaths, blocks: int, most_lines: int = 4_000_000) -> int:
    """Find the lines of each block that occur earlier in the input, and write their numbers.

    Args:
        paths: the paths of the blocks' hashes, which are removed.
        blocks: the number of blocks.
        most_lines: maximum number of lines to sort at a time, 50 bytes each (a larger partition is
            still sorted at once).

    Returns:
        the number of duplicates.
    """
    sizes = np.zeros((blocks, _PARTITIONS), np.int64)
    for block in range(blocks):
        paths.duplicates(block).write_bytes(b"")
        sizes[block] = np.fromfile(paths.line_hashes(block), np.uint64, _PARTITIONS)
    total = 0
    for begin, end in _groups(sizes.sum(axis=0), most_lines):
        total += _find_in_partitions(paths, sizes, begin, end)
    for block in range(blocks):
        path = paths.duplicates(block)
        path.write_bytes(np.sort(np.fromfile(path, np.uint32)).data)
        paths.line_hashes(block).unlink()
    return total


def _groups(sizes: Array, most: int) -> Iterator[tuple[int, int]]:
    """Yield runs of partitions (first, end) with at most ``most`` lines, or of a single partition.

    >>> list(_groups(np.array([1, 1, 5, 1, 1]), 2))
    [(0, 2), (2, 3), (3, 5)]
    """
    begin = 0
    while begin < len(sizes):
        end = begin + 1
        while end < len(sizes) and sizes[begin : end + 1].sum() <= most:
            end += 1
        yield begin, end
        begin = end


def _find_in_partitions(paths: CorpusPaths, sizes: Array, begin: int, end: int) -> int:
    """Add the duplicates in some partitions to the blocks' files; return their number."""
    firsts = sizes[:, :begin].sum(axis=1)
    lines = sizes[:, begin:end].sum(axis=1)
    rows = np.concatenate(
        [
            np.fromfile(
                paths.line_hashes(block),
                np.uint64,
                3 * int(lines[block]),
                offset=8 * (_PARTITIONS + 3 * int(firsts[block])),
            ).reshape(-1, 3)
            for block in range(len(sizes))
        ]
    )
    # The sort is stable, so that the first of equal lines stays in front.
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    repeated = np.zeros(len(rows), bool)
    repeated[order[1:]] = (rows[order[1:], :2] == rows[order[:-1], :2]).all(axis=1)
    stops = np.cumsum(lines)
    for block in np.flatnonzero(lines).tolist():
        part = slice(int(stops[block] - lines[block]), int(stops[block]))
        with paths.duplicates(block).open("ab") as file:
            file.write(rows[part, 2][repeated[part]].astype(np.uint32).tobytes())
    return int(np.count_nonzero(repeated))
