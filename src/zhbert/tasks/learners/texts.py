"""Learning the label, the labels or the number of a text or of a pair of texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from zhbert.inference.run_model import Array
from zhbert.packing import PackedBatch
from zhbert.tasks.examples import Prediction, TextExample
from zhbert.tasks.learners.base import Learner, Prepared, sigmoid, softmax
from zhbert.tasks.rows import LabelledBatch, text_rows
from zhbert.text.tokenizer import Tokenizer


class TextLearner(Learner):
    """A learner whose examples are one row each: a text, or a pair of texts."""

    @abstractmethod
    def targets(self, examples: Sequence[TextExample]) -> Array:
        """(R, ...): the target of each example."""

    def prepare(self, examples: Sequence[TextExample], *, training: bool = False) -> Prepared:
        """A row for each example."""
        texts, pairs = [one.text for one in examples], [one.text_pair for one in examples]
        rows = text_rows(self.tokenizer, texts, pairs, self.sequence_length)
        if training:
            rows = replace(rows, targets=self.targets(examples))
        remarks: tuple[str, ...] = ()
        if rows.cut:
            remarks = (
                f"{rows.cut:,} of {len(rows):,} texts are longer than sequence_length = "
                f"{self.sequence_length}: their ends are cut off",
            )
        return Prepared(examples, rows, remarks=remarks)

    def scores(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """(R, labels) logits; to regress (R, 1), the number, scaled."""
        return cast(Any, model).row_logits(batch)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class ClassifyLearner(TextLearner):
    """Classification of a text or a pair: one label each."""

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    sequence_length: int

    def targets(self, examples: Sequence[TextExample]) -> Array:
        """(R,) int64: the labels' numbers."""
        ids = {label: number for number, label in enumerate(self.labels)}
        return np.array([ids[str(one.label)] for one in examples], np.int64)

    def loss(self, model: nn.Module, batch: LabelledBatch) -> Tensor:
        """Cross entropy."""
        assert batch.targets is not None
        logits = self.scores(model, batch.packed).float()
        return functional.cross_entropy(logits, batch.targets, reduction="sum")

    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """The most probable label, with the probability of each."""
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
    """Classification of a text or a pair that may have several labels, or none.

    Each label is a question of its own, whose probability is the sigmoid of its logit. It is
    transformers' ``problem_type = "multi_label_classification"``.
    """

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    sequence_length: int
    threshold: float = 0.5
    """A label is predicted from this probability on."""

    def targets(self, examples: Sequence[TextExample]) -> Array:
        """(R, labels) float32: 1 for each label that the text has."""
        marks = [[label in (one.labels or ()) for label in self.labels] for one in examples]
        return np.array(marks, np.float32).reshape(-1, len(self.labels))

    def loss(self, model: nn.Module, batch: LabelledBatch) -> Tensor:
        """The mean over the labels of their binary cross entropies."""
        assert batch.targets is not None
        logits = self.scores(model, batch.packed).float()
        total = functional.binary_cross_entropy_with_logits(logits, batch.targets, reduction="sum")
        return total / len(self.labels)

    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """The labels whose probability reaches the threshold, with the probability of each."""
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
    """Regression of a text or a pair: the model is trained on numbers scaled to 0 to 1."""

    tokenizer: Tokenizer
    low: float
    """The number that the model's 0 stands for."""
    high: float
    """The number that its 1 stands for."""
    sequence_length: int
    labels: tuple[str, ...] = ("score",)

    def targets(self, examples: Sequence[TextExample]) -> Array:
        """(R,) float32: the numbers, scaled."""
        values = np.array([one.value for one in examples], np.float64)
        return ((values - self.low) / (self.high - self.low)).astype(np.float32)

    def loss(self, model: nn.Module, batch: LabelledBatch) -> Tensor:
        """The squared error."""
        assert batch.targets is not None
        found = self.scores(model, batch.packed)[:, 0].float()
        return functional.mse_loss(found, batch.targets, reduction="sum")

    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """Numbers in the file's scale; they may leave its range a little."""
        values = scores[:, 0].astype(np.float64) * (self.high - self.low) + self.low
        return [Prediction(value) for value in values.round(6).tolist()]

    def begin(self, model: nn.Module) -> None:
        """Undo `finish`: the head outputs scaled numbers again."""
        head = cast(nn.Linear, model.classifier)
        with torch.no_grad():
            head.bias.sub_(self.low).div_(self.high - self.low)
            head.weight.div_(self.high - self.low)

    def finish(self, model: nn.Module) -> None:
        """Move the scale into the head: its output is then the file's number in any program."""
        head = cast(nn.Linear, model.classifier)
        with torch.no_grad():
            head.weight.mul_(self.high - self.low)
            head.bias.mul_(self.high - self.low).add_(self.low)
