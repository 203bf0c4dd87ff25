"""Lines that stand earlier in the input, found by their hashes, in bounded memory.

Every block stores the hashes of its lines by the hashes' first byte. Equal lines have equal
hashes, so each of these 256 partitions can be searched for duplicates on its own.
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
    """Store a block's (lines, 2) uint64 hashes: the partitions' sizes, then their lines.

    A line is three numbers, all uint64: its two hashes, and its number in the block.
    """
    partition = (hashes[:, 0] >> np.uint64(56)).astype(np.int64)
    order = np.argsort(partition, kind="stable")
    rows = np.column_stack([hashes[order], order.astype(np.uint64)])
    sizes = np.bincount(partition, minlength=_PARTITIONS).astype(np.uint64)
    # numpy's tofile does not say why it fails.
    path.write_bytes(np.concatenate([sizes, rows.ravel()]).data)


def find_duplicates(paths: CorpusPaths, blocks: int, most_lines: int = 4_000_000) -> int:
    """Write for each block which of its lines stand earlier in the input.

    Args:
        paths: where the hashes of ``blocks`` blocks lie; they are removed.
        blocks: the number of blocks.
        most_lines: how many lines are sorted at a time, 50 bytes each (more, if a single partition
            has more).

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
    """Runs of partitions, as (first, end), of at most so many lines together, or a single one.

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
    """Add to the blocks' duplicates those of some partitions; return their number."""
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
    # Stable: of equal lines the first one of the input stays in front.
    order = np.lexsort((rows[:, 1], rows[:, 0]))
    repeated = np.zeros(len(rows), bool)
    repeated[order[1:]] = (rows[order[1:], :2] == rows[order[:-1], :2]).all(axis=1)
    stops = np.cumsum(lines)
    for block in np.flatnonzero(lines).tolist():
        part = slice(int(stops[block] - lines[block]), int(stops[block]))
        with paths.duplicates(block).open("ab") as file:
            file.write(rows[part, 2][repeated[part]].astype(np.uint32).tobytes())
    return int(np.count_nonzero(repeated))
