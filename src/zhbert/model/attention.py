"""Attention over packed rows, so that the rest of the model computes no padding.

Shapes: T = pieces of all rows together, H = hidden size, R = rows, L = length of the longest row,
Q = queries: the pieces whose new state is computed (all T, or a ``QuerySubset``).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zhbert.model import flash, native
from zhbert.model.config import BertConfig
from zhbert.model.dropout import DropoutKey, dropout
from zhbert.packing import PackedBatch


@dataclass(frozen=True)
class RowGrid:
    """Indices that pad rows for attention by products, and the bias of the padding."""

    equal: bool  # every row has L pieces: padding is a change of shape
    pad_index: Tensor  # (R * L,) int64 into the packed pieces; T at padding
    unpad_index: Tensor  # (T,) int64 into the padded grid
    bias: Tensor  # (R, 1, 1, L) float: 0 for a piece, very low for padding

    @classmethod
    def of(cls, layout: RowLayout) -> RowGrid:
        """Make the indices for some rows."""
        starts, length, total = layout.cu_seqlens.long(), layout.max_length, layout.total
        there = torch.arange(length, device=starts.device) < starts.diff()[:, None]
        place = torch.arange(length, device=starts.device) + starts[:-1, None]
        row, position = layout.places()
        # Finite, so that a row without any piece does not give NaN.
        bias = torch.zeros(there.shape, device=starts.device).masked_fill_(~there, -1e30)
        return cls(
            equal=total == len(there) * length,
            pad_index=torch.where(there, place, total).view(-1),
            unpad_index=row * length + position,
            bias=bias[:, None, None, :],
        )


@dataclass
class RowLayout:
    """The places of the rows among the packed pieces."""

    cu_seqlens: Tensor  # (R + 1,) int32
    max_length: int  # of a row, or more
    total: int  # T
    flash: bool  # the device has flash attention, which needs no grid
    _grid: RowGrid | None = None

    @classmethod
    def of(cls, cu_seqlens: Tensor, max_length: int, total: int) -> RowLayout:
        """Describe ``total`` packed pieces, without synchronising with the GPU."""
        return cls(cu_seqlens.int(), max_length, total, flash.available(cu_seqlens.device))

    @classmethod
    def of_batch(cls, batch: PackedBatch) -> RowLayout:
        """Describe a batch's rows."""
        return cls.of(batch.cu_seqlens, batch.max_length, batch.num_pieces)

    @property
    def grid(self) -> RowGrid:
        """The indices for padding, made when they are first needed."""
        if self._grid is None:
            self._grid = RowGrid.of(self)
        return self._grid

    def places(self) -> tuple[Tensor, Tensor]:
        """Return each piece's row and its position in the row: (T,) int64 each."""
        piece = torch.arange(self.total, dtype=torch.int32, device=self.cu_seqlens.device)
        row = torch.searchsorted(self.cu_seqlens[1:], piece, right=True)
        return row, (piece - self.cu_seqlens[row]).long()


@dataclass(frozen=True)
class QuerySubset:
    """The pieces whose last state is computed: each row's first piece, and the predicted ones."""

    positions: Tensor  # (Q,) int64 into the packed pieces, increasing
    layout: RowLayout  # of these pieces alone, grouped by rows
    first: Tensor | None  # (R,) int64 into positions: the rows' first pieces
    predicted: Tensor  # (P,) int64 into positions

    @classmethod
    def of(cls, layout: RowLayout, predicted: Tensor, with_first: bool) -> QuerySubset:
        """Describe ``predicted`` (increasing, never a row's first piece) and the first pieces."""
        starts, rows = layout.cu_seqlens.long(), layout.cu_seqlens.shape[0] - 1
        before = torch.searchsorted(predicted, starts)  # predictions before each row
        device = predicted.device
        if not with_first:
            positions, query_starts, first = predicted, before, None
            places = torch.arange(predicted.shape[0], device=device)
        else:
            query_starts = before + torch.arange(rows + 1, device=device)
            first = query_starts[:-1]
            row = torch.searchsorted(starts[1:], predicted, right=True)
            places = torch.arange(predicted.shape[0], device=device) + row + 1
            positions = predicted.new_empty(rows + predicted.shape[0])
            # A row without any piece, as at a padded batch's end, takes any other's state.
            positions[first] = starts[:-1].clamp_max(layout.total - 1)
            positions[places] = predicted
        # The maximum number of queries in one row. On a GPU an upper bound is used, since the
        # exact number would need a synchronisation.
        longest = layout.max_length
        if device.type == "cpu":
            longest = max(int(query_starts.diff().max()), 1) if rows else 1
        own = RowLayout.of(query_starts, longest, positions.shape[0])
        return cls(positions, own, first, places)

    @classmethod
    def of_first(cls, layout: RowLayout) -> QuerySubset:
        """Describe the rows' first pieces alone."""
        none = torch.empty(0, dtype=torch.int64, device=layout.cu_seqlens.device)
        return cls.of(layout, none, with_first=True)


class _Pad(torch.autograd.Function):
    """(T, ...) -> (R * L, ...). Each piece has one place, so its gradient is a look-up, too."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pad_index: Tensor, unpad_index: Tensor) -> Tensor:
        ctx.save_for_backward(pad_index, unpad_index)
        return torch.cat((x, x.new_zeros(1, x.shape[1])))[pad_index]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return gradient[ctx.saved_tensors[1]], None, None


class _Unpad(torch.autograd.Function):
    """(R * L, ...) -> (T, ...): the inverse of _Pad."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pad_index: Tensor, unpad_index: Tensor) -> Tensor:
        ctx.save_for_backward(pad_index, unpad_index)
        return x[unpad_index]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        extended = torch.cat((gradient, gradient.new_zeros(1, gradient.shape[1])))
        return extended[ctx.saved_tensors[0]], None, None


def pad(x: Tensor, layout: RowLayout) -> Tensor:
    """Pad rows with zeros: (T, C) -> (R, L, C)."""
    grid = layout.grid
    # Compiled, the look-up is fused into a copy that is needed anyway, and one graph fits all rows.
    if torch.compiler.is_compiling() or not grid.equal:
        x = _Pad.apply(x, grid.pad_index, grid.unpad_index)  # type: ignore[no-untyped-call]
    return x.view(grid.bias.shape[0], grid.bias.shape[3], -1)


def unpad(x: Tensor, layout: RowLayout) -> Tensor:
    """Remove the padding of rows: (R, L, C) -> (T, C)."""
    grid = layout.grid
    x = x.reshape(grid.bias.shape[0] * grid.bias.shape[3], -1)
    if not torch.compiler.is_compiling() and grid.equal:
        return x
    packed: Tensor = _Unpad.apply(x, grid.pad_index, grid.unpad_index)  # type: ignore[no-untyped-call]
    return packed


def attend(
    query: Tensor | None,
    packed: Tensor,
    layout: RowLayout,
    subset: QuerySubset | None = None,
    *,
    heads: int,
    rate: float = 0.0,
    key: DropoutKey | None = None,
) -> Tensor:
    """Attend from each row's queries to its keys and values -> (Q, H).

    The method depends on the device, the precision and on whether gradients are needed; the
    results differ only by rounding, and on a GPU in half precision by what is dropped.

    Args:
        query: (Q, H); None: the first third of ``packed``.
        packed: (T, 2H), keys and values; or (T, 3H), queries, keys and values.
        layout: the rows of keys and values.
        subset: the queries; None: all T pieces.
        heads: number of heads, a divisor of H.
        rate, key: dropout rate of the probabilities, and its key; no dropout without a key.
    """
    own = layout if subset is None else subset.layout
    rate = rate if key is not None else 0.0
    size = packed.shape[1] // (3 if query is None else 2) // heads
    if own.total and layout.flash and flash.serves(packed.dtype, size):
        rows = own.cu_seqlens, layout.cu_seqlens, own.max_length, layout.max_length
        attended: Tensor = flash.flash_attention(query, packed, *rows, heads, rate)[0]
        return attended
    if query is None:
        query, keys, values = packed.chunk(3, dim=1)
    else:
        keys, values = packed.chunk(2, dim=1)
    if not query.shape[0]:
        return query
    if subset is None and rate == 0.0 and native.serves_attention(query, size):
        cuts = layout.cu_seqlens.long()
        return native.packed_attention(query, keys, values, cuts, cuts, heads)
    grid = layout.grid
    bias = None if not torch.compiler.is_compiling() and grid.equal else grid.bias
    padded = (pad(query, own), pad(keys, layout), pad(values, layout))
    return unpad(padded_attention(*padded, bias, heads, rate, key), own)


# Maximum row length for which half-precision training on a CPU uses plain products in attention.
_SHORT_ROW = 256


def padded_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    bias: Tensor | None,
    heads: int,
    rate: float,
    key: DropoutKey | None,
) -> Tensor:
    """Attend in padded rows, by products batched over heads.

    (R, L', H), (R, L, H), (R, L, H) -> (R, L', H)
    """
    rows, queries, hidden = query.shape
    size = hidden // heads
    query = query.view(rows, queries, heads, size).transpose(1, 2)
    keys = keys.view(rows, -1, heads, size).transpose(1, 2)
    values = values.view(rows, -1, heads, size).transpose(1, 2)
    key = key if rate else None
    # In half precision the fused backward pass of short rows takes three to five times as long as
    # the products; for long rows, writing and reading the scores would take longer. A GPU comes
    # here in float32 only, where the fused backward pass with a mask was off by 2 % (torch 2.11).
    short = query.dtype != torch.float32 and keys.shape[2] <= _SHORT_ROW
    if key is None and not ((short or query.is_cuda) and query.requires_grad):
        mask = None if bias is None else bias.to(query.dtype)
        context = functional.scaled_dot_product_attention(query, keys, values, attn_mask=mask)
    else:
        scores = (query * (1.0 / math.sqrt(size))) @ keys.transpose(-1, -2)
        if bias is not None:
            scores = scores + bias
        probabilities = torch.softmax(scores, dim=-1, dtype=torch.float32)
        if key is not None:
            probabilities = dropout(probabilities, rate, key.of_queries(heads, queries))
        context = probabilities.to(values.dtype) @ values
    return context.transpose(1, 2).reshape(rows, queries, hidden)


class Attention(nn.Module):
    """BERT's multi-head self-attention; queries, keys and values come from one linear map.

    A replacement needs the same ``forward``, and a linear map ``output`` (H -> H), which the block
    applies to the result, since it can add the block's input in the same step.
    """

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.heads = config.num_attention_heads
        self.size = config.hidden_size // config.num_attention_heads
        self.rate = config.attention_probs_dropout_prob

    def forward(
        self,
        own: Tensor,
        x: Tensor,
        layout: RowLayout,
        subset: QuerySubset | None = None,
        key: DropoutKey | None = None,
    ) -> Tensor:
        """Attend from ``own`` (Q, H) to ``x`` (T, H) -> (Q, H), before the output map.

        Args:
            own: the states of the queries: ``x`` itself, or those of ``subset``.
            x: the states of all pieces.
            layout: the rows of ``x``.
            subset: the queries; None: all pieces.
            key: of the probabilities' dropout.
        """
        if subset is None or not native.is_plain(self.qkv):
            return self.attended(native.linear(self.qkv, x), layout, subset, key)
        # Only the columns that are needed.
        query = self._mapped(own, slice(x.shape[1]))
        if self._takes_states(x, key) and 4 * len(own) < len(x):
            return self._attend_to_states(query, x, layout, subset)
        packed = self._mapped(x, slice(x.shape[1], None))
        return attend(query, packed, layout, subset, heads=self.heads, rate=self.rate, key=key)

    def attended(
        self,
        qkv: Tensor,
        layout: RowLayout,
        subset: QuerySubset | None = None,
        key: DropoutKey | None = None,
    ) -> Tensor:
        """Attend with the queries, keys and values of all pieces: (T, 3H) -> (Q, H)."""
        query = None
        if subset is not None:
            hidden = qkv.shape[1] // 3
            query, qkv = qkv[:, :hidden][subset.positions], qkv[:, hidden:]
        return attend(query, qkv, layout, subset, heads=self.heads, rate=self.rate, key=key)

    def _mapped(self, x: Tensor, columns: slice) -> Tensor:
        """Compute some columns of queries, keys and values by a plain linear map."""
        return functional.linear(x, self.qkv.weight[columns], self.qkv.bias[columns])

    def _takes_states(self, x: Tensor, key: DropoutKey | None) -> bool:
        """Return True if ``_attend_to_states`` can be used: in prediction without autocast."""
        # With autocast, x has full precision, but keys and values would not have it.
        exact = (key is None or self.rate == 0.0) and not torch.is_autocast_enabled("cpu")
        return exact and native.serves_attention(x, x.shape[1])

    def _attend_to_states(
        self, query: Tensor, x: Tensor, layout: RowLayout, subset: QuerySubset
    ) -> Tensor:
        """Attend with few queries, without computing the keys and values of all pieces.

        q . (K x) = (K' q) . x, and the weighted mean of V x is V of the weighted mean of x. So each
        head's query is mapped by the transposed key matrix and attends to the states themselves;
        the value matrix maps the result. The keys' bias adds the same number to all scores of a
        query and so cancels in the softmax; the values' bias is added to the mean.
        """
        count, hidden = query.shape
        weight = self.qkv.weight.view(3, self.heads, self.size, hidden)
        query = query.view(count, self.heads, self.size).transpose(0, 1)
        # The kernel divides scores by the root of the head size, here H, instead of H / heads.
        asked = (query * math.sqrt(self.heads)) @ weight[1]
        mixed = native.packed_attention(
            asked.transpose(0, 1).reshape(-1, hidden),
            x, x, subset.layout.cu_seqlens.long() * self.heads, layout.cu_seqlens.long(), heads=1,
        )  # fmt: skip
        values = mixed.view(count, self.heads, hidden).transpose(0, 1) @ weight[2].transpose(1, 2)
        return values.transpose(0, 1).reshape(count, hidden) + self.qkv.bias[2 * hidden :]
