"""The encoder: embeddings, then the layers. Composition only."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from zhbert.model.config import BertConfig
from zhbert.model.dropout import DropoutKey
from zhbert.model.layers import (
    DROPOUT_SITES_PER_LAYER,
    NO_DROPOUT,
    Block,
    Embeddings,
    QuerySubset,
    RowLayout,
)
from zhbert.packing import PackedBatch


class Functions(NamedTuple):
    """What the encoder calls for a part; not bound to one module, so they serve every layer."""

    embed: Callable[..., Tensor]
    layer: Callable[..., Tensor]
    layer_at: Callable[..., Tensor]


EAGER = Functions(Embeddings.finish, Block.forward, Block.at)


class Encoder(nn.Module):
    """Packed piece ids to one vector a piece."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        self._compiled = EAGER

    @property
    def dropout_sites(self) -> int:
        """How many keys ``forward`` takes: one for the embeddings, then three a layer."""
        return 1 + DROPOUT_SITES_PER_LAYER * len(self.layers)

    def forward(
        self,
        batch: PackedBatch,
        packed: RowLayout | None = None,
        keys: Sequence[DropoutKey] | None = None,
        *,
        wanted: QuerySubset | None = None,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """(T,) pieces -> (T, H).

        Args:
            batch: the packed pieces.
            packed: where their rows lie, if that has been computed already.
            keys: of every dropout site; None for no dropout.
            wanted: compute the last layer for these pieces only, and return (Q, H). Exact: after
                the last attention no piece needs another.
            states: the embeddings and each layer's output are appended here.
        """
        # Looking up stays outside of what is compiled: compiled, its backward pass adds rows with
        # atomics, in an order that changes from run to run.
        x: Tensor = self.embeddings.look_up(
            batch.input_ids, batch.token_type_ids, batch.position_ids
        )
        packed = packed or RowLayout.of_batch(batch)
        run = self._compiled if self._worth_compiling(packed, wanted) else EAGER
        x = run.embed(self.embeddings, x, keys[0] if keys else None)
        if states is not None:
            states.append(x)
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            first = 1 + DROPOUT_SITES_PER_LAYER * number
            own = keys[first : first + DROPOUT_SITES_PER_LAYER] if keys else None
            if wanted is not None and number == last:
                if own:
                    pieces = own[0].pieces[wanted.positions]
                    own = [replace(key, pieces=pieces) for key in own]
                return run.layer_at(
                    layer, x[wanted.positions], wanted.rows, x, packed, own or NO_DROPOUT
                )
            x = run.layer(layer, x, packed, own or NO_DROPOUT)
            if states is not None:
                states.append(x)
        return x

    def compile_layers(self) -> None:
        """From now on train with compiled functions; they are compiled when first called."""
        with warnings.catch_warnings():
            # PyTorch's compiler uses a deprecated part of PyTorch when it is imported.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._compiled = Functions(
                embed=torch.compile(Embeddings.finish, dynamic=True),
                layer=torch.compile(Block.forward, dynamic=True),
                layer_at=torch.compile(Block.at, dynamic=True),
            )

    def _worth_compiling(self, packed: RowLayout, wanted: QuerySubset | None) -> bool:
        """Whether this is training, of a shape that the compiled functions were made for.

        The compiler makes other code for sizes of 1 and for evaluation: half a minute each.
        """
        sizes = [packed.cu_seqlens.shape[0] - 1, packed.max_length]
        if wanted is not None:
            sizes += [wanted.positions.shape[0], wanted.rows.max_length]
        return torch.is_grad_enabled() and self.training and min(sizes) > 1
