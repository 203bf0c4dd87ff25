"""Learning a vocabulary from text.

A vocabulary is the list of pieces in id order. A learnt one is laid out in this order:

====================  =====================================================================
ids                   pieces
====================  =====================================================================
0                     ``[PAD]``
1 to 99               ``[unused1]`` to ``[unused99]``, free for a user's own symbols
100 to 103            ``[UNK]`` ``[CLS]`` ``[SEP]`` ``[MASK]``: where Google's Chinese file has them
from 104              further special tokens, if asked for
then                  single characters by code point: ASCII, required, frequent in the text
then                  the ``##`` form of every character that can stand inside a word
then                  longer pieces in the order in which they were learnt
====================  =====================================================================

A Han character has no ``##`` form: the tokenizer makes each Han character a word of its own, so no
text leads to the 7,322 rows that Google's file spends on ``##`` + Han.
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
from zhbert.text.normalize import Options, code_points, normalized_words
from zhbert.text.sentences import codes_of
from zhbert.text.wordpiece import MAX_CHARACTERS_PER_WORD
from zhbert.text.words import ranked

_SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNUSED = 99
DEFAULT_SIZE = 21_128


def _is_han(character: str) -> bool:
    return character in code_points().chinese


def _is_punctuation(character: str) -> bool:
    return character in code_points().punctuation


def bert_words(text: str) -> list[str]:
    """The words that BERT's uncased tokenizer cuts into pieces.

    >>> bert_words("Wi-Fi 6E的")
    ['wi', '-', 'fi', '6e', '的']
    """
    return normalized_words(text, Options())


@cache
def _spellings() -> Callable[[str], list[str]]:
    """A function that finds the runs of text between spaces, punctuation and Han characters."""
    points = code_points()
    alone = points.chinese | points.punctuation | points.spaces
    return re.compile(f"[^{_character_class(alone)}]+").findall


def _character_class(characters: Iterable[str]) -> str:
    """What stands between the brackets of a regex's character class, with ranges for runs."""
    runs: list[list[int]] = []
    for code in sorted(map(ord, characters)):
        if runs and runs[-1][1] == code - 1:
            runs[-1][1] = code
        else:
            runs.append([code, code])
    return "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in runs)


# --- counting -----------------------------------------------------------------------------------


@dataclass
class TextCounts:
    """How often each character and each word of a text occurs: all that learning needs to know.

    Memory is bounded: characters take one table of 1.1 million counters, and of words (Han
    characters apart) at most ``max_words`` distinct spellings are held. When there are more, the
    rarest are forgotten: the lowest count first, all words of one count together, until at most
    half of ``max_words`` are left. ``pruned`` is how many occurrences were forgotten.

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

    # A call costs something of its own, so texts are counted in blocks of this many characters.
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
        """Occurrences of each Han character; compatibility forms count as the usual ones."""
        return self._singles(_is_han)

    def punctuation(self) -> Counter[str]:
        """Occurrences of each punctuation character."""
        return self._singles(_is_punctuation)

    def _singles(self, wanted: Callable[[str], bool]) -> Counter[str]:
        found: Counter[str] = Counter()
        for code in np.flatnonzero(self._by_code):
            if wanted(chr(code)):
                for folded in bert_words(chr(code)):
                    found[folded] += int(self._by_code[code])
        return found

    def words(self) -> Counter[str]:
        """Occurrences of each word that is neither a Han character nor punctuation, folded."""
        found: Counter[str] = Counter()
        for spelling, count in self._spellings.items():
            for word in bert_words(spelling):
                if len(word) <= MAX_CHARACTERS_PER_WORD and not _is_punctuation(word[0]):
                    found[word] += count
        return found


# --- learning -----------------------------------------------------------------------------------


def _symbols(word: str) -> list[str]:
    return [word[0], *(f"##{character}" for character in word[1:])]


def merge_pairs(words: Mapping[str, int], limit: int, *, min_frequency: int = 2) -> list[str]:
    """Learn up to ``limit`` word pieces of two characters or more by merging frequent pairs.

    Every word starts as single characters (``t``, ``##h``, ``##e``). The pair of neighbours that
    occurs most often over all words becomes a piece, again and again: byte pair encoding
    (https://arxiv.org/abs/1508.07909), as the WordPiece trainer of ``tokenizers`` does it. Ties
    go to the pair that was known first, so the result depends on ``words``, not on their order.

    Args:
        words: folded words and their counts.
        limit: how many pieces to learn at most.
        min_frequency: a pair that occurs less often is not merged.

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
    """Words as lists of symbols, and how often each two symbols are neighbours in them."""

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
        """The pair that occurs most often; None if none occurs ``min_frequency`` times."""
        while self._heap:
            negative, pair = heapq.heappop(self._heap)
            count = self._counts[pair]
            if count == -negative:
                return pair if count >= min_frequency else None
            # An old count: counts fall while a pair waits. (Where one rises, it is pushed anew.)
            if count > 0:
                heapq.heappush(self._heap, (-count, pair))
        return None

    def merge(self, pair: tuple[int, int]) -> str | None:
        """Make one symbol of a pair everywhere; return its text, None if that was known already."""
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
    """The word with ``merged`` wherever ``right`` follows ``left``."""
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
    """Cut a word as the tokenizer does: from the left, always the longest piece that fits.

    Single characters are taken to be pieces in any case.

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

    Merging leaves its intermediate steps behind (``##ansform`` on the way to ``transform``), which
    longest match hardly ever uses. A piece that is used less than ``min_frequency`` times when
    ``words`` are cut is dropped, and the next one that was learnt takes its row.

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
    """A learnt vocabulary, and how many of its rows each kind of piece takes."""

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
    """Printable ASCII and ``characters``, all as BERT's uncased normalisation leaves them."""
    printable = map(chr, range(33, 127))
    return {c for text in (*printable, *characters) for c in "".join(bert_words(text))}


def rows_of(characters: Iterable[str]) -> int:
    """How many rows some characters take: two if a character has a ``##`` form.

    >>> rows_of("的，℃")
    4
    """
    return sum(2 if _has_continuation(character) else 1 for character in characters)


def default_character_sets(size: int) -> list[str]:
    """The names of CHARACTER_SETS that a vocabulary of ``size`` pieces has room for.

    Sets are taken in their order as long as all characters taken fill at most half of the rows;
    the other half is for what the text holds.

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

    In this order, until it is full: the special tokens; printable ASCII, letters and digits in
    their ``##`` form too, so that English and numbers are never [UNK]; ``characters``; every
    other character that occurs ``min_frequency`` times, the most frequent first; pieces of words.
    A character that is neither Han nor punctuation comes with its ``##`` form (``25℃``).

    Args:
        counts: the counted text.
        size: how many pieces to learn at most, special tokens among them.
        characters: characters that must be there; they are folded as text is.
        min_frequency: what occurs less often gets no row.
        special_tokens: special tokens besides BERT's five.

    Raises:
        ZhbertError: ``size`` is too small for what must be there, or a special token is empty,
            holds spaces, or has a row already.
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
    """The most frequent characters, as many as fit into ``rows``."""
    chosen: set[str] = set()
    for character, _ in ranked(characters):
        rows -= rows_of([character])
        if rows < 0:
            break
        chosen.add(character)
    return chosen


def _words_of(words: Counter[str], characters: set[str]) -> dict[str, int]:
    """The words of which pieces can be learnt."""
    # A word with a character that has no row is [UNK] as a whole. And symbols stay single: a
    # table's frame of box-drawing characters would be one long word, but is no language.
    usable = {c for c in characters if unicodedata.category(c)[0] != "S"}
    return {word: count for word, count in words.items() if usable.issuperset(word)}


def _has_continuation(character: str) -> bool:
    return not _is_han(character) and not _is_punctuation(character)
