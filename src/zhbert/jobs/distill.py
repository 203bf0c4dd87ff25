"""Train a small model that also learns from a large one, by a recipe.

  zhbert distill minirbt-h288 --teacher runs/rbt6/final \\
      --corpus corpus --out runs/small
  zhbert distill tiny --teacher mini --corpus corpus --out runs/tiny \\
      softmax.frequent=0 distill.temperature=4
  zhbert distill tiny --teacher mini --corpus corpus --out runs/tiny --resume

It is 'zhbert pretrain' with a teacher: a run folder, checkpoints, --resume and
torchrun are the same. What is learnt from the teacher stands in the recipe's
section [distill]; without one, it is the soft labels of the masked words, for
which the teacher's own masked-word head must have been trained ('zhbert models
NAME' says of published models if it was).
'zhbert check RECIPE --teacher MODEL' says before, which layer matches which,
and what both models need. For tasks: 'zhbert finetune TASK --teacher RUN'.

Keys: distill.temperature, distill.soft_labels=ce|mse|none, distill.soft_weight
and distill.hard_weight with a _schedule, distill.top_k and distill.cache=DIR
(the teacher computes each row once, for all runs), and losses between layers:
'distill.matches=[{loss="hidden_mse", student=[1, 2], teacher=[2, 4]}]'.
"""

from __future__ import annotations

import argparse

from zhbert.config import load_recipe, teachers_override
from zhbert.errors import ZhbertError
from zhbert.options import add_training_arguments, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_training_arguments(parser)
    parser.add_argument(
        "--teacher",
        action="append",
        default=[],
        metavar="MODEL",
        help="a folder, an archive, a name or a hub id; give it several times for several teachers",
    )


def run(args: argparse.Namespace) -> int:
    """Train the student and print its folder."""
    overrides = [*args.overrides, *teachers_override(args.teacher)]
    # A resumed run remembers its teachers.
    if not args.resume:
        distill = load_recipe(args.recipe, overrides).distill
        if distill is None or not distill.teachers:
            raise ZhbertError(
                "--teacher is missing: zhbert distill RECIPE --teacher MODEL --corpus DIR --out RUN"
            )
    return train(args, overrides)
