"""Texts, labels and names of users are shown as they stand, by every verb: no markup in them means
anything, no emoji code becomes a picture, and none of their control characters reaches a terminal.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table
from tests.small_models import PIECES, make_model

from zhbert import cli
from zhbert.terminal import console, escape_controls

# A colour, a window's title, C1's own "CSI" and a right-to-left override; markup; an emoji code.
HOSTILE = "\x1b[31m\x1b]0;x\x07\x9b2J\u202e[bold]:smile:[/x]"
SHOWN = r"\u001b[31m\u001b]0;x\u0007\u009b2J\u202e[bold]:smile:[/x]"
CARD = """
title = {title}
kind = "classify"
metrics = ["accuracy"]
[data]
format = "tsv"
header = true
train = ["t.tsv"]
dev = ["d.tsv"]
text = "text"
label = "label"
labels = ["good", "bad"]
"""
Run = Callable[..., tuple[int, str]]


@pytest.fixture
def at(tmp_path: Path) -> Path:
    """A folder with such a name, and what the verbs work on, with such names and texts."""
    folder = tmp_path / HOSTILE.replace("/", "")
    folder.mkdir()
    lines = [f"的一是在不了有和人这{n}{HOSTILE}，好。" for n in range(30)]
    (folder / "raw.txt").write_text("\n\n".join(lines), encoding="utf-8")
    rows = "".join(f"{line}\t{('good', 'bad')[n % 2]}\n" for n, line in enumerate(lines))
    for name in "td":
        (folder / f"{name}.tsv").write_text(f"text\tlabel\n{rows}", encoding="utf-8")
    title = json.dumps(HOSTILE)
    (folder / "card.toml").write_text(CARD.format(title=title), encoding="utf-8")
    make_model(folder / "model", pieces=[*PIECES, "[bold]", ":smile:"], max_position_embeddings=64)
    return folder


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """A verb's exit code and all that it printed; no control character is among it."""

    def go(*words: object) -> tuple[int, str]:
        code = cli.main([str(word) for word in words])
        printed = "".join(capfd.readouterr())
        assert escape_controls(printed) == printed
        assert "\N{SMILING FACE WITH OPEN MOUTH}" not in printed
        assert "😄" not in printed
        return code, printed

    return go


def test_the_main_job(at: Path, run: Run) -> None:
    name = SHOWN.replace("/", "")
    code, printed = run("prepare", at / "raw.txt", "--vocab", at / "model", "--out", at / "corpus")
    assert (code, name in printed) == (0, True)
    assert run("corpus", at / "corpus", "--rows", "2")[0] == 0
    short = ["steps=2", "batch_size=4", "sequence_length=32", "optimizer.warmup_steps=1"]
    start = f"initial_model={at / 'model'}"
    words = ["pretrain", "continue-domain", "--corpus", at / "corpus", "--out", at / "run"]
    code, printed = run(*words, start, *short, "compile=no")
    assert (code, name in printed) == (0, True)
    assert run("check", "continue-domain", start, *short)[0] == 0
    code, printed = run("fill", at / "run" / "final", f"的一[MASK]{HOSTILE}")
    assert (code, SHOWN in printed) == (0, True)


@pytest.mark.parametrize("verb", ["mask", "segment", "coverage"])
def test_texts(at: Path, run: Run, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if verb == "segment":  # data: as it is in a pipe
        monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    words = {
        "mask": ["mask", f"使用语言模型{HOSTILE}"],
        "segment": ["segment", at / "raw.txt"],
        "coverage": ["vocab", "coverage", at / "model", at / "raw.txt"],
    }[verb]
    code, printed = run(*words)
    assert code == 0
    assert "[bold]" in printed or "bold" in printed


def test_models(at: Path, run: Run) -> None:
    name = SHOWN.replace("/", "")
    for words in (
        ["inspect", at / "model"],
        ["params", at / "model"],
        ["convert", at / "model", at / "converted", "--to", "pytorch"],
        ["verify", at / "model", at / "model"],
        ["shrink", at / "model", "--layers", "0", "--out", at / "small"],
        ["vocab", "train", at / "raw.txt", "--out", at / "v.txt", "--size", "400"],
        ["vocab", "extend", at / "model", "--with", at / "more.txt", "--out", at / "large"],
    ):
        (at / "more.txt").write_text("[bold]x\n:smile:y\nqrs\n", encoding="utf-8")
        code, printed = run(*words)
        assert code == 0, printed
        assert words[0] in ("verify", "params") or name in printed


def test_tasks(at: Path, run: Run) -> None:
    assert SHOWN in run("tasks", at / "card.toml")[1].replace("\n", "")
    out = at / "tuned"
    words = ["finetune", at / "card.toml", "--model", at / "model", "--out", out, "--seeds", "1"]
    code, printed = run(*words, "epochs=1", "sequence_length=48")
    assert (code, SHOWN in printed.replace("\n", "")) == (0, True)
    final = out / "seed-0" / "final"
    assert run("evaluate", final, at / "card.toml", "--data", at / "d.tsv")[0] == 0
    predictions = at / "p.jsonl"
    assert run("predict", final, at / "d.tsv", "--out", predictions)[0] == 0
    assert run("predict", final, at / "d.tsv")[0] == 0
    assert run("score", at / "card.toml", at / "d.tsv", predictions)[0] == 0
    assert run("report", out, "--out", at / "page")[0] == 0


@pytest.mark.parametrize(
    "words",
    [
        [HOSTILE],
        ["fill", HOSTILE, "x"],
        ["fill", "--top-k", HOSTILE, "x", "y"],
        ["mask", "x", "--vocab", HOSTILE],
        ["vocab", "coverage", HOSTILE, HOSTILE],
        ["segment", HOSTILE],
        ["prepare", HOSTILE, "--out", "x"],
        ["corpus", HOSTILE],
        ["recipes", "show", HOSTILE],
        ["check", "tiny", f"{HOSTILE}=1"],
        ["check", "tiny", f"masking.strategy={HOSTILE}"],
        ["pretrain", HOSTILE, "--corpus", "x", "--out", "y"],
        ["models", HOSTILE],
        ["download", HOSTILE],
        ["inspect", HOSTILE],
        ["convert", HOSTILE, "x", "--to", "pytorch"],
        ["verify", HOSTILE, HOSTILE],
        ["shrink", HOSTILE, "--layers", "0", "--out", "x"],
        ["tasks", HOSTILE],
        ["finetune", HOSTILE, "--model", "x", "--out", "y"],
        ["evaluate", HOSTILE, "lcqmc", "--data", "x"],
        ["predict", HOSTILE, "x"],
        ["score", "lcqmc", HOSTILE, "x"],
        ["report", HOSTILE, "--out", "x"],
        ["params", HOSTILE],
        ["quickstart", HOSTILE, "--out", "x"],
    ],
    ids=lambda words: words[0] if words[0] in cli.VERBS else "verb",
)
def test_mistakes(
    words: list[str], run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code, printed = run(*words)
    assert code == 2
    assert "Traceback" not in printed


@given(st.text())
def test_a_printable_line_of_json_says_the_same(text: str) -> None:
    line = json.dumps(text, ensure_ascii=False)
    assert json.loads(escape_controls(line)) == text


def test_tables_and_lines_take_texts_as_they_stand(capsys: pytest.CaptureFixture[str]) -> None:
    import sys

    out = console(sys.stdout)
    out.print(HOSTILE)
    table = Table(box=None)
    table.add_column(HOSTILE)
    table.add_row(HOSTILE)
    out.print(table, soft_wrap=True, width=200)
    printed = capsys.readouterr().out
    assert printed.count(SHOWN) == 3
    assert "\x1b" not in printed
