"""Two finished fine-tuning runs of one task: is the difference larger than the noise?"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.tasks.bootstrap import compare
from zhbert.tasks.metrics import Resampled, resampled_predictions
from zhbert.wording import counted


def print_comparison(first: str | Path, second: str | Path, *, as_json: bool) -> int:
    """Print how two runs differ."""
    from zhbert.jobs import console

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
    verdict = "larger" if result["larger_than_noise"] else "not larger"
    sys.stdout.write(
        f"A - B  {result['metric']} {result['difference']:+.2f} points, "
        f"{result['confidence']:.0%} interval {result['low']:+.2f} to {result['high']:+.2f}: "
        f"{verdict} than the noise\n"
        f"{result['resamples']:,} resamples of {result['examples']:,} examples of "
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
    runs = [_Scored(Path(first)), _Scored(Path(second))]
    a, b = (one.summary for one in runs)
    for key, what in (("task", "tasks"), ("dev_sha256", "examples"), ("main_metric", "metrics")):
        if a[key] != b[key]:
            raise ZhbertError(
                f"--compare: {first} and {second} were scored on other {what} "
                f"({str(a[key])[:12]}, {str(b[key])[:12]}); only runs of the same can be compared"
            )
    result = compare(runs[0].metrics, runs[1].metrics, num_examples=a["dev_examples"])
    names = ("difference", "low", "high", "flips", "confidence", "resamples")
    values = dataclasses.asdict(result)
    return {
        "task": a["task"],
        "metric": a["main_metric"],
        "split": a["split"],
        "examples": a["dev_examples"],
        **{name: values[name] for name in names},
        "larger_than_noise": result.is_larger_than_noise,
        "a": runs[0].description,
        "b": runs[1].description,
    }


class _Scored:
    """A run's main metric as a function of resampled examples, one for each seed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        try:
            self.summary: dict[str, Any] = json.loads(
                (folder / "summary.json").read_text(encoding="utf-8")
            )
            self.metrics = [self._metric(seed) for seed in self.summary["seeds"]]
        except FileNotFoundError as error:
            lacking = Path(error.filename).relative_to(folder)
            raise ZhbertError(
                f"--compare: {folder}: not a finished run of 'zhbert finetune': no {lacking} there"
            ) from None
        except (OSError, ValueError, KeyError) as error:
            raise ZhbertError(
                f"--compare: {folder}: damaged ({error}); the same 'zhbert finetune' again, with "
                "--overwrite, makes it anew"
            ) from None

    @property
    def description(self) -> dict[str, Any]:
        """Who this is."""
        summary = self.summary
        return {
            "folder": str(self.folder),
            "model_name": summary["model_name"],
            "mean": summary["metrics"][summary["main_metric"]]["mean"],
            "seeds": len(summary["seeds"]),
        }

    def _metric(self, seed: int) -> Resampled:
        summary = self.summary
        lines = list(_lines(self.folder / f"seed-{seed}" / "predictions.jsonl"))
        name, kind = summary["main_metric"], summary["kind"]
        labels = summary["labels"] if (kind, name) == ("classify", "f1") else ()
        return resampled_predictions(kind, name, lines, labels)


def _lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8", newline="\n") as file:
        for line in file:
            yield json.loads(line)
