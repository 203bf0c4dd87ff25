"""Convert a model to another format: safetensors, PyTorch, TensorFlow, Paddle or ONNX.

zhbert convert chinese_roberta_wwm_ext_L-12_H-768_A-12.zip rwx --to safetensors
zhbert convert runs/tiny/final tiny-tf --to tensorflow
zhbert convert rbt3 rbt3-half --to safetensors --dtype float16
zhbert convert runs/tiny/final tiny-paddle --to paddle
zhbert convert runs/ocnli/final ocnli-onnx --to onnx --precision int8

SRC is a folder, an archive of one, or a name ('zhbert models'). Values are kept
bit for bit, unless --dtype is given. If a model was trained on masked words
only, its pooler and its sentence-pair head still have their random initial
values; --drop-untrained-heads leaves such heads out.

PaddleNLP's BertModel, BertForMaskedLM, ... and BertTokenizer.from_pretrained
open a folder for Paddle; so does paddlehub.Module(directory=DST).

An ONNX graph is compared with the model on 200 rows before it is kept
(docs/onnx.md).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.export import DTYPES, FORMATS, ONNX_OPSETS
from zhbert.model.onnx_files import GRAPHS, TASKS
from zhbert.wording import counted, listed, without_secrets


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("source", metavar="SRC", help="a model: folder, archive or name")
    parser.add_argument("out", metavar="DST", type=Path, help="the folder to write")
    parser.add_argument(
        "--to", required=True, choices=(*FORMATS, "onnx"),
        help="the format to write",
    )  # fmt: skip
    parser.add_argument(
        "--dtype", choices=DTYPES, help="the type of the tensors (default: as in SRC)"
    )
    parser.add_argument(
        "--drop-untrained-heads", action="store_true",
        help="leave out heads that still have random initial weights (see zhbert inspect)",
    )  # fmt: skip
    parser.add_argument(
        "--max-shard-size", metavar="SIZE",
        help="safetensors, paddle: split the file into parts of at most SIZE, such as 500MB or 2GB",
    )  # fmt: skip
    parser.add_argument(
        "--task", choices=TASKS,
        help="onnx: what the graph computes (default: what SRC was trained for)",
    )  # fmt: skip
    parser.add_argument(
        "--precision", choices=GRAPHS, help="onnx: the type of the weights (default float32)"
    )
    parser.add_argument(
        "--opset", type=int, metavar="N",
        help=f"onnx: the version of its operations, {ONNX_OPSETS[0]} (default) to "
        f"{ONNX_OPSETS[-1]}",
    )  # fmt: skip
    parser.add_argument("--overwrite", action="store_true", help="replace a model in DST")


def run(args: argparse.Namespace) -> int:
    """Convert the model and print a line on what was written."""
    from zhbert import console

    _check_options(args)
    with console.progress(args.quiet or args.json) as progress:
        task = progress.add_task("converting", total=None)
        report = _converted(
            args, lambda done, total: progress.update(task, completed=done, total=total)
        )
    if args.json:
        console.print_json(report)
    elif args.to == "onnx":
        _print_onnx(report)
    else:
        _print(report, without_secrets(args.source), args.quiet)
    return 0


_OF_ONNX = ("task", "precision", "opset")
_OF_OTHERS = ("dtype", "drop_untrained_heads", "max_shard_size")


def _check_options(args: argparse.Namespace) -> None:
    for name in _OF_OTHERS if args.to == "onnx" else _OF_ONNX:
        if getattr(args, name) not in (None, False):
            option = "--" + name.replace("_", "-")
            formats = "other formats than" if args.to == "onnx" else "the format"
            raise ZhbertError(f"{option}: only for {formats} onnx; leave it out")


def _converted(args: argparse.Namespace, progress: Callable[[int, int], object]) -> dict[str, Any]:
    common = {"overwrite": args.overwrite, "progress": progress, "quiet": args.quiet}
    if args.to == "onnx":
        from zhbert.export.onnx import export_onnx

        chosen = {name: value for name in _OF_ONNX if (value := getattr(args, name)) is not None}
        return export_onnx(args.source, args.out, **chosen, **common)
    from zhbert.export.convert import convert

    chosen = {name: getattr(args, name) for name in _OF_OTHERS}
    return convert(args.source, args.out, args.to, **chosen, **common)


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


def _print_onnx(report: dict[str, Any]) -> None:
    from zhbert.console import out

    out().print(
        f"{report['folder']}: {report['file']}, {report['task']} ({report['architecture']}), "
        f"{report['precision']}, opset {report['opset']}, {report['bytes']:,} bytes"
    )
    for name, one in report["outputs"].items():
        labels = one["equal_labels"]
        out().print(
            f"{name}: at most {one['largest_difference']:.2g} from the model on {report['rows']} "
            f"rows, {one['relative_difference']:.1g} of its largest number"
            + ("" if labels is None else f"; {100 * labels:.1f} % equal labels")
        )
