"""Convert a model to another format: safetensors, PyTorch's pickle or TensorFlow.

zhbert convert chinese_roberta_wwm_ext_L-12_H-768_A-12.zip rwx --to safetensors
zhbert convert runs/tiny/final tiny-tf --to tensorflow
zhbert convert rbt3 rbt3-half --to safetensors --dtype float16

SRC is a folder, an archive of one, or a name ('zhbert models'). Values are kept
bit for bit, unless --dtype is given. If a model was trained on masked words
only, its pooler and its sentence-pair head still have their random initial
values; --drop-untrained-heads leaves such heads out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from zhbert.export import DTYPES, FORMATS
from zhbert.wording import counted, listed, without_secrets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("source", metavar="SRC", help="a model: folder, archive or name")
    parser.add_argument("out", metavar="DST", type=Path, help="the folder to write")
    parser.add_argument("--to", required=True, choices=FORMATS, help="the format to write")
    parser.add_argument(
        "--dtype", choices=DTYPES, help="the type of the tensors (default: as in SRC)"
    )
    parser.add_argument(
        "--drop-untrained-heads", action="store_true",
        help="leave out heads that still have random initial weights (see zhbert inspect)",
    )  # fmt: skip
    parser.add_argument(
        "--max-shard-size", metavar="SIZE",
        help="safetensors: split the file into parts of at most SIZE, such as 500MB or 2GB",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a model in DST")


def run(args: argparse.Namespace) -> int:
    """Convert the model and print a line on what was written."""
    from zhbert import console
    from zhbert.export.convert import convert

    with console.progress(args.quiet or args.json) as progress:
        task = progress.add_task("converting", total=None)
        report = convert(
            args.source,
            args.out,
            args.to,
            dtype=args.dtype,
            drop_untrained_heads=args.drop_untrained_heads,
            max_shard_size=args.max_shard_size,
            overwrite=args.overwrite,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
            quiet=args.quiet,
        )
    if args.json:
        console.print_json(report)
    else:
        _print(report, without_secrets(args.source), args.quiet)
    return 0


def _print(report: dict[str, Any], source: str, quiet: bool) -> None:
    from zhbert.console import err, out

    if not quiet:
        if report["unknown"]:
            err().print(f"not BERT's, kept as they are: {listed(report['unknown'])}")
        if report["dropped"]:
            err().print(f"never trained, left out: {listed(report['dropped'])}")
        if report["vocabulary"] is None:
            err().print(f"{source}: no vocabulary, so none was written")
    skipped = f"; {len(report['skipped'])} skipped (no weights)" if report["skipped"] else ""
    out().print(
        f"{report['folder']}: {report['format']}, {report['architecture']}, {report['dtype']}, "
        f"{counted(report['tensors'], 'tensor')}, {report['bytes']:,} bytes{skipped}",
    )
