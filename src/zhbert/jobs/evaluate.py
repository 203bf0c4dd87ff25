"""Score a fine-tuned model on a file with labels, or a pretrained one on held-out text.

  zhbert evaluate runs/lcqmc/seed-0/final lcqmc --data dev.tsv
  zhbert evaluate runs/mine/seed-0/final my-task.toml --data test.csv --json
  zhbert evaluate runs/tiny/final --corpus corpus

TASK is a task's name ('zhbert tasks' lists them) or a card; FILE is written as the card says. The
scores are in per cent, predicted in fp32 unless --precision says otherwise: the card's metrics and,
of labels and tags, precision, recall and F1 of each, with their averages.

With --corpus: how many masked pieces of the corpus's held-out documents MODEL names, under the
masks that every pretraining run measures itself with, beside always naming the commonest piece.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from zhbert.errors import ZhbertError
from zhbert.options import add_encoding, add_precision, add_split, take_positionals_anywhere
from zhbert.tasks.cards import TaskCard, load_card, split_of, split_remark, with_encoding
from zhbert.wording import counted

if TYPE_CHECKING:
    from zhbert.finetuning.fine_tuned import FineTuned


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a model: folder, name or hub id")
    parser.add_argument("task", metavar="TASK", nargs="?", help="a task's name, or a card's path")
    parser.add_argument("--data", metavar="FILE", help="the examples, with labels")
    parser.add_argument(
        "--corpus",
        metavar="DIR",
        help="instead of TASK and --data: a corpus folder, for masked words of its held-out part",
    )
    add_split(parser, "FILE")
    add_encoding(parser, "FILE")
    add_precision(parser)
    take_positionals_anywhere(parser)


def run(args: argparse.Namespace) -> int:
    """Print the scores."""
    from zhbert import console
    from zhbert.console import print_class_report

    def remark(line: str) -> None:
        if not args.quiet:
            console.say(line)

    if args.corpus is not None:
        return _run_on_corpus(args, remark)
    if args.task is None or args.data is None:
        raise ZhbertError(
            "give TASK and --data FILE (a fine-tuned model), or --corpus DIR (a pretrained one)"
        )
    result = evaluate(
        args.model,
        args.task,
        args.data,
        split=args.split,
        precision=args.precision,
        encoding=args.encoding,
        remark=remark,
    )
    if args.json:
        console.print_json(result)
        return 0
    if "classes" in result:
        print_class_report(load_card(args.task), result)
        sys.stdout.write("\n")
    for name, value in result["metrics"].items():
        sys.stdout.write(f"{name}  {value:.2f}\n")
    examples = counted(result["examples"], "example")
    sys.stdout.write(f"{result['task']}, {examples} of {result['file']}\n")
    return 0


def _run_on_corpus(args: argparse.Namespace, remark: Any) -> int:
    """Print the masked accuracy of a pretrained model."""
    from zhbert import console
    from zhbert.pretraining.masked_accuracy import masked_accuracy

    others = {"TASK": args.task, "--data": args.data, "--split": args.split}
    given = [name for name, value in {**others, "--encoding": args.encoding}.items() if value]
    if given:
        raise ZhbertError(f"--corpus: {given[0]} does not go with it; leave one of the two away")
    lines = masked_accuracy(args.model, args.corpus, precision=args.precision, remark=remark)
    if args.json:
        console.print_json(lines)
        return 0
    for line in lines:
        sys.stdout.write(
            f"{line['evaluation']:<5}masked accuracy {line['masked_lm_accuracy']:.2%}, loss "
            f"{line['masked_lm_loss']:.3f}; commonest piece {line['baseline_accuracy']:.2%} "
            f"({line['masked_lm_predictions']:,} masked pieces)\n"
        )
    return 0


def evaluate(
    model: str | os.PathLike[str],
    task: str | os.PathLike[str],
    data: str | os.PathLike[str],
    *,
    split: str | None = None,
    precision: str = "fp32",
    encoding: str | None = None,
    remark: Any = lambda line: None,
) -> dict[str, Any]:
    """Score ``model`` on the file ``data``: ``metrics`` by name, in per cent, and what was scored.

    Of labels and tags also what `scoring.report` says of each label or type of entity: ``classes``,
    ``averages``, ``confusion``.

    ``split`` None: the one that the card knows the file's name for, else dev.

    Raises ZhbertError where the model was fine-tuned for something else, or the file does not fit.
    """
    from zhbert.tasks.read import read_examples
    from zhbert.tasks.scoring import report
    from zhbert.zoo import locate

    card = with_encoding(load_card(task), encoding)
    path = Path(data)
    if path.is_dir():
        raise ZhbertError(f"--data {path}: a folder; name the file to score, for example dev.tsv")
    split = split_of(card, path, split)
    examples = read_examples(card, path, split, remark=remark)
    if not Path(model).exists():  # a name, an address or a mistake: before torch is imported
        model = locate(os.fspath(model))

    from zhbert.finetuning.seed import metrics_of
    from zhbert.tasks.classify import MultiLabel

    opened = open_model(model)
    check_fits(opened, card)
    if isinstance(opened.kind, MultiLabel):
        kind = dataclasses.replace(opened.kind, threshold=card.data.threshold)
        opened = dataclasses.replace(opened, kind=kind)
    if opened.card is not None and opened.card.name != card.name:
        remark(f"{opened.folder}: fine-tuned for {opened.card.name}, scored on {card.name}")
    predictions = opened.predict(examples, dtype=dtype_of(precision))
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


def check_fits(opened: FineTuned, card: TaskCard) -> None:
    """Refuse a model of another kind, or of other labels."""
    if opened.kind.name != card.kind:
        raise ZhbertError(
            f"{opened.folder}: a model of the kind {opened.kind.name}, but {card.name} is of the "
            f"kind {card.kind}"
        )
    if card.data.labels:
        theirs = opened.kind.labels or ()
        unknown = [label for label in card.data.labels if label not in theirs]
        if unknown:
            raise ZhbertError(
                f"{opened.folder}: knows the labels {', '.join(theirs)}, but not {card.name}'s "
                f"{', '.join(unknown)}: fine-tuned for another task"
            )


def open_model(model: str | os.PathLike[str]) -> FineTuned:
    """A fine-tuned model, with the vocabulary that it was trained with, on the GPU if there is one.

    Raises ZhbertError where it is not fine-tuned, or its vocabulary is another model's.
    """
    from zhbert.finetuning.fine_tuned import open_fine_tuned
    from zhbert.model.folder import check_vocabulary
    from zhbert.runtime import choose_device, prepare_threads

    opened = open_fine_tuned(os.fspath(model), quiet=True)
    rows: int = cast(Any, opened.model).config.vocab_size
    check_vocabulary(opened.folder, opened.kind.tokenizer, rows)
    prepare_threads(0)
    opened.model.to(choose_device())
    return opened


def dtype_of(precision: str) -> Any:
    """The number format by its name."""
    import torch

    return torch.bfloat16 if precision == "bf16" else torch.float32


__all__ = ["add_arguments", "evaluate", "run"]
