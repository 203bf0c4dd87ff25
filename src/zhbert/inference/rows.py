"""Rows of pieces, tokenized once, and the choice of rows that a model takes at once.

All rows lie one after another in one array; a batch is gathered from it without a loop over its
rows. Shapes: R = rows, T = pieces of all rows together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.packing import PackedBatch, pack_rows

Ids = NDArray[np.int32]


@dataclass(frozen=True)
class PieceRows:
    """Rows of one data set, on the CPU, in NumPy."""

    ids: Ids
    """(T,): [CLS] ... [SEP] of every row."""
    cu_seqlens: NDArray[np.int64]
    """(R + 1,): where each row begins, and T (the cumulative lengths)."""
    second: NDArray[np.int32]
    """(R,): the place in the row where the second segment begins; the row's length without one."""

    def __len__(self) -> int:
        return len(self.second)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(R,): pieces of each row."""
        return np.diff(self.cu_seqlens)

    def row(self, number: int) -> Ids:
        """One row's pieces."""
        return self.ids[self.cu_seqlens[number] : self.cu_seqlens[number + 1]]

    def pack(self, chosen: NDArray[np.int64]) -> tuple[PackedBatch, NDArray[np.int64]]:
        """The chosen rows as a batch, and where its pieces lie among all pieces: (T of these,)."""
        lengths = self.cu_seqlens[chosen + 1] - self.cu_seqlens[chosen]
        begins = np.cumsum(lengths) - lengths
        pieces = np.arange(lengths.sum()) + np.repeat(self.cu_seqlens[chosen] - begins, lengths)
        return pack_rows(self.ids[pieces], lengths, self.second[chosen]), pieces


def check_segments(rows: PieceRows, type_vocab_size: int) -> None:
    """Refuse pairs for a model that knows one segment only, as some RoBERTas do.

    Raises ZhbertError where a row has a second segment and the model no embedding for it.
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
    """Cut rows so that no part has more than ``max_padded_tokens``: its rows times its longest one.

    Nothing is padded here, but an attention's grid of weights is as large as if it were. A row that
    is too long by itself is a part by itself.

    >>> micro_batches(np.arange(5), np.array([2, 2, 3, 8, 8]), 9)
    [array([0, 1, 2]), array([3]), array([4])]

    Args:
        chosen: the numbers of the rows, sorted by their length.
        lengths: pieces of each row, chosen or not.
        max_padded_tokens: of a part.
        max_rows: of a part; 0: any number.
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
    """All rows in batches of like length, the shortest first.

    >>> by_length(np.array([9, 2, 9, 3]), 2, 12)
    [array([1, 3]), array([0]), array([2])]
    """
    order = np.argsort(lengths, kind="stable")
    return [
        part
        for begin in range(0, len(order), max_rows)
        for part in micro_batches(order[begin : begin + max_rows], lengths, max_padded_tokens)
    ]


def padding_share(lengths: NDArray[np.int64], parts: Sequence[NDArray[np.int64]]) -> float:
    """The share of padding that the batches ``parts`` would have, each as wide as its longest row.

    >>> padding_share(np.array([2, 4]), [np.array([0, 1])])
    0.25
    """
    padded = sum(len(part) * int(lengths[part].max(initial=0)) for part in parts)
    pieces = sum(int(lengths[part].sum()) for part in parts)
    return 1 - pieces / padded if padded else 0.0
