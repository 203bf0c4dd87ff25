"""What a kind of task is: all that tells one kind from another, but how a model learns it.

Nothing here or in the kinds' modules imports torch, so that cards are read and predictions scored
without it; `Kind.learner` brings the part that computes.
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
    """An example that was got wrong."""

    badness: tuple[float, float]
    """The greater, the worse."""
    texts: tuple[str, ...]
    """The text, or both of a pair; question and context."""
    right: str
    predicted: str
    how_wrong: str
    """Why it is among the worst."""


class Kind(ABC):
    """One kind of task. `zhbert.tasks.kinds.KINDS` is the table of them, to which others may add.

    ``card`` may be None where a model is opened that another program fine-tuned.
    """

    name: ClassVar[str]
    """As ``kind`` in cards."""
    data_class: ClassVar[type[Data]]
    """The keys of a card's [data], and their checks."""
    formats: ClassVar[tuple[str, ...]]
    """What ``format`` may be there."""
    keys_in: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Keys of [data] that mean something in some formats alone."""
    metrics: ClassVar[Mapping[str, Metric]]
    """What a card's ``metrics`` may name."""
    metric_names: ClassVar[tuple[str, ...]]
    """The names of the metrics, where they are counted by `score` itself."""
    architecture: ClassVar[str]
    """The class of `zhbert.model.pretrained`."""
    problem_type: ClassVar[str | None] = None
    """What config.json calls it, of a sequence classification; None: of other architectures."""
    own_settings: ClassVar[frozenset[str]] = frozenset()
    """Settings of fine-tuning that no other kind reads."""
    remarks_on_scores: ClassVar[bool] = True
    """Whether what `read` remarks on matters to scores, and not to training alone."""
    class_name: ClassVar[str] = "label"
    """What a report calls what `report` counts."""

    def __init_subclass__(cls) -> None:
        if getattr(cls, "metrics", None):
            cls.metric_names = tuple(cls.metrics)

    # -- files -------------------------------------------------------------------------------------

    def check(self, card: TaskCard) -> None:  # noqa: B027 - most kinds have nothing to add
        """Refuse a card whose values contradict each other, beyond what its [data] checks."""

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
        """The examples of a file of the task's, one after the other.

        Args:
            card: the task.
            source: in UTF-8.
            split: needed where the card names a ``split_column``.
            counts: takes what is left out or repaired.
            labelled: if not, labels may be absent, and none is checked or leaves a row out.

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
        """What `read` reads; ``remark`` takes at the end what was left out or repaired."""
        counts: Counter[str] = Counter()
        yield from self.read(card, source, split, counts, labelled=labelled)
        for what, count in counts.items():
            remark(f"{source.name}: {what}: {count:,}")

    @abstractmethod
    def read_inputs(
        self, card: TaskCard | None, labels: Sequence[str], source: Source, remark: Remark
    ) -> Iterator[Example]:
        """What to predict for: a file as the task's own are, or a plainer one, such as lines.

        ``labels`` are the model's.
        """

    @abstractmethod
    def read_predictions(self, file: PredictionFile) -> dict[str, Value]:
        """What a file predicts of each example, by its id."""

    @abstractmethod
    def writers(self, card: TaskCard | None, labels: Sequence[str]) -> dict[str, PredictionWriter]:
        """The forms in which predictions are written, each by its file's suffix."""

    def submissions(
        self, card: TaskCard | None, labels: Sequence[str]
    ) -> dict[str, PredictionWriter]:
        """The forms that are handed in to a benchmark; a run writes the first.

        `read_predictions` reads them.
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
        """Score predictions, by the ids of their examples, as the card's benchmark does.

        ``null_odds`` are SQuAD 2.0's alone. Raises ZhbertError where an example has no label or no
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
        """Whether `score` takes how sure a model is that a question has no answer."""
        return False

    def paired(
        self, examples: Sequence[Example], predictions: Mapping[str, Any]
    ) -> tuple[list[Any], list[Any]]:
        """What is right and what was predicted of each example; raises ZhbertError for a gap."""
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

        Unless a kind says otherwise, 1 where the prediction is right.
        """
        pairs = zip(examples, predictions, strict=True)
        return {"score": [float(one.gold == found) for one, found in pairs]}

    def resampled(self, metric: str, lines: Sequence[Line], labels: Sequence[str]) -> Resampled:
        """A metric of the lines of a seed's predictions.jsonl; ``labels`` are the task's."""
        gold, found = ([line[key] for line in lines] for key in ("gold", "predicted"))
        return self.metrics[metric](gold, found, labels)

    def report(
        self, gold: Sequence[Any], predicted: Sequence[Any], labels: Sequence[str]
    ) -> dict[str, Any]:
        """Scores of each class as plain data; nothing where a kind has no classes.

        See `metrics.class_report` for what it holds.
        """
        return {}

    # -- for people --------------------------------------------------------------------------------

    def shown(self, example: Any) -> dict[str, Any]:
        """What predictions.jsonl holds of an example, beside what was predicted."""
        return {**example.shown, "gold": example.gold}

    @abstractmethod
    def describe(self, card: TaskCard, example: Any) -> str:
        """What is to be predicted of one example."""

    @abstractmethod
    def describe_all(self, card: TaskCard, examples: Sequence[Any]) -> str:
        """What is to be predicted of many examples: ``labels: 0 (12), 1 (34)``."""

    def facts(self, card: TaskCard) -> dict[str, str]:
        """What ``zhbert tasks NAME`` says besides, or otherwise, of a task: a label and a text."""
        return {}

    def confused(self, line: Line, labels: Sequence[str]) -> list[tuple[str, str]]:
        """What was right and what was predicted instead, of a line; nothing without classes."""
        return []

    def classes(self, labels: Sequence[str], seen: Collection[str]) -> list[str]:
        """What `confused` names, in the order of a table: the labels, then others."""
        return [*labels, *sorted(set(seen) - set(labels))]

    def mistake(
        self, line: Line, labels: Sequence[str], names: Mapping[str, str]
    ) -> Mistake | None:
        """How wrong a line of predictions.jsonl is; None where it is right, or cannot be told.

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
        """What a model learns the task with.

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
        """The learner of a model that predicts for another card of this kind."""
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


def counts_in_words(counts: Mapping[Any, int]) -> str:
    """How often each thing is there.

    >>> counts_in_words(Counter(["1", "0", "1"])), counts_in_words({})
    ('0 (1), 1 (2)', 'none')
    """
    pairs = sorted(counts.items(), key=str)
    return ", ".join(f"{name or 'none'} ({number:,})" for name, number in pairs) or "none"
