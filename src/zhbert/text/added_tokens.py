"""Added tokens: strings that are searched for in a text before it is cut into word pieces.

As in `tokenizers` (tokenizers/src/tokenizer/added_vocabulary.rs in
https://github.com/huggingface/tokenizers), tokens that are not ``normalized`` are searched for in
the original text; the others afterwards, in the normalised rest. Both searches take the leftmost
match and, of the tokens that match there, the longest.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.text.normalize import (
    ACCENT,
    HANGUL,
    MULTI,
    REMOVED,
    REORDER,
    SPACE,
    Options,
    code_points,
    code_table,
    normalize,
    normalized_words,
    rules,
)
from zhbert.text.sentences import text_of

SPECIAL_TOKENS: Mapping[str, str] = {
    "unk_token": "[UNK]",
    "sep_token": "[SEP]",
    "pad_token": "[PAD]",
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
}
"""BERT's special tokens by their Hugging Face names, in the order that transformers adds them."""

# The characters with Unicode's property White_Space.
WHITE_SPACE = (
    "\t\n\v\f\r \x85\xa0\u1680"
    + "".join(map(chr, range(0x2000, 0x200B)))
    + ("\u2028\u2029\u202f\u205f\u3000")
)


@dataclass(frozen=True)
class AddedToken:
    """A token and the rules for finding it in a text; the fields have Hugging Face's names.

    Args:
        content: the string to search for.
        special: it is a special token: not searched for if special tokens are plain text.
        normalized: search for its normalised form in the normalised text.
        single_word: it matches only if no letter, mark or digit is next to it.
        lstrip: white space before it is part of the match.
        rstrip: white space after it is part of the match.
    """

    content: str
    special: bool = False
    normalized: bool = True
    single_word: bool = False
    lstrip: bool = False
    rstrip: bool = False

    @property
    def is_plain(self) -> bool:
        """True for a special token with no other flag, like [CLS] and [MASK]."""
        flags = (self.normalized, self.single_word, self.lstrip, self.rstrip)
        return self.special and not any(flags)


# The keys of an added token in tokenizer.json, in their order there.
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")


def reachable(token: str, options: Options) -> bool:
    """Return True if some text would be cut into ``token`` if it were a word piece.

    >>> [reachable(token, Options()) for token in ("[MASK]", "「", "covid", "COVID", "新冠", "##a")]
    [False, True, True, False, False, True]
    """
    inside = token.startswith("##") and len(token) > 2
    return inside or normalized_words(token, options) == [token]


def parse_token(value: Any, where: str) -> AddedToken:
    """Parse an added token from JSON: a string (a special token) or an object with flags."""
    if isinstance(value, str):
        return AddedToken(value, special=True, normalized=False)
    if not isinstance(value, dict) or not isinstance(value.get("content"), str):
        raise ZhbertError(f"{where}: a token is expected, not {value!r}")
    special = bool(value.get("special"))
    flags = {name: value.get(name, False) for name in FLAGS[:3]}
    flags["normalized"] = value.get("normalized", not special)
    if odd := [name for name, flag in flags.items() if not isinstance(flag, bool)]:
        raise ZhbertError(
            f"{where}: {value['content']!r}: {odd[0]} must be true or false, not {flags[odd[0]]!r}"
        )
    return AddedToken(value["content"], special=special, **flags)


def parse_tokens_by_id(values: Any, where: str) -> dict[int, AddedToken]:
    """Parse added tokens by id, from a list of objects with an id or from an object id -> token."""
    pairs: list[tuple[Any, Any]] = []
    if isinstance(values, dict):
        pairs = list(values.items())
    elif isinstance(values, list) and all(isinstance(value, dict) for value in values):
        pairs = [(value.get("id"), value) for value in values]
    else:
        raise ZhbertError(f"{where}: tokens and their ids are expected, not {values!r:.40}")
    found: dict[int, AddedToken] = {}
    for key, value in pairs:
        token = AddedToken(value) if isinstance(value, str) else parse_token(value, where)
        if not re.fullmatch("[0-9]{1,9}", str(key)):
            raise ZhbertError(
                f"{where}: {token.content!r} has the id {key!r}; a number is expected"
            )
        if any(token.content == other.content for other in found.values()):
            raise ZhbertError(f"{where}: {token.content!r} has two ids; which counts is not known")
        if int(key) in found:
            raise ZhbertError(
                f"{where}: {found[int(key)].content!r} and {token.content!r} share the id {key}"
            )
        found[int(key)] = token
    return found


# A part of a text: its token id (None for text between tokens), its start and its end.
Part = tuple[int | None, int, int]


class _Finder:
    """A search for tokens in a text: the leftmost match and, of several there, the longest."""

    def __init__(self, patterns: Mapping[str, tuple[AddedToken, int]], special: set[str]) -> None:
        self._patterns = patterns
        self._special = special
        longest_first = sorted(patterns, key=len, reverse=True)
        self.search = re.compile("|".join(map(re.escape, longest_first))) if patterns else None

    def split(self, text: str, special_tokens: bool) -> Iterator[Part]:
        """Cut ``text`` into non-empty parts that cover it."""
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
            # As in `tokenizers`, a token that begins with white space may overlap the previous
            # token if that one includes the same white space.
            done = end
        if done < len(text):
            yield None, done, len(text)


def _stands_alone(text: str, start: int, end: int) -> bool:
    """Return True if no letter, mark or digit is next to text[start:end]."""
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
        # If two tokens are equal after normalisation, the first is kept, special tokens first.
        for token in sorted(ids, key=lambda token: not token.special):
            if token.normalized:
                characters, _ = normalize(token.content, options)
                folded.setdefault("".join(characters), (token, ids[token]))
            else:
                exact[token.content] = token, ids[token]
        self._exact = _Finder(exact, special)
        self._folded = _Finder(folded, special)

    def split(self, text: str, special_tokens: bool) -> Iterator[Part]:
        """Cut a text into the tokens found before normalisation and the text between them."""
        return self._exact.split(text, special_tokens)

    def split_normalized(self, text: str, special_tokens: bool) -> Iterator[Part]:
        """Cut a normalised text into the tokens found in it and the text between them."""
        return self._folded.split(text, special_tokens)

    def touched(self, codes: NDArray[np.uint32], ends: NDArray[np.integer]) -> NDArray[np.bool_]:
        """Return which texts may contain a token: (texts,) bool, with some false positives.

        ``codes``: the code points of all texts, concatenated; ``ends``: the end of each text.
        """
        found = np.zeros(len(ends), np.bool_)

        def mark(first: NDArray[np.int64], last: NDArray[np.int64]) -> None:
            # Mark every text that a match overlaps: a match across a boundary may hide another.
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
    """Return the start and end of each match of a pattern: (matches, 2) int64."""
    spans = [match.span() for match in pattern.finditer(text_of(codes))]
    return np.array(spans, np.int64).reshape(-1, 2)


@lru_cache(maxsize=16)
def _changes(options: Options) -> NDArray[np.uint32]:
    """Return what each code point becomes if it becomes one code point: (0x110000,) uint32."""
    table = rules(options)
    becomes = np.arange(len(table.kinds), dtype=np.uint32)
    keys, starts, values = table.changes
    single = np.diff(starts) == 1
    becomes[keys[single]] = values[starts[:-1][single]]
    becomes[table.kinds == SPACE] = ord(" ")
    return becomes


def fold(
    codes: NDArray[np.uint32], options: Options
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """Normalise many characters at once with numpy, like `normalize`, except the odd ones.

    Odd characters become several characters, or change depending on their neighbours.

    Returns:
        The normalised code points; the index in ``codes`` that each came from; and the indices
        of the odd characters, which are not normalised.
    """
    kinds = rules(options).kinds[codes]
    odd = np.flatnonzero(np.isin(kinds, (REORDER, MULTI, HANGUL)))
    kept = np.flatnonzero((kinds != REMOVED) & (kinds != ACCENT))
    codes = codes[kept]
    folded = _changes(options)[codes]
    if not options.tokenize_chinese_chars:
        return folded, kept, odd
    spaced = code_table("chinese")[codes]
    sizes = np.where(spaced, 3, 1)
    spread = np.full(sizes.sum(), ord(" "), np.uint32)
    spread[np.cumsum(sizes) - 1 - spaced] = folded
    return spread, np.repeat(kept, sizes), odd
