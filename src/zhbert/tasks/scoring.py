"""A card's metrics of predictions: what every verb that prints a score calls."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from zhbert.errors import ZhbertError
from zhbert.tasks.cards import TaskCard
from zhbert.tasks.metrics import (
    METRICS,
    Resampled,
    class_report,
    entity_counts,
    entity_report,
    of_all,
    resampled_mean,
)
from zhbert.tasks.read import Example, SpanExample
from zhbert.tasks.schemes import TagScheme, scheme_of
from zhbert.tasks.span_scores import SCORERS
from zhbert.wording import counted

Prediction = str | float | Sequence[str]
"""A label or an answer; to regress, a number; of several labels, those; to tag, a row of tags."""


@dataclass(frozen=True)
class Scores:
    """What one set of predictions scores."""

    metrics: Mapping[str, float]
    """In per cent, by the card's names and in its order."""
    resampled: Mapping[str, Resampled]
    """The same metrics of resampled examples: what `bootstrap.compare` takes."""
    num_examples: int
    further: Mapping[str, float] = field(default_factory=dict)
    """What the benchmark's scorer prints besides."""
    missing: tuple[str, ...] = ()
    """Questions without a prediction: they count 0."""
    unknown: tuple[str, ...] = ()
    """Predictions for examples that there are not: they are left out."""


def score(
    card: TaskCard,
    examples: Sequence[Example],
    predictions: Mapping[str, Prediction],
    *,
    null_odds: Mapping[str, float] | None = None,
) -> Scores:
    """Score predictions, by the ids of their examples, as the card's benchmark does.

    ``null_odds``: of SQuAD 2.0, for `squad20`. Raises `ZhbertError` where there are no examples, an
    example has no label, or, but for questions, no prediction.

    >>> from zhbert.tasks.cards import load_card
    >>> from zhbert.tasks.read import TextExample
    >>> examples = [TextExample("0", "好看", label="1"), TextExample("1", "难看", label="0")]
    >>> score(load_card("chnsenticorp"), examples, {"0": "1", "1": "1"}).metrics
    {'accuracy': 50.0}
    """
    if card.kind == "span":
        questions = cast("Sequence[SpanExample]", examples)
        return _of_spans(card, questions, cast("Mapping[str, str]", predictions), null_odds)
    missing = [example.id for example in examples if example.id not in predictions]
    if missing:
        raise ZhbertError(
            f"{len(missing):,} of {counted(len(examples), 'example')} "
            f"{'has' if len(missing) == 1 else 'have'} no prediction; the first: {missing[0]}"
        )
    gold = [_gold(example) for example in examples]
    predicted = [predictions[example.id] for example in examples]
    scheme = scheme_of(card.data.labels) if card.kind == "tag" else None
    metrics = METRICS[card.kind]
    resampled = {name: metrics[name](gold, predicted, card.data.labels) for name in card.metrics}
    ids = {example.id for example in examples}
    return Scores(
        metrics=_metrics(resampled, len(examples)),
        resampled=resampled,
        num_examples=len(examples),
        further=_precision_and_recall(gold, predicted, scheme) if scheme else {},
        unknown=tuple(id_ for id_ in predictions if id_ not in ids),
    )


def _of_spans(
    card: TaskCard,
    questions: Sequence[SpanExample],
    predictions: Mapping[str, str],
    null_odds: Mapping[str, float] | None,
) -> Scores:
    gold = {question.id: question.answers for question in questions}
    # What a scorer wants to know besides.
    more: dict[str, dict[str, object]] = {
        "squad2.0": {"null_odds": null_odds},
        "cjrc": {"domains": {one.id: one.domain for one in questions if one.domain}},
    }
    scorer = card.data.scorer
    scores = SCORERS[scorer](gold, predictions, **more.get(scorer, {}))
    values = {"em": scores.per_question_em, "f1": scores.per_question_f1}
    resampled = {name: resampled_mean(values[name]) for name in card.metrics}
    return Scores(
        metrics=_metrics(resampled, len(questions)),
        resampled=resampled,
        num_examples=len(questions),
        further=scores.further,
        missing=scores.missing,
        unknown=scores.unknown,
    )


def report(
    card: TaskCard, examples: Sequence[Example], predictions: Mapping[str, Prediction]
) -> dict[str, Any]:
    """Scores of each label or type of entity, as plain data; nothing where a kind has no classes.

    Takes what `score` took; see `metrics.class_report` for what it holds.
    """
    if card.kind not in _REPORTS:
        return {}
    gold = [_gold(example) for example in examples]
    found = [predictions[example.id] for example in examples]
    return _REPORTS[card.kind](gold, found, card.data.labels)


_REPORTS: Mapping[str, Callable[[Any, Any, Sequence[str]], dict[str, Any]]] = {
    "classify": class_report,
    "multi_label": class_report,
    "tag": entity_report,
}


def _gold(example: Example) -> Prediction:
    if example.gold is None:
        raise ZhbertError(f"example {example.id}: no label to compare with")
    return example.gold


def _metrics(resampled: Mapping[str, Resampled], num_examples: int) -> dict[str, float]:
    return {name: of_all(metric, num_examples) for name, metric in resampled.items()}


def _precision_and_recall(
    gold: Sequence[object], predicted: Sequence[object], scheme: TagScheme
) -> dict[str, float]:
    true, tags = (cast("Sequence[Sequence[str]]", side) for side in (gold, predicted))
    right, found, there = entity_counts(true, tags, scheme).sum(axis=0)
    return {
        "precision": 100 * right / found if found else 0.0,
        "recall": 100 * right / there if there else 0.0,
    }
