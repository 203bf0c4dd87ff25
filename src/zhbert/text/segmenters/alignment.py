"""A library's words, found again in the text that it was given.

Libraries change the text on the way: they drop blanks, lower-case, and make full-width letters
half-width. What is left of a character in all of them is compared.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence

import numpy as np

from zhbert.text.sentences import Array
from zhbert.text.simplify import simplify


@functools.cache
def clean_table() -> Array:
    """(0x110000,) uint32: blanks and control characters to a blank, lone surrogates to U+FFFD."""
    table = np.arange(0x110000, dtype=np.uint32)
    for code in range(0x3001):
        if chr(code).isspace() or unicodedata.category(chr(code)) == "Cc":
            table[code] = 0x20
    # Rust and C++ read text as UTF-8, which cannot hold a lone surrogate.
    table[0xD800:0xE000] = 0xFFFD
    return table


@functools.lru_cache(1 << 16)
def fold(character: str) -> str:
    """What is left of a character without width, case and accent; nothing of an invisible one.

    >>> fold("Ａ"), fold("é"), fold("㎏"), fold("\\u200b")
    ('a', 'e', 'kg', '')
    """
    if character == "\ufffd":
        return ""
    return "".join(
        c
        for c in unicodedata.normalize("NFKD", character).casefold()
        if unicodedata.category(c)[0] not in "CZ" and unicodedata.category(c) != "Mn"
    )


def align(sentence: str, words: Sequence[str]) -> list[int] | None:
    """Return the ends of ``words`` in ``sentence``, increasing; None if they are not its words.

    Blanks and invisible characters that were dropped belong to the word before them.

    >>> align("使用ＢＥＲＴ 模型", ["使用", "bert", "模型"])
    [2, 7, 9]
    >>> align("使用模型", ["使用", "[UNK]"])
    """
    joined = "".join(words)
    if joined == sentence:
        ends = []
        at = 0
        for word in words:
            at += len(word)
            if word:
                ends.append(at)
        return ends
    folded = [fold(character) for character in simplify(sentence)]
    if "".join(folded) != "".join(map(fold, simplify(joined))):
        return None
    # place[k]: where the character of the sentence begins that holds the folded character k.
    place = [at for at, characters in enumerate(folded) for _ in characters]
    place.append(len(sentence))
    found = []
    at = 0
    for word in words:
        at += sum(len(fold(character)) for character in simplify(word))
        # A cut inside a character (㎏ as k and g) is moved to the character's beginning.
        found.append(place[at])
    return sorted({end for end in found if end})
