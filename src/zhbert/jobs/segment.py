"""Segment text into words: print its lines with spaces between the words.

zhbert segment text.txt
zhbert segment text.txt --segmenter ltp --segmenter-model LTP/tiny
zhbert segment text.txt --segmenter jieba --against thulac  (compare the two)
zhbert segment test.txt --gold test_gold.txt                (score the words)
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert import console, options, terminal
from zhbert.errors import ZhbertError
from zhbert.text.simplify import TRADITIONAL
from zhbert.wording import counted

if TYPE_CHECKING:
    from zhbert.text.segmentation_scores import SegmentationComparison
    from zhbert.text.segmenters import Segmenter

# Longer lines are read in parts; a gold line has to be compared with a whole line.
_LONGEST_LINE = 1 << 26


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument("file", metavar="FILE", help=f"{options.FILES}; - is stdin")
    options.add_reading_arguments(parser)
    options.add_segmenter_arguments(parser)
    parser.add_argument("--traditional", choices=TRADITIONAL, default="characters")
    parser.add_argument(
        "--against",
        metavar="NAME",
        help="compare with this segmenter, which is used without --user-words",
    )
    parser.add_argument("--against-model", metavar="MODEL", help="the other segmenter's model")
    parser.add_argument(
        "--gold",
        metavar="GOLD",
        help="score the words: a file with the lines of FILE and blanks between the correct words "
        "(FILE may be GOLD itself; its blanks are removed first)",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=10,
        metavar="N",
        help="with --against or --gold: the number of differences and lines to show (10)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the lines of FILE with separated words, or a comparison of the words."""
    _check(args)
    from zhbert.data.texts import read_lines
    from zhbert.text.segmentation_scores import compare_segmenters, compare_with_gold
    from zhbert.text.segmenters import load_segmenter
    from zhbert.text.segmenters.protocol import describe_segmenter, describe_unaligned

    segmenter = load_segmenter(
        args.segmenter,
        user_words=args.user_words,
        traditional=args.traditional,
        model=args.segmenter_model,
    )
    used = [segmenter]
    if args.against is not None:
        other = load_segmenter(args.against, traditional=args.traditional, model=args.against_model)
        used.append(other)
    _say(args, [remark for one in used for remark in one.remarks])
    if args.gold is not None:
        comparison = compare_with_gold(
            _lines_for_gold(args),
            read_lines(args.gold, options.reading_of(args), _LONGEST_LINE),
            segmenter,
            names=(args.file, args.gold),
            top=args.top,
        )
        gold = {"name": "gold", "file": args.gold}
        _print(args, comparison, describe_segmenter(segmenter), gold)
    elif args.against is not None:
        lines = read_lines(args.file, options.reading_of(args))
        comparison = compare_segmenters(lines, segmenter, other, top=args.top)
        _print(args, comparison, describe_segmenter(segmenter), describe_segmenter(other))
    else:
        _print_words(args, segmenter)
    _say(args, [describe_unaligned(one.name, one.unaligned) for one in used if one.unaligned])
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.gold is not None and args.against is not None:
        raise ZhbertError("--gold and --against: one comparison at a time")
    if args.against_model is not None and args.against is None:
        raise ZhbertError("--against-model: of which segmenter? add --against NAME")
    if args.top < 0:
        raise ZhbertError(f"--top {args.top}: a number from 0 on is expected")


def _say(args: argparse.Namespace, remarks: Iterable[str]) -> None:
    for remark in () if args.quiet else remarks:
        terminal.say(remark)


def _lines_for_gold(args: argparse.Namespace) -> Iterator[list[str]]:
    """Yield the lines of FILE, without the blanks between words if FILE is GOLD itself."""
    from zhbert.data.texts import read_lines
    from zhbert.text.segmentation_scores import without_blanks

    file = Path(args.file)
    is_gold = args.file != "-" and file.exists() and file.samefile(args.gold)
    for lines in read_lines(args.file, options.reading_of(args), _LONGEST_LINE):
        yield [without_blanks(line) for line in lines] if is_gold else lines


def _print_words(args: argparse.Namespace, segmenter: Segmenter) -> None:
    from zhbert.data.texts import read_lines
    from zhbert.text.segmenters.protocol import words_of

    for lines in read_lines(args.file, options.reading_of(args)):
        for words in words_of(segmenter, lines):
            line = json.dumps(words, ensure_ascii=False) if args.json else " ".join(words)
            console.data().write(line + "\n")
        sys.stdout.flush()


# ---------------------------------------------------------------- comparisons


def _print(
    args: argparse.Namespace,
    comparison: SegmentationComparison,
    a: dict[str, Any],
    b: dict[str, Any],
) -> None:
    if args.json:
        console.print_json({"file": str(args.file), "a": a, "b": b} | comparison.as_dict())
        return
    out = console.out()
    out.print(
        f"A: {_name(a)}\nB: {_name(b)}\n{counted(comparison.lines, 'line')}; A and B differ in "
        f"{comparison.lines_different:,}",
    )
    table = console.table("", ">A", ">B", ">both", ">precision", ">recall", ">F1")
    for what, score in (("words", comparison.words), ("boundaries", comparison.boundaries)):
        counts = (score.found, score.expected, score.both)
        shares = (score.precision, score.recall, score.f1)
        table.add_row(what, *(f"{n:,}" for n in counts), *(f"{100 * s:.2f} %" for s in shares))
    out.print()
    out.print(table)
    most = [(f"{times:,}", *sides) for sides, times in comparison.most_frequent()]
    _print_differences("Most frequent differences", "times", most)
    _print_differences("First lines that differ", "line", list(_of_examples(comparison)))


def _name(side: dict[str, Any]) -> str:
    """Return a readable name of a segmenter or a gold file."""
    if "file" in side:
        return f"gold, {side['file']}"
    model = side["options"].get("model", "default")
    name = f"{side['name']} {side['version']}"
    return name if model == "default" else f"{name}, model {model}"


# A label for the difference, and the words of both sides.
_Row = tuple[str, tuple[str, ...], tuple[str, ...]]


def _of_examples(comparison: SegmentationComparison) -> Iterator[_Row]:
    for example in comparison.examples:
        label = f"{example.line:,}"
        for a, b in example.differences:
            yield label, a, b
            label = ""
        if example.more:
            yield "", (f"... {example.more:,} more",), ()


def _print_differences(title: str, heading: str, rows: list[_Row]) -> None:
    if not rows:
        return
    table = console.table(f">{heading}", "A", "B")
    for label, a, b in rows:
        table.add_row(label, " ".join(a), " ".join(b))
    console.out().print(f"\n{title}")
    console.out().print(table)
