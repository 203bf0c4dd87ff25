"""Predict with a fine-tuned model for a file of any length or for stdin.

  zhbert predict runs/lcqmc/seed-0/final pairs.tsv --out predictions.jsonl
  cat titles.txt | zhbert predict runs/thucnews_titles/seed-0/final - --out -
  zhbert predict runs/cmrc2018/seed-0/final questions.json --out answers.json

FILE has the format of the task's own files, or one of these: a text a line
(pairs separated by a tab); TSV, CSV or JSON lines with text and text_pair; a
sentence a line, for tagging; SQuAD's JSON, or JSON lines with question and
context. OUT is JSON lines (.jsonl, -), a table (.tsv, .csv), tagged tokens
(.txt, .tsv), CLUENER's lines of entities (.json), or answers by id (.json; for
CJRC's scorer, a list). Predictions are in the order of FILE; ids are those of
the file, or row numbers from 0. --submission writes labels and numbers in the
format of GLUE (.tsv) or CLUE (.json). A sentence model predicts the cosine of
the two texts of each pair.
"""

from __future__ import annotations

import argparse
import sys

from zhbert.files import to_json
from zhbert.options import add_encoding, add_engine, add_precision, call
from zhbert.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a fine-tuned model: folder, name or hub id")
    parser.add_argument("file", metavar="FILE", help="the examples; - for stdin")
    parser.add_argument(
        "--out",
        default="-",
        metavar="FILE",
        help="the file to write (.jsonl, .tsv, .csv, .txt, .json); - for stdout (default)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE")
    parser.add_argument(
        "--submission", action="store_true",
        help="write GLUE's .tsv, with index and prediction, or CLUE's .json, one object with id "
        "and label a line",
    )  # fmt: skip
    add_engine(parser)
    add_precision(parser, int8=True)
    add_encoding(parser, "FILE")


def run(args: argparse.Namespace) -> int:
    """Write the predictions and print their number."""
    from zhbert.finetuning.predict import predict

    try:
        count = call(predict, args)
    except KeyboardInterrupt:
        if args.out != "-":
            sys.stderr.write(f"stopped; {args.out} is as it was: the same command begins anew\n")
        raise
    if args.out != "-":
        if args.json:
            sys.stdout.write(to_json({"out": args.out, "predictions": count}) + "\n")
        elif not args.quiet:
            sys.stderr.write(f"{counted(count, 'prediction')} in {args.out}\n")
    return 0
