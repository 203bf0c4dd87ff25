"""Vocabularies: what one must hold, and learning one from text.

A vocabulary is the list of pieces in id order. Ours is laid out in this order:

====================  =====================================================================
ids                   pieces
====================  =====================================================================
0                     ``[PAD]``
1 to 99               ``[unused1]`` to ``[unused99]``, free for a user's own symbols
100 to 103            ``[UNK]`` ``[CLS]`` ``[SEP]`` ``[MASK]``: where Google's Chinese file has them
from 104              further special tokens, when asked for
then                  single characters by code point: ASCII, required, frequent in the text
then                  the ``##`` form of every character that can stand inside a word
then                  longer pieces in the order in which they were learnt
====================  =====================================================================

A Han character has no ``##`` form: the tokenizer makes every Han character a word of its own, so
the 7,322 rows that Google's file spends on ``##`` + Han can never be reached.
"""

from __future__ import annotations

import heapq
import itertools
import re
import sys
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.text.normalize import Options, code_points, normalized_words
from zhbert.text.sentences import codes_of
from zhbert.text.wordpiece import MAX_CHARACTERS_PER_WORD

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
UNUSED = 99
DEFAULT_SIZE = 21_128


def default_vocabulary() -> Path:
    """The vocabulary that ships with the package: a folder with vocab.txt in it."""
    return Path(__file__).resolve().parent.parent / "assets"


# --- the characters that a vocabulary must have -------------------------------------------------


def _codec_rows(codec: str, rows: Iterable[int], cells: Iterable[int]) -> Iterator[str]:
    for row, cell in itertools.product(rows, list(cells)):
        try:
            yield bytes([row, cell]).decode(codec)
        except UnicodeDecodeError:
            continue


def gb2312_han() -> frozenset[str]:
    """The 6,763 Han characters of GB 2312: rows 16 to 87 of the code table.

    >>> len(gb2312_han())
    6763
    """
    return frozenset(_codec_rows("gb2312", range(0xB0, 0xF8), range(0xA1, 0xFF)))


def big5_level1_han() -> frozenset[str]:
    """The 5,401 frequently used traditional characters: Big5 A440 to C67E.

    >>> len(big5_level1_han())
    5401
    """
    cells = [*range(0x40, 0x7F), *range(0xA1, 0xFF)]
    rows = (c for c in itertools.product(range(0xA4, 0xC7), cells) if c <= (0xC6, 0x7E))
    return frozenset(bytes(pair).decode("big5") for pair in rows)


def quotes_and_punctuation() -> frozenset[str]:
    """“ ” ‘ ’ — … and every other sign of Chinese print, upright, vertical and full-width.

    GB 2312's row of signs, and the punctuation and symbols of Unicode's blocks for Latin-1,
    general punctuation, CJK punctuation, vertical and small forms, and full-width forms.

    >>> quotes_and_punctuation() >= set("“”‘’—…「」『』《》，。！？～￥℃×")
    True
    """
    blocks = (
        range(0x00A1, 0x00C0),
        range(0x2010, 0x2028),
        range(0x2030, 0x203F),
        range(0x3001, 0x3021),
        range(0xFE30, 0xFE6C),
        range(0xFF01, 0xFF66),
        range(0xFFE0, 0xFFE7),
    )
    signs = {chr(code) for code in itertools.chain(*blocks)}
    return frozenset(
        {
            *_codec_rows("gb2312", [0xA1], range(0xA2, 0xFF)),
            *(sign for sign in signs if unicodedata.category(sign)[0] in "PS"),
        }
    )


def letters_of_gb2312() -> frozenset[str]:
    """GB 2312's numerals, full-width ASCII, kana, Greek, Cyrillic and bopomofo: rows 2 to 8.

    >>> letters_of_gb2312() >= set("①ＡのアαжㄅⅣ")
    True
    """
    return frozenset(_codec_rows("gb2312", range(0xA2, 0xA9), range(0xA1, 0xFF)))


# In the order of their importance.
CHARACTER_SETS = {
    "quotes": quotes_and_punctuation,
    "gb2312": gb2312_han,
    "big5-1": big5_level1_han,
    "letters": letters_of_gb2312,
}


# --- BERT's words -------------------------------------------------------------------------------


def _is_han(character: str) -> bool:
    return character in code_points().chinese


def _is_punctuation(character: str) -> bool:
    return character in code_points().punctuation


def bert_words(text: str) -> list[str]:
    """The words that BERT's uncased tokenizer cuts into pieces."""
    return normalized_words(text, Options())


@cache
def _spellings() -> Callable[[str], list[str]]:
    """Finds the runs of text between spaces, punctuation and Han characters."""
    points = code_points()
    # These end a word whatever stands beside them.
    alone = points.chinese | points.punctuation | points.spaces
    return re.compile(f"[^{_character_class(alone)}]+").findall


def _character_class(characters: Iterable[str]) -> str:
    """The inside of a regex's [...]: runs of neighbours as ranges."""
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
    """What a vocabulary is learnt from: how often each character and each word occurs.

    Memory is bounded: characters take one table of 1.1 million counters, and of words other than
    Han characters at most ``max_words`` distinct spellings are held. Whenever more have
    accumulated, the rarest go: the lowest count first, all words of one count together, until at
    most half of ``max_words`` are left; ``pruned`` adds up how many occurrences that were.

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

    # Counting pays per call, so texts are gathered into blocks of this many characters.
    _BLOCK = 1 << 20

    def add(self, texts: Iterable[str]) -> None:
        """Count ``texts``: lines, documents or blocks; no word crosses from one to the next."""
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
        """Occurrences of each Han character, compatibility forms folded into the usual ones."""
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

    Every word starts as single characters (``t``, ``##h``, ``##e``); the pair of neighbours that
    occurs most often over all words becomes a piece, again and again: the rule of the
    ``tokenizers`` library's WordPiece trainer. Ties go to the pair that was known first, so the
    result depends on ``words`` alone, not on their order.

    Args:
        words: folded words and their counts.
        limit: how many pieces to learn at most.
        min_frequency: a pair that occurs less often is not merged.

    >>> merge_pairs({"the": 5, "then": 3, "ten": 2}, limit=2)
    ['##he', 'the']
    """
    texts = sorted({symbol for word in words for symbol in _symbols(word)})
    ids = {text: number for number, text in enumerate(texts)}
    spelled = sorted(word for word in words if len(word) > 1)
    pieces = [[ids[symbol] for symbol in _symbols(word)] for word in spelled]
    counts = [words[word] for word in spelled]

    pair_counts: defaultdict[tuple[int, int], int] = defaultdict(int)
    places: defaultdict[tuple[int, int], set[int]] = defaultdict(set)
    for index, word in enumerate(pieces):
        for pair in itertools.pairwise(word):
            pair_counts[pair] += counts[index]
            places[pair].add(index)
    heap = [(-count, pair) for pair, count in pair_counts.items()]
    heapq.heapify(heap)

    learnt: list[str] = []
    while heap and len(learnt) < limit:
        negative, pair = heapq.heappop(heap)
        if -negative != pair_counts[pair]:
            # Stale: counts only fall but for new pairs, and those were pushed when they were made.
            if pair_counts[pair] > 0:
                heapq.heappush(heap, (-pair_counts[pair], pair))
            continue
        if -negative < min_frequency:
            break
        left, right = pair
        text = texts[left] + texts[right].removeprefix("##")
        if text not in ids:
            ids[text] = len(texts)
            texts.append(text)
            learnt.append(text)
        merged = ids[text]
        touched: set[tuple[int, int]] = set()
        for index in places.pop(pair):
            word, count = pieces[index], counts[index]
            for old in itertools.pairwise(word):
                pair_counts[old] -= count
            word = pieces[index] = _merge(word, left, right, merged)
            for new in itertools.pairwise(word):
                pair_counts[new] += count
                places[new].add(index)
                if merged in new:
                    touched.add(new)
        del pair_counts[pair]
        for new in touched:
            heapq.heappush(heap, (-pair_counts[new], new))
    return learnt


def _merge(word: list[int], left: int, right: int, merged: int) -> list[int]:
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
    """Cut a word as the tokenizer does: the longest piece that fits, from the left.

    Every character of ``word`` must be a piece, alone or behind ``##`` as its place asks.

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

    Merging leaves steps on the way behind (``##ansform`` on the way to ``transform``) which
    the longest match then hardly meets. A piece that cutting ``words`` uses less than
    ``min_frequency`` times is dropped and the next learnt takes its row.

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
class Vocabulary:
    """A learnt vocabulary and where its rows went (``rows``: kind of piece -> how many)."""

    pieces: list[str]
    rows: dict[str, int]


def _special_rows(special_tokens: Sequence[str]) -> list[str]:
    unused = [f"[unused{number}]" for number in range(1, UNUSED + 1)]
    specials = ["[PAD]", *unused, *SPECIAL_TOKENS[1:]]
    for token in special_tokens:
        if not token or token in specials or any(map(str.isspace, token)):
            raise ZhbertError(f"special token {token!r}: empty, with spaces, or there already")
        specials.append(token)
    return specials


def required_characters(characters: Iterable[str] = ()) -> set[str]:
    """Printable ASCII and ``characters``, all as BERT's normalisation leaves them."""
    printable = map(chr, range(33, 127))
    return {c for text in (*printable, *characters) for c in "".join(bert_words(text))}


def rows_of(characters: Iterable[str]) -> int:
    """How many rows characters take: two where there is a ``##`` form too.

    >>> rows_of("的，℃")
    4
    """
    return sum(2 if _has_continuation(character) else 1 for character in characters)


def default_character_sets(size: int) -> list[str]:
    """The sets of CHARACTER_SETS that a vocabulary of ``size`` pieces has room for.

    Each in turn is taken if all that is taken then fills at most half of the rows, so that the
    text has a say too.

    >>> default_character_sets(21_128), default_character_sets(5000)
    (['quotes', 'gb2312', 'big5-1', 'letters'], ['quotes', 'letters'])
    """
    names: list[str] = []
    taken = required_characters()
    for name, characters in CHARACTER_SETS.items():
        with_these = taken | required_characters(characters())
        if UNUSED + len(SPECIAL_TOKENS) + rows_of(with_these) <= size / 2:
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
) -> Vocabulary:
    """Learn a vocabulary of at most ``size`` pieces.

    In this order, until it is full: the special tokens; printable ASCII, letters and digits in
    their ``##`` form too, so that English and numbers are never [UNK]; ``characters``; every
    other character that occurs ``min_frequency`` times, the most frequent first; pieces of words.
    A character that is neither Han nor punctuation comes with its ``##`` form (``25℃``).

    Args:
        counts: the counted text.
        characters: characters that must be there; they are folded as text is.
        special_tokens: special tokens besides BERT's five.

    Raises:
        ZhbertError: ``size`` is too small for what must be there.
    """
    specials = _special_rows(special_tokens)
    required = required_characters(characters)
    if clash := [token for token in special_tokens if token in required]:
        raise ZhbertError(f"special token {clash[0]!r}: a character, so it has a row already")
    chosen = set(required)
    fixed = len(specials) + rows_of(chosen)
    if fixed > size:
        raise ZhbertError(
            f"--size {size:,} is too small: special tokens, ASCII and the required characters take "
            f"{fixed:,} rows; raise --size or require less (--characters quotes)"
        )

    words: Mapping[str, int] = counts.words()
    seen = counts.han() + counts.punctuation()
    for word, count in words.items():
        for character in word:
            seen[character] += count
    room = size - fixed
    frequent = sorted(
        (c for c, n in seen.items() if c not in chosen and n >= min_frequency),
        key=lambda c: (-seen[c], c),
    )
    for character in frequent:
        room -= rows_of([character])
        if room < 0:
            break
        chosen.add(character)
    fixed = len(specials) + rows_of(chosen)

    # A word with a character that has no row is [UNK] whole: nothing to learn from it. Symbols stay
    # single: a table's frame of box-drawing characters is one long "word", but no language.
    symbols = {c for c in chosen if unicodedata.category(c)[0] == "S"}
    usable = chosen - symbols
    words = {word: count for word, count in words.items() if usable.issuperset(word)}
    learnt = learn_pieces(words, size - fixed, min_frequency=min_frequency)
    inside = sorted(f"##{c}" for c in chosen if _has_continuation(c))
    pieces = [*specials, *sorted(chosen), *inside, *learnt]
    return Vocabulary(
        pieces,
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


def looks_cased(pieces: Iterable[str]) -> bool:
    """Whether a vocabulary was made for text that keeps its capitals.

    It was where lower-casing would change at least 1 in 200 of its pieces with letters that have
    case. [bracketed] and <bracketed> tokens do not count: Google's Chinese file, which is
    lower-cased, holds [UNK], <S> and <T>. The share leaves room for the few capitals that a
    lower-cased list picks up (a user's own symbols, letters that an older Unicode did not lower).

    >>> looks_cased(["[UNK]", "<S>", "a", "##b", "的"]), looks_cased(["A", "b", "的"])
    (False, True)
    """
    words = [piece for piece in pieces if not re.fullmatch(r"\[.*\]|<.*>", piece)]
    with_case = sum(1 for word in words if word.lower() != word.upper())
    capitals = sum(1 for word in words if word.lower() != word)
    return capitals > 0 and 200 * capitals >= with_case


def _has_continuation(character: str) -> bool:
    return not _is_han(character) and not _is_punctuation(character)
