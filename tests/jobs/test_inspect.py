"""zhbert inspect: what is printed, for sound and for strange checkpoints."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from zhbert.cli import main
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining
from zhbert.sentences.model import SentenceModel

PIECES = [*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[unused1]"), *"使用语言模型来预测ab"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """Both heads trained."""
    torch.manual_seed(0)
    made = BertForPreTraining(
        BertConfig(
            vocab_size=len(PIECES),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=24,
        )
    )
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    made.save_pretrained(tmp_path / "model")
    (tmp_path / "model" / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return tmp_path / "model"


def edit(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def printed(capsys: pytest.CaptureFixture[str], path: Path, *options: str) -> str:
    assert main(["inspect", str(path), *options]) == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    return captured.out


def found(capsys: pytest.CaptureFixture[str], path: Path) -> Any:
    return json.loads(printed(capsys, path, "--json"))


def test_json_says_everything(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    result = found(capsys, model)
    assert result["path"] == result["folder"] == str(model)
    assert result["format"] == "safetensors"
    assert result["bytes"] == (model / "model.safetensors").stat().st_size
    assert result["shape"]["num_hidden_layers"] == 2
    assert result["vocabulary"]["special_tokens"]["[MASK]"] == 4
    assert result["vocabulary"]["missing"] == []
    assert result["heads"]["masked_words"]["state"] == "trained"
    assert result["heads"]["masked_words"]["trained"] is True
    assert result["heads"]["classifier"] == {
        "present": False,
        "trained": None,
        "why": "not in the file",
        "state": "missing",
    }
    assert {"what": "fills masks", "answer": True, "why": ""} in result["uses"]


def test_people_read_what_it_can_be_used_for(model: Path, capsys: Any) -> None:
    text = printed(capsys, model)
    assert "2 layers x 32 (feed-forward 128), 2 heads, 24 positions, 2 segments" in " ".join(
        text.split()
    )
    assert "17 pieces, 1 of them [unused], as many as rows, lower-cased" in text
    assert "fills masks                        yes" in text
    edit(model, lambda t: [t.pop(n) for n in list(t) if n.startswith("cls.predictions")])
    text = " ".join(printed(capsys, model).split())
    assert "masked words missing" in text
    assert "fills masks no no trained mask-filling head: train it first" in text


def test_a_sentence_model_says_what_it_does(model: Path, capsys: Any) -> None:
    SentenceModel.from_pretrained(model).save_pretrained(model)
    main(["inspect", str(model)])
    assert "mean pooling; 32 dimensions; texts are cut to 24 pieces" in capsys.readouterr().out
    main(["inspect", str(model), "--json"])
    assert json.loads(capsys.readouterr().out)["sentence_model"]["pooling"] == ["mean"]
    (model / "1_Pooling" / "config.json").write_text("{")
    main(["inspect", str(model), "--json"])
    (problem,) = json.loads(capsys.readouterr().out)["problems"]
    assert "1_Pooling/config.json:1: not JSON" in problem


def test_a_random_pooler_is_explained(model: Path, capsys: Any) -> None:
    def fresh(tensors: dict[str, torch.Tensor]) -> None:
        tensors["bert.pooler.dense.weight"] = torch.randn(32, 32) * 0.02
        tensors["bert.pooler.dense.bias"].zero_()

    edit(model, fresh)
    text = " ".join(printed(capsys, model).split())
    assert "pooler random: bias exactly zero; weights normal (std 0.0" in text
    assert "Expected where a model was pretrained without sentence pairs" in text
    assert "(not the pooler's: it is random)" in text


def test_long_names_and_odd_things_fit_80_columns(model: Path, capsys: Any) -> None:
    name = "bert.encoder.layer.1.attention.output.LayerNorm.some.other.program.s.statistics"
    edit(model, lambda t: t.update({f"{name}.{n}": torch.ones(2) for n in range(7)}))
    edit(model, lambda t: t["bert.embeddings.LayerNorm.bias"].fill_(float("nan")))
    (model / "vocab.txt").write_text("\n".join(PIECES[:-1]) + "\n", encoding="utf-8")
    environment = os.environ | {"COLUMNS": "80", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-m", "zhbert", "inspect", str(model)]
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=True)
    lines = result.stdout.splitlines()
    assert all(len(line) <= 80 for line in lines[1:])
    text = " ".join(result.stdout.split())
    assert "and 5 more" in text
    assert "not finite bert.embeddings.LayerNorm.bias" in text
    assert "vocab.txt has 16 pieces, the weights 17 rows: rows without a piece" in text
    assert "opens in zhbert no NaN or infinite numbers in bert.embeddings.LayerNorm.bias" in text


def test_a_named_file_is_the_one_that_is_meant(model: Path, capsys: Any) -> None:
    tensors = load_file(model / "model.safetensors")
    kept = {n: t for n, t in tensors.items() if not n.startswith("cls.")}
    torch.save(kept, model / "pytorch_model.bin")
    assert found(capsys, model)["format"] == "safetensors"
    other = found(capsys, model / "pytorch_model.bin")
    assert (other["format"], list(other["files"])) == ("pytorch", ["pytorch_model.bin"])
    assert other["heads"]["masked_words"]["state"] == "missing"
    assert other["refusal"] is None


def test_archives_and_tensorflow_prefixes_are_opened(
    model: Path, data: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ZHBERT_CACHE", str(tmp_path / "cache"))
    with zipfile.ZipFile(tmp_path / "model.zip", "w") as archive:
        for path in model.iterdir():
            archive.write(path, f"inside/{path.name}")
    assert found(capsys, tmp_path / "model.zip")["heads"] == found(capsys, model)["heads"]
    result = found(capsys, data / "fixtures" / "tf1_tiny_bert" / "bert_model.ckpt")
    assert (result["format"], result["parameters"]) == ("tensorflow", 701)


def test_another_architecture_is_named_with_what_opens_it(model: Path, capsys: Any) -> None:
    edit(model, lambda t: [t.update({n.replace("bert", "ernie", 1): t.pop(n)}) for n in list(t)])
    text = " ".join(printed(capsys, model).split())
    assert "an ERNIE, not a BERT: zhbert cannot open it; transformers' ErnieModel does" in text
    assert "masked words" not in text


def test_roberta_is_named_by_its_config(model: Path, capsys: Any) -> None:
    values = json.loads((model / "config.json").read_text()) | {"model_type": "roberta"}
    (model / "config.json").write_text(json.dumps(values))
    assert "transformers' RobertaModel opens it" in " ".join(printed(capsys, model).split())


def test_weights_alone_tell_their_shape(model: Path, tmp_path: Path, capsys: Any) -> None:
    alone = tmp_path / "alone" / "weights.safetensors"
    alone.parent.mkdir()
    shutil.copy(model / "model.safetensors", alone)
    text = " ".join(printed(capsys, alone).split())
    assert "2 layers x 32 (feed-forward 128), ? heads, 24 positions" in text
    assert "none beside the weights" in text
    assert "config.json is missing" in text


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: f.write_bytes(f.read_bytes()[:-10]), "damaged, or not a safetensors file"),
        (lambda f: f.unlink(), "no model"),
        (lambda f: f.write_text("<html>"), "a web page, not a model"),
    ],
)
def test_what_cannot_be_read_at_all_is_one_line(
    model: Path, spoil: Callable[[Path], Any], message: str, capsys: Any
) -> None:
    spoil(model / "model.safetensors")
    assert main(["inspect", str(model)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err
