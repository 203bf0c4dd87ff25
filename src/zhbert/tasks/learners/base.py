"""Learners: from examples to rows, and from a model's scores to predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from zhbert.inference.run_model import Array
from zhbert.packing import PackedBatch
from zhbert.tasks.examples import Prediction
from zhbert.tasks.rows import LabelledBatch, LabelledRows
from zhbert.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prepared:
    """Examples as rows."""

    examples: Sequence[Any]
    rows: LabelledRows
    places: Any = None
    """Which rows belong to which example, unless each example is one row."""
    remarks: tuple[str, ...] = ()
    """Lines for people about what was cut or left out."""


class Learner(ABC):
    """How a model learns a task and predicts. It knows no files, no optimiser and no console.

    Learners are frozen dataclasses: `tuned` returns a new one.
    """

    tokenizer: Tokenizer
    """Makes the pieces."""
    labels: tuple[str, ...] | None
    """The labels of the model's head; None: it has none of its own."""
    sequence_length: int
    """Pieces of a row at most, [CLS] and [SEP] included."""

    @abstractmethod
    def prepare(self, examples: Sequence[Any], *, training: bool = False) -> Prepared:
        """Tokenize examples; for ``training``, add targets and leave out what cannot be learnt."""

    @abstractmethod
    def loss(self, model: nn.Module, batch: LabelledBatch) -> Tensor:
        """The sum of the losses of the batch's predictions."""

    @abstractmethod
    def scores(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """(R, n), of the rows, or (T, n), of their pieces: what ``decode`` needs."""

    @abstractmethod
    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """A prediction for each example."""

    def tuned(self, prepared: Prepared, scores: Array) -> Self:
        """This learner with what is chosen on dev, such as a threshold; most choose nothing.

        ``prepared`` and ``scores`` are of dev.
        """
        return self

    def begin(self, model: nn.Module) -> None:  # noqa: B027 - most have nothing to undo
        """Undo ``finish``, of a model whose head was fine-tuned before and is trained further."""

    def finish(self, model: nn.Module) -> None:  # noqa: B027 - most have nothing to change
        """Change a trained model, in place, so that its outputs are what users expect."""

    def saved(self) -> dict[str, Any]:
        """What a model folder must hold to predict alike, beside the model and the card."""
        return {"sequence_length": self.sequence_length}

    def resumed(self, saved: Mapping[str, Any]) -> Self:
        """This learner with what was tuned when it was ``saved``."""
        return self


class FineTuning:
    """A learner as the training loop's objective, of one part that has the kind's ``name``."""

    def __init__(self, name: str, learner: Learner) -> None:
        self.learner = learner
        self.parts = (name,)

    def counts(self, batch: LabelledBatch) -> tuple[int, ...]:
        """The number of targets."""
        return (batch.predictions,)

    def pieces(self, batch: LabelledBatch) -> int:
        """The number of pieces; a batch has no padding."""
        return batch.packed.num_pieces

    def __call__(self, model: nn.Module, batch: LabelledBatch, seed: int) -> tuple[Tensor, Tensor]:
        """The sum of the losses, and 0 for correct predictions: dev is scored by its metrics."""
        model.set_dropout_seed(seed, batch.first_row)  # type: ignore[operator]
        loss = self.learner.loss(model, batch)
        return loss.reshape(1), loss.new_zeros(1)


def sigmoid(scores: Array) -> NDArray[np.float64]:
    """The sigmoid of each score, computed without overflow.

    >>> sigmoid(np.array([0.0, -1e4, 1e4])).tolist()
    [0.5, 0.0, 1.0]
    """
    # The hyperbolic tangent does not overflow for large numbers.
    probabilities: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(0.5 * scores.astype(np.float64))
    return probabilities


def softmax(scores: Array) -> NDArray[np.float64]:
    """The softmax over the last axis."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(-1, keepdims=True)
    return probabilities
