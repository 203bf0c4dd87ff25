"""Predict with a fine-tuned model, for a file of any length or for stdin.

  zhbert predict runs/lcqmc/seed-0/final pairs.tsv --out predictions.jsonl
  cat titles.txt | zhbert predict runs/thucnews_titles/seed-0/final - --out -
  zhbert predict runs/cmrc2018/seed-0/final questions.json --out answers.json

FILE is written as the task's own files are; or it holds a text a line (a pair: two texts with a
tab between them), a TSV, CSV or JSON lines with text and text_pair, a sentence a line to tag, or
SQuAD's JSON or JSON lines with question and context. OUT is JSON lines (.jsonl, -), a table
(.tsv), tagged tokens (.txt), or answers by id (.json). Its order is that of FILE.
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TextIO

from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, describe_os_error
from zhbert.jobs.evaluate import add_precision, dtype_of, open_model
from zhbert.tasks.cards import Card, parse_card
from zhbert.tasks.read import Example, SpanExample, TagExample, TextExample, iterate_examples

if TYPE_CHECKING:
    from zhbert.tasks.fine_tuned import FineTuned
    from zhbert.tasks.kinds import Prediction

STREAM = "-"
TABLES = {".tsv": "tsv", ".csv": "csv", ".jsonl": "jsonl", ".json": "jsonl", ".parquet": "parquet"}
# So many lines of a file of sentences to tag are looked at, to see whether it is tagged already.
LOOKED_AT = 50
_TAGGED = re.compile(r"\S+[ \t]+(O|[BI](-\S+)?)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a fine-tuned model: folder, name or hub id")
    parser.add_argument("file", metavar="FILE", help="what to predict for; - for stdin")
    parser.add_argument(
        "--out", default=STREAM, metavar="FILE", help="where to write: .jsonl, .tsv, .txt, .json; -"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE")
    parser.add_argument(
        "--submission", action="store_true", help="a .tsv as GLUE wants it: index and prediction"
    )
    add_precision(parser)


def run(args: argparse.Namespace) -> int:
    """Predict and write."""
    count = predict(
        args.model,
        args.file,
        args.out,
        precision=args.precision,
        submission=args.submission,
        overwrite=args.overwrite,
        quiet=args.quiet,
    )
    if args.out != STREAM:
        if args.json:
            sys.stdout.write(json.dumps({"out": args.out, "predictions": count}) + "\n")
        elif not args.quiet:
            sys.stderr.write(f"{count:,} predictions in {args.out}\n")
    return 0


def predict(
    model: str | os.PathLike[str],
    file: str | os.PathLike[str],
    out: str | os.PathLike[str] = STREAM,
    *,
    precision: str = "fp32",
    submission: bool = False,
    overwrite: bool = False,
    quiet: bool = True,
) -> int:
    """Write a prediction for each example of ``file`` to ``out``; return how many.

    Memory does not grow with the file (SQuAD's JSON is read whole). ``-`` stands for stdin and
    stdout. Nothing is left behind where an error ends it.

    Raises ZhbertError where the model is not fine-tuned, or a file does not fit.
    """
    source, target = os.fspath(file), os.fspath(out)
    if source != STREAM and not Path(source).is_file():
        what = "a folder; name a file in it" if Path(source).is_dir() else "no such file"
        raise ZhbertError(f"{source}: {what}")
    if target != STREAM and Path(target).exists() and not overwrite:
        raise ZhbertError(f"--out {target}: exists already; give --overwrite or another name")
    if target != STREAM and not Path(target).parent.is_dir():
        raise ZhbertError(f"--out {target}: no folder {Path(target).parent}; make it first")
    opened = open_model(model)
    writer = _writer(target, opened, submission)

    def remark(line: str) -> None:
        if not quiet:
            sys.stderr.write(line + "\n")

    examples = read_inputs(opened, source, remark)
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


# -- what is read ----------------------------------------------------------------------------------


def read_inputs(opened: FineTuned, source: str, remark: Callable[[str], None]) -> Iterator[Example]:
    """The examples of a file or of stdin, one after the other."""
    return _INPUTS[opened.kind.name](opened, source, remark)


def _texts(opened: FineTuned, source: str, remark: Callable[[str], None]) -> Iterator[Example]:
    card = _card_for(opened, source)
    if card is not None:
        yield from iterate_examples(card, Path(source), labelled=False, remark=remark)
        return
    pairs = None if opened.card is None else opened.card.data.pairs
    for number, (where, line) in enumerate(_lines(source)):
        text, tab, pair = line.partition("\t")
        if pairs is False:
            text, tab = line, ""
        if pairs and not tab:
            raise ZhbertError(
                f"{where}: the model compares two texts: put a tab between them, or give a table "
                "with text and text_pair"
            )
        yield TextExample(str(number), text, pair if tab else None)


def _card_for(opened: FineTuned, source: str) -> Card | None:
    """A card that says how the file is written; None: a text a line."""
    card = opened.card or parse_card(_PLAIN_CARD, Path("text.toml"))
    data, form = card.data, TABLES.get(Path(source).suffix.lower())
    if source == STREAM:
        return None
    columns = _columns(Path(source), form)
    own = [name for name in (data.text, data.text_pair) if name]
    if form is None:
        # thucnews_titles' files: a table without a header that is called .txt.
        wide = max((int(n) for name in own for n in name if isinstance(n, int)), default=-1)
        if opened.card is None or data.header or wide < 0 or len(columns) <= max(wide, 1):
            return None
        return card
    if opened.card is not None and all(any(n in columns for n in name) for name in own):
        return dataclasses.replace(card, data=dataclasses.replace(data, format=form))
    if "text" in columns:
        pairs = "text_pair" in columns
        if opened.card is not None and data.pairs and not pairs:
            raise ZhbertError(f"{source}: no column 'text_pair', and the model compares two texts")
        plain = dataclasses.replace(
            data, format=form, header=True, text=("text",), label=("label",), id=(), where={},
            split_column="", text_pair=("text_pair",) if pairs else (),
        )  # fmt: skip
        return dataclasses.replace(card, data=plain)
    if opened.card is not None and not data.header and form == data.format:
        return card
    named = "text with text_pair" if data.pairs and opened.card is not None else "text"
    if opened.card is not None and data.header:
        theirs = " with ".join(" or ".join(map(str, name)) for name in own)
        named += f", nor {theirs}" if theirs != named else ""
    raise ZhbertError(f"{source}: no column {named}; there: {', '.join(columns)}")


_PLAIN_CARD: dict[str, Any] = {
    "title": "a text",
    "kind": "classify",
    "metrics": ["accuracy"],
    "data": {"format": "tsv", "dev": "-", "text": "text", "label": "label", "labels": ["0", "1"]},
}


def _columns(path: Path, form: str | None) -> list[str]:
    """The names in a file's first row, as far as it has such."""
    if form == "parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        try:
            return list(pq.read_schema(path).names)
        except pa.ArrowInvalid as error:
            raise ZhbertError(f"{path}: not a parquet file ({error})") from None
    _, first = next(_lines(str(path)), ("", ""))
    if form == "jsonl":
        try:
            record = json.loads(first)
        except ValueError:
            record = None
        if not isinstance(record, dict):
            raise ZhbertError(f"{path}: not JSON lines: write one object a line")
        return list(record)
    if form == "csv":
        return next(csv.reader([first]), [])
    return first.split("\t")


def _sentences(opened: FineTuned, source: str, remark: Callable[[str], None]) -> Iterator[Example]:
    language = "zh" if opened.card is None else opened.card.language
    if source != STREAM and Path(source).suffix == ".jsonl":
        for number, (where, record) in enumerate(_records(source)):
            tokens = record.get("tokens")
            if tokens is None:
                tokens = _tokens(str(record.get("text", "")), language)
            if not isinstance(tokens, list) or not all(isinstance(t, str) for t in tokens):
                raise ZhbertError(f"{where}: tokens must be a list of texts")
            yield TagExample(str(record.get("id", number)), tuple(tokens))
        return
    if source != STREAM and _is_tagged(source):
        tagged: list[str] = []
        number = 0
        for _, line in _lines(source, blank=True):
            if line.strip():
                # The token may itself be a space.
                tagged.append(line.rsplit(maxsplit=1)[0].strip() or " ")
            elif tagged:
                yield TagExample(str(number), tuple(tagged))
                tagged, number = [], number + 1
        if tagged:
            yield TagExample(str(number), tuple(tagged))
        return
    for number, (_, line) in enumerate(_lines(source)):
        yield TagExample(str(number), tuple(_tokens(line, language)))


def _tokens(text: str, language: str) -> list[str]:
    """Characters in Chinese, so that a token's place is its character's; words in English."""
    return list(text) if language == "zh" else text.split()


def _is_tagged(source: str) -> bool:
    lines = [line for _, (_, line) in zip(range(LOOKED_AT), _lines(source), strict=False)]
    return bool(lines) and all(_TAGGED.fullmatch(line.strip()) for line in lines)


def _questions(opened: FineTuned, source: str, remark: Callable[[str], None]) -> Iterator[Example]:
    if source != STREAM and Path(source).suffix == ".json":
        card = opened.card or parse_card(_SQUAD_CARD, Path("squad.toml"))
        yield from iterate_examples(card, Path(source), labelled=False, remark=remark)
        return
    for number, (where, record) in enumerate(_records(source)):
        question, context = record.get("question"), record.get("context")
        if not isinstance(question, str) or not isinstance(context, str):
            raise ZhbertError(f"{where}: question and context must be texts")
        yield SpanExample(str(record.get("id", number)), question, context)


_SQUAD_CARD: dict[str, Any] = {
    "title": "questions",
    "kind": "span",
    "metrics": ["f1", "em"],
    "data": {"format": "squad", "dev": "-", "scorer": "squad2.0", "no_answer": True},
}


_INPUTS: dict[str, Callable[[FineTuned, str, Callable[[str], None]], Iterator[Example]]] = {
    "classify": _texts,
    "regress": _texts,
    "tag": _sentences,
    "span": _questions,
}


def _records(source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for where, line in _lines(source):
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise ZhbertError(f"{where}: not JSON ({error.msg}); write one object a line") from None
        if not isinstance(record, dict):
            raise ZhbertError(f"{where}: not a JSON object; write one object a line")
        yield where, record


def _lines(source: str, *, blank: bool = False) -> Iterator[tuple[str, str]]:
    """Where a line stands, and the line; only a line feed ends one."""
    try:
        with _opened_for_reading(source) as stream:
            for number, raw in enumerate(stream, start=1):
                where = f"{'stdin' if source == STREAM else source}:{number}"
                try:
                    line = raw.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise ZhbertError(
                        f"{where}: not UTF-8 ({error.reason}); convert the file first"
                    ) from None
                line = line.removesuffix("\n").removesuffix("\r")
                if blank or line.strip():
                    yield where, line
    except OSError as error:
        raise describe_os_error(error, "reading") from None


@contextmanager
def _opened_for_reading(source: str) -> Iterator[IO[bytes]]:
    if source == STREAM:
        yield sys.stdin.buffer
        return
    with Path(source).open("rb") as file:
        yield file


# -- what is written -------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class _Writer:
    """How predictions are written."""

    line: Callable[[Example, Prediction], str]
    head: str = ""
    separator: str = ""
    tail: str = ""


def _writer(target: str, opened: FineTuned, submission: bool) -> _Writer:
    kind = opened.kind
    suffix = ".jsonl" if target == STREAM else Path(target).suffix.lower()
    if submission:
        if suffix != ".tsv" or kind.name not in ("classify", "regress"):
            raise ZhbertError(
                "--submission: for labels and numbers in a .tsv; tags are handed in as .txt, "
                "answers as .json"
            )
        return _Writer(lambda one, found: f"{one.id}\t{found.value}\n", "index\tprediction\n")
    if suffix == ".jsonl":
        return _Writer(_json_line)
    if suffix == ".json" and kind.name == "span":
        return _Writer(_json_member, "{\n", ",\n", "\n}\n")
    if suffix in (".txt", ".tsv") and kind.name == "tag":
        return _Writer(_tagged_lines, separator="\n")
    if suffix == ".tsv":
        labels = kind.labels if kind.name == "classify" else None
        columns = ["id", "prediction", *([] if kind.name == "regress" else ["probability"])]
        return _Writer(_tsv_line, "\t".join([*columns, *(f"p({x})" for x in labels or ())]) + "\n")
    choices = {"tag": ".jsonl or .txt", "span": ".jsonl, .tsv or .json"}
    raise ZhbertError(
        f"--out {target}: name a file that ends in {choices.get(kind.name, '.jsonl or .tsv')}"
    )


def _json_line(example: Example, prediction: Prediction) -> str:
    names = ("id", "text", "text_pair", "tokens", "question")
    own = {name: value for name in names if (value := getattr(example, name, None)) is not None}
    table = {
        **own,
        "prediction": prediction.value,
        **_probability(prediction),
        **prediction.details,
    }
    return json.dumps(table, ensure_ascii=False) + "\n"


def _probability(prediction: Prediction) -> dict[str, float]:
    chances = prediction.details.get("probabilities")
    return {"probability": max(chances.values())} if isinstance(chances, dict) else {}


def _tsv_line(example: Example, prediction: Prediction) -> str:
    details = prediction.details
    cells: Iterable[Any] = [example.id, re.sub(r"\s+", " ", str(prediction.value))]
    chances = details.get("probabilities")
    if isinstance(chances, dict):
        cells = [*cells, max(chances.values()), *chances.values()]
    elif "probability" in details:
        cells = [*cells, details["probability"]]
    return "\t".join(map(str, cells)) + "\n"


def _json_member(example: Example, prediction: Prediction) -> str:
    return f"{json.dumps(example.id)}: {json.dumps(prediction.value, ensure_ascii=False)}"


def _tagged_lines(example: Example, prediction: Prediction) -> str:
    assert isinstance(example, TagExample)
    assert isinstance(prediction.value, tuple)
    pairs = zip(example.tokens, prediction.value, strict=True)
    return "".join(f"{token} {tag}\n" for token, tag in pairs)


def _opened_for_writing(target: str) -> AbstractContextManager[TextIO]:
    return _to_stdout() if target == STREAM else _to_file(Path(target))


@contextmanager
def _to_stdout() -> Iterator[TextIO]:
    yield sys.stdout
    sys.stdout.flush()


@contextmanager
def _to_file(path: Path) -> Iterator[TextIO]:
    try:
        with (
            atomic_file(path) as temporary,
            temporary.open("w", encoding="utf-8", newline="\n") as stream,
        ):
            yield stream
    except OSError as error:
        # A full disk names no file, and what else goes wrong names the temporary one.
        error.filename = str(path)
        raise describe_os_error(error, "writing") from None


__all__ = ["add_arguments", "predict", "run"]
