"""A card's metrics of predictions: what every verb that prints a score calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import write_text
from zhbert.tasks.card import TaskCard
from zhbert.tasks.cards import load_card, split_of, split_remark, with_encoding
from zhbert.tasks.examples import Example, Prediction, Value
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.metrics import Scores
from zhbert.tasks.predictions import read_null_odds
from zhbert.tasks.read import read_examples, read_predictions
from zhbert.wording import counted


def score(
    card: TaskCard,
    examples: Sequence[Example],
    predictions: Mapping[str, Value],
    *,
    null_odds: Mapping[str, float] | None = None,
) -> Scores:
    """Score predictions, by the ids of their examples, as the card's benchmark does.

    ``null_odds``: of SQuAD 2.0, for `squad20`. Raises `ZhbertError` where there are no examples, an
    example has no label, or, but for questions, no prediction.

    >>> from zhbert.tasks.examples import TextExample
    >>> examples = [TextExample("0", "好看", label="1"), TextExample("1", "难看", label="0")]
    >>> score(load_card("chnsenticorp"), examples, {"0": "1", "1": "1"}).metrics
    {'accuracy': 50.0}
    """
    return KINDS[card.kind].score(card, examples, predictions, null_odds)


def metrics_of(
    card: TaskCard, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> dict[str, float]:
    """The card's metrics of a model's predictions, and those of parts of the examples."""
    values = {one.id: p.value for one, p in zip(examples, predictions, strict=True)}
    scores = score(card, examples, values)
    return {**scores.metrics, **scores.parts}


def prediction_lines(
    card: TaskCard, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> Iterator[dict[str, Any]]:
    """What a run's predictions.jsonl holds of each example."""
    kind = KINDS[card.kind]
    each = kind.each(card, examples, [prediction.value for prediction in predictions])
    for place, (example, prediction) in enumerate(zip(examples, predictions, strict=True)):
        scores = {name: values[place] for name, values in each.items()}
        yield {
            **kind.shown(example),
            "predicted": prediction.value,
            **scores,
            **prediction.details,
        }


def write_submission(
    card: TaskCard, examples: Sequence[Example], predictions: Sequence[Prediction], stem: Path
) -> Path:
    """Write predictions as they are handed in to ``stem`` with a suffix; return the file."""
    forms = KINDS[card.kind].submissions(card, card.data.labels)
    suffix, writer = next(iter(forms.items()))
    path = stem.with_name(stem.name + suffix)
    write_text(path, writer.text(examples, predictions))
    return path


def report(
    card: TaskCard, examples: Sequence[Example], predictions: Mapping[str, Value]
) -> dict[str, Any]:
    """Scores of each label or type of entity, as plain data; nothing where a kind has no classes.

    Takes what `score` took; see `metrics.class_report` for what it holds.
    """
    kind = KINDS[card.kind]
    gold = [example.gold for example in examples]
    return kind.report(gold, [predictions.get(one.id) for one in examples], card.data.labels)


def score_files(
    task: str | Path,
    gold: Path,
    predictions: Path,
    *,
    null_odds: Path | None = None,
    split: str | None = None,
    encoding: str | None = None,
    remark: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Score a file of predictions: ``metrics``, ``further``, and what is missing or unknown.

    ``remark`` takes a line for people about each thing worth one. Raises `ZhbertError` where a file
    cannot be read or does not fit the task.
    """
    card = with_encoding(load_card(task), encoding)
    kind = KINDS[card.kind]
    if null_odds is not None and not kind.takes_null_odds(card):
        raise ZhbertError(f"--null-odds: for SQuAD 2.0's rules alone, not for {card.name}")
    split = split_of(card, gold, split)
    said = remark if kind.remarks_on_scores else (lambda line: None)
    examples = read_examples(card, gold, split, remark=said)
    found = read_predictions(card, predictions, examples, gold, split, remark)
    odds = None if null_odds is None else read_null_odds(null_odds, card)
    scores = score(card, examples, found, null_odds=odds)
    _remark_on_gaps(scores, remark)
    cut = split_remark(card, split, scores.num_examples)
    if cut:
        remark(cut)
    return {
        "task": card.name,
        "split": split,
        "examples": scores.num_examples,
        "metrics": dict(scores.metrics),
        "further": dict(scores.further),
        "missing": len(scores.missing),
        "unknown": len(scores.unknown),
        "split_note": cut,
        **report(card, examples, found),
    }


def _remark_on_gaps(scores: Scores, remark: Callable[[str], None]) -> None:
    """Say which examples have no prediction, and which predictions no example."""
    count = scores.num_examples
    for ids, one, several in (
        (
            scores.missing,
            f"of {counted(count, 'question')} has no prediction, counted as 0",
            f"of {count:,} questions have no prediction, counted as 0",
        ),
        (
            scores.unknown,
            "prediction is for an unknown id, left out",
            "predictions are for unknown ids, left out",
        ),
    ):
        if len(ids) == 1:
            remark(f"1 {one}; its id: {ids[0]}")
        elif ids:
            remark(f"{len(ids):,} {several}; the first: {ids[0]}")
