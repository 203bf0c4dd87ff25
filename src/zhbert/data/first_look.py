"""A first look at a text, before work begins on it: can it be read, is it Chinese, is it enough?"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from zhbert.data.documents import Place, outline, read_blocks
from zhbert.data.reading import Reading
from zhbert.data.sources import find_sources
from zhbert.data.texts import refusal
from zhbert.errors import ZhbertError
from zhbert.text.coverage import Coverage, cover, ranked
from zhbert.text.tokenizer import Tokenizer
from zhbert.wording import counted, listed

# So much is looked at, in bytes: of a larger text the rest is like its beginning, or not found out.
LOOKED_AT = 4 << 20
# Less leaves nothing to measure on: a tenth of it, of which 15 % are masked.
LEAST_HAN = 1_000
# More than this share of the lines must be readable; less than that of the characters may be kana
# or pieces be unknown; and of the characters this share is Han, or the text is not Chinese.
_READABLE, _KANA, _UNKNOWN, _HAN = 0.95, 0.05, 0.1, 0.2
# A sentence that is shown has so many characters, of which most are Han.
_SHOWN = re.compile("[\u4e00-\u9fff，、]{10,30}[。！？]")
_kana = re.compile("[\u3041-\u30ff]")


@dataclass(frozen=True)
class FirstLook:
    """A text's beginning, of whole lines, and what a vocabulary makes of it."""

    names: tuple[str, ...]
    """The files, as they were named."""
    text: str
    lines: int
    whole: bool
    """The text ends here."""
    coverage: Coverage

    @property
    def sentence(self) -> str:
        """A sentence of the text that is short enough to be shown."""
        found = _SHOWN.search(self.text)
        line = next(line.strip() for line in self.text.splitlines() if line.strip())
        return found[0] if found else line[:30]

    def notes(self) -> list[str]:
        """What to know of a text that is fit."""
        share = self.coverage.unknown_share
        return [f"{share:.1%} of the pieces are [UNK] ({self._missing()})"] if share > 0.005 else []

    def check(self, way_out: str) -> None:
        """Refuse a text that is not Chinese, too short, or not covered by the vocabulary.

        ``way_out`` is what to do about a vocabulary that lacks much.

        Raises:
            ZhbertError: one line that says what it is and what to give instead.
        """
        where, found = listed(self.names), self.coverage
        characters = max(1, found.characters)
        kana, han = len(_kana.findall(self.text)) / characters, found.han / characters
        if kana > _KANA:
            raise ZhbertError(
                f"{where}: Japanese, not Chinese: {kana:.0%} of its characters are kana; give "
                "Chinese text"
            )
        if han < _HAN:
            raise ZhbertError(
                f"{where}: not Chinese: {han:.1%} of its {characters:,} characters are Han "
                f"characters (it begins: {self.text.strip()[:20]}); give Chinese text"
            )
        if self.whole and found.han < LEAST_HAN:
            raise ZhbertError(
                f"{where}: too short: {counted(found.han, 'Han character')} in "
                f"{counted(self.lines, 'line')}, and a part is set aside to measure on; give at "
                f"least {LEAST_HAN:,}, some fifty lines"
            )
        if found.unknown_share > _UNKNOWN:
            raise ZhbertError(
                f"{where}: {found.unknown_share:.0%} of its pieces would be [UNK]: the vocabulary "
                f"lacks {counted(len(found.missing), 'of its character')} ({self._missing()}); "
                f"{way_out}"
            )

    def _missing(self) -> str:
        return " ".join(character for character, _ in ranked(self.coverage.missing)[:5])


def first_look(names: Iterable[str | Path], reading: Reading, tokenizer: Tokenizer) -> FirstLook:
    """Read the beginning of files and folders.

    Raises:
        ZhbertError: a file is missing, or there is no text in any, or much of it cannot be decoded.
    """
    named = tuple(map(str, names))
    if "-" in named:
        raise ZhbertError("-: stdin cannot be read twice; write the text to a file and name that")
    reading = replace(reading, documents="line", block_bytes=LOOKED_AT // 4)
    sources = find_sources(named)
    parts: list[str] = []
    troubles: list[Place] = []
    lines = broken = 0
    whole = True
    for block in read_blocks(sources, reading):
        content = outline(block, reading)
        troubles += (place for place in (*block.places, *content.places) if place.error)
        parts.append(content.text)
        lines += content.counts["lines.found"] - content.counts["lines.blank"]
        broken += content.counts["lines.broken_utf8"]
        if whole := sum(map(len, parts)) < LOOKED_AT // 3:
            continue
        break
    text = "\n".join(parts)
    if not text.strip() or broken > (1 - _READABLE) * lines:
        if troubles:
            raise refusal(troubles[0], reading)
        raise ZhbertError(f"{listed(named)}: no text: only blanks, or nothing at all")
    return FirstLook(named, text, lines, whole, cover(tokenizer, parts))
