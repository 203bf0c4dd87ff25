"""Deliberate faults are found, whoever runs the second model; equal models are equal."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.export import parity
from zhbert.export.agreement import Difference, PaddedBatch, batches
from zhbert.export.parity import compare, rows_of_texts, zhbert_runner
from zhbert.model.config import BertConfig
from zhbert.text.tokenizer import Tokenizer

Tensors = dict[str, Tensor]
Fault = Callable[[Tensors, dict[str, Any]], Any]
LAYER = "bert.encoder.layer."
PIECES = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *"使用语言模型来预测下一个词的概率今天气很好我们去公园散步吧。，！",
    *"bertheqickownfxjmpsvlazydg",
]


def make_model(folder: Path, *, width: int = 32, spread: float = 0.02, bias: float = 0.02) -> Path:
    """A model as early training leaves one: small weights, which hide faults best."""
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(dict.fromkeys(PIECES)),
        hidden_size=width,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=4 * width,
        max_position_embeddings=48,
        initializer_range=spread,
    )
    model = transformers.BertForPreTraining(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * bias)
    model.save_pretrained(folder)
    pieces = "\n".join(dict.fromkeys(PIECES))
    (folder / "vocab.txt").write_text(f"{pieces}\n", encoding="utf-8")
    return folder


def copy_with(fault: Fault, source: Path, target: Path) -> Path:
    """The model with a fault in it."""
    target.mkdir()
    for name in ("config.json", "vocab.txt", "model.safetensors"):
        (target / name).write_bytes((source / name).read_bytes())
    tensors = load_file(source / "model.safetensors")
    config = json.loads((source / "config.json").read_text(encoding="utf-8"))
    fault(tensors, config)
    tensors = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    (target / "config.json").write_text(json.dumps(config), encoding="utf-8")
    return target


def transposed(name: str) -> Fault:
    return lambda tensors, _: tensors.update({name: tensors[name].t()})


def lost(name: str) -> Fault:
    return lambda tensors, _: tensors.update({name: torch.zeros_like(tensors[name])})


def swapped(one: str, other: str) -> Fault:
    def fault(tensors: Tensors, _: dict[str, Any]) -> None:
        for name in [n for n in tensors if one in n]:
            there = name.replace(one, other)
            tensors[name], tensors[there] = tensors[there], tensors[name]

    return fault


def negated_position(tensors: Tensors, _: dict[str, Any]) -> None:
    # The last one: only a row of the longest length meets it.
    tensors["bert.embeddings.position_embeddings.weight"][-1].neg_()


FAULTS: Mapping[str, tuple[Fault, str | None]] = {
    # fault -> where it shows first; None: that depends on the size of the weights
    "query transposed": (transposed(f"{LAYER}1.attention.self.query.weight"), "layer 2"),
    "key transposed": (transposed(f"{LAYER}0.attention.self.key.weight"), "layer 1"),
    "value transposed": (transposed(f"{LAYER}2.attention.self.value.weight"), "layer 3"),
    "output transposed": (transposed(f"{LAYER}1.attention.output.dense.weight"), "layer 2"),
    "pooler transposed": (transposed("bert.pooler.dense.weight"), "pooler"),
    "head transposed": (transposed("cls.predictions.transform.dense.weight"), "masked words"),
    "layers swapped": (swapped(".layer.0.", ".layer.1."), "layer 1"),
    "query and key swapped": (swapped("2.attention.self.query", "2.attention.self.key"), "layer 3"),
    "segments swapped": (
        lambda t, _: t.update(
            {(n := "bert.embeddings.token_type_embeddings.weight"): t[n].flip(0)}
        ),
        "embeddings",
    ),
    "pair labels swapped": (
        lambda t, _: t.update({(n := "cls.seq_relationship.weight"): t[n].flip(0)}),
        "sentence pair",
    ),
    "query bias lost": (lost(f"{LAYER}0.attention.self.query.bias"), "layer 1"),
    "value bias lost": (lost(f"{LAYER}2.attention.self.value.bias"), "layer 3"),
    "inner bias lost": (lost(f"{LAYER}1.intermediate.dense.bias"), "layer 2"),
    "norm shift lost": (lost("bert.embeddings.LayerNorm.bias"), "embeddings"),
    "output bias lost": (lost("cls.predictions.bias"), "masked words"),
    "last position": (negated_position, "embeddings"),
    "gelu_new": (lambda _, config: config.update(hidden_act="gelu_new"), None),
    "other epsilon": (lambda _, config: config.update(layer_norm_eps=1e-5), "embeddings"),
    "other heads": (lambda _, config: config.update(num_attention_heads=2), "layer 1"),
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_model(tmp_path_factory.mktemp("models") / "large", width=64, spread=0.1, bias=0.2)


def inputs(model: Path) -> list[PaddedBatch]:
    return list(batches(BertConfig.from_pretrained(model), Tokenizer.from_pretrained(model), 12))


def first_above(found: parity.Parity, tolerance: float) -> str | None:
    return next((n for n, d in found.differences.items() if not d.within(tolerance)), None)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_where_it_lies(name: str, model: Path, tmp_path: Path) -> None:
    fault, where = FAULTS[name]
    broken = copy_with(fault, model, tmp_path / "broken")
    found = compare(zhbert_runner(model), zhbert_runner(broken), inputs(model))
    assert first_above(found, parity.ONE_PROGRAM) == (where or "masked words")
    assert not found.same(parity.ONE_PROGRAM)


@pytest.mark.parametrize("name", FAULTS)
def test_every_fault_is_found_beside_another_program(
    name: str, larger: Path, tmp_path: Path
) -> None:
    fault, where = FAULTS[name]
    broken = copy_with(fault, larger, tmp_path / "broken")
    found = compare(zhbert_runner(larger), parity.transformers_runner(broken), inputs(larger))
    assert first_above(found, parity.TWO_PROGRAMS) == (where or "layer 1")


def test_a_model_equals_itself_exactly(model: Path) -> None:
    found = compare(zhbert_runner(model), zhbert_runner(model), inputs(model))
    assert found.largest_difference == 0
    assert found.same(0)
    assert list(found.differences) == [
        "embeddings", "layer 1", "layer 2", "layer 3", "pooler", "masked words", "sentence pair",
    ]  # fmt: skip
    assert found.only_first == found.only_second == ()


@pytest.mark.parametrize("which", ["model", "larger"])
def test_transformers_computes_the_same(which: str, request: pytest.FixtureRequest) -> None:
    folder = request.getfixturevalue(which)
    found = compare(zhbert_runner(folder), parity.transformers_runner(folder), inputs(folder))
    assert set(found.differences) >= {"embeddings", "layer 3", "pooler", "masked words"}
    assert found.largest_difference > 0
    # Four times as strict as the tolerance: nothing is near it.
    assert found.same(parity.TWO_PROGRAMS / 4)


def test_a_lost_bias_of_keys_changes_nothing(larger: Path, tmp_path: Path) -> None:
    # It adds the same number to a query's scores of all keys.
    broken = copy_with(lost(f"{LAYER}0.attention.self.key.bias"), larger, tmp_path / "without")
    found = compare(zhbert_runner(larger), zhbert_runner(broken), inputs(larger))
    assert found.same(parity.TWO_PROGRAMS)


def test_heads_of_one_side_are_left_out_and_named(model: Path, tmp_path: Path) -> None:
    def cut(tensors: Tensors, _: dict[str, Any]) -> None:
        for name in [n for n in tensors if n.startswith(("cls.", "bert.pooler"))]:
            del tensors[name]
        tensors["classifier.weight"] = torch.ones(3, 32)
        tensors["classifier.bias"] = torch.ones(3)

    encoder = copy_with(cut, model, tmp_path / "encoder")
    for run in (zhbert_runner, parity.transformers_runner):
        found = compare(zhbert_runner(model), run(encoder), inputs(model))
        assert list(found.differences) == ["embeddings", "layer 1", "layer 2", "layer 3"]
        assert found.only_first == ("pooler", "masked words", "sentence pair")
        assert found.same(parity.TWO_PROGRAMS)
    found = compare(zhbert_runner(encoder), zhbert_runner(encoder), inputs(model))
    assert list(found.differences)[-1] == "classifier"


def test_batches_reach_every_position_segment_and_mask(model: Path) -> None:
    config = BertConfig.from_pretrained(model)
    for tokenizer in (Tokenizer.from_pretrained(model), None):
        found = list(batches(config, tokenizer, 12))
        assert max(batch.input_ids.shape[1] for batch in found) == config.max_position_embeddings
        assert {0, 1} == set(torch.cat([b.token_type_ids.flatten() for b in found]).tolist())
        assert any(0 in batch.attention_mask for batch in found)
        assert all(batch.attention_mask[:, 0].all() for batch in found)
        assert max(int(batch.input_ids.max()) for batch in found) < config.vocab_size


@pytest.mark.parametrize("longest", [1, 2, 3, 7, 40])
@pytest.mark.parametrize("segments", [1, 2])
def test_batches_fit_any_shape(model: Path, longest: int, segments: int) -> None:
    config = BertConfig.from_pretrained(model)
    config.max_position_embeddings, config.type_vocab_size = longest, segments
    for batch in batches(config, Tokenizer.from_pretrained(model), 12):
        assert batch.input_ids.shape == batch.attention_mask.shape == batch.token_type_ids.shape
        assert batch.input_ids.shape[1] <= longest
        assert int(batch.token_type_ids.max()) < segments


def test_texts_become_rows_cut_to_what_fits(model: Path) -> None:
    config, tokenizer = BertConfig.from_pretrained(model), Tokenizer.from_pretrained(model)
    found = list(rows_of_texts(config, tokenizer, ["使用", "语言" * 100, "模", "型", "来"]))
    assert [len(batch.input_ids) for batch in found] == [4, 1]
    assert found[0].attention_mask.sum(1).tolist() == [4, 48, 3, 3]
    ends = found[0].attention_mask.sum(1) - 1
    assert found[0].input_ids[torch.arange(4), ends].tolist() == [tokenizer.sep_id] * 4


def test_texts_need_a_vocabulary(model: Path, tmp_path: Path) -> None:
    bare = copy_with(lambda *_: None, model, tmp_path / "bare")
    (bare / "vocab.txt").unlink()
    (tmp_path / "texts.txt").write_text("使用\n", encoding="utf-8")
    with pytest.raises(ZhbertError, match="no vocabulary to read them with"):
        parity.compare_models(bare, model, texts=tmp_path / "texts.txt")


def test_numbers_at_padding_do_not_count_and_nan_does() -> None:
    mask = torch.tensor([[1, 1, 0]])
    batch = PaddedBatch(
        torch.zeros(1, 3, dtype=torch.long), mask, torch.zeros(1, 3, dtype=torch.long)
    )
    zeros = torch.zeros(1, 3, 2)

    def runner(value: float, place: int) -> parity.Runner:
        states = zeros.clone()
        states[0, place] = value
        return lambda _: {"embeddings": states}

    here = compare(runner(0, 0), runner(9, 2), [batch])
    assert here.differences["embeddings"] == Difference(0, 0)
    assert not compare(runner(0, 0), runner(float("nan"), 1), [batch] * 2).same()
    assert compare(runner(0, 0), runner(1e-6, 1), [batch]).same()


def test_what_transformers_cannot_open_is_one_line(data: Path, model: Path, tmp_path: Path) -> None:
    with pytest.raises(ZhbertError, match="this one is tensorflow: convert it first"):
        parity.transformers_runner(data / "fixtures" / "tf1_tiny_bert")
    broken = copy_with(lambda _, c: c.update(hidden_act="no such"), model, tmp_path / "broken")
    with pytest.raises(ZhbertError, match="transformers cannot open it") as caught:
        parity.transformers_runner(broken)
    assert "\n" not in str(caught.value)
