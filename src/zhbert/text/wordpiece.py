"""WordPiece in plain Python: slow, used for tests and if the native module was not built."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from zhbert.text.added_tokens import AddedTokens
from zhbert.text.normalize import Options, normalize, split_words
from zhbert.text.words import HISTOGRAM_SIZE, WordPieces, align, texts_of_run

MAX_CHARACTERS_PER_WORD = 100  # a longer word is one [UNK], as in the original BERT
CONTINUATION = "##"

Encoded = tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]
"""All texts' ids (pieces,); the start of each text in them (texts + 1,); offsets (pieces, 2)."""


class PythonWordPiece:
    """WordPiece by greedy longest match from the left, like BERT's WordpieceTokenizer.

    (https://github.com/google-research/bert/blob/master/tokenization.py)

    ``ids``: the word pieces. ``added``: tokens that are searched for first.
    """

    def __init__(
        self,
        ids: Mapping[str, int],
        unknown_id: int,
        added: AddedTokens,
        options: Options,
    ) -> None:
        self._ids = ids
        self._unknown_id = unknown_id
        self._added = added
        self._options = options
        self._longest = max(map(len, ids), default=0)

    def encode(self, texts: Sequence[str], special_tokens: bool) -> Encoded:
        """See `Tokenizer.encode`."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        starts = [0]
        for text in texts:
            for piece, start, end in self._encode(text, special_tokens):
                ids.append(piece)
                offsets.append((start, end))
            starts.append(len(ids))
        return (
            np.array(ids, np.int32),
            np.array(starts, np.int64),
            np.array(offsets, np.int32).reshape(-1, 2),
        )

    def encode_batch(self, texts: Sequence[str], special_tokens: bool) -> list[NDArray[np.int32]]:
        """See `Tokenizer.encode_batch`."""
        ids, starts, _ = self.encode(texts, special_tokens)
        return [ids[a:b] for a, b in pairwise(starts.tolist())]

    def encode_words(
        self, texts: Sequence[str], word_ends: Sequence[NDArray[np.integer]]
    ) -> WordPieces:
        """See `Tokenizer.encode_words`."""
        if len(texts) != len(word_ends):
            raise ValueError("as many arrays of word ends as texts are expected")
        for text, ends in zip(texts, word_ends, strict=True):
            places = [0, *ends.tolist()]
            if places != sorted(places) or places[-1] != len(text):
                raise ValueError(
                    "word ends must increase, the last word ending where its text ends"
                )
        ids, starts, offsets = self.encode(texts, special_tokens=False)
        word_starts = np.zeros(len(ids), np.bool_)
        cut = np.zeros(len(ids), np.bool_)
        for place, ends in enumerate(word_ends):
            here = slice(starts[place], starts[place + 1])
            word_starts[here], cut[here] = align(offsets[here], ends)
        # The first piece of a text always starts a word, so words can be counted across texts.
        words = np.cumsum(word_starts)
        sizes = np.bincount(words)[1:]
        return WordPieces(
            ids=ids,
            word_starts=word_starts,
            starts=starts,
            words=len(sizes),
            widened=len(np.unique(words[cut])),
            unknown=int((ids == self._unknown_id).sum()),
            pieces_per_word=np.bincount(
                np.minimum(sizes, HISTOGRAM_SIZE) - 1, minlength=HISTOGRAM_SIZE
            ),
        )

    def encode_run(
        self, codes: NDArray[np.uint32], text_ends: NDArray[np.int32], word_ends: NDArray[np.int32]
    ) -> WordPieces:
        """See `Tokenizer.encode_run`."""
        return self.encode_words(*texts_of_run(codes, text_ends, word_ends))

    def _encode(self, text: str, special_tokens: bool) -> Iterator[tuple[int, int, int]]:
        """Yield the pieces of a text as (id, start, end)."""
        for token, begin, end in self._added.split(text, special_tokens):
            if token is not None:
                yield token, begin, end
            else:
                yield from self._encode_plain(text[begin:end], begin, special_tokens)

    def _encode_plain(
        self, text: str, begin: int, special_tokens: bool
    ) -> Iterator[tuple[int, int, int]]:
        """Yield the pieces of a part without added tokens that are found before normalisation.

        ``begin`` is the part's start in its text; the offsets count from the text's start.
        """
        characters, places = normalize(text, self._options)
        origins = [begin + place for place in places]
        normalized = "".join(characters)
        for token, first, last in self._added.split_normalized(normalized, special_tokens):
            if token is not None:
                yield token, origins[first], origins[last - 1] + 1
                continue
            for start, stop in split_words(characters[first:last]):
                place = first + start
                for piece, a, b in self._pieces(normalized[place : first + stop]):
                    yield piece, origins[place + a], origins[place + b - 1] + 1

    def _pieces(self, word: str) -> list[tuple[int, int, int]]:
        """Cut a word by greedy longest match from the left: (id, start, end) in the word."""
        unknown = [(self._unknown_id, 0, len(word))]
        if len(word) > MAX_CHARACTERS_PER_WORD:
            return unknown
        pieces = []
        start = 0
        while start < len(word):
            prefix = CONTINUATION if start else ""
            for end in range(min(len(word), start + self._longest), start, -1):
                piece = self._ids.get(prefix + word[start:end])
                if piece is not None:
                    break
            else:
                return unknown
            pieces.append((piece, start, end))
            start = end
        return pieces
