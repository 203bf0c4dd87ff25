"""The encoder: embeddings, then the layers. Composition only."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from zhbert.model.config import BertConfig
from zhbert.model.layers import DROPOUT_SITES_PER_LAYER, Block, Embeddings, PackedRows


class Encoder(nn.Module):
    """Packed piece ids to one vector a piece."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(Block(config) for _ in range(config.num_hidden_layers))

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
        states: list[Tensor] | None = None,
    ) -> Tensor:
        """(T,) ids -> (T, H); every intermediate state is appended to ``states`` where given."""
        x: Tensor = self.embeddings(
            input_ids, token_type_ids, position_ids, keys[0] if keys else None
        )
        if states is not None:
            states.append(x)
        for number, layer in enumerate(self.layers):
            first = 1 + DROPOUT_SITES_PER_LAYER * number
            own = keys[first : first + DROPOUT_SITES_PER_LAYER] if keys else (None, None, None)
            x = layer(x, packed, own)
            if states is not None:
                states.append(x)
        return x
