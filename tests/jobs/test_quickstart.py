"""The whole pipeline as a user runs it, on the sample text, cut short."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from zhbert.cli import main
from zhbert.jobs.quickstart import SAMPLE

SHORT = ["--set", "compile=no", "--set", "model.hidden_size=32", "--set", "evaluate_every=0"]


def test_the_sample_is_what_it_is_said_to_be() -> None:
    text = SAMPLE.read_text(encoding="utf-8")
    articles = text.strip().split("\n\n")
    assert len(articles) >= 80
    assert len(re.findall("[\u4e00-\u9fff]", text)) >= 40_000
    lines = [line for line in text.splitlines() if line]
    assert len(lines) == len(set(lines))
    assert sum(bool(re.search("[A-Za-z]{2}", article)) for article in articles) >= 10
    assert sum(bool(re.search("[0-9]", article)) for article in articles) >= 10
    # Characters that only traditional text has.
    assert sum(len(re.findall("[這個們為說時會學過點]", article)) > 10 for article in articles) >= 5


def test_quickstart_shows_every_stage_and_leaves_a_model(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "quickstart"
    code = main(["quickstart", "--out", str(out), "--set", "steps=6", *SHORT])
    printed = capsys.readouterr().out
    assert code in (0, 1)  # six steps need not beat anything
    for number in range(1, 6):
        assert f"\n{number}/5 " in printed
    shown = ("before", "after", "held-out masked accuracy", "always the commonest piece")
    assert all(words in printed for words in shown)
    for name in ("config.json", "model.safetensors", "vocab.txt", "tokenizer.json"):
        assert (out / "final" / name).is_file()
    assert main(["quickstart", "--out", str(out), "--set", "steps=6", *SHORT]) == 2
    assert "--overwrite" in capsys.readouterr().err
    text = out / "我的.txt"
    text.write_text("一段文字。\n", encoding="utf-8")
    assert main(["quickstart", str(text), "--out", str(out), "--overwrite", *SHORT]) == 2
    assert "--overwrite would remove the text " in capsys.readouterr().err
    assert text.is_file()


def test_quickstart_beats_the_baseline_on_a_text_of_its_users(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "我的文本.txt"
    # A language so regular that a few steps learn it: the word after 第 is always 一章.
    line = "第一章讲的是春天，第二章讲的是夏天。第三章讲的是秋天，第四章讲的是冬天。\n"
    text.write_text("\n\n".join(line * (3 + i % 5) + f"{i}" for i in range(200)), encoding="utf-8")
    steps = ["--set", "steps=120", "--set", "optimizer.learning_rate=5e-3"]
    code = main(["quickstart", str(text), "--out", str(tmp_path / "run"), *steps, *SHORT, "--json"])
    result = json.loads(capsys.readouterr().out)
    assert result["better_than_baseline"] == (code == 0)
    assert result["masked_lm_accuracy"] > result["baseline_accuracy"]
    assert result["filled"]


def test_quickstart_exits_with_1_when_it_learnt_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rate = ["--set", "optimizer.learning_rate=1e-9", "--set", "steps=2"]
    assert main(["quickstart", "--out", str(tmp_path / "run"), *rate, *SHORT, "--quiet"]) == 1
    assert "not better than the baseline" in capsys.readouterr().err


def test_a_missing_text_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    missing = str(tmp_path / "none.txt")
    assert main(["quickstart", missing, "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "run-corpus").exists()


def test_a_text_without_blank_lines_is_split_by_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "one.txt"
    text.write_text(
        "".join(f"这是第{i}行，讲的是春天的故事。\n" for i in range(300)), encoding="utf-8"
    )
    main(["quickstart", str(text), "--out", str(tmp_path / "run"), "--set", "steps=2", *SHORT])
    assert "documents  300 read" in capsys.readouterr().out


def test_a_text_of_one_line_is_one_line_of_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = tmp_path / "one.txt"
    text.write_text("春天来了。\n", encoding="utf-8")
    assert main(["quickstart", str(text), "--out", str(tmp_path / "run"), "--quiet"]) == 2
    assert "too short" in capsys.readouterr().err
