"""Make a small model from a large one: fewer layers, fewer pieces, shorter rows.

zhbert shrink chinese-roberta-wwm-ext --layers 0,1,2 --out models/start
zhbert shrink MODEL --vocab vocab.txt --corpus law.txt --out models/law
zhbert shrink MODEL --vocab-from law.txt --vocab-size 8000 --out models/law
zhbert shrink MODEL --positions 256 --out models/short

The published small models began as the first layers of a large one
(https://github.com/ymcui/Chinese-BERT-wwm): RBT3, RBT4 and RBT6 as layers 0-2,
0-3 and 0-5 of RoBERTa-wwm-ext, RBTL3 as layers 0-2 of RoBERTa-wwm-ext-large.
Then they were trained further, which a model with fewer layers needs:
zhbert pretrain rbt3 --corpus CORPUS --out RUN initial_model=models/start

What is kept is kept bit for bit, heads included. With a smaller vocabulary or
fewer positions, text that still fits (all its pieces are kept, and no row is
longer than --positions) gives the same outputs as before. 'zhbert extend' makes
longer models.
MODEL is a folder, an archive or a name ('zhbert models').
"""

from __future__ import annotations

import argparse
from typing import Any

from zhbert.model.folder import train_on

# Lost pieces in the table; --json has them all.
_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    from zhbert import options

    parser.add_argument("model", metavar="MODEL", help="a folder, an archive or a name")
    parser.add_argument("--out", required=True, metavar="DIR", help="the model folder to write")
    parser.add_argument(
        "--layers", metavar="LIST",
        help="what to keep, counted from 0 and in this order: 0,1,2 or 0-2; -1 is the last "
        "(--layers=-1); without it, all",
    )  # fmt: skip
    vocabulary = parser.add_mutually_exclusive_group()
    vocabulary.add_argument(
        "--vocab", metavar="NEW", help="a vocab.txt of pieces of the model: keep these rows"
    )
    vocabulary.add_argument(
        "--vocab-from", nargs="+", metavar="FILE",
        help="text: keep the pieces that it uses most, special tokens and ASCII characters",
    )  # fmt: skip
    parser.add_argument(
        "--vocab-size", type=int, metavar="N",
        help="with --vocab-from: keep N pieces (without it, all that the text uses)",
    )  # fmt: skip
    parser.add_argument(
        "--positions", type=int, metavar="N", help="keep the first N positions: the longest row"
    )
    parser.add_argument(
        "--corpus", nargs="+", metavar="FILE",
        help="text: report what it loses by the smaller vocabulary",
    )  # fmt: skip
    options.add_reading_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a model in DIR")


def run(args: argparse.Namespace) -> int:
    """Shrink, and print the parameters before and after."""
    from zhbert import options
    from zhbert.console import print_json
    from zhbert.surgery.shrink import shrink

    quiet = args.quiet or args.json
    reading = options.reading_of(args)
    vocab_from = corpus = None
    if args.vocab_from:
        vocab_from = options.Texts(args.vocab_from, reading, quiet=quiet, option="--vocab-from")
    if args.corpus:
        corpus = options.Texts(args.corpus, reading, quiet=quiet)
    result = shrink(
        args.model,
        args.out,
        layers=args.layers,
        vocab=args.vocab,
        vocab_from=vocab_from,
        vocab_size=args.vocab_size,
        positions=args.positions,
        corpus=corpus,
        overwrite=args.overwrite,
        quiet=quiet,
    )
    if args.json:
        print_json(result)
    else:
        _print(result, args.quiet)
    return 0


def _print(result: dict[str, Any], quiet: bool) -> None:
    from zhbert.console import out, table

    console = out()
    parts = table("=part", ">before", ">after")
    for part, number in result["parameters_before"].items():
        parts.add_row(part, f"{number:,}", f"{result['parameters'][part]:,}")
    parts.add_row("all parameters", f"{result['total_before']:,}", f"{result['total']:,}")
    megabytes = (f"{result[name] / 1e6:,.1f} MB" for name in ("bytes_before", "bytes"))
    parts.add_row("on disk", *megabytes)
    if not quiet:
        console.print(parts)
        console.print()
    if (loss := result.get("corpus")) is not None:
        _print_loss(loss)
    kept = result["layers"]
    in_a_row = len(kept) > 3 and kept == list(range(kept[0], kept[-1] + 1))
    shown = f"{kept[0]}-{kept[-1]}" if in_a_row else ",".join(map(str, kept))
    what = [f"layers {shown} of {result['layers_before']}"]
    if result["pieces"] != result["pieces_before"]:
        what.append(f"{result['pieces']:,} of {result['pieces_before']:,} pieces")
    if result["positions"] != result["positions_before"]:
        what.append(f"{result['positions']:,} of {result['positions_before']:,} positions")
    console.print(f"{result['out']}: {', '.join(what)}")
    if quiet:
        return
    if len(result["layers"]) < result["layers_before"]:
        console.print(train_on(result["out"]))


def _print_loss(loss: dict[str, Any]) -> None:
    from zhbert.console import out, print_coverage, table

    console = out()
    print_coverage(loss)
    if not loss["lost"]:
        console.print("The text uses none of the pieces that go.\n")
        return
    lost = table("=lost piece", ">times", "becomes")
    for one in loss["lost"][:_SHOWN]:
        lost.add_row(one["piece"], f"{one['count']:,}", " ".join(one["becomes"]))
    console.print(lost)
    if (more := loss["lost_pieces"] - _SHOWN) > 0:
        console.print(f"... and {more:,} more of the text's pieces (--json has them)")
    console.print()
