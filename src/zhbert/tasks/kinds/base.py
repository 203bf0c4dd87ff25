"""What a kind of task is: everything in which one kind differs from another.

The modules of the kinds do not import torch, so that cards are read and predictions are scored
without it. `Kind.learner` imports the part of a kind that computes.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
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
"""An object of a run's predictions.jsonl."""


@dataclass(frozen=True)
class Mistake:
    """An example whose prediction is wrong."""

    badness: tuple[float, float]
    """Mistakes are ranked by it; the worst has the greatest."""
    texts: tuple[str, ...]
    """The text, or both of a pair; question and context."""
    right: str
    predicted: str
    how_wrong: str
    """In figures, for people: ``p 0.987`` or ``F1 33 %``."""


class Kind(ABC):
    """A kind of task. `zhbert.tasks.kinds.KINDS` is the table of all kinds; others may be added.

    Where ``card`` may be None, it is None for a model that another program fine-tuned.
    """

    name: ClassVar[str]
    """Its name in cards."""
    data_class: ClassVar[type[Data]]
    """The keys of a card's section [data], with their checks."""
    formats: ClassVar[tuple[str, ...]]
    """The choices for its key ``format``."""
    keys_in: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Keys of [data] that are allowed in these formats only."""
    metrics: ClassVar[Mapping[str, Metric]]
    """What a card's ``metrics`` may name."""
    metric_names: ClassVar[tuple[str, ...]]
    """The names of ``metrics``, or those that `score` computes by itself."""
    architecture: ClassVar[str]
    """The class of `zhbert.model.pretrained`."""
    problem_type: ClassVar[str | None] = None
    """``problem_type`` in config.json, for sequence classification; None for others."""
    own_settings: ClassVar[frozenset[str]] = frozenset()
    """Settings of fine-tuning that only this kind reads."""
    remarks_on_scores: ClassVar[bool] = True
    """Whether remarks of `read` concern scores; those of spans concern training only."""
    class_name: ClassVar[str] = "label"
    """What people call the classes of `report`: label or entity."""

    def __init_subclass__(cls) -> None:
        if getattr(cls, "metrics", None):
            cls.metric_names = tuple(cls.metrics)

    # -- files -------------------------------------------------------------------------------------

    def check(self, card: TaskCard) -> None:  # noqa: B027 - most kinds have nothing to add
        """Refuse a card whose values contradict each other; [data] checks itself before that."""

    @abstractmethod
    def read(
        self,
        card: TaskCard,
        source: Source,
        split: str | None,
        counts: Counter[str],
        *,
        labelled: bool = True,
    ) -> Iterator[Example]:
        """The examples of one of the task's files, one after the other.

        Args:
            card: the task.
            source: in UTF-8.
            split: which rows to read if the card names a ``split_column``.
            counts: takes what is left out or repaired.
            labelled: if False, labels may be missing or wrong, and no row is left out for one.

        Raises:
            ZhbertError: with file and line, for what cannot be read.
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
        """What `read` reads; at the end ``remark`` takes what was left out or repaired."""
        counts: Counter[str] = Counter()
        yield from self.read(card, source, split, counts, labelled=labelled)
        for what, count in counts.items():
            remark(f"{source.name}: {what}: {count:,}")

    @abstractmethod
    def read_inputs(
        self, card: TaskCard | None, labels: Sequence[str], source: Source, remark: Remark
    ) -> Iterator[Example]:
        """Examples to predict for: a file like the task's own, or a simpler one, such as lines.

        ``labels`` are the model's.
        """

    @abstractmethod
    def read_predictions(self, file: PredictionFile) -> dict[str, Value]:
        """What a file predicts of each example, by its id."""

    @abstractmethod
    def writers(self, card: TaskCard | None, labels: Sequence[str]) -> dict[str, PredictionWriter]:
        """The forms in which predictions can be written, by the suffix of the file."""

    def submissions(
        self, card: TaskCard | None, labels: Sequence[str]
    ) -> dict[str, PredictionWriter]:
        """The forms that benchmarks accept, by the suffix of the file; a run writes the first.

        ``zhbert score`` reads them by `read_predictions`, which must find the ids in them, too: see
        `zhbert.tasks.prediction_rows` for the forms that it knows for texts. A run reads its
        submission for dev back and says where that gives other predictions, or none by id.
        """
        return self.writers(card, labels)

    # -- scores ------------------------------------------------------------------------------------

    def score(
        self,
        card: TaskCard,
        examples: Sequence[Any],
        predictions: Mapping[str, Any],
        null_odds: Mapping[str, float] | None = None,
    ) -> Scores:
        """Score predictions, which are given by the ids of their examples, as the benchmark does.

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
        """Whether `score` accepts ``null_odds`` for this card."""
        return False

    def paired(
        self, examples: Sequence[Example], predictions: Mapping[str, Any]
    ) -> tuple[list[Any], list[Any]]:
        """The gold values and the predictions, in order; raises ZhbertError if one is missing."""
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
        """Per-example metrics in [0, 1]: always ``score``; spans also ``em``.

        By default 1 if the prediction is right.
        """
        pairs = zip(examples, predictions, strict=True)
        return {"score": [float(one.gold == found) for one, found in pairs]}

    def resampled(self, metric: str, lines: Sequence[Line], labels: Sequence[str]) -> Resampled:
        """A metric of the predictions of one seed; ``labels`` are the task's."""
        gold, found = ([line[key] for line in lines] for key in ("gold", "predicted"))
        return self.metrics[metric](gold, found, labels)

    def report(
        self, gold: Sequence[Any], predicted: Sequence[Any], labels: Sequence[str]
    ) -> dict[str, Any]:
        """Scores of each class as plain data; empty if the kind has no classes.

        See `metrics.class_report` for what it holds.
        """
        return {}

    # -- for people --------------------------------------------------------------------------------

    def shown(self, example: Any) -> dict[str, Any]:
        """The keys of an example in predictions.jsonl, without those of its prediction."""
        return {**example.shown, "gold": example.gold}

    @abstractmethod
    def describe(self, card: TaskCard, example: Any) -> str:
        """The gold value of one example, for people: ``label 1``."""

    @abstractmethod
    def describe_all(self, card: TaskCard, examples: Sequence[Any]) -> str:
        """The gold values of many examples, for people: ``labels: 0 (12), 1 (34)``."""

    def facts(self, card: TaskCard) -> dict[str, str]:
        """Lines of ``zhbert tasks NAME``, by their labels; they override the usual ones."""
        return {}

    def confused(self, line: Line, labels: Sequence[str]) -> list[tuple[str, str]]:
        """Pairs of a gold and a predicted class; empty if the kind has no confusion matrix."""
        return []

    def classes(self, labels: Sequence[str], seen: Collection[str]) -> list[str]:
        """The rows and columns of the confusion matrix: the labels, then other classes ``seen``."""
        return [*labels, *sorted(set(seen) - set(labels))]

    def mistake(
        self, line: Line, labels: Sequence[str], names: Mapping[str, str]
    ) -> Mistake | None:
        """How wrong a prediction is; None if it is right, or if that cannot be told.

        ``names`` are what people call the labels.
        """
        return None

    # -- learning ----------------------------------------------------------------------------------

    @abstractmethod
    def learner(
        self,
        card: TaskCard | None,
        tokenizer: Tokenizer,
        settings: FineTuningSettings,
        labels: tuple[str, ...],
    ) -> Learner:
        """How a model learns the task.

        Args:
            card: the task.
            tokenizer: the model's.
            settings: of the run; of a model that another program fine-tuned, the length of its
                rows.
            labels: the card's or, of a model that was fine-tuned before, those of its head.
        """

    def restored(
        self,
        card: TaskCard | None,
        tokenizer: Tokenizer,
        settings: FineTuningSettings,
        labels: tuple[str, ...],
        saved: Mapping[str, Any],
    ) -> Learner:
        """The learner of a model that was fine-tuned before.

        ``saved`` is what `Learner.saved` gave then; empty where another program fine-tuned it.
        """
        made = self.learner(card, tokenizer, settings, labels)
        return made.resumed(saved) if saved else made

    def adapted(self, learner: Learner, card: TaskCard) -> Learner:
        """A model's learner, for predictions that are scored by another card of this kind."""
        return learner


def as_number(value: Any) -> float | None:
    """A finite number, else None: logs of a run that went wrong hold NaN.

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
    """The score of a line of predictions.jsonl if it is below 1, else None."""
    score = as_number(line.get("score"))
    return None if score is None or score >= 1 else score


def counts_in_words(counts: Mapping[Any, int]) -> str:
    """How often each thing is there.

    >>> counts_in_words(Counter(["1", "0", "1"])), counts_in_words({})
    ('0 (1), 1 (2)', 'none')
    """
    pairs = sorted(counts.items(), key=str)
    return ", ".join(f"{name or 'none'} ({number:,})" for name, number in pairs) or "none"
