"""Runs and models survive kills, full disks and signals, and the advice on them works."""

from __future__ import annotations

import functools
import os
import shutil
import signal
from pathlib import Path

import pytest
from tests.killing import at_most, every_kill, one_line
from tests.small_corpora import TINY
from tests.small_models import make_model
from tests.small_tasks import QUICK, make_task
from tests.small_tasks import make_model as make_small

from zhbert.cli import main
from zhbert.errors import Interrupted
from zhbert.pretraining.run import pretrain

STEP = 13

# Python 3.12 warns of forking where threads run; none are left here when a child is made.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_run_goes_on_after_a_kill_anywhere(corpus: Path, tmp_path: Path, overwrite: bool) -> None:
    overrides = [*TINY, "steps=2", "checkpoint_every=1", "evaluate_every=2"]
    run, whole = tmp_path / "runs" / "killed", tmp_path / "whole"
    pretrain("tiny", corpus, whole, overrides)
    names = sorted(path.relative_to(whole) for path in whole.rglob("*"))

    def former() -> None:
        if overwrite:
            shutil.copytree(whole, run)

    former()
    # A prime, by which all kinds of operations are met.
    for kill in every_kill(
        lambda: pretrain("tiny", corpus, run, overrides, overwrite=overwrite), step=STEP
    ):
        resume = not overwrite and (run / "recipe.toml").is_file()
        pretrain("tiny", corpus, run, overrides, resume=resume, overwrite=overwrite)
        assert sorted(path.relative_to(run) for path in run.rglob("*")) == names, kill
        for name in ("final/model.safetensors", "checkpoints/step-000002/optimizer.safetensors"):
            assert (run / name).read_bytes() == (whole / name).read_bytes(), kill
        assert [path.name for path in run.parent.iterdir()] == ["killed"], kill
        shutil.rmtree(run.parent)
        former()


# ---------------------------------------------------------------- full disks


@pytest.fixture
def work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with a model, and where one is."""
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "model")
    (tmp_path / "words.txt").write_text("bertlike\n", encoding="utf-8")
    shutil.make_archive("model", "zip", tmp_path / "model")
    return tmp_path


WRITERS = {
    "safetensors": "convert model out --to safetensors",
    "pytorch": "convert model out --to pytorch",
    "shrink": "shrink model --layers 0 --out out",
    "extend": "vocab extend model --with words.txt --out out",
    "download": "download model.zip --out out",
}


@pytest.mark.parametrize("command", WRITERS.values(), ids=WRITERS)
def test_a_model_that_does_not_fit_leaves_nothing_and_comes_when_there_is_room(
    work: Path, capsys, command: str
) -> None:
    capsys.readouterr()
    before = sorted(work.rglob("*"))
    for size in (0, 500, 5000):
        with at_most(size):
            assert main(command.split()) == 2
        one_line(capsys, "model.zip" if "download" in command else "out")
        assert sorted(work.rglob("*")) == before
    assert main(command.split()) == 0


def test_a_report_that_does_not_fit_leaves_the_former_one(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    command = ["report", str(finished_run), "--out", "out", "--overwrite"]
    assert main(command) == 0
    before = {path: path.read_bytes() for path in Path("out").iterdir()}
    capsys.readouterr()
    for size in (0, 500):
        with at_most(size):
            assert main(command) == 2
        one_line(capsys, "out")
    assert {path: path.read_bytes() for path in Path("out").iterdir()} == before


@pytest.mark.parametrize("given", [[], ["--overwrite"]])
def test_pretraining_goes_on_as_it_says_after_a_full_disk(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, given: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    options = given
    command = ["pretrain", "tiny", "--corpus", str(corpus), "--quiet", "--out", "out"]
    command += [*TINY, "steps=4", "checkpoint_every=2", "evaluate_every=0"]
    # provenance.json holds the command: its length must not depend on how the tests were started.
    monkeypatch.setattr("sys.argv", ["zhbert"])
    advice = []
    # Of provenance, the lines of the log, a checkpoint's weights, its optimiser's state.
    for size in (0, 1700, 9000, 30000):
        with at_most(size):
            assert main([*command, *options]) == 2
        said = one_line(capsys, "out")
        advice.append(said.rpartition("run the same command again")[2].strip())
        if advice[-1]:
            options = ["--resume"]
    instead = " in place of --overwrite" if "--overwrite" in given else ""
    assert advice == ["", f"with --resume{instead}", "", ""]
    assert main([*command, *options]) == 0


def test_fine_tuning_and_predicting_go_on_as_they_say_after_a_full_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    card = make_task(tmp_path / "task", "classify")
    make_small(tmp_path / "small")
    command = ["finetune", str(card), "--model", "small", "--quiet", "--out", "out", *QUICK]
    for size in (0, 1500, 20000, 100000):
        with at_most(size):
            assert main(command) == 2
        assert "run the same command again" in one_line(capsys, "out")
    assert main(command) == 0
    Path("in.txt").write_text("好京\n坏中\n", encoding="utf-8")
    command = ["predict", "out/seed-0/final", "in.txt", "--out", "found.jsonl"]
    capsys.readouterr()
    with at_most(10):
        assert main(command) == 2
    one_line(capsys, "found.jsonl")
    assert main(command) == 0
    assert not list(tmp_path.rglob(".*"))


# ---------------------------------------------------------------- signals


def test_predict_leaves_the_former_file_when_a_signal_ends_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    from zhbert.finetuning.predict import predict

    monkeypatch.chdir(tmp_path)

    @functools.wraps(predict)
    def interrupted(*arguments: object, **options: object) -> int:
        raise Interrupted(signal.SIGTERM)

    monkeypatch.setattr("zhbert.finetuning.predict.predict", interrupted)
    assert main(["predict", "model", "in.txt", "--out", "x.jsonl"]) == 128 + signal.SIGTERM
    said = capsys.readouterr().err
    assert said == (
        "stopped; x.jsonl is as it was: the same command begins anew\nzhbert: interrupted\n"
    )


def test_a_terminal_that_is_closed_ends_no_run(monkeypatch: pytest.MonkeyPatch) -> None:
    from zhbert.train.signals import write_notice

    replaced = []

    def gone(handle: int, text: bytes) -> int:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "write", gone)
    monkeypatch.setattr(os, "dup2", lambda one, other: replaced.append(other))
    write_notice("stopping")
    assert replaced == [2]


def test_a_process_that_torchrun_ends_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(number: int) -> str:
        def trained(*arguments: object, **options: object) -> int:
            raise Interrupted(number)

        monkeypatch.setattr("zhbert.jobs.pretrain.train", trained)
        code = main(["pretrain", "tiny", "--corpus", "corpus", "--out", "run"])
        assert code == 128 + number
        return capsys.readouterr().err

    assert end(signal.SIGTERM) == "zhbert: interrupted\n"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert end(signal.SIGTERM) == "zhbert: ended by its launcher\n"
    assert end(signal.SIGINT) == "zhbert: interrupted\n"


def test_of_several_processes_a_saved_run_is_no_promise() -> None:
    from zhbert.train.signals import StopSignals

    said: list[str] = []
    with StopSignals(said.append, alone=False):
        signal.raise_signal(signal.SIGTERM)
    assert said == ["stopping: the run is saved first, if its other processes still answer"]
