"""User dictionaries: files of words that a segmenter is to keep whole."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from zhbert.errors import ZhbertError
from zhbert.files import read_text
from zhbert.wording import counted


class UserWord(NamedTuple):
    """One line of a user dictionary."""

    word: str
    frequency: int | None
    tag: str | None

    @property
    def has_blank(self) -> bool:
        """True if a blank stands inside the word: libraries cut there, whatever they are told."""
        return any(map(str.isspace, self.word))

    @property
    def has_odd_tag(self) -> bool:
        """True if the tag is none of jieba's: perhaps it is the end of the word."""
        return self.tag is not None and _TAG.fullmatch(self.tag) is None


# jieba's own pattern (load_userdict in https://github.com/fxsjy/jieba): a word, which may hold
# blanks, a frequency, a tag.
_JIEBA_LINE = re.compile("(?P<word>.+?)( (?P<frequency>[0-9]+))?( (?P<tag>[a-z]+))?")
# The dictionaries of other tools hold words alone, but jieba's files are given to them too. So a
# frequency, which a tag may follow, or one of jieba's tags is no part of the word.
_TAG = re.compile(
    "a[dgn]?|b|c|d[fg]?|e(ng)?|f|g|h|i|j|k|l|m[gq]?|n[gstz]?|nr(fg|t)?|o|p|q|r[grz]?|s|tg?|"
    "u[dgjlvz]?|v[dginq]?|x|yg?|zg?"
)
_OTHER_LINE = re.compile(
    rf"(?P<word>.+?)( (?P<frequency>[0-9]+)( (?P<tag>[a-z]+))?| (?P<known>{_TAG.pattern}))?"
)
_LARGEST_FREQUENCY = 12  # digits


def read_user_words(path: Path, segmenter: str = "jieba") -> list[UserWord]:
    """Read a user dictionary, a word a line, as the segmenter's own library reads it.

    For jieba a line is the word, which may hold blanks, then perhaps a frequency, then perhaps a
    tag of small letters. For the others it is the word, with or without blanks; a frequency and a
    tag of jieba's behind it are recognised. For all of them, what stands behind a tab (pkuseg's
    form) is not the word. No line is a comment.

    Raises:
        ZhbertError: no such file, not UTF-8, or a frequency of more than 12 digits.
    """
    pattern = _JIEBA_LINE if segmenter == "jieba" else _OTHER_LINE
    words = []
    for number, line in enumerate(re.split("\r\n|\r|\n", read_text(path, "a user dictionary")), 1):
        word, *behind = (part.strip() for part in line.strip().split("\t"))
        if not word:
            continue
        if behind:
            frequency = next((part for part in behind if re.fullmatch("[0-9]+", part)), None)
            tag = next((part for part in behind if part and part != frequency), None)
        else:
            found = pattern.fullmatch(word)
            assert found is not None
            word, frequency = found["word"], found["frequency"]
            tag = found["tag"] or found.groupdict().get("known")
        if frequency is not None and len(frequency.lstrip("0")) > _LARGEST_FREQUENCY:
            raise ZhbertError(
                f"{path}:{number}: a frequency of more than {_LARGEST_FREQUENCY} digits: "
                f"{frequency[:20]}…"
            )
        words.append(UserWord(word, None if frequency is None else int(frequency), tag))
    return words


def describe_not_kept(
    file: Path, segmenter: str, cut: Sequence[str], words: int, why: str = ""
) -> str:
    """Return a remark on the words of a user dictionary that the segmenter cuts all the same."""
    return (
        f"{file}: {segmenter} does not keep {len(cut):,} of {counted(words, 'word')} whole{why}: "
        + ", ".join(cut[:5])
    )
