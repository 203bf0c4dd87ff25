"""Score predictions as a benchmark's own scorer does, without a model.

zhbert score cmrc2018 cmrc2018_dev.json predictions.json
zhbert score squad2.0 dev-v2.0.json predictions.json --null-odds null_odds.json
zhbert score rte dev.tsv RTE.tsv --json
zhbert score ner_peopledaily dev.txt tagged.txt

PREDICTIONS is what the benchmark wants to be handed in:
  questions  JSON, {"id": "answer"}, or CJRC's [{"id": ..., "answer": ...}]
  labels     GLUE's TSV with the columns index and prediction; a CSV; JSON lines
  numbers    with id and label; or a prediction a line, in the order of GOLD, or
             as many numbers as labels, of which the largest counts
  tags       GOLD with other tags in their place, or in one column more;
             CLUENER's lines
A question without a prediction counts 0; all other examples must have one.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.options import add_encoding, add_split
from zhbert.tasks.cards import load_card, split_of, split_remark, with_encoding
from zhbert.tasks.read import read_examples
from zhbert.tasks.read_predictions import read_null_odds, read_predictions
from zhbert.tasks.scoring import report, score
from zhbert.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "task", metavar="TASK", help="the name of a task ('zhbert tasks' lists them), or a card"
    )
    parser.add_argument("gold", type=Path, metavar="GOLD", help="the examples with their labels")
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="see above")
    parser.add_argument(
        "--null-odds", type=Path, metavar="FILE",
        help="SQuAD 2.0: JSON, {id: how surely there is no answer}, or predict's .jsonl; adds the "
        "best threshold",
    )  # fmt: skip
    add_split(parser, "GOLD")
    add_encoding(parser, "GOLD")


def run(args: argparse.Namespace) -> int:
    """Print the scores."""
    from zhbert import console
    from zhbert.console import print_class_report

    def remark(line: str) -> None:
        if not args.quiet:
            console.say(line)

    result = score_files(
        args.task,
        args.gold,
        args.predictions,
        null_odds=args.null_odds,
        split=args.split,
        encoding=args.encoding,
        remark=remark,
    )
    if args.json:
        console.print_json(result)
        return 0
    what = f"{result['task']}, {counted(result['examples'], 'example')}"
    table = console.table(what, ">score")
    for name, value in result["metrics"].items():
        table.add_row(name, f"{value:.2f}", style="bold")
    for name, value in result["further"].items():
        # Counts and thresholds are no per cent.
        text = f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
        table.add_row(name, f"{value:g}" if name.endswith("_thresh") else text)
    console.out().print(table)
    if "classes" in result:
        console.out().print()
        print_class_report(load_card(args.task), result)
    return 0


def score_files(
    task: str | Path,
    gold: Path,
    predictions: Path,
    *,
    null_odds: Path | None = None,
    split: str | None = None,
    encoding: str | None = None,
    remark: Callable[[str], None] = lambda line: None,
) -> dict[str, Any]:
    """Score a file of predictions: ``metrics``, ``further``, and what is missing or unknown.

    ``remark`` takes a line for people about each thing worth one. Raises `ZhbertError` where a file
    cannot be read or does not fit the task.
    """
    card = with_encoding(load_card(task), encoding)
    if null_odds is not None and card.data.scorer != "squad2.0":
        raise ZhbertError(f"--null-odds: for SQuAD 2.0's rules alone, not for {card.name}")
    split = split_of(card, gold, split)
    # Where answers stand in their texts, of which it remarks, is nothing to a scorer.
    examples = read_examples(
        card, gold, split, remark=(lambda line: None) if card.kind == "span" else remark
    )
    found = read_predictions(card, predictions, examples, gold, split, remark)
    odds = None if null_odds is None else read_null_odds(null_odds, card)
    scores = score(card, examples, found, null_odds=odds)
    for ids, one, several in (
        (
            scores.missing,
            f"of {counted(scores.num_examples, 'question')} has no prediction, counted as 0",
            f"of {scores.num_examples:,} questions have no prediction, counted as 0",
        ),
        (
            scores.unknown,
            "prediction is for an unknown id, left out",
            "predictions are for unknown ids, left out",
        ),
    ):
        if len(ids) == 1:
            remark(f"1 {one}; its id: {ids[0]}")
        elif ids:
            remark(f"{len(ids):,} {several}; the first: {ids[0]}")
    cut = split_remark(card, split, scores.num_examples)
    if cut:
        remark(cut)
    return {
        "task": card.name,
        "split": split,
        "examples": scores.num_examples,
        "metrics": dict(scores.metrics),
        "further": dict(scores.further),
        "missing": len(scores.missing),
        "unknown": len(scores.unknown),
        "split_note": cut,
        **report(card, examples, found),
    }
