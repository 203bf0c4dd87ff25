"""Prepare raw text for pretraining: write a corpus folder of words and pieces.

Reads text, JSON lines and arrays, csv, tsv, parquet, WikiExtractor's and
SogouCS' articles (also .gz, .bz2, .xz, .zst), folders, and stdin (-). Splits
the text into documents, lines, sentences, words and pieces, and writes them to
OUT. To resume interrupted work, run the same command again. The result does
not depend on --workers and --engine.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert import console, options, terminal
from zhbert.data import ENGINES
from zhbert.data.read_options import DOCUMENTS, ON_ERROR
from zhbert.text.simplify import TRADITIONAL

if TYPE_CHECKING:
    from zhbert.data.prepare import PrepareProgress


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("files", nargs="+", metavar="FILES", help="files or folders; - is stdin")
    parser.add_argument("--out", required=True, type=Path, help="the corpus folder to write")
    parser.add_argument(
        "--vocab",
        type=Path,
        help="vocab.txt or a folder with a tokenizer (default: the vocabulary of this package)",
    )
    options.add_segmenter_arguments(parser)
    parser.add_argument(
        "--traditional",
        choices=TRADITIONAL,
        default="characters",
        help="how traditional text is simplified before segmentation; the corpus keeps the "
        "original text (default: characters)",
    )
    parser.add_argument(
        "--documents",
        choices=DOCUMENTS,
        default="blank",
        help="what a document is in text files: the text up to a blank line, a line, or the whole "
        "file (default: blank)",
    )
    options.add_reading_arguments(parser)
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.01,
        help="the share of documents held out for evaluation (default 0.01; at least one document, "
        "unless it is 0)",
    )
    parser.add_argument(
        "--deduplicate", action="store_true", help="drop lines that occurred earlier in the input"
    )
    parser.add_argument(
        "--scatter",
        action="store_true",
        help="scatter the documents over the shards, so that neighbours seldom have one source",
    )
    parser.add_argument(
        "--on-error",
        choices=ON_ERROR,
        default="skip",
        help="skip and count unreadable input, or stop (default: skip)",
    )
    parser.add_argument(
        "--engine",
        choices=ENGINES,
        default="local",
        help="where to work: processes of this machine, or the machines of a Ray cluster, which "
        "share the folders (default: local)",
    )
    parser.add_argument(
        "--address",
        metavar="HOST:PORT",
        help="the Ray cluster (default: RAY_ADDRESS, or the cluster that this machine belongs to)",
    )
    parser.add_argument(
        "--workers", type=int, help="the number of processes (default: one per CPU)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a corpus in OUT")


def run(args: argparse.Namespace) -> int:
    """Prepare the corpus and print a summary."""
    from zhbert.data.account import describe
    from zhbert.data.prepare import prepare
    from zhbert.runtime import processors

    begin = time.perf_counter()
    workers = processors() if args.workers is None and args.engine == "local" else args.workers
    try:
        with progress_bar(args.quiet or args.json) as progress:
            report = options.call(prepare, args, workers=workers, progress=progress)
    except KeyboardInterrupt:
        console.err().print(
            "stopped; finished shards are kept: run the same command again to go on"
        )
        raise
    report["seconds"] = time.perf_counter() - begin
    for warning in report["warnings"]:
        terminal.say(f"WARNING: {warning}")
    if args.json:
        console.print_json(report)
    else:
        console.out().print(describe(report), end="")
    return 0


@contextmanager
def progress_bar(quiet: bool) -> Iterator[PrepareProgress]:
    """Show a progress bar for each stage, with MB, MB/s and the remaining time."""
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
    from rich.progress import TransferSpeedColumn as Speed

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        DownloadColumn(),
        Speed(),
        TimeRemainingColumn(compact=True),
    )
    with console.progress(quiet, *columns) as bar:
        tasks: dict[str, Any] = {}

        def progress(stage: str, read: int, total: int) -> None:
            if stage not in tasks:
                tasks[stage] = bar.add_task(stage, total=total or None)
            bar.update(tasks[stage], completed=read)

        yield progress
