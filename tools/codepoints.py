"""Makes ``src/zhbert/assets/codepoints.toml``: BERT's normalisation of every code point.

    python tools/codepoints.py > src/zhbert/assets/codepoints.toml

The table is derived from the behaviour of the installed ``tokenizers`` library, which mixes several
versions of Unicode, so neither ``unicodedata`` nor the standard's files would give the same ids.
What a character is decomposed into, and its combining class, are the same in all versions; there
the table says only which characters are affected.
"""

from __future__ import annotations

import sys
import textwrap
import unicodedata
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from tokenizers import __version__ as tokenizers_version

CODE_POINTS = [*range(0xD800), *range(0xE000, 0x110000)]
HANGUL = range(0xAC00, 0xAC00 + 11172)  # these decompose by arithmetic


@dataclass
class CodePoints:
    """Sets of code points, and what the others turn into."""

    removed: set[int] = field(default_factory=set)  # by cleaning: controls, formats, U+FFFD, ...
    spaces: set[int] = field(default_factory=set)
    chinese: set[int] = field(default_factory=set)
    punctuation: set[int] = field(default_factory=set)
    accents: set[int] = field(default_factory=set)  # what strip_accents removes
    decomposed: set[int] = field(default_factory=set)  # by NFD, but for Hangul syllables
    lower: dict[int, str] = field(default_factory=dict)
    ordered: set[int] = field(default_factory=set)  # marks that NFD sorts
    # Beside which an added token that is a single word is none.
    letters: set[int] = field(default_factory=set)


def bert(**options: bool) -> Callable[[str], str]:
    """One stage of the BERT normaliser alone."""
    off = dict.fromkeys(("clean_text", "handle_chinese_chars", "strip_accents", "lowercase"), False)
    normalize: Callable[[str], str] = normalizers.BertNormalizer(**off | options).normalize_str
    return normalize


def derive() -> CodePoints:
    """Ask ``tokenizers`` about every code point (about five seconds)."""
    found = CodePoints()
    clean, split = bert(clean_text=True), bert(handle_chinese_chars=True)
    strip, lower = bert(strip_accents=True), bert(lowercase=True)
    decompose = normalizers.NFD().normalize_str
    pre_tokenize = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    for code in CODE_POINTS:
        character = chr(code)
        cleaned = clean(character)
        if cleaned == "":
            found.removed.add(code)
        elif cleaned == " ":
            found.spaces.add(code)
        elif cleaned != character:
            raise AssertionError(f"U+{code:04X}: cleaning gives {cleaned!r}")
        if split(character) != character:
            found.chinese.add(code)
        decomposed = decompose(character)
        if decomposed != character:
            if decomposed != unicodedata.normalize("NFD", character):
                raise AssertionError(f"U+{code:04X}: not the standard's decomposition")
            found.decomposed.add(code)
            kept = "".join(c for c in decomposed if strip(c))
            if strip(character) != kept:
                raise AssertionError(f"U+{code:04X}: stripping accents is not NFD without marks")
        elif strip(character) == "":
            found.accents.add(code)
        if (lowered := lower(character)) != character:
            found.lower[code] = lowered
        if len(pre_tokenize(f"a{character}b")) == 3:
            found.punctuation.add(code)
    found.ordered = derive_ordered(decompose, found.decomposed)
    found.letters = derive_letters()
    found.decomposed -= set(HANGUL)
    return found


def derive_letters() -> set[int]:
    """Characters of words, by the regular expressions of Rust: no single word begins behind one."""
    tokenizer = Tokenizer(models.WordLevel({"#": 0}, unk_token="#"))
    tokenizer.add_tokens([AddedToken("#", single_word=True, normalized=False)])
    # Each one between line ends: where the token is found, the text is cut before it.
    text = "\n".join(f"{chr(code)}#" for code in CODE_POINTS if chr(code) not in "#\n")
    single = {start for start, end in tokenizer.encode(text).offsets if end == start + 1}
    places = range(1, len(text), 3)
    codes = (ord(text[place - 1]) for place in places)
    return {code for code, place in zip(codes, places, strict=True) if place not in single}


def derive_ordered(decompose: Callable[[str], str], decomposed: set[int]) -> set[int]:
    """Return the marks that are sorted: a mark moves over another of a higher class."""
    lowest, highest = "\u0334", "\u0345"  # classes 1 and 240, the ends of the scale

    def moves(first: str, second: str) -> bool:
        return decompose(first + second) == second + first

    marks = [
        chr(code)
        for code in CODE_POINTS
        if code not in decomposed and (moves(highest, chr(code)) or moves(chr(code), lowest))
    ]
    one_of_each = {unicodedata.combining(mark): mark for mark in marks}
    for mark in marks:
        for order, other in one_of_each.items():
            if mark != other and moves(mark, other) != (unicodedata.combining(mark) > order):
                raise AssertionError(f"U+{ord(mark):04X}: not the standard's combining class")
    return set(map(ord, marks))


def runs(codes: Iterable[int]) -> list[tuple[int, int]]:
    """Sorted code points as (first, last) runs."""
    found: list[tuple[int, int]] = []
    for code in sorted(codes):
        if found and found[-1][1] == code - 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return found


def write_set(codes: Iterable[int]) -> str:
    """``41-5a c0``: hexadecimal runs."""
    return " ".join(f"{a:x}" if a == b else f"{a:x}-{b:x}" for a, b in runs(codes))


def write_lower(lower: Mapping[int, str]) -> str:
    """``41-5a=61 100/12e=101``: runs, and what the first becomes; ``/``: every other character."""
    written: list[str] = []
    left = dict(sorted(lower.items()))
    while left:
        first = next(iter(left))
        target = left[first]
        found = {}
        for step, sign in ((2, "/"), (1, "-")):
            last = first
            while left.get(last + step) == chr(ord(target[0]) + last + step - first) + target[1:]:
                last += step
            found[sign] = range(first, last + 1, step)
        sign = max(found, key=lambda sign: len(found[sign]))
        run = found[sign]
        for code in run:
            del left[code]
        codes = f"{first:x}" if len(run) == 1 else f"{first:x}{sign}{run[-1]:x}"
        written.append(f"{codes}={'.'.join(f'{ord(c):x}' for c in target)}")
    return " ".join(written)


def fields(points: CodePoints) -> dict[str, str]:
    """The names and values of the generated file."""
    return {
        "removed": write_set(points.removed),
        "spaces": write_set(points.spaces),
        "chinese": write_set(points.chinese),
        "punctuation": write_set(points.punctuation),
        "accents": write_set(points.accents),
        "letters": write_set(points.letters),
        "ordered": write_set(points.ordered),
        "decomposed": write_set(points.decomposed),
        "lower": write_lower(points.lower),
    }


def document(points: CodePoints) -> str:
    """The generated file's text."""
    lines = [
        "# BERT's normalisation of every code point; made by tools/codepoints.py.",
        f"# Derived from the behaviour of tokenizers {tokenizers_version}. All numbers are "
        "hexadecimal.",
        "# zhbert/text/normalize.py reads it.",
        "",
    ]
    for name, value in fields(points).items():
        lines += [f'{name} = """', *textwrap.wrap(value, 99), '"""']
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(document(derive()))
