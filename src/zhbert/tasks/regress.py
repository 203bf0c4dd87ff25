"""Which number does a text, or a pair of texts, have?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from zhbert.tasks.classify import remarks_on, rows_of
from zhbert.tasks.kinds import Array, Prediction, Prepared
from zhbert.tasks.read import Example, TextExample
from zhbert.tasks.rows import Batch
from zhbert.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Regress:
    """Regression of a text or a pair: the model is trained on numbers scaled to 0 to 1."""

    tokenizer: Tokenizer
    low: float
    """The number that the model's 0 stands for."""
    high: float
    """The number that its 1 stands for."""
    sequence_length: int

    name: ClassVar[str] = "regress"
    architecture: ClassVar[str] = "BertForSequenceClassification"
    per_piece: ClassVar[bool] = False
    labels: ClassVar[tuple[str, ...]] = ("score",)

    def prepare(self, examples: Sequence[Example], *, training: bool = False) -> Prepared:
        """A row for each example."""
        rows = rows_of(examples, self.tokenizer, self.sequence_length)
        if training:
            values = np.array([cast(TextExample, one).value for one in examples], np.float64)
            targets = ((values - self.low) / (self.high - self.low)).astype(np.float32)
            rows = replace(rows, targets=targets)
        return Prepared(examples, rows, remarks=remarks_on(rows, self.sequence_length))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """The squared error."""
        assert batch.targets is not None
        found = self.scores(model, batch)[:, 0].float()
        return functional.mse_loss(found, batch.targets, reduction="sum")

    def scores(self, model: nn.Module, batch: Batch) -> Tensor:
        """(R, 1): the number, scaled."""
        return cast(Any, model).row_logits(*batch.packed)  # type: ignore[no-any-return]

    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """Numbers in the file's scale; they may leave its range a little."""
        values = scores[:, 0].astype(np.float64) * (self.high - self.low) + self.low
        return [Prediction(value) for value in values.round(6).tolist()]

    def tuned(self, prepared: Prepared, scores: Array) -> Self:
        """Nothing is tuned."""
        return self

    def each(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> dict[str, list[float]]:
        """1 where the number is right, less by its distance as a share of the examples' range."""
        gold = np.array([cast(TextExample, example).value for example in examples], np.float64)
        found = np.array([prediction.value for prediction in predictions], np.float64)
        width = np.ptp(gold) or 1.0
        return {"score": np.maximum(0.0, 1 - np.abs(gold - found) / width).tolist()}

    def begin(self, model: nn.Module) -> None:
        """Take the scale out of a head that says the file's numbers."""
        head = cast(nn.Linear, model.classifier)
        with torch.no_grad():
            head.bias.sub_(self.low).div_(self.high - self.low)
            head.weight.div_(self.high - self.low)

    def finish(self, model: nn.Module) -> None:
        """Move the scale into the head, whose output is then the file's number everywhere."""
        head = cast(nn.Linear, model.classifier)
        with torch.no_grad():
            head.weight.mul_(self.high - self.low)
            head.bias.mul_(self.high - self.low).add_(self.low)

    def settings(self) -> dict[str, Any]:
        """The length that rows are cut to."""
        return {"sequence_length": self.sequence_length}

    def describe(self, example: Example) -> str:
        """The number."""
        return f"number {cast(TextExample, example).value:g}"
