"""What ``zhbert predict`` reads, from a file or from stdin: the task's own form, or a plainer one.

A file's form is told by its suffix, and that of stdin, or of a file called otherwise, by its first
line: what the task's own files look like is read as such, so that labels never become texts.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.data.sources import check_encoding
from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, refused
from zhbert.tasks.cards import Column, Data, TaskCard, finite_number, parse_card
from zhbert.tasks.entity_spans import tokens_of
from zhbert.tasks.prediction_rows import could_be
from zhbert.tasks.read import (
    DELIMITERS,
    LOOKED_AT,
    Example,
    Remark,
    TagExample,
    TextExample,
    iterate_examples,
    look_at_row,
)
from zhbert.tasks.sources import (
    Source,
    StandardInput,
    as_text,
    first_record,
    head,
    holds_json,
    is_parquet,
    numbered_lines,
)
from zhbert.tasks.tagged import is_joined
from zhbert.wording import listed

if TYPE_CHECKING:
    from zhbert.finetuning.fine_tuned import FineTuned

TABLES = {".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
# Of stdin, which may hold a few sentences only, fewer lines than LOOKED_AT are looked at to see
# whether its sentences are tagged already.
LOOKED_AT_STDIN = 3
# A token, which may be a space or an ideographic one, and its tag.
_TAGGED = re.compile(r"([^ \t]*[ \t]*)[ \t](O|[BI]|[BIMELSWU][-_][^ \t]+)", re.IGNORECASE)


def read_inputs(
    opened: FineTuned, source: Source, remark: Remark, encoding: str | None = None
) -> Iterator[Example]:
    """The examples of a file or of stdin, one after the other, in UTF-8 or in ``encoding``.

    Raises ZhbertError, with file and line, where something cannot be read as the model wants it.
    """
    check_encoding(encoding)
    try:
        source = as_text(source, encoding)
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


def _card_for(opened: FineTuned, source: Source) -> TaskCard | None:
    """A card that says how the file is written; None: a text a line."""
    card = opened.card or parse_card(_PLAIN_CARD, Path("text.toml"))
    data, form = card.data, TABLES.get(Path(source.name).suffix.lower())
    if is_parquet(source):
        form = "parquet"
    elif form not in (None, "jsonl") and first_record(source) is not None:
        form = "jsonl"
    if form is None:
        if opened.card is not None and _looks_like(card, source):
            return card
        form = _form_with_a_text(source, data, data.pairs and opened.card is not None)
        if form is None:
            return None
    columns = _columns(source, form, data)
    if opened.card is not None and _are_named(data, columns):
        return dataclasses.replace(card, data=dataclasses.replace(data, format=form))
    # "sentence": GLUE's CoLA names its columns in the test set alone.
    if "text" in columns or (form == data.format and "sentence" in columns and not data.pairs):
        pairs = "text_pair" in columns
        if opened.card is not None and data.pairs and not pairs:
            raise ZhbertError(f"{source}: no column 'text_pair', and the model compares two texts")
        plain = dataclasses.replace(
            data, format=form, header=True, text=("text", "sentence"), label=("label",), id=(),
            where={}, split_column="", text_pair=("text_pair",) if pairs else (),
        )  # fmt: skip
        return dataclasses.replace(card, data=plain)
    numbered = opened.card is not None and form == data.format and bool(_numbers(data))
    if numbered and (not data.header or len(columns) > max(_numbers(data))):
        return card
    named = "text with text_pair" if data.pairs and opened.card is not None else "text"
    if opened.card is not None and not _numbers(data):
        theirs = " with ".join(" or ".join(map(str, column)) for column in _own(data))
        named += f", nor {theirs}" if theirs != named else ""
    raise ZhbertError(f"{source}: no column {named}; there: {listed(columns)}")


_PLAIN_CARD: dict[str, Any] = {
    "title": "a text",
    "kind": "classify",
    "metrics": ["accuracy"],
    "data": {"format": "tsv", "dev": "-", "text": "text", "label": "label", "labels": ["0", "1"]},
}


def _own(data: Data) -> list[Column]:
    return [column for column in (data.text, data.text_pair) if column]


def _numbers(data: Data) -> list[int]:
    return [name for column in _own(data) for name in column if isinstance(name, int)]


def _are_named(data: Data, columns: Sequence[str]) -> bool:
    return all(any(name in columns for name in column) for column in _own(data))


def _looks_like(card: TaskCard, source: Source) -> bool:
    """Whether a file whose name does not say it is a table of the task's own.

    Names of columns are sure. Numbers are not: a text may hold a comma or a tab. There the first
    row must hold a label, which a text does not have.
    """
    data = card.data
    if data.format not in ("tsv", "csv", "jsonl"):
        return False
    if data.format == "jsonl" or not _numbers(data):
        return _are_named(data, _columns(source, data.format, data))
    row = look_at_row(source, data, 1 if data.header else 0)
    labels = [row[n] for n in data.label if isinstance(n, int) and n < len(row)]
    return len(row) > max(_numbers(data)) and bool(labels) and _is_label(labels[0], card)


def _is_label(text: str, card: TaskCard) -> bool:
    data = card.data
    if card.kind == "regress":
        number = finite_number(text)
        return number is not None and data.label_range[0] <= number <= data.label_range[1]
    return text.strip() in data.drop_labels or could_be(text, card)


def _form_with_a_text(source: Source, data: Data, pairs: bool) -> str | None:
    """The form of a table that names the columns text (and text_pair), or of any JSON lines."""
    if first_record(source) is not None:
        return "jsonl"
    for form in DELIMITERS:
        columns = _columns(source, form, data)
        # A line that is "text" and nothing else may be a text.
        if len(columns) > 1 and "text" in columns and (not pairs or "text_pair" in columns):
            return form
    return None


def _columns(source: Source, form: str, data: Data) -> list[str]:
    """The names in a file's first row, as far as it has such."""
    if form == "parquet":
        import pyarrow.parquet as pq

        with refused(source, "a parquet file"):
            return list(pq.read_schema(str(source)).names)
    if form == "jsonl":
        record = first_record(source)
        if record is None and source.name.lower().endswith((".jsonl", ".json")):
            raise ZhbertError(f"{source}: not JSON lines: write one object a line")
        return list(record or ())
    return look_at_row(source, dataclasses.replace(data, format=form))


# -- sentences to tag ------------------------------------------------------------------------------


def _sentences(opened: FineTuned, source: Source, remark: Remark) -> Iterator[Example]:
    card = opened.card or parse_card(_TAG_CARD, Path("tags.toml"))
    if (
        source.name.lower().endswith((".jsonl", ".json"))
        or holds_json(source)
        or is_joined(card, source)
        or _is_tagged(opened, source, card.language)
    ):
        yield from iterate_examples(card, source, labelled=False, remark=remark)
        return
    for number, line in _plain_lines(source, remark):
        yield TagExample(str(number - 1), tuple(tokens_of(line, card.language)))


_TAG_CARD: dict[str, Any] = {
    "title": "a sentence",
    "kind": "tag",
    "metrics": ["f1"],
    "data": {"format": "bio", "dev": "-", "scheme": "BIO", "labels": ["O", "B"]},
}


def _is_tagged(opened: FineTuned, source: Source, language: str) -> bool:
    """Whether every line that is looked at is a token and its tag.

    Of stdin, and of files as short, where "血型 O" may be a sentence, Chinese tokens must be single
    characters and tags the model's own.
    """
    most = LOOKED_AT_STDIN if isinstance(source, StandardInput) else LOOKED_AT
    found = [_TAGGED.fullmatch(line.rstrip(" \t")) for line in head(source, most)]
    matches = [match for match in found if match]
    if len(matches) < max(2, len(found)):
        return False
    if len(matches) > LOOKED_AT_STDIN:
        return True
    tokens = [match[1].strip(" \t") for match in matches]
    short = language != "zh" or all(
        len(token) <= 1 or token.isascii() or token[1:].isdigit() for token in tokens
    )
    return short and all(match[2] in (opened.kind.labels or ()) for match in matches)


# -- questions -------------------------------------------------------------------------------------


def _questions(opened: FineTuned, source: Source, remark: Remark) -> Iterator[Example]:
    if head(source, 1):
        card = opened.card or parse_card(_SQUAD_CARD, Path("squad.toml"))
        yield from iterate_examples(card, source, labelled=False, remark=remark)


_SQUAD_CARD: dict[str, Any] = {
    "title": "questions",
    "kind": "span",
    "metrics": ["f1", "em"],
    "data": {"format": "squad", "dev": "-", "scorer": "squad2.0", "no_answer": True},
}


_INPUTS: dict[str, Callable[[FineTuned, Source, Remark], Iterator[Example]]] = {
    "classify": _texts,
    "multi_label": _texts,
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


__all__ = ["read_inputs"]
