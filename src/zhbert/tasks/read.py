"""Files of examples, checked while they are read: every problem is one line with file and line."""

from __future__ import annotations

import csv
import json
import math
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from itertools import chain, islice
from pathlib import Path
from typing import IO, Any, Literal

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, parse_json
from zhbert.schema import suggest
from zhbert.signatures import how_to_convert
from zhbert.tasks.cards import Card, Column, Data
from zhbert.wording import listed, nearest, shortly, show


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


@dataclass(frozen=True)
class TagExample:
    """A sentence of tokens (characters, in Chinese) with a tag for each."""

    id: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None = None


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


class StandardInput:
    """A stream to read examples from, once, whose first lines can be looked at before.

    >>> import io
    >>> stdin = StandardInput(io.BytesIO("一\\n二\\n".encode()))
    >>> head(stdin, 1), [text for _, text in numbered_lines(stdin)]
    (['一'], ['一', '二'])
    """

    name = "stdin"
    suffix = ""

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._seen: deque[bytes] = deque()

    def __str__(self) -> str:
        return self.name

    @contextmanager
    def open(self, mode: Literal["rb"]) -> Iterator[Iterable[bytes]]:
        """All lines, those that were looked at included."""
        yield chain(self._seen, self._stream)

    def peek(self, count: int) -> list[bytes]:
        """The first lines, no more of them read than that."""
        self._seen.extend(islice(self._stream, max(0, count - len(self._seen))))
        return list(islice(self._seen, count))


Source = Path | StandardInput


def read_examples(
    card: Card,
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
    card: Card,
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
        yield from _EXAMPLES[card.kind](card, path, split, labelled, counts)
    except OSError as error:
        raise describe_os_error(error, "reading") from None
    for what, count in counts.items():
        remark(f"{path.name}: {what}: {count:,}")


def data_file(card: Card, data: Path | None, split: str) -> Path:
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


def find_file(card: Card, data: Path | None, split: str) -> Path | None:
    """The file of a split inside a folder, or in the task's own folder there; else None.

    ``data`` None means the folder of the card itself.
    """
    folder = _folder(card, data)
    for place in ("", card.data.folder, card.name):
        for name in card.data.splits.get(split, ()):
            if (folder / place / name).is_file():
                return folder / place / name
    return None


def _folder(card: Card, data: Path | None) -> Path:
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
    card: Card, path: Source, split: str | None, labelled: bool, counts: Counter[str]
) -> Iterator[Example]:
    data = card.data
    labels = frozenset(data.labels)
    seen: set[str] = set()
    number = 0
    for line, record in READERS[data.format](path, data, counts):
        where = f"{path}: row {line}" if data.format == "parquet" else f"{path}:{line}"
        if not _is_meant(record, data):
            continue
        identity, number = str(number), number + 1
        # Counted with the other splits: whoever predicts for the whole file counts so, too.
        if not _is_of_split(record, data, split):
            continue
        text = _text(record, data.text, where)
        text_pair = _text(record, data.text_pair, where) if data.text_pair else None
        if not text.strip() or (text_pair is not None and not text_pair.strip()):
            counts["rows with an empty text, read as they are"] += 1
        if data.id:
            identity = _text(record, data.id, where)
            check_new(identity, seen, where)
        label, value = None, None
        if labelled or _has(record, data.label):
            label = _text(record, data.label, where, null=not labelled).strip()
            label = data.rename_labels.get(label, label)
            if labelled and label in data.drop_labels:
                counts[f"rows left out for their label {show(label)}"] += 1
                continue
            if card.kind == "regress":
                value = _number(label, data, where, labelled)
                label = label if value is not None else None
            elif label not in labels:
                if labelled:
                    raise ZhbertError(f"{where}: {_no_label(label, data)}")
                label = None
        yield TextExample(identity, text, text_pair, label, value)


def _tagged(
    card: Card, path: Source, split: str | None, labelled: bool, counts: Counter[str]
) -> Iterator[Example]:
    tags = frozenset(card.data.labels)
    sentence: list[tuple[str, str]] = []
    number = 0
    # A blank line ends a sentence; the end of the file, too.
    for line, text in _with_end(numbered_lines(path)):
        # Not every white space: the ideographic one is a character that may have a tag.
        if text.strip(" \t"):
            token, tag = _token_and_tag(text, f"{path}:{line}")
            if labelled and tag not in tags:
                what = _no_label(tag, card.data) if tag else f"{show(token)} has no tag"
                raise ZhbertError(f"{path}:{line}: {what}")
            if card.data.drop_word_places and token[1:].isdigit():
                token = token[0]
            sentence.append((token, tag))
        elif sentence:
            tokens, found = zip(*sentence, strict=True)
            complete = all(tag in tags for tag in found)
            yield TagExample(str(number), tokens, found if complete else None)
            sentence = []
            number += 1


def _spans(
    card: Card, path: Source, split: str | None, labelled: bool, counts: Counter[str]
) -> Iterator[Example]:
    data = card.data
    seen: set[str] = set()
    for domain, context, question in _questions(path):
        identity = str(_first(question, ("id", "query_id"), f"{path}: a question"))
        where = f"{path}: question '{identity}'"
        check_new(identity, seen, where)
        text = _first(question, ("question", "query_text"), where)
        answers = question.get("answers")
        if not isinstance(text, str):
            raise ZhbertError(f"{where}: question = {show(text)}: must be a text")
        if answers is None and not labelled:
            yield SpanExample(identity, text, context, domain=domain)
            continue
        found = _answers(answers, where)
        kinds = Counter(_answer_kind(answer, data) for answer, _ in found)
        # Of equally many, the kind that is named first.
        kind = kinds.most_common(1)[0][0] if kinds else "none"
        if kind == "none" and not data.no_answer and labelled:
            raise ZhbertError(f"{where}: no answer; a card allows that with no_answer = true")
        starts = []
        for answer, given in found:
            start = -1
            if _answer_kind(answer, data) == "span":
                start = _find(context, answer, given)
                if start < 0:
                    counts["answers that do not stand in their text"] += 1
                elif start != given:
                    counts["answers found again, not where the file says"] += 1
            starts.append(start)
        example = SpanExample(
            identity,
            text,
            context,
            tuple(answer for answer, _ in found),
            tuple(starts),
            kind,
            domain,
        )
        if kind == "span" and example.training_span is None:
            counts["questions scored but not trained on: no answer stands in their text"] += 1
        yield example


_EXAMPLES: dict[
    str, Callable[[Card, Source, str | None, bool, Counter[str]], Iterator[Example]]
] = {
    "classify": _texts,
    "regress": _texts,
    "tag": _tagged,
    "span": _spans,
}


# Rows, by format


def _delimited(path: Source, data: Data, counts: Counter[str]) -> Iterator[tuple[int, _Record]]:
    delimiter = "\t" if data.format == "tsv" else ","
    quoting = data.format == "csv" if data.quoting is None else data.quoting
    split = _quoted if quoting else _unquoted
    numbered = any(
        isinstance(name, int) for key in (data.text, data.text_pair, data.label, data.id)
        for name in key
    )  # fmt: skip
    names: list[str] | None = None
    width = 0
    for line, values in split(path, delimiter):
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
            raise ZhbertError(
                f"{path}:{line}: {len(values)} columns where {than} {width}"
                + _quoting_hint(values, quoting)
            )
        record: dict[str | int, Any] = dict(zip(names, values, strict=True)) if names else {}
        if numbered:
            record.update(enumerate(values))
        yield line, record


def _quoted(path: Source, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    # The default refuses fields of more than 131,072 characters; a document may be longer.
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(
        (text for _, text in numbered_lines(path, ends=True)), delimiter=delimiter, strict=True
    )
    line = 1
    try:
        for values in reader:
            if values:
                yield line, values
            line = reader.line_num + 1
    except csv.Error as error:
        raise ZhbertError(
            f"{path}:{line}: the quotes do not pair up ({error}); a quote inside a quoted field is "
            "doubled; where quotes are text, set quoting = false in the card"
        ) from None


def _unquoted(path: Source, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    for line, text in numbered_lines(path):
        if text:
            yield line, text.split(delimiter)


def _quoting_hint(values: list[str], quoting: bool) -> str:
    if not quoting and any(value.startswith('"') for value in values):
        return "; fields in quotes need quoting = true in the card"
    return ""


def _json_lines(path: Source, data: Data, counts: Counter[str]) -> Iterator[tuple[int, _Record]]:
    yield from json_lines(path)


def json_lines(path: Source) -> Iterator[tuple[int, dict[str | int, Any]]]:
    """The object of each line that is not blank, with its line's number from 1."""
    for line, text in numbered_lines(path):
        if not text.strip():
            continue
        record = parse_json(text, path, line, "; write one object a line")
        if not isinstance(record, dict):
            raise ZhbertError(f"{path}:{line}: not a JSON object; write one object a line")
        yield line, record


def _parquet(path: Source, data: Data, counts: Counter[str]) -> Iterator[tuple[int, _Record]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(str(path)) as file:
            names = file.schema_arrow.names
            _check_columns(path, names, data)
            wanted = {*data.text, *data.text_pair, *data.label, *data.id, *data.where}
            wanted.add(data.split_column)
            row = 0
            for batch in file.iter_batches(
                1024, columns=[name for name in names if name in wanted]
            ):
                for record in batch.to_pylist():
                    row += 1
                    yield row, record
    except pa.ArrowInvalid as error:
        raise ZhbertError(f"{path}: not a parquet file ({error})") from None


READERS: dict[str, Callable[[Source, Data, Counter[str]], Iterator[tuple[int, _Record]]]] = {
    "tsv": _delimited,
    "csv": _delimited,
    "jsonl": _json_lines,
    "parquet": _parquet,
}


def numbered_lines(path: Source, *, ends: bool = False) -> Iterator[tuple[int, str]]:
    """Numbered lines without their ends, unless ``ends``; only a line feed ends a line.

    Chinese text holds U+2028, U+0085 and form feeds, at which str.splitlines would cut.
    """
    with path.open("rb") as file:
        yield from _decoded(path, file, ends)


def head(path: Source, count: int) -> list[str]:
    """The first lines of a file or of stdin, which can be read from its beginning after that."""
    if isinstance(path, StandardInput):
        return [text for _, text in _decoded(path, path.peek(count), ends=False)]
    return [text for _, text in islice(numbered_lines(path), count)]


def _decoded(path: Source, lines: Iterable[bytes], ends: bool) -> Iterator[tuple[int, str]]:
    for number, raw in enumerate(lines, start=1):
        if number == 1:
            raw = raw.removeprefix(b"\xef\xbb\xbf")
        try:
            text = raw.decode("utf-8")
        except UnicodeDecodeError as error:
            raise ZhbertError(
                f"{path}:{number}: not UTF-8 ({error.reason} at byte {error.start + 1} of the "
                f"line); {how_to_convert(raw if number == 1 else b'')}"
            ) from None
        if number == 1 and text.count("\r") > 1 and not text.endswith("\n"):
            raise ZhbertError(
                f"{path}: one line with {text.count(chr(13)):,} carriage returns: lines end in LF "
                "or CRLF; convert the file, for example: tr '\\r' '\\n'"
            )
        yield number, text if ends else text.removesuffix("\n").removesuffix("\r")


def _with_end(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    yield from lines
    yield 0, ""


# Fields of a row


def _check_columns(path: Source, names: Sequence[str], data: Data) -> None:
    """The texts' columns must be there; the label's is looked for row by row."""
    record = dict.fromkeys([*names, *range(len(names))])
    for column in (data.text, data.text_pair):
        if column and not _has(record, column):
            raise ZhbertError(f"{path}: {_no_column(column, record)}")
    for name in (*data.text, *data.text_pair, *data.label, *data.id):
        if isinstance(name, str) and list(names).count(name) > 1:
            raise ZhbertError(f"{path}: the column {show(name)} stands there twice; rename one")


def _has(record: _Record, column: Column) -> bool:
    return any(name in record for name in column)


def _text(record: _Record, column: Column, where: str, *, null: bool = False) -> str:
    for name in column:
        if name in record:
            value = record[name]
            break
    else:
        raise ZhbertError(f"{where}: {_no_column(column, record)}")
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


def _no_label(label: str, data: Data) -> str:
    if not label:
        return f"the label is empty; the card's labels: {listed(data.labels)}"
    hint = nearest(label, data.labels, "the card's labels")
    return f"the label {shortly(label)} is not in the card{hint}"


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
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isfinite(value) and low <= value <= high:
        return value
    if not labelled:
        return None
    raise ZhbertError(f"{where}: the label {show(text)} is not a number from {low:g} to {high:g}")


def check_new(identity: str, seen: set[str], where: str) -> None:
    """Refuse an id that was there already; ``seen`` holds those, and takes this one."""
    if identity in seen:
        raise ZhbertError(f"{where}: the id '{identity}' stands there twice")
    seen.add(identity)


def _token_and_tag(text: str, where: str) -> tuple[str, str]:
    """A line's token and tag, between them spaces or a tab; without a tag: ''.

    >>> _token_and_tag("中  B-LOC", "x"), _token_and_tag("中", "x"), _token_and_tag(" O", "x")
    (('中', 'B-LOC'), ('中', ''), (' ', 'O'))
    """
    text = text.rstrip(" \t")
    cut = max(text.rfind(" "), text.rfind("\t"))
    if cut < 0:
        return text, ""
    # Nothing but space before the tag: the token is a space.
    token = text[:cut].strip(" \t") or " "
    if len(token) > 1 and (" " in token or "\t" in token):
        raise ZhbertError(f"{where}: more than two columns; write a character and its tag a line")
    return token, text[cut + 1 :]


# SQuAD's JSON and its relatives


def _questions(path: Source) -> Iterator[tuple[str | None, str, Mapping[str, Any]]]:
    """Domain, text and question, one after the other."""
    for article in _articles(path):
        domain = article.get("domain")
        # CMRC 2018's first form has no paragraphs: an article is one.
        for place, paragraph in enumerate(article.get("paragraphs", [article])):
            where = f"{path}: {_title(article)}: paragraph {place + 1}"
            if not isinstance(paragraph, Mapping):
                raise ZhbertError(f"{where}: must be an object with context and qas")
            context = _first(paragraph, ("context", "context_text"), where)
            questions = _first(paragraph, ("qas",), where)
            if not isinstance(context, str) or not isinstance(questions, list):
                raise ZhbertError(f"{where}: context must be a text and qas a list")
            for question in questions:
                if not isinstance(question, Mapping):
                    raise ZhbertError(f"{where}: a question must be an object")
                yield domain, context, question


def _articles(path: Source) -> list[Mapping[str, Any]]:
    text = "".join(line for _, line in numbered_lines(path, ends=True))
    table = parse_json(text, path)
    articles = table.get("data") if isinstance(table, Mapping) else table
    if not isinstance(articles, list) or not all(isinstance(one, Mapping) for one in articles):
        there = f"; there: {listed(table) or 'nothing'}" if isinstance(table, Mapping) else ""
        if there and all(isinstance(one, str) for one in table.values()):
            there += "; are these predictions?"
        raise ZhbertError(f"{path}: not SQuAD's JSON: no list of articles in 'data'{there}")
    return articles


def _title(article: Mapping[str, Any]) -> str:
    for key in ("title", "id", "caseid", "context_id"):
        if key in article:
            return f"article '{article[key]}'"
    return "an article"


def _first(table: Mapping[str, Any], names: tuple[str, ...], where: str) -> Any:
    for name in names:
        if name in table:
            return table[name]
    raise ZhbertError(f"{where}: no '{names[0]}'; there: {listed(table) or 'nothing'}")


def _answers(answers: Any, where: str) -> list[tuple[str, int]]:
    """Texts and beginnings: of SQuAD's list, of one answer alone, or of columns of both.

    >>> _answers({"text": ["甲", "乙"], "answer_start": [0, 5]}, "x"), _answers("甲", "x")
    ([('甲', 0), ('乙', 5)], [('甲', -1)])
    """
    if answers is None:
        return []
    if isinstance(answers, Mapping) and isinstance(texts := answers.get("text"), list):
        # As the datasets library spells it.
        starts = answers.get("answer_start", [-1] * len(texts))
        if not isinstance(starts, list) or len(starts) != len(texts):
            raise ZhbertError(f"{where}: {show(answers)}: a text must have a start, each")
        pairs = zip(texts, starts, strict=True)
        answers = [{"text": text, "answer_start": start} for text, start in pairs]
    if not isinstance(answers, list):
        answers = [answers]
    return [_answer(answer, where) for answer in answers]


def _answer(answer: Any, where: str) -> tuple[str, int]:
    """An answer's text and where the file says it begins; -1: it does not say."""
    if isinstance(answer, str):
        return answer, -1
    if not isinstance(answer, Mapping) or not isinstance(answer.get("text"), str):
        raise ZhbertError(f"{where}: {show(answer)}: an answer must be a text, or hold one")
    start = answer.get("answer_start")
    return answer["text"], start if isinstance(start, int) else -1


def _answer_kind(answer: str, data: Data) -> str:
    if not answer:
        return "none"
    if data.yes_no and answer in ("YES", "NO"):
        return answer.lower()
    return "span"


def _find(context: str, answer: str, start: int) -> int:
    """Where the answer begins: at ``start``, else the nearest occurrence, else -1.

    >>> _find("甲乙甲乙", "乙", 1), _find("甲乙甲乙", "乙", 4), _find("甲乙", "丙", 0)
    (1, 3, -1)
    """
    if start < 0:
        return context.find(answer)
    before = context.rfind(answer, 0, start + len(answer))
    after = context.find(answer, start)
    if before < 0 or after < 0:
        return max(before, after)
    return before if start - before <= after - start else after
