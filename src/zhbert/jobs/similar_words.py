"""Find the similar words of a corpus's words, for the masking strategy mac.

  zhbert similar-words CORPUS --out similar.tsv
  zhbert similar-words CORPUS --vectors sgns.wiki.word.bz2 --out similar.tsv
  zhbert mask TEXT --strategy mac --similar-words similar.tsv
  zhbert pretrain RECIPE --corpus CORPUS --out RUN \\
      masking.strategy=mac masking.similar_words=similar.tsv

Words are similar if they stand beside the same words, which is counted in the
corpus; or if their vectors in a file (word2vec's or GloVe's text format) are.
A similar word has as many pieces as the word, so that rows keep their length.

The file has a line for each pair: the pieces of a word, those of a similar word,
and their similarity. Lines may be removed or added. It fits corpora of the same
vocabulary.
"""

from __future__ import annotations

import argparse

from zhbert import console, options, terminal
from zhbert.wording import counted


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("corpus", metavar="CORPUS", help="a corpus folder, made by prepare")
    parser.add_argument("--out", required=True, metavar="FILE", help="the file to write")
    parser.add_argument(
        "--vectors", metavar="FILE",
        help="word vectors as text, compressed or not (default: counted in the corpus)",
    )  # fmt: skip
    options.add_encoding(parser, "--vectors")
    parser.add_argument(
        "--most", type=int, default=5, metavar="N",
        help="the number of similar words of a word (default 5)",
    )  # fmt: skip
    parser.add_argument(
        "--min-frequency", type=int, default=10, metavar="N",
        help="leave out words that occur less often (default 10)",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace the file at --out")


def run(args: argparse.Namespace) -> int:
    """Write the file, and print some of the similar words."""
    from zhbert.sentences.similar_words import make_similar_words

    made = options.call(make_similar_words, args)
    if args.json:
        console.print_json(vars(made))
        return 0
    if not args.quiet:
        if made.cut_off:
            terminal.say(f"note: {args.vectors}: {made.cut_off}")
        table = console.table("word", "similar words")
        for word, similar in made.examples:
            table.add_row(word, " ".join(similar))
        console.out().print(table)
    console.out().print(
        f"{made.out}: similar words of {made.words:,} words, {made.share:.1%} of the corpus"
        + (f"; {counted(made.broken, 'broken line')} left out" if made.broken else "")
    )
    return 0
