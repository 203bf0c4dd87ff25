"""Predictions in the form in which each benchmark wants them: what ``read_predictions`` reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from zhbert.files import write_text
from zhbert.tasks.cards import Card
from zhbert.tasks.read import Example, TagExample
from zhbert.tasks.scoring import Prediction

SUFFIXES = {"classify": ".tsv", "regress": ".tsv", "tag": ".txt", "span": ".json"}


def write_predictions(
    card: Card, examples: Sequence[Example], values: Sequence[Prediction], stem: Path
) -> Path:
    """Write ``stem`` with the suffix of the card's kind, atomically; return the file.

    Labels and numbers become GLUE's TSV of index and prediction, tags a token and its tag a line,
    answers one JSON object by id.
    """
    path = stem.with_name(stem.name + SUFFIXES[card.kind])
    if card.kind == "span":
        answers = {one.id: value for one, value in zip(examples, values, strict=True)}
        text = json.dumps(answers, ensure_ascii=False, indent=1) + "\n"
    elif card.kind == "tag":
        sentences = []
        for one, value in zip(cast(Sequence[TagExample], examples), values, strict=True):
            tags = cast(Sequence[str], value)
            sentences.append("".join(f"{t} {g}\n" for t, g in zip(one.tokens, tags, strict=True)))
        text = "\n".join(sentences)
    else:
        rows = [f"{one.id}\t{value}\n" for one, value in zip(examples, values, strict=True)]
        text = "index\tprediction\n" + "".join(rows)
    write_text(path, text)
    return path
