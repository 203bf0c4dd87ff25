"""The model cards beside ONNX and Paddle folders: the library and the code that open them."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import metadata_load

from zhbert import Predictor
from zhbert.cli import main
from zhbert.export.onnx import export_onnx
from zhbert.runs.model_card import FILE, _is_own

PREDICTOR = "from zhbert import Predictor"
INPUTS = {"classify": "好在", "embed": ("好在", "好")}


def final_of(tuned: Path, kind: str) -> Path:
    return tuned / kind / "run" / "seed-0" / "final"


def card_in(folder: Path) -> tuple[str, dict[str, Any]]:
    """The text of a card of ours, and what the hub's library reads of it."""
    text = (folder / FILE).read_text("utf-8")
    assert _is_own(text)
    return text, metadata_load(folder / FILE) or {}


@pytest.mark.parametrize(("kind", "opened"), [
    ("classify", "BertForSequenceClassification"),
    ("embed", "BertModel"),
])  # fmt: skip
def test_a_paddle_folder_is_opened_by_paddlenlp(
    tuned: Path, tmp_path: Path, kind: str, opened: str
) -> None:
    command = ["convert", str(final_of(tuned, kind)), str(tmp_path / "out"), "--to", "paddle"]
    assert main([*command, "--quiet"]) == 0
    text, data = card_in(tmp_path / "out")
    before, data_before = card_in(final_of(tuned, kind))
    assert data == data_before | {"library_name": "paddlenlp"}
    assert f"from paddlenlp.transformers import {opened}, BertTokenizer\n" in text
    assert f'model = {opened}.from_pretrained("MODEL")' in text
    assert "transformers import Auto" not in text
    assert "SentenceTransformer" not in text
    assert text.split("## Data")[1].split("<!--")[0] in before
    assert PREDICTOR in text  # and that works:
    Predictor.from_pretrained(tmp_path / "out")(INPUTS[kind])


@pytest.mark.parametrize(("kind", "task", "precision", "library", "line"), [
    ("classify", None, "int8", "onnx",
     'ORTModelForSequenceClassification.from_pretrained("MODEL", '
     'file_name="onnx/model_quantized.onnx")'),
    ("embed", None, "float32", "sentence-transformers",
     'SentenceTransformer("MODEL", backend="onnx")'),
    ("classify", "encoder", "float32", "onnx",
     'ORTModelForFeatureExtraction.from_pretrained("MODEL")'),
])  # fmt: skip
def test_an_onnx_folder_is_opened_by_optimum_or_sentence_transformers(
    tuned: Path,
    tmp_path: Path,
    kind: str,
    task: str | None,
    precision: str,
    library: str,
    line: str,
) -> None:
    export_onnx(final_of(tuned, kind), tmp_path / "out", task=task, precision=precision)
    text, data = card_in(tmp_path / "out")
    assert data["library_name"] == library
    assert f"model = {line}\n" in text
    assert "AutoModel" not in text
    assert (PREDICTOR in text) == (task is None)
    if task is None:
        Predictor.from_pretrained(tmp_path / "out")(INPUTS[kind])
    else:
        assert data["pipeline_tag"] == "feature-extraction"


def test_an_edited_card_is_copied_as_it_is(tuned: Path, tmp_path: Path) -> None:
    shutil.copytree(final_of(tuned, "classify"), tmp_path / "model")
    edited = (tmp_path / "model" / FILE).read_text("utf-8").replace("\n# ", "\n# My ", 1)
    (tmp_path / "model" / FILE).write_text(edited, "utf-8")
    command = ["convert", str(tmp_path / "model"), str(tmp_path / "out"), "--to", "paddle"]
    assert main([*command, "--quiet"]) == 0
    assert (tmp_path / "out" / FILE).read_text("utf-8") == edited
