"""Cells of CSV files, protected from being evaluated as formulas by spreadsheet programs."""

from __future__ import annotations

import re

# Excel, LibreOffice and others evaluate a cell that begins so instead of showing it:
# https://owasp.org/www-community/attacks/CSV_Injection
_FORMULA = re.compile(r"'*[=+\-@\t\r]")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def to_cell(value: object) -> str:
    """Return a value as a cell: text that begins like a formula is quoted, a number is not.

    >>> to_cell("=1+1"), to_cell("-3.5"), to_cell(None), to_cell("好")
    ("'=1+1", '-3.5', '', '好')
    """
    text = "" if value is None else str(value)
    return f"'{text}" if _FORMULA.match(text) and not _NUMBER.fullmatch(text) else text


def from_cell(text: str) -> str:
    """Undo `to_cell`.

    >>> from_cell("'=1+1"), from_cell("'好'")
    ('=1+1', "'好'")
    """
    return text[1:] if text.startswith("'") and _FORMULA.match(text) else text
