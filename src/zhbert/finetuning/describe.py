"""What a fine-tuning run says of its examples, settings and result."""

from __future__ import annotations

import os
import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from zhbert.schema import flatten
from zhbert.tasks.read import Example, SpanExample, TagExample
from zhbert.tasks.schemes import scheme_of
from zhbert.tasks.settings import FineTuningSettings
from zhbert.wording import counted


def describe_summary(summary: Mapping[str, Any], folder: Path) -> list[str]:
    """A run's result as people read it: maximum (mean) ± standard deviation."""
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


def describe_examples(examples: Sequence[Example], labels: Sequence[str] = ()) -> str:
    """How many there are, and of what; of tags ``labels`` are the task's.

    >>> from zhbert.tasks.read import TextExample
    >>> describe_examples([TextExample("0", "好", label="1"), TextExample("1", "差", label="0")])
    '2 examples, labels: 0 (1), 1 (1)'
    """
    first, count = examples[0], counted(len(examples), "example")
    if isinstance(first, SpanExample):
        what, found = "answers", Counter(getattr(one, "kind", None) for one in examples)
    elif isinstance(first, TagExample):
        rows = (getattr(one, "tags", None) or () for one in examples)
        scheme = scheme_of(labels)
        what, found = "entities", Counter(kind for row in rows for kind, *_ in scheme.entities(row))
    elif first.value is not None:
        values = [getattr(one, "value", 0.0) for one in examples]
        return f"{count}, numbers: {min(values):g} to {max(values):g}"
    else:
        given = (getattr(one, "labels", None) or (getattr(one, "label", None),) for one in examples)
        what, found = "labels", Counter(label for labels in given for label in labels)
    named = ", ".join(
        f"{name or 'none'} ({number:,})" for name, number in sorted(found.items(), key=str)
    )
    return f"{count}, {what}: {named or 'none'}"


def describe_settings(settings: FineTuningSettings, *, spans: bool) -> list[str]:
    """The settings that matter, in lines of 80 columns: the usual ones, and what was changed."""
    usual, flat = flatten(FineTuningSettings()), flatten(settings)
    always = ["epochs", "sequence_length", "batch_size", "optimizer.learning_rate"]
    always += ["optimizer.warmup_share", *(["doc_stride", "max_answer_length"] if spans else [])]
    hidden = set() if spans else {"doc_stride", "max_answer_length"}
    words = [
        f"{key}={value:g}" if isinstance(value, float) else f"{key}={value}"
        for key, value in flat.items()
        if key in always or (value != usual[key] and key not in hidden)
    ]
    return textwrap.wrap("settings: " + " ".join(words), 80, subsequent_indent="  ",
                         break_on_hyphens=False)  # fmt: skip


def short_name(model: str) -> str:
    """A model's name for tables: of runs/x/final, x.

    >>> short_name("runs/tiny/final"), short_name("hfl/rbt3"), short_name("BERT-Mini/")
    ('tiny', 'rbt3', 'BERT-Mini')
    """
    parts = [part for part in model.replace(os.sep, "/").split("/") if part not in ("", ".")]
    while len(parts) > 1 and (parts[-1] == "final" or parts[-1].startswith("seed-")):
        parts.pop()
    return parts[-1] if parts else model
