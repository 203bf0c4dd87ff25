"""Descriptions of a fine-tuning run for the terminal: its examples, settings and result."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.schema import flatten
from zhbert.tasks.kinds import KINDS, Kind
from zhbert.tasks.settings import FineTuningSettings
from zhbert.wording import counted

if TYPE_CHECKING:
    from zhbert.tasks.card import TaskCard
    from zhbert.tasks.examples import Example


def describe_summary(summary: Mapping[str, Any], folder: Path) -> list[str]:
    """Return a run's result as lines of text: maximum (mean) ± standard deviation."""
    lines = []
    for point in summary.get("grid", ()):
        found = "failed"
        if "metrics" in point:
            found = f"{point['metrics'][summary['main_metric']]['mean']:.2f}"
        mark = "  best on dev" if point["overrides"] == summary["best"] else ""
        lines.append(f"{' '.join(point['overrides'])}  {found}{mark}")
    width = max(map(len, summary["metrics"]))
    for name, spread in summary["metrics"].items():
        lines.append(
            f"{name:<{width}}  {spread['max']:.2f} ({spread['mean']:.2f}) ± {spread['std']:.2f}"
        )
    lines.append(
        f"{summary['task']}, {summary['model_name']}, {summary['split']}: maximum (mean) ± "
        f"standard deviation of {counted(len(summary['seeds']), 'seed')}; {folder}"
    )
    if summary["split_note"]:
        lines.append(summary["split_note"])
    lines += summary["further_split_notes"].values()
    return lines


def describe_examples(card: TaskCard, examples: Sequence[Example]) -> str:
    """Return the number of examples and, depending on the task, of each label.

    >>> from zhbert.tasks.cards import load_card
    >>> from zhbert.tasks.examples import TextExample
    >>> examples = [TextExample("0", "好", label="1"), TextExample("1", "差", label="0")]
    >>> describe_examples(load_card("chnsenticorp"), examples)
    '2 examples, labels: 0 (1), 1 (1)'
    """
    what = KINDS[card.kind].describe_all(card, examples)
    return f"{counted(len(examples), 'example')}, {what}"


def describe_settings(settings: FineTuningSettings, kind: Kind) -> list[str]:
    """Return the most important settings and every changed one, in lines of 80 columns.

    What is learnt from teachers is described elsewhere.
    """
    usual, flat = flatten(FineTuningSettings()), flatten(settings)
    always = ["epochs", "sequence_length", "batch_size", "optimizer.learning_rate"]
    always += ["optimizer.warmup_share", *sorted(kind.own_settings)]
    hidden = {key for other in KINDS.values() for key in other.own_settings} - kind.own_settings
    words = [
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in flat.items()
        # Of the settings of one kind, those that ask for nothing are left out.
        if (key in always and value not in ("", 0))
        or (value != usual.get(key) and key not in hidden and not key.startswith("distill."))
    ]
    return textwrap.wrap("settings: " + " ".join(words), 80, subsequent_indent="  ",
                         break_on_hyphens=False)  # fmt: skip
