"""zhbert verify: the answer is the exit code; JSON keys stay."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from zhbert.cli import main
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining

PIECES = [*("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), *"使用语言模型来预测abcdefg"]
SHAPE: dict[str, Any] = {
    "vocab_size": len(PIECES),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "max_position_embeddings": 24,
}


def make_model(folder: Path, **changes: Any) -> Path:
    torch.manual_seed(0)
    model = BertForPreTraining(BertConfig(**SHAPE | changes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.1)
    model.save_pretrained(folder)
    write_vocabulary(folder, PIECES)
    return folder


def write_vocabulary(folder: Path, pieces: list[str]) -> None:
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return make_model(tmp_path / "model")


@pytest.fixture
def broken(model: Path, tmp_path: Path) -> Path:
    """A square matrix the other way round."""
    folder = tmp_path / "broken"
    shutil.copytree(model, folder)
    tensors = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.1.attention.self.query.weight"
    tensors[name] = tensors[name].t().contiguous()
    save_file(tensors, folder / "model.safetensors")
    return folder


def verify_json(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, Any]:
    code = main(["verify", *map(str, arguments), "--json"])
    captured = capsys.readouterr()
    assert captured.err == ""
    return code, json.loads(captured.out)


def test_equal_models_are_the_same(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, found = verify_json(capsys, model, model)
    assert (code, found["same"], found["largest_difference"]) == (0, True, 0.0)
    assert found["differences"] == dict.fromkeys(
        ["embeddings", "layer 1", "layer 2", "pooler", "masked words", "sentence pair"], 0.0
    )
    assert found["config"] == found["vocabulary"] == []


def test_a_transposed_matrix_is_another_model(
    model: Path, broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = verify_json(capsys, model, broken)
    assert (code, found["same"]) == (1, False)
    assert found["differences"]["layer 1"] == 0 < found["differences"]["layer 2"]
    assert found["largest_difference"] == max(found["differences"].values())
    assert main(["verify", str(model), str(broken)]) == 1
    assert "not the same model: largest difference" in capsys.readouterr().out
    assert main(["verify", str(model), str(broken), "--tolerance", "1"]) == 0


def test_transformers_runs_the_second_model(
    model: Path, broken: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, found = verify_json(capsys, model, model, "--with", "transformers")
    assert (code, found["same"], found["tolerance"]) == (0, True, 2e-5)
    assert 0 < found["largest_difference"] < 2e-5
    assert verify_json(capsys, model, broken, "--with", "transformers")[0] == 1


def test_texts_of_a_file_are_compared(
    model: Path, broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("使用语言模型\n\n来预测\n" * 3, encoding="utf-8")
    assert verify_json(capsys, model, model, "--texts", texts)[0] == 0
    assert verify_json(capsys, model, broken, "--texts", texts)[0] == 1


def test_another_storage_of_the_same_is_not_the_same_but_close(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(model, tmp_path / "half")
    tensors = load_file(model / "model.safetensors")
    half = {name: tensor.half() for name, tensor in tensors.items()}
    save_file(half, tmp_path / "half" / "model.safetensors")
    assert verify_json(capsys, model, tmp_path / "half")[0] == 1
    assert verify_json(capsys, model, tmp_path / "half", "--tolerance", "1e-2")[0] == 0


def test_the_genuine_tensorflow_checkpoint_equals_itself(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixture = data / "fixtures" / "tf1_tiny_bert"
    code, found = verify_json(capsys, fixture, fixture)
    assert (code, found["largest_difference"]) == (0, 0.0)


def test_other_pieces_are_another_model(model: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(model, tmp_path / "other")
    write_vocabulary(tmp_path / "other", [*PIECES[:-1], "的"])
    code, found = verify_json(capsys, model, tmp_path / "other")
    assert (code, found["largest_difference"]) == (1, 0.0)
    place = len(PIECES) - 1
    assert found["vocabulary"] == [f"other pieces at 1 places, first {place}: 'g' and '的'"]
    assert main(["verify", str(model), str(tmp_path / "other")]) == 1
    assert "the numbers agree, the vocabularies do not" in capsys.readouterr().out
    (tmp_path / "other" / "vocab.txt").unlink()
    code, found = verify_json(capsys, model, tmp_path / "other")
    assert (code, found["vocabulary"]) == (0, ["only the first has one"])
    assert verify_json(capsys, tmp_path / "other", tmp_path / "other")[0] == 0


def test_configs_are_compared_by_name(model: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(model, tmp_path / "other")
    config = BertConfig.from_pretrained(model)
    config.hidden_act = "gelu_new"
    config.save_pretrained(tmp_path / "other")
    code, found = verify_json(capsys, model, tmp_path / "other")
    assert (code, found["config"]) == (1, ["hidden_act: 'gelu' and 'gelu_new'"])


def test_a_lacking_head_is_left_out_and_said(model: Path, tmp_path: Path, capsys: Any) -> None:
    shutil.copytree(model, tmp_path / "encoder")
    tensors = load_file(model / "model.safetensors")
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("cls.")}
    save_file(kept, tmp_path / "encoder" / "model.safetensors")
    code, found = verify_json(capsys, model, tmp_path / "encoder")
    assert code == 0
    assert found["left_out"] == {"only in A": ["masked words", "sentence pair"], "only in B": []}
    assert main(["verify", str(model), str(tmp_path / "encoder")]) == 0
    assert "left out, only in A: masked words, sentence pair" in capsys.readouterr().out


@pytest.mark.parametrize("quiet", [False, True])
def test_the_table_fits_80_columns(model: Path, broken: Path, quiet: bool, capsys: Any) -> None:
    main(["verify", str(model), str(broken), *(["--quiet"] if quiet else [])])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == (1 if quiet else 8)
    assert all(len(line) <= 80 for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{other}"], "two models of different shapes: num_hidden_layers 2 and 1"),
        (["{model}", "--tolerance", "-1"], "--tolerance -1.0: must be 0 or more"),
        (["{model}", "--tolerance", "nan"], "must be 0 or more"),
        (["{model}", "--texts", "{empty}"], "no text; give one text a line"),
        (["{model}", "--texts", "{model}/nothing"], "no such file"),
        (["{model}", "--texts", "{model}/model.safetensors"], "a safetensors file"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    model: Path, tmp_path: Path, arguments: list[str], message: str, capsys: Any
) -> None:
    other = make_model(tmp_path / "other", num_hidden_layers=1)
    (tmp_path / "empty").write_text("\n \n")
    names = {"model": model, "other": other, "empty": tmp_path / "empty"}
    assert main(["verify", str(model), *(a.format(**names) for a in arguments)]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert message in captured.err
