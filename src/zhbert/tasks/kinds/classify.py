"""Classification: one label for a text or a pair of texts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from zhbert.errors import ZhbertError
from zhbert.tasks.card import TaskCard
from zhbert.tasks.examples import TextExample, Value
from zhbert.tasks.kinds.base import (
    Learning,
    Line,
    Mistake,
    as_number,
    counts_in_words,
    imperfect_score,
)
from zhbert.tasks.kinds.labels import LabelKind, TextLabelData
from zhbert.tasks.metrics import (
    AVERAGED_F1,
    Metric,
    Resampled,
    of_pairs,
    resampled_accuracy,
    resampled_f1_binary,
    resampled_matthews,
)
from zhbert.tasks.prediction_rows import PredictionRow
from zhbert.tasks.tables import DELIMITERS, Record, has, text_in
from zhbert.tasks.writers import PredictionWriter, json_line, tables

if TYPE_CHECKING:
    from zhbert.tasks.learners.base import Learner


def _f1_of_the_second(
    gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> Resampled:
    # The card's check guarantees that there are two labels.
    return resampled_f1_binary(gold, predicted, *labels[1:2])


@dataclass(frozen=True, kw_only=True)
class ClassifyData(TextLabelData):
    """The keys of [data] for single labels."""

    drop_labels: tuple[str, ...] = ()
    """Rows with these labels are left out and counted."""

    @property
    def written_labels(self) -> dict[str, tuple[str, ...]]:
        """The labels that the card contains, by their keys."""
        return {**super().written_labels, "drop_labels": self.drop_labels}

    def is_gold(self, text: str) -> bool:
        """Return whether a text is valid in the label column."""
        return text.strip() in self.drop_labels or super().is_gold(text)

    def check(self, where: str) -> None:
        """Require a label column, besides the other checks."""
        super().check(where)
        self.must_have("label", where)


class Classify(LabelKind):
    """Classification of a text or a pair: one label each."""

    name = "classify"
    data_class: ClassVar[type[ClassifyData]] = ClassifyData
    metrics: ClassVar[Mapping[str, Metric]] = {
        "accuracy": of_pairs(resampled_accuracy),
        "f1": _f1_of_the_second,
        "matthews": of_pairs(resampled_matthews),
        **AVERAGED_F1,
    }
    problem_type = "single_label_classification"

    def check(self, card: TaskCard) -> None:
        """Refuse binary F1 unless there are two labels; it is the F1 of the second one."""
        if "f1" in card.metrics and len(card.data.labels) != 2:
            raise ZhbertError(
                f"{card.path.name}: metrics: f1 needs two labels, the second the positive one; "
                f"there are {len(card.data.labels)}"
            )

    # -- files -------------------------------------------------------------------------------------

    def gold(
        self, record: Record, data: ClassifyData, where: str, labelled: bool
    ) -> dict[str, Any]:
        """Return the row's label, as the card spells it."""
        if not labelled and not has(record, data.label):
            return {}
        text = text_in(record, data.label, where, null=not labelled).strip()
        label = data.known_label(text) or text
        if label in data.labels or (labelled and label in data.drop_labels):
            return {"label": label}
        if not labelled:
            return {}
        hint = ""
        if data.format in DELIMITERS and not data.header and where.endswith(":1"):
            hint = "; if these are the columns' names, set header = true in the card"
        raise ZhbertError(f"{where}: {data.not_a_label(label)}{hint}")

    def scored_labels(self, data: ClassifyData) -> Sequence[str]:
        """Return all labels."""
        return data.labels

    def predicted(self, row: PredictionRow, data: ClassifyData, where: str) -> Value:
        """Return the named label, or the one with the largest number."""
        if row.numbers is not None:
            if len(row.numbers) != len(data.labels):
                raise ZhbertError(
                    f"{where}: {len(row.numbers)} numbers, but the card has {len(data.labels)} "
                    "labels"
                )
            return data.labels[max(range(len(data.labels)), key=row.numbers.__getitem__)]
        return data.predicted_label(row.text, where)

    def writers(self, card: TaskCard | None, labels: Sequence[str]) -> dict[str, PredictionWriter]:
        """Return JSON lines, and tables with the probability of each label."""
        return {".jsonl": PredictionWriter(json_line), **tables(probability=True, labels=labels)}

    # -- for people --------------------------------------------------------------------------------

    def describe(self, card: TaskCard, example: TextExample) -> str:
        """Return the label."""
        return f"label {example.label}"

    def describe_all(self, card: TaskCard, examples: Sequence[TextExample]) -> str:
        """Return the count of each label."""
        return "labels: " + counts_in_words(Counter(one.label for one in examples))

    def confused(self, line: Line, labels: Sequence[str]) -> list[tuple[str, str]]:
        """Return the gold label with the predicted one."""
        right, predicted = line.get("gold"), line.get("predicted")
        return [] if right is None or predicted is None else [(str(right), str(predicted))]

    def mistake(
        self, line: Line, labels: Sequence[str], names: Mapping[str, str]
    ) -> Mistake | None:
        """Return a mistake, ranked by the probability of the wrong label."""
        if imperfect_score(line) is None:
            return None
        chances = line.get("probabilities")
        chance = (
            as_number(chances.get(str(line.get("predicted"))))
            if isinstance(chances, dict)
            else None
        )
        right, predicted = (self.named(line.get(key), names) for key in ("gold", "predicted"))
        how = "" if chance is None else f"p {chance:.3f}"
        return Mistake((chance or 0.0, 0.0), self.texts_of(line), right, predicted, how)

    # -- learning ----------------------------------------------------------------------------------

    def learner(self, of: Learning) -> Learner:
        """Return a learner that minimises the cross entropy over the labels."""
        from zhbert.tasks.learners.texts import ClassifyLearner

        return ClassifyLearner(of.tokenizer, of.labels, of.settings.sequence_length)
