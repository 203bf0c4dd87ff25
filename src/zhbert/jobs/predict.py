"""Predict with a fine-tuned model, for a file of any length or for stdin.

  zhbert predict runs/lcqmc/seed-0/final pairs.tsv --out predictions.jsonl
  cat titles.txt | zhbert predict runs/thucnews_titles/seed-0/final - --out -
  zhbert predict runs/cmrc2018/seed-0/final questions.json --out answers.json

FILE is written as the task's own files are; or it holds a text a line (a pair: two texts with a
tab between them), a TSV, CSV or JSON lines with text and text_pair, a sentence a line to tag, or
SQuAD's JSON or JSON lines with question and context. OUT is JSON lines (.jsonl, -), a table
(.tsv, .csv), tagged tokens (.txt, .tsv), CLUENER's lines of entities (.json), or answers by id
(.json; a list, as CJRC's is, for tasks that its scorer scores). Its order is that of FILE, and an
id is the file's own or the row's number, from 0. --submission writes labels and numbers as they
are handed in: .tsv to GLUE, .json to CLUE.
"""

from __future__ import annotations

import argparse
import sys

from zhbert.files import to_json
from zhbert.finetuning.predict import STREAM, predict
from zhbert.options import add_encoding, add_precision
from zhbert.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a fine-tuned model: folder, name or hub id")
    parser.add_argument("file", metavar="FILE", help="what to predict for; - for stdin")
    parser.add_argument(
        "--out",
        default=STREAM,
        metavar="FILE",
        help="where to write: .jsonl, .tsv, .csv, .txt, .json; -",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing FILE")
    parser.add_argument(
        "--submission", action="store_true",
        help="a .tsv as GLUE wants it, index and prediction; or a .json as CLUE does, an object "
        "with id and label a line",
    )  # fmt: skip
    add_precision(parser)
    add_encoding(parser, "FILE")


def run(args: argparse.Namespace) -> int:
    """Predict and write."""
    try:
        count = predict(
            args.model,
            args.file,
            args.out,
            precision=args.precision,
            encoding=args.encoding,
            submission=args.submission,
            overwrite=args.overwrite,
            quiet=args.quiet,
        )
    except KeyboardInterrupt:
        if args.out != STREAM:
            sys.stderr.write(f"stopped; {args.out} is as it was: the same command begins anew\n")
        raise
    if args.out != STREAM:
        if args.json:
            sys.stdout.write(to_json({"out": args.out, "predictions": count}) + "\n")
        elif not args.quiet:
            sys.stderr.write(f"{counted(count, 'prediction')} in {args.out}\n")
    return 0
