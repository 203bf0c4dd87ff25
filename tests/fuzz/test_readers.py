"""Whatever is wrong with a file ends in a result or in one line: thousands of files, or more.

`make fuzz` reads more: FUZZ_NUMBER files a reader, numbered from FUZZ_FIRST, with FUZZ_SEED.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fuzz.harness import attack
from tests.fuzz.readers import READERS

NUMBER, SEED, FIRST = (
    int(os.environ.get(f"FUZZ_{name}") or default)
    for name, default in (("NUMBER", 120), ("SEED", 0), ("FIRST", 0))
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A place for files that come and go by the thousand: in memory, where there is such a one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as name:
        yield Path(name)


@pytest.mark.parametrize("name", READERS)
def test_a_damaged_file_is_read_or_refused_in_one_line(name: str, folder: Path) -> None:
    found: dict[str, str] = {}
    reader = READERS[name]
    numbers = range(FIRST, FIRST + max(1, int(NUMBER * reader.share)))
    for finding in attack(name, reader, folder, seed=SEED, numbers=numbers):
        # The same trouble in the same place is told once.
        found.setdefault(re.sub(r"\d+|'.*?'", "", finding.trouble)[-80:], str(finding))
    if found:
        pytest.fail("\n".join(found.values()), pytrace=False)
