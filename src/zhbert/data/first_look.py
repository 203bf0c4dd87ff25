"""Checks of the beginning of a text before training: is it readable, Chinese and long enough?"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from zhbert.data.blocks import Place, read_blocks
from zhbert.data.outline import outline
from zhbert.data.read_options import ReadOptions
from zhbert.data.sources import find_sources
from zhbert.data.texts import refusal
from zhbert.errors import ZhbertError
from zhbert.text.coverage import cover
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.words import ranked
from zhbert.wording import counted

# Bytes of the text that are checked; the rest is assumed to be similar.
LOOKED_AT = 4 << 20
# With less, evaluation has too little text: a tenth is held out, and 15 % of that is masked.
LEAST_HAN, LEAST_SENTENCES = 1_000, 20
# The text is refused if less than this share of its lines can be decoded, ...
_READABLE = 0.95
# ... if more than this share of its characters is kana, or less than this share is Han, ...
_KANA, _HAN = 0.05, 0.2
# ... or if more than this share of its pieces would be [UNK].
_UNKNOWN = 0.1
# From this share of [UNK] on, there is a remark.
_NOTED = 0.005
# A whole sentence of Han characters and commas that is short enough to be shown.
_SHOWN = re.compile("(?:^|[。！？])([\u4e00-\u9fff，、]{10,30}[。！？])", re.MULTILINE)
_han, _kana, _blank = (
    re.compile(characters).findall
    for characters in ("[\u3400-\u9fff\U00020000-\U0003ffff]", "[\u3041-\u30ff]", r"\s")
)


@dataclass(frozen=True)
class FirstLook:
    """The beginning of a Chinese text."""

    names: tuple[str, ...]
    """the files as given"""
    text: str
    sentences: int
    whole: bool
    """True if this is the whole text"""

    @property
    def sentence(self) -> str:
        """A sentence of the text that is short enough to show."""
        if found := _SHOWN.search(self.text):
            return found[1]
        return next(line.strip() for line in self.text.splitlines() if line.strip())[:30]

    def check_vocabulary(self, tokenizer: Tokenizer, way_out: str) -> list[str]:
        """Raise an error if the vocabulary does not cover the text; return remarks otherwise.

        Args:
            tokenizer: the vocabulary's tokenizer.
            way_out: advice for the user, for the error.

        Raises:
            ZhbertError: more than a tenth of the pieces would be [UNK].
        """
        found = cover(tokenizer, [self.text])
        unknown, lacking = found.unknown_share, ranked(found.missing)
        shown = " ".join(character for character, _ in lacking[:5])
        said = (
            f"{unknown:.1%} of the pieces would be [UNK]: the vocabulary lacks "
            f"{counted(len(lacking), 'character')} ({shown})"
        )
        if unknown > _UNKNOWN:
            raise ZhbertError(f"{_where(self.names)}: {said}; {way_out}")
        return [said] if unknown > _NOTED else []

    def _check(self) -> None:
        where, characters = _where(self.names), len(self.text) - len(_blank(self.text))
        han, kana = len(_han(self.text)), len(_kana(self.text))
        if kana > _KANA * characters:
            raise ZhbertError(
                f"{where}: Japanese, not Chinese: {kana / characters:.0%} of its characters are "
                "kana; give Chinese text"
            )
        if han < _HAN * characters:
            raise ZhbertError(
                f"{where}: not Chinese: {han:,} of its {characters:,} characters are Han "
                f"characters (it begins: {self.text.strip()[:20]}); give Chinese text"
            )
        if self.whole and (han < LEAST_HAN or self.sentences < LEAST_SENTENCES):
            raise ZhbertError(
                f"{where}: too short: {counted(han, 'Han character')} in "
                f"{counted(self.sentences, 'sentence')}, and a part is set aside to measure on; "
                f"give at least {LEAST_HAN:,} in {LEAST_SENTENCES}"
            )


def first_look(names: Iterable[str | Path], reading: ReadOptions) -> FirstLook:
    """Read and check the beginning of files and folders.

    Raises:
        ZhbertError: a file is missing, there is no text, much of it cannot be decoded, or it is
            not Chinese or too short.
    """
    named = tuple(map(str, names))
    if "-" in named:
        raise ZhbertError("-: stdin cannot be read twice; write the text to a file and name that")
    reading = replace(reading, documents="line", block_bytes=LOOKED_AT // 4)
    parts: list[str] = []
    troubles: list[Place] = []
    counts: Counter[str] = Counter()
    read = sentences = 0
    for block in read_blocks(find_sources(named), reading):
        if read >= LOOKED_AT:
            break
        content = outline(block, reading)
        troubles += (place for place in (*block.places, *content.places) if place.error)
        counts.update(content.counts)
        parts.append(content.text)
        sentences += len(content.sentences.ends)
        read += block.size
    text = "\n".join(parts)
    lines = counts["lines.found"] - counts["lines.blank"]
    if not text.strip() or counts["lines.broken_utf8"] > (1 - _READABLE) * lines:
        if troubles:
            raise refusal(troubles[0], reading)
        raise ZhbertError(f"{_where(named)}: no text: only blanks, or nothing at all")
    look = FirstLook(named, text, sentences, read < LOOKED_AT)
    look._check()
    return look


def _where(names: Sequence[str]) -> str:
    return names[0] + (f" and {len(names) - 1} more" if len(names) > 1 else "")
