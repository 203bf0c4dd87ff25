"""A vocabulary's coverage of a text: which characters become [UNK], and advice."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.text.character_sets import big5_level1_han, gb2312_han
from zhbert.text.normalize import code_points, code_table, describe_dropped, dropped, normalize
from zhbert.text.sentences import codes_of
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.wordpiece import CONTINUATION, MAX_CHARACTERS_PER_WORD
from zhbert.text.words import ranked
from zhbert.wording import counted

# Frequent in Chinese text, but missing from Google's Chinese vocabulary.
QUOTES_AND_DASHES = "“”‘’—…"

_LATIN = "a-zA-Z\u00c0-\u024f"
_latin_words = re.compile(f"[0-9{_LATIN}]*[{_LATIN}][0-9{_LATIN}]*").findall
# Characters that an example shows on either side of an unknown word.
_CONTEXT = 8


_FIGURES = (
    "characters", "pieces", "unknown", "unknown_share", "han", "traditional", "traditional_share",
    "traditional_unknown", "latin_words", "latin_pieces_per_word", "latin_pieces_per_character",
)  # fmt: skip


@dataclass
class Coverage:
    """Counts of the pieces and unknown characters in some text; the counts of texts can be added.

    ``missing`` counts the [UNK] pieces that each character without a row causes. A word with
    several missing characters is one [UNK], which counts for each of them. ``examples`` has a
    passage of the text for each missing character.
    """

    characters: int = 0  # white space not counted
    pieces: int = 0
    unknown: int = 0
    han: int = 0
    traditional: int = 0  # Han characters in Big5 level 1 but not in GB 2312
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
        """The share of [UNK] among all pieces, 0 to 1."""
        return self.unknown / max(1, self.pieces)

    @property
    def traditional_share(self) -> float:
        """The share of traditional characters among all Han characters, 0 to 1."""
        return self.traditional / max(1, self.han)

    @property
    def latin_pieces_per_word(self) -> float:
        """The mean number of pieces in a Latin word."""
        return self.latin_pieces / max(1, self.latin_words)

    @property
    def latin_pieces_per_character(self) -> float:
        """The mean number of pieces per character of Latin words; 1: every letter is a piece."""
        return self.latin_pieces / max(1, self.latin_characters)

    def figures(self) -> dict[str, float]:
        """Return the figures used to compare two vocabularies."""
        return {
            "pieces": self.pieces,
            "pieces_per_character": self.pieces / max(1, self.characters),
            "unknown": self.unknown,
            "unknown_share": self.unknown_share,
        }

    def as_dict(self, top: int) -> dict[str, Any]:
        """Return all figures for JSON, with the ``top`` characters that are missing most often."""
        missing = ranked(self.missing)
        return {
            **{name: getattr(self, name) for name in _FIGURES},
            "dropped": dict(self.dropped),
            "too_long_words": self.too_long,
            "missing_characters": len(missing),
            "missing": [
                {
                    "character": character,
                    "code_point": f"U+{ord(character):04X}",
                    "count": count,
                    "example": self.examples[character],
                }
                for character, count in missing[:top]
            ],
        }

    def missing_traditional(self) -> dict[str, int]:
        """Return the missing traditional characters with their counts, the most frequent first."""
        return {c: n for c, n in ranked(self.missing) if c in traditional_han()}


@cache
def traditional_han() -> frozenset[str]:
    """Return the common traditional-only characters: Big5 level 1 without GB 2312.

    >>> "體" in traditional_han(), "体" in traditional_han(), "中" in traditional_han()
    (True, False, False)
    """
    return big5_level1_han() - gb2312_han()


@cache
def _traditional_table() -> NDArray[np.bool_]:
    """Return which code points are in `traditional_han`: (0x110000,) bool."""
    table = np.zeros(0x110000, np.bool_)
    table[[ord(c) for c in traditional_han()]] = True
    return table


def cover(tokenizer: Tokenizer, blocks: Iterable[str]) -> Coverage:
    """Count the pieces and unknown characters in ``blocks``; special tokens are plain text here.

    Blocks end between words. Takes about 30 bytes of memory per character of the longest block.

    >>> tokenizer = Tokenizer(["[UNK]", "他", "说", "好", "a", "##b"])
    >>> found = cover(tokenizer, ["他说：“好”。他说“ab”"])
    >>> found.unknown, found.missing["“"], found.examples["”"]
    (6, 2, '他说：“好”。他说“ab”')
    """
    total = Coverage()
    for block in blocks:
        total += _cover(tokenizer, block)
    return total


def compare_coverage(old: Tokenizer, new: Tokenizer, blocks: Iterable[str]) -> dict[str, Any]:
    """Compare the coverage of two tokenizers on the same text.

    Returns:
        The text's ``characters``, and the figures of its Coverage ``before`` and ``after``.

    >>> pieces = ["[UNK]", "a", "##b"]
    >>> found = compare_coverage(Tokenizer(pieces), Tokenizer([*pieces, "好"]), ["好 ab"])
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
        characters=len(codes) - int(code_table("spaces")[codes].sum()),
        pieces=len(encoding),
        unknown=len(where),
        han=int(code_table("chinese")[codes].sum()),
        traditional=int(_traditional_table()[codes].sum()),
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
    """Return the characters that make a word [UNK], and True if its length does."""
    word = "".join(normalize(surface, tokenizer.options)[0]).strip()
    if len(word) > MAX_CHARACTERS_PER_WORD:
        return set(), True
    inside = {c for c in word[1:] if tokenizer.id_of(CONTINUATION + c) is None}
    first = {c for c in word[:1] if tokenizer.id_of(c) is None}
    return first | inside, False


def _context(text: str, start: int, end: int) -> str:
    """Return text[start:end] with its surroundings on the same line, for an example."""
    begin = max(0, start - _CONTEXT)
    before = text[begin:start].rpartition("\n")[2]
    # An unknown word may have any length; its example should not.
    after = text[start : min(end, start + 40) + _CONTEXT].partition("\n")[0]
    return (before + after).strip()


def advice(tokenizer: Tokenizer, found: Coverage) -> list[str]:
    """Return sentences that explain the counts and advise; empty if nothing is wrong."""
    found_by = (_dropped_characters, _quotes, _traditional, _other_characters, _long, _latin)
    return [line for say in found_by if (line := say(tokenizer, found))]


def missing_quotes(tokenizer: Tokenizer) -> list[str]:
    """Return the quotation marks and dashes of Chinese text that a vocabulary lacks."""
    return [c for c in QUOTES_AND_DASHES if tokenizer.id_of(c) is None]


def _dropped_characters(_: Tokenizer, found: Coverage) -> str | None:
    if not found.dropped:
        return None
    return f"{describe_dropped(found.dropped)}, as BERT does; none of them has a piece."


def _quotes(tokenizer: Tokenizer, found: Coverage) -> str | None:
    lacking = missing_quotes(tokenizer)
    if not lacking:
        return None
    count = sum(found.missing[c] for c in lacking)
    of_all = f", {count / found.unknown:.0%} of all [UNK]" if found.unknown and count else ""
    return (
        f"This vocabulary lacks {' '.join(lacking)}: {_occurrences(count)}{of_all}. The vocabulary "
        "shipped with zhbert ('default') has them; in your own, put them on rows that hold "
        "[unusedN]."
    )


def _traditional(_: Tokenizer, found: Coverage) -> str | None:
    missing = found.missing_traditional()
    if found.traditional_share < 0.01 or not missing:
        return None
    return (
        f"{found.traditional_share:.1%} of the Han characters are traditional, and "
        f"{len(missing):,} of those are missing ({' '.join(list(missing)[:10])}): "
        f"{_occurrences(found.traditional_unknown)}."
    )


def _other_characters(_: Tokenizer, found: Coverage) -> str | None:
    said = {*QUOTES_AND_DASHES, *found.missing_traditional()}
    others = [(c, n) for c, n in ranked(found.missing) if c not in said]
    count = sum(n for _, n in others)
    if not found.pieces or count / found.pieces < 0.001:
        return None
    return (
        f"{counted(len(others), 'other character', 'is/are')} missing, "
        f"{' '.join(c for c, _ in others[:10])} first: {_occurrences(count)}. A vocabulary "
        "trained on this text has them: zhbert vocab train."
    )


def _long(_: Tokenizer, found: Coverage) -> str | None:
    if found.too_long <= found.pieces / 10_000:
        return None
    return (
        f"{counted(found.too_long, 'word', 'is/are')} longer than {MAX_CHARACTERS_PER_WORD} "
        "characters: [UNK] whole in any BERT vocabulary: long URLs, encoded data, or text in a "
        "script without spaces."
    )


def _latin(_: Tokenizer, found: Coverage) -> str | None:
    share = found.latin_pieces / max(1, found.pieces)
    if share < 0.02 or found.latin_pieces_per_word < 2:
        return None
    return (
        f"Latin words fall into {found.latin_pieces_per_word:.1f} pieces each and make "
        f"{share:.1%} of the rows you train on; a vocabulary trained on this text keeps its words "
        "whole: zhbert vocab train."
    )


def _occurrences(count: int) -> str:
    return f"{counted(count, 'occurrence', 'becomes/become')} [UNK]"


def unreachable_rows(tokenizer: Tokenizer) -> int:
    """Count the rows ``##`` + Han character, which no text can use.

    Each Han character is a separate word, unless ``tokenize_chinese_chars`` is off.
    """
    if not tokenizer.options.tokenize_chinese_chars:
        return 0
    han = code_points().chinese
    return sum(
        piece.startswith(CONTINUATION) and not han.isdisjoint(piece)
        for piece in tokenizer.vocabulary
    )
