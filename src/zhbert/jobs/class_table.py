"""Scores of each label as a table: what the verbs print that score predictions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zhbert.jobs import console

if TYPE_CHECKING:
    from zhbert.tasks.cards import Card

# A larger table of what was taken for what fits no window, and is read by nobody; --json has it.
MOST_CONFUSED = 8


def print_report(card: Card, report: Mapping[str, Any]) -> None:
    """Print what `scoring.report` says: a line for each label, averages, and what was confused."""
    shown = card.data.shown_labels
    named = {label: shown.get(label, label) for label in report["classes"]}
    what = "entity" if card.kind == "tag" else "label"
    table = console.table(what, ">precision", ">recall", ">f1", ">support")
    for label, row in report["classes"].items():
        table.add_row(named[label], *_cells(row))
    for average, row in report["averages"].items():
        table.add_row(f"{average} average", *_cells(row), style="bold")
    console.out().print(table)
    confusion = report.get("confusion")
    if confusion is None or not 1 < len(confusion) <= MOST_CONFUSED:
        return
    table = console.table("is \\ predicted")
    for label in report["classes"]:
        table.add_column(label, justify="right", overflow="fold")
    for label, counts in confusion.items():
        table.add_row(named[label], *(f"{counts.get(other, 0):,}" for other in confusion))
    console.out().print()
    console.out().print(table)


def _cells(row: Mapping[str, float]) -> list[str]:
    scores = [f"{row[name]:.2f}" for name in ("precision", "recall", "f1")]
    return [*scores, f"{row['support']:,}"]


__all__ = ["print_report"]
