"""The metrics of a card, computed from predictions: shared by all commands that print scores."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.files import write_text
from zhbert.tasks.card import TaskCard
from zhbert.tasks.cards import load_card, split_of, split_remark, with_encoding
from zhbert.tasks.examples import Example, Prediction, Remark, Value
from zhbert.tasks.kinds import KINDS, Kind
from zhbert.tasks.metrics import Scores
from zhbert.tasks.predictions import PredictionFile, read_null_odds
from zhbert.tasks.read import read_examples, read_predictions
from zhbert.wording import counted, shortly, show


def score(
    card: TaskCard,
    examples: Sequence[Example],
    predictions: Mapping[str, Value],
    *,
    null_odds: Mapping[str, float] | None = None,
) -> Scores:
    """Score predictions, by the ids of their examples, as the card's benchmark does.

    ``null_odds`` are for SQuAD 2.0 (`squad20`). Raises `ZhbertError` if there are no examples, or
    if an example has no label or (except for questions) no prediction.

    >>> from zhbert.tasks.examples import TextExample
    >>> examples = [TextExample("0", "好看", label="1"), TextExample("1", "难看", label="0")]
    >>> score(load_card("chnsenticorp"), examples, {"0": "1", "1": "1"}).metrics
    {'accuracy': 50.0}
    """
    return KINDS[card.kind].score(card, examples, predictions, null_odds)


def metrics_of(
    card: TaskCard, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> dict[str, float]:
    """Return the card's metrics of predictions, over all and over parts of the examples."""
    values = {one.id: p.value for one, p in zip(examples, predictions, strict=True)}
    scores = score(card, examples, values)
    return {**scores.metrics, **scores.parts}


def prediction_lines(
    card: TaskCard, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> Iterator[dict[str, Any]]:
    """Yield the objects of a run's predictions.jsonl, one per example."""
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


def check_metrics(card: TaskCard, examples: Sequence[Example]) -> None:
    """Try each metric on the gold values, so that a faulty one fails before the training.

    Raises ZhbertError if a metric does not return a function from weights (resamples, examples) to
    scores (resamples,). Kinds that override `score` are not checked.
    """
    kind = KINDS[card.kind]
    if type(kind).score is not Kind.score:
        return
    gold = [example.gold for example in examples]
    for name in card.metrics:
        found: Any = kind.metrics[name](gold, gold, card.data.labels)
        what = "returned"
        if callable(found):
            found = found(np.ones((2, len(gold))))
            what = f"of weights of shape (2, {len(gold)}) is"
            if np.shape(found) == (2,):
                continue
        raise ZhbertError(
            f"the metric {name} of the kind {kind.name} {what} {shortly(found)}; it must return a "
            "function from weights (resamples, examples) to scores (resamples,)"
        )


def write_submission(
    card: TaskCard, examples: Sequence[Example], predictions: Sequence[Prediction], stem: Path
) -> Path:
    """Write a submission to ``stem`` with a suffix and return the file."""
    forms = KINDS[card.kind].submissions(card, card.data.labels)
    suffix, writer = next(iter(forms.items()))
    path = stem.with_name(stem.name + suffix)
    write_text(path, writer.text(examples, predictions))
    return path


def check_submission(
    card: TaskCard,
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    path: Path,
    remark: Remark,
) -> None:
    """Read a submission for dev back; remark if its predictions or scores differ."""
    written = {one.id: found.value for one, found in zip(examples, predictions, strict=True)}
    file = PredictionFile(card, path, examples, Path("dev"), lambda: examples, remark)
    try:
        read = KINDS[card.kind].read_predictions(file)
        if difference := _difference(card, examples, written, read):
            remark(f"{path}: 'zhbert score' reads {difference}")
    except ZhbertError as error:
        remark(f"'zhbert score' cannot read this submission: {error}")
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        remark(f"{path}: 'zhbert score' cannot read it ({type(error).__name__}: {error})")


def _difference(
    card: TaskCard,
    examples: Sequence[Example],
    written: Mapping[str, Value],
    read: Mapping[str, Value],
) -> str:
    """Return the first difference between predictions; "" if none changes a score."""
    for id_ in read:
        if id_ not in written:
            return f"the id {show(id_)}, which no example has"
    for id_ in written:
        if id_ not in read:
            return f"no prediction for the example {show(id_)}"
    if all(_as_list(read[id_]) == _as_list(value) for id_, value in written.items()):
        return ""
    # CLUENER's lines contain entities instead of tags: different tags may have equal scores.
    sides = ([side[one.id] for one in examples] for side in (written, read))
    before, after = (KINDS[card.kind].each(card, examples, side) for side in sides)
    for place, (id_, value) in enumerate(written.items()):
        if any(before[name][place] != after[name][place] for name in before):
            return f"{shortly(read[id_])} for the example {show(id_)}, not {shortly(value)}"
    return ""


def _as_list(value: Value) -> Value:
    return value if isinstance(value, str | float) else list(value)


def report(
    card: TaskCard, examples: Sequence[Example], predictions: Mapping[str, Value]
) -> dict[str, Any]:
    """Return scores of each label or entity type as plain data; empty if there are no classes.

    The arguments are those of `score`; the contents are described in `metrics.class_report`.
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
    """Score a file of predictions; return ``metrics``, ``further``, missing and unknown ids.

    ``remark`` is called with a line for people about each irregularity. Raises `ZhbertError` if a
    file cannot be read or does not fit the task.
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
    """Remark on examples without a prediction, and on predictions without an example."""
    missing, unknown = scores.missing, scores.unknown
    of_all, has = counted(scores.num_examples, "question"), "has" if len(missing) == 1 else "have"
    agreeing = "is for an unknown id/are for unknown ids"
    for ids, what in (
        (missing, f"{len(missing):,} of {of_all} {has} no prediction, counted as 0"),
        (unknown, f"{counted(len(unknown), 'prediction', agreeing)}, left out"),
    ):
        if ids:
            remark(f"{what}; {'its id' if len(ids) == 1 else 'the first'}: {ids[0]}")
