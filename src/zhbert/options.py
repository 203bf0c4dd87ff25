"""Command-line options that several verbs share, and reading the text that they select."""

from __future__ import annotations

import argparse
import inspect
import os
import shlex
import sys
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zhbert import console, terminal
from zhbert.errors import ZhbertError
from zhbert.runtime import launched_rank
from zhbert.wording import without_secrets

if TYPE_CHECKING:
    from zhbert.data.read_options import ReadOptions
    from zhbert.data.sources import Source
    from zhbert.data.texts import Advance
    from zhbert.pretraining.result import PretrainingResult

_Result = TypeVar("_Result")

FILES = "text, jsonl, csv, tsv, parquet, WikiExtractor's or SogouCS' articles, compressed or not"


def call(
    function: Callable[..., _Result],
    args: argparse.Namespace,
    *,
    but: Collection[str] = (),
    **others: Any,
) -> _Result:
    """Call a function with a verb's arguments, by name, and with ``others``, which go before them.

    Every argument must be a parameter of the function, so that none is forgotten, except --quiet,
    --json and those that ``but`` names.

    >>> def repeat(text, times, mark=""):
    ...     return text * times + mark
    >>> call(repeat, argparse.Namespace(text="ha", times=2, json=False), mark="!")
    'haha!'
    """
    given = vars(args) | others
    taken = given.keys() & inspect.signature(function).parameters.keys()
    forgotten = given.keys() - taken - {"quiet", "json", *but}
    assert not forgotten, forgotten
    return function(**{name: given[name] for name in taken})


def add_reading_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --field and --encoding."""
    parser.add_argument(
        "--field",
        metavar="NAME",
        help="the field or column with the text in JSON, csv, tsv and parquet (default text), or "
        "the number of the column, from 1, in a table without a header",
    )
    parser.add_argument(
        "--encoding",
        metavar="NAME",
        help="the encoding of text without a byte order mark: gb18030, gbk, big5, utf-16, ... "
        "(default utf-8)",
    )


def add_segmenter_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare --segmenter, --segmenter-model and --user-words."""
    # Imported late, here and below, so that --help stays fast.
    from zhbert.text.segmenters import SEGMENTERS

    parser.add_argument(
        "--segmenter",
        default="jieba",
        metavar="NAME",
        help=f"the word segmenter: {', '.join(SEGMENTERS)} (default jieba; whitespace: segmented "
        "text)",
    )
    parser.add_argument(
        "--segmenter-model",
        metavar="MODEL",
        help="for ltp, pkuseg, thulac, hanlp: a model's file or folder, or its name in the library",
    )
    parser.add_argument(
        "--user-words",
        type=Path,
        metavar="FILE",
        help="a user dictionary, one word a line: in jieba's form (word frequency tag), pkuseg's "
        "(word, tab, tag) or words alone",
    )


def reading_of(args: argparse.Namespace) -> ReadOptions:
    """Return the values of --field and --encoding as options for reading."""
    from zhbert.data.read_options import ReadOptions

    return ReadOptions(field=args.field, encoding=args.encoding)


@contextmanager
def progress(sources: Sequence[Source], doing: str, quiet: bool) -> Iterator[Advance]:
    """Show a progress bar over the bytes of some files."""
    with console.progress(quiet) as bar:
        task = bar.add_task(doing, total=sum(source.size for source in sources))

        def advance(source: Source, read: int) -> None:
            bar.update(task, advance=read, description=f"{doing} {Path(source.name).name}")

        yield advance


@dataclass(frozen=True)
class Texts:
    """The text of files and folders, in parts of whole lines, read with a progress bar.

    ``option`` names the command-line option of the files if they are read twice, which excludes
    stdin.
    """

    files: Sequence[str | Path]
    reading: ReadOptions
    quiet: bool
    option: str | None = None

    def __post_init__(self) -> None:
        if self.option is not None and "-" in map(str, self.files):
            raise ZhbertError(f"{self.option} reads its text twice: write stdin to a file first")

    def __iter__(self) -> Iterator[str]:
        from zhbert.data.texts import read_texts

        sources = find(self.files)
        with progress(sources, "reading", self.quiet) as advance:
            yield from read_texts(sources, self.reading, advance)


def find(files: Sequence[str | Path]) -> Sequence[Source]:
    """Return the files to read; print which files of a folder are left out."""
    from zhbert.data.sources import find_sources

    sources = find_sources(files)
    if left_out := sources.describe_left_out():
        terminal.say(left_out)
    return sources


def lines_of_stdin(reading: ReadOptions) -> Iterator[tuple[str, str]]:
    """Yield each non-blank line of stdin after a prefix for errors, such as "stdin, line 3: "."""
    from zhbert.data.texts import read_lines

    number = 0
    found = False
    for lines in read_lines("-", reading, longest=1 << 26):
        for line in lines:
            number += 1
            if line.strip():
                found = True
                yield f"stdin, line {number}: ", line
    if not found:
        raise ZhbertError("stdin: no text; give one text a line")


def take_positionals_anywhere(parser: argparse.ArgumentParser) -> None:
    """Accept positional arguments before, between and after the options.

    By default, argparse assigns optional positional arguments only from the first group of them.
    """
    parser.parse_args = parser.parse_intermixed_args  # type: ignore[method-assign]


def add_engine(parser: argparse.ArgumentParser) -> None:
    """Declare --engine."""
    parser.add_argument(
        "--engine",
        choices=("torch", "onnx"),
        help="what computes: torch, or onnx: ONNX Runtime, on the CPU, with the graph in MODEL's "
        "folder onnx (default: torch, or onnx if MODEL has nothing but a graph)",
    )


def add_precision(parser: argparse.ArgumentParser, *, int8: bool = False) -> None:
    """Declare --precision; ``int8``: with weights of 8 bits as a choice."""
    more = "; int8, weights of 8 bits, still more, on CPUs with AVX512_VNNI" if int8 else ""
    parser.add_argument(
        "--precision",
        choices=("fp32", "bf16", "int8") if int8 else ("fp32", "bf16"),
        default="fp32",
        help=f"bf16 rounds more, and is faster if the hardware supports it{more} (default: fp32)",
    )


def add_split(parser: argparse.ArgumentParser, file: str) -> None:
    """Declare --split."""
    parser.add_argument(
        "--split",
        metavar="NAME",
        help=f"the split that {file} contains, if its name does not tell (default dev); matters if "
        "one file contains all splits, and for the remark on partial splits",
    )


def add_encoding(parser: argparse.ArgumentParser, file: str) -> None:
    """Declare --encoding."""
    parser.add_argument(
        "--encoding",
        metavar="NAME",
        help=f"the encoding of {file} if it is not UTF-8: gb18030, big5, utf-16, ...",
    )


def add_table_arguments(parser: argparse.ArgumentParser, file: str) -> None:
    """Declare --field and --encoding of tables of texts."""
    add_encoding(parser, file)
    parser.add_argument(
        "--field",
        metavar="NAME",
        help="the column of the texts (default text), or its number, from 1, in a table without a "
        "header",
    )


@contextmanager
def text_progress(quiet: bool) -> Iterator[Callable[[str, int, int | None], None]]:
    """Show a progress bar over texts, with the rate and the time left.

    Yields a callback that takes what is done ("encoding"), the number of texts that are done, and
    of all texts, if known.
    """
    with console.progress(quiet) as bar:
        task = bar.add_task("reading", total=None)
        now, first, begun = "", 0, 0.0

        def update(doing: str, done: int, total: int | None) -> None:
            nonlocal now, first, begun
            if doing != now:
                # Texts that an interrupted run had done do not count for the rate.
                now, first, begun = doing, done, time.monotonic()
                bar.reset(task, total=total, completed=done)
            rate = ""
            if done > first:
                rate = f", {(done - first) / (time.monotonic() - begun):,.0f}/s"
            of = "" if total is None else f" of {total:,}"
            bar.update(task, completed=done, description=f"{doing} {done:,}{of} texts{rate}")

        try:
            yield update
        finally:
            if not now:
                bar.remove_task(task)


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare RECIPE and key=value; overrides are accepted before, between and after options."""
    parser.add_argument("recipe", metavar="RECIPE", help="a recipe's name, or the path of its file")
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="override its values")
    take_positionals_anywhere(parser)


def add_training_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the verbs that train by a recipe."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--corpus", required=True, metavar="DIR", help="a folder written by 'zhbert prepare'"
    )
    parser.add_argument("--out", required=True, metavar="RUN", help="the run folder to write")
    parser.add_argument(
        "--resume", action="store_true", help="continue from RUN's newest checkpoint"
    )
    parser.add_argument(
        "--resume-if-there",
        action="store_true",
        help="continue RUN if it was begun, else begin it: for commands that are started again by "
        "torchrun --max-restarts or a scheduler",
    )
    parser.add_argument("--overwrite", action="store_true", help="remove an existing RUN first")
    parser.add_argument("--tensorboard", action="store_true", help="also write RUN/tensorboard")


def train(args: argparse.Namespace, overrides: Sequence[str]) -> int:
    """Train by a recipe, and print the finished model's folder."""
    from zhbert.pretraining.run import pretrain

    rank = launched_rank() or 0
    try:
        result = call(pretrain, args, but=["teacher"], overrides=overrides)
    except ZhbertError as error:
        if rank:
            raise ZhbertError(f"process {rank}: {error}") from None
        raise
    if rank == 0:
        _print_trained(result, as_json=args.json)
    return 128 + result.signal if result.signal else 0


def _print_trained(result: PretrainingResult, as_json: bool) -> None:
    if as_json:
        console.print_json({**vars(result), "final": result.final})
    elif result.final:
        sys.stdout.write(f"{result.final}\n")
    if result.signal:
        sys.stderr.write(f"saved at step {result.step}; to go on: {command_to_resume()}\n")


def command_to_resume() -> str:
    """Return the command that goes on with this run, without the addresses of several machines."""
    words = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
    if "--resume-if-there" not in words:
        words.append("--resume")
    launcher = ["zhbert"]
    if launched_rank() is not None:
        one_machine = os.environ.get("GROUP_WORLD_SIZE", "1") == "1"
        processes = ["--standalone", "--nproc-per-node", os.environ.get("LOCAL_WORLD_SIZE", "1")]
        launcher = ["torchrun", *(processes if one_machine else ["..."]), "-m", "zhbert"]
    return without_secrets(shlex.join([*launcher, *words]))
