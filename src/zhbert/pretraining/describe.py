"""Messages of a run for the user: before it begins, and if it diverges."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from zhbert.config import Recipe
from zhbert.data.loader import GrowingRows
from zhbert.data.remarks import on_rows, on_text
from zhbert.model.config import count_parameters_by_part
from zhbert.pretraining.check_gpus import NOTHING_TO_DIVIDE
from zhbert.pretraining.setup import RunSetup
from zhbert.pretraining.stages import stages_of
from zhbert.pretraining.start import Start
from zhbert.wording import counted


def schedule_warnings(recipe: Recipe, last_step: int) -> Iterator[str]:
    """Yield a warning for each mistake in the schedule of a run that ends at ``last_step``."""
    options = recipe.optimizer
    if options.warmup_steps > last_step:
        yield (
            f"warning: optimizer.warmup_steps = {options.warmup_steps} is longer than the "
            f"run's {last_step} steps: the learning rate never reaches its peak"
        )
    if 0 < options.schedule_steps < last_step and options.schedule != "constant":
        yield (
            f"warning: optimizer.schedule_steps = {options.schedule_steps}, but the run ends "
            f"at step {last_step}: from there on the learning rate is zero"
        )


def describe_run(
    setup: RunSetup, start: Start, loader: GrowingRows, micro_batch_rows: int
) -> Iterator[str]:
    """Describe the model, the data and the stages, one line each."""
    yield _describe_model(setup, start)
    yield _describe_data(setup, start, loader, micro_batch_rows)
    recipe, info = setup.recipe, setup.corpus.info
    remarks = on_rows(info, recipe.rows.builder, loader.rows_per_epoch, recipe.batch_size)
    for remark in (*on_text(info), *remarks):
        yield f"note: {remark}"
    if recipe.sharding == "full" and not setup.divides:
        yield f"note: {NOTHING_TO_DIVIDE}"
    for stage in stages_of(recipe):
        if start.done < stage.end:
            yield (
                f"warm-up: until step {start.first_step + stage.end:,}, {stage.rows} rows of "
                f"up to {stage.length} pieces a step"
            )


def _describe_model(setup: RunSetup, start: Start) -> str:
    ranks, model = setup.ranks, start.model
    parameters = sum(count_parameters_by_part(model.config).values())
    line = (
        f"model: {counted(model.config.num_hidden_layers, 'layer')} x {start.shape.hidden_size}, "
        f"{parameters:,} parameters; {ranks.device}, {str(setup.dtype).removeprefix('torch.')}"
    )
    if ranks.device.type == "cpu":
        line += f", {counted(torch.get_num_threads(), 'thread')}"
    if ranks.world_size > 1:
        line += f", {ranks.world_size} processes" + (" with a part each" if setup.divides else "")
    return line


def _describe_data(
    setup: RunSetup, start: Start, loader: GrowingRows, micro_batch_rows: int
) -> str:
    recipe = setup.recipe
    rows, random = loader.rows_per_epoch, loader.random_share
    epochs = recipe.steps * recipe.batch_size / rows
    pairs = "" if random is None else f": {1 - random:.0%} next, {random:.0%} random"
    first, last = start.state.step + 1, start.first_step + recipe.steps
    steps = f"steps {first} to {last}" if first <= last else f"all {last} steps, done,"
    cut = f"; micro-batches of {micro_batch_rows}" if micro_batch_rows < recipe.batch_size else ""
    about, windows = "", ""
    if loader.windows > 1:
        about, windows = "about ", f" in {loader.windows:,} windows"
    return (
        f"data: {about}{counted(rows, 'row')} an epoch{windows} ({recipe.rows.builder}{pairs}, "
        f"{recipe.masking.strategy} masks); {steps} x "
        f"{counted(recipe.batch_size, 'row')} of up to {recipe.sequence_length} pieces = "
        f"{epochs:.3g} epochs{cut}"
    )


def after_divergence(setup: RunSetup, kept: list[int]) -> str:
    """Return advice after a loss that is not finite; ``kept``: the steps with a checkpoint."""
    gently = "a lower optimizer.learning_rate or a longer optimizer.warmup_steps"
    if not kept:
        return f"nothing was saved yet; begin again with {gently}, and --overwrite"
    return (
        f"the checkpoint of step {kept[-1]} is kept; begin a run in another --out from it, "
        f"continue_from={setup.folder.path}, with {gently}"
    )
