"""Score a fine-tuned model on labelled examples, or a pretrained one on text.

  zhbert evaluate runs/lcqmc/seed-0/final lcqmc --data dev.tsv
  zhbert evaluate runs/mine/seed-0/final my-task.toml --data test.csv --json
  zhbert evaluate runs/tiny/final --corpus corpus

TASK is a task's name ('zhbert tasks' lists them) or the path of a card, which
also describes the format of FILE. The scores are in per cent: the card's
metrics and, for labels and tags, precision, recall and F1 of each class, with
averages. Predictions are computed in fp32 by default.

With --corpus: the share of masked pieces in the corpus's held-out documents
that MODEL predicts correctly, with the masks that pretraining runs are
evaluated on, and for comparison the share that always predicting the most
frequent piece would get.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable

from zhbert import console, terminal
from zhbert.errors import ZhbertError
from zhbert.options import (
    add_encoding,
    add_engine,
    add_precision,
    add_split,
    call,
    take_positionals_anywhere,
)
from zhbert.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a model: folder, name or hub id")
    parser.add_argument(
        "task", metavar="TASK", nargs="?", help="a task's name, or the path of a card"
    )
    parser.add_argument("--data", metavar="FILE", help="labelled examples")
    parser.add_argument(
        "--corpus",
        metavar="DIR",
        help="instead of TASK and --data: a corpus folder, whose held-out text is masked",
    )
    add_split(parser, "FILE")
    add_encoding(parser, "FILE")
    add_engine(parser)
    add_precision(parser, int8=True)
    take_positionals_anywhere(parser)


def run(args: argparse.Namespace) -> int:
    """Print the scores."""
    remark = terminal.say_nothing if args.quiet else terminal.say
    if args.corpus is not None:
        return _run_on_corpus(args, remark)
    if args.task is None or args.data is None:
        raise ZhbertError(
            "give TASK and --data FILE (a fine-tuned model), or --corpus DIR (a pretrained one)"
        )
    from zhbert.finetuning.evaluate import evaluate
    from zhbert.tasks.cards import load_card
    from zhbert.tasks.kinds import KINDS

    result = call(evaluate, args, but=["corpus"], remark=remark)
    if args.json:
        console.print_json(result)
        return 0
    if "classes" in result:
        card = load_card(args.task)
        console.print_class_report(result, card.data.shown_labels, KINDS[card.kind].class_name)
        sys.stdout.write("\n")
    scores = {name: f"{value:.2f}" for name, value in result["metrics"].items()}
    names, values = max(map(len, scores)), max(map(len, scores.values()))
    for name, value in scores.items():
        sys.stdout.write(f"{name:<{names}}  {value:>{values}}\n")
    examples = counted(result["examples"], "example")
    sys.stdout.write(f"{result['task']}, {examples} of {result['file']}\n")
    return 0


def _run_on_corpus(args: argparse.Namespace, remark: Callable[[str], None]) -> int:
    """Print the masked accuracy of a pretrained model."""
    others = {"TASK": args.task, "--data": args.data, "--split": args.split}
    given = [name for name, value in {**others, "--encoding": args.encoding}.items() if value]
    if given:
        raise ZhbertError(f"--corpus: {given[0]} does not go with it; leave one of the two away")
    from zhbert.pretraining.masked_accuracy import masked_accuracy

    lines = masked_accuracy(
        args.model, args.corpus, precision=args.precision, engine=args.engine, remark=remark
    )
    if args.json:
        console.print_json(lines)
        return 0
    for line in lines:
        if not line["masked_lm_predictions"]:
            sys.stdout.write(f"{line['evaluation']:<5}nothing to predict\n")
            continue
        sys.stdout.write(
            f"{line['evaluation']:<5}masked accuracy {line['masked_lm_accuracy']:.2%}, loss "
            f"{line['masked_lm_loss']:.3f}; commonest piece {line['baseline_accuracy']:.2%} "
            f"({line['masked_lm_predictions']:,} masked pieces)\n"
        )
    return 0
