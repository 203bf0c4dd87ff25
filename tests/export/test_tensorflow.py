"""Models in Google's form: the numbers that a BERT written in TensorFlow computes from them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.export.tf_bert import TensorFlowBert
from tests.model.conftest import SHAPE, enlarge

from zhbert import BertForMaskedLM, BertForPreTraining, BertModel
from zhbert.export import tensorflow as convert
from zhbert.export.tensorflow import google_config, write_tensorflow
from zhbert.model.checkpoint import open_checkpoint
from zhbert.model.config import BertConfig
from zhbert.model.entry import Entry, converted, entries_of
from zhbert.model.formats.tensorflow import import_tensorflow
from zhbert.model.names import to_hugging_face

# As Google's files for Chinese have it.
GOOGLE_KEYS = {
    *("attention_probs_dropout_prob", "directionality", "hidden_act", "hidden_dropout_prob"),
    *("hidden_size", "initializer_range", "intermediate_size", "max_position_embeddings"),
    *("num_attention_heads", "num_hidden_layers", "pooler_fc_size", "pooler_num_attention_heads"),
    *("pooler_num_fc_layers", "pooler_size_per_head", "pooler_type", "type_vocab_size"),
    "vocab_size",
}


def a_model(kind: type = BertForPreTraining, **changes: Any) -> Any:
    torch.manual_seed(0)
    return enlarge(kind(BertConfig(**(SHAPE | changes)))).eval()


def a_batch(pieces: int = 97, longest: int = 17) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    mask = torch.ones(3, longest, dtype=torch.long)
    mask[1, longest // 2 :] = 0
    return {
        "input_ids": torch.randint(0, pieces, (3, longest), generator=generator),
        "attention_mask": mask,
        "token_type_ids": torch.randint(0, 2, (3, longest), generator=generator),
    }


def entries(model: torch.nn.Module) -> dict[str, Entry]:
    return entries_of(to_hugging_face({n: p.detach() for n, p in model.named_parameters()}))


def written(model: Any, folder: Path, *, dtype: torch.dtype | None = None, **options: Any) -> Path:
    folder.mkdir()
    write_tensorflow(folder, converted(entries(model), dtype), model.config, **options)
    return folder


def largest_difference(model: Any, folder: Path, batch: dict[str, torch.Tensor]) -> float:
    """Ours against TensorFlow's, over embeddings, layers and heads, wherever a piece stands."""
    there = batch["attention_mask"].bool()
    theirs = TensorFlowBert(folder)(**{name: t.numpy() for name, t in batch.items()})
    with torch.no_grad():
        ours = model(**batch, output_hidden_states=True)
    pairs = list(zip(ours.hidden_states, theirs.hidden_states, strict=True))
    pairs += [(ours.prediction_logits, theirs.words), (ours.logits, theirs.words)]
    differences = [
        np.abs(a[there].numpy() - b[there.numpy()]).max() for a, b in pairs if a is not None
    ]
    for a, b in ((ours.seq_relationship_logits, theirs.pair), (ours.pooler_output, theirs.pooled)):
        if a is not None:
            assert b is not None
            differences.append(np.abs(a.numpy() - b).max())
    assert len(differences) == len(ours.hidden_states) + {
        BertForPreTraining: 2, BertForMaskedLM: 1, BertModel: 1
    }[type(model)]  # fmt: skip
    return float(max(differences))


@pytest.mark.parametrize("kind", [BertForPreTraining, BertForMaskedLM, BertModel])
@pytest.mark.parametrize("activation", ["gelu", "relu"])
def test_tensorflow_computes_the_same_numbers(tmp_path: Path, kind: type, activation: str) -> None:
    model = a_model(kind, hidden_act=activation)
    assert largest_difference(model, written(model, tmp_path / "tf"), a_batch()) < 1e-4


@pytest.mark.parametrize(
    "name",
    [
        "bert.encoder.layer.1.attention.self.query.weight",
        "bert.encoder.layer.1.attention.self.key.weight",
        "bert.encoder.layer.1.attention.self.value.weight",
        "bert.encoder.layer.1.attention.output.dense.weight",
        "bert.pooler.dense.weight",
        "cls.predictions.transform.dense.weight",
    ],
)
def test_a_forgotten_transpose_of_a_square_matrix_shows(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    honest = convert.NAMES.from_hugging_face
    monkeypatch.setattr(
        convert.NAMES,
        "from_hugging_face",
        lambda n: (honest(n)[0], False) if n == name else honest(n),
    )
    model = a_model()
    assert largest_difference(model, written(model, tmp_path / "tf"), a_batch()) > 1e-2


def test_exchanged_segments_and_pairs_would_show(tmp_path: Path) -> None:
    model = a_model()
    changed = entries(model)
    for name in ("bert.embeddings.token_type_embeddings.weight", "cls.seq_relationship.weight"):
        spoilt = changed | {name: changed[name].then(lambda t: t.flip(0))}
        folder = tmp_path / name
        folder.mkdir()
        write_tensorflow(folder, spoilt, model.config)
        assert largest_difference(model, folder, a_batch()) > 1e-2


def test_the_genuine_checkpoint_gives_googles_numbers(data: Path) -> None:
    folder = data / "fixtures" / "tf1_tiny_bert"
    model = BertForPreTraining.from_pretrained(folder)
    assert largest_difference(model, folder, a_batch(pieces=15, longest=11)) < 1e-5


def test_many_parts_hold_what_one_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = a_model()
    one = written(model, tmp_path / "one")
    assert sorted(p.name for p in one.iterdir()) == [
        "bert_config.json",
        "bert_model.ckpt.data-00000-of-00001",
        "bert_model.ckpt.index",
    ]
    monkeypatch.setattr(convert, "_PART_BYTES", 20_000)
    many = written(model, tmp_path / "many")
    names = {p.name for p in many.iterdir()}
    count = len(names) - 2
    assert count > 5
    assert names == {"bert_config.json", "bert_model.ckpt.index"} | {
        f"bert_model.ckpt.data-{number:05}-of-{count:05}" for number in range(count)
    }
    assert largest_difference(model, many, a_batch()) < 1e-4


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_every_type_is_stored_as_it_is(tmp_path: Path, kind: torch.dtype) -> None:
    model = a_model()
    folder = written(model, tmp_path / "tf", dtype=kind)
    reader = import_tensorflow().train.load_checkpoint(str(folder / "bert_model.ckpt"))
    kinds = {t.name for t in reader.get_variable_to_dtype_map().values()}
    assert kinds == {str(kind).removeprefix("torch.")}
    found = open_checkpoint(folder).entries
    for name, entry in entries(model).items():
        assert torch.equal(found[name].read(), entry.read().to(kind))


def test_tensors_that_begin_anywhere_in_memory_are_written(tmp_path: Path) -> None:
    numbers = torch.randn(400)
    pieces = {f"piece {start}": numbers[start : start + 33] for start in range(30)}
    write_tensorflow(tmp_path, entries_of(pieces), BertConfig(**SHAPE))
    found = open_checkpoint(tmp_path).entries
    assert all(torch.equal(found[name].read(), piece) for name, piece in pieces.items())


def test_bert_config_holds_googles_keys(data: Path) -> None:
    path = data / "fixtures" / "tf1_tiny_bert" / "bert_config.json"
    values = json.loads(path.read_text())
    assert google_config(BertConfig.from_pretrained(path)) == values
    assert set(values) == GOOGLE_KEYS
    ours = google_config(BertConfig(other={"architectures": ["BertModel"], "dtype": "float32"}))
    assert set(ours) < GOOGLE_KEYS
    # Google's code has 1e-12 fixed: another value must not be lost.
    assert google_config(BertConfig(layer_norm_eps=1e-5))["layer_norm_eps"] == 1e-5


def test_a_full_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tensorflow = import_tensorflow()

    def full(**_: Any) -> None:
        raise tensorflow.errors.ResourceExhaustedError(None, None, "x; No space left on device")

    monkeypatch.setattr(tensorflow.raw_ops, "SaveV2", full)
    with pytest.raises(convert.ZhbertError, match="the disk is full"):
        written(a_model(), tmp_path / "tf")
