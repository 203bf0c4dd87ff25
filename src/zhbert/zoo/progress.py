"""The progress of a download: a bar with speed and time left, or nothing."""

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
    """Is called with the progress of the work; this one shows nothing."""

    def advance(self, stage: str, done: int, total: int | None) -> None:
        """So many bytes of a stage are done; ``total`` is None where it is not known."""

    def note(self, text: str) -> None:
        """A remark, such as why it takes longer than expected."""


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
    """Progress on stderr: remarks and a bar, in a pipe a line now and then; ``quiet``: neither."""
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
