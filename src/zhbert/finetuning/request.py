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
    """How a run ended."""

    folder: Path
    summary: dict[str, Any]
    """What RUN/summary.json holds."""
    signal: int | None = None
    """SIGINT, SIGTERM or SIGHUP where one ended the run early; its state is saved."""


@dataclass(frozen=True)
class Split:
    """A file of the task, read."""

    path: Path
    examples: list[Example]


@dataclass(frozen=True, kw_only=True)
class FineTuningRequest:
    """What a run is to do."""

    card: TaskCard
    splits: dict[str, Split]
    """``train``, ``dev``, and what is scored with dev."""
    model_name: str
    """The model to start from, as the user named it."""
    model: Path
    """Its folder."""
    run_folder: RunFolder
    points: list[tuple[str, ...]]
    """The grid: the ``key=value`` texts of each of its points."""
    seeds: int
    say: Callable[[str], None]
    quiet: bool
    """Whether no progress is shown on stderr."""
