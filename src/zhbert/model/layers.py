"""The layers of the encoder, over packed rows: no padding is computed.

Shapes: T = pieces of all rows together, H = hidden size, R = rows, L = the longest row,
A = attention heads, D = H / A.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional

from zhbert.model.config import BertConfig
from zhbert.model.dropout import dropout

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
}
DROPOUT_SITES_PER_LAYER = 3


@dataclass(frozen=True)
class PackedRows:
    """Where each row lies in the packed pieces, and how to pad them inside attention."""

    row_starts: Tensor  # (R + 1,) int, cumulative
    rows: int
    max_length: int
    # Both None when every row has max_length pieces: then padding is a change of shape.
    pad_index: Tensor | None  # (R * L,) int64 into the packed pieces; T where nothing stands
    unpad_index: Tensor | None  # (T,) int64 into the padded grid
    bias: Tensor | None  # (R, 1, 1, L) float: 0 where a piece stands, -inf elsewhere

    @classmethod
    def of(cls, row_starts: Tensor, max_length: int, total: int) -> PackedRows:
        """Describe ``total`` packed pieces cut at ``row_starts``."""
        rows = row_starts.shape[0] - 1
        if total == rows * max_length:
            return cls(row_starts, rows, max_length, None, None, None)
        lengths = row_starts.diff()
        grid = torch.arange(max_length, device=row_starts.device)
        there = grid < lengths[:, None]
        unpad_index = there.flatten().nonzero()[:, 0]
        pad_index = torch.full((rows * max_length,), total, device=row_starts.device)
        pad_index[unpad_index] = torch.arange(total, device=row_starts.device)
        # Finite, so that a row without any piece gives zeros and not NaN.
        bias = torch.zeros(there.shape, device=row_starts.device).masked_fill_(~there, -1e30)
        return cls(row_starts, rows, max_length, pad_index, unpad_index, bias[:, None, None, :])


class _Pad(torch.autograd.Function):
    """(T, ...) -> (R * L, ...). Each piece has one place, so the backward pass is a look-up too."""

    @staticmethod
    def forward(ctx, x: Tensor, pad_index: Tensor, unpad_index: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(pad_index, unpad_index)
        return torch.cat((x, x.new_zeros(1, *x.shape[1:])))[pad_index]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore
        return gradient[ctx.saved_tensors[1]], None, None


class _Unpad(torch.autograd.Function):
    """(R * L, ...) -> (T, ...): the inverse of _Pad."""

    @staticmethod
    def forward(ctx, x: Tensor, pad_index: Tensor, unpad_index: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        ctx.save_for_backward(pad_index, unpad_index)
        return x[unpad_index]

    @staticmethod
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, None, None]:  # type: ignore
        extended = torch.cat((gradient, gradient.new_zeros(1, *gradient.shape[1:])))
        return extended[ctx.saved_tensors[0]], None, None


def padded_attention(
    qkv: Tensor, packed: PackedRows, heads: int, rate: float, key: Tensor | None
) -> Tensor:
    """Attention within each row: (T, 3H) -> (T, H), by batched products over padded rows."""
    if packed.pad_index is not None:
        qkv = _Pad.apply(qkv, packed.pad_index, packed.unpad_index)  # type: ignore
    hidden = qkv.shape[1] // 3
    grid = qkv.view(packed.rows, packed.max_length, 3, heads, hidden // heads)
    query, keys, values = grid.permute(2, 0, 3, 1, 4).unbind(0)  # (R, A, L, D) each
    if key is None or rate == 0.0:
        bias = None if packed.bias is None else packed.bias.to(qkv.dtype)
        context = functional.scaled_dot_product_attention(query, keys, values, attn_mask=bias)
    else:
        scores = query @ (keys * (1.0 / math.sqrt(hidden // heads))).transpose(-1, -2)
        if packed.bias is not None:
            scores = scores + packed.bias
        probabilities = torch.softmax(scores, dim=-1, dtype=torch.float32)
        context = dropout(probabilities, rate, key).to(values.dtype) @ values
    context = context.transpose(1, 2).reshape(packed.rows * packed.max_length, hidden)
    if packed.pad_index is not None:
        context = _Unpad.apply(context, packed.pad_index, packed.unpad_index)  # type: ignore
    return context


class Embeddings(nn.Module):
    """Word + position + segment embeddings, then LayerNorm and dropout."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.words = nn.Embedding(config.vocab_size, hidden)
        self.positions = nn.Embedding(config.max_position_embeddings, hidden)
        self.token_types = nn.Embedding(config.type_vocab_size, hidden)
        self.norm = nn.LayerNorm(hidden, eps=config.layer_norm_eps)
        self.rate = config.hidden_dropout_prob

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        key: Tensor | None = None,
    ) -> Tensor:
        """(T,) ids -> (T, H)."""
        x = self.words(input_ids) + self.positions(position_ids) + self.token_types(token_type_ids)
        return dropout(self.norm(x), self.rate, key)


class Attention(nn.Module):
    """Multi-head self-attention with its output projection; queries, keys and values are fused."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.qkv = nn.Linear(config.hidden_size, 3 * config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.heads = config.num_attention_heads
        self.rate = config.attention_probs_dropout_prob

    def forward(self, x: Tensor, packed: PackedRows, key: Tensor | None = None) -> Tensor:
        """(T, H) -> (T, H)."""
        context = padded_attention(self.qkv(x), packed, self.heads, self.rate, key)
        projected: Tensor = self.output(context)
        return projected


class FeedForward(nn.Module):
    """Two linear maps with an activation between them."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.hidden_size, config.intermediate_size)
        self.outer = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = ACTIVATIONS[config.hidden_act]

    def forward(self, x: Tensor) -> Tensor:
        """(T, H) -> (T, H)."""
        widened: Tensor = self.outer(self.activation(self.inner(x)))
        return widened


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
        self, x: Tensor, packed: PackedRows, keys: Sequence[Tensor | None] = (None, None, None)
    ) -> Tensor:
        """(T, H) -> (T, H)."""
        attended = self.attention(x, packed, keys[0])
        x = self.attention_norm(x + dropout(attended, self.rate, keys[1]))
        widened = self.feed_forward(x)
        normalised: Tensor = self.feed_forward_norm(x + dropout(widened, self.rate, keys[2]))
        return normalised
