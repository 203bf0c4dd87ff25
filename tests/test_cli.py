"""The command line itself: help without torch, one-line errors, exit codes."""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from zhbert import cli
from zhbert.options import command_to_resume

ROOT = Path(__file__).parent.parent


def run(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "zhbert", *arguments],
        capture_output=True,
        text=True,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def test_help_lists_every_verb_and_imports_nothing_heavy() -> None:
    code = (
        "import sys; from zhbert.cli import main; main(['--help']);"
        "heavy = {'torch', 'numpy', 'pyarrow', 'rich'} & set(sys.modules);"
        "sys.exit(f'imported: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert all(verb in done.stdout for verb in cli.VERBS)


# One process asks for the help of every verb; the first to import torch is the one to blame.
HELP = """
import contextlib, io, json, sys
from zhbert.cli import main
told = {}
for verb in sys.argv[1:]:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        try:
            code = main([verb, "--help"])
        except SystemExit as end:
            code = end.code
    told[verb] = [code, printed.getvalue(), "torch" in sys.modules]
print(json.dumps(told))
"""


def test_every_verb_has_help_and_does_not_import_torch_for_it() -> None:
    command = [sys.executable, "-c", HELP, *cli.VERBS]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", check=True)
    told = json.loads(done.stdout)
    assert list(told) == list(cli.VERBS)
    for verb, (code, printed, torch) in told.items():
        assert code == 0, verb
        assert f"usage: zhbert {verb}" in printed
        assert "--json" in printed, verb
        assert not torch, f"{verb} --help imports torch"


@pytest.mark.parametrize("verb", sorted(cli.VERBS))
def test_every_verb_module_offers_the_two_functions(verb: str) -> None:
    module = importlib.import_module(cli.VERBS[verb][0])
    module.add_arguments(argparse.ArgumentParser())
    assert callable(module.run)


def test_an_unknown_verb_is_one_line_that_suggests_the_near_one(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["pretrian"]) == 2
    assert capsys.readouterr().err == (
        "zhbert: error: no verb 'pretrian'; did you mean 'pretrain'?\n"
    )


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("finetune --seeds abc", "finetune: argument --seeds: invalid int value: 'abc'"),
        ("finetune --compare A", "finetune: argument --compare: expected 2 arguments"),
        ("score t", "score: the following arguments are required: GOLD, PREDICTIONS"),
        ("tasks a b", "tasks: unrecognized arguments: b"),
        ("vocab train", "vocab train: the following arguments are required: FILE, --out"),
    ],
)
def test_arguments_that_cannot_be_read_are_one_line(
    arguments: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments.split()) == 2
    printed = capsys.readouterr()
    command = words.partition(":")[0]
    assert printed.err == f"zhbert: error: {words}; 'zhbert {command} --help' says more\n"
    assert printed.out == ""


def test_a_line_about_arguments_stays_one_and_short(capsys: pytest.CaptureFixture[str]) -> None:
    """A pattern of the shell's may have become the names of a thousand files."""
    assert cli.main(["tasks", "a", "b\nc", *map(str, range(5_000))]) == 2
    error = capsys.readouterr().err
    assert error.startswith("zhbert: error: tasks: unrecognized arguments: b c 0 1 2 3 ")
    assert error.endswith("…; 'zhbert tasks --help' says more\n")
    assert error.count("\n") == 1
    assert len(error) < 300


def test_no_verb_prints_the_usage_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 2
    assert capsys.readouterr().out.startswith("usage: zhbert VERB")


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out.startswith("zhbert 0.")


def test_a_reader_that_goes_away_is_not_an_error() -> None:
    done = subprocess.run(
        f"{sys.executable} -m zhbert recipes | head -1",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_only_training_runs_in_several_processes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert cli.main(["params", "tiny"]) == 0, "a cluster's own variable"
    capsys.readouterr()
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert cli.main(["params", "tiny"]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == (
        "",
        "zhbert: error: params runs in one process: start it without torchrun\n",
    )
    assert cli.main(["distill", "tiny", "--corpus", "corpus", "--out", "run"]) == 2
    assert "--teacher is missing" in capsys.readouterr().err


def test_the_command_that_resumes_starts_as_many_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["pretrain", "tiny", "--corpus", "corpus", "--out", "run"]
    monkeypatch.setattr(sys, "argv", ["zhbert", *words])
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}.items():
        monkeypatch.setenv(name, value)
    launched = "torchrun --standalone --nproc-per-node 2 -m zhbert"
    assert command_to_resume() == f"{launched} {' '.join(words)} --resume"
