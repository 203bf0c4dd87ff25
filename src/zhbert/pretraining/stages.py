"""The rows of a run: short ones first if the recipe says so, then those of its full length."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from zhbert.config import Recipe
from zhbert.data.loader import GrowingRows, PretrainingLoader
from zhbert.data.row_windows import rows_of_split
from zhbert.pretraining.setup import RunSetup


@dataclass(frozen=True)
class Stage:
    """Steps of short rows: more rows per step, with the same number of pieces as later."""

    end: int
    """The step at which it ends, counted from the start of the run."""
    length: int
    """The maximum length of a row in pieces."""
    rows: int
    """Number of rows in a step."""
    times: int
    """Number of short rows per row of the full length."""


def stages_of(recipe: Recipe) -> list[Stage]:
    """Return the recipe's stages of short rows, in order.

    A stage is left out if its length is more than half of the full length, or if its share of the
    steps is less than one step. A later phase has none.

    >>> from zhbert.config import load_recipe
    >>> stages_of(load_recipe("tiny", ["rows.warmup_share=0.5", "steps=10", "batch_size=8"]))
    [Stage(end=5, length=32, rows=32, times=4)]
    """
    stages: list[Stage] = []
    share = 0.0
    for length, part in zip(recipe.rows.warmup_length, recipe.rows.warmup_share, strict=True):
        share += part
        times = recipe.sequence_length // length
        if times > 1 and not recipe.continue_from and (end := int(recipe.steps * share)):
            stages.append(Stage(end, length, times * recipe.batch_size, times))
    return stages


def training_rows(
    setup: RunSetup, micro_batch_rows: int, done: int, window_ends: Mapping[str, Sequence[int]]
) -> GrowingRows:
    """Make the loader of this process's training rows after ``done`` steps of the run.

    Args:
        setup: the run.
        micro_batch_rows: rows of the full length in a micro-batch; micro-batches of short rows
            have as many pieces.
        done: completed steps of this run, without those of an earlier phase.
        window_ends: as in the result, of a checkpoint of this run.
    """
    recipe = setup.recipe

    def loader(length: int, batch_size: int, times: int) -> PretrainingLoader:
        ends = window_ends.get(str(length), ())
        return _loader(setup, length, batch_size, times * micro_batch_rows, ends)

    short = [
        (stage.end, loader(stage.length, stage.rows, stage.times))
        for stage in stages_of(recipe)
        if done < stage.end
    ]
    return GrowingRows(short, loader(recipe.sequence_length, recipe.batch_size, 1))


def _loader(
    setup: RunSetup,
    sequence_length: int,
    batch_size: int,
    micro_batch_size: int,
    window_ends: Sequence[int],
) -> PretrainingLoader:
    recipe = setup.recipe
    masker = setup.masker
    rows = rows_of_split(
        recipe.rows.builder,
        setup.corpus.shards("train"),
        cls_id=masker.vocabulary.cls_id,
        sep_id=masker.vocabulary.sep_id,
        sequence_length=sequence_length,
        seed=recipe.seed,
        short_row_probability=recipe.rows.short_row_probability,
    )
    return PretrainingLoader(
        rows,
        masker,
        batch_size=batch_size,
        micro_batch_size=micro_batch_size,
        seed=recipe.seed,
        rank=setup.ranks.rank,
        world_size=setup.ranks.world_size,
        total_steps=recipe.steps,
        window_ends=window_ends,
        threads=loader_threads(setup.ranks.device),
    )


def loader_threads(device: torch.device) -> int:
    """Return how many threads make a micro-batch: one on a CPU, whose cores the model needs."""
    return 1 if device.type == "cpu" else min(torch.get_num_threads(), 16)
