"""Static vectors: one vector a piece, from a sentence model; a text's is the mean of its pieces'.

Hundreds of times as fast as the model that they are made from, and less exact: a piece has one
meaning, and the order of the pieces does not count. As model2vec makes them
(https://github.com/MinishLab/model2vec): principal components of the pieces' outputs, and a weight
by frequency, "SIF" (https://openreview.net/forum?id=SyK00v5xx). A piece's output is its mean over a
corpus (https://aclanthology.org/2020.acl-main.431), which is nearer to the model than what it gives
for the piece alone.

Shapes: V = pieces of the vocabulary, H = hidden size, D = dimensions, N = texts.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zhbert.errors import ZhbertError
from zhbert.files import make_folder
from zhbert.inference.rows import PieceRows
from zhbert.inference.run_model import run_model
from zhbert.model.checkpoint import READERS
from zhbert.model.entry import entries_of, is_finite
from zhbert.model.formats.safetensors import write_safetensors
from zhbert.packing import PackedBatch
from zhbert.sentences.model import SentenceModel
from zhbert.sentences.modules import (
    SentenceConfig,
    read_static_config,
    write_static_config,
)
from zhbert.zoo.layout import SAFETENSORS, weights_format

RARE = 3e-3
"""The frequency of a piece, as a share of all pieces, from which on its weight falls below half."""
_TENSOR = "embedding.weight"


class StaticModel(nn.Module):
    """A vector for each piece: what sentence-transformers calls StaticEmbedding.

    >>> model = StaticModel(torch.tensor([[1.0, 0.0], [0.0, 1.0]]))
    >>> model.mean_of([np.array([0, 1]), np.array([1])]).tolist()
    [[0.5, 0.5], [0.0, 1.0]]
    """

    max_seq_length = sys.maxsize
    """Texts are read whole."""

    def __init__(self, vectors: Tensor, sentence: SentenceConfig | None = None) -> None:
        """Make a model of the vectors of pieces, (V, D)."""
        super().__init__()
        self.embedding = nn.EmbeddingBag.from_pretrained(vectors, mode="mean")
        self.sentence = sentence or SentenceConfig()

    @property
    def vocab_size(self) -> int:
        """V."""
        return self.embedding.num_embeddings

    @property
    def embedding_dimension(self) -> int:
        """D."""
        return self.embedding.embedding_dim

    def mean_of(self, texts: Sequence[NDArray[Any]]) -> Tensor:
        """Return the mean vectors of the pieces of texts, (N, D); 0 for a text without pieces."""
        lengths = np.array([len(ids) for ids in texts])
        ids = np.concatenate([np.empty(0, np.int64), *texts]).astype(np.int64)
        begins = np.cumsum(lengths) - lengths
        device = self.embedding.weight.device
        with torch.no_grad():
            found: Tensor = self.embedding(*(torch.from_numpy(x).to(device) for x in (ids, begins)))
        return found

    @classmethod
    def from_pretrained(cls, folder: Path) -> Self:
        """Open a folder that `save_pretrained` or sentence-transformers wrote.

        Raises:
            ZhbertError: it has other modules or weights, or its numbers are not finite.
        """
        sentence = read_static_config(folder)
        file = folder / SAFETENSORS[0]
        entries = READERS[weights_format(file)](file)[0]
        if list(entries) != [_TENSOR] or len(entries[_TENSOR].shape) != 2:
            raise ZhbertError(f"{file}: holds {', '.join(entries)}, not the matrix {_TENSOR}")
        vectors = entries[_TENSOR].read().float()
        if not is_finite(vectors):
            raise ZhbertError(f"{file}: {_TENSOR} holds NaN or infinite numbers; fetch it again")
        return cls(vectors, sentence)

    def save_pretrained(self, folder: str | Path) -> None:
        """Write a sentence-transformers folder, without the tokenizer's files."""
        make_folder(Path(folder))
        vectors = self.embedding.weight.detach().float().cpu()
        write_safetensors(Path(folder), entries_of({_TENSOR: vectors}))
        write_static_config(Path(folder), self.sentence)


def piece_vectors(model: nn.Module, batch: PackedBatch) -> Tensor:
    """Compute the vectors of T pieces by a `SentenceModel`, before pooling: (T, H)."""
    return cast(SentenceModel, model).piece_vectors(batch)


class StaticMaker:
    """Makes static vectors from what a sentence model gives for the pieces of a corpus."""

    def __init__(self, model: SentenceModel) -> None:
        self._model = model
        shape = model.config.vocab_size, model.config.hidden_size
        self._sums = torch.zeros(shape, dtype=torch.float64)
        self._counts = torch.zeros(shape[0], dtype=torch.float64)

    def add(self, rows: PieceRows, dtype: torch.dtype = torch.float32) -> None:
        """Take rows ``[CLS] pieces [SEP]`` of the corpus into account; ``dtype`` is the BERT's."""
        outputs = torch.from_numpy(run_model(self._model, rows, piece_vectors, dtype=dtype))
        inside = np.ones(len(rows.ids), np.bool_)
        inside[rows.cu_seqlens[:-1]] = inside[rows.cu_seqlens[1:] - 1] = False
        ids = torch.from_numpy(rows.ids[inside].astype(np.int64))
        self._sums.index_add_(0, ids, outputs[inside].double())
        self._counts += torch.bincount(ids, minlength=len(self._counts))

    def make(self, cls_id: int, sep_id: int, dimensions: int | None = None) -> StaticModel:
        """Return the model.

        Args:
            cls_id, sep_id: the tokenizer's, for pieces that the corpus lacks: they are encoded
                alone.
            dimensions: D, at most H; None: H.

        Raises:
            ZhbertError: there are fewer dimensions, or nothing was added.
        """
        hidden_size = self._sums.shape[1]
        dimensions = hidden_size if dimensions is None else dimensions
        if not 1 <= dimensions <= hidden_size:
            raise ZhbertError(f"dimensions = {dimensions}: must be from 1 to {hidden_size}")
        if not self._counts.any():
            raise ZhbertError("no pieces in the corpus; give more text")
        frequencies = (self._counts + 1) / (self._counts + 1).sum()
        centred = self._outputs(cls_id, sep_id)
        centred -= frequencies @ centred
        # eigh sorts by variance, ascending.
        _, axes = torch.linalg.eigh(centred.T @ (centred * frequencies[:, None]))
        vectors = centred @ axes.flip(1)[:, :dimensions]
        vectors *= (RARE / (RARE + frequencies))[:, None]
        return StaticModel(vectors.float())

    def _outputs(self, cls_id: int, sep_id: int) -> Tensor:
        missing = (self._counts == 0).nonzero()[:, 0].numpy()
        alone = np.full((len(missing), 3), cls_id, np.int32)
        alone[:, 1], alone[:, 2] = missing, sep_id
        lengths = np.full(len(missing), 3, np.int32)
        rows = PieceRows(alone.ravel(), np.arange(len(missing) + 1, dtype=np.int64) * 3, lengths)
        outputs = self._sums / self._counts.clamp(min=1)[:, None]
        if len(missing):
            found = run_model(self._model, rows, piece_vectors)
            outputs[missing] = torch.from_numpy(found[1::3]).double()
        return outputs
