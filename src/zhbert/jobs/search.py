"""Find the texts of a corpus that are most similar to a query.

  zhbert search MODEL --corpus law.txt "离婚后孩子由谁抚养"
  zhbert search MODEL --corpus law.txt --index law-index "试用期" "加班费"
  zhbert search MODEL --index law-index - < queries.txt

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
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from zhbert import console, options, terminal
from zhbert.errors import ZhbertError
from zhbert.files import to_json

if TYPE_CHECKING:
    from zhbert.retrieval.search import Hit

# The number of characters that are shown of a text; --json has all.
_SHOWN = 200


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
    options.add_precision(parser)
    options.add_field(parser)
    options.add_encoding(parser, "--corpus and of stdin")
    parser.add_argument("--overwrite", action="store_true", help="make the index anew")
    options.take_positionals_anywhere(parser)


def run(args: argparse.Namespace) -> int:
    """Search and print what was found."""
    if args.top_k < 1:
        raise ZhbertError(f"--top-k {args.top_k}: must be 1 or more")
    if not args.queries and args.index is None:
        raise ZhbertError("give a QUERY, or - for a query a line on stdin")
    if "-" in args.queries and len(args.queries) > 1:
        raise ZhbertError("give queries or - for stdin, not both")
    for number, query in enumerate(args.queries, start=1):
        if not query.strip():
            raise ZhbertError(f"query {number} is empty; give a text")
    # Imported late, so that --help and refused arguments stay fast.
    from zhbert.retrieval.search import opened_search

    quiet = args.quiet or args.json
    with ExitStack() as opened:
        try:
            with options.text_progress(quiet) as progress:
                search = opened.enter_context(
                    opened_search(
                        args.model,
                        args.corpus,
                        index=args.index,
                        field=args.field,
                        encoding=args.encoding,
                        precision=args.precision,
                        exact=args.exact,
                        overwrite=args.overwrite,
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
            row = query, hit.rank, f"{hit.score:.4f}", hit.id, hit.text
            console.data().write("\t".join(_on_one_line(str(cell)) for cell in row) + "\n")
        return
    out = console.out()
    out.print(query, style="bold")
    table = console.table(">", ">score", "id", "text")
    for hit in hits:
        text = _on_one_line(hit.text)
        text = text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
        table.add_row(str(hit.rank), f"{hit.score:.3f}", hit.id, text)
    out.print(table)
    out.print()


def _on_one_line(text: str) -> str:
    return " ".join(text.split())
