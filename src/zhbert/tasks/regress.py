"""Which number does a text, or a pair of texts, have?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from zhbert.inference.run_model import Array
from zhbert.tasks.classify import OneRowEach
from zhbert.tasks.kinds import Prediction, Prepared
from zhbert.tasks.read import Example, TextExample
from zhbert.tasks.rows import LabelledBatch
from zhbert.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Regress(OneRowEach):
    """Regression of a text or a pair: the model is trained on numbers scaled to 0 to 1."""

    tokenizer: Tokenizer
    low: float
    """The number that the model's 0 stands for."""
    high: float
    """The number that its 1 stands for."""
    sequence_length: int

    name: ClassVar[str] = "regress"
    problem_type: ClassVar[str | None] = "regression"
    labels: ClassVar[tuple[str, ...]] = ("score",)

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

    def describe(self, example: Example) -> str:
        """The number."""
        return f"number {cast(TextExample, example).value:g}"
