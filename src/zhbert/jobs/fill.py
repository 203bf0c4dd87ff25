"""Fill the [MASK]s of a text.

zhbert fill "今天天气很[MASK]。"          (with zhbert-mini, the model in this package)
zhbert fill MODEL "使用语言[MASK][MASK]来预测"
zhbert fill MODEL - < lines.txt          (one text a line)
"""

from __future__ import annotations

import argparse
import dataclasses
import warnings
from typing import TYPE_CHECKING

from zhbert import console, options
from zhbert.errors import ZhbertError
from zhbert.wording import without_secrets
from zhbert.zoo.packaged import DEFAULT

if TYPE_CHECKING:
    from zhbert.inference.fill import Filled

# The number of masks side by side in a table: six fit into 80 columns.
_COLUMNS = 6


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "model", nargs="?", metavar="MODEL",
        help=f"model folder, archive, name or hub id (default: {DEFAULT})",
    )  # fmt: skip
    parser.add_argument("text", metavar="TEXT", help="text with [MASK]s; - reads lines from stdin")
    parser.add_argument(
        "--top-k", type=int, default=5, metavar="K", help="candidates for each mask (default 5)"
    )
    options.add_engine(parser)
    options.add_reading_arguments(parser)
    options.take_positionals_anywhere(parser)


def _check_alone(text: str) -> None:
    """Raise ZhbertError if the only argument has no [MASK]: it may be a model or a file name."""
    from zhbert.inference.fill import no_mask
    from zhbert.zoo.origin import origin_of

    if text == "-" or "[MASK]" in text:
        return
    try:
        origin_of(text)
    except ZhbertError:
        raise no_mask(text) from None
    shown = without_secrets(text)
    raise ZhbertError(
        f'{shown}: not a text with [MASK]; of a model: zhbert fill {shown} "今天天气很[MASK]。"; '
        f"of a file with lines of text: zhbert fill - < {shown}"
    )


def run(args: argparse.Namespace) -> int:
    """Fill the text or the lines of stdin and print the candidates."""
    from zhbert.inference.fill import fill_stream, open_mask_filler

    if args.top_k < 1:
        raise ZhbertError(f"--top-k {args.top_k}: must be 1 or more")
    name, quiet = args.model, args.quiet or args.json
    if name is None:
        _check_alone(args.text)
        name = DEFAULT
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        model, tokenizer = open_mask_filler(name, engine=args.engine, quiet=quiet)
    if not quiet:
        other = f"filled by {name}; by another model: zhbert fill MODEL TEXT"
        console.err().print(f"{name}: {model.loading.summary}" if args.model else other)
    for warning in caught:
        # Not silenced by --quiet: an untrained head fills masks with noise.
        console.err().print(f"WARNING: {warning.message}", style="bold red")
    from_stdin = args.text == "-"
    lines = iter([("", args.text)])
    if from_stdin:
        lines = options.lines_of_stdin(options.reading_of(args))
    results = []
    for one in fill_stream(model, tokenizer, lines, top_k=args.top_k):
        if args.json:
            head = {"mask_filling_head": model.loading.masked_words_head}
            results.append({"model": without_secrets(name), **head, **dataclasses.asdict(one)})
        else:
            _print_result(one, tokenizer.special_tokens["mask_token"], args.quiet)
    if args.json:
        console.print_json(results if from_stdin else results[0])
    return 0


def _print_result(result: Filled, mask: str, quiet: bool) -> None:
    console.out().print(result.filled)
    if quiet:
        return
    for first in range(0, len(result.masks), _COLUMNS):
        masks = result.masks[first : first + _COLUMNS]
        numbers = range(first + 1, first + len(masks) + 1)
        several = len(result.masks) > 1
        table = console.table(*(f"{mask} {number}" if several else mask for number in numbers))
        for rank in range(len(masks[0].candidates)):
            best = [one.candidates[rank] for one in masks]
            table.add_row(*(f"{one.piece} {one.probability:.1%}" for one in best))
        console.out().print(table)
