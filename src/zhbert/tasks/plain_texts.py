"""Inputs to predict: tables in the form of the task's files, plainer tables, or texts in lines.

The suffix determines a file's form; for stdin and other suffixes, the first line does. If it looks
like the task's own files, the file is read as such, so that labels never become texts.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.tasks.card import TaskCard
from zhbert.tasks.examples import Example, Remark, TextExample
from zhbert.tasks.sources import Source, first_record, is_parquet, plain_lines
from zhbert.tasks.tables import DELIMITERS, TableData, columns_of, has, joined_in, look_at_row
from zhbert.wording import listed, shortly

if TYPE_CHECKING:
    from zhbert.tasks.kinds.texts import TextKind

SUFFIXES = {
    ".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet",
}  # fmt: skip


def texts_in(
    kind: TextKind, card: TaskCard | None, source: Source, remark: Remark
) -> Iterator[Example]:
    """Yield the texts or pairs of a file or of stdin.

    Without a ``card``, both texts and pairs are accepted. Raises ZhbertError, with file and line,
    if a row does not fit the model.
    """
    own = None if card is None else card.data
    data = _Form(source, own, _plain(kind) if own is None else own).data()
    if data is not None:
        card = card or TaskCard(title="a text", kind=kind.name, metrics=(), data=data)
        table = dataclasses.replace(card, data=data)
        yield from kind.examples(table, source, labelled=False, remark=remark)
        return
    pairs = None if card is None else card.data.pairs
    for number, line in plain_lines(source, remark):
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


def texts_of(own: TableData | None, value: Any, where: str) -> tuple[str, str | None]:
    """Return the text, or the pair of texts, in a value of Python.

    >>> texts_of(None, "好", "x"), texts_of(None, ("好", "不错"), "x")
    (('好', None), ('好', '不错'))

    Args:
        own: the form of the task's own files; None: texts and pairs are both accepted.
        value: a text, two texts, or a mapping with the columns text and text_pair or the task's.
        where: the value's place, for errors.
    """
    named = value
    if isinstance(value, str):
        named = {"text": value}
    elif isinstance(value, list | tuple) and len(value) == 2:
        named = dict(zip(("text", "text_pair"), value, strict=True))
    if not isinstance(named, Mapping):
        raise ZhbertError(
            f"{where} is {shortly(value)}: must be a text, two texts, or a dict with their columns"
        )
    columns = (own.text, own.text_pair) if own else ((), ())
    text, text_pair = (
        tuple(dict.fromkeys([*(name for name in column if isinstance(name, str)), plain]))
        for column, plain in zip(columns, ("text", "text_pair"), strict=True)
    )
    pair = has(named, text_pair)
    if own is not None and pair is not own.pairs:
        two = f"two texts: give both, as (text, text_pair) or with {' or '.join(text_pair)}"
        raise ZhbertError(f"{where}: the model reads {two if own.pairs else 'one text, not two'}")
    return joined_in(named, text, where), joined_in(named, text_pair, where) if pair else None


def _plain(kind: TextKind) -> TableData:
    return kind.data_class(format="tsv", dev=("-",), text=("text",), label=("label",))


@dataclass(frozen=True)
class _Form:
    """The form of a file, derived from its name and its beginning."""

    source: Source
    own: TableData | None
    """The form of the task's own files, if known."""
    usual: TableData
    """The form of the task's own files or, if unknown, of a plain table."""

    def data(self) -> TableData | None:
        """Return the description of the table; None if the file contains a text per line."""
        form = SUFFIXES.get(Path(self.source.name).suffix.lower())
        if is_parquet(self.source):
            form = "parquet"
        elif form not in (None, "jsonl") and first_record(self.source) is not None:
            form = "jsonl"
        if form is None:
            if self.own is not None and self._looks_like(self.own):
                return self.own
            form = self._form_with_a_text()
            if form is None:
                return None
        columns = self._columns(form)
        if self.own is not None and _are_named(self.own, columns):
            return dataclasses.replace(self.own, format=form)
        return self._plainer(form, columns)

    def _plainer(self, form: str, columns: Sequence[str]) -> TableData:
        """Return a table with the columns text and text_pair, or with unnamed columns."""
        own, data = self.own, self.usual
        compares = own is not None and own.pairs
        # "sentence": GLUE's CoLA has column names only in the test set.
        if "text" in columns or (form == data.format and "sentence" in columns and not compares):
            pairs = "text_pair" in columns
            if compares and not pairs:
                raise ZhbertError(
                    f"{self.source}: no column 'text_pair', and the model compares two texts"
                )
            return dataclasses.replace(
                data, format=form, header=True, text=("text", "sentence"), label=("label",), id=(),
                where={}, split_column="", text_pair=("text_pair",) if pairs else (),
            )  # fmt: skip
        numbers = [] if own is None else _numbers(own)
        wide = bool(numbers) and (not data.header or len(columns) > max(numbers))
        if own is not None and form == own.format and wide:
            return own
        named = "text with text_pair" if compares else "text"
        if own is not None and not numbers:
            theirs = " with ".join(" or ".join(map(str, column)) for column in _texts(own))
            named += f", nor {theirs}" if theirs != named else ""
        raise ZhbertError(f"{self.source}: no column {named}; there: {listed(columns)}")

    def _looks_like(self, own: TableData) -> bool:
        """Return whether a file with an unknown suffix is in the form of the task's tables.

        Column names are sufficient evidence. Column numbers are not, as a text may contain a comma
        or a tab: then the first row must contain a label.
        """
        if own.format not in (*DELIMITERS, "jsonl"):
            return False
        numbers = _numbers(own)
        if own.format == "jsonl" or not numbers:
            return _are_named(own, self._columns(own.format))
        row = look_at_row(self.source, own, 1 if own.header else 0)
        labels = [row[n] for n in own.label if isinstance(n, int) and n < len(row)]
        return len(row) > max(numbers) and bool(labels) and own.is_gold(labels[0])

    def _form_with_a_text(self) -> str | None:
        """Return the form of a table with the column text (and text_pair), or JSON lines."""
        if first_record(self.source) is not None:
            return "jsonl"
        compares = self.own is not None and self.own.pairs
        for form in DELIMITERS:
            columns = self._columns(form)
            # A line that is only the word "text" may be a text.
            if len(columns) > 1 and "text" in columns and (not compares or "text_pair" in columns):
                return form
        return None

    def _columns(self, form: str) -> list[str]:
        return columns_of(self.source, dataclasses.replace(self.usual, format=form))


def _texts(data: TableData) -> list[tuple[str | int, ...]]:
    return [column for column in (data.text, data.text_pair) if column]


def _numbers(data: TableData) -> list[int]:
    return [name for column in _texts(data) for name in column if isinstance(name, int)]


def _are_named(data: TableData, columns: Sequence[str]) -> bool:
    return all(any(name in columns for name in column) for column in _texts(data))
