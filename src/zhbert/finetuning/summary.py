"""The summary of all seeds of a run, summary.json."""

from __future__ import annotations

import dataclasses
import os
import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from zhbert.config import Match
from zhbert.errors import ZhbertError
from zhbert.files import atomic_folder, sha256_of, write_json, write_text
from zhbert.finetuning.points import GridPoint
from zhbert.finetuning.starting_model import StartingModel
from zhbert.finetuning.training_task import ScoredSplit, TrainingTask
from zhbert.runtime import choose_dtype
from zhbert.schema import flatten
from zhbert.tasks.cards import split_remark
from zhbert.zoo.origin import short_name


def summary_of(
    task: TrainingTask, start: StartingModel, dev: Path, results: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the content of summary.json.

    Args:
        task: the task that the seeds were trained for.
        start: the model that they started from.
        dev: the file of the dev split.
        results: the content of each seed's result.json.
    """
    card, config = task.card, start.config
    dtype = choose_dtype(task.settings.precision, task.device)
    scored = {"dev": ScoredSplit(card, "dev", task.dev), **task.also}
    notes = {
        name: split_remark(one.card, one.name, len(one.prepared.examples))
        for name, one in scored.items()
    }
    return {
        "task": card.name,
        "kind": card.kind,
        "title": card.title,
        "model": start.name,
        "model_name": short_name(start.name),
        "labels": list(card.data.labels),
        "split": "dev",
        "split_note": notes.pop("dev"),
        "further_split_notes": {name: note for name, note in notes.items() if note},
        "metrics": {
            name: spread([result["metrics"][name] for result in results])
            for name in results[0]["metrics"]
        },
        "main_metric": card.metrics[0],
        "seeds": [result["seed"] for result in results],
        "settings": _as_json(flatten(task.settings)),
        "parameters": start.num_parameters(task.kind, task.learner),
        "layers": config.num_hidden_layers,
        "hidden_size": config.hidden_size,
        "train_examples": len(task.train.examples),
        "dev_examples": len(task.dev.examples),
        **{
            key: _mean(result[key] for result in results)
            for key in ("seconds", "examples_per_second", "pieces_per_second", "padding_share")
        },
        "precision": str(dtype).removeprefix("torch."),
        "device": str(task.device),
        "dev_sha256": sha256_of(dev),
        **summary_of_teachers([one.start for one in task.teachers]),
    }


def summary_of_teachers(teachers: Sequence[StartingModel]) -> dict[str, Any]:
    """Return the entry ``teachers`` of summary.json and provenance.json; none without teachers."""
    if not teachers:
        return {}
    return {
        "teachers": [
            {"name": short_name(one.name), "folder": str(one.folder.resolve())} for one in teachers
        ]
    }


def _as_json(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings without keys that are unset, and with lists of objects for lists of tables.

    >>> _as_json({"distill": None, "epochs": 3, "matches": (Match(),)})["matches"][0]["loss"]
    'hidden_mse'
    """
    return {
        key: [dataclasses.asdict(one) if isinstance(one, Match) else one for one in value]
        if isinstance(value, tuple)
        else value
        for key, value in settings.items()
        if value is not None
    }


def spread(values: Sequence[float]) -> dict[str, Any]:
    """Return the maximum, mean and sample standard deviation (0 for a single value).

    >>> spread([80.0, 82.0])
    {'max': 82.0, 'mean': 81.0, 'std': 1.4142135623730951, 'values': [80.0, 82.0]}
    """
    return {
        "max": max(values),
        "mean": statistics.fmean(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "values": list(values),
    }


def take_best(
    folder: Path,
    metric: str,
    points: Sequence[GridPoint],
    summaries: Sequence[dict[str, Any] | ZhbertError],
) -> dict[str, Any]:
    """Make the grid point with the best mean score on dev the result of the run ``folder``.

    Its seeds are hard-linked into ``folder``. ``summaries`` contains each point's summary, or the
    error of a point that failed.

    Returns the content of the run's summary.json; raises ZhbertError if every point failed.
    """
    finished = {n: one for n, one in enumerate(summaries) if isinstance(one, dict)}
    if not finished:
        raise ZhbertError(f"every point of the grid failed; the last: {summaries[-1]}")
    best = max(finished, key=lambda number: finished[number]["metrics"][metric]["mean"])
    source = points[best].folder
    for former in folder.glob("seed-*"):
        # These may be links to the best point of an earlier, smaller grid.
        shutil.rmtree(former, ignore_errors=True)
    for seed in finished[best]["seeds"]:
        link_folder(source / f"seed-{seed}", folder / f"seed-{seed}")
    write_text(folder / "settings.toml", (source / "settings.toml").read_text("utf-8"))
    grid = [
        {
            "overrides": list(point.varied),
            "folder": str(point.folder.relative_to(folder)),
            **({"metrics": one["metrics"]} if isinstance(one, dict) else {"failed": str(one)}),
        }
        for point, one in zip(points, summaries, strict=True)
    ]
    summary = {**finished[best], "grid": grid, "best": list(points[best].varied)}
    write_json(folder / "summary.json", summary)
    return summary


def link_folder(source: Path, target: Path) -> None:
    """Hard-link a folder's files to ``target``; copy them if the file system has no hard links."""

    def link(one: str, other: str) -> str:
        try:
            os.link(one, other)
        except OSError:
            shutil.copyfile(one, other)
        return other

    with atomic_folder(target) as temporary:
        shutil.copytree(source, temporary, copy_function=link, dirs_exist_ok=True)


def _mean(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.fmean(known) if known else None
