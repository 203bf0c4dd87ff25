"""Tokenized rows and their batches.

All rows are stored one after another in one array; a batch is gathered from it without a loop over
its rows. Shapes: R = number of rows, T = number of pieces in all rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.packing import PackedBatch, pack_rows
from zhbert.text.tokenizer import Tokenizer

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class PieceRows:
    """The rows of one data set as NumPy arrays."""

    ids: Ids
    """(T,): [CLS] ... [SEP] of every row."""
    cu_seqlens: NDArray[np.int64]
    """(R + 1,): the offset of each row in ``ids``, and T (the cumulative lengths)."""
    second: NDArray[np.int32]
    """(R,): the offset of the second segment in the row; the row's length if there is none."""

    def __len__(self) -> int:
        return len(self.second)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """The number of pieces of each row, (R,)."""
        return np.diff(self.cu_seqlens)

    def row(self, number: int) -> Ids:
        """Return the piece ids of one row."""
        return self.ids[self.cu_seqlens[number] : self.cu_seqlens[number + 1]]

    @classmethod
    def of_segments(cls, tokenizer: Tokenizer, segments: Sequence[tuple[Ids, ...]]) -> Self:
        """Return a row for each one or two segments, with [CLS] before them and [SEP] after each.

        Raises:
            ZhbertError: the vocabulary has no [CLS] or no [SEP].
        """
        first, sep = _special_pieces(tokenizer)
        parts: list[Ids] = []
        lengths = np.empty(len(segments), np.int64)
        second = np.empty(len(segments), np.int32)
        for number, row in enumerate(segments):
            parts.append(first)
            for segment in row:
                parts += (segment, sep)
            second[number] = 2 + len(row[0])
            lengths[number] = second[number] + (1 + len(row[1]) if len(row) > 1 else 0)
        ids = np.concatenate([np.empty(0, np.int32), *parts])
        return cls(ids, np.concatenate(([0], np.cumsum(lengths))), second)

    def pack(self, chosen: NDArray[np.int64]) -> tuple[PackedBatch, NDArray[np.int64]]:
        """Return the chosen rows as a batch, and the indices of the batch's pieces in ``ids``."""
        lengths = self.cu_seqlens[chosen + 1] - self.cu_seqlens[chosen]
        begins = np.cumsum(lengths) - lengths
        pieces = np.arange(lengths.sum()) + np.repeat(self.cu_seqlens[chosen] - begins, lengths)
        return pack_rows(self.ids[pieces], lengths, self.second[chosen]), pieces


def _special_pieces(tokenizer: Tokenizer) -> tuple[Ids, Ids]:
    missing = [name for name in ("cls_token", "sep_token") if name not in tokenizer.special_tokens]
    if missing:
        raise ZhbertError(
            f"the model's vocabulary has no {missing[0]}; set it in tokenizer_config.json"
        )
    return np.array([tokenizer.cls_id], np.int32), np.array([tokenizer.sep_id], np.int32)


def check_segments(rows: PieceRows, type_vocab_size: int) -> None:
    """Raise ZhbertError if a row has a second segment and the model has no embedding for it.

    Some RoBERTa models have only one segment.
    """
    if type_vocab_size < 2 and bool((rows.second < rows.lengths).any()):
        raise ZhbertError(
            f"the model has one segment only (type_vocab_size = {type_vocab_size} in its "
            "config.json), and a pair of texts has two; take another model"
        )


def micro_batches(
    chosen: NDArray[np.int64],
    lengths: NDArray[np.int64],
    max_padded_tokens: int,
    max_rows: int = 0,
) -> list[NDArray[np.int64]]:
    """Split rows into parts of at most ``max_padded_tokens``: number of rows times longest row.

    Rows are not padded here, but attention weights take as much memory as if they were. A row that
    exceeds the limit by itself becomes a part by itself.

    >>> micro_batches(np.arange(5), np.array([2, 2, 3, 8, 8]), 9)
    [array([0, 1, 2]), array([3]), array([4])]

    Args:
        chosen: the row numbers, sorted by length.
        lengths: the number of pieces of every row, chosen or not.
        max_padded_tokens: the limit of a part.
        max_rows: the limit of rows in a part; 0: no limit.
    """
    parts: list[NDArray[np.int64]] = []
    begin = 0
    longest = lengths[chosen].tolist()
    for number in range(1, len(chosen) + 1):
        full = number - begin == max_rows
        if (
            full
            or number == len(chosen)
            or (number + 1 - begin) * longest[number] > max_padded_tokens
        ):
            parts.append(chosen[begin:number])
            begin = number
    return parts


def by_length(
    lengths: NDArray[np.int64], max_rows: int, max_padded_tokens: int
) -> list[NDArray[np.int64]]:
    """Split all rows into batches of similar length, the shortest first.

    >>> by_length(np.array([9, 2, 9, 3]), 2, 12)
    [array([1, 3]), array([0]), array([2])]
    """
    order = np.argsort(lengths, kind="stable")
    return micro_batches(order, lengths, max_padded_tokens, max_rows)


def padding_share(lengths: NDArray[np.int64], parts: Sequence[NDArray[np.int64]]) -> float:
    """Return the share of padding if each batch of ``parts`` were padded to its longest row.

    >>> padding_share(np.array([2, 4]), [np.array([0, 1])])
    0.25
    """
    padded = sum(len(part) * int(lengths[part].max(initial=0)) for part in parts)
    pieces = sum(int(lengths[part].sum()) for part in parts)
    return 1 - pieces / padded if padded else 0.0
