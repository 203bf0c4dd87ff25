"""Train a masked language model from a recipe.

  zhbert pretrain tiny --corpus corpus --out runs/tiny
  zhbert pretrain tiny --corpus corpus --out runs/tiny --resume
  zhbert pretrain tiny --corpus corpus --out runs/x steps=500 masking.strategy=char
  torchrun --nproc-per-node 2 -m zhbert pretrain tiny --corpus corpus --out runs/tiny

OUT gets recipe.toml (with every value), provenance.json, metrics.jsonl,
checkpoints/, and final/, a model folder that transformers opens. Ctrl-C saves
a checkpoint, from which --resume continues.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import shlex
import sys
from typing import TYPE_CHECKING

from zhbert import console
from zhbert.errors import ZhbertError
from zhbert.options import add_recipe_arguments
from zhbert.wording import without_secrets

if TYPE_CHECKING:
    from zhbert.pretraining.result import PretrainingResult


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--corpus", required=True, metavar="DIR", help="a folder written by 'zhbert prepare'"
    )
    parser.add_argument("--out", required=True, metavar="RUN", help="the run folder to write")
    parser.add_argument(
        "--resume", action="store_true", help="continue from RUN's newest checkpoint"
    )
    parser.add_argument("--overwrite", action="store_true", help="remove an existing RUN first")
    parser.add_argument("--tensorboard", action="store_true", help="also write RUN/tensorboard")


def run(args: argparse.Namespace) -> int:
    """Train the model and print its folder."""
    # Imported late, so that --help and refused arguments stay fast.
    from zhbert.pretraining.run import pretrain

    rank = int(os.environ.get("RANK", "0"))
    try:
        result = pretrain(
            args.recipe,
            args.corpus,
            args.out,
            args.overrides,
            resume=args.resume,
            overwrite=args.overwrite,
            tensorboard=args.tensorboard,
            quiet=args.quiet,
        )
    except ZhbertError as error:
        if rank:
            raise ZhbertError(f"process {rank}: {error}") from None
        raise
    if rank == 0:
        _print_result(result, as_json=args.json)
    return 128 + result.signal if result.signal else 0


def _print_result(result: PretrainingResult, as_json: bool) -> None:
    if as_json:
        values = {**dataclasses.asdict(result), "folder": str(result.folder)}
        console.print_json({**values, "final": str(result.final) if result.final else None})
    elif result.final:
        sys.stdout.write(f"{result.final}\n")
    if result.signal:
        again = [word for word in sys.argv[1:] if word not in ("--resume", "--overwrite")]
        processes = os.environ.get("LOCAL_WORLD_SIZE", "1")
        launcher = ["zhbert"]
        if processes != "1":
            launcher = ["torchrun", "--nproc-per-node", processes, "-m", "zhbert"]
        command = without_secrets(shlex.join([*launcher, *again, "--resume"]))
        sys.stderr.write(f"saved at step {result.step}; to go on: {command}\n")
