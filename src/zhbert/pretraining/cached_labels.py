"""A run's soft labels from the cache, which its teachers complete before the first step."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from zhbert import terminal
from zhbert.data.loader import GrowingRows, MaskedBatch
from zhbert.distill.cache import Advance, SoftLabelCache
from zhbert.folders import locked
from zhbert.model.distilled_loss import BestPieces
from zhbert.pretraining.distillation import Teaching
from zhbert.pretraining.setup import RunSetup
from zhbert.train.prefetch import to_device
from zhbert.wording import counted


def cached_labels(
    setup: RunSetup,
    teaching: Teaching,
    rows: GrowingRows,
    steps: range,
    best_pieces: Callable[[MaskedBatch], BestPieces],
) -> SoftLabelCache:
    """Open the cache that the recipe names, and compute the labels that it lacks.

    Args:
        setup: the run.
        teaching: its teachers, which are closed at the end.
        rows: its rows.
        steps: the steps to be made, counted as by ``rows``.
        best_pieces: asks the teachers.

    Raises:
        ZhbertError: the folder has soft labels of another teacher, other rows or other masks, or
            another process is filling it, or it cannot be written.
    """
    ranks, settings = setup.ranks, teaching.settings
    cache = SoftLabelCache(Path(settings.cache), settings.top_k, setup.corpus.vocabulary_size)
    with ExitStack() as held:

        def begin() -> int:
            held.enter_context(locked(cache.folder, option="distill.cache"))
            cache.begin(_identity(setup, teaching))
            return cache.missing(rows, steps)

        if missing := ranks.on_first(begin):
            setup.say(
                f"{cache.folder}: the teacher first computes the soft labels of "
                f"{counted(missing, 'row')}, which are kept there"
            )
        else:
            setup.say(f"{cache.folder}: all soft labels are there: the teacher computes nothing")
        with _progress(setup.quiet or not ranks.first) as advance:
            cache.fill(
                rows,
                steps,
                lambda batch: best_pieces(to_device(batch, ranks.device)),
                ranks,
                advance,
            )
    teaching.teachers = ()
    return cache


def _identity(setup: RunSetup, teaching: Teaching) -> dict[str, Any]:
    """Return all that a row's soft labels depend on, besides its length and its number."""
    recipe, settings = setup.recipe, teaching.settings
    identity = {
        "teacher": "+".join(teaching.identities.values()),
        "corpus": setup.corpus_hash,
        "seed": recipe.seed,
        "rows": {
            "builder": recipe.rows.builder,
            "short_row_probability": recipe.rows.short_row_probability,
        },
        "masking": _masking(setup),
        "top_k": settings.top_k,
        "other_vocabulary": settings.other_vocabulary,
    }
    if recipe.masking.final_rate is not None:
        # A row's masking rate depends on the step that it belongs to.
        identity |= {"steps": recipe.steps, "batch_size": recipe.batch_size}
    if len(settings.teachers) > 1:
        # What their mean depends on.
        identity |= {"soft_labels": settings.soft_labels, "temperature": settings.temperature}
    return identity


def _masking(setup: RunSetup) -> dict[str, Any]:
    """Return the settings of masking, with the content of the file of similar words, if any."""
    masking = dataclasses.asdict(setup.recipe.masking)
    if not masking.pop("similar_words"):
        return masking
    return {**masking, "similar_words": setup.similar_words_hash}


@contextmanager
def _progress(quiet: bool) -> Iterator[Advance]:
    """Show the rows that are done, on stderr."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with terminal.progress(sys.stderr, quiet, *columns, transient=True) as bar:
        task = bar.add_task("the teacher's soft labels")
        yield lambda done, total: bar.update(task, completed=done, total=total)
