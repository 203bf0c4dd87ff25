"""Two finished fine-tuning runs of one task: is the difference larger than the noise?"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.errors import ZhbertError
from zhbert.wording import counted

if TYPE_CHECKING:
    from zhbert.report.runs import FineTuningRun


def print_comparison(first: str | Path, second: str | Path, *, as_json: bool) -> int:
    """Print how two runs differ."""
    from zhbert import console

    result = compare_runs(first, second)
    if as_json:
        console.print_json(result)
        return 0
    for name in ("a", "b"):
        one = result[name]
        sys.stdout.write(
            f"{name.upper()}  {one['mean']:.2f}  {one['model_name']}, "
            f"{counted(one['seeds'], 'seed')} ({one['folder']})\n"
        )
        for remark in one["remarks"]:
            console.say(f"{one['folder']}: {remark}")
    verdict = "larger" if result["larger_than_noise"] else "not larger"
    sys.stdout.write(
        f"A - B  {result['metric']} {result['difference']:+.2f} points, "
        f"{result['confidence']:.0%} interval {result['low']:+.2f} to {result['high']:+.2f}: "
        f"{verdict} than the noise\n"
        f"{counted(result['resamples'], 'resample')} of "
        f"{counted(result['examples'], 'example')} of "
        f"{result['task']}'s {result['split']} and of the seeds\n"
    )
    if result["a"]["model_name"] != result["b"]["model_name"]:
        sys.stdout.write(
            "about these two models: others, pretrained in the same ways with other seeds, may "
            "differ by more\n"
        )
    return 0


def compare_runs(first: str | Path, second: str | Path) -> dict[str, Any]:
    """The difference of two runs' mean scores, by a paired bootstrap over examples and seeds.

    Raises ZhbertError where a folder is no finished run, or the two were not scored on the same
    examples.
    """
    from zhbert.report.comparison import difference

    a, b = _read(first), _read(second)
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


def _read(folder: str | Path) -> FineTuningRun:
    from zhbert.report.runs import FineTuningRun, read_runs

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
