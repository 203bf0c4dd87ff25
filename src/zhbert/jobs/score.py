"""Score predictions as the benchmark's official scorer does, without a model.

zhbert score cmrc2018 cmrc2018_dev.json predictions.json
zhbert score squad2.0 dev-v2.0.json predictions.json --null-odds null_odds.json
zhbert score rte dev.tsv RTE.tsv --json
zhbert score ner_peopledaily dev.txt tagged.txt

PREDICTIONS has the benchmark's submission format:
  questions  JSON, {"id": "answer"}, or CJRC's [{"id": ..., "answer": ...}]
  labels     GLUE's TSV with the columns index and prediction; a CSV; JSON lines
  numbers    with id and label; or one prediction a line in the order of GOLD,
             or a score for each label a line, the largest being the prediction
  tags       GOLD with the predicted tags instead of its own or in a further
             column; CLUENER's lines
  passages   JSON, {"id": ["id of the best passage", ...]}, or lines with id and
             prediction, for search
A question without a prediction counts 0; all other examples must have one.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from zhbert import console, terminal
from zhbert.options import add_encoding, add_split, call
from zhbert.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "task", metavar="TASK", help="a task's name ('zhbert tasks' lists them), or a card's path"
    )
    parser.add_argument("gold", type=Path, metavar="GOLD", help="labelled examples")
    parser.add_argument("predictions", type=Path, metavar="PREDICTIONS", help="see above")
    parser.add_argument(
        "--null-odds", type=Path, metavar="FILE",
        help="SQuAD 2.0: JSON of {id: score for no answer}, or predict's .jsonl; adds the best "
        "threshold",
    )  # fmt: skip
    add_split(parser, "GOLD")
    add_encoding(parser, "GOLD")


def run(args: argparse.Namespace) -> int:
    """Print the scores."""
    from zhbert.tasks.cards import load_card
    from zhbert.tasks.kinds import KINDS
    from zhbert.tasks.scoring import score_files

    remark = terminal.say_nothing if args.quiet else terminal.say
    result = call(score_files, args, remark=remark)
    if args.json:
        console.print_json(result)
        return 0
    what = f"{result['task']}, {counted(result['examples'], 'example')}"
    table = console.table(what, ">score")
    for name, value in result["metrics"].items():
        table.add_row(name, f"{value:.2f}", style="bold")
    for name, value in result["further"].items():
        # Counts and thresholds are not percentages.
        text = f"{value:,}" if isinstance(value, int) else f"{value:.2f}"
        table.add_row(name, f"{value:g}" if name.endswith("_thresh") else text)
    console.out().print(table)
    if "classes" in result:
        console.out().print()
        card = load_card(args.task)
        console.print_class_report(result, card.data.shown_labels, KINDS[card.kind].class_name)
    return 0
