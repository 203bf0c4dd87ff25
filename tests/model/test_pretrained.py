"""Model folders: the same numbers as transformers, both ways, and clear words about bad ones."""

from __future__ import annotations

import json
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from zhbert.cli import main
from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig
from zhbert.model.loading import UntrainedWeightsWarning, UnusedWeightsWarning
from zhbert.model.pretrained import (
    BertForMaskedLM,
    BertForPreTraining,
    BertForSequenceClassification,
    BertModel,
)

Large = Callable[[torch.nn.Module], Any]


@pytest.fixture
def theirs(shape: dict[str, Any], large: Large) -> Any:
    torch.manual_seed(0)
    return large(transformers.BertForPreTraining(transformers.BertConfig(**shape))).eval()


@pytest.fixture
def folder(theirs: Any, tmp_path: Path) -> Path:
    theirs.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def assert_same_outputs(one: Any, other: Any, batch: dict[str, torch.Tensor]) -> None:
    """Logits and every hidden state, wherever a piece stands, to 1e-4."""
    there = batch["attention_mask"].bool()
    with torch.no_grad():
        a = one(**batch, output_hidden_states=True)
        b = other(**batch, output_hidden_states=True)
    for name in ("prediction_logits", "logits", "last_hidden_state"):
        x, y = getattr(a, name, None), getattr(b, name, None)
        if x is not None and y is not None:
            assert x.abs().max() > 1
            torch.testing.assert_close(x[there], y[there], rtol=0, atol=1e-4)
    for name in ("seq_relationship_logits", "pooler_output"):
        x, y = getattr(a, name, None), getattr(b, name, None)
        if x is not None and y is not None:
            torch.testing.assert_close(x, y, rtol=0, atol=1e-4)
    assert len(a.hidden_states) == len(b.hidden_states) == 4
    for x, y in zip(a.hidden_states, b.hidden_states, strict=True):
        torch.testing.assert_close(x[there], y[there], rtol=0, atol=1e-4)


@pytest.mark.parametrize("activation", ["gelu", "gelu_new", "relu"])
def test_outputs_equal_those_of_transformers_both_ways(
    shape: dict[str, Any],
    batch: dict[str, torch.Tensor],
    large: Large,
    tmp_path: Path,
    activation: str,
) -> None:
    torch.manual_seed(0)
    config = transformers.BertConfig(**shape, hidden_act=activation)
    theirs = large(transformers.BertForPreTraining(config)).eval()
    theirs.save_pretrained(tmp_path / "theirs")
    ours = BertForPreTraining.from_pretrained(tmp_path / "theirs")
    assert_same_outputs(theirs, ours, batch)

    fresh = large(BertForPreTraining(BertConfig(**shape, hidden_act=activation))).eval()
    fresh.save_pretrained(tmp_path / "ours")
    again = transformers.BertForPreTraining.from_pretrained(tmp_path / "ours")
    assert again.dtype == torch.float32
    assert_same_outputs(again, fresh, batch)


@pytest.mark.parametrize(
    ("mine", "other"), [(BertModel, "BertModel"), (BertForMaskedLM, "BertForMaskedLM")]
)
def test_the_other_models_equal_too(
    folder: Path, batch: dict[str, torch.Tensor], mine: type, other: str
) -> None:
    theirs = getattr(transformers, other).from_pretrained(folder)
    assert_same_outputs(theirs, mine.from_pretrained(folder), batch)


def test_losses_equal_those_of_transformers(theirs: Any, folder: Path, batch: dict) -> None:
    labels = torch.full((5, 17), -100)
    labels[batch["attention_mask"].bool()] = batch["input_ids"][batch["attention_mask"].bool()]
    labels[:, ::2] = -100
    given = {**batch, "labels": labels, "next_sentence_label": torch.tensor([0, 1, 1, 0, 1])}
    ours = BertForPreTraining.from_pretrained(folder)
    torch.testing.assert_close(ours(**given).loss, theirs(**given).loss, rtol=1e-5, atol=1e-4)


def test_left_padding_and_no_mask_equal_too(theirs: Any, folder: Path, batch: dict) -> None:
    ours = BertForPreTraining.from_pretrained(folder)
    left = {**batch, "attention_mask": batch["attention_mask"].flip(1)}
    there = left["attention_mask"].bool()
    a, b = theirs(**left), ours(**left)
    torch.testing.assert_close(
        a.prediction_logits[there], b.prediction_logits[there], rtol=0, atol=1e-4
    )
    a, b = theirs(batch["input_ids"]), ours(batch["input_ids"])
    torch.testing.assert_close(a.prediction_logits, b.prediction_logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        a.seq_relationship_logits, b.seq_relationship_logits, rtol=0, atol=1e-4
    )


def _as_pickle(folder: Path, rename: Callable[[str], str] = lambda n: n) -> None:
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    torch.save({rename(n): t for n, t in tensors.items()}, folder / "pytorch_model.bin")


def _gamma(name: str) -> str:
    return name.replace("LayerNorm.weight", "LayerNorm.gamma").replace(
        "LayerNorm.bias", "LayerNorm.beta"
    )


@pytest.mark.parametrize("rename", [lambda n: n, _gamma], ids=["today", "gamma and beta"])
def test_pickles_and_old_names_are_read(
    theirs: Any, folder: Path, batch: dict, rename: Callable[[str], str]
) -> None:
    _as_pickle(folder, rename)
    assert_same_outputs(theirs, BertForPreTraining.from_pretrained(folder), batch)


def test_names_without_prefix_are_read(theirs: Any, tmp_path: Path, batch: dict) -> None:
    theirs.bert.save_pretrained(tmp_path)
    assert "embeddings.word_embeddings.weight" in load_file(tmp_path / "model.safetensors")
    assert_same_outputs(theirs.bert, BertModel.from_pretrained(tmp_path), batch)


def test_a_bert_under_robertas_names_is_read(folder: Path, theirs: Any, batch: dict) -> None:
    new = {
        "bert.": "roberta.",
        "cls.predictions.transform.dense.": "lm_head.dense.",
        "cls.predictions.transform.LayerNorm.": "lm_head.layer_norm.",
        "cls.predictions.bias": "lm_head.bias",
    }
    for ours, others in new.items():
        _renamed(ours, others)(folder / "model.safetensors")
    assert_same_outputs(theirs, BertForPreTraining.from_pretrained(folder), batch)


def test_shards_are_read(theirs: Any, tmp_path: Path, batch: dict) -> None:
    theirs.save_pretrained(tmp_path, max_shard_size="20KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 2
    assert_same_outputs(theirs, BertForPreTraining.from_pretrained(tmp_path), batch)


def test_half_precision_files_are_read_as_float32(theirs: Any, tmp_path: Path) -> None:
    theirs.to(torch.float16).save_pretrained(tmp_path)
    ours = BertForPreTraining.from_pretrained(tmp_path)
    assert {p.dtype for p in ours.parameters()} == {torch.float32}
    ours.save_pretrained(tmp_path / "again")
    again = transformers.BertForPreTraining.from_pretrained(tmp_path / "again")
    assert again.dtype == torch.float32


def test_decoder_aliases_are_known(theirs: Any, folder: Path, batch: dict) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = tensors["bert.embeddings.word_embeddings.weight"]
    tensors["cls.predictions.decoder.bias"] = tensors.pop("cls.predictions.bias")
    tensors["bert.embeddings.position_ids"] = torch.arange(40)[None]
    save_file({n: t.clone() for n, t in tensors.items()}, folder / "model.safetensors")
    assert_same_outputs(theirs, BertForPreTraining.from_pretrained(folder), batch)


def test_the_first_layers_alone_are_taken(theirs: Any, folder: Path, batch: dict) -> None:
    ours = BertModel.from_pretrained(folder, num_hidden_layers=2)
    assert ours.config.num_hidden_layers == 2
    states = theirs(**batch, output_hidden_states=True).hidden_states
    there = batch["attention_mask"].bool()
    found = ours(**batch).last_hidden_state
    torch.testing.assert_close(found[there], states[2][there], rtol=0, atol=1e-4)
    with pytest.raises(ZhbertError, match="has 3 layers; 4 asked"):
        BertModel.from_pretrained(folder, num_hidden_layers=4)


def test_a_checkpoint_without_a_head_is_said_loudly(theirs: Any, tmp_path: Path) -> None:
    theirs.bert.save_pretrained(tmp_path)
    with pytest.warns(UntrainedWeightsWarning, match="no trained mask-filling head") as caught:
        model = BertForMaskedLM.from_pretrained(tmp_path)
    assert len(caught) == 1
    assert "cls.predictions.transform.dense.weight" in str(caught[0].message)
    assert "\n" not in str(caught[0].message)
    assert model.loading.masked_words_head == "missing"


@pytest.mark.parametrize("kind", [BertModel, BertForPreTraining])
def test_a_model_of_masked_words_alone_lacks_the_other_heads_by_design(
    theirs: Any, tmp_path: Path, kind: type
) -> None:
    alone = transformers.BertForMaskedLM(theirs.config)
    alone.load_state_dict(theirs.state_dict(), strict=False)
    alone.save_pretrained(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = kind.from_pretrained(tmp_path)
    assert "bert.pooler.dense.weight" in model.loading.missing
    assert "random until trained: bert.pooler.dense.weight" in model.loading.summary
    # The trunk of another class has lost its pooler somewhere.
    config = json.loads((tmp_path / "config.json").read_text()) | {"architectures": ["BertModel"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.warns(UntrainedWeightsWarning, match="untrained parts"):
        kind.from_pretrained(tmp_path)


def _as_initialised(head: torch.nn.Module) -> None:
    """transformers' own initialisation has been done already."""


def _default_biases(head: torch.nn.Module) -> None:
    torch.nn.init.uniform_(head.predictions.transform.dense.bias, -0.1, 0.1)


def _all_normal(head: torch.nn.Module) -> None:
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.02)


@pytest.mark.parametrize("initialise", [_as_initialised, _default_biases, _all_normal])
def test_a_random_head_is_said_loudly(
    theirs: Any, tmp_path: Path, initialise: Callable[[torch.nn.Module], None]
) -> None:
    # As in some published folders: the names are there, the numbers are random.
    fresh = transformers.BertForPreTraining(theirs.config)
    initialise(fresh.cls)
    fresh.bert = theirs.bert
    fresh.tie_weights()
    fresh.save_pretrained(tmp_path)
    with pytest.warns(UntrainedWeightsWarning, match="never trained") as caught:
        model = BertForMaskedLM.from_pretrained(tmp_path)
    assert len(caught) == 1
    assert model.loading.masked_words_head == "random"


def test_a_trained_head_is_not_called_random(folder: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = BertForPreTraining.from_pretrained(folder)
    assert model.loading.masked_words_head == "trained"
    assert model.loading.missing == model.loading.unused == ()


def test_unused_names_are_reported(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "classifier.weight": torch.ones(2)}, folder / "model.safetensors")
    with pytest.warns(UnusedWeightsWarning, match=r"not used: classifier\.weight"):
        model = BertForPreTraining.from_pretrained(folder)
    assert model.loading.unused == ("classifier.weight",)


def _edit_config(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**values, **changes}), encoding="utf-8")


def _truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1000])


def _break_header(path: Path) -> None:
    path.write_bytes(b"\xff" * 64)


class _Code:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("a pickle ran code",))


def _pickle_with_code(path: Path) -> None:
    path.unlink()
    torch.save({"bert.x": _Code()}, path.with_name("pytorch_model.bin"))


def _plain_pickle(path: Path) -> None:
    path.unlink()
    path.with_name("pytorch_model.bin").write_bytes(pickle.dumps({"a": _Code()}))


def _truncated_pickle(path: Path) -> None:
    _as_pickle(path.parent)
    _truncate(path.with_name("pytorch_model.bin"))


def _other_model(path: Path) -> None:
    save_file({"graph.embeddings.word_embeddings.weight": torch.ones(97, 32)}, path)


def _renamed(old: str, new: str) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        save_file({n.replace(old, new): t for n, t in load_file(path).items()}, path)

    return spoil


def _with(name: str, tensor: torch.Tensor) -> Callable[[Path], None]:
    return lambda path: save_file({**load_file(path), name: tensor}, path)


def _diverged(path: Path) -> None:
    tensors = load_file(path)
    tensors["bert.encoder.layer.1.output.dense.bias"][3] = float("nan")
    save_file(tensors, path)


def _two_models(path: Path) -> None:
    tensors = load_file(path)
    save_file({**tensors, "teacher.embeddings.word_embeddings.weight": torch.ones(97, 32)}, path)


def _lost_shard(path: Path) -> None:
    path.unlink()
    index = {"weight_map": {"bert.embeddings.word_embeddings.weight": "model-1.safetensors"}}
    path.with_name("model.safetensors.index.json").write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_truncate, "damaged, or not a safetensors file"),
        (_break_header, "no file of safetensors, torch.save or paddle.save"),
        (_pickle_with_code, "more than tensors"),
        (_plain_pickle, "a plain Python pickle"),
        (_truncated_pickle, "damaged, or not a file of torch.save"),
        (_other_model, "lacks 52 tensors"),
        (_renamed("bert.", "electra."), "an ELECTRA, not a BERT.* ElectraModel does"),
        (_with("bert.embeddings.task_type_embeddings.weight", torch.ones(3, 32)), "ErnieModel"),
        (_with("albert.encoder.albert_layer_groups.0.x", torch.ones(1)), "an ALBERT"),
        (_diverged, r"layer\.1\.output\.dense\.bias holds NaN"),
        (_two_models, r"two models in one file.*'bert\.' and with 'teacher\.'"),
        (_lost_shard, r"model-1\.safetensors: missing"),
        (lambda p: p.unlink(), "no model file here"),
        (
            lambda p: _edit_config(p.parent, hidden_size=64),
            "hidden_size = 64, the weights have 32",
        ),
        (
            lambda p: _edit_config(p.parent, vocab_size=98),
            "vocab_size = 98, the weights have 97",
        ),
        (lambda p: _edit_config(p.parent, num_hidden_layers=4), "the weights have 3: correct"),
        (lambda p: _edit_config(p.parent, model_type="albert"), "albert.*AlbertModel"),
        (lambda p: _edit_config(p.parent, model_type="roberta"), "roberta.*RobertaModel"),
        (lambda p: _edit_config(p.parent, hidden_size=None), "no hidden_size"),
        (lambda p: (p.parent / "config.json").unlink(), "config.json: no such file"),
    ],
)
def test_a_bad_folder_is_one_clear_line(
    folder: Path, spoil: Callable[[Path], None], message: str, capfd: pytest.CaptureFixture[str]
) -> None:
    spoil(folder / "model.safetensors")
    with pytest.raises(ZhbertError, match=message) as caught:
        BertForPreTraining.from_pretrained(folder)
    assert "\n" not in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "a pickle ran code" not in capfd.readouterr().out


def test_a_decoder_of_its_own_is_refused(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    tensors["cls.predictions.decoder.weight"] = torch.ones(97, 32)
    save_file(tensors, folder / "model.safetensors")
    _edit_config(folder, tie_word_embeddings=False)
    with pytest.raises(ZhbertError, match="shared decoder"):
        BertForPreTraining.from_pretrained(folder)


def test_a_row_that_is_too_long_is_refused(config: BertConfig) -> None:
    with pytest.raises(ZhbertError, match="41 pieces: the model takes at most 40"):
        BertModel(config)(torch.zeros(1, 41, dtype=torch.long))


def test_saving_leaves_no_temporary_files(config: BertConfig, tmp_path: Path) -> None:
    BertForPreTraining(config).save_pretrained(tmp_path / "new" / "model")
    names = sorted(p.name for p in (tmp_path / "new" / "model").iterdir())
    assert names == ["config.json", "model.safetensors"]


def test_layers_beyond_those_of_the_config_are_said_to_be_unused(folder: Path) -> None:
    _edit_config(folder, num_hidden_layers=2)
    with pytest.warns(UnusedWeightsWarning, match=r"= 2, the weights have 3: only the first 2"):
        model = BertForPreTraining.from_pretrained(folder, quiet=True)
    assert len(model.encoder.layers) == 2


@pytest.mark.parametrize(
    ("name", "size"),
    [("type_vocab_size", 3), ("max_position_embeddings", 512), ("intermediate_size", 128)],
)
@pytest.mark.parametrize("verb", ["fill", "convert", "shrink", "verify"])
def test_a_size_that_the_weights_deny_is_one_line_of_every_verb(
    folder: Path, name: str, size: int, verb: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _edit_config(folder, **{name: size})
    (folder / "vocab.txt").write_text("".join(f"{piece}\n" for piece in _PIECES))
    more = {
        "fill": ["[MASK]"],
        "convert": [str(folder / "out"), "--to", "safetensors"],
        "shrink": ["--layers", "0", "--out", str(folder / "out")],
        "verify": [str(folder)],
    }
    assert main([verb, str(folder), *more[verb]]) == 2
    said = capsys.readouterr().err
    assert f"config.json says {name} = {size}, the weights have" in said
    assert said.count("\n") == 1


_PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(0x4E00, 0x4E00 + 92))]


# --- Where random weights begin, and what Muon moves


def linear_maps(model: torch.nn.Module) -> dict[str, torch.nn.Linear]:
    return {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}


def scaled(config: BertConfig, seed: int = 0) -> tuple[BertForPreTraining, np.ndarray]:
    counts = np.random.default_rng(1).integers(0, 50, config.vocab_size)
    counts[:3] = 0
    model = BertForPreTraining(config, seed=seed)
    model.scale_initial_weights(counts)
    return model, counts


def test_scaled_weights_keep_the_size_of_what_passes_through(config: BertConfig) -> None:
    model, _ = scaled(config)
    for name, module in linear_maps(model).items():
        numbers = module.weight.numel()
        wanted = module.in_features**-0.5
        error = 5 * wanted / (2 * numbers) ** 0.5
        assert module.weight.std().item() == pytest.approx(wanted, abs=error), name
        assert abs(module.weight.mean().item()) < 5 * wanted / numbers**0.5
        assert not module.bias.any()


def test_the_scaled_bias_is_the_log_of_smoothed_frequencies(config: BertConfig) -> None:
    model, counts = scaled(config)
    probabilities = model.mlm_head.bias.exp()
    assert probabilities.sum().item() == pytest.approx(1.0, abs=1e-5)
    expected = torch.tensor((counts + 0.5) / (counts + 0.5).sum(), dtype=torch.float32)
    torch.testing.assert_close(probabilities.detach(), expected)


def test_scaling_leaves_embeddings_and_norms_and_depends_on_the_seed_alone(
    config: BertConfig,
) -> None:
    plain = dict(BertForPreTraining(config, seed=4).named_parameters())
    model, again, other = (dict(scaled(config, seed)[0].named_parameters()) for seed in (4, 4, 5))
    changed = {f"{name}.weight" for name in linear_maps(scaled(config)[0])}
    for name, parameter in model.items():
        assert torch.equal(parameter, again[name])
        if name not in changed | {"mlm_head.bias"}:
            assert torch.equal(parameter, plain[name]), name
    assert all(not torch.equal(model[name], other[name]) for name in changed)


def test_scaled_weights_repeat_no_others(config: BertConfig) -> None:
    """A generator begun again would give the first linear map the embeddings' numbers."""
    model = scaled(config)[0]
    words = model.encoder.embeddings.words.weight.detach().flatten()
    for name, module in linear_maps(model).items():
        numbers = module.weight.detach().flatten()[: len(words)]
        correlation = torch.corrcoef(torch.stack((numbers, words[: len(numbers)])))[0, 1]
        assert correlation.abs() < 5 / len(numbers) ** 0.5, name


@pytest.mark.parametrize("hidden_size", [2, 32])
@pytest.mark.parametrize("inner", [2, 48])
def test_hidden_matrices_are_the_linear_maps_between_hidden_states(
    shape: dict[str, Any], hidden_size: int, inner: int
) -> None:
    shape |= {"hidden_size": hidden_size, "num_attention_heads": 2, "intermediate_size": inner}
    model = BertForPreTraining(BertConfig(**shape))
    found = model.hidden_matrices()
    parts = dict(model.named_parameters())
    assert found == {
        name: 3 if name.endswith("qkv.weight") else 1
        for name, parameter in parts.items()
        if parameter.ndim == 2 and not name.startswith(("encoder.embeddings.", "nsp_head."))
    }
    assert len(found) == 4 * 3 + 2  # of each layer, and the pooler's and the transform


def test_the_labels_of_a_fine_tuned_head_are_no_hidden_states(config: BertConfig) -> None:
    config.other["num_labels"] = 50
    model = BertForSequenceClassification(config)
    assert model.classifier.out_features == 50 > config.hidden_size
    assert "classifier.weight" not in model.hidden_matrices()
