"""TSDAE: a text is restored from the vector of what was left of it.

Wang et al. 2021, https://arxiv.org/abs/2104.06979. A decoder with the encoder's own weights
predicts each piece of the text from those before it and from the vector, to which every layer
attends. As there is nothing else to attend to, this attention is a linear map of the vector, the
same for every piece. Only it, and the head that predicts pieces, are the decoder's own. Unlike the
encoder, the decoder has no dropout.

Shapes: R = rows, T = pieces of all rows together, H = hidden size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from zhbert.model.attention import RowLayout, pad, unpad
from zhbert.model.config import BertConfig
from zhbert.model.heads import MaskedLMHead
from zhbert.model.layers import BERT_LAYERS, Layers
from zhbert.packing import PackedBatch, pack_rows
from zhbert.sentences.model import SentenceModel

DELETED_SHARE = 0.6
"""The share of a text's pieces that are deleted, as in the paper."""


class VectorAttention(nn.Module):
    """Attention of all pieces of a row to one vector, added to their states and normalised."""

    def __init__(self, config: BertConfig, layers: Layers) -> None:
        super().__init__()
        self.value = nn.Linear(config.hidden_size, config.hidden_size)
        self.output = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = layers.norm(config)

    def forward(self, x: Tensor, vectors: Tensor, rows: Tensor) -> Tensor:
        """Compute new states: (T, H), (R, H) and the row of each piece, (T,) -> (T, H)."""
        normalised: Tensor = self.norm(x + self.output(self.value(vectors))[rows])
        return normalised


class DenoisingModel(SentenceModel):
    """A sentence model with the decoder that trains it; only the sentence model is saved."""

    def _add_heads(self, config: BertConfig, layers: Layers) -> None:
        super()._add_heads(config, layers)
        self.mlm_head = MaskedLMHead(config, layers)
        self.decoder = nn.ModuleList()

    @classmethod
    def from_pretrained(cls, name: str | Path, *, seed: int = 0, **options: Any) -> Self:
        """Open a model as `SentenceModel` does, with fresh weights of the attention to vectors."""
        model = super().from_pretrained(name, seed=seed, **options)
        model.add_decoder(seed)
        return model

    @torch.no_grad()
    def add_decoder(self, seed: int) -> None:
        """Add the attention to vectors, with fresh weights."""
        config = self.config
        self.decoder = nn.ModuleList(
            VectorAttention(config, BERT_LAYERS) for _ in range(config.num_hidden_layers)
        )
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.decoder.named_parameters():
            self._initialize_one(name, parameter, generator)

    def _parts_beside(self) -> tuple[str, ...]:
        return (*super()._parts_beside(), "mlm_head", "decoder")

    def restoring_loss(self, vectors: Tensor, batch: PackedBatch) -> Tensor:
        """Return the summed cross entropy of all pieces of the rows but the first.

        Args:
            vectors: (R, H), the vectors of what was left of the texts.
            batch: the rows of the whole texts.
        """
        inputs, labels = _shifted(batch)
        layout = RowLayout.of_batch(inputs)
        rows, _ = layout.places()
        ids = (inputs.input_ids, inputs.token_type_ids, inputs.position_ids)
        x: Tensor = self.encoder.embeddings(*ids)
        blocks: Any = self.encoder.layers
        for block, attention in zip(blocks, self.decoder, strict=True):
            context = _causal(block.attention.qkv(x), layout, block.attention.heads)
            x = block.attention_norm(x + block.attention.output(context))
            x = attention(x, vectors, rows)
            x = block.feed_forward_norm(x + block.feed_forward.outer(block.feed_forward(x)))
        loss, _ = self.mlm_head.loss(x, self.encoder.embeddings.words.weight, labels)
        return loss


def _shifted(batch: PackedBatch) -> tuple[PackedBatch, Tensor]:
    """Return the rows without their last pieces, and the piece that follows each one."""
    cut = batch.cu_seqlens.long()
    kept = torch.ones_like(batch.input_ids, dtype=torch.bool)
    kept[cut[1:] - 1] = False
    places = kept.nonzero()[:, 0]
    inputs = PackedBatch(
        input_ids=batch.input_ids[places],
        token_type_ids=batch.token_type_ids[places],
        position_ids=batch.position_ids[places],
        cu_seqlens=batch.cu_seqlens - torch.arange(len(cut), device=cut.device).int(),
        max_length=batch.max_length - 1,
    )
    return inputs, batch.input_ids[places + 1]


def _causal(qkv: Tensor, layout: RowLayout, heads: int) -> Tensor:
    """Attend from each piece to itself and those before it in its row: (T, 3H) -> (T, H)."""
    grid = pad(qkv, layout)
    rows, length, width = grid.shape
    size = width // 3 // heads
    query, keys, values = grid.view(rows, length, 3, heads, size).permute(2, 0, 3, 1, 4)
    context = functional.scaled_dot_product_attention(query, keys, values, is_causal=True)
    return unpad(context.transpose(1, 2).reshape(rows, length, -1), layout)


def damaged(
    batch: PackedBatch, rng: np.random.Generator, share: float = DELETED_SHARE
) -> PackedBatch:
    """Return rows of which each inner piece was deleted with a probability of ``share``.

    The first and the last piece, [CLS] and [SEP], are kept, and at least one between them.

    >>> batch = pack_rows(np.array([2, 7, 8, 9, 3, 2, 5, 3]), np.array([5, 3]))
    >>> damaged(batch, np.random.default_rng(0)).input_ids.tolist()
    [2, 7, 3, 2, 5, 3]
    """
    ids, cut = batch.input_ids.numpy(), batch.cu_seqlens.numpy().astype(np.int64)
    chances = rng.random(len(ids))
    chances[cut[:-1]] = chances[cut[1:] - 1] = 1.0
    row = np.repeat(np.arange(len(cut) - 1), np.diff(cut))
    # The luckiest inner piece of each row stays.
    inner = chances.copy()
    inner[cut[:-1]] = inner[cut[1:] - 1] = -1.0
    best = np.maximum.reduceat(inner, cut[:-1])
    kept = (chances >= share) | (inner == best[row])
    return pack_rows(ids[kept], np.add.reduceat(kept.astype(np.int64), cut[:-1]))
