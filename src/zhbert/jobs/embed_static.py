"""Make static vectors, one a piece, from a sentence model.

  zhbert embed-static MODEL --corpus sentences.txt --out static
  zhbert embed static corpus.jsonl --out vectors.npy
  zhbert search static --corpus law.txt "离婚后孩子由谁抚养"

A text's vector is the mean of its pieces' vectors. That costs a look-up for each
piece instead of a BERT, and is less exact, above all for questions and passages:
it is for texts too many for the model. A piece's vector is the mean of what the
model gives for it in the corpus, less what all have in common; frequent pieces
weigh less. Some ten thousand sentences like those to be encoded are enough.

OUT is a folder of sentence-transformers (StaticEmbedding), which 'embed',
'similarity' and 'search' take as well.
"""

from __future__ import annotations

import argparse
import sys

from zhbert import console, options, terminal
from zhbert.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a sentence model: folder, name or hub id")
    parser.add_argument(
        "--corpus", required=True, metavar="FILE", help="texts, one a line or a table; - for stdin"
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="the folder to write")
    parser.add_argument(
        "--dimensions", type=int, metavar="N", help="keep N principal components (default: all)"
    )
    options.add_precision(parser)
    options.add_table_arguments(parser, "--corpus")
    parser.add_argument("--overwrite", action="store_true", help="replace a model in OUT")


def run(args: argparse.Namespace) -> int:
    """Write the static vectors and print their number."""
    from zhbert.retrieval.static import make_static

    quiet = args.quiet or args.json
    with options.text_progress(quiet) as progress:
        remark = terminal.say_nothing if quiet else terminal.say
        made = options.call(make_static, args, quiet=quiet, remark=remark, progress=progress)
    if args.json:
        console.print_json(vars(made))
    elif not quiet:
        sys.stderr.write(
            f"{counted(made.pieces, 'vector')} of {made.dimensions:,} dimensions, from "
            f"{counted(made.texts, 'text')}, in {made.out}\n"
        )
    return 0
