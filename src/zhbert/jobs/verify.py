"""Check that two models compute the same, layer by layer.

zhbert verify chinese_L-12_H-768_A-12 converted/
zhbert verify runs/tiny/final runs/tiny/final --with transformers
zhbert verify runs/lcqmc/seed-0/final lcqmc-onnx
zhbert verify A B --texts sentences.txt --tolerance 1e-3

A and B are model folders of any format, archives or names. Heads that only one
of them has are left out. The exit code is 0 if the models are the same, 1 if
they differ, and 2 if they cannot be compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.export import PROGRAMS
from zhbert.options import call

if TYPE_CHECKING:
    from zhbert.export.parity import ModelComparison


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("one", metavar="A", help="a model: folder, archive or name")
    parser.add_argument("other", metavar="B", help="the model to compare it with")
    parser.add_argument(
        "--texts", type=Path, metavar="FILE",
        help="compare on these lines (default: built-in sentences, and random pieces)",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=float, metavar="X",
        help="the largest accepted difference, as a share of an output's largest number "
        "or of 1 (default 2e-6; with transformers 2e-5; with onnxruntime 1e-4, float16 2e-2, "
        "int8 0.25)",
    )  # fmt: skip
    parser.add_argument(
        "--with", dest="runner", choices=PROGRAMS,
        help="the library that runs B: zhbert (default), transformers, or onnxruntime (default "
        "for a folder with nothing but an ONNX graph)",
    )  # fmt: skip


def run(args: argparse.Namespace) -> int:
    """Compare the models, print the result and return it as the exit code."""
    from zhbert import console
    from zhbert.export.parity import compare_models

    found = call(compare_models, args)
    if args.json:
        console.print_json(describe(found))
    else:
        _print(found, args.quiet)
    return 0 if found.same else 1


def describe(found: ModelComparison) -> dict[str, Any]:
    """Return the comparison as plain data, for ``--json``."""
    parity = found.parity
    return {
        "same": found.same,
        "largest_difference": parity.largest_difference,
        "tolerance": found.tolerance,
        "differences": {name: d.largest for name, d in parity.differences.items()},
        "relative_differences": {name: d.relative for name, d in parity.differences.items()},
        "left_out": {"only in A": parity.only_first, "only in B": parity.only_second},
        "config": found.config,
        "vocabulary": found.vocabulary,
    }


def _print(found: ModelComparison, quiet: bool) -> None:
    from rich.text import Text

    from zhbert import console

    out = console.out()
    if not quiet:
        table = console.table("=output", ">difference", ">of its largest", "")
        for name, difference in found.parity.differences.items():
            fine = difference.within(found.tolerance)
            table.add_row(
                name,
                f"{difference.largest:.2g}",
                f"{difference.relative:.2g}",
                "" if fine else Text("too large", "bold red"),
            )
        out.print(table)
        for line in _remarks(found):
            out.print(line, soft_wrap=False)
    out.print(_conclusion(found), style="green" if found.same else "bold red", soft_wrap=False)


def _remarks(found: ModelComparison) -> Iterator[str]:
    parity = found.parity
    for side, names in (("A", parity.only_first), ("B", parity.only_second)):
        if names:
            yield f"left out, only in {side}: {', '.join(names)}"
    for difference in found.config:
        yield f"config: {difference}"
    for difference in found.vocabulary:
        yield f"vocabulary: {difference}"


def _conclusion(found: ModelComparison) -> str:
    largest = found.parity.largest_difference
    if found.same:
        if largest == 0:
            return "the same model: exactly the same numbers"
        return f"the same model: largest difference {largest:.2g}"
    if found.parity.same(found.tolerance):
        return "not the same model: the numbers agree, the vocabularies do not"
    differences = found.parity.differences.items()
    first = next(name for name, d in differences if not d.within(found.tolerance))
    return f"not the same model: largest difference {largest:.2g}, beginning at {first}"
