"""Progress of downloads: a bar with speed and remaining time, or nothing."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from zhbert import terminal

if TYPE_CHECKING:
    from rich.progress import Progress as Bar
    from rich.progress import TaskID


class DownloadProgress:
    """A receiver of progress that shows nothing; the base class of others."""

    def advance(self, stage: str, done: int, total: int | None) -> None:
        """Report ``done`` bytes of a stage; ``total`` is None if unknown."""

    def note(self, text: str) -> None:
        """Report a remark, such as the reason for a delay."""


class _Shown(DownloadProgress):
    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        self.tasks: dict[str, TaskID] = {}

    def advance(self, stage: str, done: int, total: int | None) -> None:
        if stage not in self.tasks:
            self.tasks[stage] = self.bar.add_task(stage, total=total)
        self.bar.update(self.tasks[stage], completed=done, total=total)

    def note(self, text: str) -> None:
        self.bar.console.print(f"note: {text}")


@contextmanager
def shown(quiet: bool) -> Iterator[DownloadProgress]:
    """Show remarks and a bar on stderr, or occasional lines in a pipe; nothing if ``quiet``."""
    if quiet:
        yield DownloadProgress()
        return
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    with terminal.progress(
        sys.stderr,
        quiet,
        TextColumn("{task.description}"),
        BarColumn(bar_width=16),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
        transient=True,
    ) as bar:
        yield _Shown(bar)
