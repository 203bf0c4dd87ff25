"""Differences between models: the same numbers as the bootstrap gives, with the right sign."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.report.run_folders import fine_tuning_run

from zhbert.report.build import gather
from zhbert.report.mistakes import predictions_of
from zhbert.report.runs import FineTuningRun, read_runs
from zhbert.report.write import markdown
from zhbert.tasks.bootstrap import compare
from zhbert.tasks.metrics import resampled_mean


def test_accuracy_is_compared_example_by_example(tmp_path: Path) -> None:
    folders = [
        fine_tuning_run(tmp_path / "a", "lcqmc", "good", right=[0.9, 0.95], examples=80),
        fine_tuning_run(tmp_path / "b", "lcqmc", "bad", right=[0.5, 0.55, 0.6], examples=80),
    ]
    (difference,) = gather(folders, "bad").differences
    tables = [
        [
            resampled_mean([100 * line["score"] for line in predictions_of(run, seed)])
            for seed in run.seeds
        ]
        for run in read_runs(folders)
        if isinstance(run, FineTuningRun)
    ]
    assert difference.result == compare(*tables, num_examples=80)
    assert difference.result.difference > 0
    assert difference.result.is_larger_than_noise
    assert "larger than noise" in markdown(gather(folders, "bad"))
    (other_way,) = gather(folders, "good").differences
    assert other_way.result is not None
    assert other_way.result.difference == -difference.result.difference


@pytest.mark.parametrize(
    "task",
    ["cola", "mrpc", "stsb_zh", "ner_peopledaily", "cmrc2018", "cmrc2018_embed", "ocnli_embed"],
)
def test_every_metric_is_compared_by_its_mean_over_seeds(tmp_path: Path, task: str) -> None:
    folders = [
        fine_tuning_run(tmp_path / name, task, name, right=[at, at + 0.05], examples=40)
        for name, at in (("a", 0.8), ("b", 0.6))
    ]
    report = gather(folders, "b")
    (difference,) = report.differences
    first, second = (run.scores[run.main_metric].mean for run in report.fine_tuning)
    assert difference.result is not None
    assert difference.result.difference == pytest.approx(first - second)


def test_a_difference_within_the_noise_is_called_so(tmp_path: Path) -> None:
    folders = [
        fine_tuning_run(tmp_path / name, "lcqmc", name, right=[0.6, 0.61], examples=30)
        for name in ("a", "b")
    ]
    report = gather(folders, "a")
    assert report.differences[0].result is not None
    assert not report.differences[0].result.is_larger_than_noise
    assert "within noise" in markdown(report)


def test_without_a_named_base_nothing_is_resampled(tmp_path: Path) -> None:
    folders = [fine_tuning_run(tmp_path / name, "lcqmc", name) for name in ("a", "b")]
    assert gather(folders).differences == ()


def test_missing_predictions_are_said(tmp_path: Path) -> None:
    folders = [fine_tuning_run(tmp_path / name, "lcqmc", name) for name in ("a", "b")]
    (folders[0] / "seed-1" / "predictions.jsonl").unlink()
    (difference,) = gather(folders, "a").differences
    assert difference.result is None
    assert difference.why_not == f"{folders[0]}: predictions.jsonl is missing or cut short"
