"""Comparison of two runs of one task by a paired bootstrap over examples and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.report.mistakes import labels_of, predictions_of
from zhbert.report.runs import FineTuningRun, read_runs
from zhbert.report.scores import ModelRow
from zhbert.tasks.bootstrap import PairedComparison, compare
from zhbert.tasks.kinds import KINDS, kind_named
from zhbert.tasks.metrics import Resampled


@dataclass(frozen=True)
class ScoreDifference:
    """The difference between a model's mean score and the base's (model minus base)."""

    task: str
    metric: str
    model: str
    base: str
    result: PairedComparison | None
    why_not: str = ""
    """The reason for a missing result; empty if there is one."""
    examples: int = 0
    """The number of examples that both were scored on."""


def differences(rows: Sequence[ModelRow], base: ModelRow) -> list[ScoreDifference]:
    """Compare each model's runs with the base's, task by task, in the order of the base's runs."""
    result = []
    for theirs in base.runs:
        for row in rows:
            for run in row.runs:
                if row is not base and run.task == theirs.task:
                    result.append(difference(run, theirs))
    return result


def difference(run: FineTuningRun, base: FineTuningRun) -> ScoreDifference:
    """Compare two finished runs of one task, or give the reason why this is impossible."""

    def answer(
        found: PairedComparison | None, why_not: str = "", examples: int = 0
    ) -> ScoreDifference:
        names = run.task, base.main_metric, run.model, base.model
        return ScoreDifference(*names, found, why_not, examples)

    if run.dev_sha256 != base.dev_sha256:
        return answer(None, "scored on other examples")
    if run.main_metric != base.main_metric:
        return answer(None, "scored by other metrics")
    sides = []
    for one in (run, base):
        try:
            kind_named(one.kind, str(one.folder))
        except ZhbertError as error:
            return answer(None, str(error))
        try:
            sides.append(_resampled(one))
        except (KeyError, TypeError, ValueError, ZhbertError) as error:
            what = f"cannot be read ({type(error).__name__}: {error})"
            return answer(None, f"{one.folder}: predictions.jsonl {what}")
        if not sides[-1][1]:
            return answer(None, f"{one.folder}: predictions.jsonl is missing or cut short")
    (first, ids), (second, theirs) = sides
    if ids != theirs:
        # The file is the same, but the cards leave out different rows.
        return answer(None, f"scored on other examples of one file: {len(ids):,}, {len(theirs):,}")
    return answer(compare(first, second, num_examples=len(ids)), examples=len(ids))


def _resampled(run: FineTuningRun) -> tuple[list[Resampled], list[str]]:
    """Return each seed's main metric, as a function of resampled examples, and the example ids."""
    seeds = [predictions_of(run, seed) for seed in run.seeds]
    ids = [[str(line["id"]) for line in lines] for lines in seeds]
    if not ids or not ids[0] or any(theirs != ids[0] for theirs in ids):
        return [], []
    kind, labels = KINDS[run.kind], labels_of(run)
    metrics = [kind.resampled(run.main_metric, lines, labels) for lines in seeds]
    return metrics, ids[0]


def compare_runs(first: str | Path, second: str | Path) -> dict[str, Any]:
    """Compare two runs' mean scores by a paired bootstrap over examples and seeds.

    Raises ZhbertError if a folder is not a finished run, or the runs were not scored on the same
    examples.
    """
    a, b = _finished_run(first), _finished_run(second)
    if a.task != b.task:
        raise ZhbertError(
            f"--compare: {first} is a run of {a.task}, {second} of {b.task}: only runs of one task "
            "can be compared"
        )
    found = difference(a, b)
    if found.result is None:
        raise ZhbertError(f"--compare: {first} and {second}: {found.why_not}")
    names = ("difference", "low", "high", "flips", "confidence", "resamples")
    return {
        "task": a.task,
        "metric": a.main_metric,
        "split": a.split,
        "examples": found.examples,
        **{name: getattr(found.result, name) for name in names},
        "larger_than_noise": found.result.is_larger_than_noise,
        "a": _description(a),
        "b": _description(b),
    }


def _finished_run(folder: str | Path) -> FineTuningRun:
    (run,) = read_runs([folder])
    if not isinstance(run, FineTuningRun):
        raise ZhbertError(f"--compare: {folder}: not a run of 'zhbert finetune'")
    if run.main_metric not in run.scores or len(run.scores[run.main_metric].values) != len(
        run.seeds
    ):
        why = f": {run.remarks[0]}" if run.remarks else ""
        raise ZhbertError(f"--compare: {folder}: not a finished run{why}")
    return run


def _description(run: FineTuningRun) -> dict[str, Any]:
    return {
        "folder": str(run.folder),
        "model_name": run.model,
        "mean": run.scores[run.main_metric].mean,
        "seeds": len(run.seeds),
        "remarks": list(run.remarks),
    }
