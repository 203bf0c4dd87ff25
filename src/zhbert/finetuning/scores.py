"""What predictions are worth: the card's metrics, and a line for each example."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from zhbert.tasks.cards import TaskCard
from zhbert.tasks.read import Example, SpanExample, TagExample, TextExample
from zhbert.tasks.scoring import score

if TYPE_CHECKING:
    from zhbert.tasks.kinds import Kind, Prediction

# What of a context is kept beside a prediction, in characters.
SHOWN_CONTEXT = 200


def metrics_of(
    card: TaskCard, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> dict[str, float]:
    """The card's metrics, and those of each domain where the benchmark counts them."""
    values = {one.id: p.value for one, p in zip(examples, predictions, strict=True)}
    scores = score(card, examples, values)
    domains = {one.domain for one in examples if isinstance(one, SpanExample)} - {None}
    further = {
        name: float(value)
        for name, value in scores.further.items()
        if name.rpartition("_")[0] in {*domains, "HasAns", "NoAns"} and "total" not in name
    }
    return {**scores.metrics, **further}


def prediction_lines(
    kind: Kind, examples: Sequence[Example], predictions: Sequence[Prediction]
) -> Iterator[dict[str, Any]]:
    """What predictions.jsonl holds of each example."""
    each = kind.each(examples, predictions)
    for place, (example, prediction) in enumerate(zip(examples, predictions, strict=True)):
        scores = {name: values[place] for name, values in each.items()}
        yield {
            **_shown(example),
            "predicted": prediction.value,
            **scores,
            **prediction.details,
        }


def _shown(example: Example) -> dict[str, Any]:
    if isinstance(example, TextExample):
        pair = {} if example.text_pair is None else {"text_pair": example.text_pair}
        return {"id": example.id, "text": example.text, **pair, "gold": example.gold}
    if isinstance(example, TagExample):
        return {"id": example.id, "tokens": example.tokens, "gold": example.gold}
    context = example.context
    if len(context) > SHOWN_CONTEXT:
        span = example.training_span
        begin = max(
            0, min(span[0] - SHOWN_CONTEXT // 2 if span else 0, len(context) - SHOWN_CONTEXT)
        )
        end = begin + SHOWN_CONTEXT
        context = ("…" if begin else "") + context[begin:end] + ("…" if end < len(context) else "")
    return {
        "id": example.id,
        "question": example.question,
        "context": context,
        "gold": example.gold,
    }
