"""The parts of the encoder, over packed rows: embeddings, and blocks made of replaceable layers.

Shapes: T = pieces of all rows together, H = hidden size, Q = pieces whose new state is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from zhbert.model import native
from zhbert.model.activations import activation_named
from zhbert.model.attention import Attention, QuerySubset, RowLayout
from zhbert.model.config import BertConfig
from zhbert.model.dropout import DropoutKey, dropout

DROPOUT_SITES_PER_LAYER = 3
NO_DROPOUT = (None,) * DROPOUT_SITES_PER_LAYER


def layer_norm(config: BertConfig) -> nn.Module:
    """Make BERT's norm: https://arxiv.org/abs/1607.06450."""
    return nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)


@dataclass(frozen=True)
class Layers:
    """The functions that make a model's layers; each gets the configuration.

    >>> rms = Layers(norm=lambda config: nn.RMSNorm(config.hidden_size))
    >>> rms.norm(BertConfig(hidden_size=24))
    RMSNorm((24,), eps=None, elementwise_affine=True)
    """

    attention: Callable[[BertConfig], Any] = Attention
    """makes a module with the ``forward`` and the ``output`` of ``Attention``"""
    norm: Callable[[BertConfig], nn.Module] = layer_norm
    """makes a module (..., H) -> (..., H), used after the embeddings, in blocks and in a head"""


BERT_LAYERS = Layers()


def states_dtype(x: Tensor) -> torch.dtype:
    """Return the precision that training keeps the states ``x`` in, from layer to layer.

    On a GPU with automatic mixed precision it is bfloat16, since memory limits all but the matrix
    products there. Sums within a layer, and the norms' statistics, have full precision.
    """
    narrow = x.is_cuda and torch.is_autocast_enabled("cuda")
    is_bfloat16 = narrow and torch.get_autocast_dtype("cuda") == torch.bfloat16
    return torch.bfloat16 if is_bfloat16 else x.dtype


def chooses_rows(table: Tensor) -> bool:
    """Return True if rows of a table are chosen by comparisons: on a GPU, among very few.

    There the gradient of a look-up adds all pieces' vectors to these rows one after the other;
    that of a comparison is a sum that the compiler does together with the norm's.
    """
    return table.is_cuda and len(table) <= 4


def _table(rows: int, width: int) -> nn.Embedding:
    """Make an uninitialised embedding, since the model initialises or reads all parameters.

    nn.Embedding would draw unused numbers; on the device "meta" this even imports PyTorch's
    compiler, which takes as long as importing PyTorch.
    """
    blank = torch.empty(rows, width)
    table: nn.Embedding = nn.Embedding.from_pretrained(blank, freeze=False)  # type: ignore[no-untyped-call]
    return table


class Embeddings(nn.Module):
    """Word + position + segment embeddings, then the norm and dropout."""

    def __init__(self, config: BertConfig, layers: Layers = BERT_LAYERS) -> None:
        super().__init__()
        hidden = config.hidden_size
        self.words = _table(config.vocab_size, hidden)
        self.positions = _table(config.max_position_embeddings, hidden)
        self.token_types = _table(config.type_vocab_size, hidden)
        self.norm = layers.norm(config)
        self.rate = config.hidden_dropout_prob

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        key: DropoutKey | None = None,
        finish: Callable[..., Tensor] | None = None,
    ) -> Tensor:
        """Embed (T,) ids -> (T, H); ``finish``: the method of that name, or its compiled form.

        ``input_ids`` may be the words' vectors (T, H) instead.
        """
        # Look-ups are not compiled, since their compiled backward pass adds rows by atomics, in an
        # order that changes from run to run.
        words = self.words(input_ids) if input_ids.ndim == 1 else input_ids
        total, chosen = words + self.positions(position_ids), None
        if chooses_rows(self.token_types.weight):
            chosen = token_type_ids
        else:
            total = total + self.token_types(token_type_ids)
        return (finish or Embeddings.finish)(self, total, key, chosen)

    def finish(
        self, total: Tensor, key: DropoutKey | None = None, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Add the segments' embeddings if ids are given; apply the norm and dropout: (T, H)."""
        if token_type_ids is not None:
            first, *others = self.token_types.weight
            for number, row in enumerate(others, start=1):
                first = torch.where((token_type_ids == number)[:, None], row, first)
            total = total + first
        x = dropout(self.norm(total), self.rate, key.of_pieces() if key else None)
        return x.to(states_dtype(x)) if self.training else x


class FeedForward(nn.Module):
    """A linear map to more dimensions and an activation; the block applies the second map."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.inner = nn.Linear(config.hidden_size, config.intermediate_size)
        self.outer = nn.Linear(config.intermediate_size, config.hidden_size)
        self.activation = config.hidden_act
        activation_named(self.activation)

    def forward(self, x: Tensor) -> Tensor:
        """Map (Q, H) -> (Q, intermediate size)."""
        return native.linear(self.inner, x, activation=self.activation)


class Block(nn.Module):
    """Attention and feed-forward, each added to its input and then normalised."""

    def __init__(self, config: BertConfig, layers: Layers = BERT_LAYERS) -> None:
        super().__init__()
        self.attention = layers.attention(config)
        self.attention_norm = layers.norm(config)
        self.feed_forward = FeedForward(config)
        self.feed_forward_norm = layers.norm(config)
        self.rate = config.hidden_dropout_prob

    def forward(
        self,
        x: Tensor,
        layout: RowLayout,
        keys: Sequence[DropoutKey | None] = NO_DROPOUT,
        subset: QuerySubset | None = None,
        qkv: Tensor | None = None,
    ) -> Tensor:
        """Compute new states: (T, H) -> (T, H), or -> (Q, H) of ``subset`` alone.

        Args:
            x: the states of all pieces.
            layout: the layout of their rows.
            keys: keys of the dropout sites: attention, its output, the feed-forward's output.
            subset: the pieces whose new state is computed; None: all.
            qkv: (T, 3H), the attention's queries, keys and values, if they were computed already.
        """
        own = x if subset is None else x[subset.positions]
        if qkv is None:
            context = self.attention(own, x, layout, subset, keys[0])
        else:
            context = self.attention.attended(qkv, layout, subset, keys[0])
        own = self.attention_norm(self._added(own, self.attention.output, context, keys[1]))
        own = own.to(x.dtype)
        widened = self.feed_forward(own)
        normalised: Tensor = self.feed_forward_norm(
            self._added(own, self.feed_forward.outer, widened, keys[2])
        )
        return normalised.to(x.dtype)

    def _added(self, x: Tensor, layer: nn.Linear, change: Tensor, key: DropoutKey | None) -> Tensor:
        """Compute x + dropout(layer(change))."""
        if key is None or self.rate == 0.0:
            return native.linear(layer, change, added_to=x)
        return x + dropout(layer(change), self.rate, key.of_pieces())
