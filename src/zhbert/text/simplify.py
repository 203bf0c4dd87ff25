"""Conversion of traditional to simplified text of the same length, for segmenters.

Only segmenters get the simplified text; the corpus contains the original text.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable
from importlib import metadata, resources
from typing import Any

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.text.sentences import Array, codes_of, native, text_of
from zhbert.wording import how_to_install

TRADITIONAL = ("characters", "opencc", "none")
"""Ways to simplify traditional text: with a table of characters, with OpenCC's phrases, none."""


@functools.cache
def _table() -> tuple[Array, str]:
    """Return all code points' simplified forms, (0x110000,) uint32, and the file's SHA-256."""
    raw = (resources.files("zhbert") / "assets" / "traditional.txt").read_bytes()
    table = np.arange(0x110000, dtype=np.uint32)
    pairs = [line for line in raw.decode().split("\n") if line and not line.startswith("#")]
    table[[ord(pair[0]) for pair in pairs]] = [ord(pair[1]) for pair in pairs]
    return table, hashlib.sha256(raw).hexdigest()


def simplify_codes(codes: Array) -> tuple[Array, Array] | None:
    """Return the simplified code points and the indices that differ; None if nothing changes."""
    table = _table()[0]
    if native is not None:
        replaced = native.replace(codes, table)
        if replaced is None:
            return None
        return np.frombuffer(replaced[0], np.uint32), np.frombuffer(replaced[1], np.int32)
    simplified = table[codes]
    places = np.flatnonzero(simplified != codes)
    return (simplified, places) if len(places) else None


def simplify(text: str) -> str:
    """Replace each traditional character with its simplified form; the length stays the same.

    乾 is kept: simplified text uses it, too, in 乾隆 and 乾坤.

    >>> simplify("語言模型與乾隆")
    '语言模型与乾隆'
    """
    found = simplify_codes(codes_of(text))
    return text if found is None else text_of(found[0])


class _OpenCC:
    """OpenCC's simplification by phrases, or by characters if phrases change a line's length."""

    def __init__(self) -> None:
        try:
            import opencc
        except ImportError as error:
            raise ZhbertError(
                f"--traditional opencc: OpenCC is not installed; {how_to_install('opencc')}, "
                "or use --traditional characters"
            ) from error
        self._convert = opencc.OpenCC("t2s").convert

    def __call__(self, text: str) -> str:
        simplified: str = self._convert(text)
        if len(simplified) == len(text):
            return simplified
        lines = text.split("\n")
        if len(lines) == 1:
            return simplify(text)
        return "\n".join(self(line) for line in lines)


class Simplifier:
    """A converter to simplified text in one of the ways of TRADITIONAL; the length stays the same.

    ``options`` has the way and the version of its data, for corpus.json.

    >>> Simplifier("characters")("語言"), Simplifier("none")("語言")
    ('语言', '語言')
    """

    def __init__(self, how: str) -> None:
        if how not in TRADITIONAL:
            raise ZhbertError(
                f"traditional: unknown value '{how}'; known: {', '.join(TRADITIONAL)}"
            )
        self.how = how
        self.options: dict[str, Any] = {"traditional": how}
        self._convert: Callable[[str], str] = str
        if how == "characters":
            self._convert = simplify
            self.options["traditional_table"] = _table()[1]
        if how == "opencc":
            self._convert = _OpenCC()
            self.options["opencc"] = metadata.version("opencc")

    def __call__(self, text: str) -> str:
        """Return the text to give to a segmenter."""
        return self._convert(text)
