"""Duplicates by the hashes of lines: the first of equal lines stays, in any number of passes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from zhbert.data.corpus_folder import CorpusPaths
from zhbert.data.duplicates import duplicates_of, find_duplicates, partitions, store_hashes


@pytest.mark.parametrize("most_lines", [1, 40, 10**6])
def test_the_lines_that_stood_before_are_found(tmp_path: Path, most_lines: int) -> None:
    rng = np.random.default_rng(0)
    hashes = rng.integers(0, 1 << 63, (50, 2), dtype=np.uint64) << np.uint64(1)
    lines = [rng.integers(0, 50, size).tolist() for size in (30, 0, 45, 1)]  # of four blocks
    paths = CorpusPaths(tmp_path)
    paths.partial.mkdir()
    for block, numbers in enumerate(lines):
        store_hashes(paths, block, hashes[numbers])

    runs = partitions(paths, len(lines), most_lines)
    for run in runs:
        find_duplicates(paths, run)

    assert (len(runs) == 1) == (most_lines > 76)

    seen: set[int] = set()
    for block, numbers in enumerate(lines):
        expected = []
        for place, number in enumerate(numbers):
            if number in seen:
                expected.append(place)
            seen.add(number)
        assert duplicates_of(paths, block).tolist() == expected
