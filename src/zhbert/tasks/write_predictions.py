"""Predictions in the form in which each benchmark wants them: what ``read_predictions`` reads."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, cast

from zhbert.errors import ZhbertError
from zhbert.files import to_json, write_text
from zhbert.tasks.cards import TaskCard
from zhbert.tasks.entity_spans import cluener_label, joint_of
from zhbert.tasks.read import Example, TagExample
from zhbert.tasks.schemes import Entity, scheme_of
from zhbert.tasks.scoring import Prediction

_LINE_END = re.compile(r"[\r\n]")
SUFFIXES = {
    "classify": ".tsv",
    "multi_label": ".tsv",
    "regress": ".tsv",
    "tag": ".txt",
    "span": ".json",
}


def write_predictions(
    card: TaskCard, examples: Sequence[Example], values: Sequence[Prediction], stem: Path
) -> Path:
    """Write ``stem`` with the suffix of the card's kind, atomically; return the file.

    Labels and numbers become GLUE's TSV of index and prediction, tags a token and its tag a line
    or, of examples with spans, CLUENER's lines, answers one JSON object by id or, of CJRC, a list
    of objects.
    """
    spans = card.kind == "tag" and card.data.format == "jsonl"
    path = stem.with_name(stem.name + (".json" if spans else SUFFIXES[card.kind]))
    if card.kind == "span":
        answers: Any = {one.id: value for one, value in zip(examples, values, strict=True)}
        if card.data.scorer == "cjrc":
            answers = [{"id": id_, "answer": value} for id_, value in answers.items()]
        text = to_json(answers, indent=1) + "\n"
    elif spans:
        scheme, lines = scheme_of(card.data.labels), []
        for one, value in zip(cast(Sequence[TagExample], examples), values, strict=True):
            lines.append(cluener_line(one, scheme.entities(cast(Sequence[str], value))))
        text = "".join(lines)
    elif card.kind == "tag":
        sentences = []
        for one, value in zip(cast(Sequence[TagExample], examples), values, strict=True):
            sentences.append(tagged_lines(one, cast(Sequence[str], value)))
        text = "\n".join(sentences)
    else:
        written = [in_one(value, card.data.label_delimiter) for value in values]
        rows = [f"{one.id}\t{value}\n" for one, value in zip(examples, written, strict=True)]
        text = "index\tprediction\n" + "".join(rows)
    write_text(path, text)
    return path


def in_one(value: Prediction, delimiter: str) -> str:
    """A prediction as one text; several labels with ``delimiter`` between them.

    >>> in_one(("a", "b"), ","), in_one("a", ","), in_one(0.5, ",")
    ('a,b', 'a', '0.5')
    """
    return str(value) if isinstance(value, str | float) else delimiter.join(value)


def json_id(identity: str) -> int | str:
    """An id as CLUE's own baselines write it: a number where it is one."""
    return int(identity) if identity.isdecimal() and identity.isascii() else identity


def cluener_line(example: TagExample, found: Iterable[Entity]) -> str:
    """A sentence with its entities, as CLUENER wants it handed in.

    >>> cluener_line(TagExample("7", ("李", "白")), [("name", 0, 2)])
    '{"id": 7, "text": "李白", "label": {"name": {"李白": [[0, 1]]}}}\\n'
    """
    label = cluener_label(example.tokens, found)
    text = joint_of(example.tokens).join(example.tokens)
    return to_json({"id": json_id(example.id), "text": text, "label": label}) + "\n"


def tagged_lines(example: TagExample, tags: Sequence[str]) -> str:
    """A sentence's tokens with their tags, one a line; a token that ends a line becomes a space.

    Raises ZhbertError where there is no token: such a sentence cannot be told from none.

    >>> tagged_lines(TagExample("0", ("京", "\\n")), ["B-LOC", "O"])
    '京 B-LOC\\n  O\\n'
    """
    if not example.tokens:
        raise ZhbertError(
            f"the sentence '{example.id}' is empty, which tagged lines cannot hold; write .jsonl"
        )
    pairs = zip(example.tokens, tags, strict=True)
    return "".join(f"{_LINE_END.sub(' ', token)} {tag}\n" for token, tag in pairs)
