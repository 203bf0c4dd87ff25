"""Say how similar two texts are, or the pairs of two files.

zhbert similarity MODEL "今天天气很好。" "今天天气不错。"
zhbert similarity MODEL questions.txt answers.txt > scored.tsv

MODEL is a sentence model: a folder of sentence-transformers or of 'zhbert
finetune', a name or a hub id. The number is by the model's own measure: mostly
the cosine, from -1 to 1. Files have as many texts: one a line, or tables (TSV,
CSV, JSON lines, parquet) with the column text. Of files, a line is printed for
each pair: the number and both texts, separated by tabs; --json prints JSON lines.
"""

from __future__ import annotations

import argparse

from zhbert import console
from zhbert.files import to_json
from zhbert.options import add_precision, add_table_arguments, call


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a sentence model: folder, name or hub id")
    parser.add_argument("a", metavar="A", help="a text, or a file of texts")
    parser.add_argument("b", metavar="B", help="another one")
    add_precision(parser, int8=True)
    add_table_arguments(parser, "the files")


def run(args: argparse.Namespace) -> int:
    """Print the similarity of the texts, or of each pair."""
    from zhbert.retrieval.similarity import similarities

    data = console.data()
    for pair in call(similarities, args, quiet=args.quiet or args.json):
        if args.json:
            data.write(to_json(pair._asdict()) + "\n")
        elif pair[:2] == (args.a, args.b):
            data.write(f"{pair.similarity:.4f}\n")
        else:
            texts = (" ".join(text.split()) for text in pair[:2])
            data.write("\t".join([f"{pair.similarity:.4f}", *texts]) + "\n")
    return 0
