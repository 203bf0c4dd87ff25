"""Which label, or which labels, does a text or a pair of texts have?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, cast

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from zhbert.inference.run_model import Array
from zhbert.packing import PackedBatch
from zhbert.tasks.kinds import NothingBesides, Prediction, Prepared, sigmoid, softmax
from zhbert.tasks.read import Example, TextExample
from zhbert.tasks.rows import LabelledBatch, text_rows
from zhbert.text.tokenizer import Tokenizer


class OneRowEach(NothingBesides):
    """What the kinds share whose examples are a row each: a text, or a pair of texts."""

    tokenizer: Tokenizer
    sequence_length: int

    architecture: ClassVar[str] = "BertForSequenceClassification"

    def targets(self, examples: Sequence[TextExample]) -> Array:
        """(R, ...): what is learnt from each example."""
        raise NotImplementedError

    def prepare(self, examples: Sequence[Example], *, training: bool = False) -> Prepared:
        """A row for each example."""
        ours = cast(Sequence[TextExample], examples)
        texts, pairs = [one.text for one in ours], [one.text_pair for one in ours]
        rows = text_rows(self.tokenizer, texts, pairs, self.sequence_length)
        if training:
            rows = replace(rows, targets=self.targets(ours))
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

    def settings(self) -> dict[str, Any]:
        """The length that rows are cut to."""
        return {"sequence_length": self.sequence_length}


@dataclass(frozen=True)
class Classify(OneRowEach):
    """Classification of a text or a pair: one label each."""

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    sequence_length: int

    name: ClassVar[str] = "classify"
    problem_type: ClassVar[str | None] = "single_label_classification"

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
        """The likeliest label, with the probability of each."""
        probabilities = softmax(scores)
        best = probabilities.argmax(-1).tolist()
        return [
            Prediction(
                self.labels[label], {"probabilities": dict(zip(self.labels, row, strict=True))}
            )
            for label, row in zip(best, probabilities.round(6).tolist(), strict=True)
        ]

    def each(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> dict[str, list[float]]:
        """1 where the label is right."""
        pairs = zip(examples, predictions, strict=True)
        return {"score": [float(one.gold == found.value) for one, found in pairs]}

    def describe(self, example: Example) -> str:
        """The label."""
        return f"label {example.gold}"


@dataclass(frozen=True)
class MultiLabel(OneRowEach):
    """Classification of a text or a pair that may have several labels, or none.

    Each label is a question of its own, whose probability is the sigmoid of its logit. It is
    transformers' ``problem_type = "multi_label_classification"``.
    """

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    sequence_length: int
    threshold: float = 0.5
    """A label is predicted from this probability on."""

    name: ClassVar[str] = "multi_label"
    problem_type: ClassVar[str | None] = "multi_label_classification"

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
        """The labels that are likely enough, with the probability of each."""
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

    def each(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> dict[str, list[float]]:
        """F1 of each text's labels; 1 where there are none and none was found."""
        scores = []
        for one, prediction in zip(examples, predictions, strict=True):
            there = set(cast(TextExample, one).labels or ())
            found = set(cast(tuple[str, ...], prediction.value))
            both = len(there) + len(found)
            scores.append(2 * len(there & found) / both if both else 1.0)
        return {"score": scores}

    def describe(self, example: Example) -> str:
        """The labels."""
        return "labels " + (", ".join(cast(TextExample, example).labels or ()) or "none")
