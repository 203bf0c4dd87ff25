"""Show statistics of a corpus folder and some of its documents as readable text."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert import console
from zhbert.data import SPLITS
from zhbert.errors import ZhbertError
from zhbert.files import refused
from zhbert.wording import counted

if TYPE_CHECKING:
    from rich.table import Table

    from zhbert.data.shards import Corpus


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "folder", metavar="DIR", type=Path, help="a folder written by 'zhbert prepare'"
    )
    parser.add_argument("--rows", type=int, default=3, help="the number of documents to show (3)")
    parser.add_argument(
        "--split",
        choices=SPLITS,
        default="train",
        help="the split to show documents from (default: train)",
    )
    parser.add_argument("--verify", action="store_true", help="verify the checksum of every shard")


def run(args: argparse.Namespace) -> int:
    """Print the statistics and some documents."""
    if args.rows < 0:
        raise ZhbertError(f"--rows {args.rows}: a number from 0 on is expected")
    from zhbert.data.corpus_figures import describe_corpus, sample_documents
    from zhbert.data.shards import Corpus

    corpus = Corpus.open(args.folder)
    if args.verify:
        corpus.verify()
    # Called first because it checks the vocabulary size, which describe_corpus relies on.
    documents = sample_documents(corpus, args.split, args.rows)
    report = describe_corpus(corpus) | {"verified": args.verify, "documents": documents}
    if args.json:
        console.print_json(report)
        return 0
    described = corpus.folder / "corpus.json"
    with refused(described, "what prepare wrote", hint="; prepare the corpus again"):
        table, lines = _figures(corpus, report)
    if args.verify:
        lines.append("checksums: as they were written")
    out = console.out()
    out.print(table)
    out.print("\n".join(lines))
    for document in documents:
        _print_document(args.split, document)
    return 0


def _print_document(split: str, document: dict[str, Any]) -> None:
    out = console.out()
    out.print(
        f"\n{split.replace('_', ' ')} document {document['number']:,}: "
        f"{counted(document['sentences'], 'sentence')}, {counted(document['pieces'], 'piece')}",
    )
    for sentence in document["text"]:
        out.print(f"  {sentence}")
    if left := document["sentences"] - len(document["text"]):
        out.print(f"  … {left:,} more")


def _figures(corpus: Corpus, report: dict[str, Any]) -> tuple[Table, list[str]]:
    """Return the table of both splits and the lines below it."""
    from zhbert.text.words import AlignmentReport

    table = console.table(str(corpus.folder), *(f">{split.replace('_', ' ')}" for split in SPLITS))
    for name in ("documents", "lines", "sentences", "words", "pieces"):
        table.add_row(name, *(f"{report['totals'][split][name]:,}" for split in SPLITS))
    table.add_row("shards", *(f"{len(corpus.info['shards'][split]):,}" for split in SPLITS))
    return table, [
        "",
        AlignmentReport.from_dict(report["alignment"]).describe(),
        f"pieces of the vocabulary in use: {report['pieces_in_use']:,} of "
        f"{corpus.vocabulary_size:,}"
        + (
            f" (among {report['pieces_counted']:,} pieces)"
            if report["pieces_counted"] < sum(report["totals"][s]["pieces"] for s in SPLITS)
            else ""
        ),
        f"segmenter: {report['segmenter']['name']} {report['segmenter']['version']}",
    ]
