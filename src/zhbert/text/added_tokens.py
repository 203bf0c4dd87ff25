"""Added tokens: strings that are found in a text before it is cut into word pieces.

They are `tokenizers`' (AddedToken; tokenizers/src/tokenizer/added_vocabulary.rs in
https://github.com/huggingface/tokenizers): those that are not ``normalized`` are found in the text
as it stands, the others afterwards, in what normalisation made of the rest. In both passes the
leftmost is taken, and there the longest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from zhbert.text.normalize import (
    ACCENT,
    HANGUL,
    MULTI,
    REMOVED,
    REORDER,
    SPACE,
    Options,
    code_points,
    normalize,
    normalized_words,
    rules,
)
from zhbert.text.sentences import text_of

# Unicode's White_Space.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + ("\u2028\u2029\u202f\u205f\u3000")
)


@dataclass(frozen=True)
class AddedToken:
    """A token and how it is found in a text.

    ``normalized``: in the normalised text. ``single_word``: only where no letter, mark or digit
    stands beside it. ``lstrip`` and ``rstrip``: white space beside it belongs to it. ``special``:
    plain text where special tokens are plain text.
    """

    content: str
    special: bool = False
    normalized: bool = True
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it is a special token that is found as it stands, as [CLS] and [MASK] are."""
        flags = (self.normalized, self.single_word, self.lstrip, self.rstrip)
        return self.special and not any(flags)


def reachable(token: str, options: Options) -> bool:
    """Whether word pieces could lead to ``token``, were it a piece like others.

    >>> [reachable(token, Options()) for token in ("[MASK]", "「", "covid", "COVID", "新冠", "##a")]
    [False, True, True, False, False, True]
    """
    inside = token.startswith("##") and len(token) > 2
    return inside or normalized_words(token, options) == [token]


# A part of a text: a token's number, or None for what lies between tokens; where it begins and
# ends.
Part = tuple[int | None, int, int]


class _Finder:
    """Finds tokens in a text: the leftmost, and there the longest."""

    def __init__(self, patterns: Mapping[str, tuple[AddedToken, int]], special: set[str]) -> None:
        self._patterns = patterns
        self._special = special
        longest_first = sorted(patterns, key=len, reverse=True)
        self.search = re.compile("|".join(map(re.escape, longest_first))) if patterns else None

    def split(self, text: str, special_tokens: bool) -> Iterator[Part]:
        """All of ``text`` in parts, none of them empty."""
        done = 0
        for match in self.search.finditer(text) if self.search else ():
            token, number = self._patterns[match[0]]
            start, end = match.span()
            if not special_tokens and token.content in self._special:
                continue
            if token.single_word and not _stands_alone(text, start, end):
                continue
            while token.lstrip and start > done and text[start - 1] in WHITE_SPACE:
                start -= 1
            while token.rstrip and end < len(text) and text[end] in WHITE_SPACE:
                end += 1
            if token.lstrip:
                start = max(done, start)
            if done < start:
                yield None, done, start
            yield number, start, end
            # A token that begins with the white space before it overlaps it, as in `tokenizers`.
            done = end
        if done < len(text):
            yield None, done, len(text)


def _stands_alone(text: str, start: int, end: int) -> bool:
    letters = code_points().letters
    before, after = text[start - 1 : start], text[end : end + 1]
    return before not in letters and after not in letters


class AddedTokens:
    """The added tokens of a tokenizer and their ids, in the order in which they were added.

    >>> ids = {AddedToken("新冠"): 7, AddedToken("Ab", normalized=False): 8}
    >>> tokens = AddedTokens(ids, Options())
    >>> list(tokens.split("xAbx新冠", special_tokens=True))
    [(None, 0, 1), (8, 1, 3), (None, 3, 6)]
    >>> list(tokens.split_normalized(" 新  冠 ", special_tokens=True))
    [(7, 0, 6)]
    """

    def __init__(self, ids: Mapping[AddedToken, int], options: Options) -> None:
        self.ids = dict(ids)
        self.is_plain = all(token.is_plain for token in ids)
        self._options = options
        special = {token.content for token in ids if token.special}
        exact: dict[str, tuple[AddedToken, int]] = {}
        folded: dict[str, tuple[AddedToken, int]] = {}
        # Of two that normalisation makes equal the first counts, special tokens before the others.
        for token in sorted(ids, key=lambda token: not token.special):
            if token.normalized:
                characters, _ = normalize(token.content, options)
                folded.setdefault("".join(characters), (token, ids[token]))
            else:
                exact[token.content] = token, ids[token]
        self._exact = _Finder(exact, special)
        self._folded = _Finder(folded, special)

    def split(self, text: str, special_tokens: bool) -> Iterator[Part]:
        """A text in parts: the tokens that are found in it as it stands, and what lies between."""
        return self._exact.split(text, special_tokens)

    def split_normalized(self, text: str, special_tokens: bool) -> Iterator[Part]:
        """The same of a normalised text and the tokens that are looked for there."""
        return self._folded.split(text, special_tokens)

    def touched(self, codes: NDArray[np.uint32], ends: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Which of several texts may hold a token: (texts,) bool, never False where one does.

        ``codes``: the texts' code points, one text after another; ``ends``: where each ends.
        """
        found = np.zeros(len(ends), np.bool_)

        def mark(first: NDArray[np.int64], last: NDArray[np.int64]) -> None:
            # A match across the end of a text may hide one of either side.
            steps = np.zeros(len(ends) + 2, np.int64)
            np.add.at(steps, np.searchsorted(ends, first, "right"), 1)
            np.add.at(steps, np.searchsorted(ends, last, "right") + 1, -1)
            found[np.cumsum(steps)[: len(ends)] > 0] = True

        if self._exact.search:
            spans = _spans(self._exact.search, codes)
            mark(spans[:, 0], spans[:, 1] - 1)
        if self._folded.search:
            folded, origins, odd = fold(codes, self._options)
            mark(odd, odd)
            spans = _spans(self._folded.search, folded)
            mark(origins[spans[:, 0]], origins[spans[:, 1] - 1])
        return found


def _spans(pattern: re.Pattern[str], codes: NDArray[np.uint32]) -> NDArray[np.int64]:
    """Where a pattern is found: (matches, 2)."""
    spans = [match.span() for match in pattern.finditer(text_of(codes))]
    return np.array(spans, np.int64).reshape(-1, 2)


@lru_cache(maxsize=16)
def _changes(options: Options) -> NDArray[np.uint32]:
    """(0x110000,) uint32: what one code point becomes where it becomes one."""
    table = rules(options)
    becomes = np.arange(len(table.kinds), dtype=np.uint32)
    keys, starts, values = table.changes
    single = np.diff(starts) == 1
    becomes[keys[single]] = values[starts[:-1][single]]
    becomes[table.kinds == SPACE] = ord(" ")
    return becomes


@lru_cache(maxsize=1)
def _chinese() -> NDArray[np.bool_]:
    found = np.zeros(0x110000, np.bool_)
    found[[ord(character) for character in code_points().chinese]] = True
    return found


def fold(
    codes: NDArray[np.uint32], options: Options
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """`normalize` of many characters at once, but for the odd ones among them.

    Returns the code points, whence each came, and the places of the odd ones: those that become
    several or change with their neighbours.
    """
    kinds = rules(options).kinds[codes]
    odd = np.flatnonzero(np.isin(kinds, (REORDER, MULTI, HANGUL)))
    kept = np.flatnonzero((kinds != REMOVED) & (kinds != ACCENT))
    codes = codes[kept]
    folded = _changes(options)[codes]
    if not options.tokenize_chinese_chars:
        return folded, kept, odd
    spaced = _chinese()[codes]
    sizes = np.where(spaced, 3, 1)
    spread = np.full(sizes.sum(), ord(" "), np.uint32)
    spread[np.cumsum(sizes) - 1 - spaced] = folded
    return spread, np.repeat(kept, sizes), odd
