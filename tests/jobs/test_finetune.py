"""zhbert finetune on the command line: what it shows, and what --compare prints."""

from __future__ import annotations

import json
import shutil

import pytest
from tests.small_tasks import QUICK, make_model, make_task

from zhbert.errors import ZhbertError
from zhbert.finetuning.run import finetune


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def card(tmp_path_factory):
    return make_task(tmp_path_factory.mktemp("tasks") / "classify", "classify")


@pytest.fixture(scope="module")
def finished(tmp_path_factory, model, card):
    """A finished run; read it only."""
    run = tmp_path_factory.mktemp("runs") / "classify"
    finetune(card, model, None, run, [*QUICK, "epochs=1"])
    return run


def command(*words):
    from zhbert import cli

    return cli._run("finetune", [str(word) for word in words])


@pytest.fixture
def verb(monkeypatch):
    from zhbert import cli

    monkeypatch.setitem(cli.VERBS, "finetune", ("zhbert.jobs.finetune", ""))
    return command


def test_the_command_shows_examples_and_prints_the_result(tmp_path, model, card, verb, capsys):
    run = tmp_path / "run"
    assert verb(card, "--model", model, "--out", run, *QUICK, "--seeds", 2) == 0
    out, err = capsys.readouterr()
    text = (run / "summary.json").read_text(encoding="utf-8")
    summary = json.loads(text)["metrics"]["accuracy"]
    expected = f"{summary['max']:.2f} ({summary['mean']:.2f}) ± {summary['std']:.2f}"
    assert out.splitlines()[0].split(None, 1) == ["accuracy", expected]
    assert err.count("-> label") == 3
    first = card.with_name("train.tsv").read_text(encoding="utf-8").splitlines()[1]
    assert f"[CLS]{first.split()[0]}[SEP]" in err
    for said in (
        "padding",
        "settings: epochs=2",
        "16 steps, 8 an epoch",
        "never trained",
        "labels: neg (32), pos (32)",
        "dev:",
    ):
        assert said in err
    assert verb(card, "--model", model, "--out", run, *QUICK, "--quiet", "--json") == 0
    out, err = capsys.readouterr()
    assert json.loads(out)["seeds"] == [0, 1]  # of all that are there
    assert not err


def test_a_comparison_is_printed(finished, verb, capsys):
    assert verb("--compare", finished, finished) == 0
    out = capsys.readouterr().out
    assert "not larger than the noise" in out
    assert ", 1 seed (" in out
    assert "pretrained in the same ways" not in out


def test_several_tasks_are_shown_and_printed_one_by_one(tmp_path, model, card, verb, capsys):
    other = make_task(tmp_path / "tag", "tag")
    run = tmp_path / "run"
    assert verb(f"{card},{other}", "--model", model, "--out", run, *QUICK) == 0
    out, err = capsys.readouterr()
    assert "my_classify, small, dev: maximum (mean)" in out
    assert f"1 seed; {run / 'my_tag'}" in out
    assert "2 tasks with one encoder: 32 steps, each of one task" in err
    assert "the best mean of my_classify_accuracy, my_tag_f1" in err
    assert err.count("was never trained") == 1
    words = ("--quiet", "--json")
    assert verb(f"{card},{other}", "--model", model, "--out", run, *QUICK, *words) == 0
    assert set(json.loads(capsys.readouterr().out)["tasks"]) == {"my_classify", "my_tag"}


def test_a_comparison_takes_two_runs_and_nothing_else(finished, verb):
    for more in (["--seeds", "3"], ["--out", "x"], ["--overwrite"], ["--model", "m"]):
        with pytest.raises(ZhbertError, match="takes two run folders and nothing else"):
            verb("--compare", finished, finished, *more)


def test_a_comparison_of_two_models_says_what_it_does_not_know(finished, tmp_path, verb, capsys):
    other = tmp_path / "other"
    shutil.copytree(finished, other)
    origin = json.loads((other / "provenance.json").read_text(encoding="utf-8"))
    origin["identity"]["model"] = ["other weights"]
    (other / "provenance.json").write_text(json.dumps(origin), encoding="utf-8")
    assert verb("--compare", finished, other) == 0
    assert "about these two models: others, pretrained in the same ways" in capsys.readouterr().out


def test_every_key_stands_in_the_help():
    from zhbert.jobs import finetune as module
    from zhbert.schema import flatten
    from zhbert.tasks.settings import FineTuningSettings

    for key in flatten(FineTuningSettings()):
        assert key in module.__doc__ or f".{key.partition('.')[2]}" in module.__doc__, key


def test_a_text_is_shown_as_it_stands(tmp_path, model, card, verb, capsys):
    folder = tmp_path / "task"
    shutil.copytree(card.parent, folder)
    copy = folder / card.name
    copy.write_text(copy.read_text().replace("good or bad?", "[b]:heart:[/b]"))
    assert verb(copy, "--model", model, "--out", tmp_path / "run", *QUICK, "epochs=1") == 0
    assert "task: [b]:heart:[/b]\n" in capsys.readouterr().err
