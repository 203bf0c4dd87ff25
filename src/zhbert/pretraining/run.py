"""`zhbert.pretrain`: training of a masked language model with a recipe."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from zhbert import terminal
from zhbert.config import Recipe, load_recipe, parse_recipe, recipe_path
from zhbert.errors import ZhbertError
from zhbert.pretraining.result import PretrainingResult
from zhbert.runs.folder import RunFolder
from zhbert.runs.provenance import read_provenance


def pretrain(
    recipe: str | os.PathLike[str] | Recipe,
    corpus: str | os.PathLike[str],
    out: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    resume: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    quiet: bool = True,
) -> PretrainingResult:
    """Train with ``recipe`` on the corpus folder ``corpus`` and write the run folder ``out``.

    Args:
        recipe: a recipe's name or path, or a Recipe.
        corpus: a folder made by ``prepare``.
        out: the run folder. It must not exist, except with ``resume`` or ``overwrite``.
        overrides: ``key=value`` texts.
        resume: resume from the newest complete checkpoint in ``out``, with the overrides of the
            original run.
        overwrite: remove ``out`` first, if it is a run folder.
        tensorboard: write event files to ``out/tensorboard``.
        quiet: show no remarks and no progress on stderr.

    Raises:
        ZhbertError: the recipe, the corpus or a folder is not usable, or the loss is not finite.
    """
    if resume and overwrite:
        raise ZhbertError("--resume and --overwrite contradict each other: give one of them")
    # Folders and recipes are checked before torch is imported, which takes a second.
    folder = RunFolder(
        path=Path(out),
        what="a run folder",
        settings_file="recipe.toml",
        overwrite=overwrite,
        goes_on=resume,
        ways="--resume goes on with it, ",
    )
    _check(folder)
    remembered = read_provenance(folder.path).get("overrides", []) if resume else []
    every = [*remembered, *overrides]
    if isinstance(recipe, Recipe):
        recipe_file, settings = "recipe", parse_recipe(_as_table(recipe), every)
    else:
        recipe_file, settings = recipe_path(recipe).name, load_recipe(recipe, every)

    from zhbert.data.shards import Corpus

    # One of several processes must not fail for lack of the corpus before all are connected: the
    # others would wait for its connection.
    opened = None if "RANK" in os.environ else Corpus.open(Path(corpus))

    from zhbert.pretraining.setup import RunSetup
    from zhbert.pretraining.training import train_run
    from zhbert.runtime import choose_device
    from zhbert.train.distributed import process_group

    with process_group(choose_device) as ranks, ExitStack() as held:
        quiet = quiet or not ranks.first
        opened = opened or Corpus.open(Path(corpus))
        folder = dataclasses.replace(folder, needed=_sources(settings, opened.folder))
        _check(folder)
        setup = RunSetup(
            recipe=settings,
            recipe_file=recipe_file,
            overrides=list(dict.fromkeys(every)),
            corpus=opened,
            folder=folder,
            ranks=ranks,
            say=terminal.say_nothing if quiet else terminal.say,
            quiet=quiet,
        )
        return train_run(setup, held, tensorboard=tensorboard)


def _check(folder: RunFolder) -> None:
    """Raise ZhbertError if the run's folder may not be written or has no run to resume."""
    # The first of several processes makes the folder, perhaps before the others check it.
    if not folder.goes_on and int(os.environ.get("RANK", "0")):
        return
    folder.check()
    if folder.goes_on and not folder.continued:
        raise ZhbertError(
            f"--resume: {folder.path}: no run to go on with; leave --resume away to begin one"
        )


def _sources(recipe: Recipe, corpus: Path) -> dict[str, Path]:
    """Return the input files and folders of the run, by name."""
    named = {"initial model": recipe.initial_model, "earlier phase": recipe.continue_from}
    if recipe.distill is not None:
        named |= {f"teacher {name}": name for name in recipe.distill.teachers}
    there = {what: Path(name) for what, name in named.items() if name and Path(name).exists()}
    return {"corpus": corpus, **there}


def _as_table(recipe: Recipe) -> dict[str, Any]:
    """Convert a Recipe to the table that ``parse_recipe`` reads, without unset keys."""
    return dataclasses.asdict(
        recipe,
        dict_factory=lambda pairs: {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in pairs
            if value is not None
        },
    )
