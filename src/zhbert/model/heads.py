"""The heads of BERT's pretraining (https://arxiv.org/abs/1810.04805) and its pooler."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from zhbert.model.activations import activation_named
from zhbert.model.config import BertConfig
from zhbert.model.distilled_loss import (
    BestPieces,
    Temperature,
    best_pieces,
    distilled_cross_entropy,
)
from zhbert.model.layers import BERT_LAYERS, Layers
from zhbert.model.loss import Candidates, vocabulary_cross_entropy, walk_block


class Pooler(nn.Module):
    """BERT's pooler: the tanh of a linear map of a row's first state."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, first: Tensor) -> Tensor:
        """Pool first states: (R, H) -> (R, H)."""
        return torch.tanh(self.dense(first))


class MaskedLMHead(nn.Module):
    """The head that scores all pieces at a position; its matrix is the word embeddings."""

    def __init__(self, config: BertConfig, layers: Layers = BERT_LAYERS) -> None:
        super().__init__()
        self.transform = nn.Linear(config.hidden_size, config.hidden_size)
        self.norm = layers.norm(config)
        self.bias = nn.Parameter(torch.zeros(config.vocab_size))
        self.activation = activation_named(config.hidden_act)
        self._workspace: Tensor | None = None
        self._walk = walk_block

    def compile_loss(self) -> None:
        """Compute the loss on a GPU with compiled functions from now on.

        On a CPU the blocks of logits stay in its cache, so that nothing would be gained.
        """
        self._walk = torch.compile(walk_block, dynamic=True)

    def transformed(self, hidden: Tensor) -> Tensor:
        """Transform states to the vectors to multiply by the embeddings: (P, H) -> (P, H)."""
        normalised: Tensor = self.norm(self.activation(self.transform(hidden)))
        return normalised

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """Compute logits (P, V) from states (P, H) and the word embeddings (V, H)."""
        return functional.linear(self.transformed(hidden), embeddings, self.bias)

    def loss(
        self,
        hidden: Tensor,
        embeddings: Tensor,
        labels: Tensor,
        candidates: Candidates | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Return the summed cross entropy of (P, H) for (P,) labels, and the count of hits."""
        transformed = self.transformed(hidden)
        room = self._room_of_loss(transformed, candidates)
        walk = self._walk if transformed.is_cuda else walk_block
        return vocabulary_cross_entropy(
            transformed, embeddings, self.bias, labels, room, candidates, walk
        )

    def distilled_loss(
        self,
        hidden: Tensor,
        embeddings: Tensor,
        labels: Tensor,
        teacher: Tensor | BestPieces,
        *,
        kind: str = "ce",
        temperature: float | Temperature = 1.0,
        candidates: Candidates | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the losses of hard and soft labels, and the count of hits between them.

        Args:
            hidden: (P, H) states at the predicted positions.
            embeddings: (V, H), the word embeddings.
            labels: (P,) int64.
            teacher: its logits (P, V), or its best pieces.
            kind, temperature, candidates: as in `distilled_cross_entropy`.
        """
        transformed = self.transformed(hidden)
        return distilled_cross_entropy(
            transformed,
            embeddings,
            self.bias,
            labels,
            teacher,
            kind=kind,
            temperature=temperature,
            workspace=self._room_of_loss(transformed, candidates),
            candidates=candidates,
        )

    @torch.no_grad()
    def scores(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """Compute logits as ``forward``, without gradients, in memory that the next call reuses."""
        transformed = self.transformed(hidden)
        size = transformed.shape[0] * embeddings.shape[0]
        room = self._room(transformed, size)
        if room is None:
            return functional.linear(transformed, embeddings, self.bias)
        dtype = room.dtype
        return torch.addmm(
            self.bias.to(dtype),
            transformed.to(dtype),
            embeddings.to(dtype).t(),
            out=room[:size].view(-1, embeddings.shape[0]),
        )

    def best(self, hidden: Tensor, embeddings: Tensor, k: int) -> BestPieces:
        """Return the k pieces of the highest logits for states (P, H), without gradients."""
        return best_pieces(self.scores(hidden, embeddings), k)

    def _room_of_loss(self, transformed: Tensor, candidates: Candidates | None) -> Tensor | None:
        """Return memory for the logits of (P, H), which training reuses."""
        if not torch.is_grad_enabled():
            return None
        columns = self.bias.shape[0] if candidates is None else candidates.pieces.shape[0]
        return self._room(transformed, transformed.shape[0] * columns)

    def _room(self, like: Tensor, size: int) -> Tensor | None:
        """Return memory for the loss, reused in each step (CUDA's allocator does so anyway)."""
        if like.device.type != "cpu":
            return None
        dtype = torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else like.dtype
        if self._workspace is None or self._workspace.numel() < size:
            self._workspace = torch.empty(size, dtype=dtype)
        if self._workspace.dtype != dtype:
            self._workspace = torch.empty(size, dtype=dtype)
        return self._workspace


class NextSentenceHead(nn.Module):
    """The head that predicts if the second segment follows the first (0) or not (1)."""

    def __init__(self, config: BertConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, 2)

    def forward(self, pooled: Tensor) -> Tensor:
        """Compute logits: (R, H) -> (R, 2)."""
        logits: Tensor = self.dense(pooled)
        return logits
