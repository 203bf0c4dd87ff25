"""Find the texts of a corpus that are most similar to a query.

  zhbert search MODEL --corpus law.txt "离婚后孩子由谁抚养"
  zhbert search MODEL --corpus law.txt --index law-index "试用期" "加班费"
  zhbert search MODEL --index law-index - < queries.txt
  zhbert search MODEL --mine pairs.tsv --corpus law.txt --out triples.jsonl

MODEL is a sentence model: a folder of sentence-transformers or of 'zhbert
finetune', a name or a hub id. The corpus has a text a line, or is a table (TSV,
CSV, JSON lines, parquet) with the column text. The score is the cosine (for
models made for it, the inner product). Ids are those in the corpus's column id,
or row numbers from 0.

--index DIR keeps the texts and their vectors, so they are computed only once;
texts that are appended to the corpus are added. It also goes on where making it
was interrupted. All vectors are compared with the query; from 100,000 texts on,
DIR has an index of usearch, which is faster and finds nearly all of the nearest.
Without a query, DIR is made and nothing searched.

A pipe gets a line for each text that is found: query, rank, score, id and text,
separated by tabs. --json prints a line for each query.

--mine finds hard negatives for training: texts near an anchor that are not its
match. PAIRS has anchors and positives (or questions and passages): two columns,
a table with the columns text and text_pair, or SQuAD's JSON. Candidates are the
texts of the corpus, if one is given, and the positives of other anchors. OUT
gets a line for each pair: text, text_pair, and the list negative. A card with
these three columns trains on it.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from zhbert import console, options, terminal
from zhbert.errors import ZhbertError
from zhbert.files import to_json
from zhbert.wording import counted

if TYPE_CHECKING:
    from zhbert.retrieval.search import Hit

# The number of characters that are shown of a text; --json has all.
_SHOWN = 200

# The fields of `Mining` that options set.
_MINING = ("num_negatives", "range_min", "range_max", "relative_margin")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("model", metavar="MODEL", help="a sentence model: folder, name or hub id")
    parser.add_argument(
        "queries", metavar="QUERY", nargs="*", help="what to find; - reads a query a line"
    )
    parser.add_argument("--corpus", metavar="FILE", help="the texts to search")
    parser.add_argument(
        "--index", metavar="DIR", help="keep the vectors of the texts in DIR, and use them again"
    )
    parser.add_argument(
        "--top-k", type=int, default=10, metavar="K", help="texts for each query (default 10)"
    )
    parser.add_argument(
        "--exact", action="store_true", help="compare with all vectors, without usearch"
    )
    mining = parser.add_argument_group("hard negatives")
    mining.add_argument(
        "--mine", metavar="PAIRS", help="find hard negatives of pairs instead of answering queries"
    )
    mining.add_argument("--out", metavar="FILE", help="the file to write, which ends in .jsonl")
    mining.add_argument(
        "--negatives", dest="num_negatives", type=int, metavar="N",
        help="how many for each anchor (default 3)",
    )  # fmt: skip
    mining.add_argument(
        "--range-min",
        type=int,
        metavar="N",
        help="leave out the N nearest texts, which may be unmarked matches (default 0)",
    )
    mining.add_argument(
        "--range-max", type=int, metavar="N", help="leave out what is not among the N nearest"
    )
    mining.add_argument(
        "--relative-margin",
        type=float,
        metavar="R",
        help="leave out what is almost as near as the positive: 0.05 allows scores up to 95 %% of "
        "the positive's",
    )
    options.add_precision(parser, int8=True)
    options.add_table_arguments(parser, "--corpus, PAIRS and of stdin")
    parser.add_argument(
        "--overwrite", action="store_true", help="make the index anew, or replace an existing OUT"
    )
    options.take_positionals_anywhere(parser)


def run(args: argparse.Namespace) -> int:
    """Search and print what was found, or mine hard negatives."""
    mining = {key: value for key in _MINING if (value := getattr(args, key)) is not None}
    if args.mine is not None:
        return _mine(args, mining)
    if args.out is not None or mining:
        raise ZhbertError("--out and the options of hard negatives are for --mine PAIRS")
    if args.top_k < 1:
        raise ZhbertError(f"--top-k {args.top_k}: must be 1 or more")
    if not args.queries and args.index is None:
        raise ZhbertError("give a QUERY, or - for a query a line on stdin")
    if "-" in args.queries and len(args.queries) > 1:
        raise ZhbertError("give queries or - for stdin, not both")
    for number, query in enumerate(args.queries, start=1):
        if not query.strip():
            raise ZhbertError(f"query {number} is empty; give a text")
    from zhbert.retrieval.search import opened_search

    quiet = args.quiet or args.json
    with ExitStack() as opened:
        try:
            with options.text_progress(quiet) as progress:
                search = opened.enter_context(
                    options.call(
                        opened_search,
                        args,
                        but=["queries", "top_k", "mine", "out", *_MINING],
                        quiet=quiet,
                        remark=terminal.say_nothing if quiet else terminal.say,
                        progress=progress,
                    )
                )
        except KeyboardInterrupt:
            if args.index is not None:
                sys.stderr.write("stopped; the same command goes on (without --overwrite)\n")
            raise
        for queries in _groups(args.queries, args.encoding):
            for query, hits in zip(queries, search.answer(queries, args.top_k), strict=True):
                _print(query, hits, args.json)
    return 0


def _mine(args: argparse.Namespace, mining: dict[str, Any]) -> int:
    if args.queries or args.index is not None:
        raise ZhbertError("--mine takes no queries and no --index")
    if args.out is None:
        raise ZhbertError("--mine needs --out FILE.jsonl")
    from zhbert.retrieval.hard_negatives import write_hard_negatives

    quiet = args.quiet or args.json
    with options.text_progress(quiet) as progress:
        mined = options.call(
            write_hard_negatives,
            args,
            but=["queries", "index", "top_k", "exact", "mine", *_MINING],
            pairs=args.mine,
            mining=mining,
            quiet=quiet,
            remark=terminal.say_nothing if quiet else terminal.say,
            progress=progress,
        )
    if args.json:
        console.print_json(vars(mined))
    elif not quiet:
        sys.stderr.write(
            f"{counted(mined.negatives, 'hard negative')} for {mined.triples:,} of "
            f"{counted(mined.pairs, 'pair')}, in {mined.out}\n"
        )
    return 0


def _groups(queries: Sequence[str], encoding: str | None) -> Iterator[list[str]]:
    """Yield the queries that are there at a time: a person waits for each answer."""
    if list(queries) != ["-"]:
        yield list(queries)
        return
    from zhbert.data.read_options import ReadOptions
    from zhbert.data.texts import read_lines

    found = False
    for lines in read_lines("-", ReadOptions(encoding=encoding)):
        if given := [line for line in lines if line.strip()]:
            found = True
            yield given
    if not found:
        raise ZhbertError("stdin: no query; give one a line")


def _print(query: str, hits: Sequence[Hit], as_json: bool) -> None:
    if as_json:
        found = [vars(hit) for hit in hits]
        sys.stdout.write(to_json({"query": query, "results": found}) + "\n")
        return
    if not sys.stdout.isatty():
        for hit in hits:
            line = query, str(hit.rank), f"{hit.score:.4f}", hit.id, hit.text
            console.data().write("\t".join(map(_on_one_line, line)) + "\n")
        return
    out = console.out()
    out.print(query, style="bold")
    table = console.table(">", ">score", "=id", "text")
    rows = [(str(hit.rank), f"{hit.score:.3f}", hit.id) for hit in hits]
    cells = zip(("", "score", "id"), *rows, strict=True)
    left = sum(max(map(len, column)) + 2 for column in cells)
    for hit, row in zip(hits, rows, strict=True):
        text = _on_one_line(hit.text)
        text = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
        table.add_row(*row, _folded(text, out.width - left))
    out.print(table)
    out.print()


def _folded(text: str, width: int) -> str:
    """Break lines between Chinese characters, too: rich breaks them at spaces alone."""
    from rich.cells import cell_len

    lines = [""]
    for part in re.findall(r"[\x21-\x7e]+|.", text):
        if cell_len(lines[-1] + part) > width:
            lines.append("")
        lines[-1] += part if lines[-1] or part != " " else ""
    return "\n".join(lines)


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
