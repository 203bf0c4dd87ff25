"""BERT's normalisation with offsets: cleaning, spaces around Chinese, accents, lower case.

`normalize` applies the rules stage by stage, like BertNormalizer of `tokenizers`
(https://github.com/huggingface/tokenizers) and the original BasicTokenizer of
https://github.com/google-research/bert. `rules` condenses them into tables over all code points,
from which the native tokenizer builds its own.
"""

from __future__ import annotations

import tomllib
import unicodedata
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from importlib import resources

import numpy as np
from numpy.typing import NDArray

NUM_CODE_POINTS = 0x110000
_HANGUL = range(0xAC00, 0xAC00 + 11172)
_SURROGATES = "d800-dfff"


@dataclass(frozen=True)
class Options:
    """The options of BERT's normalisation, with Hugging Face's names."""

    do_lower_case: bool = True
    strip_accents: bool | None = None  # None: same as do_lower_case
    tokenize_chinese_chars: bool = True

    @property
    def strips_accents(self) -> bool:
        """True if accents are removed: ``strip_accents``, or ``do_lower_case`` if that is None."""
        return self.do_lower_case if self.strip_accents is None else self.strip_accents


@cache
def code_point_table() -> Mapping[str, str]:
    """Return the sets of code points as they are written in assets/codepoints.toml."""
    file = resources.files("zhbert") / "assets" / "codepoints.toml"
    return tomllib.loads(file.read_text(encoding="utf-8"))


def ranges(text: str) -> Iterator[tuple[int, int]]:
    """Yield the first and the last of each run of code points, written ``41-5a c0``."""
    for run in text.split():
        first, _, last = run.partition("-")
        yield int(first, 16), int(last or first, 16)


@cache
def code_table(name: str) -> NDArray[np.bool_]:
    """Return which code points are in one of the file's sets: (0x110000,) bool."""
    table = np.zeros(NUM_CODE_POINTS, np.bool_)
    for first, last in ranges(code_point_table()[name]):
        table[first : last + 1] = True
    return table


def _set(text: str) -> frozenset[str]:
    return frozenset(chr(c) for first, last in ranges(text) for c in range(first, last + 1))


def _lower_case(text: str) -> dict[str, str]:
    """Parse ``41-5a=61``: runs, and what their first character becomes; ``/``: every other one."""
    found = {}
    for pair in text.split():
        run, becomes = pair.split("=")
        step = 2 if "/" in run else 1
        ((first, last),) = ranges(run.replace("/", "-"))
        target, *rest = (int(code, 16) for code in becomes.split("."))
        for code in range(first, last + 1, step):
            found[chr(code)] = "".join(map(chr, (target + code - first, *rest)))
    return found


class CodePoints:
    """Sets of code points, computed by tools/codepoints.py; each is parsed at its first use.

    Which characters are decomposed or ordered depends on the Unicode version of `tokenizers`, but
    not how: https://www.unicode.org/policies/stability_policy.html. So `unicodedata` knows that,
    of whichever version it is.
    """

    @cached_property
    def removed(self) -> frozenset[str]:
        """Characters that cleaning removes: control, format and private-use, NUL and U+FFFD."""
        # A lone surrogate is treated as a control character.
        return _set(code_point_table()["removed"]) | _set(_SURROGATES)

    @cached_property
    def spaces(self) -> frozenset[str]:
        """Characters that cleaning turns into a space."""
        return _set(code_point_table()["spaces"])

    @cached_property
    def chinese(self) -> frozenset[str]:
        """Chinese characters by BERT's definition; each is a separate word."""
        return _set(code_point_table()["chinese"])

    @cached_property
    def punctuation(self) -> frozenset[str]:
        """Punctuation by BERT's definition; each mark is a separate word, too."""
        return _set(code_point_table()["punctuation"])

    @cached_property
    def letters(self) -> frozenset[str]:
        r"""Letters, marks, digits and joiners: the word characters (\w) of Rust's regex."""
        return _set(code_point_table()["letters"])

    @cached_property
    def accents(self) -> frozenset[str]:
        """The combining marks that strip_accents removes."""
        return _set(code_point_table()["accents"])

    @cached_property
    def lower(self) -> Mapping[str, str]:
        """The lower-case form of each character that has one."""
        return _lower_case(code_point_table()["lower"])

    @cached_property
    def decompositions(self) -> Mapping[str, str]:
        """Full canonical decompositions, except those of Hangul syllables."""
        return {c: unicodedata.normalize("NFD", c) for c in _set(code_point_table()["decomposed"])}

    @cached_property
    def orders(self) -> Mapping[str, int]:
        """The canonical combining class of each combining mark."""
        return {c: unicodedata.combining(c) for c in _set(code_point_table()["ordered"])}


@cache
def code_points() -> CodePoints:
    """Return the sets, which are made once."""
    return CodePoints()


def decompose(character: str) -> str:
    """Return the full canonical decomposition of one character.

    >>> [hex(ord(c)) for c in decompose("한")]
    ['0x1112', '0x1161', '0x11ab']
    """
    if ord(character) in _HANGUL:
        return unicodedata.normalize("NFD", character)
    return code_points().decompositions.get(character, character)


def normalize(text: str, options: Options) -> tuple[list[str], list[int]]:
    """Normalise ``text``.

    Returns:
        The characters of the result, and the index in ``text`` that each came from, increasing.

    >>> normalize("É 中", Options())
    (['e', ' ', ' ', '中', ' '], [0, 1, 2, 2, 2])
    """
    points = code_points()
    characters: list[str] = []
    origins: list[int] = []
    for position, character in enumerate(text):
        if character in points.removed:
            continue
        if character in points.spaces:
            character = " "
        if options.tokenize_chinese_chars and character in points.chinese:
            characters += (" ", character, " ")
            origins += (position, position, position)
        else:
            characters.append(character)
            origins.append(position)
    if options.strips_accents:
        characters, origins = _strip_accents(characters, origins)
    if options.do_lower_case:
        characters, origins = _lower(characters, origins)
    return characters, origins


def _strip_accents(characters: list[str], origins: list[int]) -> tuple[list[str], list[int]]:
    """Decompose characters, put the marks into canonical order and remove the accents."""
    points = code_points()
    # (combining class, character, True for the first part of an original character)
    decomposed: list[tuple[int, str, bool]] = []
    sorted_up_to = 0
    for character in characters:
        for place, part in enumerate(decompose(character)):
            order = points.orders.get(part, 0)
            if order == 0:
                decomposed[sorted_up_to:] = sorted(decomposed[sorted_up_to:], key=lambda d: d[0])
                sorted_up_to = len(decomposed) + 1
            decomposed.append((order, part, place == 0))
    decomposed[sorted_up_to:] = sorted(decomposed[sorted_up_to:], key=lambda d: d[0])
    kept: list[str] = []
    kept_origins: list[int] = []
    # As in `tokenizers`, a mark that was moved gets the offset of the mark at its new place.
    position = -1
    for _, part, first in decomposed:
        position += first
        if part not in points.accents:
            kept.append(part)
            kept_origins.append(origins[position])
    return kept, kept_origins


def _lower(characters: list[str], origins: list[int]) -> tuple[list[str], list[int]]:
    lower = code_points().lower
    lowered = [lower.get(c, c) for c in characters]
    if all(len(c) == 1 for c in lowered):
        return lowered, origins
    expanded = [origin for c, origin in zip(lowered, origins, strict=True) for _ in c]
    return list("".join(lowered)), expanded


def split_words(characters: list[str]) -> Iterator[tuple[int, int]]:
    """Cut a normalised text into words at blanks and around punctuation; yield (start, end).

    >>> list(split_words(list("it's  ok")))
    [(0, 2), (2, 3), (3, 4), (6, 8)]
    """
    punctuation = code_points().punctuation
    start = 0
    for position, character in enumerate(characters):
        alone = character in punctuation
        if alone or character == " ":
            if start < position:
                yield start, position
            if alone:
                yield position, position + 1
            start = position + 1
    if start < len(characters):
        yield start, len(characters)


def normalized_words(text: str, options: Options) -> list[str]:
    """Normalise a text and cut it into the words that become word pieces.

    >>> normalized_words("Café的Wi-Fi", Options())
    ['cafe', '的', 'wi', '-', 'fi']
    """
    characters, _ = normalize(text, options)
    return ["".join(characters[start:end]) for start, end in split_words(characters)]


DROPPED = {
    "nul": "NUL",
    "replacement": "U+FFFD",
    "private_use": "private-use",
    "zero_width": "zero-width",
    "control": "control",
}
"""The kinds of characters that cleaning removes, with their names in messages."""


@lru_cache(maxsize=1)
def _dropped_kinds() -> NDArray[np.uint8]:
    """Return (0x110000,) uint8: 0 for kept characters, else the kind's place in DROPPED from 1."""
    by_category = {"Co": 3, "Cf": 4, "Cc": 5}
    kinds = np.zeros(NUM_CODE_POINTS, np.uint8)
    for first, last in ranges(code_point_table()["removed"]):
        for code in range(first, last + 1):
            kinds[code] = by_category.get(unicodedata.category(chr(code)), 5)
    kinds[0], kinds[0xFFFD] = 1, 2
    return kinds


def dropped(codes: NDArray[np.uint32]) -> dict[str, int]:
    r"""Count the characters of a text that cleaning removes, by kind, without zero counts.

    A replacement character (U+FFFD) is the trace of an earlier decoding error. Private-use
    characters are frequent in Chinese text from the web.

    >>> dropped(np.array([ord(c) for c in "好\u200b\ufffd\ue5e5\0"], np.uint32))
    {'nul': 1, 'replacement': 1, 'private_use': 1, 'zero_width': 1}
    """
    counts = np.bincount(_dropped_kinds()[codes], minlength=len(DROPPED) + 1)[1:].tolist()
    return {kind: count for kind, count in zip(DROPPED, counts, strict=True) if count}


def describe_dropped(counts: Mapping[str, int]) -> str:
    """Return a sentence about the removed characters.

    >>> describe_dropped({"nul": 10, "replacement": 20})
    '10 NUL and 20 U+FFFD characters were dropped'
    """
    names = DROPPED | {"lone_surrogates": "half-surrogate"}
    parts = [f"{counts[kind]:,} {name}" for kind, name in names.items() if counts.get(kind)]
    shown = " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
    one = len(parts) == 1 and parts[0].startswith("1 ")
    return f"{shown} {'character was' if one else 'characters were'} dropped"


# The kinds of code points in `rules`; the native module uses the same numbers.
WORD, REMOVED, SPACE, ALONE, REORDER, ACCENT, MULTI, HANGUL = range(8)

# A table from code points to strings, all uint32: the code points, sorted; the start of each
# string, and the end of the last; the strings, concatenated.
Strings = tuple[NDArray[np.uint32], NDArray[np.uint32], NDArray[np.uint32]]


@dataclass(frozen=True)
class Rules:
    """BERT's normalisation with given options, as tables.

    ``kinds``: (0x110000,) uint8. ``changes``: what a code point becomes, if not itself: one
    character, or several for kind MULTI. Hangul syllables are decomposed by arithmetic.
    ``decompositions`` and ``orders`` (code points and their combining classes) are needed only for
    texts with a character of kind REORDER: a combining mark that is kept and whose place depends
    on its neighbours.
    """

    kinds: NDArray[np.uint8]
    changes: Strings
    decompositions: Strings
    orders: tuple[NDArray[np.uint32], NDArray[np.uint32]]


@lru_cache(maxsize=16)
def rules(options: Options) -> Rules:
    """Condense the normalisation with these options into tables."""
    points = code_points()
    kinds = _basic_kinds(options)
    changes: dict[int, str] = {}
    affected = set(points.lower) if options.do_lower_case else set()
    if options.strips_accents:
        affected |= points.accents | set(points.decompositions) | set(points.orders)
    for character in affected:
        code = ord(character)
        changed = _changed(character, options)
        if changed is None:
            kinds[code] = REORDER
            continue
        kinds[code] = _kind_of(changed, int(kinds[code]))
        if changed not in ("", character):
            changes[code] = changed
    if options.strips_accents:
        kinds[_HANGUL.start : _HANGUL.stop] = HANGUL
    marks = sorted(map(ord, points.orders))
    return Rules(
        kinds=kinds,
        changes=_pack(changes),
        decompositions=_pack({ord(c): text for c, text in points.decompositions.items()}),
        orders=(
            np.array(marks, np.uint32),
            np.array([points.orders[chr(code)] for code in marks], np.uint32),
        ),
    )


def _basic_kinds(options: Options) -> NDArray[np.uint8]:
    """Return the kind of each code point before accents and capitals are handled: (0x110000,)."""
    kinds = np.full(NUM_CODE_POINTS, WORD, np.uint8)
    for text, kind in (
        (code_point_table()["punctuation"], ALONE),
        (code_point_table()["chinese"] if options.tokenize_chinese_chars else "", ALONE),
        (code_point_table()["spaces"], SPACE),
        (code_point_table()["removed"], REMOVED),
        (_SURROGATES, REMOVED),
    ):
        for first, last in ranges(text):
            kinds[first : last + 1] = kind
    return kinds


def _changed(character: str, options: Options) -> str | None:
    """Return what a character becomes; None for a kept mark, which depends on its neighbours."""
    points = code_points()
    if options.strips_accents:
        parts = [part for part in decompose(character) if part not in points.accents]
        if any(part in points.orders for part in parts):
            return None
        character = "".join(parts)
    if options.do_lower_case:
        character = "".join(points.lower.get(part, part) for part in character)
    return character


def _kind_of(changed: str, kind: int) -> int:
    """Return the final kind of a character of this ``kind`` that becomes ``changed``."""
    if changed == "":
        return ACCENT
    if len(changed) > 1:
        return MULTI
    return ALONE if kind == WORD and changed in code_points().punctuation else kind


def _pack(strings: Mapping[int, str]) -> Strings:
    """Convert a mapping to arrays."""
    keys = sorted(strings)
    starts = np.zeros(len(keys) + 1, np.uint32)
    np.cumsum([len(strings[key]) for key in keys], out=starts[1:])
    values = "".join(strings[key] for key in keys)
    return (
        np.array(keys, np.uint32),
        starts,
        np.frombuffer(values.encode("utf-32-le"), "<u4").astype(np.uint32),
    )
