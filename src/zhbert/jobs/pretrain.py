"""Train a masked language model from a recipe.

  zhbert pretrain tiny --corpus corpus --out runs/tiny
  zhbert pretrain tiny --corpus corpus --out runs/tiny --resume
  zhbert pretrain tiny --corpus corpus --out runs/x steps=500 masking.strategy=char
  torchrun --standalone --nproc-per-node 2 -m zhbert pretrain tiny \\
      --corpus corpus --out runs/tiny

OUT gets recipe.toml (with every value), provenance.json, metrics.jsonl,
checkpoints/, and final/, a model folder that transformers opens. Ctrl-C saves
a checkpoint, from which --resume continues.
"""

from __future__ import annotations

import argparse

from zhbert.options import add_training_arguments, train


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_training_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Train the model and print its folder."""
    return train(args, args.overrides)
