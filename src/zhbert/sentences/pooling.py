"""Pooling: one vector for each row from the encoder's vectors of its pieces.

The names and results are those of sentence-transformers' ``Pooling`` module. Shapes: R = rows,
T = pieces of all rows together, H = hidden size.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.wording import listed


@dataclass(frozen=True)
class PooledPieces:
    """The pieces of each row that are pooled: all of them, or those behind a prompt."""

    hidden: Tensor
    """(T, H) float"""
    lengths: Tensor
    """(R,) int64; 0 if a row consists of the prompt alone"""
    offsets: Tensor
    """(R + 1,) int64: the cumulative lengths"""
    rows: Tensor
    """(T,) int64: the row of each piece"""
    places: Tensor
    """(T,) int64: the place of each piece in its whole row, from 0"""
    first: Tensor
    """(R, H): the first of each row's pieces; that of the whole row if no piece is pooled"""
    last: Tensor
    """(R, H): the last of each row's pieces; zeros if no piece is pooled"""

    @classmethod
    def of(cls, hidden: Tensor, cu_seqlens: Tensor, prompt_length: int = 0) -> PooledPieces:
        """Return the pieces of packed rows without the first ``prompt_length`` of each row."""
        offsets = cu_seqlens.long()
        lengths = offsets.diff()
        rows = torch.arange(len(lengths), device=hidden.device)
        rows = rows.repeat_interleave(lengths, output_size=len(hidden))
        places = torch.arange(len(hidden), device=hidden.device) - offsets[rows]
        some = lengths > prompt_length
        first = hidden[offsets[:-1] + prompt_length * some]
        last = hidden[offsets[1:] - 1] * some[:, None]
        if prompt_length:
            behind = places >= prompt_length
            hidden, rows, places = hidden[behind], rows[behind], places[behind]
            lengths = (lengths - prompt_length).clamp(min=0)
            offsets = torch.cat((offsets[:1], lengths.cumsum(0)))
        return cls(hidden, lengths, offsets, rows, places, first, last)

    @cached_property
    def sums(self) -> Tensor:
        """The sum of each row's pieces: (R, H)."""
        return self.summed(self.hidden)

    def summed(self, values: Tensor) -> Tensor:
        """Sum (T, n) over the pieces of each row: (R, n)."""
        zeros = values.new_zeros(len(self.lengths), values.shape[1])
        return zeros.index_add(0, self.rows, values)

    @property
    def counts(self) -> Tensor:
        """The lengths as (R, 1) float, with a tiny number in place of 0."""
        return self.lengths[:, None].to(self.hidden.dtype).clamp(min=1e-9)


def _weighted_mean(pieces: PooledPieces) -> Tensor:
    # Later pieces count more (https://arxiv.org/abs/2202.08904). The weights count the prompt.
    weights = (pieces.places[:, None] + 1).to(pieces.hidden.dtype)
    return pieces.summed(pieces.hidden * weights) / pieces.summed(weights).clamp(min=1e-9)


POOLING_MODES: Mapping[str, Callable[[PooledPieces], Tensor]] = {
    "cls": lambda pieces: pieces.first,
    "max": lambda pieces: torch.segment_reduce(
        pieces.hidden, "max", offsets=pieces.offsets, axis=0
    ),
    "mean": lambda pieces: pieces.sums / pieces.counts,
    "mean_sqrt_len_tokens": lambda pieces: pieces.sums / pieces.counts.sqrt(),
    "weightedmean": _weighted_mean,
    "lasttoken": lambda pieces: pieces.last,
}
"""The modes by their names in sentence-transformers, in the order in which it concatenates them."""


def pool(
    hidden: Tensor, cu_seqlens: Tensor, modes: Sequence[str], *, prompt_length: int = 0
) -> Tensor:
    """Pool the pieces of packed rows: (T, H) -> (R, H times the number of modes).

    >>> hidden = torch.tensor([[1.0, 4.0], [3.0, 2.0], [5.0, 5.0]])
    >>> pool(hidden, torch.tensor([0, 2, 3]), ["mean", "max"]).tolist()
    [[2.0, 3.0, 3.0, 4.0], [5.0, 5.0, 5.0, 5.0]]

    Args:
        hidden: the encoder's output, of any float dtype; the result is float32.
        cu_seqlens: (R + 1,) cumulative lengths of the rows.
        modes: names in ``POOLING_MODES``; several are concatenated in this order.
        prompt_length: the number of pieces at the beginning of each row that are not pooled.
    """
    pieces = PooledPieces.of(hidden.float(), cu_seqlens, prompt_length)
    pooled = [POOLING_MODES[mode](pieces) for mode in modes]
    return pooled[0] if len(pooled) == 1 else torch.cat(pooled, dim=-1)


def check_modes(modes: Sequence[str], where: str) -> None:
    """Raise a ZhbertError if there is no mode, or one that is not in ``POOLING_MODES``."""
    unknown = [mode for mode in modes if mode not in POOLING_MODES]
    if unknown or not modes:
        said = f"{unknown[0]!r} is not known" if unknown else "no mode is given"
        raise ZhbertError(f"{where}: pooling: {said}; known: {listed(POOLING_MODES)}")
