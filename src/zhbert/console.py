"""What the verbs print with: tables and progress through rich, JSON for machines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from zhbert import terminal
from zhbert.files import to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table

    from zhbert.tasks.cards import TaskCard

# A larger table of what was taken for what fits no window, and is read by nobody; --json has it.
_MOST_CONFUSED = 8


def out() -> Console:
    """A console on stdout: results."""
    return terminal.console(sys.stdout)


def err() -> Console:
    """A console on stderr: progress and remarks."""
    return terminal.console(sys.stderr)


def data() -> TextIO:
    """Where data goes: as it is into a pipe, for another program; made printable on a terminal."""
    return sys.stdout if sys.stdout.isatty() else terminal.unescaped(sys.stdout)


def say(line: str) -> None:
    """A remark on stderr; in a terminal its lines are broken between words."""
    err().print(line)


def progress(quiet: bool, *columns: Any) -> Progress:
    """A progress display on stderr; silent when ``quiet``."""
    return terminal.progress(sys.stderr, quiet, *columns)


def table(*headings: str) -> Table:
    """A table without lines. ``>`` before a heading: numbers, to the right; ``=``: never broken.

    In a narrow window the other columns are broken, inside a word too: nothing of them is hidden.
    """
    from rich.table import Table

    made = Table(box=None, pad_edge=False)
    for heading in headings:
        if heading.startswith((">", "=")):
            side = "right" if heading.startswith(">") else "left"
            made.add_column(heading[1:], justify=side, no_wrap=True)  # type: ignore[arg-type]
        else:
            made.add_column(heading, overflow="fold")
    return made


def facts(rows: Iterable[tuple[str, str]], width: int) -> Table:
    """Labels in a column of at least ``width``, and beside each what it names."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True, min_width=width)
    # The other ways cut a letter off where wide characters stand at a line's end.
    made.add_column(overflow="fold")
    for label, text in rows:
        made.add_row(label, text)
    return made


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(to_json(value, indent=2) + "\n")


def print_class_report(card: TaskCard, report: Mapping[str, Any]) -> None:
    """Print what `scoring.report` says: a line for each label, averages, and what was confused."""
    shown = card.data.shown_labels
    named = {label: shown.get(label, label) for label in report["classes"]}
    what = "entity" if card.kind == "tag" else "label"
    made = table(what, ">precision", ">recall", ">f1", ">support")
    for label, row in report["classes"].items():
        made.add_row(named[label], *_cells(row))
    for average, row in report["averages"].items():
        made.add_row(f"{average} average", *_cells(row), style="bold")
    out().print(made)
    confusion = report.get("confusion")
    if confusion is None or not 1 < len(confusion) <= _MOST_CONFUSED:
        return
    made = table("is \\ predicted")
    for label in report["classes"]:
        made.add_column(label, justify="right", overflow="fold")
    for label, counts in confusion.items():
        made.add_row(named[label], *(f"{counts.get(other, 0):,}" for other in confusion))
    out().print()
    out().print(made)


def _cells(row: Mapping[str, float]) -> list[str]:
    scores = [f"{row[name]:.2f}" for name in ("precision", "recall", "f1")]
    return [*scores, f"{row['support']:,}"]
