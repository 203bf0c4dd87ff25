"""Regression: a number for a text or a pair of texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.tasks.card import TaskCard, finite_number
from zhbert.tasks.examples import TextExample, Value
from zhbert.tasks.kinds.base import Learning, Line, Mistake, as_number
from zhbert.tasks.kinds.texts import TextKind
from zhbert.tasks.metrics import Metric, of_pairs, resampled_pearson, resampled_spearman
from zhbert.tasks.prediction_rows import PredictionRow
from zhbert.tasks.tables import Record, TableData, has, text_in
from zhbert.wording import shortly, show

if TYPE_CHECKING:
    from zhbert.tasks.learners.base import Learner


@dataclass(frozen=True, kw_only=True)
class NumberData(TableData):
    """The keys of [data] for labels that may be numbers."""

    label_range: tuple[float, ...] = ()
    """The lowest and the highest number."""

    def number(self, text: str) -> float | None:
        """Return the number that a text contains, or None if it is out of range."""
        value = finite_number(text)
        low, high = self.label_range or (-math.inf, math.inf)
        return value if value is not None and low <= value <= high else None

    def not_a_number(self, text: str, where: str) -> ZhbertError:
        """Return the error of a label that is no number in the range."""
        low, high = self.label_range
        return ZhbertError(
            f"{where}: the label {show(text)} is not a number from {low:g} to {high:g}"
        )

    def could_be(self, text: str) -> bool:
        """Return whether a text is a number; a prediction may be slightly out of range."""
        return finite_number(text.strip()) is not None

    def check_range(self, where: str) -> None:
        """Require a range."""
        ends = self.label_range
        if len(ends) != 2 or not all(map(math.isfinite, ends)) or ends[0] >= ends[1]:
            raise ZhbertError(
                f"{where}: data.label_range = {show(ends)}: must be the lowest and the highest "
                "number, for example [0, 5]"
            )


@dataclass(frozen=True, kw_only=True)
class RegressData(NumberData):
    """The keys of [data] for numbers."""

    def is_gold(self, text: str) -> bool:
        """Return whether a text is a number within the range."""
        return self.number(text) is not None

    def check(self, where: str) -> None:
        """Require a column for the number, and a range."""
        super().check(where)
        self.must_have("label", where)
        self.check_range(where)


def predicted_number(row: PredictionRow, where: str) -> float:
    """Return a predicted number; raise ZhbertError if there is none."""
    number = finite_number(row.text)
    if number is None:
        raise ZhbertError(f"{where}: {shortly(row.text)}: must be a number")
    return number


class Regress(TextKind):
    """Regression of a text or a pair."""

    name = "regress"
    data_class: ClassVar[type[RegressData]] = RegressData
    metrics: ClassVar[Mapping[str, Metric]] = {
        "pearson": of_pairs(resampled_pearson),
        "spearman": of_pairs(resampled_spearman),
    }
    problem_type = "regression"

    # -- files -------------------------------------------------------------------------------------

    def gold(self, record: Record, data: RegressData, where: str, labelled: bool) -> dict[str, Any]:
        """Return the row's number, both as it is spelled and as a number."""
        if not labelled and not has(record, data.label):
            return {}
        text = text_in(record, data.label, where, null=not labelled).strip()
        value = data.number(text)
        if value is not None:
            return {"label": text, "value": value}
        if not labelled:
            return {}
        raise data.not_a_number(text, where)

    def predicted(self, row: PredictionRow, data: RegressData, where: str) -> Value:
        """Return a number."""
        return predicted_number(row, where)

    # -- scores ------------------------------------------------------------------------------------

    def each(
        self, card: TaskCard, examples: Sequence[TextExample], predictions: Sequence[Any]
    ) -> dict[str, list[float]]:
        """Return 1 minus the error, as a share of the range of the examples' numbers."""
        gold = np.array([example.value for example in examples], np.float64)
        found = np.array(predictions, np.float64)
        width = np.ptp(gold) or 1.0
        return {"score": np.maximum(0.0, 1 - np.abs(gold - found) / width).tolist()}

    # -- for people --------------------------------------------------------------------------------

    def describe(self, card: TaskCard, example: TextExample) -> str:
        """Return the number."""
        return f"number {example.value:g}"

    def describe_all(self, card: TaskCard, examples: Sequence[TextExample]) -> str:
        """Return the least and the greatest number."""
        values = [one.value or 0.0 for one in examples]
        return f"numbers: {min(values):g} to {max(values):g}"

    def facts(self, card: TaskCard) -> dict[str, str]:
        """Return the columns and the range."""
        numbers = "a number from {:g} to {:g}".format(*card.data.label_range)
        return {**super().facts(card), "labels": numbers}

    def mistake(
        self, line: Line, labels: Sequence[str], names: Mapping[str, str]
    ) -> Mistake | None:
        """Return a mistake, ranked by the distance from the right number."""
        right, predicted = as_number(line.get("gold")), as_number(line.get("predicted"))
        if right is None or predicted is None or right == predicted:
            return None
        return Mistake(
            (abs(right - predicted), 0.0),
            self.texts_of(line),
            str(line["gold"]),
            f"{predicted:.2f}",
            f"{predicted - right:+.2f}",
        )

    # -- learning ----------------------------------------------------------------------------------

    def learner(self, of: Learning) -> Learner:
        """Return a learner that minimises the squared error of numbers scaled to 0 to 1."""
        from zhbert.tasks.learners.texts import RegressLearner

        low, high = (0.0, 1.0) if of.card is None else of.card.data.label_range
        return RegressLearner(of.tokenizer, low, high, of.settings.sequence_length)

    def restored(self, of: Learning, saved: Mapping[str, Any]) -> Learner:
        """Return a learner without scaling: the head of a fine-tuned model contains the scale."""
        return self.learner(replace(of, card=None))
