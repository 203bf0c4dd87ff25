"""Cut text into words: the text's lines come out with spaces between the words."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path

from zhbert.data.documents import read_lines
from zhbert.jobs import console
from zhbert.text.segment import SEGMENTERS, TRADITIONAL, Segmenter, load_segmenter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of ``zhbert segment``."""
    parser.add_argument("file", metavar="FILE", help="a text file (.gz, ... too); - is stdin")
    parser.add_argument("--segmenter", default="jieba", help=" | ".join(SEGMENTERS))
    parser.add_argument(
        "--user-words", type=Path, help="one word a line, perhaps with frequency and tag"
    )
    parser.add_argument("--traditional", choices=TRADITIONAL, default="characters")


def run(args: argparse.Namespace) -> int:
    """Print the lines of FILE, words apart; with --json each line is a list of words."""
    segmenter = load_segmenter(
        args.segmenter, user_words=args.user_words, traditional=args.traditional
    )
    for remark in getattr(segmenter, "remarks", []):
        if not args.quiet:
            console.err().print(remark, markup=False)
    broken = 0
    for lines, bad in read_lines(args.file):
        broken += bad
        for words in cut_lines(segmenter, lines):
            line = json.dumps(words, ensure_ascii=False) if args.json else " ".join(words)
            sys.stdout.write(line + "\n")
        sys.stdout.flush()
    if broken and not args.quiet:
        console.err().print(
            f"{args.file}: {broken:,} lines are not UTF-8; what is wrong in them became �",
            markup=False,
        )
    return 0


def cut_lines(segmenter: Segmenter, lines: Iterable[str]) -> Iterator[list[str]]:
    """Each line's words, without the blanks between them."""
    texts = list(lines)
    for text, ends in zip(texts, segmenter.segment(texts), strict=True):
        words = (text[a:b].strip() for a, b in pairwise([0, *ends.tolist()]))
        yield [word for word in words if word]
