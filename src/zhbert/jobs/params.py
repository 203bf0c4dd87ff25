"""Count the parameters of a recipe, a model folder or a shape, part by part.

zhbert params tiny
zhbert params runs/tiny/final
zhbert params 12x768
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "what", metavar="RECIPE|MODEL|SHAPE", help="a recipe, a model folder, or LAYERSxWIDTH"
    )
    parser.add_argument(
        "--vocabulary-size", type=int, default=21128, metavar="N",
        help="the vocabulary size of a recipe or a shape (21128)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Count the parameters and print the table."""
    from zhbert import console
    from zhbert.model.parameters import parameters_of

    result = parameters_of(args.what, vocabulary_size=args.vocabulary_size)
    if args.json:
        console.print_json(result)
        return 0
    table = console.table("=part", ">parameters", ">share")
    for part, number in [*result["parts"].items(), ("total", result["total"])]:
        table.add_row(part, f"{number:,}", f"{number / result['total']:.1%}")
    console.out().print(table)
    return 0
