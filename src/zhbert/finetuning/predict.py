"""Prediction with a fine-tuned model for a file of any length, or for stdin."""

from __future__ import annotations

import dataclasses
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from zhbert import terminal
from zhbert.errors import ZhbertError
from zhbert.files import atomic_file
from zhbert.finetuning.locate import locate_fine_tuned
from zhbert.folders import check_file
from zhbert.tasks.cards import with_encoding
from zhbert.tasks.read import read_inputs
from zhbert.tasks.sources import named_source
from zhbert.tasks.writers import PredictionWriter

if TYPE_CHECKING:
    from zhbert.finetuning.fine_tuned import FineTuned

STREAM = "-"


def predict(
    model: str | os.PathLike[str],
    file: str | os.PathLike[str],
    out: str | os.PathLike[str] = STREAM,
    *,
    precision: str = "fp32",
    engine: str | None = None,
    encoding: str | None = None,
    submission: bool = False,
    overwrite: bool = False,
    quiet: bool = True,
    say: Callable[[str], None] | None = None,
) -> int:
    """Write a prediction for each example of ``file`` to ``out`` and return their number.

    Memory use does not grow with the file, except for example ids given in it and for SQuAD's
    JSON, which is read whole. After an error, ``out`` is as it was before.

    Args:
        model: a fine-tuned model: a folder, a run folder, an archive, a name or a hub id.
        file: the file of examples; ``-`` is stdin.
        out: the file to write, whose suffix selects the format; ``-`` is stdout, as JSON lines.
        precision: ``fp32``, ``bf16`` or ``int8``.
        engine: ``torch`` or ``onnx``; None: as for `open_to_predict`.
        encoding: the encoding of ``file``; None: UTF-8.
        submission: write one of the forms of `Kind.submissions`, which the suffix of ``out``
            selects: for labels and numbers, .tsv for GLUE and .json for CLUE.
        overwrite: replace an existing ``out``.
        quiet: print no remarks on stderr.
        say: called with each remark, one line each; None: print to stderr, unless ``quiet``.

    Raises:
        ZhbertError: the model is not fine-tuned, or a file is unusable.
    """
    source, target = named_source(file), os.fspath(out)
    if target != STREAM:
        check_file(target, overwrite=overwrite, needed={"file to predict for": Path(file)})
    if say is None:
        say = terminal.say_nothing if quiet else terminal.say
    folder = locate_fine_tuned(model, remark=say)

    # Importing torch takes seconds, so wrong files and names are reported first.
    from zhbert.finetuning.fine_tuned import open_to_predict
    from zhbert.inference.onnx_model import remark_on_graph

    opened = open_to_predict(folder, engine=engine, precision=precision)
    remark_on_graph(folder, opened.model, say)
    if opened.card is not None:
        # The card gives the encoding of the training files, which may differ from this file's.
        opened = dataclasses.replace(opened, card=with_encoding(opened.card, ""))
    writer = _writer(target, opened, submission)

    examples = read_inputs(
        opened.kind,
        opened.card,
        opened.learner.labels or (),
        source,
        encoding=encoding,
        remark=say,
    )
    count = 0
    with _opened_for_writing(target) as stream:
        stream.write(writer.head)
        for example, prediction in opened.stream(examples, remark=say):
            stream.write(writer.separator if count else "")
            stream.write(writer.line(example, prediction))
            count += 1
        if not count:
            raise ZhbertError(f"{source}: no examples in it")
        stream.write(writer.tail)
    return count


def _writer(target: str, opened: FineTuned, submission: bool) -> PredictionWriter:
    """Return the writer for the format that the suffix of ``target`` selects."""
    kind, labels = opened.kind, opened.learner.labels or ()
    suffix = ".jsonl" if target == STREAM else Path(target).suffix.lower()
    submissions = kind.submissions(opened.card, labels)
    if submission:
        if suffix not in submissions:
            raise ZhbertError(
                f"--submission: --out {target}: name a file that ends in {_either(submissions)}, "
                f"as submissions of the kind {kind.name} do"
            )
        return submissions[suffix]
    forms = kind.writers(opened.card, labels)
    if suffix not in forms:
        more = submissions.keys() - forms.keys()
        also = f"; with --submission, in {_either(submissions)}" if more else ""
        raise ZhbertError(f"--out {target}: name a file that ends in {_either(forms)}{also}")
    return forms[suffix]


def _either(suffixes: Iterable[str]) -> str:
    *others, last = suffixes
    return f"{', '.join(others)} or {last}" if others else last


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
