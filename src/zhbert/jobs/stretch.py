"""Give a model more positions, so that it accepts longer rows.

zhbert stretch chinese-roberta-wwm-ext --positions 1024 --out models/long
zhbert stretch MODEL --positions 2048 --new-rows repeat --out models/long

New positions are made from the trained ones and need further training:
zhbert pretrain RECIPE --corpus CORPUS --out RUN initial_model=models/long \\
    sequence_length=1024

hierarchical  every new row is a different mixture of two of the n trained ones
              (Su Jianlin, https://kexue.fm/archives/7947); up to n x n rows;
              the default
repeat        the trained rows repeated, as Longformer is initialised
              (https://arxiv.org/abs/2004.05150)
interpolate   the trained rows drawn out over the new length: all rows change,
              so short rows give other outputs too

With the first two, the trained positions are kept bit for bit: rows that
fitted before give the same outputs.

MODEL is a folder, an archive or a name ('zhbert models'). 'zhbert vocab extend'
adds pieces; 'zhbert shrink' removes positions or pieces.
"""

from __future__ import annotations

import argparse

from zhbert.options import call
from zhbert.surgery import NEW_POSITIONS


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a folder, an archive or a name")
    parser.add_argument("--out", required=True, metavar="DIR", help="the model folder to write")
    parser.add_argument(
        "--positions", type=int, required=True, metavar="N",
        help="the maximum length of the new model's rows, in pieces",
    )  # fmt: skip
    parser.add_argument(
        "--new-rows", choices=NEW_POSITIONS, default=NEW_POSITIONS[0],
        help=f"how new positions are made (default {NEW_POSITIONS[0]})",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a model in DIR")


def run(args: argparse.Namespace) -> int:
    """Extend the model and print a line on what was written."""
    from zhbert.console import out, print_json
    from zhbert.model.config import SECTION, BertConfig
    from zhbert.model.folder import train_on
    from zhbert.surgery.stretch import stretch

    result = call(stretch, args, quiet=args.quiet or args.json)
    if args.json:
        print_json(result)
        return 0
    before = f"{result['positions_before']:,}"
    trained = f"of which {before} are trained"
    if result["new_rows"] == "interpolate":
        trained = f"interpolated from {before}: every row is to be trained anew"
    out().print(f"{result['out']}: {result['positions']:,} positions, {trained}")
    if not args.quiet:
        advice = train_on(result["out"], f"sequence_length={result['positions']}")
        out().print(advice)
        if task := BertConfig.from_pretrained(result["out"]).other.get(SECTION):
            length = task["sequence_length"]
            out().print(
                f"Until then, it predicts from rows of {length:,} pieces at most, as before."
            )
    return 0
