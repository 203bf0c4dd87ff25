"""A graph of an ONNX folder, run by ONNX Runtime, which answers as our models do.

Shapes: R = rows, T = pieces of all rows together, P = predicted pieces, H = hidden size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from torch import Tensor, nn

from zhbert.model.config import BertConfig
from zhbert.packing import PackedBatch


class OnnxModel(nn.Module):
    """The model of an ONNX folder, with the methods of the models in `zhbert.model.pretrained`.

    It has no parameters here, computes on the CPU, and cannot be trained.
    """

    config: BertConfig

    @classmethod
    def from_pretrained(cls, folder: str | Path, task: str, *, precision: str = "fp32") -> Self:
        """Open the graph of a folder for a task of `zhbert.model.onnx_files.TASKS`."""
        raise NotImplementedError

    def row_logits(self, batch: PackedBatch) -> Tensor:
        """Compute logits (R, labels) of R rows."""
        raise NotImplementedError

    def piece_logits(self, batch: PackedBatch) -> Tensor:
        """Compute logits (T, labels) of T pieces, or the scores (T, 2) of a start and an end."""
        raise NotImplementedError

    def piece_vectors(self, batch: PackedBatch) -> Tensor:
        """Compute the last hidden states (T, H) of T pieces."""
        raise NotImplementedError

    def masked_logits(self, batch: PackedBatch, positions: Tensor) -> Tensor:
        """Compute logits (P, vocabulary size) at ``positions``, (P,) into the T pieces."""
        raise NotImplementedError
