"""Compute the vectors of the texts in a file of any length, or of stdin.

  zhbert embed MODEL reviews.txt --out vectors.npy
  zhbert embed MODEL corpus.jsonl --out vectors.parquet --normalize
  cat titles.txt | zhbert embed MODEL - --out titles.safetensors --vectors int8

MODEL is a sentence model: a folder of sentence-transformers or of 'zhbert
finetune', a name or a hub id. FILE has a text a line, or is a table (TSV, CSV,
JSON lines, parquet) with the column text. OUT has a row for each text, in the
order of FILE. Ids are those in FILE's column id, or row numbers from 0: parquet
has the columns id, text and vector; beside vectors.npy (or .safetensors, with
the tensor 'vectors') stands vectors.npy.json with the ids and how the vectors
were made.

If the work is interrupted, the same command goes on from where it was, and its
result is the same to the last bit. Until then, OUT.unfinished has what is done.
"""

from __future__ import annotations

import argparse
import sys

from zhbert import console, terminal
from zhbert.options import add_engine, add_precision, add_table_arguments, call, text_progress
from zhbert.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a sentence model: folder, name or hub id")
    parser.add_argument("file", metavar="FILE", help="the texts; - for stdin")
    parser.add_argument(
        "--out",
        required=True,
        metavar="FILE",
        help="the file to write: .npy, .parquet or .safetensors",
    )
    parser.add_argument(
        "--vectors",
        choices=("float32", "int8", "uint8", "binary", "ubinary"),
        default="float32",
        help="what is stored: int8 and uint8 have a byte for each dimension, scaled by its range; "
        "binary and ubinary a bit, eight in a byte (default: float32)",
    )
    parser.add_argument(
        "--normalize", action="store_true", help="scale each vector to the length 1"
    )
    parser.add_argument(
        "--truncate-dim", type=int, metavar="N", help="keep only the first N dimensions"
    )
    prompts = parser.add_mutually_exclusive_group()
    prompts.add_argument(
        "--prompt-name", metavar="NAME", help="put the model's prompt of this name before each text"
    )
    prompts.add_argument("--prompt", metavar="TEXT", help="put TEXT before each text")
    add_engine(parser)
    add_precision(parser, int8=True)
    add_table_arguments(parser, "FILE")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing OUT")


def run(args: argparse.Namespace) -> int:
    """Write the vectors and print their number."""
    from zhbert.retrieval.embed import embed

    quiet = args.quiet or args.json
    try:
        with text_progress(quiet) as progress:
            remark = terminal.say_nothing if quiet else terminal.say
            done = call(embed, args, quiet=quiet, remark=remark, progress=progress)
    except KeyboardInterrupt:
        sys.stderr.write("stopped; the same command goes on from where it was\n")
        raise
    if args.json:
        console.print_json({**vars(done), "vectors": args.vectors})
    elif not quiet:
        before = f" ({done.resumed:,} of them done before)" if done.resumed else ""
        ids = "" if done.ids == done.out else f"; ids in {done.ids}"
        sys.stderr.write(
            f"{counted(done.texts, 'vector')} of {done.dimensions:,} dimensions{before} in "
            f"{done.out}{ids}\n"
        )
    return 0
