"""Batches of rows of different lengths without padding, the input of all models here.

Shapes: R = rows, T = pieces of all rows together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class PackedBatch:
    """Rows concatenated in each tensor; all tensors are on one device."""

    input_ids: Tensor
    """(T,) int64; or the words' vectors (T, H), as transformers' ``inputs_embeds``"""
    token_type_ids: Tensor
    """(T,) int64: 0 in a row's first segment, 1 in its second"""
    position_ids: Tensor
    """(T,) int64: counted from 0 in every row"""
    cu_seqlens: Tensor
    """(R + 1,) int32: the cumulative lengths, that is, the start of each row, and T"""
    max_length: int
    """number of pieces in the longest row"""

    @property
    def num_rows(self) -> int:
        """R"""
        return self.cu_seqlens.shape[0] - 1

    @property
    def num_pieces(self) -> int:
        """T"""
        return self.input_ids.shape[0]


def pack_rows(
    pieces: NDArray[Any], lengths: NDArray[Any], first_lengths: NDArray[Any] | None = None
) -> PackedBatch:
    """Make a batch from the concatenated piece ids of rows.

    >>> batch = pack_rows(np.array([2, 7, 3, 2, 8, 9, 3]), np.array([3, 4]))
    >>> batch.position_ids.tolist(), batch.cu_seqlens.tolist(), batch.max_length
    ([0, 1, 2, 0, 1, 2, 3], [0, 3, 7], 4)

    Args:
        pieces: (T,) ids.
        lengths: (R,) number of pieces in each row.
        first_lengths: (R,) number of pieces in each row's first segment; None: all rows have only
            one segment.
    """
    cu_seqlens = np.zeros(len(lengths) + 1, dtype=np.int32)
    np.cumsum(lengths, out=cu_seqlens[1:])
    position_ids = np.arange(cu_seqlens[-1], dtype=np.int64) - np.repeat(cu_seqlens[:-1], lengths)
    token_type_ids = np.zeros(len(position_ids), dtype=np.int64)
    if first_lengths is not None:
        token_type_ids[:] = position_ids >= np.repeat(first_lengths, lengths)
    return PackedBatch(
        input_ids=torch.from_numpy(pieces.astype(np.int64, copy=False)),
        token_type_ids=torch.from_numpy(token_type_ids),
        position_ids=torch.from_numpy(position_ids),
        cu_seqlens=torch.from_numpy(cu_seqlens),
        max_length=int(lengths.max(initial=0)),
    )
