"""Give a model more positions, so that it accepts longer rows.

zhbert extend chinese-roberta-wwm-ext --positions 1024 --out models/long
zhbert extend MODEL --positions 2048 --new-rows repeat --out models/long

The trained positions are kept bit for bit: rows that fitted before give the
same outputs. The new ones are made from the trained ones and need further
training:
zhbert pretrain RECIPE --corpus CORPUS --out RUN initial_model=models/long \\
    sequence_length=1024

hierarchical  every new row is a different mixture of two of the n trained ones
              (Su Jianlin, https://kexue.fm/archives/7947); up to n x n rows;
              the default
repeat        the trained rows repeated, as Longformer is initialised
              (https://arxiv.org/abs/2004.05150)

MODEL is a folder, an archive or a name ('zhbert models'). 'zhbert vocab extend'
adds pieces; 'zhbert shrink' removes positions or pieces.
"""

from __future__ import annotations

import argparse

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
    # Imported late, so that --help and refused arguments stay fast.
    from zhbert.console import out, print_json
    from zhbert.model.folder import train_on
    from zhbert.surgery.extend_positions import extend_positions

    result = extend_positions(
        args.model,
        args.out,
        positions=args.positions,
        new_rows=args.new_rows,
        overwrite=args.overwrite,
        quiet=args.quiet or args.json,
    )
    if args.json:
        print_json(result)
        return 0
    out().print(
        f"{result['out']}: {result['positions']:,} positions, of which "
        f"{result['positions_before']:,} are trained",
    )
    if not args.quiet:
        advice = train_on(result["out"], f"sequence_length={result['positions']}")
        out().print(advice)
    return 0
