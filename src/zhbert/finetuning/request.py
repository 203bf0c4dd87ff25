"""The request for a fine-tuning run, and its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhbert.config import DistillSettings
from zhbert.runs.folder import RunFolder
from zhbert.tasks.card import TaskCard
from zhbert.tasks.examples import Example


@dataclass(frozen=True)
class FineTuningResult:
    """The outcome of a fine-tuning run."""

    folder: Path
    summary: dict[str, Any]
    """The content of RUN/summary.json; of several tasks, that of each, by name, in ``tasks``."""
    signal: int | None = None
    """SIGINT, SIGTERM or SIGHUP if one ended the run early; its state is saved."""


@dataclass(frozen=True)
class Split:
    """One file of the task and its examples."""

    path: Path
    examples: list[Example]
    card: TaskCard
    """The card by which the file was read: the run's, or one that it names."""
    name: str
    """The split's name in that card."""
    haystack: Mapping[str, Path] = field(default_factory=dict)
    """The files of further splits among whose passages those of this split are searched."""


@dataclass(frozen=True, kw_only=True)
class FineTuningRequest:
    """The task, data, model, settings and folder of a run."""

    card: TaskCard
    train: dict[str, Split]
    """What is trained on: ``train``, and ``train NAME`` for each other card."""
    scored: dict[str, Split]
    """``dev``; further splits, by name, and other cards' dev, by the card's name."""
    model_name: str
    """The model to start from, as the user named it."""
    model: Path
    """Its folder."""
    teachers: dict[str, Path] = field(default_factory=dict)
    """The folders of the models to learn from, by the names that the user gave."""
    distill: DistillSettings | None = None
    """How to learn from them, before overrides; None if there are none."""
    run_folder: RunFolder
    points: list[tuple[str, ...]]
    """The ``key=value`` texts of each point of the grid."""
    seeds: int
    say: Callable[[str], None]
    quiet: bool
    """Show no progress on stderr."""
    together: tuple[str, ...] = ()
    """The names of all tasks that share the encoder; empty for one alone."""

    @property
    def splits(self) -> dict[str, Split]:
        """All splits."""
        return {**self.train, **self.scored}

    @property
    def files(self) -> dict[str, Path]:
        """All files of examples, by what they are."""
        files = {name: split.path for name, split in self.splits.items()}
        for name, split in self.scored.items():
            for other, path in split.haystack.items():
                if path not in files.values():
                    files[f"{name} haystack {other}"] = path
        return files
