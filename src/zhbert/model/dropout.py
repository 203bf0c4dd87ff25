"""Counter-based dropout: a hash of (seed, site, row, place in the row) decides on each element.

There is no generator state, so the elements dropped in a step depend on its seed alone: the same
after a restart, eager or compiled. A compiler fuses the hash with the surrounding operations and
computes it again in the backward pass instead of storing a mask. Rows are numbered in the global
batch, so the process and the micro-batch of a row do not matter.

Counter-based generators: Salmon et al. 2011, https://doi.org/10.1145/2063384.2063405. The hashes
are splitmix64 (https://prng.di.unimi.it/splitmix64.c) on the host and lowbias32
(https://github.com/skeeto/hash-prospector) for each element.

Shapes: R = rows, T = pieces of all rows together.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# Multipliers of lowbias32, as int32; the golden ratio spreads the counter.
_SPREAD = -1640531527  # 0x9E3779B9
_FIRST = 0x7FEB352D
_SECOND = -2073254261  # 0x846CA68B

# Attention weights are numbered as if every row had this many pieces, so that their numbers do not
# depend on the padding.
_PIECES_OF_A_ROW = 4096

# Sites are numbered from 0, rows from this number.
_ROWS = 1 << 32

Words = tuple[Tensor, Tensor]
"""Two int32 tensors that broadcast against the input of dropout: the first is added to an element's
index in the last dimension, the second enters the hash after its first multiplication."""


def _mix64(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Mix each 64-bit counter by one step of splitmix64."""
    values = values + np.uint64(0x9E3779B97F4A7C15)
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


@dataclass(frozen=True)
class DropoutKey:
    """The hash key of one dropout site for some rows."""

    site: Tensor  # (2,) int32: the site's two words
    rows: Tensor  # (R, 2) int32: every row's two words
    # (T, 2) int32: the words of each piece's row, the first one advanced to the piece's start.
    pieces: Tensor

    def of_pieces(self) -> Words:
        """Return the words for elements (T, width)."""
        return self._words(self.pieces)

    def of_rows(self) -> Words:
        """Return the words for elements (R, width)."""
        return self._words(self.rows)

    def of_queries(self, heads: int, queries: int) -> Words:
        """Return the words for attention weights (R, heads, queries, keys)."""
        head, query = (
            torch.arange(count, dtype=torch.int32, device=self.rows.device)
            for count in (heads, queries)
        )
        before = (head[:, None] * _PIECES_OF_A_ROW + query) * _PIECES_OF_A_ROW
        start, word = self._words(self.rows[:, None, None])
        return start + before[..., None], word

    def _words(self, places: Tensor) -> Words:
        return places[..., :1] + self.site[0], places[..., 1:] ^ self.site[1]


def dropout_table(seed: int, sites: int, rows: int, first_row: int = 0) -> Tensor:
    """Return the words of all sites and rows, which depend on the seed: (sites + rows, 2) int32.

    Args:
        seed: the seed of the step.
        sites: number of dropout sites.
        rows: number of rows.
        first_row: the index of the first row in the global batch.
    """
    # Hashed twice, since seed and number are combined by xor below, which is symmetric: exchanging
    # the two must give another result.
    start = _mix64(_mix64(np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64)))
    first = _ROWS + first_row
    numbers = np.concatenate([np.arange(sites), np.arange(first, first + rows)])
    bits = _mix64(start ^ _mix64(numbers.astype(np.uint64)))
    return torch.from_numpy(bits.view(np.int32).reshape(-1, 2))


def dropout_keys(
    table: Tensor, row: Tensor, position: Tensor, *, rows: int, width: int
) -> tuple[DropoutKey, ...]:
    """Make the keys of all dropout sites.

    Args:
        table: the words of sites and rows (`dropout_table`), on the device of the pieces.
        row: (T,) int64, the row of each piece, counted from 0.
        position: (T,) int64, the position of each piece in its row.
        rows: number of rows.
        width: number of elements of a piece.
    """
    sites = table.shape[0] - rows
    of_rows = table[sites:].clone()
    pieces = of_rows[row]
    pieces[:, 0] += position * width
    # Copies, since the compiler would compile a layer again for each offset of a view.
    return tuple(DropoutKey(site.clone(), of_rows, pieces) for site in table[:sites])


def seed_cuda(seed: int, first_row: int = 0) -> None:
    """Seed CUDA's generator, from which the dropout inside of CUDA's attention is drawn."""
    torch.cuda.manual_seed((seed + (first_row << 20)) & 0x7FFFFFFFFFFFFFFF)


def keep_mask(length: int, rate: float, words: Words) -> Tensor:
    """Return which elements to keep: bool, the words' shape with ``length`` as last dimension.

    One word enters before and one after a multiplication: with one word, the sequences of two keys
    would be shifted copies of each other.
    """
    start, word = words
    # Addition before multiplication: the compiler would compute a product of the index alone at
    # compile time, in numbers too wide for the GPU's 32 bits.
    bits = (torch.arange(length, dtype=torch.int32, device=start.device) + start) * _SPREAD
    bits = (bits ^ ((bits >> 16) & 0xFFFF)) * _FIRST ^ word
    bits = (bits ^ ((bits >> 15) & 0x1FFFF)) * _SECOND
    bits = bits ^ ((bits >> 16) & 0xFFFF)
    return bits >= int(rate * 2**32) - 2**31


class _Dropout(torch.autograd.Function):
    """Dropout in eager mode; keeps one byte per element for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float, start: Tensor, word: Tensor) -> Tensor:
        keep = keep_mask(x.shape[-1], rate, (start, word))
        ctx.save_for_backward(keep)
        ctx.scale = 1.0 / (1.0 - rate)
        return (x * keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (keep,) = ctx.saved_tensors
        return (gradient * keep).mul_(ctx.scale), None, None, None


def dropout(x: Tensor, rate: float, words: Words | None) -> Tensor:
    """Zero a share ``rate`` of ``x``; scale the rest by 1 / (1 - rate). None: no dropout."""
    if words is None or rate == 0.0:
        return x
    if torch.compiler.is_compiling():
        keep = keep_mask(x.shape[-1], rate, words)
        return torch.where(keep, x * (1.0 / (1.0 - rate)), 0.0)
    result: Tensor = _Dropout.apply(x, rate, *words)  # type: ignore[no-untyped-call]
    return result
