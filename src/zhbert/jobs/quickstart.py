"""Train the packaged model on your text in minutes; compare it before and after.

zhbert quickstart                           (the sample text of the package)
zhbert quickstart my.txt more.jsonl --out runs/mine
zhbert quickstart my.txt --from chinese-roberta-wwm-ext
zhbert quickstart my.txt --from scratch

This is the whole pipeline: words and masks, a corpus with a tenth held out,
training with the recipe 'quickstart' (from scratch: 'quickstart-scratch'), and
filled masks and held-out accuracy before and after. RUN is a run folder with
the model in RUN/final; the corpus is in RUN-corpus. Ctrl-C saves a checkpoint,
from which --resume continues. The exit code is 1 if the model is worse than
before (from scratch: worse than always predicting the most frequent piece).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert import console, options, terminal
from zhbert.files import advising
from zhbert.wording import counted, without_secrets
from zhbert.zoo.packaged import DEFAULT

if TYPE_CHECKING:
    from zhbert.data.cloze import Cloze
    from zhbert.data.shards import Corpus
    from zhbert.inference.fill import Filled
    from zhbert.pretraining.quickstart import HeldOutScore, Quickstart
    from zhbert.pretraining.result import PretrainingResult

    # The masked sentences, each as filled before and after training.
    _BeforeAndAfter = Sequence[tuple[Cloze, Filled, Filled]]

_WHAT_HELPS = (
    "More text helps most, then more minutes (--set steps=...) or a GPU. By docs/results.md, 0.2 "
    "MB of prose brought 2 points in 2 CPU-minutes; from scratch, 1.5 MB of statutes came to 36 % "
    "in 8, and 160 MB to 46 % in 6 minutes of a GPU"
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="*",
        help="text files or folders (default: the sample text of the package)",
    )
    parser.add_argument(
        "--from",
        dest="source",
        default=DEFAULT,
        metavar="MODEL",
        help="the model to start from: a folder, an archive or a name (default: zhbert-mini, the "
        "model in this package); scratch: a new one",
    )
    parser.add_argument(
        "--out", default="runs/quickstart", metavar="RUN", help="the run folder to write"
    )
    parser.add_argument("--resume", action="store_true", help="continue an interrupted run")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier quickstart")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="key=value",
        help="override a value of the recipe (may be repeated)",
    )
    options.add_reading_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run every stage and print the comparison of the model before and after."""
    try:
        with advising("run it again with --resume"):
            return _run(args)
    except KeyboardInterrupt:
        console.err().print(_to_go_on())
        raise


def _run(args: argparse.Namespace) -> int:
    from zhbert.data.account import describe
    from zhbert.jobs.mask import print_table
    from zhbert.jobs.prepare import progress_bar
    from zhbert.pretraining.quickstart import scores_of

    begun, silent = time.monotonic(), args.quiet or args.json
    stages = _quickstart(args, silent)
    look = stages.open()
    _print_stage(1, "分词与掩码  words and masks", silent)
    if not silent:
        print_table(stages.mask(look.sentence))
    _print_stage(2, "文本 → 语料  text to corpus", silent)
    corpus, report = stages.prepare(lambda: progress_bar(silent))
    if report and not silent:
        console.out().print(describe(report), end="")
    overrides = stages.plan(corpus)
    _print_stage(3, "训练前填空  masks filled before training", silent)
    clozes = stages.clozes(corpus)
    before = stages.fill_before(corpus, overrides, clozes)
    _print_filled(clozes, [before], silent)
    _print_stage(4, "训练  training", silent)
    result = stages.train(overrides, quiet=args.quiet)
    if result.signal:
        console.err().print(_to_go_on())
        return 128 + result.signal
    _print_stage(5, "训练后填空  masks filled after training", silent)
    after = stages.fill_after(result, clozes)
    _print_filled(clozes, [before, after], silent)
    scores, filled = scores_of(result), list(zip(clozes, before, after, strict=True))
    seconds = time.monotonic() - begun
    if args.json:
        facts = {"corpus": str(stages.corpus_folder), "from": without_secrets(args.source)}
        console.print_json(facts | _as_dict(corpus, result, scores, filled, seconds))
    else:
        _print_scores(scores)
        console.out().print(f"模型  model: {result.final}   ({seconds / 60:.1f} min)")
    _print_verdict(corpus, result, scores["wwm"], stages.scratch)
    if scores["wwm"].better and filled and not silent:
        example = filled[0][0].text
        console.out().print(f'试一试  try: zhbert fill {result.final} "{example}"')
    return 1 if scores["wwm"].worse else 0


def _quickstart(args: argparse.Namespace, silent: bool) -> Quickstart:
    from zhbert.pretraining.quickstart import SAMPLE, Quickstart

    folder = Path(args.out)
    return options.call(
        Quickstart,
        args,
        but=["out", "text", "field", "encoding"],
        folder=folder.resolve() if folder.name in ("", "..") else folder,
        texts=args.text or [SAMPLE],
        reading=options.reading_of(args),
        say=(lambda line: None) if silent else terminal.say,
        quiet=silent,
    )


def _to_go_on() -> str:
    return f"stopped; nothing is lost; to go on: {options.command_to_resume()}"


def _print_stage(number: int, title: str, silent: bool) -> None:
    if not silent:
        console.out().print(f"\n{number}/5  {title}", style="bold")
        # Flushed to keep stdout and the progress on stderr in order in a log.
        sys.stdout.flush()


def _print_filled(
    clozes: Sequence[Cloze], rounds: Sequence[Sequence[Filled]], silent: bool
) -> None:
    if silent:
        return
    names = ("训练前 before", "训练后 after ")
    for number, cloze in enumerate(clozes):
        console.out().print(f"{cloze.text}   （{cloze.answer}）")
        for name, filled in zip(names, rounds, strict=False):
            best = "   ".join(
                " ".join(f"{c.piece} {c.probability:.0%}" for c in mask.candidates[:3])
                for mask in filled[number].masks
            )
            console.out().print(f"    {name}: {best}")


def _print_scores(scores: Mapping[str, HeldOutScore]) -> None:
    names = {"wwm": "全词掩码 whole words", "char": "字掩码   characters"}
    table = console.table("masks", ">before", ">after", ">commonest piece", ">predictions")
    for name, one in sorted(scores.items(), reverse=True):
        before = "-" if one.before is None else f"{one.before:.2%}"
        figures = (before, f"{one.after:.2%}", f"{one.baseline:.2%}", f"{one.predictions:,}")
        table.add_row(names.get(name, name), *figures)
    console.out().print("\n保留文本上的掩码准确率  held-out masked accuracy")
    console.out().print(table)


def _print_verdict(
    corpus: Corpus, result: PretrainingResult, score: HeldOutScore, scratch: bool
) -> None:
    if score.better:
        return
    what = "worse than" if score.worse else "no better than"
    reference = "always guessing the commonest piece" if scratch else "before"
    pieces = corpus.info["totals"]["train"]["pieces"]
    console.err().print(
        f"the model is {what} {reference}: {pieces:,} pieces of text, "
        f"{counted(result.step, 'step')} ({result.pieces / pieces:.1f} passes) in "
        f"{result.seconds / 60:.1f} minutes. {_WHAT_HELPS}",
        style="bold red" if score.worse else "bold",
    )


def _as_dict(
    corpus: Corpus,
    result: PretrainingResult,
    scores: Mapping[str, HeldOutScore],
    filled: _BeforeAndAfter,
    seconds: float,
) -> dict[str, Any]:
    score = scores["wwm"]
    return {
        "model": str(result.final),
        "masked_lm_accuracy": score.after,
        "baseline_accuracy": score.baseline,
        "predictions": score.predictions,
        "better_than_baseline": score.after > score.baseline,
        "better": score.better,
        "accuracy": {name: vars(one) for name, one in scores.items()},
        "steps": result.step,
        "kept_step": result.kept_step,
        "pieces_trained": result.pieces,
        "pieces": corpus.info["totals"]["train"]["pieces"],
        "seconds": seconds,
        "filled": [
            {
                "text": cloze.text,
                "answer": cloze.answer,
                "before": before.filled,
                "after": after.filled,
            }
            for cloze, before, after in filled
        ],
    }
