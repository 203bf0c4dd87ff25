"""Words and the words most similar to them: what the strategy ``mac`` puts in place of words.

The file is text, which ``zhbert similar-words`` writes and anybody may mend:

    # zhbert similar words; vocabulary 5f2c...
    使 用<TAB>利 用<TAB>0.8123
    使 用<TAB>运 用<TAB>0.7911

A line is a word, a similar word and their similarity; words are written as their pieces. Both have
equally many, so that a row keeps its length.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.files import read_text, sha256_of, write_text

WordIds = tuple[int, ...]
"""The ids of a word's pieces."""

_HEAD = "# zhbert similar words; vocabulary "


class SimilarWords:
    """Words of pieces, and the similar words of each.

    Args:
        pairs: a word and a similar word of as many pieces, each.
        sha256: the hash of the file that they are from.
    """

    def __init__(self, pairs: Iterable[tuple[WordIds, WordIds]], sha256: str = "") -> None:
        self.sha256 = sha256
        similar: dict[WordIds, list[WordIds]] = {}
        for word, other in pairs:
            similar.setdefault(word, []).append(other)
            similar.setdefault(other, [])
        self.words = sorted(similar, key=lambda word: (len(word), word))
        """Those of fewer pieces first, then by their ids."""
        self._index = {word: number for number, word in enumerate(self.words)}
        lengths = [len(word) for word in self.words]
        counts = [len(similar[word]) for word in self.words]
        self.first_of_length = np.searchsorted(lengths, np.arange(max(lengths) + 2)).astype(
            np.int64
        )
        """(longest + 2,): the first word of each number of pieces, and the end."""
        self.pieces = np.array([piece for word in self.words for piece in word], np.int32)
        self.starts = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
        """(words + 1,): where the similar words of each begin in ``similar``."""
        self.similar = np.array(
            [self._index[other] for word in self.words for other in similar[word]], np.int32
        )

    @property
    def arrays(
        self,
    ) -> tuple[NDArray[np.int64], NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
        """The four arrays, from which the native module draws as the two functions below."""
        return self.first_of_length, self.pieces, self.starts, self.similar

    def draw_similar(self, word: WordIds, rng: np.random.Generator) -> WordIds | None:
        """Return one of the similar words of ``word``, each alike; None if there are none."""
        number = self._index.get(word, -1)
        count = int(self.starts[number + 1] - self.starts[number]) if number >= 0 else 0
        if not count:
            return None
        return self.words[int(self.similar[self.starts[number] + int(rng.random() * count)])]

    def draw_any(self, length: int, rng: np.random.Generator) -> WordIds | None:
        """Return any word of ``length`` pieces, each alike; None if there are none."""
        firsts = self.first_of_length
        count = int(firsts[length + 1] - firsts[length]) if length + 1 < len(firsts) else 0
        return self.words[int(firsts[length]) + int(rng.random() * count)] if count else None


def write_similar_words(
    path: str | os.PathLike[str],
    vocabulary: Sequence[str],
    found: Iterable[tuple[WordIds, WordIds, float]],
) -> None:
    """Write words, similar words and their similarities, in this order, to a file."""
    lines = (
        "\t".join((_spelled(word, vocabulary), _spelled(other, vocabulary), f"{similarity:.4f}"))
        for word, other, similarity in found
    )
    write_text(path, "".join(f"{line}\n" for line in (_HEAD + _hash_of(vocabulary), *lines)))


def read_similar_words(path: str | os.PathLike[str], vocabulary: Sequence[str]) -> SimilarWords:
    """Read a file of similar words.

    Raises:
        ZhbertError: it is not such a file, is of another vocabulary, or has a line that is not a
            word and a similar word of as many pieces of the vocabulary.
    """
    where = os.fspath(path)
    head, *lines = read_text(path, "similar words").split("\n")
    if not head.startswith(_HEAD):
        raise ZhbertError(f"{where}: no similar words; 'zhbert similar-words CORPUS' makes them")
    if (theirs := head.removeprefix(_HEAD).strip()) != (mine := _hash_of(vocabulary)):
        raise ZhbertError(
            f"{where}: similar words of another vocabulary (hash {theirs[:12]}, not {mine[:12]}): "
            "make them again, zhbert similar-words CORPUS --out FILE"
        )
    ids = {piece: number for number, piece in enumerate(vocabulary)}
    pairs = []
    for number, line in enumerate(lines, 2):
        if not line.strip():
            continue
        word, other = (
            tuple(ids.get(piece, -1) for piece in cell.split(" "))
            for cell in (*line.split("\t"), "")[:2]
        )
        if len(word) != len(other) or -1 in (*word, *other):
            raise ZhbertError(
                f"{where}, line {number}: must be a word, a tab and a similar word, of equally "
                "many pieces of the vocabulary with blanks between them"
            )
        pairs.append((word, other))
    if not pairs:
        raise ZhbertError(f"{where}: no similar words in it")
    return SimilarWords(pairs, sha256_of(path))


def _spelled(word: WordIds, vocabulary: Sequence[str]) -> str:
    return " ".join(vocabulary[piece] for piece in word)


def _hash_of(vocabulary: Sequence[str]) -> str:
    return hashlib.sha256("\n".join(vocabulary).encode()).hexdigest()
