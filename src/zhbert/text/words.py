"""Words and pieces: the pieces that start a word, and a report on their alignment in a corpus."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.text.sentences import text_of
from zhbert.wording import counted

# Entries of ``pieces_per_word``: words of 1, 2, ... pieces; the last counts all longer words.
HISTOGRAM_SIZE = 7


@dataclass(frozen=True)
class WordPieces:
    """The concatenated pieces of several texts, with their word boundaries."""

    ids: NDArray[np.int32]
    """(pieces,)"""
    word_starts: NDArray[np.bool_]
    """(pieces,): True for the first piece of a word"""
    starts: NDArray[np.int64]
    """(texts + 1,): text t is ``ids[starts[t]:starts[t + 1]]``"""
    words: int
    """number of words with at least one piece"""
    widened: int
    """number of words that were widened, since the segmenter's boundary was inside a piece"""
    unknown: int
    """number of [UNK] pieces"""
    pieces_per_word: NDArray[np.int64]
    """(7,): number of words with 1 to 6 pieces, and with 7 or more"""


def texts_of_run(
    codes: NDArray[np.uint32], text_ends: NDArray[np.int32], word_ends: NDArray[np.int32]
) -> tuple[list[str], list[NDArray[np.int32]]]:
    """Split the texts concatenated in ``codes``; return them and the word ends of each.

    The arguments are those of ``Tokenizer.encode_run``.
    """
    text = text_of(codes)
    places = list(zip([0, *text_ends.tolist()], text_ends.tolist(), strict=False))
    low = np.searchsorted(word_ends, [a for a, _ in places], "right")
    high = np.searchsorted(word_ends, [b for _, b in places], "left")
    ends = [
        np.append(word_ends[i:j] - a, b - a).astype(np.int32)
        for i, j, (a, b) in zip(low, high, places, strict=True)
    ]
    return [text[a:b] for a, b in places], ends


def joined_starts(parts: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Join the ``starts`` of several groups of texts.

    >>> joined_starts([np.array([0, 2, 3]), np.array([0, 4])]).tolist()
    [0, 2, 3, 7]
    """
    sizes = np.concatenate([np.diff(starts) for starts in parts])
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(sizes)])


def joined(parts: Sequence[WordPieces]) -> WordPieces:
    """Join the word pieces of several groups of texts."""
    return WordPieces(
        ids=np.concatenate([part.ids for part in parts]),
        word_starts=np.concatenate([part.word_starts for part in parts]),
        starts=joined_starts([part.starts for part in parts]),
        words=sum(part.words for part in parts),
        widened=sum(part.widened for part in parts),
        unknown=sum(part.unknown for part in parts),
        pieces_per_word=np.sum([part.pieces_per_word for part in parts], axis=0),
    )


def first_pieces(starts: NDArray[Any], word_ends: NDArray[Any]) -> NDArray[np.bool_]:
    """Return which pieces of a text start a word.

    ``starts``: the first character of each piece. ``word_ends`` increases. A piece starts a word if
    it is the first of the text, or if a word ends later than the previous piece's start and not
    later than its own start: a boundary inside a piece moves to the piece's end.

    >>> first_pieces(np.array([0, 1, 2]), np.array([2, 3])).tolist()
    [True, False, True]
    """
    words = np.searchsorted(word_ends, starts, "right")
    first = np.ones(len(words), np.bool_)
    np.greater(words[1:], words[:-1], out=first[1:])
    return first


def align(
    offsets: NDArray[Any], word_ends: NDArray[Any]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return which pieces of a text start a word, and which have a word boundary inside.

    ``offsets``: (pieces, 2) start and end of each piece in characters.

    >>> align(np.array([(0, 2), (2, 3)]), np.array([1, 2, 3]))
    (array([ True,  True]), array([ True, False]))
    """
    starts, ends = offsets[:, 0], offsets[:, 1]
    inside = np.searchsorted(word_ends, ends, "left") > np.searchsorted(word_ends, starts, "right")
    return first_pieces(starts, word_ends), inside


@dataclass
class AlignmentReport:
    """Statistics on the alignment of words and pieces in some text; reports can be added.

    >>> report = AlignmentReport(4, pieces=8, widened=1, pieces_per_word=[1, 2, 1, 0, 0, 0, 0])
    >>> print(report.describe())
    4 words, 8 pieces (2.00 a word)
    words of 1/2/3/4/5/6/7+ pieces: 25.0 / 50.0 / 25.0 / 0.0 / 0.0 / 0.0 / 0.0 %
    widened to whole pieces: 25.000 % of words; [UNK]: 0.000 % of pieces
    """

    words: int = 0
    pieces: int = 0
    widened: int = 0
    unknown: int = 0
    pieces_per_word: list[int] = field(default_factory=lambda: [0] * HISTOGRAM_SIZE)

    @classmethod
    def of(cls, words: WordPieces) -> AlignmentReport:
        """Return the report on some word pieces."""
        return cls(
            words=words.words,
            pieces=len(words.ids),
            widened=words.widened,
            unknown=words.unknown,
            pieces_per_word=[int(n) for n in words.pieces_per_word],
        )

    @classmethod
    def from_dict(cls, counts: Mapping[str, Any]) -> AlignmentReport:
        """Return the report from the result of ``to_dict``."""
        return cls(
            words=counts["words"],
            pieces=counts["pieces"],
            widened=counts["widened_words"],
            unknown=counts["unknown_pieces"],
            pieces_per_word=counts["pieces_per_word"],
        )

    def __add__(self, other: AlignmentReport) -> AlignmentReport:
        return AlignmentReport(
            self.words + other.words,
            self.pieces + other.pieces,
            self.widened + other.widened,
            self.unknown + other.unknown,
            [a + b for a, b in zip(self.pieces_per_word, other.pieces_per_word, strict=True)],
        )

    def to_dict(self) -> dict[str, int | float | list[int]]:
        """Return the counts and the two most important shares, for corpus.json."""
        return {
            "words": self.words,
            "pieces": self.pieces,
            "pieces_per_word": self.pieces_per_word,
            "widened_words": self.widened,
            "widened_share": self.widened / max(1, self.words),
            "unknown_pieces": self.unknown,
            "unknown_share": self.unknown / max(1, self.pieces),
        }

    def describe(self) -> str:
        """Return the report as three lines of text."""
        words, pieces = max(1, self.words), max(1, self.pieces)
        shares = " / ".join(f"{100 * n / words:.1f}" for n in self.pieces_per_word)
        return (
            f"{counted(self.words, 'word')}, {counted(self.pieces, 'piece')} "
            f"({self.pieces / words:.2f} a word)\n"
            f"words of 1/2/3/4/5/6/7+ pieces: {shares} %\n"
            f"widened to whole pieces: {100 * self.widened / words:.3f} % of words; "
            f"[UNK]: {100 * self.unknown / pieces:.3f} % of pieces"
        )


def ranked(counts: Counter[str]) -> list[tuple[str, int]]:
    """Sort words by their counts, the most frequent first; ties are in code point order."""
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))
