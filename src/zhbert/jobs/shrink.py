"""Make a model smaller: fewer layers, fewer pieces, fewer positions.

zhbert shrink chinese-roberta-wwm-ext --layers 0,1,2 --out models/start
zhbert shrink MODEL --vocab vocab.txt --corpus law.txt --out models/law
zhbert shrink MODEL --vocab-from law.txt --vocab-size 8000 --out models/law
zhbert shrink MODEL --positions 256 --out models/short

The published small models were initialised with the first layers of a large
one (https://github.com/ymcui/Chinese-BERT-wwm): RBT3, RBT4 and RBT6 with
layers 0-2, 0-3 and 0-5 of RoBERTa-wwm-ext, RBTL3 with layers 0-2 of
RoBERTa-wwm-ext-large. A model with fewer layers needs further training, as
these had:
zhbert pretrain rbt3 --corpus CORPUS --out RUN initial_model=models/start

Weights that remain are the same bit for bit, heads included. With a smaller
vocabulary or fewer positions, text whose pieces and length are still supported
gives the same outputs as before. 'zhbert stretch' adds positions.
MODEL is a folder, an archive or a name ('zhbert models').
"""

from __future__ import annotations

import argparse
from typing import Any

from zhbert import options

# The number of lost pieces in the table; --json has all of them.
_SHOWN = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a folder, an archive or a name")
    parser.add_argument("--out", required=True, metavar="DIR", help="the model folder to write")
    parser.add_argument(
        "--layers", metavar="LIST",
        help="the layers to keep, in this order, counted from 0: 0,1,2 or 0-2; -1 is the last "
        "(--layers=-1); default: all",
    )  # fmt: skip
    vocabulary = parser.add_mutually_exclusive_group()
    vocabulary.add_argument(
        "--vocab", metavar="NEW", help="a vocab.txt with a part of the model's pieces: keep these"
    )
    vocabulary.add_argument(
        "--vocab-from", nargs="+", metavar="FILE",
        help="text: keep its most frequent pieces, special tokens and ASCII characters",
    )  # fmt: skip
    parser.add_argument(
        "--vocab-size", type=int, metavar="N",
        help="with --vocab-from: keep N pieces (default: all that the text uses)",
    )  # fmt: skip
    parser.add_argument(
        "--positions",
        type=int,
        metavar="N",
        help="keep the first N positions, the new maximum length of rows",
    )
    parser.add_argument(
        "--corpus", nargs="+", metavar="FILE",
        help="text: report its pieces that the smaller vocabulary lacks",
    )  # fmt: skip
    options.add_reading_arguments(parser)
    parser.add_argument("--overwrite", action="store_true", help="replace a model in DIR")


def run(args: argparse.Namespace) -> int:
    """Shrink the model and print its parameters before and after."""
    from zhbert.console import print_json
    from zhbert.surgery.shrink import shrink

    quiet = args.quiet or args.json
    reading = options.reading_of(args)
    vocab_from = corpus = None
    if args.vocab_from:
        vocab_from = options.Texts(args.vocab_from, reading, quiet=quiet, option="--vocab-from")
    if args.corpus:
        corpus = options.Texts(args.corpus, reading, quiet=quiet)
    texts = {"vocab_from": vocab_from, "corpus": corpus}
    result = options.call(shrink, args, but=["field", "encoding"], quiet=quiet, **texts)
    if args.json:
        print_json(result)
    else:
        _print(result, args.quiet)
    return 0


def _print(result: dict[str, Any], quiet: bool) -> None:
    from zhbert.console import out, table
    from zhbert.model.folder import train_on

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
        taught = f"zhbert finetune TASK --model {result['out']} --teacher RUN"
        console.print(f"Or for a task, with a teacher: {taught}")


def _print_loss(loss: dict[str, Any]) -> None:
    from zhbert.console import out, print_coverage, table

    console = out()
    print_coverage(loss)
    if not loss["lost"]:
        console.print("The text uses none of the removed pieces.\n")
        return
    lost = table("=lost piece", ">times", "becomes")
    for one in loss["lost"][:_SHOWN]:
        lost.add_row(one["piece"], f"{one['count']:,}", " ".join(one["becomes"]))
    console.print(lost)
    if (more := loss["lost_pieces"] - _SHOWN) > 0:
        console.print(f"... and {more:,} more of the text's pieces (--json has them)")
    console.print()
