"""Vocabulary learning from text.

A vocabulary is a list of pieces in id order. A learnt one has this layout:

====================  =====================================================================
ids                   pieces
====================  =====================================================================
0                     ``[PAD]``
1 to 99               ``[unused1]`` to ``[unused99]``, free for a user's own symbols
100 to 103            ``[UNK]`` ``[CLS]`` ``[SEP]`` ``[MASK]``, as in Google's Chinese file
from 104              further special tokens, if any are given
then                  single characters by code point: ASCII, required, frequent in the text
then                  the ``##`` form of every character that can occur inside a word
then                  longer pieces in the order in which they were learnt
====================  =====================================================================

A Han character has no ``##`` form: the tokenizer makes each Han character a separate word, so no
text ever uses the 7,322 rows with ``##`` + Han of Google's file.
"""

from __future__ import annotations

import heapq
import itertools
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.text.character_sets import CHARACTER_SETS
from zhbert.text.extend_vocab import fold_counts
from zhbert.text.normalize import Options, code_point_table, code_points, normalized_words, ranges
from zhbert.text.sentences import codes_of
from zhbert.text.words import ranked

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNUSED = 99
DEFAULT_SIZE = 21_128


def _is_han(character: str) -> bool:
    return character in code_points().chinese


def _is_punctuation(character: str) -> bool:
    return character in code_points().punctuation


def bert_words(text: str) -> list[str]:
    """Cut a text into the words that BERT's uncased tokenizer cuts into pieces.

    >>> bert_words("Wi-Fi 6E的")
    ['wi', '-', 'fi', '6e', '的']
    """
    return normalized_words(text, Options())


@cache
def _spellings() -> Callable[[str], list[str]]:
    """Return a function that finds the text between spaces, punctuation and Han characters."""
    alone = (code_point_table()[name] for name in ("chinese", "punctuation", "spaces"))
    runs = (run for text in alone for run in ranges(text))
    inside = "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs)
    return re.compile(f"[^{inside}]+").findall


# --- counting -----------------------------------------------------------------------------------


@dataclass
class TextCounts:
    """Counts of each character and each word of a text, from which a vocabulary is learnt.

    Memory is bounded: characters take one table of 1.1 million counters, and at most ``max_words``
    distinct spellings of words (other than Han characters) are kept. Beyond that, the rarest are
    dropped: the lowest count first, all words of one count together, until at most half of
    ``max_words`` are left. ``pruned`` is the number of dropped occurrences.

    >>> counts = TextCounts()
    >>> counts.add(["BERT 模型的 vocabulary，是 BERT 的。"])
    >>> counts.han()["的"], counts.words()["bert"]
    (2, 2)
    """

    max_words: int = 500_000
    characters: int = 0
    pruned: int = 0
    _by_code: np.ndarray = field(
        default_factory=lambda: np.zeros(sys.maxunicode + 1, dtype=np.int64)
    )
    _spellings: Counter[str] = field(default_factory=Counter)

    # Texts are counted in blocks of this many characters, to spread the fixed cost of a call.
    _BLOCK = 1 << 20

    def add(self, texts: Iterable[str]) -> None:
        """Count ``texts``: lines, documents or blocks, which end between words."""
        block: list[str] = []
        size = 0
        for text in texts:
            block.append(text)
            size += len(text)
            if size >= self._BLOCK:
                self._add_block("\n".join(block))
                block.clear()
                size = 0
        if block:
            self._add_block("\n".join(block))

    def _add_block(self, text: str) -> None:
        codes = codes_of(text)
        self.characters += len(codes)
        found = np.bincount(codes)
        self._by_code[: len(found)] += found
        self._spellings.update(_spellings()(text))
        if len(self._spellings) > self.max_words:
            self._prune()

    def _prune(self) -> None:
        counts_of_counts = Counter(self._spellings.values())
        left = len(self._spellings)
        for count in sorted(counts_of_counts):
            if left <= self.max_words // 2:
                break
            left -= counts_of_counts[count]
            self.pruned += count * counts_of_counts[count]
            lowest = count
        self._spellings = Counter(
            {word: count for word, count in self._spellings.items() if count > lowest}
        )

    def han(self) -> Counter[str]:
        """Return the count of each Han character; compatibility forms count as the usual ones."""
        return self._singles(_is_han)

    def punctuation(self) -> Counter[str]:
        """Return the count of each punctuation character."""
        return self._singles(_is_punctuation)

    def _singles(self, wanted: Callable[[str], bool]) -> Counter[str]:
        found: Counter[str] = Counter()
        for code in np.flatnonzero(self._by_code):
            if wanted(chr(code)):
                for folded in bert_words(chr(code)):
                    found[folded] += int(self._by_code[code])
        return found

    def words(self) -> Counter[str]:
        """Return the count of each normalised word except Han characters and punctuation."""
        words = fold_counts(self._spellings, Options())
        return Counter({word: n for word, n in words.items() if not _is_punctuation(word[0])})


# --- learning -----------------------------------------------------------------------------------


def _symbols(word: str) -> list[str]:
    return [word[0], *(f"##{character}" for character in word[1:])]


def merge_pairs(words: Mapping[str, int], limit: int, *, min_frequency: int = 2) -> list[str]:
    """Learn up to ``limit`` word pieces of two characters or more by merging frequent pairs.

    Every word starts as single characters (``t``, ``##h``, ``##e``). The pair of neighbours that
    occurs most often over all words becomes a piece, repeatedly: byte pair encoding
    (https://arxiv.org/abs/1508.07909), as in the WordPiece trainer of ``tokenizers``. Ties go to
    the pair that was found first, so the result does not depend on the order of ``words``.

    Args:
        words: normalised words and their counts.
        limit: maximum number of pieces.
        min_frequency: pairs that occur less often are not merged.

    >>> merge_pairs({"the": 5, "then": 3, "ten": 2}, limit=2)
    ['##he', 'the']
    """
    pairs = _Pairs(words)
    learnt: list[str] = []
    while len(learnt) < limit and (pair := pairs.most_frequent(min_frequency)) is not None:
        piece = pairs.merge(pair)
        if piece is not None:
            learnt.append(piece)
    return learnt


class _Pairs:
    """Words as lists of symbols, with the count of each pair of neighbouring symbols."""

    def __init__(self, words: Mapping[str, int]) -> None:
        self._texts = sorted({symbol for word in words for symbol in _symbols(word)})
        self._ids = {text: number for number, text in enumerate(self._texts)}
        spelled = sorted(word for word in words if len(word) > 1)
        self._words = [[self._ids[symbol] for symbol in _symbols(word)] for word in spelled]
        self._word_counts = [words[word] for word in spelled]
        self._counts: defaultdict[tuple[int, int], int] = defaultdict(int)
        self._places: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
        for index, word in enumerate(self._words):
            for pair in itertools.pairwise(word):
                self._counts[pair] += self._word_counts[index]
                self._places[pair].add(index)
        self._heap = [(-count, pair) for pair, count in self._counts.items()]
        heapq.heapify(self._heap)

    def most_frequent(self, min_frequency: int) -> tuple[int, int] | None:
        """Return the most frequent pair; None if no pair occurs ``min_frequency`` times."""
        while self._heap:
            negative, pair = heapq.heappop(self._heap)
            count = self._counts[pair]
            if count == -negative:
                return pair if count >= min_frequency else None
            # This count is outdated: it fell after the push. (If a count rises, it is pushed anew.)
            if count > 0:
                heapq.heappush(self._heap, (-count, pair))
        return None

    def merge(self, pair: tuple[int, int]) -> str | None:
        """Merge a pair everywhere; return the new symbol's text, or None if it existed already."""
        left, right = pair
        text = self._texts[left] + self._texts[right].removeprefix("##")
        is_new = text not in self._ids
        if is_new:
            self._ids[text] = len(self._texts)
            self._texts.append(text)
        merged = self._ids[text]
        counts, places = self._counts, self._places
        risen: set[tuple[int, int]] = set()
        for index in places.pop(pair):
            word, count = self._words[index], self._word_counts[index]
            for old in itertools.pairwise(word):
                counts[old] -= count
            word = self._words[index] = _merge(word, left, right, merged)
            for new in itertools.pairwise(word):
                counts[new] += count
                places[new].add(index)
                if merged in new:
                    risen.add(new)
        del counts[pair]
        for new in risen:
            heapq.heappush(self._heap, (-counts[new], new))
        return text if is_new else None


def _merge(word: list[int], left: int, right: int, merged: int) -> list[int]:
    """Replace each ``left`` followed by ``right`` with ``merged`` in a word."""
    result: list[int] = []
    position = 0
    while position < len(word):
        if word[position] == left and position + 1 < len(word) and word[position + 1] == right:
            result.append(merged)
            position += 2
        else:
            result.append(word[position])
            position += 1
    return result


def longest_match(word: str, pieces: Container[str]) -> list[str]:
    """Cut a word as the tokenizer does: from left to right, always the longest piece that fits.

    Single characters always count as pieces.

    >>> longest_match("then", {"t", "the", "##n"})
    ['the', '##n']
    """
    found = []
    start = 0
    while start < len(word):
        prefix = "##" if start else ""
        end = len(word)
        while end > start + 1 and prefix + word[start:end] not in pieces:
            end -= 1
        found.append(prefix + word[start:end])
        start = end
    return found


def learn_pieces(words: Mapping[str, int], limit: int, *, min_frequency: int = 2) -> list[str]:
    """Learn up to ``limit`` word pieces of two characters or more that the tokenizer will use.

    Merging also yields intermediate pieces (``##ansform`` on the way to ``transform``) that longest
    match hardly ever uses. A piece that is used less than ``min_frequency`` times when ``words``
    are cut is replaced with the next one that was learnt.

    >>> learn_pieces({"the": 5, "then": 3, "ten": 2}, limit=2)
    ['the', 'then']
    """
    candidates = merge_pairs(words, 2 * limit, min_frequency=min_frequency)
    kept = candidates[:limit]
    taken = len(kept)
    while True:
        pieces = set(kept)
        used: Counter[str] = Counter()
        for word, count in words.items():
            for piece in longest_match(word, pieces):
                used[piece] += count
        kept = [piece for piece in kept if used[piece] >= min_frequency]
        more = candidates[taken : taken + limit - len(kept)]
        if not more:
            return kept
        kept += more
        taken += len(more)


@dataclass(frozen=True)
class LearntVocabulary:
    """A learnt vocabulary, with the number of rows of each kind of piece."""

    pieces: list[str]
    rows: dict[str, int]


def _special_rows(special_tokens: Sequence[str]) -> list[str]:
    unused = [f"[unused{number}]" for number in range(1, UNUSED + 1)]
    specials = ["[PAD]", *unused, *_SPECIAL_TOKENS[1:]]
    for token in special_tokens:
        if not token or token in specials or any(map(str.isspace, token)):
            raise ZhbertError(f"special token {token!r}: empty, with spaces, or there already")
        specials.append(token)
    return specials


def required_characters(characters: Iterable[str] = ()) -> set[str]:
    """Return printable ASCII and ``characters`` after BERT's uncased normalisation."""
    printable = map(chr, range(33, 127))
    return {c for text in (*printable, *characters) for c in "".join(bert_words(text))}


def rows_of(characters: Iterable[str]) -> int:
    """Count the rows that some characters take: two for a character with a ``##`` form.

    >>> rows_of("的，℃")
    4
    """
    return sum(2 if _has_continuation(character) else 1 for character in characters)


def default_character_sets(size: int) -> list[str]:
    """Return the names of CHARACTER_SETS that a vocabulary of ``size`` pieces has room for.

    Sets are taken in order as long as their characters fill at most half of the rows; the other
    half is for the pieces learnt from the text.

    >>> default_character_sets(21_128), default_character_sets(5000)
    (['quotes', 'gb2312', 'big5-1', 'letters'], ['quotes', 'letters'])
    """
    names: list[str] = []
    taken = required_characters()
    for name, characters in CHARACTER_SETS.items():
        with_these = taken | required_characters(characters())
        if UNUSED + len(_SPECIAL_TOKENS) + rows_of(with_these) <= size / 2:
            names.append(name)
            taken = with_these
    return names


def learn_vocabulary(
    counts: TextCounts,
    *,
    size: int = DEFAULT_SIZE,
    characters: Iterable[str] = (),
    min_frequency: int = 2,
    special_tokens: Sequence[str] = (),
) -> LearntVocabulary:
    """Learn a vocabulary of at most ``size`` pieces.

    It is filled in this order: the special tokens; printable ASCII, with the ``##`` forms of
    letters and digits, so that English and numbers are never [UNK]; ``characters``; every other
    character that occurs ``min_frequency`` times, the most frequent first; pieces of words.
    A character that is neither Han nor punctuation also gets its ``##`` form (``25℃``).

    Args:
        counts: the counted text.
        size: maximum number of pieces, including special tokens.
        characters: required characters; they are normalised like text.
        min_frequency: pieces that occur less often get no row.
        special_tokens: special tokens besides BERT's five.

    Raises:
        ZhbertError: ``size`` is too small for the required pieces, or a special token is empty,
            contains spaces, or has a row already.
    """
    specials = _special_rows(special_tokens)
    required = required_characters(characters)
    if clash := [token for token in special_tokens if token in required]:
        raise ZhbertError(f"special token {clash[0]!r}: a character, so it has a row already")
    fixed = len(specials) + rows_of(required)
    if fixed > size:
        raise ZhbertError(
            f"--size {size:,} is too small: special tokens, ASCII and the required characters take "
            f"{fixed:,} rows; raise --size or require less (--characters quotes)"
        )
    words = counts.words()
    seen = counts.han() + counts.punctuation()
    for word, count in words.items():
        for character in word:
            seen[character] += count
    others = Counter({c: n for c, n in seen.items() if c not in required and n >= min_frequency})
    chosen = required | _most_frequent(others, size - fixed)
    fixed = len(specials) + rows_of(chosen)
    learnt = learn_pieces(_words_of(words, chosen), size - fixed, min_frequency=min_frequency)
    inside = sorted(f"##{c}" for c in chosen if _has_continuation(c))
    return LearntVocabulary(
        [*specials, *sorted(chosen), *inside, *learnt],
        {
            "special": len(specials) - UNUSED,
            "unused": UNUSED,
            "han": sum(1 for c in chosen if _is_han(c)),
            "han_from_text": sum(1 for c in chosen - required if _is_han(c)),
            "other_characters": sum(1 for c in chosen if not _is_han(c)),
            "continued_characters": len(inside),
            "word_starts": sum(1 for piece in learnt if not piece.startswith("##")),
            "word_continuations": sum(1 for piece in learnt if piece.startswith("##")),
        },
    )


def _most_frequent(characters: Counter[str], rows: int) -> set[str]:
    """Return the most frequent characters, as many as fit into ``rows``."""
    chosen: set[str] = set()
    for character, _ in ranked(characters):
        rows -= rows_of([character])
        if rows < 0:
            break
        chosen.add(character)
    return chosen


def _words_of(words: Counter[str], characters: set[str]) -> dict[str, int]:
    """Return the words from which pieces can be learnt."""
    # A word with a character without a row is [UNK]. Symbols stay single: the frame of a table,
    # drawn with box characters, would be one long word, although it is no language.
    usable = {c for c in characters if unicodedata.category(c)[0] != "S"}
    return {word: count for word, count in words.items() if usable.issuperset(word)}


def _has_continuation(character: str) -> bool:
    return not _is_han(character) and not _is_punctuation(character)
