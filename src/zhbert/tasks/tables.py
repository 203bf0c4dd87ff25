"""Tables of texts in TSV, CSV, JSON lines or parquet, with one row per example."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from itertools import islice
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import refused
from zhbert.tasks.card import Column, Data
from zhbert.tasks.sources import (
    Source,
    ahead,
    first_record,
    holds_json,
    is_parquet,
    json_records,
    numbered_lines,
)
from zhbert.wording import listed, shortly, show

Record = Mapping[str | int, Any]
"""A row: the value of each column, by the column's name and, if asked for, its number."""

DELIMITERS = {"tsv": "\t", "csv": ","}
LOOKED_AT = 50
"""The most lines that are examined to find out a file's form."""


@dataclass(frozen=True, kw_only=True)
class TableData(Data):
    """The keys of [data] for tables: the columns of texts and gold values."""

    text: Column = ()
    """The column of the text or of a pair's first text; for bio, of the character, from 0."""
    text_pair: Column = ()
    """The column of a pair's second text; unset: single texts."""
    label: Column = ()
    """The column of the label, of the number (regression) or of the tag (bio). For several labels:
    the column of their list or of one text, separated by ``label_delimiter``; unset: each label has
    a column of 0 and 1."""
    id: Column = ()
    """The column of the example's id; unset: the row's number, from 0."""
    header: bool = True
    """For tsv and csv: the first line contains the columns' names."""
    quoting: bool | None = None
    """Fields may be quoted; unset: true for csv, while quotes in tsv are text."""
    where: dict[str, str] = field(default_factory=dict)
    """Only rows with this value in that column are read; a file without the column is read
    whole."""
    split_column: str = ""
    """The column with each row's split, if one file contains all splits."""
    skip_broken_rows: bool = False
    """Rows with too many or too few columns are left out and counted; unset: an error."""

    @property
    def drop_labels(self) -> tuple[str, ...]:
        """The labels whose rows are left out."""
        return ()

    @property
    def label_columns(self) -> Sequence[str | int]:
        """The possible names of the columns of the gold value."""
        return self.label

    @property
    def quoted(self) -> bool:
        """True if fields may be quoted."""
        return self.format == "csv" if self.quoting is None else self.quoting

    @property
    def pairs(self) -> bool:
        """True if an example is a pair of texts."""
        return bool(self.text_pair)

    @property
    def without_names(self) -> bool:
        """True if columns have numbers instead of names."""
        return self.format in DELIMITERS and not self.header

    def must_have(self, key: str, where: str) -> None:
        """Refuse a card without a required column."""
        if not getattr(self, key):
            raise ZhbertError(f"{where}: data: '{key}' is missing: the column of the {key}")

    def check(self, where: str) -> None:
        """Require that each column is a name or, in a table without a header, a number."""
        super().check(where)
        self.must_have("text", where)
        for key in ("where", "split_column"):
            if getattr(self, key) and self.without_names:
                raise ZhbertError(
                    f"{where}: data.{key}: without a header (header = false) no column has a name"
                )
        tabular = self.format in DELIMITERS
        for key in ("text", "text_pair", "label", "id"):
            for name in getattr(self, key):
                if isinstance(name, int) and (name < 0 or not tabular):
                    hint = f"a name: {self.format} has no numbered columns"
                    raise ZhbertError(
                        f"{where}: data.{key} = {name}: must be {'0 or more' if tabular else hint}"
                    )
                if isinstance(name, str) and self.without_names:
                    raise ZhbertError(
                        f"{where}: data.{key} = {show(name)}: without a header (header = false) a "
                        "column is a number, from 0"
                    )


def columns_in_words(data: Data, *keys: str) -> str:
    """Return the columns that a card names: ``text sentence or text, label 1``."""
    columns = {key: getattr(data, key) for key in keys}
    return ", ".join(
        f"{key} {' or '.join(map(str, column))}" for key, column in columns.items() if column
    )


# -- rows, by format -------------------------------------------------------------------------------


def records(source: Source, data: TableData, counts: Counter[str]) -> Iterator[tuple[str, Record]]:
    """Yield the rows of the card's split, each with its place for errors: ``dev.tsv:7``.

    The file itself determines the format (`form_of`). ``counts`` counts what is left out.
    """
    form = form_of(source, data)
    data = dataclasses.replace(data, format=form)
    unit = ": row " if form == "parquet" else ":"
    for line, record in READERS[form](source, data, counts):
        if all(spelled(record[name]) == one for name, one in data.where.items() if name in record):
            yield f"{source}{unit}{line}", record


def form_of(path: Source, data: TableData) -> str:
    """Return a table's format, determined from its beginning, whatever the card says."""
    if is_parquet(path):
        return "parquet"
    if holds_json(path):
        return "jsonl"
    fitting = {form: _fits(path, data, form) for form in DELIMITERS}
    # If two formats fit equally well, the card's is used.
    best = max(DELIMITERS, key=lambda form: (*fitting[form], form == data.format))
    return best if fitting[best][0] else data.format


def _fits(path: Source, data: TableData, form: str) -> tuple[bool, bool]:
    """Return whether the first row in this format has the columns of texts, and of the label."""
    row = look_at_row(path, dataclasses.replace(data, format=form))
    there = dict.fromkeys([*(row if data.header else ()), *range(len(row))])
    texts = all(not column or has(there, column) for column in (data.text, data.text_pair))
    return texts, has(there, data.label)


def look_at_row(path: Source, data: TableData, number: int = 0) -> list[str]:
    """Return a table's row, counted from 0; empty if there is none.

    A quoted field may span several lines; at most `LOOKED_AT` lines are read.
    """
    try:
        rows = cut_rows(ahead(path), data.format, quoted=data.quoted, most=LOOKED_AT)
        return next(islice(rows, number, None), (0, []))[1]
    except ZhbertError:  # unbalanced quotes
        return []


def columns_of(source: Source, data: TableData) -> list[str]:
    """Return the names of the columns of a table in the format of ``data``, if it has any."""
    if data.format == "parquet":
        import pyarrow.parquet as pq

        with refused(source, "a parquet file"):
            return list(pq.read_schema(str(source)).names)
    if data.format == "jsonl":
        record = first_record(source)
        if record is None and source.name.lower().endswith((".jsonl", ".json")):
            raise ZhbertError(f"{source}: not JSON lines: write one object a line")
        return [str(name) for name in record or ()]
    return look_at_row(source, data)


def cut_rows(
    path: Source, form: str, *, quoted: bool, most: int | None = None
) -> Iterator[tuple[int, list[str]]]:
    """Yield the rows of TSV or CSV, at most ``most`` lines, with their first line's numbers.

    Raises ZhbertError if quotes are unbalanced.
    """
    delimiter = DELIMITERS[form]
    lines = islice(numbered_lines(path, ends=quoted), most)
    if not quoted:
        yield from ((line, text.split(delimiter)) for line, text in lines if text)
        return
    # The default refuses fields of more than 131,072 characters; a document may be longer.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader((text for _, text in lines), delimiter=delimiter, strict=True)
    line = 1
    try:
        for values in reader:
            if values:
                yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        raise ZhbertError(
            f"{path}:{line}: the quotes do not pair up ({error}); a quote inside a quoted field "
            "is doubled; where quotes are text, set quoting = false in the card"
        ) from None


def _delimited(path: Source, data: TableData, counts: Counter[str]) -> Iterator[tuple[int, Record]]:
    columns = (*data.text, *data.text_pair, *data.label, *data.id)
    numbered = any(isinstance(name, int) for name in columns)
    names: list[str] | None = None
    width = 0
    for line, values in cut_rows(path, data.format, quoted=data.quoted):
        if not width:
            width = len(values)
            if data.header:
                names = values
                _check_columns(path, names, data)
                continue
        if len(values) != width:
            if data.skip_broken_rows:
                counts["rows left out for too many or too few columns"] += 1
                continue
            than = "the header has" if names else "the first row has"
            hint = ""
            if not data.quoted and any(value.startswith('"') for value in values):
                hint = "; fields in quotes need quoting = true in the card"
            raise ZhbertError(f"{path}:{line}: {len(values)} columns where {than} {width}{hint}")
        record: dict[str | int, Any] = dict(zip(names, values, strict=True)) if names else {}
        if numbered:
            record.update(enumerate(values))
        yield line, record


def _parquet(path: Source, data: TableData, counts: Counter[str]) -> Iterator[tuple[int, Record]]:
    import pyarrow.parquet as pq

    with refused(path, "a parquet file"), pq.ParquetFile(str(path)) as file:
        names = file.schema_arrow.names
        _check_columns(path, names, data)
        wanted = {*data.text, *data.text_pair, *data.label_columns, *data.id, *data.where}
        wanted.add(data.split_column)
        row = 0
        for batch in file.iter_batches(1024, columns=[name for name in names if name in wanted]):
            for record in batch.to_pylist():
                row += 1
                yield row, record


READERS: dict[str, Callable[[Source, TableData, Counter[str]], Iterator[tuple[int, Record]]]] = {
    "tsv": _delimited,
    "csv": _delimited,
    "jsonl": lambda path, data, counts: json_records(path),
    "parquet": _parquet,
}


def _check_columns(path: Source, names: Sequence[str], data: TableData) -> None:
    """Require the columns of the texts; that of the label is looked for row by row."""
    record = dict.fromkeys([*names, *range(len(names))])
    for column in (data.text, data.text_pair):
        if column and not has(record, column):
            hint = ""
            if {*names} & {*data.labels}:
                hint = "; where the first line is a row, set header = false and number the columns"
            raise ZhbertError(f"{path}: {_no_column(column, record)}{hint}")
    for name in (*data.text, *data.text_pair, *data.label_columns, *data.id):
        if isinstance(name, str) and list(names).count(name) > 1:
            raise ZhbertError(f"{path}: the column {show(name)} stands there twice; rename one")


# -- fields of a row -------------------------------------------------------------------------------


def has(record: Record, column: Column) -> bool:
    """Return whether a record has one of a column's possible names."""
    return any(name in record for name in column)


def cell(record: Record, column: Column, where: str) -> tuple[str | int, Any]:
    """Return the first of a column's possible names that the record has, and its value."""
    for name in column:
        if name in record:
            return name, record[name]
    raise ZhbertError(f"{where}: {_no_column(column, record)}")


def text_in(record: Record, column: Column, where: str, *, null: bool = False) -> str:
    """Return a text, or a number as it is spelled; with ``null``, '' for null."""
    name, value = cell(record, column, where)
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | Decimal):
        return spelled(value)
    if value is None and null:
        return ""
    raise ZhbertError(f"{where}: {show(name)} is {show(value)}: must be a text or a number")


def joined_in(record: Record, column: Column, where: str) -> str:
    """Return a text; items of a list, such as keywords, are joined with spaces."""
    _, value = cell(record, column, where)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return " ".join(value)
    return text_in(record, column, where)


_MARKS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


def mark_in(record: Record, column: Column, where: str) -> bool:
    """Return True for 1 and False for 0."""
    name, value = cell(record, column, where)
    mark = _MARKS.get(spelled(value).strip().lower())
    if mark is None:
        raise ZhbertError(f"{where}: {show(name)} is {shortly(value)}: must be 0 or 1")
    return mark


def spelled(value: Any) -> str:
    """Return a value as JSON spells it; a text is unchanged.

    >>> spelled("a"), spelled(True), spelled(0.5), spelled(Decimal("1.50"))
    ('a', 'true', '0.5', '1.5')
    """
    if isinstance(value, Decimal):
        # In parquet, the column's type decides the number of trailing zeros.
        return format(value.normalize(), "f")
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _no_column(column: Column, record: Record) -> str:
    names = [name for name in record if isinstance(name, str)]
    there = names or [str(name) for name in record]
    wanted = " or ".join(show(name) for name in column)
    return f"no column {wanted}; there: {listed(there) or 'none'}"
