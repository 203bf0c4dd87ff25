"""Learners for labels or numbers of texts and pairs of texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from zhbert.config import DistillSettings
from zhbert.distill.soft_labels import soft_label_sum, squared_error_sum
from zhbert.inference.run_model import Array
from zhbert.packing import PackedBatch
from zhbert.tasks.examples import Prediction, TextExample
from zhbert.tasks.learners.base import SOFT_LABELS, Prepared, ScoringLearner, sigmoid, softmax
from zhbert.tasks.rows import LabelledBatch, text_rows
from zhbert.text.tokenizer import Tokenizer


class TextLearner(ScoringLearner):
    """A learner whose examples are one row each: a text or a pair of texts."""

    @abstractmethod
    def targets(self, examples: Sequence[TextExample]) -> Array:
        """Return the target of each example: (R, ...)."""

    def prepare(self, examples: Sequence[TextExample], *, training: bool = False) -> Prepared:
        """Return a row for each example."""
        texts, pairs = [one.text for one in examples], [one.text_pair for one in examples]
        rows = text_rows(self.tokenizer, texts, pairs, self.sequence_length)
        if training:
            rows = replace(rows, targets=self.targets(examples))
        cut = rows.cut, len(rows)
        return Prepared(examples, rows, None, (self.describe_cut(*cut),) if rows.cut else (), cut)

    def scores(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """Return the logits, (R, labels), or for regression the scaled number, (R, 1)."""
        return cast(Any, model).row_logits(batch)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ClassifyLearner(TextLearner):
    """A learner for single labels."""

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    sequence_length: int

    def targets(self, examples: Sequence[TextExample]) -> Array:
        """Return the labels' ids: (R,) int64."""
        ids = {label: number for number, label in enumerate(self.labels)}
        return np.array([ids[str(one.label)] for one in examples], np.int64)

    def loss_of(self, scores: Tensor, batch: LabelledBatch) -> Tensor:
        """Return the summed cross entropy."""
        assert batch.targets is not None
        return functional.cross_entropy(scores.float(), batch.targets, reduction="sum")

    def soft_loss_of(
        self, scores: Tensor, batch: LabelledBatch, settings: DistillSettings
    ) -> Tensor:
        """Return the summed loss of the labels' distributions."""
        assert batch.soft is not None
        return soft_label_sum(scores, batch.soft, settings)

    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """Return the most probable label, with the probability of each label."""
        probabilities = softmax(scores)
        best = probabilities.argmax(-1).tolist()
        return [
            Prediction(
                self.labels[label], {"probabilities": dict(zip(self.labels, row, strict=True))}
            )
            for label, row in zip(best, probabilities.round(6).tolist(), strict=True)
        ]


@dataclass(frozen=True)
class MultiLabelLearner(TextLearner):
    """A learner for several labels per text, or none.

    The probability of each label is the sigmoid of its logit, as in transformers' ``problem_type =
    "multi_label_classification"``.
    """

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    sequence_length: int
    threshold: float = 0.5
    """The lowest probability at which a label is predicted."""

    def targets(self, examples: Sequence[TextExample]) -> Array:
        """Return 1 for each label that the text has, else 0: (R, labels) float32."""
        marks = [[label in (one.labels or ()) for label in self.labels] for one in examples]
        return np.array(marks, np.float32).reshape(-1, len(self.labels))

    def loss_of(self, scores: Tensor, batch: LabelledBatch) -> Tensor:
        """Return the binary cross entropy, averaged over labels and summed over texts."""
        assert batch.targets is not None
        total = functional.binary_cross_entropy_with_logits(
            scores.float(), batch.targets, reduction="sum"
        )
        return total / len(self.labels)

    def soft_loss_of(
        self, scores: Tensor, batch: LabelledBatch, settings: DistillSettings
    ) -> Tensor:
        """Return the loss of each label's probability, averaged over labels, summed over texts."""
        assert batch.soft is not None
        return soft_label_sum(scores, batch.soft, settings, binary=True)

    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """Return the labels whose probability reaches the threshold, and all probabilities."""
        probabilities = sigmoid(scores)
        return [
            Prediction(
                tuple(label for label, there in zip(self.labels, likely, strict=True) if there),
                {"probabilities": dict(zip(self.labels, row, strict=True))},
            )
            for likely, row in zip(
                (probabilities >= self.threshold).tolist(),
                probabilities.round(6).tolist(),
                strict=True,
            )
        ]


@dataclass(frozen=True)
class RegressLearner(TextLearner):
    """A learner for numbers, which are scaled to 0 to 1 for training."""

    tokenizer: Tokenizer
    low: float
    """The number that corresponds to 0 in the model."""
    high: float
    """The number that corresponds to 1 in the model."""
    sequence_length: int
    labels: tuple[str, ...] = ("score",)

    def targets(self, examples: Sequence[TextExample]) -> Array:
        """Return the scaled numbers: (R,) float32."""
        values = np.array([one.value for one in examples], np.float64)
        return ((values - self.low) / (self.high - self.low)).astype(np.float32)

    def loss_of(self, scores: Tensor, batch: LabelledBatch) -> Tensor:
        """Return the summed squared error."""
        assert batch.targets is not None
        return functional.mse_loss(scores[:, 0].float(), batch.targets, reduction="sum")

    def soft_loss_of(
        self, scores: Tensor, batch: LabelledBatch, settings: DistillSettings
    ) -> Tensor:
        """Return the summed squared error, of whatever kind soft labels are elsewhere."""
        assert batch.soft is not None
        return squared_error_sum(scores, batch.soft)

    def describe_soft_labels(self, settings: DistillSettings) -> str:
        """Return how the teachers' numbers are learnt: like the labels, without a temperature."""
        return SOFT_LABELS["mse"]

    def soft_targets(self, scores: Sequence[Array]) -> NDArray[np.float32]:
        """Return the mean of several teachers' numbers, scaled: fine-tuned models have no scale."""
        return (super().soft_targets(scores) - np.float32(self.low)) / np.float32(
            self.high - self.low
        )

    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """Return numbers in the file's scale; they may be slightly out of range."""
        values = scores[:, 0].astype(np.float64) * (self.high - self.low) + self.low
        return [Prediction(value) for value in values.round(6).tolist()]

    def begin(self, model: nn.Module) -> None:
        """Undo `finish`, so that the head outputs scaled numbers again."""
        head = cast(nn.Linear, model.classifier)
        with torch.no_grad():
            head.bias.sub_(self.low).div_(self.high - self.low)
            head.weight.div_(self.high - self.low)

    def finish(self, model: nn.Module) -> None:
        """Move the scale into the head, so that it outputs the file's numbers in any program."""
        head = cast(nn.Linear, model.classifier)
        with torch.no_grad():
            head.weight.mul_(self.high - self.low)
            head.bias.mul_(self.high - self.low).add_(self.low)
