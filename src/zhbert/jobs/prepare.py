"""Raw text files -> a corpus folder of words and pieces, ready for pretraining.

Reads text, JSON lines and arrays, csv, tsv, parquet, WikiExtractor's and SogouCS' articles (.gz,
.bz2, .xz, .zst too), folders, and stdin (-). Cuts the text into documents, lines, sentences, words
and pieces, and writes them to OUT. Work that was interrupted goes on where it stopped: run the same
command again. The result does not depend on --workers.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from zhbert import console, options, terminal
from zhbert.data.account import describe
from zhbert.data.prepare import ON_ERROR, PrepareProgress, prepare
from zhbert.data.read_options import DOCUMENTS
from zhbert.runtime import processors
from zhbert.text.simplify import TRADITIONAL


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``zhbert prepare``."""
    parser.add_argument("files", nargs="+", metavar="FILES", help="files or folders; - is stdin")
    parser.add_argument("--out", required=True, type=Path, help="the corpus folder to make")
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
        help="how traditional text is simplified, for finding words only (default: characters)",
    )
    parser.add_argument(
        "--documents",
        choices=DOCUMENTS,
        default="blank",
        help="in txt, what is a document: the text up to a blank line, a line, a file",
    )
    options.add_reading_arguments(parser)
    parser.add_argument(
        "--held-out",
        type=float,
        default=0.01,
        help="share of documents set aside (default 0.01; at least one, unless it is 0)",
    )
    parser.add_argument(
        "--deduplicate", action="store_true", help="drop lines that stood before in the input"
    )
    parser.add_argument(
        "--on-error",
        choices=ON_ERROR,
        default="skip",
        help="what cannot be read is skipped and counted, or stops the work (default: skip)",
    )
    parser.add_argument("--workers", type=int, help="processes (default: one for each CPU)")
    parser.add_argument(
        "--overwrite", action="store_true", help="replace a corpus that stands in OUT"
    )


def run(args: argparse.Namespace) -> int:
    """Prepare, and print the account."""
    begin = time.perf_counter()
    try:
        with progress_bar(args.quiet or args.json) as progress:
            report = prepare(
                args.files,
                args.out,
                vocab=args.vocab,
                segmenter=args.segmenter,
                segmenter_model=args.segmenter_model,
                user_words=args.user_words,
                traditional=args.traditional,
                documents=args.documents,
                field=args.field,
                encoding=args.encoding,
                held_out=args.held_out,
                deduplicate=args.deduplicate,
                on_error=args.on_error,
                workers=processors() if args.workers is None else args.workers,
                overwrite=args.overwrite,
                progress=progress,
            )
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
    """A progress bar for each stage: MB, MB/s and the time left."""
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
