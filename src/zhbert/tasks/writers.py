"""The forms in which predictions are written, each of which `read_predictions` reads."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import to_json
from zhbert.spreadsheets import to_cell
from zhbert.tasks.entity_spans import cluener_label, joint_of
from zhbert.tasks.examples import Prediction, Value
from zhbert.tasks.schemes import Entity

_LINE_END = re.compile(r"[\r\n]")


@dataclass(frozen=True)
class PredictionWriter:
    """A form of files with predictions: its lines, and the text around and between them."""

    line: Callable[[Any, Prediction], str]
    """Turns an example and its prediction into a line."""
    head: str = ""
    separator: str = ""
    tail: str = ""

    def text(self, examples: Iterable[Any], predictions: Iterable[Prediction]) -> str:
        """Return the content of a file."""
        pairs = zip(examples, predictions, strict=True)
        lines = [self.line(one, prediction) for one, prediction in pairs]
        return self.head + self.separator.join(lines) + self.tail


# -- for any task ----------------------------------------------------------------------------------


def shown_prediction(example: Any, prediction: Prediction) -> dict[str, Any]:
    """Return an example, without its gold value, and its prediction as plain data."""
    return {
        **example.shown,
        "prediction": prediction.value,
        **_probability(prediction),
        **prediction.details,
    }


def json_line(example: Any, prediction: Prediction) -> str:
    """Return an example and its prediction as a line of JSON."""
    return to_json(shown_prediction(example, prediction)) + "\n"


def _probability(prediction: Prediction) -> dict[str, float]:
    """Return the predicted label's probability; empty if each label has its own."""
    chances = prediction.details.get("probabilities")
    if isinstance(chances, dict) and isinstance(prediction.value, str):
        return {"probability": max(chances.values())}
    return {}


def tables(
    *, probability: bool = False, labels: Sequence[str] = (), delimiter: str = ","
) -> dict[str, PredictionWriter]:
    """Return TSV and CSV with the columns id and prediction.

    Args:
        probability: add a column with the prediction's probability.
        labels: add a column with the probability of each of these.
        delimiter: the separator of several predicted labels.
    """

    def writer(row: Callable[[Iterable[Any]], str]) -> PredictionWriter:
        def line(example: Any, prediction: Prediction) -> str:
            details: dict[str, Any] = {**prediction.details, **_probability(prediction)}
            cells = [example.id, re.sub(r"\s+", " ", in_one(prediction.value, delimiter))]
            cells += [details["probability"]] if probability else []
            cells += details["probabilities"].values() if labels else []
            return row(cells)

        chances = ["probability"] if probability else []
        return PredictionWriter(
            line, row(["id", "prediction", *chances, *(f"p({label})" for label in labels)])
        )

    tsv = writer(lambda cells: "\t".join(map(str, cells)) + "\n")
    return {".tsv": tsv, ".csv": writer(_csv_row)}


def _csv_row(cells: Iterable[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(map(to_cell, cells))
    return text.getvalue()


def in_one(value: Value, delimiter: str) -> str:
    """Return a prediction as one text; ``delimiter`` separates several labels.

    >>> in_one(("a", "b"), ","), in_one("a", ","), in_one(0.5, ",")
    ('a,b', 'a', '0.5')
    """
    return str(value) if isinstance(value, str | float) else delimiter.join(value)


# -- labels and numbers in submissions -------------------------------------------------------------


def handed_in(delimiter: str = ",") -> dict[str, PredictionWriter]:
    """Return GLUE's TSV of index and prediction, and CLUE's lines of id and label.

    GLUE: https://arxiv.org/abs/1804.07461. CLUE: https://github.com/CLUEbenchmark/CLUE.
    """

    def glue_line(example: Any, prediction: Prediction) -> str:
        return f"{example.id}\t{in_one(prediction.value, delimiter)}\n"

    def clue_line(example: Any, prediction: Prediction) -> str:
        return to_json({"id": json_id(example.id), "label": prediction.value}) + "\n"

    glue, clue = PredictionWriter(glue_line, "index\tprediction\n"), PredictionWriter(clue_line)
    return {".tsv": glue, ".json": clue, ".jsonl": clue}


def json_id(identity: str) -> int | str:
    """Return an id as CLUE's baselines write it: as a number if it is one."""
    return int(identity) if identity.isdecimal() and identity.isascii() else identity


# -- tags ------------------------------------------------------------------------------------------


def cluener_line(example: Any, found: Iterable[Entity]) -> str:
    """Return a sentence with its entities as a line of a submission to CLUENER.

    https://github.com/CLUEbenchmark/CLUENER2020

    >>> from zhbert.tasks.examples import TagExample
    >>> cluener_line(TagExample("7", ("李", "白")), [("name", 0, 2)])
    '{"id": 7, "text": "李白", "label": {"name": {"李白": [[0, 1]]}}}\\n'
    """
    label = cluener_label(example.tokens, found)
    text = joint_of(example.tokens).join(example.tokens)
    return to_json({"id": json_id(example.id), "text": text, "label": label}) + "\n"


def tagged_lines(example: Any, prediction: Prediction) -> str:
    """Return a sentence's tokens and tags, one per line; a line end becomes a space.

    Raises ZhbertError for a sentence without tokens, which a reader could not recognise.

    >>> from zhbert.tasks.examples import TagExample
    >>> tagged_lines(TagExample("0", ("京", "\\n")), Prediction(("B-LOC", "O")))
    '京 B-LOC\\n  O\\n'
    """
    if not example.tokens:
        raise ZhbertError(
            f"the sentence '{example.id}' is empty, which tagged lines cannot hold; write .jsonl"
        )
    assert not isinstance(prediction.value, float)
    pairs = zip(example.tokens, prediction.value, strict=True)
    return "".join(f"{_LINE_END.sub(' ', token)} {tag}\n" for token, tag in pairs)


# -- answers ---------------------------------------------------------------------------------------


ANSWERS_BY_ID = PredictionWriter(
    lambda one, found: f"{to_json(one.id)}: {to_json(found.value)}", "{\n", ",\n", "\n}\n"
)
"""The form of SQuAD and CMRC 2018: ``{id: answer}``."""
ANSWER_OBJECTS = PredictionWriter(
    lambda one, found: to_json({"id": one.id, "answer": found.value}), "[\n", ",\n", "\n]\n"
)
"""CJRC's form: ``[{"id": …, "answer": …}]``."""
