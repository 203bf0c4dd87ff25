"""Cut text into words: the text's lines come out with spaces between the words.

zhbert segment text.txt
zhbert segment text.txt --segmenter ltp --segmenter-model LTP/tiny
zhbert segment text.txt --segmenter jieba --against thulac  (where they differ)
zhbert segment test.txt --gold test_gold.txt                (how good they are)
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from zhbert import console, options
from zhbert.data.texts import read_lines
from zhbert.errors import ZhbertError
from zhbert.text.segmentation_scores import Difference, SegmentationComparison, without_blanks
from zhbert.text.segmenters import SEGMENTERS, Segmenter, load_segmenter
from zhbert.text.segmenters.protocol import describe_unaligned
from zhbert.text.simplify import TRADITIONAL
from zhbert.wording import counted

# A line with its ends, and the other side's line with its own.
Pair = tuple[str, Any, str, Any]
# A gold line must meet the whole of its own line: only beyond this are lines taken in parts.
_LONGEST_LINE = 1 << 26
# Differences of one line that are shown: a line may be a megabyte.
_OF_A_LINE = 5


class Example(NamedTuple):
    """A line that the two sides cut differently: its first differences, and how many follow."""

    line: int
    differences: list[Difference]
    more: int


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``zhbert segment``."""
    parser.add_argument("file", metavar="FILE", help=f"{options.FILES}; - is stdin")
    options.add_reading_arguments(parser)
    parser.add_argument("--segmenter", default="jieba", help=" | ".join(SEGMENTERS))
    parser.add_argument(
        "--segmenter-model",
        metavar="MODEL",
        help="ltp, pkuseg, thulac, hanlp: a model's file or folder, or a name the library knows",
    )
    parser.add_argument(
        "--user-words",
        type=Path,
        help="a user dictionary, a word a line: jieba's (word frequency tag), pkuseg's (word, tab, "
        "tag) or words alone; for --segmenter, not for --against",
    )
    parser.add_argument("--traditional", choices=TRADITIONAL, default="characters")
    parser.add_argument(
        "--against", metavar="NAME", help="show where this other segmenter cuts differently"
    )
    parser.add_argument("--against-model", metavar="MODEL", help="the other segmenter's model")
    parser.add_argument(
        "--gold",
        metavar="GOLD",
        help="score the words: the same lines as FILE's with blanks between the right words (FILE "
        "may be GOLD itself: its blanks are taken out first)",
    )
    parser.add_argument(
        "--top",
        type=int,
        default=10,
        metavar="N",
        help="with --against or --gold: how many differences and lines to show (10)",
    )


def run(args: argparse.Namespace) -> int:
    """Print the lines of FILE, words apart, or how the words compare with others."""
    _check(args)
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
    for remark in (remark for one in used for remark in one.remarks):
        _remark(args, remark)
    if args.gold is not None:
        _compare(args, segmenter, None, _with_gold(args, segmenter))
    elif args.against is not None:
        _compare(args, segmenter, other, _with_other(args, segmenter, other))
    else:
        for lines in read_lines(args.file, options.reading_of(args)):
            for words in cut_lines(segmenter, lines):
                line = json.dumps(words, ensure_ascii=False) if args.json else " ".join(words)
                console.data().write(line + "\n")
            sys.stdout.flush()
    for one in used:
        if one.unaligned:
            _remark(args, describe_unaligned(one.name, one.unaligned))
    return 0


def _check(args: argparse.Namespace) -> None:
    if args.gold is not None and args.against is not None:
        raise ZhbertError("--gold and --against: one comparison at a time")
    if args.against_model is not None and args.against is None:
        raise ZhbertError("--against-model: of which segmenter? add --against NAME")
    if args.top < 0:
        raise ZhbertError(f"--top {args.top}: a number from 0 on is expected")


def _remark(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        console.err().print(text)


def cut_lines(segmenter: Segmenter, lines: Iterable[str]) -> Iterator[list[str]]:
    """Each line's words, without the blanks between them."""
    texts = list(lines)
    for text, ends in zip(texts, segmenter.segment(texts), strict=True):
        words = (text[a:b].strip() for a, b in pairwise([0, *ends.tolist()]))
        yield [word for word in words if word]


# ---------------------------------------------------------------- comparisons


def _with_other(args: argparse.Namespace, segmenter: Segmenter, other: Segmenter) -> Iterator[Pair]:
    """The lines of FILE as both segmenters cut them."""
    for lines in read_lines(args.file, options.reading_of(args)):
        sides = segmenter.segment(lines), other.segment(lines)
        for line, found, expected in zip(lines, *sides, strict=True):
            yield line, found, line, expected


def _with_gold(args: argparse.Namespace, segmenter: Segmenter) -> Iterator[Pair]:
    """The lines of FILE as the segmenter cuts them, and as GOLD does."""
    same = args.file != "-" and Path(args.file).exists() and Path(args.file).samefile(args.gold)
    prepare: Callable[[str], str] = without_blanks if same else str
    right = load_segmenter("whitespace")
    reading = options.reading_of(args)
    gold = (line for lines in read_lines(args.gold, reading, _LONGEST_LINE) for line in lines)
    number = 0
    for raw in read_lines(args.file, reading, _LONGEST_LINE):
        lines = [prepare(line) for line in raw]
        for line, found in zip(lines, segmenter.segment(lines), strict=True):
            number += 1
            expected = next(gold, "")
            _must_be_one_text(args, number, line, expected)
            yield line, found, expected, right.segment([expected])[0]
    for expected in gold:
        number += 1
        _must_be_one_text(args, number, "", expected)


def _must_be_one_text(args: argparse.Namespace, number: int, line: str, gold: str) -> None:
    text, expected = without_blanks(line), without_blanks(gold)
    if text == expected:
        return
    at = next(
        (k for k, (a, b) in enumerate(zip(text, expected, strict=False)) if a != b),
        min(len(text), len(expected)),
    )
    start = max(0, at - 5)
    raise ZhbertError(
        f"{args.gold}:{number}: not the text of {args.file}: '{expected[start : at + 10]}' here, "
        f"'{text[start : at + 10]}' there; the two must have the same lines but for blanks"
    )


def _compare(
    args: argparse.Namespace, segmenter: Segmenter, other: Segmenter | None, pairs: Iterator[Pair]
) -> None:
    comparison = SegmentationComparison()
    shown: list[Example] = []
    for text, found, other_text, expected in pairs:
        differences = comparison.add(text, found, other_text, expected)
        if differences and len(shown) < args.top:
            first, more = differences[:_OF_A_LINE], max(0, len(differences) - _OF_A_LINE)
            shown.append(Example(comparison.lines, first, more))
    frequent = comparison.most_frequent(args.top)
    if args.json:
        console.print_json(
            {
                "file": str(args.file),
                "a": _described(segmenter),
                "b": {"name": "gold", "file": args.gold} if other is None else _described(other),
                "lines": comparison.lines,
                "lines_different": comparison.lines_different,
                "words": comparison.words.as_dict(),
                "boundaries": comparison.boundaries.as_dict(),
                "differences": [
                    {"count": count, "a": list(a), "b": list(b)} for (a, b), count in frequent
                ],
                "examples": [
                    {
                        "line": example.line,
                        "differences": [
                            {"a": list(a), "b": list(b)} for a, b in example.differences
                        ],
                        "more": example.more,
                    }
                    for example in shown
                ],
            }
        )
        return
    name = f"gold, {args.gold}" if other is None else _name(other)
    _print(comparison, _name(segmenter), name, frequent, shown)


def _described(segmenter: Segmenter) -> dict[str, Any]:
    return {
        "name": segmenter.name,
        "version": segmenter.version,
        "options": segmenter.options,
    }


def _name(segmenter: Segmenter) -> str:
    model = segmenter.options.get("model", "default")
    name = f"{segmenter.name} {segmenter.version}"
    return name if model == "default" else f"{name}, model {model}"


def _print(
    comparison: SegmentationComparison,
    a: str,
    b: str,
    frequent: list[tuple[Difference, int]],
    shown: list[Example],
) -> None:
    out = console.out()
    different = comparison.lines_different
    out.print(
        f"A: {a}\nB: {b}\n{counted(comparison.lines, 'line')}; A and B differ in {different:,}",
    )
    scores = console.table("", ">A", ">B", ">both", ">precision", ">recall", ">F1")
    for what, score in (("words", comparison.words), ("boundaries", comparison.boundaries)):
        counts = (score.found, score.expected, score.both)
        shares = (score.precision, score.recall, score.f1)
        scores.add_row(what, *(f"{n:,}" for n in counts), *(f"{100 * s:.2f} %" for s in shares))
    out.print()
    out.print(scores)
    most = [(f"{times:,}", a, b) for (a, b), times in frequent]
    first = []
    for example in shown:
        labels = [f"{example.line:,}"] + [""] * len(example.differences)
        first += [
            (label, *sides) for label, sides in zip(labels, example.differences, strict=False)
        ]
        if example.more:
            first.append(("", (f"... {example.more:,} more",), ()))
    for title, heading, stretches in (
        ("Most frequent differences", "times", most),
        ("First lines that differ", "line", first),
    ):
        if not stretches:
            continue
        table = console.table(f">{heading}", "A", "B")
        for label, *sides in stretches:
            table.add_row(label, *(" ".join(words) for words in sides))
        out.print(f"\n{title}")
        out.print(table)
