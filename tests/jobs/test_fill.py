"""Filling masks: the same answers as transformers' pipeline, and clear lines for mistakes."""

from __future__ import annotations

import io
import json
import warnings
from pathlib import Path

import pytest

from zhbert.cli import main

PIECES = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"使用语言模型来预测下一个词的。",
    "pro",
    "##ba",
]
SHAPE = {
    "vocab_size": len(PIECES),
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
    # Near-random weights would hide a wrong activation or a missing bias.
    "initializer_range": 0.5,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model folder that transformers wrote, its head moved away from initial values."""
    import torch
    from transformers import BertConfig, BertForPreTraining

    from zhbert.text.tokenizer import Tokenizer

    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(0)
    network = BertForPreTraining(BertConfig(**SHAPE))
    with torch.no_grad():
        network.cls.predictions.bias.normal_()
        network.cls.predictions.transform.LayerNorm.weight.normal_(mean=1, std=0.3)
    network.save_pretrained(folder)
    Tokenizer(PIECES).save_pretrained(folder)
    return folder


def fill_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["fill", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize(
    "text", ["使用[MASK]言来预测。", "[MASK][MASK]模型 pro[MASK] 词", "[MASK]", "使用☃[MASK]"]
)
def test_fill_equals_the_fill_mask_pipeline(model: Path, text: str, capsys) -> None:
    from transformers import pipeline

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = pipeline("fill-mask", model=str(model), top_k=4)(text)
    if isinstance(expected[0], dict):
        expected = [expected]
    masks = fill_json(capsys, str(model), text, "--top-k", "4")["masks"]
    assert [[c["id"] for c in mask["candidates"]] for mask in masks] == [
        [c["token"] for c in mask] for mask in expected
    ]
    ours = [c["probability"] for mask in masks for c in mask["candidates"]]
    theirs = [c["score"] for mask in expected for c in mask]
    assert ours == pytest.approx(theirs, abs=1e-5)


def test_the_best_pieces_take_the_masks_places(model: Path, capsys) -> None:
    text = "使用 [MASK]言，Pro[MASK]"
    found = fill_json(capsys, str(model), text)
    first, second = (m["candidates"][0]["piece"].removeprefix("##") for m in found["masks"])
    assert found["filled"] == f"使用 {first}言，Pro{second}"
    assert [m["position"] for m in found["masks"]] == [3, text.rindex("[")]
    assert found["mask_filling_head"] == "trained"


def stdin(text: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(text.encode()), "utf-8")


def test_lines_of_stdin_are_filled_as_if_alone(model: Path, capsys, monkeypatch) -> None:
    lines = ["使用[MASK]言", "", "[MASK]型来[MASK]测下一个词", "的[MASK]"]
    monkeypatch.setattr("sys.stdin", stdin("\n".join(lines)))
    together = fill_json(capsys, str(model), "-")
    alone = [fill_json(capsys, str(model), line) for line in lines if line]
    assert [one["filled"] for one in together] == [one["filled"] for one in alone]
    for one, other in zip(together, alone, strict=True):
        for a, b in zip(one["masks"], other["masks"], strict=True):
            assert [c["id"] for c in a["candidates"]] == [c["id"] for c in b["candidates"]]
            assert [c["probability"] for c in a["candidates"]] == pytest.approx(
                [c["probability"] for c in b["candidates"]], abs=1e-5
            )


def test_only_masks_reach_the_vocabulary_matrix(model: Path, monkeypatch) -> None:
    from zhbert.inference.fill import fill, open_mask_filler
    from zhbert.model.heads import MaskedLMHead

    network, tokenizer = open_mask_filler(model)
    seen = []
    monkeypatch.setattr(
        MaskedLMHead,
        "forward",
        lambda self, hidden, words, forward=MaskedLMHead.forward: (
            seen.append(len(hidden)) or forward(self, hidden, words)
        ),
    )
    fill(network, tokenizer, ["使用语言[MASK]型来[MASK]测", "[MASK]"])
    assert seen == [3]


def test_the_table_shows_every_candidate(model: Path, capsys) -> None:
    text = "[MASK]" * 7 + "。"
    assert main(["fill", str(model), text, "--top-k", "3"]) == 0
    shown = capsys.readouterr().out
    assert shown.count("%") == 21
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) < 80
    assert main(["fill", str(model), text, "--quiet"]) == 0
    assert capsys.readouterr().out.count("\n") == 1


def test_a_model_without_a_trained_head_is_said_loudly(model: Path, tmp_path: Path, capsys) -> None:
    from safetensors.torch import load_file, save_file

    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(model / "model.safetensors")
    save_file(
        {n: t for n, t in tensors.items() if not n.startswith("cls.")},
        tmp_path / "model.safetensors",
    )
    assert main(["fill", str(tmp_path), "使[MASK]", "--quiet", "--json"]) == 0
    captured = capsys.readouterr()
    assert "WARNING" in captured.err
    assert "no trained mask-filling head" in captured.err
    assert json.loads(captured.out)["mask_filling_head"] == "missing"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("没有空", "no [MASK] in the text '没有空'"),
        ("[mask]", "in capitals"),
        ("[MASK]" + "使" * 30, "the text is 31 pieces long; this model takes 30"),
        ("", "no [MASK] in the text ''"),
    ],
)
def test_a_wrong_text_is_one_clear_line(model: Path, text: str, said: str, capsys) -> None:
    assert main(["fill", str(model), text, "--quiet"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_wrong_line_is_named(model: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", stdin("使[MASK]\n\n没有\n"))
    assert main(["fill", str(model), "-"]) == 2
    assert "stdin, line 3: no [MASK]" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin", stdin("\n"))
    assert main(["fill", str(model), "-"]) == 2
    assert "stdin: no text" in capsys.readouterr().err


def test_a_wrong_folder_or_number_is_one_clear_line(model: Path, tmp_path: Path, capsys) -> None:
    from zhbert.text.tokenizer import Tokenizer

    for arguments in (
        ["nowhere", "[MASK]"],
        [str(tmp_path), "[MASK]"],
        [str(model), "[MASK]", "--top-k", "0"],
    ):
        assert main(["fill", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1
    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    Tokenizer([*PIECES, "多"]).save_pretrained(tmp_path)
    assert main(["fill", str(tmp_path), "[MASK]"]) == 2
    assert "another model's vocabulary" in capsys.readouterr().err


def test_scores_that_are_no_numbers_are_one_clear_line(model: Path, tmp_path: Path, capsys) -> None:
    from safetensors.torch import load_file, save_file

    for file in model.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    for name in ("cls.predictions.bias", "cls.predictions.transform.LayerNorm.bias"):
        tensors[name].fill_(3e38)
    save_file(tensors, tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert main(["fill", str(tmp_path), "[MASK]", "--json", "--quiet"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert "scores are not finite numbers" in said.err


# -- without a model: by the one in the package --------------------------------------------------


def test_without_a_model_the_one_of_the_package_fills(packaged_model: Path, capsys) -> None:
    assert main(["fill", "的[MASK]是"]) == 0
    alone = capsys.readouterr()
    assert alone.err == "filled by zhbert-mini; by another model: zhbert fill MODEL TEXT\n"
    assert main(["fill", str(packaged_model), "的[MASK]是"]) == 0
    assert alone.out == capsys.readouterr().out
    assert main(["fill", "的[MASK]是", "--quiet"]) == 0
    assert capsys.readouterr().err == ""
    assert fill_json(capsys, "的[MASK]是")["model"] == "zhbert-mini"


@pytest.mark.parametrize(
    "words",
    [("mini", "--top-k", "1", "的[MASK]"), ("--top-k", "1", "的[MASK]"), ("的[MASK]", "--quiet")],
)
def test_options_stand_anywhere(packaged_model: Path, words: tuple[str, ...], capsys) -> None:
    assert fill_json(capsys, *words)["text"] == "的[MASK]"


def test_lines_alone_are_filled_by_it_too(packaged_model: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("sys.stdin", stdin("的[MASK]\n[MASK]是\n"))
    assert [one["text"] for one in fill_json(capsys, "-")] == ["的[MASK]", "[MASK]是"]


@pytest.mark.parametrize("text", ["今天", "", "今天[mask]", "x" * 5000])
def test_a_text_alone_without_a_mask_is_one_line(packaged_model: Path, text: str, capsys) -> None:
    assert main(["fill", text]) == 2
    error = capsys.readouterr().err
    assert error.startswith("zhbert: error: no [MASK] in the text '")
    assert error.count("\n") == 1


def test_a_model_or_a_file_alone_lacks_a_text(packaged_model: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "lines.txt").write_text("的[MASK]", encoding="utf-8")
    for name in ("mini", "rbt3", "hfl/rbt3", str(packaged_model), str(tmp_path / "lines.txt")):
        assert main(["fill", name]) == 2
        error = capsys.readouterr().err
        assert f'{name}: not a text with [MASK]; of a model: zhbert fill {name} "' in error
        assert f"zhbert fill - < {name}" in error
        assert error.count("\n") == 1
