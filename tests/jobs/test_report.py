"""``zhbert report``: what is printed, what is written, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.report.run_folders import fine_tuning_run, pretraining_run

from zhbert import cli

FILES = ["report.csv", "report.html", "report.md"]


@pytest.fixture(autouse=True)
def _surroundings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def runs(tmp_path: Path) -> list[str]:
    """Two models on two tasks, a pretraining run, and one that is unfinished."""
    folders = [
        fine_tuning_run(tmp_path / f"{task}-{model}", task, model, right=[at, at], examples=50)
        for task in ("lcqmc", "cmrc2018")
        for model, at in (("char", 0.5), ("wwm", 0.9))
    ]
    folders.append(pretraining_run(tmp_path / "tiny", steps=100, planned=200))
    return [str(folder) for folder in folders]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_report_is_printed_and_written(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    assert cli.main(["report", *runs, "--out", str(out), "--base", "char"]) == 0
    assert names(out) == FILES
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert max(map(len, lines[:12])) <= 80
    assert [line.split()[:3] for line in lines if line.startswith(("lcqmc", "cmrc"))] == [
        ["lcqmc", "accuracy", "char"],
        ["cmrc2018", "f1", "char"],
        ["cmrc2018", "em", "char"],
    ]
    assert "larger than the noise" in printed.out
    assert "tiny: step 100, loss" in printed.out
    assert "unfinished: step 100 of 200" in printed.out
    assert f"written: {out / 'report.md'}" in printed.out
    assert "not the papers' protocol" in printed.err


def test_quiet_leaves_the_results(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", *runs, "--out", str(tmp_path / "report"), "--quiet"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert "lcqmc accuracy" in printed.out


def test_json_holds_scores_shares_and_differences(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    assert cli.main(["report", *runs, "--out", str(out), "--base", "char", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [Path(file).name for file in found["files"]] == [
        "report.md",
        "report.csv",
        "report.html",
    ]
    summary = json.loads(Path(runs[1], "summary.json").read_text())["metrics"]["accuracy"]
    (score,) = [one for one in found["scores"] if one["run"] == runs[1]]
    assert {key: score[key] for key in ("max", "mean", "std")} == pytest.approx(
        {key: summary[key] for key in ("max", "mean", "std")}
    )
    assert found["base"] == "char"
    assert [row["model"] for row in found["relative"]] == ["char", "wwm"]
    assert {one["task"]: one["larger_than_noise"] for one in found["differences"]} == {
        "lcqmc": True,
        "cmrc2018": True,
    }
    assert [run["finished"] for run in found["runs"]] == [True] * 4 + [False]


def test_a_folder_that_is_no_run_is_one_line(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "corpus").mkdir()
    out = tmp_path / "report"
    assert cli.main(["report", *runs, str(tmp_path / "corpus"), "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert f"{tmp_path / 'corpus'}: no run folder" in printed.err
    assert not out.exists()


def test_a_report_is_replaced_only_when_asked(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    arguments = ["report", runs[0], "--out", str(out)]
    assert cli.main(arguments) == 0
    before = (out / "report.html").read_text()
    assert cli.main(["report", *runs, "--out", str(out)]) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert (out / "report.html").read_text() == before
    assert cli.main(["report", *runs, "--out", str(out), "--overwrite"]) == 0
    assert (out / "report.html").read_text() != before
    assert names(out) == FILES


def test_what_is_no_report_is_never_replaced(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for out in (runs[0], str(tmp_path / "lcqmc-wwm" / "summary.json")):
        assert cli.main(["report", *runs, "--out", out, "--overwrite"]) == 2
    assert "not empty, and not a report" in capsys.readouterr().err
    assert Path(runs[0], "summary.json").is_file()


def test_the_same_runs_give_the_same_bytes(runs: list[str], tmp_path: Path) -> None:
    for name in ("a", "b"):
        assert cli.main(["report", *runs, "--out", str(tmp_path / name), "--base", "char"]) == 0
    for file in FILES:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_an_interrupted_report_leaves_nothing(
    runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from zhbert.report import write

    def interrupt(report: object) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(write, "page", interrupt)
    assert cli.main(["report", *runs, "--out", str(tmp_path / "report")]) == 130
    assert not [path for path in tmp_path.iterdir() if "report" in path.name]


def test_a_base_without_a_row_is_one_line(
    runs: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["report", *runs, "--out", str(tmp_path / "r"), "--base", "chars"]) == 2
    assert "--base chars: no such model here; did you mean 'char'?" in capsys.readouterr().err


@pytest.fixture
def no_runs_but_pretraining(tmp_path: Path) -> str:
    """A pretraining run."""
    return str(pretraining_run(tmp_path / "wwm", steps=30))


def test_pretraining_alone_is_a_report(
    no_runs_but_pretraining: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "report"
    assert cli.main(["report", no_runs_but_pretraining, "--out", str(out)]) == 0
    assert "Training loss" in (out / "report.html").read_text()
    assert "scores" not in capsys.readouterr().out
