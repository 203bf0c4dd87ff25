"""Which of a few labels does a text, or a pair of texts, have?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
from torch import Tensor, nn
from torch.nn import functional

from zhbert.tasks.kinds import Array, Prediction, Prepared, softmax
from zhbert.tasks.read import Example, TextExample
from zhbert.tasks.rows import Batch, Rows, text_rows
from zhbert.text.tokenizer import Tokenizer


def rows_of(examples: Sequence[Example], tokenizer: Tokenizer, sequence_length: int) -> Rows:
    """A row for each text or pair."""
    ours = cast(Sequence[TextExample], examples)
    return text_rows(
        tokenizer, [one.text for one in ours], [one.text_pair for one in ours], sequence_length
    )


def remarks_on(rows: Rows, sequence_length: int) -> tuple[str, ...]:
    """How many texts are longer than a row, in a line."""
    if not rows.cut:
        return ()
    return (
        f"{rows.cut:,} of {len(rows):,} texts are longer than sequence_length = {sequence_length}: "
        "their ends are cut off",
    )


@dataclass(frozen=True)
class Classify:
    """Classification of a text or a pair."""

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    sequence_length: int

    name: ClassVar[str] = "classify"
    architecture: ClassVar[str] = "BertForSequenceClassification"
    per_piece: ClassVar[bool] = False

    def prepare(self, examples: Sequence[Example], *, training: bool = False) -> Prepared:
        """A row for each example."""
        rows = rows_of(examples, self.tokenizer, self.sequence_length)
        if training:
            ids = {label: number for number, label in enumerate(self.labels)}
            given = [ids[str(cast(TextExample, example).label)] for example in examples]
            rows = replace(rows, targets=np.array(given, np.int64))
        return Prepared(examples, rows, remarks=remarks_on(rows, self.sequence_length))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Cross entropy."""
        assert batch.targets is not None
        logits = self.scores(model, batch).float()
        return functional.cross_entropy(logits, batch.targets, reduction="sum")

    def scores(self, model: nn.Module, batch: Batch) -> Tensor:
        """(R, labels) logits."""
        return cast(Any, model).row_logits(*batch.packed)  # type: ignore[no-any-return]

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

    def tuned(self, prepared: Prepared, scores: Array) -> Self:
        """Nothing is tuned."""
        return self

    def each(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> dict[str, list[float]]:
        """1 where the label is right."""
        gold = [cast(TextExample, example).label for example in examples]
        return {"score": [float(a == b.value) for a, b in zip(gold, predictions, strict=True)]}

    def begin(self, model: nn.Module) -> None:
        """Nothing."""

    def finish(self, model: nn.Module) -> None:
        """Nothing: the outputs are the logits of the labels."""

    def settings(self) -> dict[str, Any]:
        """The length that rows are cut to."""
        return {"sequence_length": self.sequence_length}

    def describe(self, example: Example) -> str:
        """The label."""
        return f"label {cast(TextExample, example).label}"
