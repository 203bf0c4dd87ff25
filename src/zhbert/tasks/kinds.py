"""What the kinds of task share: from examples to rows, from a model's scores to predictions.

A kind knows no files, no optimiser and no console. `fine_tuned.KINDS` is the table of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from zhbert.inference.run_model import Array
from zhbert.packing import PackedBatch
from zhbert.tasks.read import Example
from zhbert.tasks.rows import LabelledBatch, LabelledRows
from zhbert.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Prepared:
    """Examples as rows."""

    examples: Sequence[Example]
    rows: LabelledRows
    places: Any = None
    """How rows and examples belong together, where it is not one by one."""
    remarks: tuple[str, ...] = ()
    """What was cut or left out, a line each."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one example."""

    value: str | float | tuple[str, ...]
    """A label, a number, several labels, the tags of a sentence, or an answer."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """How sure it is, and more; plain data."""


class Kind(Protocol):
    """One of them. Frozen: what is learnt beside the weights makes a new one (`tuned`)."""

    name: ClassVar[str]
    architecture: ClassVar[str]
    """The class of `zhbert.model.pretrained`."""
    problem_type: ClassVar[str | None]
    """What config.json calls it, of a sequence classification; None: of other architectures."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Makes the pieces."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels of the model's head; None: it has none of its own."""

    def prepare(self, examples: Sequence[Example], *, training: bool = False) -> Prepared:
        """Tokenize examples; for ``training`` with targets, and without what cannot be learnt."""

    def loss(self, model: nn.Module, batch: LabelledBatch) -> Tensor:
        """The sum of the losses of the batch's predictions."""

    def scores(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """(R, n), of the rows, or (T, n), of their pieces: what ``decode`` needs."""

    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """A prediction for each example."""

    def tuned(self, prepared: Prepared, scores: Array) -> Self:
        """This kind with what is chosen on dev, such as a threshold."""

    def each(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> dict[str, list[float]]:
        """How good each prediction is, 0 to 1: ``score``, and other names that the kind has."""

    def begin(self, model: nn.Module) -> None:
        """Undo ``finish``, of a model whose head was fine-tuned before and is trained further."""

    def finish(self, model: nn.Module) -> None:
        """Change a trained model, in place, so that its outputs are what users expect."""

    def settings(self) -> dict[str, Any]:
        """What a model folder must hold to predict alike, beside the model."""

    def describe(self, example: Example) -> str:
        """What is to be predicted, for people."""


class NothingBesides:
    """For kinds that learn nothing but weights, and whose outputs are what users expect."""

    def tuned(self, prepared: Prepared, scores: Array) -> Self:
        """Nothing is tuned."""
        return self

    def begin(self, model: nn.Module) -> None:
        """Nothing."""

    def finish(self, model: nn.Module) -> None:
        """Nothing."""


class FineTuning:
    """A kind as the training loop's objective."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.parts = (kind.name,)

    def counts(self, batch: LabelledBatch) -> tuple[int, ...]:
        """How many targets there are."""
        return (batch.predictions,)

    def pieces(self, batch: LabelledBatch) -> int:
        """All pieces: a batch has no padding."""
        return batch.packed.num_pieces

    def __call__(self, model: nn.Module, batch: LabelledBatch, seed: int) -> tuple[Tensor, Tensor]:
        """The sum of the losses; what is right is counted elsewhere, by the task's own metrics."""
        model.set_dropout_seed(seed, batch.first_row)  # type: ignore[operator]
        loss = self.kind.loss(model, batch)
        return loss.reshape(1), loss.new_zeros(1)


def sigmoid(scores: Array) -> NDArray[np.float64]:
    """Of each score by itself.

    >>> sigmoid(np.array([0.0, -1e4, 1e4])).tolist()
    [0.5, 0.0, 1.0]
    """
    # By the hyperbolic tangent, which large numbers do not overflow.
    probabilities: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(0.5 * scores.astype(np.float64))
    return probabilities


def softmax(scores: Array) -> NDArray[np.float64]:
    """Over the last axis."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(-1, keepdims=True)
    return probabilities
