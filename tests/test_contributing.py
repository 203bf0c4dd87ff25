"""CONTRIBUTING.md shows code that the tests run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
# The test that a section names, and the code that it shows.
EXAMPLES = re.findall(r"\(`(tests/[\w/]+\.py)`\):\n\n```python\n(.*?)\n```", PAGE, re.DOTALL)


def test_all_code_is_that_of_a_test() -> None:
    assert len(EXAMPLES) == PAGE.count("```python") == 6


@pytest.mark.parametrize(("file", "code"), EXAMPLES)
def test_an_example_is_what_the_test_runs_and_is_short(file: str, code: str) -> None:
    assert code in (ROOT / file).read_text(encoding="utf-8")
    assert sum(bool(line) for line in code.splitlines()) < 60
