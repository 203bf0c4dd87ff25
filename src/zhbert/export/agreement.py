"""The rows that two models are compared on, and how far their outputs are from each other.

Shapes: B = rows, L = pieces in the longest row.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from zhbert.model.config import BertConfig
from zhbert.text.tokenizer import Tokenizer

# The number of rows in a batch, which limits the memory for logits.
BATCH = 4
_SAMPLE = Path(__file__).parent.parent / "assets" / "sample.txt"
Arrays = NDArray[Any]


class PaddedBatch(NamedTuple):
    """The input of a model, padded."""

    input_ids: Tensor  # (B, L) int64
    attention_mask: Tensor  # (B, L) int64, 1 for pieces, 0 for padding
    token_type_ids: Tensor  # (B, L) int64

    @classmethod
    def of(cls, ids: Sequence[Arrays], segments: Sequence[Arrays], pad: int) -> PaddedBatch:
        """Return rows of pieces and of their segments as a batch."""

        def filled(rows: Sequence[Arrays], filler: int) -> Tensor:
            tensors = [torch.from_numpy(row.astype(np.int64)) for row in rows]
            return pad_sequence(tensors, batch_first=True, padding_value=filler)

        return cls(filled(ids, pad), filled([np.ones_like(i) for i in ids], 0), filled(segments, 0))


def batches(config: BertConfig, tokenizer: Tokenizer | None, rows: int) -> Iterator[PaddedBatch]:
    """Yield rows of 1 to all positions, in batches of four: text and random pieces.

    Every position, segment and mask is used. If the model has two segments, every second row is a
    pair. Without a tokenizer, or with one of more pieces than the model has, all rows are random.
    """
    rng = np.random.default_rng(0)
    most = config.max_position_embeddings
    lengths = np.exp(rng.uniform(0, np.log(most + 1), rows)).astype(int).clip(1, most)
    # One batch of very different rows; in the others, little is computed for padding.
    lengths = np.array([1, most, min(2, most), *np.sort(lengths[3:])])
    text = np.zeros(0, np.int64)
    if tokenizer is not None and len(tokenizer) <= config.vocab_size:
        text = _sample(tokenizer)
    for first in range(0, rows, BATCH):
        own = lengths[first : first + BATCH]
        ids = [rng.integers(0, config.vocab_size, length) for length in own]
        segments = [np.zeros(length, np.int64) for length in own]
        for row, length in enumerate(own):
            if row % 2 and len(text) > length:
                start = rng.integers(0, len(text) - length)
                ids[row] = text[start : start + length]
            if config.type_vocab_size > 1 and row >= BATCH // 2:
                segments[row][length // 2 :] = 1
        yield PaddedBatch.of(ids, segments, config.pad_token_id)


def _sample(tokenizer: Tokenizer) -> Arrays:
    """Return the pieces of the sample text, without special ones."""
    text = _SAMPLE.read_text(encoding="utf-8")
    return np.concatenate([tokenizer.encode(line).ids for line in text.splitlines() if line])


@dataclass
class Difference:
    """How far an output of one model is from another's, over all rows, without padding."""

    largest: float = 0.0
    """the largest absolute difference"""
    magnitude: float = 0.0
    """the largest absolute value of the first model's output"""

    @property
    def relative(self) -> float:
        """``largest`` as a share of the magnitude."""
        return self.largest / self.magnitude if self.magnitude else self.largest

    def within(self, tolerance: float) -> bool:
        """Return True if the difference is at most ``tolerance`` times the magnitude or 1."""
        return self.largest <= tolerance * max(1.0, self.magnitude)

    def add(self, wanted: Arrays, found: Arrays) -> None:
        """Count the values of a batch in."""
        # NaN must not get lost: no comparison with it is true.
        self.largest = float(np.maximum(self.largest, np.abs(wanted - found).max(initial=0.0)))
        self.magnitude = max(self.magnitude, float(np.abs(wanted).max(initial=0.0)))
