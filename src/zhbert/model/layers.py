"""The layers of the encoder, over packed rows: no padding is computed.

Shapes: T = pieces of all rows together, H = hidden size, R = rows, L = the longest row, Q = pieces
whose state is wanted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zhbert.model import native
from zhbert.model.config import BertConfig
from zhbert.model.dropout import DropoutKey, dropout
from zhbert.packing import PackedBatch

DROPOUT_SITES_PER_LAYER = 3
NO_DROPOUT = (None,) * DROPOUT_SITES_PER_LAYER


@dataclass(frozen=True)
class RowLayout:
    """Where each row lies among the packed pieces, and how to pad the rows inside attention."""

    cu_seqlens: Tensor  # (R + 1,) int64
    max_length: int
    equal: bool  # every row has max_length pieces: padding is a change of shape
    pad_index: Tensor  # (R * L,) int64 into the packed pieces; T where nothing stands
    unpad_index: Tensor  # (T,) int64 into the padded grid
    bias: Tensor  # (R, 1, 1, L) float: 0 where a piece stands, very low elsewhere

    @classmethod
    def of(cls, cu_seqlens: Tensor, max_length: int, total: int) -> RowLayout:
        """Describe ``total`` packed pieces. Must not synchronise with the GPU."""
        starts = cu_seqlens.long()
        rows = starts.shape[0] - 1
        grid = torch.arange(max_length, device=starts.device)
        there = grid < starts.diff()[:, None]
        place = torch.where(there, starts[:-1, None] + grid, total)
        piece = torch.arange(total, device=starts.device)
        row = torch.searchsorted(starts[1:], piece, right=True)
        unpad_index = row * max_length + piece - starts[row]
        # Finite, so that a row without any piece gives numbers and not NaN.
        bias = torch.zeros(there.shape, device=starts.device).masked_fill_(~there, -1e30)
        return cls(
            cu_seqlens=starts,
            max_length=max_length,
            equal=total == rows * max_length,
            pad_index=place.view(-1),
            unpad_index=unpad_index,
            bias=bias[:, None, None, :],
        )

    @classmethod
    def of_batch(cls, batch: PackedBatch) -> RowLayout:
        """Where a batch's rows lie."""
        return cls.of(batch.cu_seqlens, batch.max_length, batch.num_pieces)

    def places(self) -> tuple[Tensor, Tensor]:
        """(T,) int64 each: the row of every piece, and its place in the row."""
        return self.unpad_index // self.max_length, self.unpad_index % self.max_length


@dataclass(frozen=True)
class QuerySubset:
    """The pieces whose last state is wanted: each row's first, and the predicted ones."""

    positions: Tensor  # (Q,) int64 into the packed pieces, increasing
    rows: RowLayout  # the same pieces as rows of their own
    first: Tensor | None  # (R,) int64 into positions: the rows' first pieces
    predicted: Tensor  # (P,) int64 into positions

    @classmethod
    def of(cls, packed: RowLayout, predicted: Tensor, with_first: bool) -> QuerySubset:
        """Describe ``predicted`` (increasing, never a row's first piece) and the first pieces."""
        starts, rows = packed.cu_seqlens, packed.cu_seqlens.shape[0] - 1
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
            positions[first] = starts[:-1]
            positions[places] = predicted
        # The most in one row; on a GPU an upper bound, for the figure itself would have to be
        # waited for.
        longest = packed.max_length
        if device.type == "cpu":
            longest = max(int(query_starts.diff().max()), 1) if rows else 1
        own = RowLayout.of(query_starts, longest, positions.shape[0])
        return cls(positions, own, first, places)


class _Pad(torch.autograd.Function):
    """(T, ...) -> (R * L, ...). Each piece has one place, so the backward pass is a look-up too."""

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


def pad(x: Tensor, rows: RowLayout) -> Tensor:
    """(T, C) -> (R, L, C), zeros where no piece stands."""
    # Compiled, the look-up is part of a copy that is made anyway, and one graph serves all rows.
    if torch.compiler.is_compiling() or not rows.equal:
        x = _Pad.apply(x, rows.pad_index, rows.unpad_index)  # type: ignore[no-untyped-call]
    return x.view(rows.bias.shape[0], rows.bias.shape[3], -1)


def unpad(x: Tensor, rows: RowLayout) -> Tensor:
    """(R, L, C) -> (T, C)."""
    x = x.reshape(rows.bias.shape[0] * rows.bias.shape[3], -1)
    if not torch.compiler.is_compiling() and rows.equal:
        return x
    packed: Tensor = _Unpad.apply(x, rows.pad_index, rows.unpad_index)  # type: ignore[no-untyped-call]
    return packed


def _mask(rows: RowLayout) -> Tensor | None:
    return None if not torch.compiler.is_compiling() and rows.equal else rows.bias


# Pieces up to which training in half precision computes attention by plain products (on a CPU).
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
    """(R, L', H), (R, L, H), (R, L, H) -> (R, L', H), by products over batches of heads."""
    rows, queries, hidden = query.shape
    size = hidden // heads
    query = query.view(rows, queries, heads, size).transpose(1, 2)
    keys = keys.view(rows, -1, heads, size).transpose(1, 2)
    values = values.view(rows, -1, heads, size).transpose(1, 2)
    key = key if rate else None
    # In half precision the fused backward pass of short rows takes three to five times as long as
    # the products; long rows have too many scores to be written and read again.
    short = query.dtype != torch.float32 and keys.shape[2] <= _SHORT_ROW
    if key is None and not (short and query.requires_grad):
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


# torch.compiler.disable would import the whole compiler here, which doubles every verb's start-up;
# this is what PyTorch uses inside: it imports the compiler when the function is first called.
@torch._disable_dynamo  # type: ignore[attr-defined]
def jagged_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    query_rows: RowLayout,
    rows: RowLayout,
    heads: int,
    rate: float,
) -> Tensor:
    """The same over packed rows, (Q, H), (T, H), (T, H) -> (Q, H), without any padding.

    In half precision this is PyTorch's flash attention for rows of different lengths. With dropout,
    which that does not offer, and in float32, jagged tensors lead to the same kernel or to the
    memory-efficient one, after thousands of calls in Python; on a CPU to a slow loop, which is how
    the tests run it. Dropout there is the kernel's own, from CUDA's generator.
    """
    size = query.shape[1] // heads
    if query.is_cuda and rate == 0.0 and query.dtype != torch.float32:
        from torch.nn.attention.varlen import varlen_attn

        flash: Any = varlen_attn  # what it returns depends on an argument that is not given here
        flat: Tensor = flash(
            query.reshape(-1, heads, size),
            keys.reshape(-1, heads, size),
            values.reshape(-1, heads, size),
            query_rows.cu_seqlens.int(),
            rows.cu_seqlens.int(),
            query_rows.max_length,
            rows.max_length,
        )
        return flat.reshape(query.shape)

    def jagged(x: Tensor, where: RowLayout) -> Tensor:
        # A smallest length of 1 is only a promise that keeps PyTorch from asking the GPU for it.
        nested = torch.nested.nested_tensor_from_jagged(
            x.reshape(-1, heads, size),
            where.cu_seqlens,
            min_seqlen=1,
            max_seqlen=where.max_length,
        )
        return nested.transpose(1, 2)

    context = functional.scaled_dot_product_attention(
        jagged(query, query_rows), jagged(keys, rows), jagged(values, rows), dropout_p=rate
    )
    packed: Tensor = context.transpose(1, 2).values()
    return packed.reshape(query.shape)


def _table(rows: int, width: int) -> nn.Embedding:
    """An embedding that nobody has initialised: the model does it itself, or reads its weights.

    nn.Embedding's own initialisation would draw every number in vain; without data (device "meta")
    it even imports PyTorch's compiler, which takes as long as importing PyTorch.
    """
    blank = torch.empty(rows, width)
    table: nn.Embedding = nn.Embedding.from_pretrained(blank, freeze=False)  # type: ignore[no-untyped-call]
    return table


class Embeddings(nn.Module):
    """Word + position + segment embeddings, then LayerNorm and dropout."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.words = _table(config.vocab_size, hidden)
        self.positions = _table(config.max_position_embeddings, hidden)
        self.token_types = _table(config.type_vocab_size, hidden)
        self.norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.rate = config.hidden_dropout_prob

    def look_up(self, input_ids: Tensor, token_type_ids: Tensor, position_ids: Tensor) -> Tensor:
        """(T,) ids -> (T, H), the sum of three embeddings."""
        total: Tensor = (
            self.words(input_ids) + self.positions(position_ids) + self.token_types(token_type_ids)
        )
        return total

    def finish(self, total: Tensor, key: DropoutKey | None = None) -> Tensor:
        """(T, H) -> (T, H), normalised and dropped out."""
        return dropout(self.norm(total), self.rate, key.of_pieces() if key else None)


class Attention(nn.Module):
    """Multi-head self-attention up to its output projection; queries, keys and values are fused."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.heads = config.num_attention_heads
        self.size = config.hidden_size // config.num_attention_heads
        self.rate = config.attention_probs_dropout_prob

    def forward(self, x: Tensor, packed: RowLayout, key: DropoutKey | None = None) -> Tensor:
        """(T, H) -> (T, H)."""
        qkv = native.linear(self.qkv, x)
        if x.device.type == "cuda":
            query, keys, values = qkv.chunk(3, dim=1)
            context: Tensor = jagged_attention(
                query, keys, values, packed, packed, self.heads, self._dropped(key)
            )
            return context
        if self._dropped(key) == 0.0 and native.serves_attention(qkv, self.size):
            query, keys, values = qkv.chunk(3, dim=1)
            cuts = packed.cu_seqlens
            return native.packed_attention(query, keys, values, cuts, cuts, self.heads)
        query, keys, values = pad(qkv, packed).chunk(3, dim=2)
        mask = _mask(packed)
        context = padded_attention(query, keys, values, mask, self.heads, self.rate, key)
        return unpad(context, packed)

    def at(
        self,
        wanted_x: Tensor,
        wanted: RowLayout,
        x: Tensor,
        packed: RowLayout,
        key: DropoutKey | None = None,
    ) -> Tensor:
        """Attention from some pieces (Q, H) to all (T, H) -> (Q, H)."""
        hidden = x.shape[1]
        plain = native.is_plain(self.qkv)
        query = self._part(wanted_x, slice(hidden), plain)
        # Autocast leaves x in full precision: its products are not made here.
        exact = self._dropped(key) == 0.0 and native.serves_attention(x, hidden)
        few = 4 * len(wanted_x) < len(x)
        if plain and few and exact and not torch.is_autocast_enabled("cpu"):
            return self._at_few(query, wanted, x, packed)
        both = self._part(x, slice(hidden, None), plain)
        if x.device.type == "cuda":
            keys, values = both.chunk(2, dim=1)
            context: Tensor = jagged_attention(
                query, keys, values, wanted, packed, self.heads, self._dropped(key)
            )
            return context
        keys, values = pad(both, packed).chunk(2, dim=2)
        mask = _mask(packed)
        context = padded_attention(
            pad(query, wanted), keys, values, mask, self.heads, self.rate, key
        )
        return unpad(context, wanted)

    def _part(self, x: Tensor, columns: slice, plain: bool) -> Tensor:
        """Some columns of queries, keys and values: only these are computed where that is known."""
        if not plain:
            all_columns: Tensor = self.qkv(x)
            return all_columns[:, columns]
        return functional.linear(x, self.qkv.weight[columns], self.qkv.bias[columns])

    def _at_few(self, query: Tensor, wanted: RowLayout, x: Tensor, packed: RowLayout) -> Tensor:
        """The same without the keys and values of all pieces, for few queries.

        q . (K x) = (K' q) . x, and a weighted mean of V x is V of the weighted mean of x: so each
        head's query goes through the transposed keys' map, looks at the pieces themselves, and
        what it takes from them goes through the values' map. The keys' bias adds the same to all
        scores of a query and falls out of the softmax; the values' bias is added to the mean.
        """
        count, hidden = query.shape
        weight = self.qkv.weight.view(3, self.heads, self.size, hidden)
        query = query.view(count, self.heads, self.size).transpose(0, 1)
        # The scores will be divided by the root of this head's size, which is H.
        asked = (query * math.sqrt(self.heads)) @ weight[1]
        mixed = native.packed_attention(
            asked.transpose(0, 1).reshape(-1, hidden),
            x, x, wanted.cu_seqlens * self.heads, packed.cu_seqlens, heads=1,
        )  # fmt: skip
        values = mixed.view(count, self.heads, hidden).transpose(0, 1) @ weight[2].transpose(1, 2)
        return values.transpose(0, 1).reshape(count, hidden) + self.qkv.bias[2 * hidden :]

    def _dropped(self, key: DropoutKey | None) -> float:
        return self.rate if key is not None else 0.0


class FeedForward(nn.Module):
    """A linear map to more dimensions and an activation, up to the linear map back."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.hidden_size, config.intermediate_size)
        self.outer = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = config.hidden_act

    def forward(self, x: Tensor) -> Tensor:
        """(T, H) -> (T, intermediate size)."""
        return native.linear(self.inner, x, activation=self.activation)


class Block(nn.Module):
    """One layer: attention, then feed-forward, each added to its input and normalised after."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.rate = config.hidden_dropout_prob

    def forward(
        self, x: Tensor, packed: RowLayout, keys: Sequence[DropoutKey | None] = NO_DROPOUT
    ) -> Tensor:
        """(T, H) -> (T, H)."""
        return self._finish(x, self.attention(x, packed, keys[0]), keys)

    def at(
        self,
        wanted_x: Tensor,
        wanted: RowLayout,
        x: Tensor,
        packed: RowLayout,
        keys: Sequence[DropoutKey | None] = NO_DROPOUT,
    ) -> Tensor:
        """The same for some pieces only, (Q, H) of the (T, H) -> (Q, H)."""
        context = self.attention.at(wanted_x, wanted, x, packed, keys[0])
        return self._finish(wanted_x, context, keys)

    def _finish(self, x: Tensor, context: Tensor, keys: Sequence[DropoutKey | None]) -> Tensor:
        x = self.attention_norm(self._added(x, self.attention.output, context, keys[1]))
        widened = self.feed_forward(x)
        normalised: Tensor = self.feed_forward_norm(
            self._added(x, self.feed_forward.outer, widened, keys[2])
        )
        return normalised

    def _added(self, x: Tensor, layer: nn.Linear, change: Tensor, key: DropoutKey | None) -> Tensor:
        """x + the layer's map of ``change``, dropped out."""
        if key is None or self.rate == 0.0:
            return native.linear(layer, change, added_to=x)
        return x + dropout(layer(change), self.rate, key.of_pieces())
