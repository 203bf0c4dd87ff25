"""The texts of a file or of stdin, each with its id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from zhbert.data.sources import check_encoding
from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error
from zhbert.tasks.plain_texts import SUFFIXES
from zhbert.tasks.sources import Source, as_text, first_record, is_parquet, plain_lines
from zhbert.tasks.tables import (
    DELIMITERS,
    TableData,
    columns_of,
    has,
    joined_in,
    records,
    text_in,
)
from zhbert.wording import counted, listed, name, show

_COLUMNS = ("text", "sentence")


class Text(NamedTuple):
    """A text and its id: the file's, or the number of its row from 0."""

    id: str
    text: str


def read_texts(
    source: Source,
    *,
    field: str | None = None,
    encoding: str | None = None,
    remark: Callable[[str], None] = lambda line: None,
) -> Iterator[Text]:
    """Yield the texts of a file: a text a line, a table in TSV or CSV, JSON lines, or parquet.

    A table's ids are those in its column ``id``, if it has one.

    Args:
        source: the file or stdin.
        field: the column of the texts, by its name or, in a table without a header, by its number
            from 1; None: ``text`` or ``sentence``.
        encoding: the file's encoding; None: UTF-8.
        remark: called with a line for people about what was left out.

    Raises:
        ZhbertError: the file cannot be read, or a row has no text; names file and line.
    """
    check_encoding(encoding)
    try:
        source = as_text(source, encoding)
        table = _table(source, field)
        if table is None:
            for number, line in plain_lines(source, remark):
                yield Text(str(number - 1), line)
        else:
            yield from _rows(source, table, remark)
    except OSError as error:
        raise describe_os_error(error, "reading") from None


def _rows(source: Source, table: TableData, remark: Callable[[str], None]) -> Iterator[Text]:
    empty = 0
    for number, (where, record) in enumerate(records(source, table, Counter())):
        text = joined_in(record, table.text, where)
        empty += not text.strip()
        yield Text(text_in(record, table.id, where) if table.id else str(number), text)
    if empty:
        remark(f"{source.name}: rows with an empty text, read as they are: {empty:,}")


def _table(source: Source, field: str | None) -> TableData | None:
    """Return the description of a table; None if the file contains a text per line."""
    form = SUFFIXES.get("." + source.name.lower().rpartition(".")[2])
    if is_parquet(source):
        form = "parquet"
    elif first_record(source) is not None:
        form = "jsonl"
    if field is not None and field.isdecimal() and form in (None, *DELIMITERS):
        if int(field) == 0:
            raise ZhbertError("--field 0: columns are counted from 1")
        found = len(columns_of(source, _described(form or "tsv", (0,), header=False)))
        if 0 < found < int(field):
            raise ZhbertError(f"{source}: --field {field}: it has {counted(found, 'column')}")
        return _described(form or "tsv", (int(field) - 1,), header=False)
    text = _COLUMNS if field is None else (field,)
    for wanted in DELIMITERS if form is None else (form,):
        columns: dict[str | int, Any] = dict.fromkeys(columns_of(source, _described(wanted, text)))
        # A line that is only the word "text" may be a text.
        if has(columns, text) and (form is not None or len(columns) > 1):
            return _described(wanted, text, id=("id",) if "id" in columns else ())
        if form is not None:
            raise ZhbertError(
                f"{source}: no column {' or '.join(map(show, text))}; there: {listed(columns)}; "
                "--field names the column of the texts"
            )
    if field is not None:
        raise ZhbertError(f"{source}: no column '{name(field)}': it has a text a line")
    return None


def _described(form: str, text: tuple[str | int, ...], **keys: Any) -> TableData:
    return TableData(format=form, dev=("-",), text=text, **keys)
