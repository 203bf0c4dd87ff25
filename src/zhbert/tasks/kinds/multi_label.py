"""Multi-label classification: several labels, one or none for a text or a pair of texts."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, cast

from zhbert.errors import ZhbertError
from zhbert.tasks.card import TaskCard
from zhbert.tasks.examples import TextExample, Value
from zhbert.tasks.kinds.base import Learning, Line, Mistake, counts_in_words, imperfect_score
from zhbert.tasks.kinds.labels import LabelKind, TextLabelData
from zhbert.tasks.metrics import AVERAGED_F1, Metric, of_pairs, resampled_exact_match
from zhbert.tasks.prediction_rows import PredictionRow
from zhbert.tasks.tables import Record, cell, mark_in, spelled
from zhbert.tasks.writers import PredictionWriter, handed_in, json_line, tables
from zhbert.wording import shortly, show

if TYPE_CHECKING:
    from zhbert.tasks.learners.base import Learner


@dataclass(frozen=True, kw_only=True)
class MultiLabelData(TextLabelData):
    """The keys of [data] for several labels per row, with the threshold of predictions."""

    label_delimiter: str = ","
    """The separator of several labels in one text."""
    threshold: float = 0.5
    """The lowest probability at which a label is predicted."""

    @property
    def label_columns(self) -> Sequence[str | int]:
        """The column with the list of labels, or one column for each label."""
        return self.label or (*self.labels, *self.rename_labels)

    def could_be(self, text: str) -> bool:
        """Return whether a text is a list of labels."""
        parts = text.split(self.label_delimiter)
        return all(self.known_label(part.strip()) is not None for part in parts)

    def check(self, where: str) -> None:
        """Require a threshold that is a probability, and a delimiter that occurs in no label."""
        super().check(where)
        if not 0 < self.threshold < 1:
            raise ZhbertError(
                f"{where}: data.threshold = {show(self.threshold)}: must be above 0 and below 1"
            )
        if not self.label_delimiter:
            raise ZhbertError(
                f'{where}: data.label_delimiter = "": must be a text, for example ","'
            )
        for label in self.labels if self.label else ():
            if self.label_delimiter in label:
                raise ZhbertError(
                    f"{where}: data.labels: {show(label)} holds label_delimiter, "
                    f"{show(self.label_delimiter)}; choose another one"
                )
        if not self.label and self.without_names:
            raise ZhbertError(
                f"{where}: data: 'label' is missing: without a header (header = false) no column "
                "has a label's name"
            )


class MultiLabel(LabelKind):
    """Classification of a text or a pair that may have several labels, or none."""

    name = "multi_label"
    data_class: ClassVar[type[MultiLabelData]] = MultiLabelData
    metrics: ClassVar[Mapping[str, Metric]] = {
        **AVERAGED_F1,
        "exact_match": of_pairs(resampled_exact_match),
    }
    problem_type = "multi_label_classification"

    # -- files -------------------------------------------------------------------------------------

    def gold(
        self, record: Record, data: MultiLabelData, where: str, labelled: bool
    ) -> dict[str, Any]:
        """Return the row's labels, from a list, from a text, or from one 0/1 column per label."""
        with nullcontext() if labelled else suppress(ZhbertError):
            return {"labels": _labels_of(record, data, where)}
        return {}

    def predicted(self, row: PredictionRow, data: MultiLabelData, where: str) -> Value:
        """Return the labels in a list or a text."""
        parts = row.value if isinstance(row.value, list) else row.text.split(data.label_delimiter)
        given = [str(part).strip() for part in parts]
        found = {data.predicted_label(part, where) for part in given if part}
        return tuple(label for label in data.labels if label in found)

    def writers(self, card: TaskCard | None, labels: Sequence[str]) -> dict[str, PredictionWriter]:
        """Return JSON lines, and tables with the probability of each label."""
        made = tables(labels=labels, delimiter=_delimiter(card))
        return {".jsonl": PredictionWriter(json_line), **made}

    def submissions(
        self, card: TaskCard | None, labels: Sequence[str]
    ) -> dict[str, PredictionWriter]:
        """Return GLUE's table and CLUE's lines."""
        return handed_in(_delimiter(card))

    # -- scores ------------------------------------------------------------------------------------

    def each(
        self, card: TaskCard, examples: Sequence[TextExample], predictions: Sequence[Any]
    ) -> dict[str, list[float]]:
        """Return each text's F1 of labels; 1 if there are none and none was predicted."""
        scores = []
        for example, prediction in zip(examples, predictions, strict=True):
            there, found = set(example.labels or ()), set(prediction)
            both = len(there) + len(found)
            scores.append(2 * len(there & found) / both if both else 1.0)
        return {"score": scores}

    # -- for people --------------------------------------------------------------------------------

    def describe(self, card: TaskCard, example: TextExample) -> str:
        """Return the labels."""
        return "labels " + (", ".join(example.labels or ()) or "none")

    def describe_all(self, card: TaskCard, examples: Sequence[TextExample]) -> str:
        """Return the count of each label, and of texts without labels."""
        given = (one.labels or (None,) for one in examples)
        return "labels: " + counts_in_words(Counter(one for labels in given for one in labels))

    def mistake(
        self, line: Line, labels: Sequence[str], names: Mapping[str, str]
    ) -> Mistake | None:
        """Return a mistake, ranked by its F1; the lowest is the worst."""
        if (score := imperfect_score(line)) is None:
            return None
        right, predicted = (self.named(line.get(key), names) for key in ("gold", "predicted"))
        return Mistake((1 - score, 0.0), self.texts_of(line), right, predicted, "")

    # -- learning ----------------------------------------------------------------------------------

    def learner(self, of: Learning) -> Learner:
        """Return a learner that minimises the binary cross entropy of each label."""
        from zhbert.tasks.learners.texts import MultiLabelLearner

        made = MultiLabelLearner(of.tokenizer, of.labels, of.settings.sequence_length)
        return made if of.card is None else self.adapted(made, of.card)

    def adapted(self, learner: Learner, card: TaskCard) -> Learner:
        """Return the learner with the threshold of the card."""
        made: Any = dataclasses.replace(cast(Any, learner), threshold=card.data.threshold)
        return cast("Learner", made)


def _delimiter(card: TaskCard | None) -> str:
    return "," if card is None else card.data.label_delimiter


def _labels_of(record: Record, data: MultiLabelData, where: str) -> tuple[str, ...]:
    if not data.label:
        spellings = {label: (label, *data.renamed_to(label)) for label in data.labels}
        return tuple(label for label in data.labels if mark_in(record, spellings[label], where))
    name, value = cell(record, data.label, where)
    if isinstance(value, str):
        value = value.split(data.label_delimiter)
    elif isinstance(value, int | Decimal):
        value = [value]
    if not isinstance(value, list) or any(isinstance(one, list | dict) for one in value):
        raise ZhbertError(
            f"{where}: {show(name)} is {shortly(value)}: must be a list of labels, or a text with "
            f"{show(data.label_delimiter)} between them; [] where there is none"
        )
    given = {spelled(one).strip() for one in value} - {""}
    given = {data.known_label(label) or label for label in given}
    for label in sorted(given - set(data.labels)):
        raise ZhbertError(f"{where}: {data.not_a_label(label)}")
    return tuple(label for label in data.labels if label in given)
