"""Files of predictions, as each benchmark wants them handed in: ids and what was predicted."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, parse_json
from zhbert.signatures import how_to_convert
from zhbert.tasks.cards import Card, Data
from zhbert.tasks.read import Example, TagExample, read_examples
from zhbert.tasks.scoring import Prediction
from zhbert.wording import counted, listed, name, nearest, shortly

_ID_COLUMNS = ("index", "id")
_COLUMNS = ("prediction", "predicted", "label")  # of zhbert predict, of a run, of others
# Not str.split(): U+3000 and its like are tokens, not space between columns.
_BLANK = re.compile("[ \t]+")


def read_predictions(
    card: Card, path: Path, examples: Sequence[Example], gold: Path, split: str
) -> dict[str, Prediction]:
    """Predictions by their examples' ids; ``gold`` is the file of the ``examples``.

    Raises ZhbertError with file and line where it is not such a file, or none for this task.
    """
    found = _READERS[card.kind](card, path, examples, gold, split)
    if not found:
        raise ZhbertError(f"{path}: no predictions in it")
    if not found.keys() & {example.id for example in examples}:
        of = "its only id is not" if len(found) == 1 else f"none of its {len(found):,} ids is"
        raise ZhbertError(f"{path}: {of} in {gold}; is it for another file?")
    return found


def read_null_odds(path: Path) -> dict[str, float]:
    """SQuAD 2.0's second file: a number for each question, the higher the surer of no answer.

    JSON by id or, in .jsonl, the ``null_odds`` that a run and ``zhbert predict`` write.
    """
    table = _objects(path, ("null_odds",)) if path.suffix == ".jsonl" else _json(path)
    if not isinstance(table, dict):
        raise ZhbertError(f'{path}: must be {{"id": number, ...}}, not {shortly(table)}')
    for id_, odds in table.items():
        if isinstance(odds, bool) or not isinstance(odds, int | float) or not math.isfinite(odds):
            raise ZhbertError(
                f"{path}: question '{name(id_)}': {shortly(odds)}: must be a finite number"
            )
    return table


# -- questions -----------------------------------------------------------------------------------


def _answers(
    card: Card, path: Path, examples: Sequence[Example], gold: Path, split: str
) -> dict[str, Prediction]:
    table = _objects(path) if path.suffix == ".jsonl" else _json(path)
    form = 'must be {"id": "answer", ...}, or a list of objects with id and answer'
    if isinstance(table, list):
        if not all(isinstance(one, dict) and {"id", "answer"} <= one.keys() for one in table):
            raise ZhbertError(f"{path}: {form}")
        table = {str(one["id"]): one["answer"] for one in table}
    if not isinstance(table, dict):
        raise ZhbertError(f"{path}: {form}; not {shortly(table)}")
    if isinstance(table.get("data"), list):
        raise ZhbertError(f"{path}: holds questions, not predictions; is it GOLD?")
    return {
        id_: _answer(answer, f"{path}: question '{name(id_)}'") for id_, answer in table.items()
    }


def _answer(answer: Any, where: str) -> str:
    if isinstance(answer, str):
        return answer
    if isinstance(answer, list) and all(isinstance(part, str) for part in answer):
        return "".join(answer)  # CJRC's scorer takes an answer in parts
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return str(answer)
    raise ZhbertError(
        f"{where}: {shortly(answer)}: an answer must be a text, '' where there is none"
    )


# -- labels and numbers --------------------------------------------------------------------------


def _labels(
    card: Card, path: Path, examples: Sequence[Example], gold: Path, split: str
) -> dict[str, Prediction]:
    rows = _rows(path, card)
    if rows[0][1] is None:
        ids: list[str | None] = [*_ids_in_order(card, path, len(rows), examples, gold, split)]
    else:
        ids = [id_ for _, id_, _ in rows]
    found: dict[str, Prediction] = {}
    for id_, (line, _, value) in zip(ids, rows, strict=True):
        if id_ is None:
            raise ZhbertError(f"{path}:{line}: no id, although the first row has one")
        if id_ in found:
            raise ZhbertError(f"{path}:{line}: the id '{name(id_)}' stands there twice")
        found[id_] = _label(value, card, f"{path}:{line}")
    if card.data.drop_labels and len(found) > len(examples):
        # Rows of GOLD without a usable label are predicted, too: they are known, but not scored.
        scored = {example.id for example in examples}
        dropped = {one.id for one in read_examples(card, gold, split, labelled=False)} - scored
        found = {id_: value for id_, value in found.items() if id_ not in dropped}
    return found


def _rows(path: Path, card: Card) -> list[tuple[int, str | None, str]]:
    """Line number, id where the file has ids, and what was predicted."""
    lines = [(number, line) for number, line in enumerate(_lines(path), start=1) if line.strip()]
    first = lines[0][1]
    if first.startswith(("{", "[")):
        return [_from_json(path, number, line) for number, line in lines]
    if "\t" not in first:
        # A prediction a line; a heading is what could not be one.
        if first.strip() in _COLUMNS and first.strip() not in card.data.labels:
            lines = lines[1:]
            if not lines:
                raise ZhbertError(f"{path}: no predictions in it")
        return [(number, None, line) for number, line in lines]
    heading = [name.strip().lower() for name in first.split("\t")]
    id_column, column = 0, 1
    if set(heading) & set(_ID_COLUMNS):
        id_column = next(heading.index(name) for name in _ID_COLUMNS if name in heading)
        named = [heading.index(name) for name in _COLUMNS if name in heading]
        if not named and len(heading) != 2:
            raise ZhbertError(f"{path}: no column prediction or label; there: {listed(heading)}")
        column = named[0] if named else 1 - id_column
        lines = lines[1:]
        if not lines:
            raise ZhbertError(f"{path}: no predictions in it")
    elif len(heading) != 2:
        raise ZhbertError(
            f"{path}: {len(heading)} columns and no header; write index and prediction, a tab "
            "between them, or a prediction a line"
        )
    rows: list[tuple[int, str | None, str]] = []
    for number, line in lines:
        values = line.split("\t")
        if len(values) != len(heading):
            raise ZhbertError(
                f"{path}:{number}: {counted(len(values), 'column')} where the first line has "
                f"{len(heading)}"
            )
        rows.append((number, values[id_column].strip(), values[column]))
    return rows


def _from_json(path: Path, number: int, line: str) -> tuple[int, str | None, str]:
    id_, value = _object(path, number, line)
    if isinstance(value, list) and all(isinstance(one, str) for one in value):
        value = "\n".join(value)  # which no label holds
    return number, id_, value if isinstance(value, str) else json.dumps(value)


def _objects(path: Path, names: Sequence[str] = _COLUMNS) -> dict[str, Any]:
    """What an object a line holds under one of ``names``, by its id."""
    found: dict[str, Any] = {}
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        id_, value = _object(path, number, line, names)
        if id_ is None or id_ in found:
            what = "no id" if id_ is None else f"the id '{name(id_)}' stands there twice"
            raise ZhbertError(f"{path}:{number}: {what}")
        found[id_] = value
    return found


def _object(
    path: Path, number: int, line: str, names: Sequence[str] = _COLUMNS
) -> tuple[str | None, Any]:
    record = parse_json(line, path, number, "; write an object a line")
    if not isinstance(record, dict):
        raise ZhbertError(
            f"{path}:{number}: {shortly(record)}: must be an object with id and label"
        )
    values = [record[name] for name in names if name in record]
    if not values:
        wanted = "prediction or label" if names is _COLUMNS else listed(names)
        raise ZhbertError(f"{path}:{number}: no {wanted}; there: {listed(record) or 'nothing'}")
    id_ = next((str(record[name]) for name in _ID_COLUMNS if name in record), None)
    return id_, values[0]


def _ids_in_order(
    card: Card, path: Path, count: int, examples: Sequence[Example], gold: Path, split: str
) -> list[str]:
    """The ids of predictions that come without, by their places."""
    if count != len(examples) and card.data.drop_labels:
        examples = read_examples(card, gold, split, labelled=False)
    if count != len(examples):
        raise ZhbertError(
            f"{path}: {counted(count, 'prediction')}, but {gold} has "
            f"{counted(len(examples), 'example')}"
        )
    return [example.id for example in examples]


def _label(text: str, card: Card, where: str) -> Prediction:
    """A label by the card's spelling, or a number."""
    text = text.strip()
    if card.kind == "regress":
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ZhbertError(f"{where}: {shortly(text)}: must be a number")
        return number
    if card.kind == "multi_label":
        parts = re.split(f"\n|{re.escape(card.data.label_delimiter)}", text)
        found = {_known_label(part.strip(), card.data, where) for part in parts if part.strip()}
        return tuple(label for label in card.data.labels if label in found)
    return _known_label(text, card.data, where)


def _known_label(text: str, data: Data, where: str) -> str:
    if text in data.labels:
        return text
    if text in data.rename_labels:
        return data.rename_labels[text]
    if text in data.label_names:
        return data.labels[data.label_names.index(text)]
    raise ZhbertError(
        f"{where}: the label {shortly(text)} is not in the card"
        + nearest(text, data.labels, "the card's labels")
    )


# -- tags ----------------------------------------------------------------------------------------


def _tags(
    card: Card, path: Path, examples: Sequence[Example], gold: Path, split: str
) -> dict[str, Prediction]:
    if path.suffix == ".jsonl":
        return _tags_of_objects(card, path, examples, gold)
    sentences: list[list[tuple[int, str]]] = [[]]
    for number, line in enumerate(_lines(path), start=1):
        if line.strip():
            sentences[-1].append((number, line))
        elif sentences[-1]:
            sentences.append([])
    if not sentences[-1]:
        sentences.pop()
    found: dict[str, Prediction] = {}
    for lines, example in zip(sentences, cast("Sequence[TagExample]", examples), strict=False):
        rows = [(number, *_token_and_tag(line, card, f"{path}:{number}")) for number, line in lines]
        for (number, token, _), true in zip(rows, example.tokens, strict=False):
            if token != true:
                raise ZhbertError(
                    f"{path}:{number}: {shortly(token)} where {gold} has {shortly(true)}"
                )
        if len(rows) != len(example.tokens):
            raise ZhbertError(
                f"{path}:{rows[-1][0]}: a sentence of {counted(len(rows), 'token')}, in {gold} it "
                f"has {len(example.tokens)}"
            )
        found[example.id] = [tag for _, _, tag in rows]
    if len(sentences) != len(examples):
        raise ZhbertError(
            f"{path}: {counted(len(sentences), 'sentence')}, but {gold} has {len(examples):,}"
        )
    return found


def _tags_of_objects(
    card: Card, path: Path, examples: Sequence[Example], gold: Path
) -> dict[str, Prediction]:
    found: dict[str, Prediction] = {}
    lengths = {one.id: len(cast(TagExample, one).tokens) for one in examples}
    for id_, tags in _objects(path).items():
        where = f"{path}: the sentence '{name(id_)}'"
        if not isinstance(tags, list):
            raise ZhbertError(f"{where}: {shortly(tags)}: must be a list of tags")
        for tag in tags:
            if tag not in card.data.labels:
                raise ZhbertError(f"{where}: the tag {shortly(tag)} is not in the card")
        if id_ in lengths and len(tags) != lengths[id_]:
            raise ZhbertError(
                f"{where}: {counted(len(tags), 'tag')}, in {gold} it has "
                f"{counted(lengths[id_], 'token')}"
            )
        found[id_] = tags
    return found


def _token_and_tag(line: str, card: Card, where: str) -> tuple[str, str]:
    """A token and its predicted tag, the last; the right one may stand between them."""
    fields = _BLANK.split(line.rstrip(" \t"))
    # Space at the beginning: it is itself the token.
    token, tags = fields[0] or " ", fields[1:]
    if not 1 <= len(tags) <= 2:
        raise ZhbertError(
            f"{where}: write a token and its tag a line, or the right tag between them"
        )
    if tags[-1] not in card.data.labels:
        hint = nearest(tags[-1], card.data.labels, "the card's labels")
        raise ZhbertError(f"{where}: the tag {shortly(tags[-1])} is not in the card{hint}")
    if card.data.drop_word_places and token[1:].isdigit():
        token = token[0]
    return token, tags[-1]


# -- files ---------------------------------------------------------------------------------------

_READERS: dict[str, Callable[[Card, Path, Sequence[Example], Path, str], dict[str, Prediction]]] = {
    "classify": _labels,
    "multi_label": _labels,
    "regress": _labels,
    "tag": _tags,
    "span": _answers,
}


def _json(path: Path) -> Any:
    return parse_json(_text(path), path)


def _lines(path: Path) -> list[str]:
    # Only a line feed ends a line: Chinese text holds U+2028 and its like.
    return [line.removesuffix("\r") for line in _text(path).split("\n")]


def _text(path: Path) -> str:
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise describe_os_error(error, "reading") from None
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ZhbertError(
            f"{path}: not UTF-8 ({error.reason} at byte {error.start + 1}); {how_to_convert(raw)}"
        ) from None
    if not text.strip():
        raise ZhbertError(f"{path}: empty: no predictions in it")
    return text
