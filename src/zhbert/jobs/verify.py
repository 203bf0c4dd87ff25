"""Do two models compute the same? The same input through both, layer by layer.

zhbert verify chinese_L-12_H-768_A-12 converted/
zhbert verify runs/tiny/final runs/tiny/final --with transformers
zhbert verify A B --texts sentences.txt --tolerance 1e-3

A and B are model folders of any format, archives or names. Heads that one of
them lacks are left out. Exit code 0: the same model; 1: not the same; 2: they
cannot be compared.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.files import read_text
from zhbert.model.folder import tokenizer_beside

if TYPE_CHECKING:
    from zhbert.export.parity import Parity


@dataclass(frozen=True)
class Verdict:
    """What was compared and what came of it."""

    parity: Parity
    config: list[str]  # named differences
    vocabulary: list[str]
    same_pieces: bool  # as far as both have a vocabulary
    tolerance: float

    @property
    def same(self) -> bool:
        """The same numbers, within the tolerance, and no other pieces for them."""
        return self.parity.same(self.tolerance) and self.same_pieces


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the two models and what they are compared on."""
    parser.add_argument("one", metavar="A", help="a model: folder, archive or name")
    parser.add_argument("other", metavar="B", help="the model to compare it with")
    parser.add_argument(
        "--texts", type=Path, metavar="FILE",
        help="compare on these lines (default: built-in sentences, and random pieces)",
    )  # fmt: skip
    parser.add_argument(
        "--tolerance", type=float, metavar="X",
        help="how far apart is still the same, as a share of an output's largest number "
        "or of 1 (2e-6; with transformers 2e-5)",
    )  # fmt: skip
    parser.add_argument(
        "--with", dest="runner", choices=("zhbert", "transformers"), default="zhbert",
        help="what runs B: zhbert (default), or the transformers library",
    )  # fmt: skip


def verify(
    one: str | Path,
    other: str | Path,
    *,
    runner: str = "zhbert",
    texts: Path | None = None,
    tolerance: float | None = None,
    quiet: bool = True,
) -> Verdict:
    """Compare two models.

    Raises:
        ZhbertError: one of them does not open, or their shapes differ.
    """
    from zhbert.export import parity
    from zhbert.model.config import BertConfig
    from zhbert.zoo import locate
    from zhbert.zoo.layout import find_model

    open_other, usual = parity.RUNNERS[runner]
    tolerance = usual if tolerance is None else tolerance
    if not tolerance >= 0:
        raise ZhbertError(f"--tolerance {tolerance}: must be 0 or more")
    lines = None if texts is None else _lines(texts)
    # Fetched once, with its progress, where a name stands for something far away.
    one, other = locate(one, quiet=quiet), locate(other, quiet=quiet)
    configs = BertConfig.from_pretrained(one), BertConfig.from_pretrained(other)
    parity.check_shapes(*configs)
    tokenizers = tokenizer_beside(find_model(one)), tokenizer_beside(find_model(other))
    inputs = parity.batches(configs[0], tokenizers[0], lines)
    found = parity.compare(parity.zhbert_runner(one), open_other(other), inputs)
    return Verdict(
        found,
        parity.config_differences(*configs),
        parity.vocabulary_differences(*tokenizers),
        parity.same_pieces(*tokenizers),
        tolerance,
    )


def _lines(path: Path) -> list[str]:
    lines = [line for line in read_text(path).split("\n") if line.strip()]
    if not lines:
        raise ZhbertError(f"{path}: no text; give one text a line")
    return lines


def run(args: argparse.Namespace) -> int:
    """Compare, print, and answer by the exit code."""
    from zhbert import console

    verdict = verify(
        args.one,
        args.other,
        runner=args.runner,
        texts=args.texts,
        tolerance=args.tolerance,
        quiet=args.quiet,
    )
    if args.json:
        console.print_json(describe(verdict))
    else:
        _print(verdict, args.quiet)
    return 0 if verdict.same else 1


def describe(verdict: Verdict) -> dict[str, Any]:
    """The verdict for ``--json``."""
    parity = verdict.parity
    return {
        "same": verdict.same,
        "largest_difference": parity.largest_difference,
        "tolerance": verdict.tolerance,
        "differences": {name: d.largest for name, d in parity.differences.items()},
        "relative_differences": {name: d.relative for name, d in parity.differences.items()},
        "left_out": {"only in A": parity.only_first, "only in B": parity.only_second},
        "config": verdict.config,
        "vocabulary": verdict.vocabulary,
    }


def _print(verdict: Verdict, quiet: bool) -> None:
    from rich.text import Text

    from zhbert import console

    out = console.out()
    if not quiet:
        table = console.table("=output", ">difference", ">of its largest", "")
        for name, difference in verdict.parity.differences.items():
            fine = difference.within(verdict.tolerance)
            table.add_row(
                name,
                f"{difference.largest:.2g}",
                f"{difference.relative:.2g}",
                "" if fine else Text("too large", "bold red"),
            )
        out.print(table)
        for line in _remarks(verdict):
            out.print(line, soft_wrap=False)
    out.print(_conclusion(verdict), style="green" if verdict.same else "bold red", soft_wrap=False)


def _remarks(verdict: Verdict) -> Iterator[str]:
    parity = verdict.parity
    for side, names in (("A", parity.only_first), ("B", parity.only_second)):
        if names:
            yield f"left out, only in {side}: {', '.join(names)}"
    for difference in verdict.config:
        yield f"config: {difference}"
    for difference in verdict.vocabulary:
        yield f"vocabulary: {difference}"


def _conclusion(verdict: Verdict) -> str:
    largest = verdict.parity.largest_difference
    if verdict.same:
        if largest == 0:
            return "the same model: exactly the same numbers"
        return f"the same model: largest difference {largest:.2g}"
    if verdict.parity.same(verdict.tolerance):
        return "not the same model: the numbers agree, the vocabularies do not"
    differences = verdict.parity.differences.items()
    first = next(name for name, d in differences if not d.within(verdict.tolerance))
    return f"not the same model: largest difference {largest:.2g}, beginning at {first}"
