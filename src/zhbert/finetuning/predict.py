"""The predictions of a fine-tuned model for a file of any length, or for stdin."""

from __future__ import annotations

import csv
import dataclasses
import io
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, to_json
from zhbert.finetuning.locate import locate_fine_tuned
from zhbert.finetuning.predict_inputs import read_inputs
from zhbert.folders import check_file
from zhbert.spreadsheets import to_cell
from zhbert.tasks.cards import with_encoding
from zhbert.tasks.read import Example, TagExample
from zhbert.tasks.sources import StandardInput
from zhbert.tasks.write_predictions import cluener_line, in_one, json_id, tagged_lines

if TYPE_CHECKING:
    from zhbert.finetuning.fine_tuned import FineTuned
    from zhbert.tasks.kinds import Kind, Prediction

STREAM = "-"


def predict(
    model: str | os.PathLike[str],
    file: str | os.PathLike[str],
    out: str | os.PathLike[str] = STREAM,
    *,
    precision: str = "fp32",
    encoding: str | None = None,
    submission: bool = False,
    overwrite: bool = False,
    quiet: bool = True,
) -> int:
    """Write a prediction for each example of ``file`` to ``out``; return how many.

    Memory does not grow with the file, except by ids of its own (SQuAD's JSON is read whole). An
    error leaves nothing behind, and a file that stood there as it was.

    Args:
        model: a fine-tuned model: a folder, a run folder, an archive, a name or a hub id.
        file: what to predict for; ``-`` is stdin.
        out: its suffix says how predictions are written; ``-`` is stdout, as JSON lines.
        precision: ``fp32`` or ``bf16``.
        encoding: what ``file`` is encoded in; None: UTF-8.
        submission: write what a benchmark takes: .tsv as GLUE wants it, .json as CLUE does.
        overwrite: replace an existing ``out``.
        quiet: no remarks on stderr.

    Raises:
        ZhbertError: the model is not fine-tuned, or a file does not fit.
    """
    source, target = os.fspath(file), os.fspath(out)
    if source != STREAM and not Path(source).is_file():
        what = "a folder; name a file in it" if Path(source).is_dir() else "no such file"
        raise ZhbertError(f"{source}: {what}")
    if target != STREAM:
        check_file(target, overwrite=overwrite, needed={"file to predict for": Path(source)})
    folder = locate_fine_tuned(model)

    # Importing torch takes seconds: what is wrong with files and names is said before them.
    from zhbert.finetuning.fine_tuned import dtype_of, open_to_predict

    opened = open_to_predict(folder)
    if opened.card is not None:
        # What the examples of the training were encoded in says nothing of these.
        opened = dataclasses.replace(opened, card=with_encoding(opened.card, ""))
    writer = _writer(target, opened, submission)

    def remark(line: str) -> None:
        if not quiet:
            sys.stderr.write(line + "\n")

    if source == STREAM and sys.stdin is None:
        raise ZhbertError("stdin is closed; name a file")
    inputs = StandardInput(sys.stdin.buffer) if source == STREAM else Path(source)
    examples = read_inputs(opened, inputs, remark, encoding)
    count = 0
    with _opened_for_writing(target) as stream:
        stream.write(writer.head)
        for example, prediction in opened.stream(examples, dtype=dtype_of(precision)):
            stream.write(writer.separator if count else "")
            stream.write(writer.line(example, prediction))
            count += 1
        if not count:
            raise ZhbertError(f"{source}: no examples in it")
        stream.write(writer.tail)
    return count


# -- what is written -------------------------------------------------------------------------------


@dataclass(frozen=True)
class PredictionWriter:
    """How a file of predictions is written."""

    line: Callable[[Example, Prediction], str]
    head: str = ""
    separator: str = ""
    tail: str = ""


def _writer(target: str, opened: FineTuned, submission: bool) -> PredictionWriter:
    kind = opened.kind
    suffix = ".jsonl" if target == STREAM else Path(target).suffix.lower()
    delimiter = "," if opened.card is None else opened.card.data.label_delimiter
    if submission:
        if suffix not in _SUBMISSIONS or kind.problem_type is None:
            raise ZhbertError(
                "--submission: for labels and numbers, in a .tsv (GLUE) or a .json (CLUE); tags "
                "are handed in as .txt, answers as .json"
            )
        return _SUBMISSIONS[suffix](delimiter)
    if suffix == ".jsonl":
        return PredictionWriter(_json_line)
    if suffix == ".json" and kind.name == "span":
        if opened.card is not None and opened.card.data.scorer == "cjrc":
            return PredictionWriter(_json_item, "[\n", ",\n", "\n]\n")
        return PredictionWriter(_json_member, "{\n", ",\n", "\n}\n")
    if suffix in (".txt", ".tsv") and kind.name == "tag":
        return PredictionWriter(_tagged_lines, separator="\n")
    if suffix == ".json" and kind.name == "tag":
        return PredictionWriter(_cluener_line)
    if suffix in (".tsv", ".csv") and kind.name != "tag":
        return _table(kind, delimiter, _tsv_row if suffix == ".tsv" else _csv_row)
    choices = {"tag": ".jsonl, .txt or .json", "span": ".jsonl, .tsv, .csv or .json"}
    raise ZhbertError(
        f"--out {target}: name a file that ends in "
        + choices.get(kind.name, ".jsonl, .tsv or .csv")
    )


_SUBMISSIONS: dict[str, Callable[[str], PredictionWriter]] = {
    ".tsv": lambda delimiter: PredictionWriter(
        lambda one, found: f"{one.id}\t{in_one(found.value, delimiter)}\n", "index\tprediction\n"
    ),
    ".json": lambda delimiter: PredictionWriter(_clue_line),
    ".jsonl": lambda delimiter: PredictionWriter(_clue_line),
}


def _clue_line(example: Example, prediction: Prediction) -> str:
    """As CLUE's own baselines write it: the id a number, the label a text."""
    return to_json({"id": json_id(example.id), "label": prediction.value}) + "\n"


def _json_line(example: Example, prediction: Prediction) -> str:
    names = ("id", "text", "text_pair", "tokens", "question")
    own = {name: value for name in names if (value := getattr(example, name, None)) is not None}
    table = {
        **own,
        "prediction": prediction.value,
        **_probability(prediction),
        **prediction.details,
    }
    return to_json(table) + "\n"


def _probability(prediction: Prediction) -> dict[str, float]:
    """Of the one label that was predicted; of several labels each has its own."""
    chances = prediction.details.get("probabilities")
    if isinstance(chances, dict) and isinstance(prediction.value, str):
        return {"probability": max(chances.values())}
    return {}


def _tsv_row(cells: Iterable[Any]) -> str:
    return "\t".join(map(str, cells)) + "\n"


def _csv_row(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(to_cell, cells))
    return text.getvalue()


def _table(kind: Kind, delimiter: str, row: Callable[[Iterable[Any]], str]) -> PredictionWriter:
    """A table of predictions, with the probability of what was predicted and of each label."""
    columns = ["id", "prediction"]
    if kind.name in ("classify", "span"):
        columns.append("probability")
    labels = kind.labels if kind.name in ("classify", "multi_label") else None

    def line(example: Example, prediction: Prediction) -> str:
        details: dict[str, Any] = {**prediction.details, **_probability(prediction)}
        value = re.sub(r"\s+", " ", in_one(prediction.value, delimiter))
        cells: list[Any] = [example.id, value]
        if "probability" in columns:
            cells.append(details["probability"])
        if labels:
            cells.extend(details["probabilities"].values())
        return row(cells)

    return PredictionWriter(line, row([*columns, *(f"p({label})" for label in labels or ())]))


def _json_member(example: Example, prediction: Prediction) -> str:
    return f"{to_json(example.id)}: {to_json(prediction.value)}"


def _json_item(example: Example, prediction: Prediction) -> str:
    return to_json({"id": example.id, "answer": prediction.value})


def _cluener_line(example: Example, prediction: Prediction) -> str:
    assert isinstance(example, TagExample)
    found = prediction.details["entities"]
    return cluener_line(example, [(one["type"], one["start"], one["end"]) for one in found])


def _tagged_lines(example: Example, prediction: Prediction) -> str:
    assert isinstance(example, TagExample)
    assert isinstance(prediction.value, tuple)
    return tagged_lines(example, prediction.value)


@contextmanager
def _opened_for_writing(target: str) -> Iterator[TextIO]:
    if target == STREAM:
        yield sys.stdout
        sys.stdout.flush()
        return
    with (
        atomic_file(target) as temporary,
        temporary.open("w", encoding="utf-8", newline="\n") as stream,
    ):
        yield stream
