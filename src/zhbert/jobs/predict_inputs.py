"""What ``zhbert predict`` reads, from a file or from stdin: the task's own form, or a plainer one.

A file's form is told by its suffix, and that of stdin, or of a file called otherwise, by its first
line: what the task's own files look like is read as such, so that labels never become texts.
"""

from __future__ import annotations

import csv
import dataclasses
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error
from zhbert.tasks.cards import Card, Column, Data, parse_card
from zhbert.tasks.read import (
    Example,
    Remark,
    Source,
    SpanExample,
    StandardInput,
    TagExample,
    TextExample,
    head,
    iterate_examples,
    numbered_lines,
)
from zhbert.wording import listed, why_not_json

if TYPE_CHECKING:
    from zhbert.tasks.fine_tuned import FineTuned

TABLES = {".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
# So many lines are looked at to see whether sentences are tagged already. Of stdin fewer: whoever
# types, or a slow program, should not have to write many before the first is answered.
LOOKED_AT, LOOKED_AT_STDIN = 50, 3
_TAGGED = re.compile(r"\S+[ \t]+(O|[BI](-\S+)?)")


def read_inputs(opened: FineTuned, source: Source, remark: Remark) -> Iterator[Example]:
    """The examples of a file or of stdin, one after the other.

    Raises ZhbertError, with file and line, where something cannot be read as the model wants it.
    """
    try:
        yield from _INPUTS[opened.kind.name](opened, source, remark)
    except OSError as error:
        raise describe_os_error(error, "reading") from None


# -- texts and pairs -------------------------------------------------------------------------------


def _texts(opened: FineTuned, source: Source, remark: Remark) -> Iterator[Example]:
    card = _card_for(opened, source)
    if card is not None:
        yield from iterate_examples(card, source, labelled=False, remark=remark)
        return
    pairs = None if opened.card is None else opened.card.data.pairs
    for number, line in _plain_lines(source, remark):
        if pairs is False:
            yield TextExample(str(number - 1), line)
            continue
        text, *rest = line.split("\t")
        if len(rest) > 1 or (pairs and not rest):
            what = "the model compares two texts: put a tab between them"
            if len(rest) > 1:
                what = f"{len(rest) + 1} columns: write a text, or two with a tab between them"
            raise ZhbertError(f"{source}:{number}: {what}, or give a table with text and text_pair")
        yield TextExample(str(number - 1), text, rest[0] if rest else None)


def _card_for(opened: FineTuned, source: Source) -> Card | None:
    """A card that says how the file is written; None: a text a line."""
    card = opened.card or parse_card(_PLAIN_CARD, Path("text.toml"))
    data, form = card.data, TABLES.get(Path(source.name).suffix.lower())
    own = [column for column in (data.text, data.text_pair) if column]
    if form is None:
        first = next(iter(head(source, 1)), "")
        if opened.card is not None and _is_own(data, first):
            return card
        if _object(first) is None:
            return None
        form = "jsonl"
    columns = _columns(source, form)
    numbered = any(isinstance(name, int) for column in own for name in column)
    there = opened.card is not None and _are_there(own, columns)
    if there and not numbered:
        return dataclasses.replace(card, data=dataclasses.replace(data, format=form))
    if "text" in columns:
        pairs = "text_pair" in columns
        if opened.card is not None and data.pairs and not pairs:
            raise ZhbertError(f"{source}: no column 'text_pair', and the model compares two texts")
        plain = dataclasses.replace(
            data, format=form, header=True, text=("text",), label=("label",), id=(), where={},
            split_column="", text_pair=("text_pair",) if pairs else (),
        )  # fmt: skip
        return dataclasses.replace(card, data=plain)
    if there and form == data.format:
        return card
    named = "text with text_pair" if data.pairs and opened.card is not None else "text"
    if opened.card is not None and not numbered:
        theirs = " with ".join(" or ".join(map(str, column)) for column in own)
        named += f", nor {theirs}" if theirs != named else ""
    raise ZhbertError(f"{source}: no column {named}; there: {listed(columns)}")


_PLAIN_CARD: dict[str, Any] = {
    "title": "a text",
    "kind": "classify",
    "metrics": ["accuracy"],
    "data": {"format": "tsv", "dev": "-", "text": "text", "label": "label", "labels": ["0", "1"]},
}


def _is_own(data: Data, first: str) -> bool:
    """Whether a table of the task's own can begin with this line."""
    own = [column for column in (data.text, data.text_pair) if column]
    if data.format == "jsonl":
        return _object(first) is not None and _are_there(own, list(_object(first) or ()))
    if data.format not in ("tsv", "csv"):
        return False
    columns = _cells(first, data.format)
    numbers = [name for column in own for name in column if isinstance(name, int)]
    # Without names, one column or two may as well be a text or a pair; with a label there are more.
    enough = len(columns) > max(1, *numbers) if numbers else len(columns) > 0
    return enough and _are_there(own, columns)


def _are_there(own: Sequence[Column], columns: Sequence[str]) -> bool:
    def is_there(name: str | int) -> bool:
        return name < len(columns) if isinstance(name, int) else name in columns

    return all(any(map(is_there, column)) for column in own)


def _columns(source: Source, form: str) -> list[str]:
    """The names in a file's first row, as far as it has such."""
    if form == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return list(pq.read_schema(str(source)).names)
        except pa.ArrowInvalid as error:
            raise ZhbertError(f"{source}: not a parquet file ({error})") from None
    first = next(iter(head(source, 1)), "")
    if form == "jsonl":
        record = _object(first)
        if record is None:
            raise ZhbertError(f"{source}: not JSON lines: write one object a line")
        return list(record)
    return _cells(first, form)


def _cells(line: str, form: str) -> list[str]:
    return next(csv.reader([line]), []) if form == "csv" else line.split("\t")


# -- sentences to tag ------------------------------------------------------------------------------


def _sentences(opened: FineTuned, source: Source, remark: Remark) -> Iterator[Example]:
    language = "zh" if opened.card is None else opened.card.language
    if _is_records(source):
        for number, (where, record) in enumerate(_records(source)):
            tokens = record.get("tokens")
            if tokens is None:
                tokens = _tokens(str(record.get("text", "")), language)
            if not isinstance(tokens, list) or not all(isinstance(t, str) for t in tokens):
                raise ZhbertError(f"{where}: tokens must be a list of texts")
            yield TagExample(str(record.get("id", number)), tuple(tokens))
        return
    if _is_tagged(source):
        card = opened.card or parse_card(_TAG_CARD, Path("tags.toml"))
        yield from iterate_examples(card, source, labelled=False, remark=remark)
        return
    for number, line in _plain_lines(source, remark):
        yield TagExample(str(number - 1), tuple(_tokens(line, language)))


_TAG_CARD: dict[str, Any] = {
    "title": "a sentence",
    "kind": "tag",
    "metrics": ["f1"],
    "data": {"format": "bio", "dev": "-", "scheme": "BIO", "labels": ["O", "B"]},
}


def _tokens(text: str, language: str) -> list[str]:
    """Characters in Chinese, so that a token's place is its character's; words in English."""
    return list(text) if language == "zh" else text.split()


def _is_tagged(source: Source) -> bool:
    lines = head(source, LOOKED_AT_STDIN if isinstance(source, StandardInput) else LOOKED_AT)
    lines = [line.strip() for line in lines if line.strip()]
    return bool(lines) and all(map(_TAGGED.fullmatch, lines))


# -- questions -------------------------------------------------------------------------------------


def _questions(opened: FineTuned, source: Source, remark: Remark) -> Iterator[Example]:
    if not _is_records(source, "question"):
        card = opened.card or parse_card(_SQUAD_CARD, Path("squad.toml"))
        yield from iterate_examples(card, source, labelled=False, remark=remark)
        return
    for number, (where, record) in enumerate(_records(source)):
        question, context = record.get("question"), record.get("context")
        if not isinstance(question, str) or not isinstance(context, str):
            raise ZhbertError(f"{where}: question and context must be texts")
        yield SpanExample(str(record.get("id", number)), question, context)


_SQUAD_CARD: dict[str, Any] = {
    "title": "questions",
    "kind": "span",
    "metrics": ["f1", "em"],
    "data": {"format": "squad", "dev": "-", "scorer": "squad2.0", "no_answer": True},
}


_INPUTS: dict[str, Callable[[FineTuned, Source, Remark], Iterator[Example]]] = {
    "classify": _texts,
    "regress": _texts,
    "tag": _sentences,
    "span": _questions,
}


# -- lines -----------------------------------------------------------------------------------------


def _plain_lines(source: Source, remark: Remark) -> Iterator[tuple[int, str]]:
    """Lines with their numbers, from 1; blank ones are left out, and counted."""
    blank = 0
    for number, line in numbered_lines(source):
        if line.strip():
            yield number, line
        else:
            blank += 1
    if blank:
        remark(f"{source.name}: blank lines left out, an id is a line's number from 0: {blank:,}")


def _is_records(source: Source, key: str = "") -> bool:
    """Whether this is JSON lines; without that suffix, the first one must have the key."""
    if source.name.lower().endswith(".jsonl"):
        return True
    record = _object(next(iter(head(source, 1)), ""))
    return record is not None and (not key or key in record)


def _records(source: Source) -> Iterator[tuple[str, dict[str, Any]]]:
    for number, line in numbered_lines(source):
        if not line.strip():
            continue
        where = f"{source}:{number}"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ZhbertError(
                f"{where}: not JSON ({why_not_json(error)}); write one object a line"
            ) from None
        if not isinstance(record, dict):
            raise ZhbertError(f"{where}: not a JSON object; write one object a line")
        yield where, record


def _object(line: str) -> dict[str, Any] | None:
    """The JSON object that a line holds, if it does."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


__all__ = ["read_inputs"]
