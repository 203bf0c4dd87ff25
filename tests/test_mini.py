"""The model in the package: whole, small, opened by transformers, and as good as its card says."""

from __future__ import annotations

import importlib.util
import io
import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors import safe_open
from tests.transformers4 import run_with_transformers4

from zhbert import BertForMaskedLM, Tokenizer
from zhbert.cli import main
from zhbert.config import load_recipe
from zhbert.inference.fill import fill, open_mask_filler
from zhbert.model.published import score_facts
from zhbert.zoo import locate, packaged

ROOT = Path(__file__).parent.parent
TEXTS = [
    "使用语言[MASK][MASK]来预测下一个词的probability。",
    "  “Café”——２０２６年…… 𠮷野家 [SEP] naïve😀",
    "本辦法所稱教育團體，指經依法立案或登記之學校。",
    "한국어 とカタカナ",
]
THEIRS = """
import json, sys, torch, transformers
from transformers import AutoModelForMaskedLM, AutoTokenizer, BertModel
folder, texts = sys.argv[1], json.loads(sys.argv[2])
batch = AutoTokenizer.from_pretrained(folder)(texts, padding=True, return_tensors="pt")
model, told = AutoModelForMaskedLM.from_pretrained(folder, output_loading_info=True)
with torch.no_grad():
    logits = model.eval()(**batch).logits
    BertModel.from_pretrained(folder)(**batch)
result = {
    "version": transformers.__version__, "dtype": str(model.dtype),
    "told": {key: sorted(value) for key, value in told.items() if value},
    "ids": batch["input_ids"].tolist(), "logits": logits[:, :6, :50].tolist(),
}
"""


@pytest.fixture(scope="module")
def folder() -> Path:
    return locate("mini")


def test_it_is_small_and_half_precision(folder: Path) -> None:
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 18_000_000
    with safe_open(folder / "model.safetensors", "pt") as file:
        names = set(file.keys())
        assert {file.get_tensor(name).dtype for name in names} == {torch.float16}
    assert not [name for name in names if "pooler" in name or "seq_relationship" in name]
    config = json.loads((folder / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"]) == (4, 256)
    assert config["architectures"] == ["BertForMaskedLM"]


def test_its_vocabulary_is_the_shipped_one(folder: Path) -> None:
    shipped = Tokenizer.from_pretrained(packaged.FOLDER)
    assert Tokenizer.from_pretrained(folder).fingerprint() == shipped.fingerprint()


def run_here(program: str, *arguments: str) -> Any:
    names: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["", *arguments])
        exec(program, names)
    return names["result"]


@pytest.mark.parametrize(("version", "run"), [("5", run_here), ("4", run_with_transformers4)])
def test_transformers_opens_the_folder_as_it_is(
    folder: Path, version: str, run: Callable[..., Any]
) -> None:
    found = run(THEIRS, str(folder), json.dumps(TEXTS))
    assert found["version"].split(".")[0] == version
    assert (found["dtype"], found["told"]) == ("torch.float32", {})
    ours, tokenizer = open_mask_filler("mini")
    for text, ids, logits in zip(TEXTS, found["ids"], found["logits"], strict=True):
        mine = [tokenizer.cls_id, *tokenizer.encode(text).ids.tolist(), tokenizer.sep_id]
        assert ids[: len(mine)] == mine
        with torch.no_grad():
            expected = ours(torch.tensor([mine])).logits[0, :6, :50]
        torch.testing.assert_close(torch.tensor(logits), expected, rtol=0, atol=1e-4)


def test_it_fills_what_everybody_knows() -> None:
    model, tokenizer = open_mask_filler("mini")
    texts = ["根据《中华人民[MASK]和国宪法》的规定，制定本法。", "人民法[MASK]应当受理。"]
    filled = [one.masks[0].candidates[0].piece for one in fill(model, tokenizer, texts)]
    assert filled == ["共", "院"]


def test_python_opens_it_in_silence_and_reports_what_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    model = BertForMaskedLM.from_pretrained("mini")
    assert re.match(r"BERT, 4 layers x 256, ", model.loading.summary)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("name", ["README.md", "README_EN.md"])
def test_the_readme_shows_what_it_fills(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = (ROOT / name).read_text(encoding="utf-8")
    (shown,) = re.findall(r'\$ zhbert fill "(.+)"\n((?:.+\n)+?)```', readme)
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["fill", shown[0]]) == 0
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == shown[1].splitlines()


def test_the_model_card_holds_the_scores_and_every_licence(folder: Path) -> None:
    text = (folder / "README.md").read_text(encoding="utf-8")
    about = yaml.safe_load(text.split("---")[1])
    assert about["license"] == "apache-2.0"
    assert about["pipeline_tag"] == "fill-mask"
    for licence in ("public statutes", "MIT", "Apache-2.0", "CC BY-SA"):
        assert licence in text
    scores = json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert [one["evaluation"] for one in scores["held_out"]] == ["char", "wwm"]
    for what, figure in score_facts(scores):
        assert f"| {what} | {figure} |\n" in text
    for number in range(1, len(scores["training"]) + 1):
        assert load_recipe(folder / f"phase-{number}.toml").model.hidden_size == 256


def test_the_model_card_is_what_its_tool_makes(folder: Path) -> None:
    tool = ROOT / "tools" / "make_mini.py"
    if not (ROOT / "src").exists():  # the wheel is tested without the source tree
        return
    spec = importlib.util.spec_from_file_location("make_mini", tool)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert module.model_card(folder) == card


def test_the_catalogue_shows_its_scores(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "mini", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["scores"] == json.loads((folder / "scores.json").read_text(encoding="utf-8"))
    assert main(["models", "mini"]) == 0
    text = re.sub(r"\s+", " ", capsys.readouterr().out)
    assert f"{shown['scores']['set_phrases']['top1']} of 100" in text


def test_stdin_is_filled_by_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = io.TextIOWrapper(io.BytesIO("人民法[MASK]应当受理。\n".encode()), "utf-8")
    monkeypatch.setattr("sys.stdin", text)
    assert main(["fill", "-", "--quiet"]) == 0
    assert capsys.readouterr().out == "人民法院应当受理。\n"
