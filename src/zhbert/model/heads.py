"""The heads of BERT's pretraining (https://arxiv.org/abs/1810.04805) and its pooler."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from zhbert.model.activations import activation_named
from zhbert.model.config import BertConfig
from zhbert.model.layers import BERT_LAYERS, Layers
from zhbert.model.loss import Candidates, vocabulary_cross_entropy


class Pooler(nn.Module):
    """A row as one vector: the tanh of a linear map of its first piece's state."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """(R, H) -> (R, H)."""
        return torch.tanh(self.dense(first))


class MaskedLMHead(nn.Module):
    """Scores every piece of the vocabulary at a position; its matrix is the word embeddings."""

    def __init__(self, config: BertConfig, layers: Layers = BERT_LAYERS) -> None:
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = layers.norm(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.activation = activation_named(config.hidden_act)
        self._workspace: Tensor | None = None

    def transformed(self, hidden: Tensor) -> Tensor:
        """(P, H) -> (P, H): the vectors that are multiplied with every word embedding."""
        normalised: Tensor = self.norm(self.activation(self.transform(hidden)))
        return normalised

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """(P, H) and the word embeddings (V, H) -> logits (P, V)."""
        return functional.linear(self.transformed(hidden), embeddings, self.bias)

    def loss(
        self,
        hidden: Tensor,
        embeddings: Tensor,
        labels: Tensor,
        candidates: Candidates | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Summed cross entropy at (P, H) for (P,) labels, and the count of right guesses."""
        transformed = self.transformed(hidden)
        columns = self.bias.shape[0] if candidates is None else candidates.pieces.shape[0]
        wanted = labels.shape[0] * columns
        room = self._room(transformed, wanted) if torch.is_grad_enabled() else None
        return vocabulary_cross_entropy(
            transformed, embeddings, self.bias, labels, room, candidates
        )

    def _room(self, like: Tensor, size: int) -> Tensor | None:
        """Memory for the loss, kept from step to step (CUDA's allocator does that by itself)."""
        if like.device.type != "cpu":
            return None
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else like.dtype
        if self._workspace is None or self._workspace.numel() < size:
            self._workspace = torch.empty(size, dtype=dtype)
        if self._workspace.dtype != dtype:
            self._workspace = torch.empty(size, dtype=dtype)
        return self._workspace


class NextSentenceHead(nn.Module):
    """Does the second segment follow the first (0) or not (1)?"""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, 2)

    def forward(self, pooled: Tensor) -> Tensor:
        """(R, H) -> (R, 2) logits."""
        logits: Tensor = self.dense(pooled)
        return logits
