"""The model of the package by its name, wherever a model is asked for, whole and damaged."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from tests.small_tasks import make_task

from zhbert import BertConfig, BertForMaskedLM, BertForPreTraining, BertModel, Tokenizer
from zhbert.cli import main
from zhbert.errors import ZhbertError

VERBS = (
    "fill mini 的[MASK]",
    "fill 的[MASK]",
    "inspect mini",
    "params zhbert-mini",
    "download mini",
    "download mini --out out",
    "convert mini out --to pytorch",
    "verify mini zhbert-mini",
    "shrink mini --layers 0,1 --out out",
    "stretch mini --positions 80 --out out",
    "vocab extend mini --with words.txt --out out",
    "vocab coverage mini text.txt",
    "mask 的一是 --vocab mini",
    "prepare text.txt --vocab mini --out out",
    "evaluate mini --corpus corpus",
    "pretrain continue-domain --corpus corpus --out out initial_model=mini steps=1 compile=no "
    "sequence_length=32 masking.max_predictions=5 evaluation.rows=4 optimizer.warmup_steps=0",
    "check continue-domain initial_model=mini sequence_length=32",
    "finetune task/my_classify.toml --model mini --out out epochs=1 sequence_length=32",
)


@pytest.fixture(autouse=True)
def here(packaged_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A text, words, a task and a corpus in the current folder."""
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text("的一是在不了，有和人这。\n\n" * 40, encoding="utf-8")
    Path("words.txt").write_text("zhongwen\n", encoding="utf-8")
    make_task(Path("task"), "classify")
    assert main(["prepare", "text.txt", "--vocab", "mini", "--out", "corpus", "--quiet"]) == 0


@pytest.mark.parametrize("line", VERBS)
def test_every_verb_takes_its_name(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(shlex.split(line)) == 0
    assert "untrained" not in capsys.readouterr().err


@pytest.mark.parametrize("line", VERBS)
def test_every_verb_refuses_it_damaged_in_one_line(
    line: str, packaged_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = packaged_model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-7] ^= 4
    weights.write_bytes(content)
    capsys.readouterr()
    assert main(shlex.split(line)) == 2
    error = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(error) == 1
    assert f"{weights}: damaged (checksum " in error[0]
    assert "install zhbert again" in error[0]
    assert not Path("out").exists()


@pytest.mark.parametrize("line", ["--help", "models", "recipes", "models rbt3"])
def test_help_and_lists_read_nothing_of_it(line: str, packaged_model: Path) -> None:
    (packaged_model / "SHA256SUMS").unlink()
    assert main(line.split()) == 0


def test_download_says_that_it_is_here_already(
    packaged_model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["download", "mini"]) == 0
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{packaged_model}  (safetensors, ")
    assert "mini: a part of zhbert, nothing to download" in captured.err


def test_python_takes_its_name() -> None:
    for kind in (BertModel, BertForMaskedLM, BertForPreTraining, BertConfig, Tokenizer):
        assert type(kind.from_pretrained("mini")) is kind


def test_python_is_told_of_damage(packaged_model: Path) -> None:
    (packaged_model / "vocab.txt").write_text("的\n", encoding="utf-8")
    for kind in (BertModel, BertConfig, Tokenizer):
        with pytest.raises(ZhbertError, match=r"vocab\.txt: damaged \(checksum"):
            kind.from_pretrained("mini")
