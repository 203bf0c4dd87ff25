"""The base class of task kinds, which contains everything in which one kind differs from another.

The modules of the kinds do not import torch, so that cards can be read and predictions scored
without it. `Kind.learner` imports the part of a kind that needs torch.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

from zhbert.errors import ZhbertError
from zhbert.tasks.card import Data, TaskCard
from zhbert.tasks.examples import Example, Remark, Value
from zhbert.tasks.metrics import Metric, Resampled, Scores, of_all
from zhbert.tasks.predictions import PredictionFile
from zhbert.tasks.sources import Source
from zhbert.tasks.writers import PredictionWriter
from zhbert.wording import counted

if TYPE_CHECKING:
    from zhbert.tasks.learners.base import Learner
    from zhbert.tasks.settings import FineTuningSettings
    from zhbert.text.tokenizer import Tokenizer

Line = Mapping[str, Any]
"""One object of a run's predictions.jsonl."""


@dataclass(frozen=True)
class Reading:
    """One of a task's files, and how it is read."""

    card: TaskCard
    source: Source
    """The file, in UTF-8."""
    split: str | None = None
    """The rows to read if the card names a ``split_column``."""
    labelled: bool = True
    """If False, labels may be missing or wrong, and every row is kept."""
    counts: Counter[str] = field(default_factory=Counter)
    """What was left out or repaired."""


@dataclass(frozen=True)
class Learning:
    """What a learner is made of."""

    card: TaskCard | None
    tokenizer: Tokenizer
    settings: FineTuningSettings
    """The run's; for a model that was fine-tuned by another program, they have the row length."""
    labels: tuple[str, ...]
    """The card's or, for a fine-tuned model, those of its head."""


@dataclass(frozen=True)
class Mistake:
    """An example whose prediction is wrong."""

    badness: tuple[float, float]
    """The sort key of mistakes: the worst mistake has the greatest."""
    texts: tuple[str, ...]
    """The text, both texts of a pair, or question and context."""
    right: str
    predicted: str
    how_wrong: str
    """The size of the error, for people: ``p 0.987`` or ``F1 33 %``."""


class Kind(ABC):
    """A kind of task. `zhbert.tasks.kinds.KINDS` is the table of all kinds and can be extended.

    ``card`` is None for a model that was fine-tuned by another program.
    """

    name: ClassVar[str]
    """The name in cards."""
    data_class: ClassVar[type[Data]]
    """The keys of a card's section [data], with their checks."""
    formats: ClassVar[tuple[str, ...]]
    """The possible values of ``format`` in [data]."""
    keys_in: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Keys of [data] that only some formats have, with these formats."""
    metrics: ClassVar[Mapping[str, Metric]]
    """The metrics that a card's ``metrics`` may name."""
    metric_names: ClassVar[tuple[str, ...]]
    """The names in ``metrics``, or those that `score` computes itself."""
    architecture: ClassVar[str]
    """``architectures`` in config.json: the name of a class in `zhbert.model.pretrained`."""
    problem_type: ClassVar[str | None] = None
    """``problem_type`` in config.json for sequence classification; None for other kinds."""
    own_settings: ClassVar[frozenset[str]] = frozenset()
    """Fine-tuning settings that only this kind reads."""
    remarks_on_scores: ClassVar[bool] = True
    """True if remarks of `read` affect scores; for spans they affect training only."""
    predicted_together: ClassVar[bool] = False
    """True if the examples of a split that is scored share what is computed for them."""
    class_name: ClassVar[str] = "label"
    """The name for the classes of `report` in output for people: label or entity."""

    def __init_subclass__(cls) -> None:
        if getattr(cls, "metrics", None):
            cls.metric_names = tuple(cls.metrics)

    # -- files -------------------------------------------------------------------------------------

    def check(self, card: TaskCard) -> None:  # noqa: B027 - most kinds have nothing to add
        """Refuse a card whose values contradict each other; [data] was checked before."""

    @abstractmethod
    def read(self, file: Reading) -> Iterator[Example]:
        """Yield the examples of one of the task's files.

        Raises:
            ZhbertError: something cannot be read; names file and line.
        """

    def examples(
        self,
        card: TaskCard,
        source: Source,
        split: str | None = None,
        *,
        labelled: bool = True,
        remark: Remark = lambda line: None,
    ) -> Iterator[Example]:
        """Yield the examples of `read`; at the end, remark on what was left out or repaired."""
        file = Reading(card, source, split, labelled)
        yield from self.read(file)
        for what, count in file.counts.items():
            remark(f"{source.name}: {what}: {count:,}")

    @abstractmethod
    def read_inputs(
        self, card: TaskCard | None, labels: Sequence[str], source: Source, remark: Remark
    ) -> Iterator[Example]:
        """Yield examples to predict, from a file in the task's form or a simpler one.

        ``labels`` are the model's.
        """

    @abstractmethod
    def example_of(self, card: TaskCard | None, value: Any, identity: str, where: str) -> Example:
        """Return an example to predict, from a value of Python.

        Args:
            card: the model's task.
            value: a text, several texts, or a mapping with the columns that the task's files have.
            identity: the example's id.
            where: the value's place, with which errors begin.

        Raises:
            ZhbertError: the model predicts nothing for such a value.
        """

    @abstractmethod
    def read_predictions(self, file: PredictionFile) -> dict[str, Value]:
        """Return a file's predictions by the ids of their examples."""

    @abstractmethod
    def writers(self, card: TaskCard | None, labels: Sequence[str]) -> dict[str, PredictionWriter]:
        """Return the forms in which predictions can be written, by the file's suffix."""

    def submissions(
        self, card: TaskCard | None, labels: Sequence[str]
    ) -> dict[str, PredictionWriter]:
        """Return the forms that benchmarks accept, by suffix; a run writes the first one.

        ``zhbert score`` reads them with `read_predictions`, which must find the ids in them: see
        `zhbert.tasks.prediction_rows` for the forms of texts. A run reads its dev submission back
        and remarks if predictions or ids differ.
        """
        return self.writers(card, labels)

    # -- scores ------------------------------------------------------------------------------------

    def in_haystack(
        self, examples: Sequence[Any], further: Mapping[str, Sequence[Any]]
    ) -> list[Any]:
        """Return examples that are scored with the help of further splits' (``data.haystack``)."""
        return list(examples)

    def score(
        self,
        card: TaskCard,
        examples: Sequence[Any],
        predictions: Mapping[str, Any],
        null_odds: Mapping[str, float] | None = None,
    ) -> Scores:
        """Score predictions, given by the ids of their examples, as the benchmark does.

        ``null_odds`` are for SQuAD 2.0 only. Raises ZhbertError if an example has no label or no
        prediction.
        """
        gold, predicted = self.paired(examples, predictions)
        resampled = {
            name: self.metrics[name](gold, predicted, card.data.labels) for name in card.metrics
        }
        ids = {example.id for example in examples}
        return Scores(
            metrics={name: of_all(one, len(examples)) for name, one in resampled.items()},
            resampled=resampled,
            num_examples=len(examples),
            unknown=tuple(id_ for id_ in predictions if id_ not in ids),
        )

    def takes_null_odds(self, card: TaskCard) -> bool:
        """Return whether `score` accepts ``null_odds`` for this card."""
        return False

    def paired(
        self, examples: Sequence[Example], predictions: Mapping[str, Any]
    ) -> tuple[list[Any], list[Any]]:
        """Return gold values and predictions in order; raise ZhbertError if one is missing."""
        missing = [example.id for example in examples if example.id not in predictions]
        if missing:
            raise ZhbertError(
                f"{len(missing):,} of {counted(len(examples), 'example')} "
                f"{'has' if len(missing) == 1 else 'have'} no prediction; the first: {missing[0]}"
            )
        for example in examples:
            if example.gold is None:
                raise ZhbertError(f"example {example.id}: no label to compare with")
        gold = [example.gold for example in examples]
        return gold, [predictions[example.id] for example in examples]

    def each(
        self, card: TaskCard, examples: Sequence[Any], predictions: Sequence[Any]
    ) -> dict[str, list[float]]:
        """Return per-example metrics in [0, 1]: always ``score``; for spans also ``em``.

        The default is 1 if the prediction is right, else 0.
        """
        pairs = zip(examples, predictions, strict=True)
        return {"score": [float(one.gold == found) for one, found in pairs]}

    def resampled(self, metric: str, lines: Sequence[Line], labels: Sequence[str]) -> Resampled:
        """Return a metric of the predictions of one seed; ``labels`` are the task's."""
        gold, found = ([line[key] for line in lines] for key in ("gold", "predicted"))
        return self.metrics[metric](gold, found, labels)

    def report(
        self, gold: Sequence[Any], predicted: Sequence[Any], labels: Sequence[str]
    ) -> dict[str, Any]:
        """Return scores of each class as plain data; empty if the kind has no classes.

        The contents are described in `metrics.class_report`.
        """
        return {}

    # -- for people --------------------------------------------------------------------------------

    def shown(self, example: Any) -> dict[str, Any]:
        """Return an example's keys in predictions.jsonl, without those of its prediction."""
        return {**example.shown, "gold": example.gold}

    @abstractmethod
    def describe(self, card: TaskCard, example: Any) -> str:
        """Return the gold value of one example, for people: ``label 1``."""

    @abstractmethod
    def describe_all(self, card: TaskCard, examples: Sequence[Any]) -> str:
        """Return the gold values of many examples, for people: ``labels: 0 (12), 1 (34)``."""

    def facts(self, card: TaskCard) -> dict[str, str]:
        """Return lines of ``zhbert tasks NAME``, by their labels; they replace the usual ones."""
        return {}

    def confused(self, line: Line, labels: Sequence[str]) -> list[tuple[str, str]]:
        """Return pairs of gold and predicted class; empty if there is no confusion matrix."""
        return []

    def classes(self, labels: Sequence[str], seen: Collection[str]) -> list[str]:
        """Return the classes of the confusion matrix: the labels, then others in ``seen``."""
        return [*labels, *sorted(set(seen) - set(labels))]

    def mistake(
        self, line: Line, labels: Sequence[str], names: Mapping[str, str]
    ) -> Mistake | None:
        """Return how wrong a prediction is; None if it is right or cannot be judged.

        ``names`` are the names of the labels for people.
        """
        return None

    # -- learning ----------------------------------------------------------------------------------

    def to_train(
        self, card: TaskCard, examples: Sequence[Any], where: str, remark: Remark
    ) -> list[Any]:
        """Return the examples of a training file in the form in which they are learnt.

        Raises ZhbertError, which begins with ``where``, if nothing can be learnt from them.
        """
        return list(examples)

    def model_class(self) -> Any:
        """Return the class whose ``from_pretrained`` opens a model of this kind."""
        from zhbert.model import pretrained

        return getattr(pretrained, self.architecture)

    @abstractmethod
    def learner(self, of: Learning) -> Learner:
        """Return the learner for a task."""

    def restored(self, of: Learning, saved: Mapping[str, Any]) -> Learner:
        """Return the learner of a model that was fine-tuned before.

        ``saved`` is the result of `Learner.saved`, or empty if another program fine-tuned the
        model.
        """
        made = self.learner(of)
        return made.resumed(saved) if saved else made

    def adapted(self, learner: Learner, card: TaskCard) -> Learner:
        """Return a learner adapted to another card of this kind, which scores its predictions."""
        return learner


def as_number(value: Any) -> float | None:
    """Return a finite number, or None: logs of a failed run contain NaN.

    >>> as_number(3), as_number(float("nan")), as_number(True), as_number("3")
    (3.0, None, None, None)
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def imperfect_score(line: Line) -> float | None:
    """Return the score of a line of predictions.jsonl if it is below 1, else None."""
    score = as_number(line.get("score"))
    return None if score is None or score >= 1 else score


def counts_in_words(counts: Mapping[Any, int]) -> str:
    """Return each item with its count, in order.

    >>> counts_in_words(Counter(["1", "0", "1"])), counts_in_words({})
    ('0 (1), 1 (2)', 'none')
    """
    pairs = sorted(counts.items(), key=str)
    return ", ".join(f"{name or 'none'} ({number:,})" for name, number in pairs) or "none"
