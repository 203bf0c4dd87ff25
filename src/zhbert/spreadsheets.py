"""Cells of CSV files that spreadsheets must not take for formulas."""

from __future__ import annotations

import re

# What Excel, LibreOffice and others calculate instead of showing it:
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def to_cell(value: object) -> str:
    """A value as a cell: what begins as formulas do gets a quote before it, numbers do not.

    >>> to_cell("=1+1"), to_cell("-3.5"), to_cell(None), to_cell("好")
    ("'=1+1", '-3.5', '', '好')
    """
    text = "" if value is None else str(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_cell(text: str) -> str:
    """What `to_cell` made the cell of.

    >>> from_cell("'=1+1"), from_cell("'好'")
    ('=1+1', "'好'")
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
