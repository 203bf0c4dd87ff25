"""A password in a model's address opens it, and is neither written nor shown."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
from tests.small_corpora import PIECES, TINY
from tests.small_tasks import QUICK, make_model, make_task
from tests.zoo.server import serving

from zhbert.cli import main
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining
from zhbert.text.tokenizer import Tokenizer

SECRETS = ("hunter2", "t0ken", "s1gned")


def make_tiny_model(folder: Path) -> None:
    """What the corpus of these tests can be trained on."""
    config = BertConfig(
        vocab_size=len(PIECES), hidden_size=16, num_hidden_layers=2, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64,
    )  # fmt: skip
    BertForPreTraining(config, seed=0).save_pretrained(folder)
    Tokenizer(PIECES).save_pretrained(folder)


def test_no_verb_writes_or_shows_a_password(
    tmp_path: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ZHBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.chdir(tmp_path)
    make_model(tmp_path / "models" / "a")
    make_tiny_model(tmp_path / "models" / "b")
    card = make_task(tmp_path / "task", "classify", train=8, dev=4)

    def run(*words: str, code: int = 0) -> None:
        # What the process was called with is written into provenance.json.
        monkeypatch.setattr(sys, "argv", ["zhbert", *words])
        assert main(words) == code, words
        said = "".join(capfd.readouterr())
        assert not any(secret in said for secret in SECRETS), (words, said)

    with serving() as server:

        def address(name: str) -> str:
            path = f"/{name}.zip?token=t0ken&X-Amz-Signature=s1gned"
            archive = shutil.make_archive(name, "zip", tmp_path / "models" / name)
            url = server.add(path, Path(archive).read_bytes())
            return url.replace("http://", "http://me:hunter2@")

        one, two = address("a"), address("b")
        run("download", one, "--json")
        run("download", one, "--out", "copy")
        run("download", one.replace("/a.zip", "/gone.zip"), code=2)
        run("download", f"{one}#sha256={'0' * 64}", code=2)
        run("download", one, "--format", "pytorch", code=2)
        run("inspect", one)
        run("fill", one, "好[MASK]", "--json")
        run("shrink", one, "--layers", "0", "--out", "small", "--json")
        run("verify", one, one)
        tuned = ("finetune", str(card), "--model", one, "--out", "tuned", *QUICK, "epochs=1")
        run(*tuned)
        run(*tuned, "--seeds", "2")
        run("report", "tuned", "--out", "page")
        trained = ("pretrain", "tiny", "--corpus", str(corpus), "--out", "run", *TINY)
        trained = (*trained, f"initial_model={two}")
        run("check", "tiny", f"initial_model={two}")
        run(*trained, "steps=2", "checkpoint_every=1")
        run(*trained, "steps=3", "--resume")
    run(*trained, "steps=3", code=2)
    assert "initial_model" in (tmp_path / "run" / "recipe.toml").read_text(encoding="utf-8")
    for path in tmp_path.rglob("*"):
        assert not any(secret in path.name for secret in SECRETS)
        if path.is_file():
            assert not any(secret.encode() in path.read_bytes() for secret in SECRETS), path
