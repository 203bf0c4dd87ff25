"""Run folders are read whole, half, and harmed; only a folder that is no run is refused."""

from __future__ import annotations

import json
import shutil
import statistics
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.report.run_folders import fine_tuning_run, pretraining_run, write_json

from zhbert.errors import ZhbertError
from zhbert.report.build import gather
from zhbert.report.page import page
from zhbert.report.runs import FineTuningRun, PretrainingRun, Spread, read_runs
from zhbert.report.write import comma_separated, markdown

SCORES = st.lists(st.floats(-100, 100), min_size=2, max_size=10)


def read(folder: Path) -> Any:
    (run,) = read_runs([folder])
    return run


def everything(*folders: Path) -> str:
    """All forms of a report, one after the other."""
    report = gather(list(folders))
    return page(report) + markdown(report) + comma_separated(report)


@given(SCORES)
def test_a_spread_is_what_numpy_says(values: list[float]) -> None:
    spread = Spread(tuple(values))
    assert spread.max == max(values)
    assert spread.mean == pytest.approx(np.mean(values), abs=1e-9)
    assert spread.std == pytest.approx(np.std(values, ddof=1), abs=1e-6)


def test_one_seed_has_no_deviation() -> None:
    assert Spread((83.5,)).std is None


def test_scores_are_counted_from_the_values_of_the_seeds(tmp_path: Path) -> None:
    folder = fine_tuning_run(tmp_path / "run")
    path = folder / "summary.json"
    summary = json.loads(path.read_text())
    summary["metrics"]["accuracy"] |= {"max": 99.0, "mean": 98.0, "std": 0.0}
    write_json(path, summary)
    values = summary["metrics"]["accuracy"]["values"]
    score = read(folder).scores["accuracy"]
    assert (score.max, score.mean, score.std) == (
        max(values),
        statistics.fmean(values),
        statistics.stdev(values),
    )


def test_a_metric_that_some_seeds_lack_is_no_score(tmp_path: Path) -> None:
    metrics = {"accuracy": {"values": [80.0, None, 82.0]}}
    run = read(fine_tuning_run(tmp_path / "run", metrics=metrics))
    assert run.scores == {}
    assert f"{tmp_path / 'run' / 'summary.json'}: holds no scores" in run.remarks


def test_a_run_has_its_curves_and_its_card(tmp_path: Path) -> None:
    run = read(fine_tuning_run(tmp_path / "run", "ocnli"))
    assert isinstance(run, FineTuningRun)
    assert run.task == "ocnli"
    assert run.card is not None
    assert run.card.data.labels == ("entailment", "neutral", "contradiction")
    assert list(run.curves) == [0, 1, 2]
    epochs, values = zip(*run.curves[1], strict=True)
    assert epochs == (1.0, 2.0, 3.0)
    assert values[-1] == run.scores["accuracy"].values[1]


def test_a_pretraining_run_has_its_curves(tmp_path: Path) -> None:
    run = read(pretraining_run(tmp_path / "wwm", steps=200, planned=300))
    assert isinstance(run, PretrainingRun)
    assert (run.name, run.last_step, run.finished) == ("wwm", 200, False)
    assert run.remarks == ("unfinished: step 200 of 300",)
    assert run.losses[0] == pytest.approx(9.5)
    assert [one.step for one in run.evaluations["char"]] == [100, 200]
    assert read(pretraining_run(tmp_path / "char")).finished


def test_an_unfinished_run_is_listed_with_what_it_has(tmp_path: Path) -> None:
    folder = fine_tuning_run(tmp_path / "run", "lcqmc", "models/wwm/final")
    (folder / "summary.json").unlink()
    run = read(folder)
    assert not run.finished
    assert (run.task, run.model) == ("lcqmc", "models/wwm/final")
    assert len(run.curves) == 3
    assert "unfinished: no seed is done" in everything(folder)


def test_an_unfinished_grid_says_how_far_it_came(tmp_path: Path) -> None:
    folder = fine_tuning_run(tmp_path / "run")
    (folder / "grid" / "epochs=3").mkdir(parents=True)
    (folder / "summary.json").rename(folder / "grid" / "epochs=3" / "summary.json")
    assert read(folder).remarks == ("unfinished: points of its grid with a score so far: 1",)


def test_a_seed_that_is_not_done_is_named(tmp_path: Path) -> None:
    folder = fine_tuning_run(tmp_path / "run", seeds=[0, 2])
    assert read(folder).remarks == ("unfinished: seeds begun: 1; seeds done: 2",)


def test_a_run_given_twice_counts_once(tmp_path: Path) -> None:
    folder = fine_tuning_run(tmp_path / "run")
    assert len(read_runs([folder, tmp_path / "." / "run", folder / ".." / "run"])) == 1


def test_one_model_has_one_name_and_two_have_two(tmp_path: Path) -> None:
    first = fine_tuning_run(tmp_path / "a", "lcqmc", "x/small")
    second = fine_tuning_run(tmp_path / "b", "ocnli", "x/small")
    other = fine_tuning_run(tmp_path / "c", "ocnli", "y/small")
    again = fine_tuning_run(tmp_path / "d", "lcqmc", "x/small")
    names = [run.model for run in read_runs([first, second, other, again])]
    assert names == ["small", "small", "y/small", "small (d)"]


def test_an_unfinished_run_has_the_name_of_its_model(tmp_path: Path) -> None:
    begun = fine_tuning_run(tmp_path / "a", "lcqmc", "x/small")
    (begun / "summary.json").unlink()
    done = fine_tuning_run(tmp_path / "b", "ocnli", "x/small")
    assert [run.model for run in read_runs([begun, done])] == ["small", "small"]


def test_pretraining_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    folders = [pretraining_run(tmp_path / name / "wwm", steps=3) for name in ("a", "b")]
    names = [run.name for run in read_runs(folders)]
    assert names == ["wwm", str(folders[1])]


# -- what is no run --------------------------------------------------------------------------------


@pytest.mark.parametrize("make", ["nothing", "file", "empty", "inside", "above"])
def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, make: str) -> None:
    run = fine_tuning_run(tmp_path / "runs" / "one", right=[0.5], examples=5)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    cases = {
        "nothing": (tmp_path / "nothing", "no such folder"),
        "file": (tmp_path / "file", "a file"),
        "empty": (tmp_path / "empty", "neither task.toml nor recipe.toml"),
        "inside": (run / "seed-0", f"its run is {run}"),
        "above": (tmp_path / "runs", "it holds runs"),
    }
    folder, expected = cases[make]
    with pytest.raises(ZhbertError, match=expected) as refused:
        read_runs([run, folder])
    assert "\n" not in str(refused.value)
    assert str(refused.value).startswith(f"{folder}: ")


# -- harm ------------------------------------------------------------------------------------------

HARM = (None, b"", b"{", b"null", b"[]", b"{}", b"[1, 2]\n{}\n", b"\xff\xfe\x00", b'"text"')


@pytest.mark.parametrize("harm", HARM)
@pytest.mark.parametrize("task", ["lcqmc", "ner_peopledaily", "cmrc2018", "stsb_zh"])
def test_no_harmed_file_stops_a_report(tmp_path: Path, task: str, harm: bytes | None) -> None:
    whole = fine_tuning_run(tmp_path / "whole", task, right=[0.5, 0.6], examples=5)
    other = fine_tuning_run(tmp_path / "other", task, "char", right=[0.5], examples=5)
    files = [path.relative_to(whole) for path in whole.rglob("*.*") if path.is_file()]
    for name in files:
        folder = tmp_path / "harmed"
        shutil.copytree(whole, folder)
        if harm is not None:
            (folder / name).write_bytes(harm)
        elif str(name) != "task.toml":
            (folder / name).unlink()
        report = gather([other, folder], base="char")
        assert "harmed" in page(report), name
        shutil.rmtree(folder)


@pytest.mark.parametrize("harm", HARM)
def test_no_harmed_file_stops_a_report_of_pretraining(tmp_path: Path, harm: bytes | None) -> None:
    for name in ("metrics.jsonl", "provenance.json", "recipe.toml"):
        folder = pretraining_run(tmp_path / name, steps=20)
        if harm is not None:
            (folder / name).write_bytes(harm)
        elif name != "recipe.toml":
            (folder / name).unlink()
        assert name in everything(folder)


@pytest.mark.parametrize("value", [None, True, -1, 1e999, "", "x", [], {}, [None], {"a": {}}])
def test_no_odd_value_stops_a_report(tmp_path: Path, value: Any) -> None:
    folder = fine_tuning_run(
        tmp_path / "run", "cmrc2018", right=[0.5], examples=3, grid=[], best=[]
    )
    whole = json.loads((folder / "summary.json").read_text())
    for key in whole:
        write_json(folder / "summary.json", {**whole, key: value})
        assert everything(folder)
    write_json(folder / "summary.json", whole)
    path = folder / "seed-0" / "predictions.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    for key in lines[0]:
        path.write_text("".join(json.dumps({**line, key: value}) + "\n" for line in lines))
        assert everything(folder)


def test_a_run_whose_loss_became_nan_is_drawn_up_to_there(tmp_path: Path) -> None:
    folder = pretraining_run(tmp_path / "run", steps=50, planned=60)
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"step": 51, "masked_lm_loss": NaN}\n{"step": 52, "masked_lm_loss": 1e300}\n')
        file.write('{"step": 53, "masked_lm')
    run = read(folder)
    assert run.last_step == 52
    assert "NaN" not in everything(folder)
    assert not any("damaged" in remark for remark in run.remarks)  # it may be writing that line
    with (folder / "metrics.jsonl").open("ab") as file:
        file.write(b'\xff\n[]\n{"step": 54, "masked_lm_loss": 1}\n')
    again = read(folder)
    assert again.last_step == 54
    assert f"{folder / 'metrics.jsonl'}: 2 damaged lines left out" in again.remarks
    assert "nan" not in page(gather([folder])).split("</style>")[1]


def test_reading_a_run_needs_no_torch() -> None:
    import subprocess
    import sys

    code = (
        "import sys, zhbert.report.write, zhbert.report.page, zhbert.jobs.report;"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
