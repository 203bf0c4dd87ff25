"""`zhbert.pretrain`: training of a masked language model with a recipe."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from zhbert import terminal
from zhbert.config import Recipe, load_recipe, parse_recipe, recipe_path
from zhbert.errors import ZhbertError
from zhbert.pretraining.result import PretrainingResult
from zhbert.runs.folder import RunFolder
from zhbert.runs.provenance import read_provenance
from zhbert.runtime import choose_device, launched_rank


def pretrain(
    recipe: str | os.PathLike[str] | Recipe,
    corpus: str | os.PathLike[str],
    out: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    resume: bool = False,
    resume_if_there: bool = False,
    overwrite: bool = False,
    tensorboard: bool = False,
    quiet: bool = True,
) -> PretrainingResult:
    """Train with ``recipe`` on the corpus folder ``corpus`` and write the run folder ``out``.

    Args:
        recipe: a recipe's name or path, or a Recipe.
        corpus: a folder made by ``prepare``.
        out: the run folder. It must not exist, except with one of the next three.
        overrides: ``key=value`` texts.
        resume: resume from the newest complete checkpoint in ``out``, with the overrides of the
            original run.
        resume_if_there: resume if there is a run in ``out``, else begin one: the same command
            begins, continues and, once the run is complete, repeats its last line.
        overwrite: remove ``out`` first, if it is a run folder.
        tensorboard: write event files to ``out/tensorboard``.
        quiet: show no remarks and no progress on stderr.

    Raises:
        ZhbertError: the recipe, the corpus or a folder is not usable, or the loss is not finite.
    """
    if resume + resume_if_there + overwrite > 1:
        raise ZhbertError(
            "--resume, --resume-if-there and --overwrite exclude each other: give one of them"
        )
    folder = RunFolder(
        path=Path(out),
        what="a run folder",
        settings_file="recipe.toml",
        overwrite=overwrite,
        goes_on=resume or resume_if_there,
        ways="--resume or --resume-if-there goes on with it, ",
    )
    look = partial(_look, folder, recipe, Path(corpus), list(overrides), must_resume=resume)

    from zhbert.data.shards import Corpus

    # Checked before torch is imported, which takes a second. Of several processes none may fail
    # before all are connected: the others would wait for its connection. The first alone looks at
    # the run's folder, which the others may lack, or see late on a network disk.
    launched = launched_rank() is not None
    found, opened = (None, None) if launched else (look(), Corpus.open(Path(corpus)))

    from zhbert.pretraining.setup import RunSetup
    from zhbert.pretraining.training import train_run
    from zhbert.train.distributed import process_group

    with process_group(choose_device) as ranks, ExitStack() as held:
        quiet = quiet or not ranks.first
        setup = RunSetup(
            **(found or ranks.on_first(look)),
            corpus=opened or Corpus.open(Path(corpus)),
            ranks=ranks,
            say=terminal.say_nothing if quiet else terminal.say,
            quiet=quiet,
        )
        return train_run(setup, held, tensorboard=tensorboard)


def _look(
    folder: RunFolder,
    recipe: str | os.PathLike[str] | Recipe,
    corpus: Path,
    overrides: list[str],
    *,
    must_resume: bool,
) -> dict[str, Any]:
    """Return the fields of `RunSetup` that the recipe and the run's folder determine.

    A resumed run remembers its overrides; further ones come after them.

    Raises:
        ZhbertError: the folder may not be written, or has no run to resume.
    """
    folder.check()
    resumes = folder.continued
    if must_resume and not resumes:
        raise ZhbertError(
            f"--resume: {folder.path}: no run to go on with; leave --resume away to begin one"
        )
    remembered = read_provenance(folder.path).get("overrides", []) if resumes else []
    # Of equal ones the last counts: there may be another value of its key between them.
    every = list(dict.fromkeys(reversed([*remembered, *overrides])))[::-1]
    if isinstance(recipe, Recipe):
        recipe_file, settings = "recipe", parse_recipe(_as_table(recipe), every)
    else:
        recipe_file, settings = recipe_path(recipe).name, load_recipe(recipe, every)
    folder = dataclasses.replace(folder, needed=_sources(settings, corpus))
    folder.check()
    return {
        "recipe": settings,
        "recipe_file": recipe_file,
        "overrides": every,
        "folder": folder,
        "resumes": resumes,
    }


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
