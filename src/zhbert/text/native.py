"""The native word pieces behind the interface of `zhbert.text.wordpiece.PythonWordPiece`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from zhbert.text import _wordpiece
from zhbert.text.normalize import Options, rules
from zhbert.text.words import WordPieces


class NativeWordPiece:
    """Text to ids and offsets by greedy longest match; see `zhbert.text.tokenizer.Tokenizer`."""

    def __init__(
        self,
        ids: Mapping[str, int],
        unknown_id: int,
        special_ids: Mapping[str, int],
        options: Options,
    ) -> None:
        pieces = [""] * (max(ids.values()) + 1)
        for piece, number in ids.items():
            pieces[number] = piece
        table = rules(options)
        self._tables = _wordpiece.build(
            pieces,
            unknown_id,
            list(special_ids.items()),
            table.kinds,
            table.changes,
            table.decompositions,
            table.orders,
        )

    def encode(
        self, texts: Sequence[str], special_tokens: bool
    ) -> tuple[NDArray[np.int32], NDArray[np.int64], NDArray[np.int32]]:
        """Ids of all texts, where each text starts in them (texts + 1,), offsets (pieces, 2)."""
        ids, starts, offsets = _wordpiece.encode(self._tables, list(texts), special_tokens, True)
        assert offsets is not None
        return (
            np.frombuffer(ids, np.int32),
            np.frombuffer(starts, np.int64),
            np.frombuffer(offsets, np.int32).reshape(-1, 2),
        )

    def encode_batch(self, texts: Sequence[str], special_tokens: bool) -> list[NDArray[np.int32]]:
        """Ids alone, one array a text."""
        ids, starts, _ = _wordpiece.encode(self._tables, list(texts), special_tokens, False)
        arrays: list[NDArray[np.int32]] = _wordpiece.slices(np.frombuffer(ids, np.int32), starts)
        return arrays

    def encode_words(
        self, texts: Sequence[str], word_ends: Sequence[NDArray[np.integer]]
    ) -> WordPieces:
        """See `zhbert.text.tokenizer.Tokenizer.encode_words`."""
        return _word_pieces(*_wordpiece.encode_words(self._tables, list(texts), list(word_ends)))

    def encode_run(
        self, codes: NDArray[np.uint32], text_ends: NDArray[np.int32], word_ends: NDArray[np.int32]
    ) -> WordPieces:
        """See `zhbert.text.tokenizer.Tokenizer.encode_run`."""
        return _word_pieces(*_wordpiece.encode_run(self._tables, codes, text_ends, word_ends))


def _word_pieces(
    ids: _wordpiece.Memory,
    word_starts: _wordpiece.Memory,
    starts: _wordpiece.Memory,
    words: int,
    widened: int,
    unknown: int,
    histogram: Sequence[int],
) -> WordPieces:
    return WordPieces(
        ids=np.frombuffer(ids, np.int32),
        word_starts=np.frombuffer(word_starts, np.bool_),
        starts=np.frombuffer(starts, np.int64),
        words=words,
        widened=widened,
        unknown=unknown,
        pieces_per_word=np.array(histogram, np.int64),
    )
