"""Comparison of two runs of one task by a paired bootstrap over examples and seeds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.report.mistakes import labels_of, predictions_of
from zhbert.report.runs import FineTuningRun, NamedTeacher, read_runs
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


@dataclass(frozen=True)
class Distillation:
    """A distilled student beside its teacher and the same student alone."""

    student: FineTuningRun
    teacher: str
    """The best of its teachers."""
    taught: float | None
    """The teacher's main metric on dev, of the seed that taught; None: its run is not here."""
    alone: FineTuningRun | None
    """A run of the same task from the same weights without a teacher, beside the same other tasks
    if there is one; None: it is not here."""
    difference: ScoreDifference | None
    """The student less the student alone."""

    @property
    def gain_and_gap(self) -> tuple[float, float] | None:
        """By how much student and teacher are better than the student alone; None if the teacher is
        not, or if one of them is not here."""
        found = self.difference.result if self.difference else None
        if found is None or self.alone is None or self.taught is None:
            return None
        gap = self.taught - mean_of(self.alone)
        return (found.difference, gap) if gap > 0 else None

    @property
    def closed(self) -> float | None:
        """How much of the gap between teacher and student alone is closed, in per cent."""
        return share_closed([self.gain_and_gap] if self.gain_and_gap else [])


def share_closed(gains_and_gaps: Sequence[tuple[float, float]]) -> float | None:
    """Return the gains as a share of the gaps, in per cent; None if there are none.

    The sums are divided, since the share of a very small gap can be any number.

    >>> share_closed([(3.0, 3.5), (0.5, 0.5)])
    87.5
    """
    if not gains_and_gaps:
        return None
    gains, gaps = map(sum, zip(*gains_and_gaps, strict=True))
    return 100 * gains / gaps


def distillations(runs: Sequence[FineTuningRun]) -> list[Distillation]:
    """Find the teacher of each distilled run, and the student alone, among ``runs``."""
    finished = [run for run in runs if run.main_metric in run.scores]
    found = []
    for student in finished:
        if not student.teachers:
            continue
        same = [run for run in finished if run.scored == student.scored]
        scores = {one.name: _score_of(one, same) for one in student.teachers}
        teacher = max(scores, key=lambda name: scores[name] or 0.0)
        untaught = [one for one in same if one.model_key == student.model_key and not one.teachers]
        # Of several tasks, what a teacher adds is the difference from the same tasks without one.
        alike = (one for one in untaught if one.together in (student.together, ()))
        alone = min(alike, key=lambda one: one.together != student.together, default=None)
        less = None if alone is None else difference(student, alone)
        found.append(Distillation(student, teacher, scores[teacher], alone, less))
    return found


def _score_of(teacher: NamedTeacher, runs: Sequence[FineTuningRun]) -> float | None:
    """Return the main metric of the seed whose model taught, of the run that it belongs to."""
    for run in runs:
        values = run.scores[run.main_metric].values
        for seed, value in zip(run.seeds, values, strict=False):
            if (run.folder / f"seed-{seed}" / "final").resolve() == teacher.folder.resolve():
                return value
    return None


def mean_of(run: FineTuningRun) -> float:
    """Return the mean of the main metric over the seeds."""
    return run.scores[run.main_metric].mean


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
        "same_weights_at_first": a.model_key == b.model_key,
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
        "mean": mean_of(run),
        "seeds": len(run.seeds),
        "remarks": list(run.remarks),
    }
