"""Fine-tune a model for a task with one or more seeds, or compare two runs.

  zhbert finetune lcqmc --model rbt3 --data tasks/lcqmc --out runs/lcqmc
  zhbert finetune lcqmc --model rbt3 --data tasks/lcqmc --out runs/lcqmc --seeds 10
  zhbert finetune my-task.toml --model runs/tiny/final --out runs/mine epochs=5
  zhbert finetune ocnli --model rbt3 --data tasks/ocnli --out runs/grid \\
      optimizer.learning_rate=2e-5,5e-5 batch_size=32,64
  zhbert finetune lcqmc,chnsenticorp --model rbt3 --data tasks --out runs/two
  zhbert finetune lcqmc --model START --teacher runs/lcqmc --out runs/small
  zhbert finetune --compare runs/lcqmc-wwm runs/lcqmc-char

TASK is a name ('zhbert tasks' lists them) or the path of a card. The card has
settings for each model family; key=value overrides them. Values separated by
commas make a grid, whose best point is chosen on dev. OUT gets summary.json,
task.toml, settings.toml, and seed-K/ with final/, a model folder that
transformers opens. Several tasks share one encoder, and have their folders in
OUT. To resume an interrupted run, run the same command again: finished seeds
are kept.

A small model learns more from the labels and a larger model's scores than from
the labels alone. Start it from the larger one's layers: 'zhbert shrink M
--layers 0,2 --out START'. Keys: distill.temperature, .soft_labels (ce, mse or
none), .soft_weight, .hard_weight, their schedules, .other_vocabulary=map, and
'distill.matches=[{loss="hidden_mse"}]' to learn from the layers, too.

Keys: epochs, sequence_length, batch_size, optimizer.learning_rate; patience=3
stops after three evaluations without a better score; evaluate_every and
checkpoint_every, in steps; doc_stride and max_answer_length, for questions;
loss, pooling, scale, margin, hard_negatives and matryoshka=256+128, for
vectors; precision, compile, threads, micro_batch_size; and
optimizer.warmup_share, .weight_decay, .epsilon and .clip_norm.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zhbert import console, terminal
from zhbert.errors import ZhbertError
from zhbert.options import add_encoding, call, take_positionals_anywhere
from zhbert.wording import counted

if TYPE_CHECKING:
    from zhbert.finetuning.request import FineTuningResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    parser.add_argument(
        "task", metavar="TASK", nargs="?", help="a task's name, or the path of a card; several: A,B"
    )
    parser.add_argument("overrides", metavar="key=value", nargs="*", help="override a setting")
    parser.add_argument("--model", metavar="M", help="a folder, an archive, a name or a hub id")
    parser.add_argument("--data", metavar="DIR", help="the folder of the task's files")
    add_encoding(parser, "each of them")
    parser.add_argument("--out", metavar="RUN", help="the run folder to write or resume")
    parser.add_argument(
        "--teacher",
        dest="teachers",
        metavar="M",
        action="append",
        default=[],
        help="learn from M, too: a run of this task, or a model fine-tuned for it; repeatable; "
        "of several tasks: TASK=M",
    )
    parser.add_argument(
        "--seeds", type=int, default=1, metavar="N", help="train with the seeds 0 to N - 1 (1)"
    )
    parser.add_argument("--overwrite", action="store_true", help="remove an existing RUN first")
    parser.add_argument(
        "--compare", nargs=2, metavar=("A", "B"), help="compare two finished runs of one task"
    )
    take_positionals_anywhere(parser)


def run(args: argparse.Namespace) -> int:
    """Fine-tune, or compare two runs, and print the result."""
    if args.compare:
        others = (args.task, args.model, args.data, args.out, args.overwrite, args.seeds != 1,
                  args.teachers)  # fmt: skip
        if any(others):
            raise ZhbertError("--compare takes two run folders and nothing else")
        from zhbert.report.comparison import compare_runs

        _print_comparison(compare_runs(*args.compare), as_json=args.json)
        return 0
    for name in ("task", "model", "out"):
        if not getattr(args, name):
            option = "TASK" if name == "task" else f"--{name}"
            raise ZhbertError(f"{option} is missing: zhbert finetune TASK --model M --out RUN")
    from zhbert.finetuning.run import finetune

    return _print_result(call(finetune, args, but=["compare"]), args)


def _print_result(result: FineTuningResult, args: argparse.Namespace) -> int:
    if result.signal:
        without = " (without --overwrite)" if args.overwrite else ""
        sys.stderr.write(f"saved; the same command again{without} goes on\n")
        return 128 + result.signal
    if args.json:
        console.print_json(result.summary)
    else:
        from zhbert.finetuning.describe import describe_summary

        tasks = result.summary.get("tasks", {"": result.summary})
        for name, summary in tasks.items():
            for line in describe_summary(summary, result.folder / name):
                console.out().print(line)
    return 0


def _print_comparison(result: Mapping[str, Any], *, as_json: bool) -> None:
    if as_json:
        console.print_json(result)
        return
    for name in ("a", "b"):
        one = result[name]
        sys.stdout.write(
            f"{name.upper()}  {one['mean']:.2f}  {one['model_name']}, "
            f"{counted(one['seeds'], 'seed')} ({one['folder']})\n"
        )
        for remark in one["remarks"]:
            terminal.say(f"{one['folder']}: {remark}")
    verdict = "larger" if result["larger_than_noise"] else "not larger"
    sys.stdout.write(
        f"A - B  {result['metric']} {result['difference']:+.2f} points, "
        f"{result['confidence']:.0%} interval {result['low']:+.2f} to {result['high']:+.2f}: "
        f"{verdict} than the noise\n"
        f"{counted(result['resamples'], 'resample')} of "
        f"{counted(result['examples'], 'example')} of "
        f"{result['task']}'s {result['split']} and of the seeds\n"
    )
    if not result["same_weights_at_first"]:
        sys.stdout.write(
            "about these two models: others, pretrained in the same ways with other seeds, may "
            "differ by more\n"
        )
