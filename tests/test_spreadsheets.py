"""No cell that a stranger chose is a formula, and what is read back is what was written."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from zhbert.spreadsheets import from_cell, to_cell


@given(st.text("='+-@\t\r1.e好", max_size=8) | st.text())
@example("''=")
def test_a_cell_reads_back_as_it_was_and_begins_no_formula(text: str) -> None:
    cell = to_cell(text)
    assert from_cell(cell) == text
    if cell and cell[0] in "=+-@\t\r":
        float(cell)


@pytest.mark.parametrize("number", [-1, -0.5, 1e-7, -1e30, "+3", "-.5"])
def test_numbers_stay_numbers(number: object) -> None:
    assert to_cell(number) == str(number)
