"""Which labels does a text, or a pair of texts, have: several, one or none?"""

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
from zhbert.tasks.kinds.base import Line, Mistake, counts_in_words, imperfect_score
from zhbert.tasks.kinds.labels import LabelKind, TextLabelData
from zhbert.tasks.metrics import AVERAGED_F1, Metric, of_pairs, resampled_exact_match
from zhbert.tasks.prediction_rows import PredictionRow
from zhbert.tasks.tables import Record, cell, mark_in, spelled
from zhbert.tasks.writers import PredictionWriter, handed_in, json_line, tables
from zhbert.wording import shortly, show

if TYPE_CHECKING:
    from zhbert.tasks.learners.base import Learner
    from zhbert.tasks.settings import FineTuningSettings
    from zhbert.text.tokenizer import Tokenizer


@dataclass(frozen=True, kw_only=True)
class MultiLabelData(TextLabelData):
    """How several labels stand in a row, and when one is predicted."""

    label_delimiter: str = ","
    """Several labels: what stands between them where they are one text."""
    threshold: float = 0.5
    """Several labels: a label is predicted from this probability on."""

    @property
    def label_columns(self) -> Sequence[str | int]:
        """The column of the list of labels or, without one, the columns of the labels."""
        return self.label or (*self.labels, *self.rename_labels)

    def could_be(self, text: str) -> bool:
        """Whether a text is a list of labels."""
        parts = text.split(self.label_delimiter)
        return all(self.known_label(part.strip()) is not None for part in parts)

    def check(self, where: str) -> None:
        """The threshold is a probability, and the delimiter is in no label."""
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
        """The row's labels: from a list, from a text, or from a column of 0 and 1 for each."""
        with nullcontext() if labelled else suppress(ZhbertError):
            return {"labels": _labels_of(record, data, where)}
        return {}

    def predicted(self, row: PredictionRow, data: MultiLabelData, where: str) -> Value:
        """The labels of a list, or of a text."""
        parts = row.value if isinstance(row.value, list) else row.text.split(data.label_delimiter)
        given = [str(part).strip() for part in parts]
        found = {data.predicted_label(part, where) for part in given if part}
        return tuple(label for label in data.labels if label in found)

    def writers(self, card: TaskCard | None, labels: Sequence[str]) -> dict[str, PredictionWriter]:
        """JSON lines, and tables with the probability of each label."""
        made = tables(labels=labels, delimiter=_delimiter(card))
        return {".jsonl": PredictionWriter(json_line), **made}

    def submissions(
        self, card: TaskCard | None, labels: Sequence[str]
    ) -> dict[str, PredictionWriter]:
        """GLUE's table and CLUE's lines."""
        return handed_in(_delimiter(card))

    # -- scores ------------------------------------------------------------------------------------

    def each(
        self, card: TaskCard, examples: Sequence[TextExample], predictions: Sequence[Any]
    ) -> dict[str, list[float]]:
        """F1 of each text's labels; 1 where there are none and none was found."""
        scores = []
        for example, prediction in zip(examples, predictions, strict=True):
            there, found = set(example.labels or ()), set(prediction)
            both = len(there) + len(found)
            scores.append(2 * len(there & found) / both if both else 1.0)
        return {"score": scores}

    # -- for people --------------------------------------------------------------------------------

    def describe(self, card: TaskCard, example: TextExample) -> str:
        """The labels."""
        return "labels " + (", ".join(example.labels or ()) or "none")

    def describe_all(self, card: TaskCard, examples: Sequence[TextExample]) -> str:
        """How often each label is there, and how often none."""
        given = (one.labels or (None,) for one in examples)
        return "labels: " + counts_in_words(Counter(one for labels in given for one in labels))

    def mistake(
        self, line: Line, labels: Sequence[str], names: Mapping[str, str]
    ) -> Mistake | None:
        """The lower F1, the worse."""
        if (score := imperfect_score(line)) is None:
            return None
        right, predicted = (self.named(line.get(key), names) for key in ("gold", "predicted"))
        return Mistake((1 - score, 0.0), self.texts_of(line), right, predicted, "")

    # -- learning ----------------------------------------------------------------------------------

    def learner(
        self,
        card: TaskCard | None,
        tokenizer: Tokenizer,
        settings: FineTuningSettings,
        labels: tuple[str, ...],
    ) -> Learner:
        """Binary cross entropy for each label."""
        from zhbert.tasks.learners.texts import MultiLabelLearner

        made = MultiLabelLearner(tokenizer, labels, settings.sequence_length)
        return made if card is None else self.adapted(made, card)

    def adapted(self, learner: Learner, card: TaskCard) -> Learner:
        """With the threshold of the card."""
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
