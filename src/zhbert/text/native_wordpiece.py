"""WordPiece in C++ (``_wordpiece.cpp``), with numpy arrays as arguments and results."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.text import _wordpiece
from zhbert.text.added_tokens import AddedTokens, fold
from zhbert.text.normalize import Options, rules
from zhbert.text.sentences import codes_of, text_of
from zhbert.text.wordpiece import Encoded, PythonWordPiece
from zhbert.text.words import WordPieces, joined, joined_starts, texts_of_run

# Below this total of characters, texts are encoded in plain Python: that takes less time than the
# search for added tokens.
_SHORT = 64


class NativeWordPiece:
    """WordPiece by greedy longest match, as in `PythonWordPiece`, hundreds of times faster.

    Plain special tokens such as [MASK] are found natively. If a tokenizer has other added tokens,
    the few texts that may contain one are encoded by `PythonWordPiece`.
    """

    def __init__(
        self,
        ids: Mapping[str, int],
        unknown_id: int,
        added: AddedTokens,
        options: Options,
    ) -> None:
        pieces = [""] * (max(ids.values()) + 1)
        for piece, number in ids.items():
            pieces[number] = piece
        table = rules(options)
        plain = {token.content: number for token, number in added.ids.items()}
        self._added = added
        self._tables = _wordpiece.build(
            pieces,
            unknown_id,
            list(plain.items()) if added.is_plain else [],
            table.kinds,
            table.changes,
            table.decompositions,
            table.orders,
        )
        self._slow: PythonWordPiece | None = None
        if not added.is_plain:
            self._slow = _BetweenTokens(self._encode, ids, unknown_id, added, options)

    def encode(self, texts: Sequence[str], special_tokens: bool) -> Encoded:
        """See `Tokenizer.encode`."""
        if self._slow is not None:
            parts = [
                self._slow.encode(texts[here], special_tokens)
                if slow
                else self._encode(texts[here])
                for here, slow in self._parts(texts)
            ]
            ids, starts, offsets = zip(*parts, strict=True)
            return np.concatenate(ids), joined_starts(starts), np.concatenate(offsets)
        return self._encode(texts, special_tokens)

    def _encode(self, texts: Sequence[str], special_tokens: bool = False) -> Encoded:
        ids, starts, offsets = _wordpiece.encode(self._tables, list(texts), special_tokens, True)
        assert offsets is not None
        return (
            np.frombuffer(ids, np.int32),
            np.frombuffer(starts, np.int64),
            np.frombuffer(offsets, np.int32).reshape(-1, 2),
        )

    def encode_batch(self, texts: Sequence[str], special_tokens: bool) -> list[NDArray[np.int32]]:
        """See `Tokenizer.encode_batch`."""
        if self._slow is not None:
            ids, starts, _ = self.encode(texts, special_tokens)
        else:
            memory, starts, _ = _wordpiece.encode(self._tables, list(texts), special_tokens, False)
            ids = np.frombuffer(memory, np.int32)
        return _wordpiece.slices(ids, starts)

    def encode_words(
        self, texts: Sequence[str], word_ends: Sequence[NDArray[np.integer]]
    ) -> WordPieces:
        """See `Tokenizer.encode_words`."""
        if self._slow is None or len(texts) != len(word_ends):
            return _word_pieces(_wordpiece.encode_words(self._tables, list(texts), list(word_ends)))
        parts = []
        for here, slow in self._parts(texts):
            some, ends = list(texts[here]), list(word_ends[here])
            if slow:
                parts.append(self._slow.encode_words(some, ends))
            else:
                parts.append(_word_pieces(_wordpiece.encode_words(self._tables, some, ends)))
        return joined(parts)

    def encode_run(
        self, codes: NDArray[np.uint32], text_ends: NDArray[np.int32], word_ends: NDArray[np.int32]
    ) -> WordPieces:
        """See `Tokenizer.encode_run`."""
        if self._slow is None or not self._added.touched(codes, text_ends).any():
            return _word_pieces(_wordpiece.encode_run(self._tables, codes, text_ends, word_ends))
        return self.encode_words(*texts_of_run(codes, text_ends, word_ends))

    def _parts(self, texts: Sequence[str]) -> Iterator[tuple[slice, bool]]:
        """Yield runs of texts to encode together, with True if they may have an added token."""
        if sum(map(len, texts)) < _SHORT:
            yield slice(None), True
            return
        codes = codes_of("".join(texts))
        touched = self._added.touched(codes, np.cumsum([len(text) for text in texts]))
        changes = np.flatnonzero(np.diff(touched)) + 1
        for first, last in pairwise([0, *changes.tolist(), len(texts)]):
            yield slice(first, last), bool(touched[first])


class _BetweenTokens(PythonWordPiece):
    """WordPiece that finds added tokens in plain Python and encodes the text between them natively.

    The text between them is already normalised, and normalising it again changes nothing. A text
    with characters that become several, or that change depending on their neighbours, is encoded
    entirely in plain Python.
    """

    def __init__(self, encode: Callable[[Sequence[str]], Encoded], *arguments: Any) -> None:
        super().__init__(*arguments)
        self._encode_natively = encode

    def _encode_plain(
        self, text: str, begin: int, special_tokens: bool
    ) -> Iterator[tuple[int, int, int]]:
        codes = codes_of(text)
        folded, places, odd = fold(codes, self._options)
        if len(odd):
            yield from super()._encode_plain(text, begin, special_tokens)
            return
        normalized = text_of(folded)
        parts = list(self._added.split_normalized(normalized, special_tokens))
        ids, starts, offsets = self._encode_natively([normalized[a:b] for _, a, b in parts])
        shifts = np.repeat(np.array([a for _, a, _ in parts], np.int64), np.diff(starts))
        first = (begin + places[offsets[:, 0] + shifts]).tolist()
        last = (begin + places[offsets[:, 1] - 1 + shifts] + 1).tolist()
        pieces = list(zip(ids.tolist(), first, last, strict=True))
        for (token, a, b), low, high in zip(parts, starts, starts[1:], strict=False):
            if token is None:
                yield from pieces[low:high]
            else:
                yield token, begin + int(places[a]), begin + int(places[b - 1]) + 1


def _word_pieces(found: _wordpiece.Words) -> WordPieces:
    ids, word_starts, starts, words, widened, unknown, histogram = found
    return WordPieces(
        np.frombuffer(ids, np.int32),
        np.frombuffer(word_starts, np.bool_),
        np.frombuffer(starts, np.int64),
        words,
        widened,
        unknown,
        np.array(histogram, np.int64),
    )
