"""Rows with targets for fine-tuning, and their batches.

Shapes: T = pieces of all rows together, R = rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zhbert.inference.rows import Ids, PieceRows
from zhbert.packing import PackedBatch
from zhbert.text.model_inputs import longest_first
from zhbert.text.tokenizer import Tokenizer

NOT_A_TARGET = -100
"""The target of a piece that is not predicted."""


@dataclass(frozen=True)
class LabelledRows(PieceRows):
    """The rows of a data set with their targets."""

    targets: NDArray[Any] | None = None
    """(R, ...), or (T,) if pieces have targets; None: unknown."""
    of_pieces: bool = False
    """True if pieces, not rows, have targets."""
    cut: int = 0
    """The number of rows whose texts were truncated."""
    soft: NDArray[np.float32] | None = None
    """Teachers' scores, from `Learner.soft_targets`: (R, n), or (T, n) if they are of pieces."""


@dataclass(frozen=True)
class LabelledBatch:
    """Some rows and their targets; tensors are on the CPU until the loop moves them."""

    packed: PackedBatch
    targets: Tensor | None
    """The targets of these rows, as in ``LabelledRows``."""
    predictions: int
    """The number of targets."""
    first_row: int = 0
    """The index of the first row in the step's batch, which may be split into several of these."""
    soft: Tensor | None = None
    """The teachers' scores of these rows, as in ``LabelledRows``."""

    @property
    def num_pieces(self) -> int:
        """The number of pieces, which excludes padding as a batch has none."""
        return self.packed.num_pieces


def text_rows(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str | None],
    sequence_length: int,
) -> LabelledRows:
    """Return rows ``[CLS] text [SEP]`` or ``[CLS] text [SEP] pair [SEP]``, truncated.

    The longer text of a pair is truncated first, as transformers' ``longest_first`` does.
    """
    first = tokenizer.encode_batch(texts)
    there = [place for place, pair in enumerate(pairs) if pair is not None]
    second = tokenizer.encode_batch([pair for pair in pairs if pair is not None])
    room = sequence_length - 2
    segments: list[tuple[Ids, ...]] = [(a[:room],) for a in first]
    lengths = np.array(
        [(len(first[place]), len(b)) for place, b in zip(there, second, strict=True)]
    )
    kept = longest_first(lengths.reshape(-1, 2).T, sequence_length - 3).T.tolist()
    cut = np.array([len(a) > room for a in first], bool)
    for place, b, (m, n) in zip(there, second, kept, strict=True):
        segments[place] = (first[place][:m], b[:n])
        cut[place] = m + n < len(first[place]) + len(b)
    return replace(LabelledRows.of_segments(tokenizer, segments), cut=int(cut.sum()))


def gather(rows: LabelledRows, chosen: NDArray[np.int64], first_row: int = 0) -> LabelledBatch:
    """Return a batch of the chosen rows; ``first_row`` is the first one's index in the step."""
    packed, pieces = rows.pack(chosen)
    targets, predictions = None, 0
    if rows.targets is not None:
        found = rows.targets[pieces if rows.of_pieces else chosen]
        predictions = int((found != NOT_A_TARGET).sum()) if rows.of_pieces else len(chosen)
        targets = torch.from_numpy(found)
    soft = None
    if rows.soft is not None:
        soft = torch.from_numpy(rows.soft[pieces if len(rows.soft) == len(rows.ids) else chosen])
    return LabelledBatch(packed, targets, predictions, first_row, soft)
