"""Printing for verbs: tables and progress bars by rich, JSON for machines."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from zhbert import terminal
from zhbert.files import to_json
from zhbert.wording import counted

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table


# A confusion matrix of more labels does not fit into a window; --json has it in full.
_MOST_CONFUSED = 8


def out() -> Console:
    """Return a console on stdout, for results."""
    return terminal.console(sys.stdout)


def err() -> Console:
    """Return a console on stderr, for progress and remarks."""
    return terminal.console(sys.stderr)


def data() -> TextIO:
    """Return stdout for data: unchanged into a pipe, control characters escaped on a terminal."""
    return sys.stdout if sys.stdout.isatty() else terminal.unescaped(sys.stdout)


def progress(quiet: bool, *columns: Any) -> Progress:
    """Return a progress display on stderr; it shows nothing if ``quiet``."""
    return terminal.progress(sys.stderr, quiet, *columns)


def table(*headings: str) -> Table:
    """Return a table without lines.

    A heading that begins with ``>`` is aligned to the right, for numbers; neither it nor one that
    begins with ``=`` is ever wrapped. In a narrow window other columns are wrapped, inside words
    if need be, so that nothing is cut off.
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
    """Return a two-column grid of labels and texts; the first is at least ``width`` wide."""
    from rich.table import Table

    made = Table.grid(padding=(0, 2))
    made.add_column(no_wrap=True, min_width=width)
    # rich's other overflow methods cut off a character if a wide one stands at the end of a line.
    made.add_column(overflow="fold")
    for label, text in rows:
        made.add_row(label, text)
    return made


def print_json(value: Any) -> None:
    """Print ``value`` as one JSON document on stdout."""
    sys.stdout.write(to_json(value, indent=2) + "\n")


def print_class_report(
    report: Mapping[str, Any], shown: Mapping[str, str], class_name: str
) -> None:
    """Print a report of `zhbert.tasks.scoring.report`: scores by label, averages, confusions."""
    named = {label: shown.get(label, label) for label in report["classes"]}
    made = table(class_name, ">precision", ">recall", ">f1", ">support")
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


def print_coverage(found: Mapping[str, Any]) -> None:
    """Print what `text.coverage.compare_coverage` returns: pieces and [UNK] before and after."""
    made = table(f"=the text, {counted(found['characters'], 'character')}", ">before", ">after")
    for label, key, form in (
        ("pieces", "pieces", ","),
        ("pieces for a character", "pieces_per_character", ".3f"),
        ("[UNK]", "unknown", ","),
        ("share of [UNK]", "unknown_share", ".4%"),
    ):
        made.add_row(label, *(format(found[side][key], form) for side in ("before", "after")))
    out().print(made)
    out().print()


def _cells(row: Mapping[str, float]) -> list[str]:
    scores = [f"{row[name]:.2f}" for name in ("precision", "recall", "f1")]
    return [*scores, f"{row['support']:,}"]
