"""What is made from a model with added tokens keeps them, for us and for transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import transformers
from tests.small_models import PIECES, make_model

from zhbert.cli import main
from zhbert.text.tokenizer import Tokenizer

TEXTS = ["他说「的一」bert", "COVID在transCovid", "[MASK]「covid 人", "「" * 40 + "trans的。"]
PRETRAIN = ("steps=1", "batch_size=2", "sequence_length=16", "compile=no")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A user's own model: two tokens were added, and the rows for them, by transformers."""
    folder = make_model(tmp_path_factory.mktemp("model"), spare=2)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["「", "covid"])
    tokenizer.save_pretrained(folder)
    return folder


def ids(tokenizer: Any) -> list[list[int]]:
    return [tokenizer(text, add_special_tokens=False)["input_ids"] for text in TEXTS]


def assert_kept(folder: Path, expected: list[list[int]]) -> None:
    assert ids(transformers.AutoTokenizer.from_pretrained(folder)) == expected
    tokenizer = Tokenizer.from_pretrained(folder)
    assert [tokenizer.encode(text).ids.tolist() for text in TEXTS] == expected


def test_every_verb_that_writes_a_model_keeps_added_tokens(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = ids(transformers.AutoTokenizer.from_pretrained(model))
    assert any(len(PIECES) in row for row in expected)
    out = {name: str(tmp_path / name) for name in ("pt", "small", "large", "corpus", "run")}
    text = tmp_path / "text.txt"
    text.write_text("他说「的一」。\n\n在的 covid 人。\n\n" * 40, encoding="utf-8")
    words = tmp_path / "words.txt"
    words.write_text("龘\ncovid19\n", encoding="utf-8")
    for arguments in (
        ["convert", str(model), out["pt"], "--to", "pytorch"],
        ["shrink", str(model), "--layers", "0,1", "--out", out["small"]],
        ["vocab", "extend", str(model), "--with", str(words), "--out", out["large"]],
        ["prepare", str(text), "--vocab", str(model), "--out", out["corpus"], "--workers", "1"],
    ):
        assert main(arguments) == 0, (arguments, capsys.readouterr().err)
    assert "covid19" in capsys.readouterr().err
    # A corpus is no model: transformers is told what its tokenizer is for.
    (Path(out["corpus"]) / "config.json").write_text('{"model_type": "bert"}')
    for name in ("pt", "small", "large", "corpus"):
        assert_kept(Path(out[name]), expected)
    report = json.loads((Path(out["corpus"]) / "corpus.json").read_text())
    assert report["alignment"]["unknown_pieces"] > 0  # 他 and 说, which the vocabulary lacks
    run = ["pretrain", "continue-domain", "--corpus", out["corpus"], "--out", out["run"]]
    settings = [f"initial_model={model}", "optimizer.warmup_steps=1", *PRETRAIN]
    assert main([*run, *settings]) == 0, capsys.readouterr().err
    assert_kept(tmp_path / "run" / "final", expected)
