"""Evaluation of a fine-tuned model on a file of labelled examples."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zhbert.errors import ZhbertError
from zhbert.finetuning.locate import locate_fine_tuned
from zhbert.tasks.card import TaskCard
from zhbert.tasks.cards import load_card, split_of, split_remark, with_encoding
from zhbert.tasks.kinds.embed import Embed
from zhbert.tasks.read import read_to_score
from zhbert.tasks.scoring import metrics_of, report
from zhbert.zoo.layout import sentence_folder

if TYPE_CHECKING:
    from zhbert.finetuning.fine_tuned import FineTuned


def evaluate(
    model: str | os.PathLike[str],
    task: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    split: str | None = None,
    precision: str = "fp32",
    engine: str | None = None,
    encoding: str | None = None,
    remark: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Score a fine-tuned model on a file of labelled examples.

    Args:
        model: a fine-tuned model: a folder, a run folder, an archive, a name or a hub id. For a
            card of the kind embed, also a sentence-transformers folder, or a plain BERT.
        task: a task's name, or the path of a task card.
        data: a file of labelled examples in the format that the card describes.
        split: the split that ``data`` contains; None: found from the file's name, else dev.
        precision: ``fp32``, ``bf16`` or ``int8``.
        engine: ``torch`` or ``onnx``; None: as for `open_to_predict`.
        encoding: the encoding of ``data``; None: the card's.
        remark: called with each remark that a reader of the scores should see, one line each.

    Returns:
        ``metrics`` by name, in per cent, and ``task``, ``file``, ``examples`` (their number) and
        ``split_note``. For labels and tags also the scores of each label or entity type from
        `zhbert.tasks.scoring.report`: ``classes``, ``averages``, ``confusion``.

    Raises:
        ZhbertError: the model was fine-tuned for another kind of task or other labels, or the file
            does not match the card.
    """
    card = with_encoding(load_card(task), encoding)
    path = Path(data)
    if path.is_dir():
        raise ZhbertError(f"--data {path}: a folder; name the file to score, for example dev.tsv")
    split = split_of(card, path, split)
    examples, _ = read_to_score(card, path, split, remark=remark)
    folder = locate_fine_tuned(model, remark=remark)

    # Importing torch takes seconds, so wrong files and names are reported first.
    from zhbert.finetuning.fine_tuned import open_to_predict
    from zhbert.inference.onnx_model import remark_on_graph

    pooled = card.kind == Embed.name
    opened = open_to_predict(folder, pooled=pooled, engine=engine, precision=precision)
    _check_fits(opened, card)
    remark_on_graph(folder, opened.model, remark)
    if opened.kind.name == Embed.name:
        _remark_on_vectors(opened, remark)
    learner = opened.kind.adapted(opened.learner, card)
    opened = dataclasses.replace(opened, learner=learner)
    if opened.card is not None and opened.card.name != card.name:
        remark(f"{opened.folder}: fine-tuned for {opened.card.name}, scored on {card.name}")
    predictions = opened.predict(examples, remark=remark)
    pairs = zip(examples, predictions, strict=True)
    note = split_remark(card, split, len(examples))
    if note:
        remark(note)
    return {
        "task": card.name,
        "file": str(path),
        "examples": len(examples),
        "metrics": metrics_of(card, examples, predictions),
        "split_note": note,
        **report(card, examples, {one.id: p.value for one, p in pairs}),
    }


def _check_fits(opened: FineTuned, card: TaskCard) -> None:
    """Raise ZhbertError if the model is of another kind or lacks one of the card's labels."""
    if opened.kind.name != card.kind:
        raise ZhbertError(
            f"{opened.folder}: a model of the kind {opened.kind.name}, but {card.name} is of the "
            f"kind {card.kind}"
        )
    theirs = opened.learner.labels or ()
    unknown = [label for label in card.data.labels if label not in theirs]
    if unknown:
        raise ZhbertError(
            f"{opened.folder}: knows the labels {', '.join(theirs)}, but not {card.name}'s "
            f"{', '.join(unknown)}: fine-tuned for another task"
        )


def _remark_on_vectors(opened: FineTuned, remark: Callable[[str], None]) -> None:
    """Remark on a model whose vectors are worse here than they can be."""
    if opened.card is None and sentence_folder(opened.folder) is None:
        remark(f"{opened.folder}: was never trained for similarity: a vector is the mean of pieces")
    prompts = [name for name, text in cast(Any, opened.model).sentence.prompts.items() if text]
    if prompts:
        remark(f"{opened.folder}: its prompts ({', '.join(prompts)}) are not put before the texts")
