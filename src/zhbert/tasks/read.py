"""Files of examples, checked while they are read: every problem is one line with file and line."""

from __future__ import annotations

import csv
import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, refused
from zhbert.schema import suggest
from zhbert.tasks.cards import Column, Data, TaskCard, finite_number
from zhbert.tasks.offsets import Offsets
from zhbert.tasks.sources import (
    Source,
    ahead,
    as_text,
    check_new,
    holds_json,
    is_parquet,
    json_records,
    numbered_lines,
)
from zhbert.tasks.squad import questions
from zhbert.tasks.tagged import sentences
from zhbert.wording import listed, shortly, show


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair of texts, with its label."""

    id: str
    text: str
    text_pair: str | None = None
    label: str | None = None
    """To regress: the number as it stands in the file; None where the file has no labels."""
    value: float | None = None
    """To regress: the number."""
    labels: tuple[str, ...] | None = None
    """Of several labels: those that the text has, in the card's order."""

    @property
    def gold(self) -> str | float | tuple[str, ...] | None:
        """What is to be predicted, as it is scored; None where the file does not say."""
        if self.labels is not None:
            return self.labels
        return self.label if self.value is None else self.value


@dataclass(frozen=True)
class TagExample:
    """A sentence of tokens (characters, in Chinese) with a tag for each."""

    id: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None = None

    @property
    def gold(self) -> tuple[str, ...] | None:
        """The tags."""
        return self.tags


@dataclass(frozen=True)
class SpanExample:
    """A question about a text, with every answer that counts as right."""

    id: str
    question: str
    context: str
    answers: tuple[str, ...] = ()
    """As they are scored; '' means that there is no answer, YES and NO are judgements."""
    starts: tuple[int, ...] = ()
    """Where each answer begins in ``context``, in characters; -1: it does not stand there."""
    kind: str | None = None
    """span, yes, no or none, as most answers say; None where the file has no answers."""
    domain: str | None = None
    """CJRC: civil or criminal."""

    @property
    def gold(self) -> tuple[str, ...]:
        """The answers."""
        return self.answers

    @property
    def training_span(self) -> tuple[int, int] | None:
        """Begin and end, in characters, of the first answer that stands in the text.

        >>> SpanExample("1", "几个？", "有三个。", ("3个", "三个"), (-1, 1), "span").training_span
        (1, 3)
        """
        if self.kind == "span":
            for answer, start in zip(self.answers, self.starts, strict=True):
                if start >= 0:
                    return start, start + len(answer)
        return None


Example = TextExample | TagExample | SpanExample
Remark = Callable[[str], None]
"""Takes one line about what was left out or repaired."""
_Record = Mapping[str | int, Any]
DELIMITERS = {"tsv": "\t", "csv": ","}
LOOKED_AT = 50
"""So many lines, the most, are looked at to see how a file is written."""


def read_examples(
    card: TaskCard,
    data: Path | None,
    split: str,
    *,
    labelled: bool = True,
    remark: Remark = lambda line: None,
) -> list[Example]:
    """All examples of a split, checked; ``data`` is a file, a folder, or None: the card's folder.

    Raises ZhbertError where a label is unknown, a column missing, the file empty, and so on.
    """
    path = data_file(card, data, split)
    examples = list(iterate_examples(card, path, split=split, labelled=labelled, remark=remark))
    if not examples:
        raise ZhbertError(f"{path}: no examples: the {split} set of {card.name} is empty")
    return examples


def iterate_examples(
    card: TaskCard,
    path: Source,
    *,
    split: str | None = None,
    labelled: bool = True,
    remark: Remark = lambda line: None,
) -> Iterator[Example]:
    """One example after the other, with no more than one in memory (but SQuAD's JSON).

    Not ``labelled``: labels may be absent, and none is checked or leaves a row out. A ``split`` is
    needed where the card names a ``split_column``.
    """
    counts: Counter[str] = Counter()
    try:
        path = as_text(path, card.data.encoding)
        yield from _EXAMPLES[card.kind](card, path, split, labelled, counts)
    except OSError as error:
        raise describe_os_error(error, "reading") from None
    for what, count in counts.items():
        remark(f"{path.name}: {what}: {count:,}")


def data_file(card: TaskCard, data: Path | None, split: str) -> Path:
    """The file of a split; raises ZhbertError, with the names tried, where there is none."""
    names = card.data.splits.get(split)
    if data is not None and data.is_file():
        return data
    if names is None:
        raise ZhbertError(
            f"{card.name}: the card names no file for '{split}'{suggest(split, card.data.splits)}"
        )
    folder = _folder(card, data)
    found = find_file(card, data, split)
    if found is None:
        raise ZhbertError(
            f"{folder}: no {split} file of {card.name} there; looked for {', '.join(names)}, also "
            f"in {card.data.folder or card.name}/"
        )
    return found


def find_file(card: TaskCard, data: Path | None, split: str) -> Path | None:
    """The file of a split inside a folder, or in the task's own folder there; else None.

    ``data`` None means the folder of the card itself.
    """
    folder = _folder(card, data)
    for place in ("", card.data.folder, card.name):
        for name in card.data.splits.get(split, ()):
            if (folder / place / name).is_file():
                return folder / place / name
    return None


def _folder(card: TaskCard, data: Path | None) -> Path:
    if data is None:
        if card.ships:
            raise ZhbertError(
                f"{card.name}: its examples are not part of zhbert; say where they are: --data DIR"
            )
        return card.path.parent
    if not data.is_dir():
        what = "no such file or folder"
        if data.exists():
            what = "neither a file nor a folder: save as a file what comes from it"
        raise ZhbertError(f"{data}: {what}")
    return data


# Examples, by kind


def _texts(
    card: TaskCard, path: Source, split: str | None, labelled: bool, counts: Counter[str]
) -> Iterator[Example]:
    data = card.data
    seen: set[str] = set()
    number = 0
    form = form_of(path, data)
    for line, record in READERS[form](path, dataclasses.replace(data, format=form), counts):
        where = f"{path}: row {line}" if form == "parquet" else f"{path}:{line}"
        if not _is_meant(record, data):
            continue
        identity, number = str(number), number + 1
        # Counted with the other splits: whoever predicts for the whole file counts so, too.
        if not _is_of_split(record, data, split):
            continue
        text = _joined(record, data.text, where)
        text_pair = _joined(record, data.text_pair, where) if data.text_pair else None
        if not text.strip() or (text_pair is not None and not text_pair.strip()):
            counts["rows with an empty text, read as they are"] += 1
        if data.id:
            identity = _text(record, data.id, where)
            check_new(identity, seen, where)
        names = line == 1 and not data.header and form in DELIMITERS
        gold = _gold(card, record, where, labelled, may_be_names=names)
        if labelled and gold.get("label") in data.drop_labels:
            counts[f"rows left out for their label {show(gold['label'])}"] += 1
            continue
        yield TextExample(identity, text, text_pair, **gold)


def _gold(
    card: TaskCard, record: _Record, where: str, labelled: bool, *, may_be_names: bool
) -> dict[str, Any]:
    """The fields of a TextExample that say what is right; none where the row does not say."""
    data = card.data
    if card.kind == "multi_label":
        with nullcontext() if labelled else suppress(ZhbertError):
            return {"labels": _several_labels(record, data, where)}
        return {}
    if not labelled and not _has(record, data.label):
        return {}
    label = _text(record, data.label, where, null=not labelled).strip()
    label = data.known_label(label) or label
    if labelled and label in data.drop_labels:
        return {"label": label}
    if card.kind == "regress":
        value = _number(label, data, where, labelled)
        return {} if value is None else {"label": label, "value": value}
    if label in data.labels:
        return {"label": label}
    if not labelled:
        return {}
    hint = (
        "; if these are the columns' names, set header = true in the card" if may_be_names else ""
    )
    raise ZhbertError(f"{where}: {data.not_a_label(label)}{hint}")


def _tagged(
    card: TaskCard, path: Source, split: str | None, labelled: bool, counts: Counter[str]
) -> Iterator[Example]:
    seen: set[str] = set()
    for number, one in enumerate(sentences(card, path, counts, labelled=labelled)):
        if one.id is not None:
            check_new(one.id, seen, one.where)
        yield TagExample(one.id if one.id is not None else str(number), one.tokens, one.tags)


def _spans(
    card: TaskCard, path: Source, split: str | None, labelled: bool, counts: Counter[str]
) -> Iterator[Example]:
    data = card.data
    seen: set[str] = set()
    offsets = Offsets(counts, "answers")
    for one in questions(path, labelled=labelled):
        check_new(one.id, seen, one.where)
        if not labelled:
            yield SpanExample(one.id, one.text, one.context, domain=one.domain)
            continue
        answers = tuple(answer for answer, _ in one.answers or ())
        kinds = Counter(_answer_kind(answer, data) for answer in answers)
        # Of equally many, the kind that is named first.
        kind = kinds.most_common(1)[0][0] if kinds else "none"
        if kind == "none" and not data.no_answer:
            raise ZhbertError(f"{one.where}: no answer; a card allows that with no_answer = true")
        # CJRC's people may disagree.
        if one.marked_impossible and answers and all(answers) and data.scorer != "cjrc":
            counts["questions with is_impossible and with answers, which count"] += 1
        starts = tuple(
            offsets.place(one.context, answer, start)
            if _answer_kind(answer, data) == "span"
            else -1
            for answer, start in one.answers or ()
        )
        example = SpanExample(one.id, one.text, one.context, answers, starts, kind, one.domain)
        if kind == "span" and example.training_span is None:
            counts["questions scored but not trained on: no answer stands in their text"] += 1
        yield example


def _answer_kind(answer: str, data: Data) -> str:
    if not answer:
        return "none"
    if data.yes_no and answer in ("YES", "NO"):
        return answer.lower()
    return "span"


_EXAMPLES: dict[
    str, Callable[[TaskCard, Source, str | None, bool, Counter[str]], Iterator[Example]]
] = {
    "classify": _texts,
    "multi_label": _texts,
    "regress": _texts,
    "tag": _tagged,
    "span": _spans,
}


# Rows, by format


def form_of(path: Source, data: Data) -> str:
    """The format of a table, by its first bytes and its first row, whatever the card calls it."""
    if is_parquet(path):
        return "parquet"
    if holds_json(path):
        return "jsonl"
    fitting = {form: _fits(path, data, form) for form in DELIMITERS}
    # Of two that fit alike, what the card says.
    best = max(DELIMITERS, key=lambda form: (*fitting[form], form == data.format))
    return best if fitting[best][0] else data.format


def _fits(path: Source, data: Data, form: str) -> tuple[bool, bool]:
    """Whether the first row has the columns of the texts, and of the label, cut as a format is."""
    row = look_at_row(path, dataclasses.replace(data, format=form))
    there = dict.fromkeys([*(row if data.header else ()), *range(len(row))])
    texts = all(not column or _has(there, column) for column in (data.text, data.text_pair))
    return texts, _has(there, data.label)


def look_at_row(path: Source, data: Data, number: int = 0) -> list[str]:
    """A table's row, from 0, as its reader cuts it; nothing where there is none.

    A field in quotes may go on in the next lines; so many are looked at.
    """
    try:
        rows = cut_rows(ahead(path), data, most=LOOKED_AT)
        return next(islice(rows, number, None), (0, []))[1]
    except ZhbertError:  # quotes that do not pair up
        return []


def cut_rows(
    path: Source, data: Data, *, most: int | None = None
) -> Iterator[tuple[int, list[str]]]:
    """The rows of TSV or CSV, each with the number of its first line; of so many lines, the most.

    Raises ZhbertError where quotes do not pair up.
    """
    delimiter = DELIMITERS[data.format]
    lines = islice(numbered_lines(path, ends=data.quoted), most)
    if not data.quoted:
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


def _delimited(path: Source, data: Data, counts: Counter[str]) -> Iterator[tuple[int, _Record]]:
    numbered = any(
        isinstance(name, int) for key in (data.text, data.text_pair, data.label, data.id)
        for name in key
    )  # fmt: skip
    names: list[str] | None = None
    width = 0
    for line, values in cut_rows(path, data):
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


def _json_lines(path: Source, data: Data, counts: Counter[str]) -> Iterator[tuple[int, _Record]]:
    yield from json_records(path)


def _parquet(path: Source, data: Data, counts: Counter[str]) -> Iterator[tuple[int, _Record]]:
    import pyarrow.parquet as pq

    with refused(path, "a parquet file"), pq.ParquetFile(str(path)) as file:
        names = file.schema_arrow.names
        _check_columns(path, names, data)
        wanted = {*data.text, *data.text_pair, *data.label, *data.id, *data.where}
        wanted |= {
            data.split_column,
            *(() if data.label else (*data.labels, *data.rename_labels)),
        }
        row = 0
        for batch in file.iter_batches(1024, columns=[name for name in names if name in wanted]):
            for record in batch.to_pylist():
                row += 1
                yield row, record


READERS: dict[str, Callable[[Source, Data, Counter[str]], Iterator[tuple[int, _Record]]]] = {
    "tsv": _delimited,
    "csv": _delimited,
    "jsonl": _json_lines,
    "parquet": _parquet,
}


# Fields of a row


def _check_columns(path: Source, names: Sequence[str], data: Data) -> None:
    """The texts' columns must be there; the label's is looked for row by row."""
    record = dict.fromkeys([*names, *range(len(names))])
    for column in (data.text, data.text_pair):
        if column and not _has(record, column):
            hint = ""
            if {*names} & {*data.labels}:
                hint = "; where the first line is a row, set header = false and number the columns"
            raise ZhbertError(f"{path}: {_no_column(column, record)}{hint}")
    for name in (*data.text, *data.text_pair, *(data.label or data.labels), *data.id):
        if isinstance(name, str) and list(names).count(name) > 1:
            raise ZhbertError(f"{path}: the column {show(name)} stands there twice; rename one")


def _has(record: _Record, column: Column) -> bool:
    return any(name in record for name in column)


def _cell(record: _Record, column: Column, where: str) -> tuple[str | int, Any]:
    """The first of a column's possible names that is there, and what stands there."""
    for name in column:
        if name in record:
            return name, record[name]
    raise ZhbertError(f"{where}: {_no_column(column, record)}")


def _joined(record: _Record, column: Column, where: str) -> str:
    """A text; of a list of texts, such as keywords, all with spaces between them."""
    _, value = _cell(record, column, where)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        return " ".join(value)
    return _text(record, column, where)


def _several_labels(record: _Record, data: Data, where: str) -> tuple[str, ...]:
    """The labels of a row: from a list, from a text, or from a column of 0 and 1 for each."""
    if not data.label:
        return tuple(label for label in data.labels if _mark(record, label, data, where))
    name, value = _cell(record, data.label, where)
    if isinstance(value, str):
        value = value.split(data.label_delimiter)
    elif isinstance(value, int | Decimal):
        value = [value]
    if not isinstance(value, list) or any(isinstance(one, list | dict) for one in value):
        raise ZhbertError(
            f"{where}: {show(name)} is {shortly(value)}: must be a list of labels, or a text with "
            f"{show(data.label_delimiter)} between them; [] where there is none"
        )
    given = {_spelled(one).strip() for one in value} - {""}
    given = {data.known_label(label) or label for label in given}
    for label in sorted(given - set(data.labels)):
        raise ZhbertError(f"{where}: {data.not_a_label(label)}")
    return tuple(label for label in data.labels if label in given)


_MARKS = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


def _mark(record: _Record, label: str, data: Data, where: str) -> bool:
    """Whether a row has a label that has a column of its own."""
    others = (other for other, meant in data.rename_labels.items() if meant == label)
    name, value = _cell(record, (label, *others), where)
    mark = _MARKS.get(_spelled(value).strip().lower())
    if mark is None:
        raise ZhbertError(f"{where}: {show(name)} is {shortly(value)}: must be 0 or 1")
    return mark


def _text(record: _Record, column: Column, where: str, *, null: bool = False) -> str:
    name, value = _cell(record, column, where)
    if isinstance(value, str):
        return value
    if isinstance(value, int | float | Decimal):
        return _spelled(value)
    if value is None and null:
        return ""
    raise ZhbertError(f"{where}: {show(name)} is {show(value)}: must be a text or a number")


def _no_column(column: Column, record: _Record) -> str:
    names = [name for name in record if isinstance(name, str)]
    there = names or [str(name) for name in record]
    wanted = " or ".join(show(name) for name in column)
    return f"no column {wanted}; there: {listed(there) or 'none'}"


def _is_meant(record: _Record, data: Data) -> bool:
    return all(
        _spelled(record[name]) == value for name, value in data.where.items() if name in record
    )


def _spelled(value: Any) -> str:
    """JSON's spelling of what is no text: true, 1, 0.5."""
    if isinstance(value, Decimal):
        # Parquet's; its zeros are of its column.
        return format(value.normalize(), "f")
    return value if isinstance(value, str) else json.dumps(value, default=str)


def _is_of_split(record: _Record, data: Data, split: str | None) -> bool:
    column = data.split_column
    return not column or split is None or str(record.get(column, split)) == split


def _number(text: str, data: Data, where: str, labelled: bool) -> float | None:
    low, high = data.label_range
    value = finite_number(text)
    if value is not None and low <= value <= high:
        return value
    if not labelled:
        return None
    raise ZhbertError(f"{where}: the label {show(text)} is not a number from {low:g} to {high:g}")
