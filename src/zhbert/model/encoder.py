"""The encoder: embeddings, then the layers. Composition only."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from zhbert.model.config import BertConfig
from zhbert.model.layers import DROPOUT_SITES_PER_LAYER, Block, Embeddings, PackedRows, WantedPieces


class Encoder(nn.Module):
    """Packed piece ids to one vector a piece."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))
        # Functions of a module, not bound to one: compiled once, they serve every layer.
        self._embed: Callable[..., Tensor] = Embeddings.finish
        self._layer: Callable[..., Tensor] = Block.forward
        self._layer_at: Callable[..., Tensor] = Block.at

    @property
    def dropout_sites(self) -> int:
        """How many keys ``forward`` takes: one for the embeddings, then three a layer."""
        return 1 + DROPOUT_SITES_PER_LAYER * len(self.layers)

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor,
        position_ids: Tensor,
        packed: PackedRows,
        keys: Sequence[Tensor] | None = None,
        *,
        wanted: WantedPieces | None = None,
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """(T,) ids -> (T, H).

        Args:
            input_ids, token_type_ids, position_ids: the packed pieces.
            packed: where their rows lie.
            keys: of every dropout site; None for no dropout.
            wanted: compute the last layer for these pieces only, and return (Q, H). Exact: after
                the last attention no piece needs another.
            states: the embeddings and each layer's output are appended here.
        """
        # Looking up stays outside of what is compiled: compiled, its backward pass adds rows with
        # atomics, in an order that changes from run to run.
        x: Tensor = self.embeddings.look_up(input_ids, token_type_ids, position_ids)
        x = self._embed(self.embeddings, x, keys[0] if keys else None)
        if states is not None:
            states.append(x)
        last = len(self.layers) - 1
        for number, layer in enumerate(self.layers):
            first = 1 + DROPOUT_SITES_PER_LAYER * number
            own = keys[first : first + DROPOUT_SITES_PER_LAYER] if keys else (None, None, None)
            if wanted is not None and number == last:
                return self._layer_at(layer, x[wanted.positions], wanted.rows, x, packed, own)
            x = self._layer(layer, x, packed, own)
            if states is not None:
                states.append(x)
        return x

    def compile_layers(self) -> None:
        """From now on run compiled functions; they are compiled when first called."""
        with warnings.catch_warnings():
            # PyTorch's compiler uses a deprecated part of PyTorch when it is imported.
            warnings.simplefilter("ignore", DeprecationWarning)
            self._embed = torch.compile(Embeddings.finish, dynamic=True)
            self._layer = torch.compile(Block.forward, dynamic=True)
            self._layer_at = torch.compile(Block.at, dynamic=True)
