"""Sets of characters that a vocabulary for Chinese text should have, by name."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import read_text


def _decoded(codec: str, rows: Iterable[int], cells: Iterable[int]) -> Iterator[str]:
    """Return the characters in some rows and columns of a two-byte code table."""
    for row, cell in itertools.product(rows, list(cells)):
        try:
            yield bytes([row, cell]).decode(codec)
        except UnicodeDecodeError:
            continue


def gb2312_han() -> frozenset[str]:
    """Return the 6,763 Han characters of GB 2312: rows 16 to 87 of the code table.

    >>> len(gb2312_han())
    6763
    """
    return frozenset(_decoded("gb2312", range(0xB0, 0xF8), range(0xA1, 0xFF)))


def big5_level1_han() -> frozenset[str]:
    """Return the 5,401 frequently used traditional characters: Big5 A440 to C67E.

    >>> len(big5_level1_han())
    5401
    """
    cells = [*range(0x40, 0x7F), *range(0xA1, 0xFF)]
    rows = (c for c in itertools.product(range(0xA4, 0xC7), cells) if c <= (0xC6, 0x7E))
    return frozenset(bytes(pair).decode("big5") for pair in rows)


def quotes_and_punctuation() -> frozenset[str]:
    """Return “ ” ‘ ’ — … and the other signs of Chinese print: upright, vertical, full-width.

    They are GB 2312's row of signs, and the punctuation and symbols of Unicode's blocks for
    Latin-1, general punctuation, CJK punctuation, vertical, small and full-width forms.

    >>> quotes_and_punctuation() >= set("“”‘’—…「」『』《》，。！？～￥℃×")
    True
    """
    blocks = (
        range(0x00A1, 0x00C0),
        range(0x2010, 0x2028),
        range(0x2030, 0x203F),
        range(0x3001, 0x3021),
        range(0xFE30, 0xFE6C),
        range(0xFF01, 0xFF66),
        range(0xFFE0, 0xFFE7),
    )
    signs = {chr(code) for code in itertools.chain(*blocks)}
    return frozenset(
        {
            *_decoded("gb2312", [0xA1], range(0xA2, 0xFF)),
            *(sign for sign in signs if unicodedata.category(sign)[0] in "PS"),
        }
    )


def letters_of_gb2312() -> frozenset[str]:
    """Return rows 2 to 8 of GB 2312: numerals, full-width ASCII, kana, Greek, Cyrillic, bopomofo.

    >>> letters_of_gb2312() >= set("①ＡのアαжㄅⅣ")
    True
    """
    return frozenset(_decoded("gb2312", range(0xA2, 0xA9), range(0xA1, 0xFF)))


CHARACTER_SETS = {
    "quotes": quotes_and_punctuation,
    "gb2312": gb2312_han,
    "big5-1": big5_level1_han,
    "letters": letters_of_gb2312,
}
"""The sets by name, the most important first."""


def characters_of(names: str) -> frozenset[str]:
    """Return the characters of comma-separated sets and files; none for ``none``.

    >>> len(characters_of("gb2312,big5-1"))
    8836
    """
    found: set[str] = set()
    for name in filter(None, names.split(",")):
        if name in CHARACTER_SETS:
            found |= CHARACTER_SETS[name]()
        elif name == "none":
            continue
        elif Path(name).is_file():
            found.update(read_text(name, "a file of characters"))
        else:
            raise ZhbertError(
                f"--characters {name}: neither a file nor a set of characters; sets: "
                f"{', '.join(CHARACTER_SETS)}, none"
            )
    return frozenset(found)
