"""Learners, which turn examples into rows and a model's scores into predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zhbert.config import DistillSettings
from zhbert.inference.rows import Ids
from zhbert.inference.run_model import Array
from zhbert.packing import PackedBatch
from zhbert.tasks.batches import Batches, RowBatches
from zhbert.tasks.examples import Prediction
from zhbert.tasks.rows import LabelledBatch, LabelledRows
from zhbert.text.tokenizer import Tokenizer

SOFT_LABELS = {"ce": "cross entropy", "mse": "squared error"}
"""The losses of soft labels, for people."""


@dataclass(frozen=True)
class Prepared:
    """Examples converted to rows."""

    examples: Sequence[Any]
    rows: LabelledRows
    places: Any = None
    """Which rows belong to which example; None if each example is one row."""
    remarks: tuple[str, ...] = ()
    """Lines for people about what was truncated or left out."""
    cut: tuple[int, int] = (0, 0)
    """How many texts, or for spans questions, lost their ends, and of how many."""


class Learner(ABC):
    """Training and prediction for a task, without files, an optimiser or a console.

    Learners are frozen dataclasses: `tuned` returns a new one.
    """

    tokenizer: Tokenizer
    """The tokenizer."""
    labels: tuple[str, ...] | None
    """The labels of the model's head; None if the head has none."""
    sequence_length: int
    """The most pieces of a row, [CLS] and [SEP] included."""

    @abstractmethod
    def prepare(self, examples: Sequence[Any], *, training: bool = False) -> Prepared:
        """Tokenize examples; if ``training``, add targets and skip what cannot be learnt."""

    def completed(
        self, examples: Sequence[Any], open_model: Callable[[], nn.Module]
    ) -> tuple[Sequence[Any], list[str]]:
        """Return training examples with what the untrained model adds to them, and remarks.

        By default nothing is added, and the model is not opened.
        """
        return examples, []

    def describe_cut(self, cut: int, texts: int) -> str:
        """Return a line for people about the texts that are longer than a row."""
        return (
            f"{cut:,} of {texts:,} texts are longer than sequence_length = "
            f"{self.sequence_length}: their ends are cut off"
        )

    def preview(self, example: Any) -> Ids:
        """Return the pieces of a training example's row; none if it cannot be learnt."""
        rows = self.prepare([example], training=True).rows
        if not len(rows):
            return rows.ids
        number = 0
        if rows.targets is not None and rows.targets.ndim == 2:
            # For spans, the window that contains the answer.
            number = int(rows.targets[:, 0].argmax())
        return rows.row(number)

    def batches(self, prepared: Prepared) -> Batches:
        """Return the batches of training examples: by default any rows, each with its loss."""
        return RowBatches(prepared.rows)

    @abstractmethod
    def loss(self, model: nn.Module, batch: LabelledBatch) -> Tensor:
        """Return the sum of the losses of the batch's predictions."""

    @abstractmethod
    def scores(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """Return the scores that ``decode`` needs: (R, n) for rows or (T, n) for their pieces."""

    @abstractmethod
    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """Return a prediction for each example."""

    @abstractmethod
    def distilled_losses(
        self, model: nn.Module, batch: LabelledBatch, settings: DistillSettings
    ) -> Tensor:
        """Return the sums of the losses by the targets and by the teachers' scores: (2,)."""

    def describe_soft_labels(self, settings: DistillSettings) -> str:
        """Return how soft labels are learnt, for people; raise ZhbertError if they cannot be."""
        varied = settings.temperature_schedule
        return f"{SOFT_LABELS[settings.soft_labels]}, temperature {settings.temperature:g}" + (
            f" ({varied})" if varied != "constant" else ""
        )

    def soft_targets(self, scores: Sequence[Array]) -> NDArray[np.float32]:
        """Return what is learnt from several teachers' scores: by default their mean.

        The mean of logits, as in TextBrewer's distiller of several teachers.
        """
        mean: NDArray[np.float32] = np.mean(scores, axis=0, dtype=np.float32)
        return mean

    def whole_step(
        self, model: nn.Module, batches: Sequence[LabelledBatch]
    ) -> Sequence[LabelledBatch]:
        """Return a step's micro-batches with what their losses must know of each other.

        By default nothing: each row has a loss of its own. Called without gradients.
        """
        return batches

    def tuned(self, prepared: Prepared, scores: Array) -> Self:
        """Return this learner with values tuned on dev, such as a threshold; by default unchanged.

        ``prepared`` and ``scores`` are those of dev.
        """
        return self

    def begin(self, model: nn.Module) -> None:  # noqa: B027 - most have nothing to undo
        """Undo ``finish`` before a fine-tuned model is trained further."""

    def training_class(self, usual: Any) -> Any:
        """Return the class of the model while it is trained; ``usual`` is the kind's."""
        return usual

    def finish(self, model: nn.Module) -> None:  # noqa: B027 - most have nothing to change
        """Change a trained model in place so that its outputs have their usual meaning."""

    def saved(self) -> dict[str, Any]:
        """Return what a model folder must contain, beside model and card, to predict alike."""
        return {"sequence_length": self.sequence_length}

    def resumed(self, saved: Mapping[str, Any]) -> Self:
        """Return this learner with the tuned values in ``saved``."""
        return self


class ScoringLearner(Learner):
    """A learner whose loss is a function of the scores by which it predicts.

    One forward pass then gives everything that depends on the scores.
    """

    def loss(self, model: nn.Module, batch: LabelledBatch) -> Tensor:
        """Return the sum of the losses of the batch's predictions."""
        return self.loss_of(self.scores(model, batch.packed), batch)

    @abstractmethod
    def loss_of(self, scores: Tensor, batch: LabelledBatch) -> Tensor:
        """Return the sum of the losses of the batch's predictions, given its ``scores``."""

    def distilled_losses(
        self, model: nn.Module, batch: LabelledBatch, settings: DistillSettings
    ) -> Tensor:
        """Return the sums of the losses by the targets and by the teachers' scores: (2,)."""
        scores = self.scores(model, batch.packed)
        hard, soft = self.loss_of(scores, batch), self.soft_loss_of(scores, batch, settings)
        return torch.stack((hard, soft))

    @abstractmethod
    def soft_loss_of(
        self, scores: Tensor, batch: LabelledBatch, settings: DistillSettings
    ) -> Tensor:
        """Return the sum of the losses by the teachers' scores, given the batch's ``scores``.

        As many are added up as in `loss_of`.
        """


class FineTuning:
    """A learner as the training loop's objective, with one part, which has the kind's ``name``."""

    def __init__(self, name: str, learner: Learner) -> None:
        self.learner = learner
        self.parts = (name,)

    def weights(self, progress: float) -> tuple[float, ...]:
        """Return the factor of each part when a share of the run, from 0 to 1, is done."""
        return (1.0,)

    def counts(self, batch: LabelledBatch) -> tuple[int, ...]:
        """Return the number of targets."""
        return (batch.predictions,)

    def pieces(self, batch: LabelledBatch) -> int:
        """Return the number of pieces."""
        return batch.num_pieces

    def whole_step(
        self, model: nn.Module, batches: Sequence[LabelledBatch], seed: int
    ) -> Sequence[LabelledBatch]:
        """Return a step's micro-batches with what their losses must know of each other."""
        model.set_dropout_seed(seed)  # type: ignore[operator]
        return self.learner.whole_step(model, batches)

    def __call__(self, model: nn.Module, batch: LabelledBatch, seed: int) -> tuple[Tensor, Tensor]:
        """Return the sum of the losses, and 0 for correct predictions: metrics judge dev."""
        model.set_dropout_seed(seed, batch.first_row)  # type: ignore[operator]
        loss = self.learner.loss(model, batch)
        return loss.reshape(1), loss.new_zeros(1)


def sigmoid(scores: Array) -> NDArray[np.float64]:
    """Return the sigmoid of each score, computed without overflow.

    >>> sigmoid(np.array([0.0, -1e4, 1e4])).tolist()
    [0.5, 0.0, 1.0]
    """
    # The hyperbolic tangent does not overflow for large numbers.
    probabilities: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(0.5 * scores.astype(np.float64))
    return probabilities


def softmax(scores: Array) -> NDArray[np.float64]:
    """Return the softmax over the last axis."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(-1, keepdims=True)
    return probabilities
