"""The request for a fine-tuning run, and its result."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhbert.runs.folder import RunFolder
from zhbert.tasks.card import TaskCard
from zhbert.tasks.examples import Example


@dataclass(frozen=True)
class FineTuningResult:
    """The outcome of a fine-tuning run."""

    folder: Path
    summary: dict[str, Any]
    """The content of RUN/summary.json."""
    signal: int | None = None
    """SIGINT, SIGTERM or SIGHUP if one ended the run early; its state is saved."""


@dataclass(frozen=True)
class Split:
    """One file of the task and its examples."""

    path: Path
    examples: list[Example]


@dataclass(frozen=True, kw_only=True)
class FineTuningRequest:
    """The task, data, model, settings and folder of a run."""

    card: TaskCard
    splits: dict[str, Split]
    """``train``, ``dev``, and further splits that are scored together with dev."""
    model_name: str
    """The model to start from, as the user named it."""
    model: Path
    """Its folder."""
    run_folder: RunFolder
    points: list[tuple[str, ...]]
    """The ``key=value`` texts of each point of the grid."""
    seeds: int
    say: Callable[[str], None]
    quiet: bool
    """Show no progress on stderr."""
