"""The files of a pretraining run's folder: the recipe, checkpoints, and the final model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from zhbert.config import flatten, recipe_to_toml
from zhbert.data.loader import GrowingRows
from zhbert.data.shards import Shard
from zhbert.files import atomic_folder
from zhbert.model.pretrained import BertForPreTraining
from zhbert.pretraining.model_card import card_of_run
from zhbert.pretraining.setup import RunSetup
from zhbert.pretraining.start import Start
from zhbert.runs.provenance import provenance
from zhbert.train.checkpoint import Checkpoints, Saver, model_state
from zhbert.train.log import MetricsFile
from zhbert.train.loop import TrainState
from zhbert.train.optim import Optimizer
from zhbert.wording import without_secrets


def write_beginning(setup: RunSetup, start: Start, teachers: Mapping[str, str]) -> None:
    """Write recipe.toml and provenance.json to the run's folder, which this process has locked.

    ``teachers``: the hash of each teacher, by its name.
    """
    origin = {
        **provenance(setup.ranks.device, setup.dtype, setup.ranks.world_size),
        "recipe": setup.recipe_file,
        "overrides": [without_secrets(one) for one in setup.overrides],
        "corpus": str(setup.corpus.folder.resolve()),
        "corpus_vocabulary": setup.corpus.fingerprint,
        "from_step": start.state.step,
        **({"teachers": teachers} if teachers else {}),
    }
    if setup.resumes:
        checkpoints_of(setup).forget_after(start.state.step)
    resolved = dataclasses.replace(setup.recipe, model=start.shape)
    setup.folder.begin(recipe_to_toml(resolved), origin, "overrides")


def checkpoints_of(setup: RunSetup) -> Checkpoints:
    """Return the run's own checkpoints."""
    return Checkpoints(
        setup.folder.path / "checkpoints", keep=setup.recipe.keep_checkpoints, say=setup.say
    )


def checkpoint_writer(
    setup: RunSetup,
    start: Start,
    optimizer: Optimizer,
    metrics: MetricsFile | None,
    rows: GrowingRows,
    saver: Saver,
    micro_batch_rows: int,
) -> Callable[[TrainState], None]:
    """Return a function that saves a checkpoint of a state; all processes call it.

    ``metrics`` is the log, in the process that writes it.
    """
    info = {
        "first_step": start.first_step,
        "optimizer": setup.recipe.optimizer.name,
        "vocabulary": setup.corpus.fingerprint,
        "corpus": setup.corpus_hash,
        "similar_words": setup.similar_words_hash,
        "shape": flatten(start.shape),
        # Stored only if it was chosen by memory: results of other micro-batches differ by rounding.
        "micro_batch_rows": 0 if setup.recipe.micro_batch_size else micro_batch_rows,
    }

    def verify(shards: Sequence[Shard]) -> None:
        for shard in shards:
            shard.verify()

    def save(state: TrainState) -> None:
        if metrics is not None:
            metrics.sync()
        groups = {"model": model_state(start.model), "optimizer": optimizer.state_dict()}
        found = {"window_ends": rows.window_ends, **dataclasses.asdict(state)}
        # All shards that rows are planned of, even unread ones, since they determine the rows.
        shards = setup.corpus.shards("train").opened
        saver.save(state.step, groups, info | found, partial(verify, shards))

    return save


def write_final(
    setup: RunSetup,
    model: BertForPreTraining,
    step: int,
    evaluations: Sequence[Mapping[str, Any]],
) -> None:
    """Write the finished model, its tokenizer and its card to ``final``.

    ``step`` is that of the weights, and ``evaluations`` are the lines of its evaluation.
    """
    positions = model.config.max_position_embeddings
    with atomic_folder(setup.folder.path / "final") as temporary:
        model.save_pretrained(temporary)
        setup.tokenizer.save_pretrained(temporary, model_max_length=positions)
        card_of_run(setup, model.config, step, evaluations).write(temporary)
