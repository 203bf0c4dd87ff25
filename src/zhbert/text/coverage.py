"""What a vocabulary makes of a text: which characters become [UNK], and what to do about it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.text.normalize import code_points, describe_dropped, dropped, normalize
from zhbert.text.sentences import codes_of
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.vocab import big5_level1_han, gb2312_han
from zhbert.text.wordpiece import CONTINUATION, MAX_CHARACTERS_PER_WORD
from zhbert.wording import counted

# What Google's Chinese vocabulary lacks and every Chinese text is full of.
QUOTES_AND_DASHES = "“”‘’—…"

_LATIN = "a-zA-Z\u00c0-\u024f"
_latin_words = re.compile(f"[0-9{_LATIN}]*[{_LATIN}][0-9{_LATIN}]*").findall
# Characters around an unknown one that its example shows.
_CONTEXT = 8


@dataclass
class Coverage:
    """Counts over one text or several; parts can be added.

    ``missing`` counts for each character without a row the [UNK] pieces that it causes. A word is
    one [UNK] even if several of its characters are missing: then each of them counts it.
    """

    characters: int = 0  # white space not counted
    pieces: int = 0
    unknown: int = 0
    han: int = 0
    traditional: int = 0  # Han characters of Big5 level 1 that GB 2312 does not have
    traditional_unknown: int = 0
    latin_words: int = 0
    latin_characters: int = 0
    latin_pieces: int = 0
    too_long: int = 0  # [UNK] because the word is over 100 characters
    dropped: Counter[str] = field(default_factory=Counter)  # by kind, as normalize.DROPPED
    missing: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)

    def __add__(self, other: Coverage) -> Coverage:
        numbers = {
            name: getattr(self, name) + getattr(other, name)
            for name in self.__dataclass_fields__
            if name != "examples"
        }
        return Coverage(**numbers, examples={**other.examples, **self.examples})

    @property
    def unknown_share(self) -> float:
        """[UNK] among all pieces, 0 to 1."""
        return self.unknown / max(1, self.pieces)

    @property
    def traditional_share(self) -> float:
        """Traditional characters among all Han characters, 0 to 1."""
        return self.traditional / max(1, self.han)

    @property
    def latin_pieces_per_word(self) -> float:
        """Pieces that a Latin word falls into, on average."""
        return self.latin_pieces / max(1, self.latin_words)

    @property
    def latin_pieces_per_character(self) -> float:
        """Pieces for each character of a Latin word, on average; 1 would be spelling it out."""
        return self.latin_pieces / max(1, self.latin_characters)

    def figures(self) -> dict[str, float]:
        """What two vocabularies are compared by."""
        return {
            "pieces": self.pieces,
            "pieces_per_character": self.pieces / max(1, self.characters),
            "unknown": self.unknown,
            "unknown_share": self.unknown_share,
        }

    def missing_traditional(self) -> dict[str, int]:
        """The missing characters that are traditional, the most frequent first."""
        return {c: n for c, n in ranked(self.missing) if c in traditional_han()}


def ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    """Most frequent first, ties by code point."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


@cache
def traditional_han() -> frozenset[str]:
    """Common traditional-only characters: Big5 level 1 without GB 2312.

    >>> "體" in traditional_han(), "体" in traditional_han(), "中" in traditional_han()
    (True, False, False)
    """
    return big5_level1_han() - gb2312_han()


@cache
def _code_table(kind: str) -> NDArray[np.bool_]:
    characters = {
        "han": code_points().chinese,
        "traditional": traditional_han(),
        "space": code_points().spaces,
    }[kind]
    table = np.zeros(0x110000, np.bool_)
    table[[ord(c) for c in characters]] = True
    return table


def cover(tokenizer: Tokenizer, blocks: Iterable[str]) -> Coverage:
    """Count what ``tokenizer`` makes of ``blocks`` of text; special tokens are plain text here.

    A word must not cross from one block to the next. Memory: about 30 bytes a character of the
    longest block.

    >>> tokenizer = Tokenizer(["[UNK]", "他", "说", "好", "a", "##b"])
    >>> found = cover(tokenizer, ["他说：“好”。他说“ab”"])
    >>> found.unknown, found.missing["“"], found.examples["”"]
    (6, 2, '他说：“好”。他说“ab”')
    """
    total = Coverage()
    for block in blocks:
        total += _cover(tokenizer, block)
    return total


def compared(old: Tokenizer, new: Tokenizer, blocks: Iterable[str]) -> dict[str, Any]:
    """What two vocabularies make of the same text: its ``characters``, and figures of each.

    >>> pieces = ["[UNK]", "a", "##b"]
    >>> found = compared(Tokenizer(pieces), Tokenizer([*pieces, "好"]), ["好 ab"])
    >>> found["before"]["unknown"], found["after"]["unknown"]
    (1, 0)
    """
    before, after = Coverage(), Coverage()
    for block in blocks:
        before += _cover(old, block)
        after += _cover(new, block)
    return {
        "characters": before.characters,
        "before": before.figures(),
        "after": after.figures(),
    }


def _cover(tokenizer: Tokenizer, text: str) -> Coverage:
    codes = codes_of(text)
    encoding = tokenizer.encode(text, special_tokens=False)
    where = np.flatnonzero(encoding.ids == tokenizer.unk_id)
    latin = Counter(_latin_words(text))
    words = list(latin)
    cut = tokenizer.encode_batch(words, special_tokens=False)
    found = Coverage(
        characters=len(codes) - int(_code_table("space")[codes].sum()),
        pieces=len(encoding),
        unknown=len(where),
        han=int(_code_table("han")[codes].sum()),
        traditional=int(_code_table("traditional")[codes].sum()),
        dropped=Counter(dropped(codes)),
        latin_words=latin.total(),
        latin_characters=sum(len(word) * count for word, count in latin.items()),
        latin_pieces=sum(len(ids) * latin[word] for word, ids in zip(words, cut, strict=True)),
    )
    surfaces: Counter[str] = Counter()
    first_seen: dict[str, tuple[int, int]] = {}
    for start, end in encoding.offsets[where].tolist():
        surface = text[start:end]
        surfaces[surface] += 1
        first_seen.setdefault(surface, (start, end))
    for surface, count in surfaces.items():
        culprits, too_long = _culprits(tokenizer, surface)
        found.too_long += count * too_long
        for character in culprits:
            found.missing[character] += count
            if character in traditional_han():
                found.traditional_unknown += count
            if character not in found.examples:
                found.examples[character] = _context(text, *first_seen[surface])
    return found


def _culprits(tokenizer: Tokenizer, surface: str) -> tuple[set[str], bool]:
    """The characters for which a word is [UNK], and whether it is too long to be anything else."""
    word = "".join(normalize(surface, tokenizer.options)[0]).strip()
    if len(word) > MAX_CHARACTERS_PER_WORD:
        return set(), True
    inside = {c for c in word[1:] if tokenizer.id_of(CONTINUATION + c) is None}
    first = {c for c in word[:1] if tokenizer.id_of(c) is None}
    return first | inside, False


def _context(text: str, start: int, end: int) -> str:
    begin = max(0, start - _CONTEXT)
    before = text[begin:start].rpartition("\n")[2]
    # A word of any length may be unknown; its example need not be.
    after = text[start : min(end, start + 40) + _CONTEXT].partition("\n")[0]
    return (before + after).strip()


def advice(tokenizer: Tokenizer, found: Coverage) -> list[str]:
    """What to make of the counts, in plain sentences; empty if nothing is wrong."""
    lines = []
    if found.dropped:
        lines.append(f"{describe_dropped(found.dropped)}, as BERT does; none of them has a piece.")
    if lacking := [c for c in QUOTES_AND_DASHES if tokenizer.id_of(c) is None]:
        occurrences = sum(found.missing[c] for c in lacking)
        lines.append(
            f"This vocabulary lacks {' '.join(lacking)}: {_occurrences(occurrences)}"
            f"{_of_all(occurrences, found)}. The vocabulary shipped with zhbert ('default') has "
            "them; in your own, put them on rows that hold [unusedN]."
        )
    traditional = found.missing_traditional()
    if found.traditional_share >= 0.01 and traditional:
        shown = " ".join(list(traditional)[:10])
        lines.append(
            f"{found.traditional_share:.1%} of the Han characters are traditional, and "
            f"{len(traditional):,} of those are missing ({shown}): "
            f"{_occurrences(found.traditional_unknown)}."
        )
    others = [
        (c, n)
        for c, n in ranked(found.missing)
        if c not in QUOTES_AND_DASHES and c not in traditional
    ]
    rest = sum(n for _, n in others)
    if found.pieces and rest / found.pieces >= 0.001:
        lines.append(
            f"{counted(len(others), 'other character', 'is/are')} missing, "
            f"{' '.join(c for c, _ in others[:10])} first: {_occurrences(rest)}. A vocabulary "
            "trained on this text has them: zhbert vocab train."
        )
    if found.too_long > found.pieces / 10_000:
        lines.append(
            f"{counted(found.too_long, 'word', 'is/are')} longer than {MAX_CHARACTERS_PER_WORD} "
            "characters: [UNK] whole in any BERT vocabulary: long URLs, encoded data, or text in a "
            "script without spaces."
        )
    latin_share = found.latin_pieces / max(1, found.pieces)
    if latin_share >= 0.02 and found.latin_pieces_per_word >= 2:
        lines.append(
            f"Latin words fall into {found.latin_pieces_per_word:.1f} pieces each and make "
            f"{latin_share:.1%} of the rows you train on; a vocabulary trained on this text keeps "
            "its words whole: zhbert vocab train."
        )
    return lines


def _occurrences(count: int) -> str:
    return f"{counted(count, 'occurrence', 'becomes/become')} [UNK]"


def _of_all(count: int, found: Coverage) -> str:
    return f", {count / found.unknown:.0%} of all [UNK]" if found.unknown and count else ""


def unreachable_rows(tokenizer: Tokenizer) -> int:
    """Rows of ``##`` + Han character: no text leads to them where Han characters stand alone."""
    if not tokenizer.options.tokenize_chinese_chars:
        return 0
    han = code_points().chinese
    return sum(
        piece.startswith(CONTINUATION) and not han.isdisjoint(piece)
        for piece in tokenizer.vocabulary
    )
