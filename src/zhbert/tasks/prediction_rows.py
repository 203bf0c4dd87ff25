"""Files of predictions as rows of an id and what was predicted, in whatever form they are written.

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

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, parse_json, refused
from zhbert.signatures import HEAD, how_to_convert, no_text, utf_16_or_32
from zhbert.spreadsheets import from_cell
from zhbert.tasks.cards import Card
from zhbert.wording import counted, listed, name, shortly

ID_NAMES = ("index", "id", "qid", "query_id")
# Of zhbert predict, of a run, of others.
VALUE_NAMES = ("prediction", "predicted", "label", "prediction_text", "answer")


@dataclass(frozen=True)
class PredictionRow:
    """One prediction."""

    line: int
    id: str | None
    """None where the file has no ids: the order says whose it is."""
    value: Any
    """A text, or whatever else JSON holds; numbers, as many as labels."""


def prediction_rows(
    path: Path, card: Card, names: Sequence[str] = VALUE_NAMES
) -> list[PredictionRow]:
    """The rows of a file, not empty, all with an id or none; of objects, what ``names`` name.

    Raises ZhbertError with file and line where it is none of the forms.
    """
    text = prediction_text(path, card.data.encoding)
    if text.lstrip().startswith(("{", "[")):
        rows = _json_rows(path, text, names)
    else:
        rows = _table_rows(path, text, card)
    if not rows:
        raise ZhbertError(f"{path}: no predictions in it")
    seen: set[str] = set()
    for row in rows:
        if (row.id is None) != (rows[0].id is None):
            raise ZhbertError(f"{path}:{row.line}: no id, although the first row has one")
        if row.id in seen:
            raise ZhbertError(f"{path}:{row.line}: the id '{name(row.id)}' stands there twice")
        if row.id is not None:
            seen.add(row.id)
    return rows


def prediction_text(path: Path, encoding: str = "") -> str:
    """A file's text: in UTF-8, as zhbert writes it, or else in the examples' ``encoding``."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise describe_os_error(error, "reading") from None
    if (what := no_text(raw[:HEAD])) is not None:
        raise ZhbertError(f"{path}: it is {what}; predictions are JSON, TSV, CSV or lines")
    try:
        text = raw.decode("utf-8-sig")
        if utf_16_or_32(raw[:HEAD]):
            # Latin letters and digits are UTF-8, too, with a NUL beside each.
            raise UnicodeDecodeError("utf-8", raw, 0, 1, "NUL bytes")
    except UnicodeDecodeError as error:
        try:
            text = raw.decode(encoding).removeprefix("\ufeff") if encoding else ""
        except UnicodeError:
            text = ""
        if raw and not text:
            raise ZhbertError(
                f"{path}: not UTF-8 ({error.reason} at byte {error.start + 1}); "
                f"{how_to_convert(raw[:HEAD])}"
            ) from None
    if not text.strip():
        raise ZhbertError(f"{path}: empty: no predictions in it")
    if "\n" not in text.strip() and text.count("\r") > 1:
        text = text.replace("\r", "\n")  # as old Macs end lines
    return text


def text_lines(text: str) -> list[tuple[int, str]]:
    """Numbered lines that are not blank."""
    # Only a line feed ends a line: Chinese text holds U+2028 and its like.
    lines = enumerate(text.split("\n"), start=1)
    return [(number, line.removesuffix("\r")) for number, line in lines if line.strip()]


# -- JSON ------------------------------------------------------------------------------------------


def _json_rows(path: Path, text: str, names: Sequence[str]) -> list[PredictionRow]:
    lines = text_lines(text)
    try:
        first = parse_json(lines[0][1], path, lines[0][0])
    except ZhbertError:
        first = None
    if isinstance(first, dict) and (len(lines) > 1 or {*ID_NAMES, *names} & first.keys()):
        return [
            _object(path, number, parse_json(line, path, number, "; write an object a line"), names)
            for number, line in lines
        ]
    table = parse_json(
        text.rstrip(), path, hint="; write an object a line" if len(lines) > 1 else ""
    )
    if isinstance(table, dict):
        if isinstance(table.get("data"), list):
            raise ZhbertError(f"{path}: holds questions, not predictions; is it GOLD?")
        return [PredictionRow(1, id_, value) for id_, value in table.items()]
    if table and all(isinstance(one, dict) for one in table):
        return [_object(path, place, one, names) for place, one in enumerate(table, start=1)]
    return [PredictionRow(place, None, one) for place, one in enumerate(table, start=1)]


def _object(path: Path, number: int, record: Any, names: Sequence[str]) -> PredictionRow:
    if not isinstance(record, dict):
        raise ZhbertError(
            f"{path}:{number}: {shortly(record)}: must be an object with id and label"
        )
    values = [record[name] for name in names if name in record]
    if not values:
        wanted = "prediction or label" if names is VALUE_NAMES else listed(names)
        raise ZhbertError(f"{path}:{number}: no {wanted}; there: {listed(record) or 'nothing'}")
    id_ = next((record[name] for name in ID_NAMES if record.get(name) is not None), None)
    if isinstance(id_, float) and id_.is_integer():
        id_ = int(id_)
    return PredictionRow(number, None if id_ is None else str(id_), values[0])


# -- tables ----------------------------------------------------------------------------------------


def _table_rows(path: Path, text: str, card: Card) -> list[PredictionRow]:
    with refused(path, "a CSV file"):
        rows = _cells(text, card)
    if not rows:
        raise ZhbertError(f"{path}: no predictions in it")
    heading = [cell.strip().lower() for cell in rows[0][1]]
    if len(heading) == 1:
        # A heading is what could not be a prediction.
        if heading[0] in VALUE_NAMES and not could_be(rows[0][1][0], card):
            rows = rows[1:]
        return [PredictionRow(number, None, cells[0]) for number, cells in rows]
    if not _is_heading(heading, rows, card):
        _check_widths(path, rows)
        return _without_heading(path, rows, card)
    id_column = next((heading.index(one) for one in ID_NAMES if one in heading), None)
    columns = [heading.index(one) for one in VALUE_NAMES if one in heading][:1]
    chances = [] if columns else _columns_of_labels(heading, card)
    if not columns and not chances and len(heading) == 2:
        columns = [1 - (id_column or 0)]
        id_column = 1 - columns[0]
    if not columns and not chances:
        raise ZhbertError(f"{path}: no column prediction or label; there: {listed(heading)}")
    _check_widths(path, rows)
    found = []
    for number, cells in rows[1:]:
        value = [_number(cells[place]) for place in chances] if chances else cells[columns[0]]
        id_ = None if id_column is None else cells[id_column].strip()
        found.append(PredictionRow(number, id_, value))
    return found


def _check_widths(path: Path, rows: list[tuple[int, list[str]]]) -> None:
    for number, cells in rows:
        if len(cells) != len(rows[0][1]):
            raise ZhbertError(
                f"{path}:{number}: {counted(len(cells), 'column')} where the first line has "
                f"{len(rows[0][1])}"
            )


def _cells(text: str, card: Card) -> list[tuple[int, list[str]]]:
    """Numbered rows: between their cells tabs, else commas, else a row is one cell."""
    lines = text_lines(text)
    first = lines[0][1]
    if "\t" in first:
        return [(number, line.split("\t")) for number, line in lines]
    if "," not in first or could_be(first, card):
        return [(number, [line]) for number, line in lines]
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(io.StringIO(text, newline=""))
    return [
        (reader.line_num, [from_cell(cell) for cell in cells])
        for cells in reader
        if any(cell.strip() for cell in cells)
    ]


def _is_heading(heading: list[str], rows: list[tuple[int, list[str]]], card: Card) -> bool:
    if {*ID_NAMES, *VALUE_NAMES} & {*heading} or _columns_of_labels(heading, card):
        return True
    # Of two columns with other names: no prediction stands in the first row, but in the next.
    return (
        len(heading) == 2
        and len(rows) > 1
        and len(rows[1][1]) == 2
        and not could_be(rows[0][1][1], card)
        and not _all_numbers(rows[:1])
        and could_be(rows[1][1][1], card)
    )


def _without_heading(
    path: Path, rows: list[tuple[int, list[str]]], card: Card
) -> list[PredictionRow]:
    width = len(rows[0][1])
    labels = card.data.labels if card.kind == "classify" else ()
    numbers = len(labels) == width and _all_numbers(rows)
    if numbers and not (width == 2 and all(could_be(cells[1], card) for _, cells in rows)):
        return [
            PredictionRow(number, None, [_number(cell) for cell in cells]) for number, cells in rows
        ]
    if width != 2:
        many = f", or {len(labels)} numbers, one for each label" if labels else ""
        raise ZhbertError(
            f"{path}: {width} columns and no header; write index and prediction, a tab "
            f"between them{many}, or a prediction a line"
        )
    return [PredictionRow(number, cells[0].strip(), cells[1]) for number, cells in rows]


def _columns_of_labels(heading: list[str], card: Card) -> list[int]:
    """Where each label's probability stands: under its name, or as ``p(name)``."""
    found = []
    for label in card.data.labels if card.kind == "classify" else ():
        # A number may be an id or a prediction as well.
        names = [f"p({label.lower()})", *([label.lower()] if math.isnan(_number(label)) else [])]
        spelled = [one for one in names if one in heading]
        if not spelled:
            return []
        found.append(heading.index(spelled[0]))
    return found


def _all_numbers(rows: list[tuple[int, list[str]]]) -> bool:
    return all(math.isfinite(_number(cell)) for _, cells in rows for cell in cells)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def could_be(text: str, card: Card) -> bool:
    """Whether a text can be a prediction of the task."""
    text = text.strip()
    if card.kind == "regress":
        return math.isfinite(_number(text))
    if card.kind == "multi_label":
        parts = text.split(card.data.label_delimiter)
        return all(card.data.known_label(part.strip()) is not None for part in parts)
    known = {*card.data.labels, *card.data.rename_labels, *card.data.label_names}
    return text in known or (card.kind == "classify" and card.data.known_label(text) is not None)


BLANK = re.compile("[ \t]+")
"""Not str.split(): U+3000 and its like are tokens, not space between columns."""
