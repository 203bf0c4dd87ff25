"""tools/make_mini.py: a run becomes the model of the package; its card holds what was measured."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch

from zhbert.config import load_recipe
from zhbert.model.checkpoint import open_checkpoint
from zhbert.zoo import locate, packaged

TOOL = Path(__file__).parents[2] / "tools" / "make_mini.py"


@pytest.fixture
def tool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script, which writes into an empty package here."""
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "assets")
    spec = importlib.util.spec_from_file_location("make_mini", TOOL)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_run_becomes_the_model_of_the_package(
    tool: ModuleType, finished_run: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not (TOOL.parents[1] / "benchmarks").exists():  # the wheel is tested without them
        return

    def run(*words: str) -> Path:
        monkeypatch.setattr(sys, "argv", ["make_mini.py", *words])
        tool.main()
        return locate("mini")

    folder = run(str(finished_run))
    source = open_checkpoint(finished_run / "final").entries
    for name, entry in open_checkpoint(folder).entries.items():
        assert torch.equal(entry.read(), source[name].read().half())
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"
    assert load_recipe(folder / "phase-1.toml").steps == 12
    assert "12 steps" in (folder / "README.md").read_text(encoding="utf-8")
    weights = (folder / "model.safetensors").stat()
    folder = run("--corpus", str(corpus))
    assert (folder / "model.safetensors").stat() == weights
    scores = json.loads((folder / "scores.json").read_text())
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert scores["set_phrases"]["phrases"] == 100
    for one in scores["held_out"]:
        assert f"{one['masked_lm_accuracy']:.1%} of the masked pieces" in card
    # Other weights: nothing of theirs was measured yet.
    folder = run(str(finished_run))
    assert "held_out" not in json.loads((folder / "scores.json").read_text())
