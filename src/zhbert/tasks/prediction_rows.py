"""Files of predictions in many forms, read as rows of an id and a prediction.

====================== ============================================================================
JSON lines, JSON lists objects with an id and a prediction, as ``zhbert predict`` writes them; or a
                       list of predictions alone, in the order of the examples
JSON objects           ``{id: prediction}``, SQuAD's form
tables (TSV, CSV)      with a header or without: id and prediction, or as many numbers as there are
                       labels, of which the largest counts (run_classifier.py's test_results.tsv)
lines                  a prediction a line, in the order of the examples
====================== ============================================================================
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, parse_json
from zhbert.signatures import how_to_convert, utf_16_or_32
from zhbert.spreadsheets import from_cell
from zhbert.tasks.card import Data, finite_number
from zhbert.tasks.sources import (
    Source,
    as_text,
    beginning,
    check_new,
    first_line,
    first_of,
    first_record,
    head,
    is_parquet,
    json_records,
    numbered_lines,
    scalar,
    whole_text,
)
from zhbert.tasks.tables import cut_rows
from zhbert.wording import counted, listed, shortly

ID_NAMES = ("index", "id", "qid", "query_id")
# The keys of predictions that zhbert predict, a run, and other programs write.
VALUE_NAMES = ("prediction", "predicted", "label", "prediction_text", "answer")


@dataclass(frozen=True)
class PredictionRow:
    """A prediction with its id."""

    line: int
    id: str | None
    """None if the file has no ids: the order then determines the example."""
    value: Any
    """A text or another JSON value, or a list of numbers with one per label."""

    @property
    def text(self) -> str:
        """The value as a text, stripped."""
        return (self.value if isinstance(self.value, str) else json.dumps(self.value)).strip()

    @property
    def numbers(self) -> list[float] | None:
        """The value as a list of numbers; None if it is something else."""
        if not isinstance(self.value, list) or not self.value:
            return None
        for one in self.value:
            if isinstance(one, bool) or not isinstance(one, int | float):
                return None
        return self.value


def prediction_rows(
    path: Path,
    data: Data,
    names: Sequence[str] = VALUE_NAMES,
    *,
    probabilities: Sequence[str] = (),
) -> list[PredictionRow]:
    """Return the rows of a file: at least one, and either all have ids or none.

    Args:
        path: the file.
        data: decides which values are predictions, and the encoding.
        names: possible keys of the prediction in an object.
        probabilities: labels that may have a column with their probability.

    Raises:
        ZhbertError: the file has none of the forms; names file and line.
    """
    source = predictions_source(path, data.encoding)
    if first_line(source).startswith(("{", "[")):
        rows = _json_rows(source, names)
    else:
        rows = _Table(data, probabilities).rows(source)
    if not rows:
        raise ZhbertError(f"{path}: no predictions in it")
    seen: set[str] = set()
    for row in rows:
        if (row.id is None) != (rows[0].id is None):
            raise ZhbertError(f"{path}:{row.line}: no id, although the first row has one")
        if row.id is not None:
            check_new(row.id, seen, f"{path}:{row.line}")
    return rows


def predictions_source(path: Path, encoding: str = "") -> Source:
    """Return a file as UTF-8, which zhbert writes, or else in the examples' ``encoding``."""
    try:
        if is_parquet(path):
            raise ZhbertError(f"{path}: it is a parquet file; write JSON, TSV, CSV or lines")
        try:
            source = as_text(path, "")
            deque(numbered_lines(source), maxlen=0)
            start = beginning(source)
            if utf_16_or_32(start):  # Latin letters in it are UTF-8, too, with a NUL beside each
                raise ZhbertError(f"{path}: not UTF-8; {how_to_convert(start)}")
        except ZhbertError:
            if not encoding:
                raise
            source = as_text(path, encoding)
    except OSError as error:
        raise describe_os_error(error, "reading") from None
    if not first_line(source):
        raise ZhbertError(f"{path}: empty: no predictions in it")
    return source


# -- JSON ------------------------------------------------------------------------------------------


def _json_rows(source: Source, names: Sequence[str]) -> list[PredictionRow]:
    record = first_record(source)
    several = len(head(source, 2)) > 1
    if record is not None and (several or {*ID_NAMES, *names} & record.keys()):
        return [_object(f"{source}:{line}", line, one, names) for line, one in json_records(source)]
    hint = "; write an object a line" if several else ""
    table = parse_json(whole_text(source).rstrip(), source, hint=hint)
    if isinstance(table, dict):
        if isinstance(table.get("data"), list):
            raise ZhbertError(f"{source}: holds questions, not predictions; is it GOLD?")
        return [PredictionRow(1, id_, value) for id_, value in table.items()]
    return [PredictionRow(place, None, one) for place, one in enumerate(table, start=1)]


def _object(
    where: str, line: int, record: Mapping[Any, Any], names: Sequence[str]
) -> PredictionRow:
    values = [record[name] for name in names if name in record]
    if not values:
        wanted = "prediction or label" if names is VALUE_NAMES else listed(names)
        raise ZhbertError(f"{where}: no {wanted}; there: {listed(record) or 'nothing'}")
    id_ = first_of(record, ID_NAMES)
    return PredictionRow(line, None if id_ is None else scalar(id_, f"{where}: the id"), values[0])


# -- tables ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Table:
    """Tables and lines of predictions for one task."""

    data: Data
    labels: Sequence[str]
    """Labels that may have a column with their probability."""

    def rows(self, path: Source) -> list[PredictionRow]:
        rows = self._cells(path)
        heading = [cell.strip().lower() for cell in rows[0][1]]
        if len(heading) == 1:
            # A row is a heading if it cannot be a prediction.
            if heading[0] in VALUE_NAMES and not self.data.could_be(rows[0][1][0]):
                rows = rows[1:]
            return [PredictionRow(number, None, cells[0]) for number, cells in rows]
        columns = self._columns(path, heading) if self._is_heading(heading, rows) else None
        for number, cells in rows:
            if len(cells) != len(heading):
                raise ZhbertError(
                    f"{path}:{number}: {counted(len(cells), 'column')} where the first line has "
                    f"{len(heading)}"
                )
        if columns is None:
            return self._without_heading(path, rows)
        id_column, value_column, chances = columns
        found = []
        for number, cells in rows[1:]:
            value: Any = None if value_column is None else cells[value_column]
            if value_column is None:
                value = [_probability(cells[place], f"{path}:{number}") for place in chances]
            id_ = None if id_column is None else cells[id_column].strip()
            found.append(PredictionRow(number, id_, value))
        return found

    def _columns(
        self, path: Source, heading: list[str]
    ) -> tuple[int | None, int | None, list[int]]:
        """Return the columns of the id and the prediction or, without one, of the probabilities."""
        id_column = next((heading.index(one) for one in ID_NAMES if one in heading), None)
        value_column = next((heading.index(one) for one in VALUE_NAMES if one in heading), None)
        chances = [] if value_column is not None else self._columns_of_labels(heading)
        if value_column is None and not chances:
            if len(heading) != 2:
                raise ZhbertError(
                    f"{path}: no column prediction or label; there: {listed(heading)}"
                )
            value_column = 1 - (id_column or 0)
            id_column = 1 - value_column
        return id_column, value_column, chances

    def _cells(self, source: Source) -> list[tuple[int, list[str]]]:
        """Return numbered rows, cut at tabs, else at commas, else with one cell each."""
        first = head(source, 1)[0]
        if "\t" in first:
            rows = cut_rows(source, "tsv", quoted=False)
        elif "," in first and not self.data.could_be(first):
            csv = cut_rows(source, "csv", quoted=True)
            rows = ((line, list(map(from_cell, cells))) for line, cells in csv)
        else:
            rows = ((line, [text]) for line, text in numbered_lines(source))
        return [(line, cells) for line, cells in rows if any(cell.strip() for cell in cells)]

    def _is_heading(self, heading: list[str], rows: list[tuple[int, list[str]]]) -> bool:
        if {*ID_NAMES, *VALUE_NAMES} & {*heading} or self._columns_of_labels(heading):
            return True
        # Two columns with other names are a heading if only the next row contains a prediction.
        return (
            len(heading) == 2
            and len(rows) > 1
            and len(rows[1][1]) == 2
            and not self.data.could_be(rows[0][1][1])
            and not _all_numbers(rows[:1])
            and self.data.could_be(rows[1][1][1])
        )

    def _without_heading(
        self, path: Source, rows: list[tuple[int, list[str]]]
    ) -> list[PredictionRow]:
        width, labels = len(rows[0][1]), self.labels
        numbers = len(labels) == width and _all_numbers(rows)
        if numbers and not (width == 2 and all(self.data.could_be(row[1]) for _, row in rows)):
            return [PredictionRow(number, None, list(map(float, cells))) for number, cells in rows]
        if width != 2:
            many = f", or {len(labels)} numbers, one for each label" if labels else ""
            raise ZhbertError(
                f"{path}: {width} columns and no header; write index and prediction, a tab "
                f"between them{many}, or a prediction a line"
            )
        return [PredictionRow(number, cells[0].strip(), cells[1]) for number, cells in rows]

    def _columns_of_labels(self, heading: list[str]) -> list[int]:
        """Return the columns of the probabilities, named after the labels or ``p(label)``."""
        found = []
        for label in map(str.lower, self.labels):
            # A number may also be an id or a prediction.
            names = [f"p({label})", *([label] if finite_number(label) is None else [])]
            spelled = [one for one in names if one in heading]
            if not spelled:
                return []
            found.append(heading.index(spelled[0]))
        return found


def _probability(cell: str, where: str) -> float:
    chance = finite_number(cell)
    if chance is None:
        raise ZhbertError(f"{where}: {shortly(cell)}: must be a probability")
    return chance


def _all_numbers(rows: list[tuple[int, list[str]]]) -> bool:
    return all(finite_number(cell) is not None for _, cells in rows for cell in cells)
