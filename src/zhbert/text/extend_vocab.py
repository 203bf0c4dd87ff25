"""Extension of a vocabulary: words that can become pieces, and pieces that a text would use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.text.added_tokens import reachable
from zhbert.text.normalize import Options, code_points, normalized_words
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.wordpiece import CONTINUATION, MAX_CHARACTERS_PER_WORD
from zhbert.text.words import ranked

# Reasons why no text is ever cut into a piece.
HAN_STAND_ALONE = "Han characters in a longer piece: each of them always stands alone"
SEVERAL_WORDS = "several words: cut at spaces and punctuation"
HOLDS_ADDED = "an added token stands in them, which is found first"
NOTHING_LEFT = "nothing left of it after normalisation"
TOO_LONG = f"over {MAX_CHARACTERS_PER_WORD} characters: always [UNK]"


@dataclass(frozen=True)
class Admission:
    """A list of words, divided into new pieces, known pieces and words that cannot be pieces."""

    new: list[str] = field(default_factory=list)
    known: list[str] = field(default_factory=list)
    refused: dict[str, list[str]] = field(default_factory=dict)
    """by the reason"""


def with_pieces(tokenizer: Tokenizer, pieces: Sequence[str]) -> Tokenizer:
    """Return the same tokenizer with other pieces.

    Added tokens at the end of ``pieces`` stay outside the word pieces. Added tokens before further
    pieces become rows of vocab.txt, since transformers numbers added tokens after all its rows.

    >>> from zhbert.text.added_tokens import AddedToken
    >>> old = Tokenizer(["[UNK]", "a"], special_tokens={}, added_tokens=[AddedToken("「")])
    >>> with_pieces(old, [*old.vocabulary, "b"]).encode("「b").ids.tolist()
    [2, 3]

    Raises:
        ZhbertError: as a row of vocab.txt, an added token would be found in other places.
    """
    beyond = set(tokenizer.vocabulary[tokenizer.num_word_pieces :])
    count = len(pieces)
    while count and pieces[count - 1] in beyond:
        count -= 1
    moved = beyond & set(pieces[:count])
    for token in tokenizer.added_tokens:
        everywhere = token.normalized and not token.single_word
        if (
            token.content in moved
            and not everywhere
            and reachable(token.content, tokenizer.options)
        ):
            raise ZhbertError(
                f"the added token {token.content!r} would have to become a row of vocab.txt, and "
                'be found in other places than before; make it "normalized" and no "single_word", '
                "or leave it out"
            )
    return Tokenizer(pieces[:count], **tokenizer.settings)


def ids_of_piece(tokenizer: Tokenizer, piece: str) -> list[int]:
    """Return the ids that a piece's text is cut into; if it begins with ##, inside a word.

    >>> ids_of_piece(Tokenizer(["[UNK]", "ab", "##a", "##b"]), "##ba")
    [3, 2]
    """
    rest = piece.removeprefix(CONTINUATION)
    if rest in ("", piece):
        ids: list[int] = tokenizer.encode(piece, special_tokens=False).ids.tolist()
        return ids
    found: list[int] = []
    while rest:
        ends = range(len(rest), 0, -1)
        matches = ((end, tokenizer.id_of(CONTINUATION + rest[:end])) for end in ends)
        end, row = next(((end, row) for end, row in matches if row is not None), (0, None))
        if row is None:
            return [tokenizer.unk_id]
        found.append(row)
        rest = rest[end:]
    return found


def admit(tokenizer: Tokenizer, words: Iterable[str]) -> Admission:
    """Normalise words; divide them into new pieces, known pieces and words that cannot be pieces.

    >>> found = admit(Tokenizer(["[UNK]", "的"]), ["BERT", "bert", "的", "##Ing", "新冠"])
    >>> found.new, found.known, list(found.refused.values())
    (['bert', '##ing'], ['的'], [['新冠']])
    """
    found = Admission()
    seen: set[str] = set()
    for word in words:
        piece, reason = _as_piece(tokenizer, word)
        if piece in seen:
            continue
        seen.add(piece)
        if tokenizer.id_of(piece) is not None:
            found.known.append(piece)
        elif reason is not None:
            found.refused.setdefault(reason, []).append(piece)
        else:
            found.new.append(piece)
    return found


def _as_piece(tokenizer: Tokenizer, word: str) -> tuple[str, str | None]:
    """Return the piece that a word would be; or the word and the reason why it cannot be one."""
    if tokenizer.id_of(word) is not None:
        return word, None
    inside = word.startswith(CONTINUATION) and word != CONTINUATION
    # A letter in front makes the text after ## the inside of a word.
    before = "a" if inside else ""
    text = before + word.removeprefix(CONTINUATION) if inside else word
    parts = normalized_words(text, tokenizer.options)
    if "".join(parts) == before:
        return word, NOTHING_LEFT
    found = tokenizer.encode(text, special_tokens=False)
    if not set(tokenizer.added_ids).isdisjoint({*found.ids.tolist()} - {tokenizer.unk_id}):
        return word, HOLDS_ADDED
    if len(parts) > 1:
        has_han = not code_points().chinese.isdisjoint(word)
        alone = tokenizer.options.tokenize_chinese_chars and has_han
        return word, HAN_STAND_ALONE if alone else SEVERAL_WORDS
    if len(parts[0]) > MAX_CHARACTERS_PER_WORD:
        return word, TOO_LONG
    return (CONTINUATION + parts[0][1:] if inside else parts[0]), None


@dataclass
class CutWords:
    """Counts of the words that are not one piece: those cut into several, and [UNK].

    At most ``max_words`` distinct spellings are kept; beyond that, the rarest are dropped.

    >>> words = CutWords(Tokenizer(["[UNK]", "好", "a", "##b"]))
    >>> words.add("好 AB ab 龘")
    >>> sorted(words.folded().items())
    [('ab', 2), ('龘', 1)]
    """

    tokenizer: Tokenizer
    max_words: int = 500_000
    _spellings: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        pieces = self.tokenizer.vocabulary
        self._inside = np.array([p.startswith(CONTINUATION) and len(p) > 2 for p in pieces])

    def add(self, text: str) -> None:
        """Count one block of text; blocks end between words."""
        encoding = self.tokenizer.encode(text, special_tokens=False)
        if not len(encoding):
            return
        first = np.flatnonzero(~self._inside[encoding.ids])
        last = np.append(first[1:], len(encoding)) - 1
        wanted = (last > first) | (encoding.ids[first] == self.tokenizer.unk_id)
        begins = encoding.offsets[first[wanted], 0].tolist()
        ends = encoding.offsets[last[wanted], 1].tolist()
        self._spellings.update(text[a:b] for a, b in zip(begins, ends, strict=True))
        if len(self._spellings) > self.max_words:
            self._spellings = Counter(dict(ranked(self._spellings)[: self.max_words // 2]))

    def folded(self) -> Counter[str]:
        """Return the counts of the normalised words."""
        return fold_counts(self._spellings, self.tokenizer.options)


def fold_counts(spellings: Counter[str], options: Options) -> Counter[str]:
    """Add up the counts of spellings that these options normalise to the same word.

    >>> fold_counts(Counter({"Bert": 2, "BERT": 1}), Options())
    Counter({'bert': 3})
    """
    found: Counter[str] = Counter()
    for spelling, count in spellings.items():
        for word in normalized_words(spelling, options):
            if len(word) <= MAX_CHARACTERS_PER_WORD:
                found[word] += count
    return found


def pieces_for(
    tokenizer: Tokenizer, words: Counter[str], *, at_most: int, min_frequency: int
) -> dict[str, int]:
    """Choose the pieces that help most with some words; return them with their counts.

    First come the characters whose lack makes words [UNK], alone or in their ``##`` form, the most
    frequent first; then whole words, by the number of pieces that each saves in the text. Parts of
    words are not chosen: a whole word's row can be initialised with the mean of the pieces that it
    replaces. A word without a letter (a number, a line of symbols) gets no row.

    Args:
        tokenizer: the tokenizer whose vocabulary is extended.
        words: normalised words and their counts, from `CutWords` or `fold_counts`.
        at_most: maximum number of pieces.
        min_frequency: pieces that occur less often are not chosen.

    >>> tokenizer = Tokenizer(["[UNK]", "a", "b", "##a", "##b"])
    >>> words = Counter({"ab": 5, "abba": 3, "bc": 2, "aa": 1})
    >>> pieces_for(tokenizer, words, at_most=9, min_frequency=2)
    {'##c': 2, 'abba': 3, 'ab': 5, 'bc': 2}
    """
    forms: Counter[str] = Counter()
    for word, count in words.items():
        if ids_of_piece(tokenizer, word) == [tokenizer.unk_id]:
            parts = [word[0], *(CONTINUATION + character for character in word[1:])]
            forms.update(dict.fromkeys((p for p in parts if tokenizer.id_of(p) is None), count))
    chosen = {form: n for form, n in ranked(forms) if n >= min_frequency}
    spelled = with_pieces(tokenizer, [*tokenizer.vocabulary, *chosen])
    saved: Counter[str] = Counter()
    for word, count in words.items():
        if count >= min_frequency and len(word) > 1 and any(map(str.isalpha, word)):
            saved[word] = count * (len(ids_of_piece(spelled, word)) - 1)
    chosen |= {word: words[word] for word, n in ranked(saved) if n > 0}
    return dict(list(chosen.items())[:at_most])
