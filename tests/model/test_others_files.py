"""Files of other programs: their wrappers, names and suffixes open, or are named for what they are.

The oracle is transformers: whatever a file is wrapped in, the hidden states are those of the model.
"""

from __future__ import annotations

import argparse
import collections
import json
import pathlib
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save, save_file

from zhbert.cli import main
from zhbert.errors import ZhbertError
from zhbert.model.checkpoint import open_checkpoint
from zhbert.model.inspection import summary_line
from zhbert.model.pretrained import BertForPreTraining, BertModel

State = dict[str, torch.Tensor]
SHAPE = {
    "vocab_size": 31,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 12,
    "initializer_range": 0.3,
}
IDS = torch.tensor([[2, 5, 7, 11, 3], [2, 30, 1, 4, 3]])


@pytest.fixture(scope="module")
def theirs() -> Any:
    torch.manual_seed(3)
    model = transformers.BertForPreTraining(transformers.BertConfig(**SHAPE))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.3)
    return model.train(False)


@pytest.fixture(scope="module")
def state(theirs: Any) -> State:
    return {name: tensor.detach() for name, tensor in theirs.named_parameters()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    values = {"model_type": "bert", **SHAPE}
    (tmp_path / "config.json").write_text(json.dumps(values), encoding="utf-8")
    return tmp_path


def assert_same_outputs(folder: Path, theirs: Any) -> None:
    ours = BertForPreTraining.from_pretrained(folder, quiet=True)
    segments = torch.tensor([[0, 0, 1, 1, 1], [0, 1, 1, 1, 1]])
    with torch.no_grad():
        mine = ours(IDS, token_type_ids=segments, output_hidden_states=True)
        his = theirs(IDS, token_type_ids=segments, output_hidden_states=True)
    for one, other in zip(mine.hidden_states, his.hidden_states, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=2e-5)
    torch.testing.assert_close(mine.prediction_logits, his.prediction_logits, rtol=0, atol=1e-4)
    torch.testing.assert_close(
        mine.seq_relationship_logits, his.seq_relationship_logits, rtol=0, atol=1e-4
    )


WRAPPERS: dict[str, Callable[[State], Any]] = {
    "bare": lambda s: s,
    "with a step": lambda s: {**s, "step": 7, "best": 0.5, "args": None},
    "ordered": lambda s: collections.OrderedDict(s),
    "lightning": lambda s: {
        "state_dict": s,
        "epoch": 1,
        "hyper_parameters": {"lr": 1e-5},
        "optimizer_states": [{"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": []}],
    },
    "with its optimizer": lambda s: {
        "model": s,
        "optimizer": {"state": {0: {"exp_avg": torch.ones(2)}}, "param_groups": [{"lr": 1}]},
        "rng": torch.get_rng_state(),
    },
    "with its arguments": lambda s: {
        "net": s,
        "args": argparse.Namespace(lr=1e-5, out=pathlib.PurePosixPath("x").name),
        "out": pathlib.PosixPath("runs/x"),
        "best": np.float64(0.5),
        "losses": np.arange(3.0),
        "scores": collections.defaultdict(list, {"f1": [0.5]}),
    },
    "with its average": lambda s: {"model": s, "ema": {n: t * 0 for n, t in s.items()}},
    "with a head beside": lambda s: {"bert": s, "fc": {"weight": torch.ones(2, 2)}},
    "deep": lambda s: {"checkpoint": {"model_state_dict": s, "step": 3}, "version": "1"},
    "student": lambda s: {"student": s, "epoch": torch.tensor(3)},
    "of any name": lambda s: {"我的模型": s},
}
SUFFIXES = [
    "pytorch_model.bin", "model.pt", "model.pth", "epoch=1-step=2.ckpt", "model.pkl",
    "bert.model", "checkpoint.pth.tar", "best.chkpt", "weights.ptparams", "weights", "m.zip",
]  # fmt: skip


@pytest.mark.parametrize("wrapper", WRAPPERS)
@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "old"])
def test_wrapped_weights_are_the_model(
    folder: Path, state: State, theirs: Any, wrapper: str, as_zip: bool
) -> None:
    wrapped = WRAPPERS[wrapper](state)
    torch.save(wrapped, folder / "model.pt", _use_new_zipfile_serialization=as_zip)
    assert_same_outputs(folder, theirs)


@pytest.mark.parametrize("name", SUFFIXES)
@pytest.mark.parametrize("as_zip", [True, False], ids=["zip", "old"])
def test_any_name_will_do_in_a_folder_or_by_itself(
    folder: Path, state: State, theirs: Any, name: str, as_zip: bool
) -> None:
    torch.save(state, folder / name, _use_new_zipfile_serialization=as_zip)
    assert_same_outputs(folder, theirs)
    assert_same_outputs(folder / name, theirs)


def test_a_file_of_weights_is_read_with_the_vocabulary_beside_it(
    folder: Path, state: State
) -> None:
    from zhbert.text.tokenizer import Tokenizer

    Tokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "好"]).save_pretrained(folder)
    torch.save(state, folder / "step-7.pt")
    assert Tokenizer.from_pretrained(folder / "step-7.pt").id_of("好") == 5


@pytest.mark.parametrize("name", ["pytorch_model.bin", "weights", "model.safetensors", "x.ckpt"])
def test_safetensors_are_told_by_their_bytes(
    folder: Path, state: State, theirs: Any, name: str
) -> None:
    (folder / name).write_bytes(save({n: t.contiguous() for n, t in state.items()}))
    assert_same_outputs(folder / name, theirs)
    assert open_checkpoint(folder).format == "safetensors"


def test_entries_that_are_no_tensors_are_counted(tmp_path: Path, state: State) -> None:
    torch.save({"model": {**state, "step": 7}, "epoch": 3, "args": None}, tmp_path / "x.pt")
    found = open_checkpoint(tmp_path / "x.pt")
    assert sorted(found.skipped) == ["args", "epoch", "step"]
    assert summary_line(found).endswith("; 3 items left aside (no weights)")


def test_files_that_only_accompany_a_model_are_not_taken_for_one(
    folder: Path, state: State, theirs: Any
) -> None:
    torch.save(state, folder / "model.pt")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state_0.pth", "training_args.bin"):
        torch.save({"x": torch.ones(1)}, folder / name)
    assert_same_outputs(folder, theirs)


def test_several_files_of_weights_are_named(folder: Path, state: State) -> None:
    for name in ("one.pt", "two.pt"):
        torch.save(state, folder / name)
    with pytest.raises(ZhbertError, match=r"several files of weights in it, one\.pt, two\.pt"):
        open_checkpoint(folder)


@pytest.mark.parametrize("keys", [("student", "teacher"), ("a", "b"), ("bert", "ema")])
def test_two_models_in_one_file_are_named_by_their_keys(
    tmp_path: Path, state: State, keys: tuple[str, str]
) -> None:
    torch.save(dict.fromkeys(keys, state), tmp_path / "x.pt")
    with pytest.raises(ZhbertError, match=f"2 models in one file, '{keys[0]}' and '{keys[1]}'"):
        open_checkpoint(tmp_path / "x.pt")


# --- names --------------------------------------------------------------------------------------


def nvidia(state: State) -> State:
    return {
        n.replace("intermediate.dense.", "intermediate.dense_act.")
        .replace("pooler.dense.", "pooler.dense_act.")
        .replace("transform.dense.", "transform.dense_act."): t
        for n, t in state.items()
    }


UER = {
    "bert.embeddings.word_embeddings.weight": "embedding.word_embedding.weight",
    "bert.embeddings.position_embeddings.weight": "embedding.position_embedding.weight",
    "bert.embeddings.token_type_embeddings.weight": "embedding.segment_embedding.weight",
    "bert.embeddings.LayerNorm.": "embedding.layer_norm.",
    "attention.self.query": "self_attn.linear_layers.0",
    "attention.self.key": "self_attn.linear_layers.1",
    "attention.self.value": "self_attn.linear_layers.2",
    "attention.output.dense": "self_attn.final_linear",
    "attention.output.LayerNorm": "layer_norm_1",
    "intermediate.dense": "feed_forward.linear_1",
    "output.dense": "feed_forward.linear_2",
    "output.LayerNorm": "layer_norm_2",
    "bert.encoder.layer.": "encoder.transformer.",
    "bert.pooler.dense": "target.nsp_linear_1",
    "cls.seq_relationship": "target.nsp_linear_2",
    "cls.predictions.transform.dense": "target.mlm_linear_1",
    "cls.predictions.transform.LayerNorm": "target.layer_norm",
    "cls.predictions.bias": "target.mlm_linear_2.bias",
}
NEWER_UER = {
    "word_embedding.weight": "word.embedding.weight",
    "position_embedding.weight": "pos.embedding.weight",
    "segment_embedding.weight": "seg.embedding.weight",
    "target.nsp_linear_": "target.sp.linear_",
    "target.mlm_linear_": "target.mlm.linear_",
    "target.layer_norm": "target.mlm.layer_norm",
}


def uer(state: State, newer: bool = False) -> State:
    """UER-py's names; its segment embeddings have a row for padding before the others."""
    found = {}
    for name, tensor in state.items():
        if "token_type" in name:
            tensor = torch.cat([torch.full((1, 16), 9.0), tensor])
        is_norm = "LayerNorm" in name
        for table in (UER, NEWER_UER) if newer else (UER,):
            for old, new in table.items():
                name = name.replace(old, new)
        if is_norm:
            name = name.replace(".weight", ".gamma").replace(".bias", ".beta")
        found[name] = tensor
    return {**found, "target.mlm_linear_2.weight": state["bert.embeddings.word_embeddings.weight"]}


NAMES: dict[str, Callable[[State], State]] = {
    "nvidia": nvidia,
    "uer": uer,
    "tencentpretrain": lambda s: uer(s, newer=True),
    "google's norms": lambda s: {
        n.replace("Norm.weight", "Norm.gamma").replace("Norm.bias", "Norm.beta"): t
        for n, t in s.items()
    },
    "roberta's": lambda s: {
        n.replace("bert.", "roberta.")
        .replace("cls.predictions.transform.dense", "lm_head.dense")
        .replace("cls.predictions.transform.LayerNorm", "lm_head.layer_norm")
        .replace("cls.predictions.bias", "lm_head.bias"): t
        for n, t in s.items()
    },
}  # fmt: skip


@pytest.mark.parametrize("names", NAMES)
@pytest.mark.parametrize("prefix", ["", "module.", "module._orig_mod."])
def test_other_programs_names_are_the_same_model(
    folder: Path, state: State, theirs: Any, names: str, prefix: str
) -> None:
    renamed = {f"{prefix}{name}": tensor for name, tensor in NAMES[names](state).items()}
    assert set(renamed) != set(state)
    torch.save({"model": renamed}, folder / "model.bin")
    assert_same_outputs(folder, theirs)


def test_an_encoder_of_sentence_transformers_opens(folder: Path, state: State, theirs: Any) -> None:
    trunk = {n.removeprefix("bert."): t for n, t in state.items() if n.startswith("bert.")}
    save_file({f"0.auto_model.{n}": t for n, t in trunk.items()}, folder / "model.safetensors")
    ours = BertModel.from_pretrained(folder, quiet=True)
    with torch.no_grad():
        mine, his = ours(IDS), theirs.bert(IDS)
    torch.testing.assert_close(mine.last_hidden_state, his.last_hidden_state, rtol=0, atol=2e-5)


# --- what is named for what it is ---------------------------------------------------------------

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 409\n"
FOREIGN = {
    "tf_model.h5": (b"\x89HDF\r\n\x1a\n" + bytes(64), "from_tf=True"),
    "flax_model.msgpack": (b"\x82\xa4bert\x83\xaaembeddings", "from_flax=True"),
    "model.pkl": (b"\x80\x04\x95\x10\0\0\0\0\0\0\0}\x94.", "a plain Python pickle"),
    "model.onnx": (b"\x08\x08\x12\x07pytorch\x1a\x051.13", "an ONNX graph"),
    "saved_model.pb": (b"\x08\x01\x12\xff\xff\x03", "SavedModel"),
    "ggml-model.gguf": (b"GGUF\x03\0\0\0", "llama.cpp"),
    "pytorch_model.bin": (POINTER, "git lfs pull"),
    "model.safetensors": (b"Entry not found", "a text file ('Entry not found')"),
}


@pytest.mark.parametrize("name", FOREIGN)
@pytest.mark.parametrize("under", ["its name", "pytorch_model.bin", "model.safetensors", "x"])
def test_a_file_is_named_with_the_way_out(tmp_path: Path, name: str, under: str) -> None:
    content, said = FOREIGN[name]
    path = tmp_path / (name if under == "its name" else under)
    path.write_bytes(content)
    places = [path, tmp_path] if under != "x" else [path]
    for place in places:
        with pytest.raises(ZhbertError) as caught:
            open_checkpoint(place)
        assert said in str(caught.value)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", [name for name in FOREIGN if not name.endswith((".bin", "tensors"))]
)
def test_a_name_tells_where_the_bytes_do_not(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\0\1")
    with pytest.raises(ZhbertError, match=name) as caught:
        open_checkpoint(tmp_path)
    assert FOREIGN[name][1] in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80",
        b"\x80\x02",
        b"\x80\x02.",
        b"PK\x03\x04",
        b"PK\x05\x06" + bytes(18),
        b"{}",
        b"<!DOCTYPE html><html>",
        b'{"error": "Repository not found"}',
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2**40) + b'{"a":',
        struct.pack("<Q", 8) + b'{"a":{}}',
        struct.pack("<Q", 3) + b'{"a',
    ],
)
@pytest.mark.parametrize("name", ["pytorch_model.bin", "model.safetensors"])
def test_rubbish_is_one_line(folder: Path, content: bytes, name: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ZhbertError) as caught:
        BertModel.from_pretrained(folder, quiet=True)
    assert "\n" not in str(caught.value)
    assert str(folder / name) in str(caught.value)


def made(kind: str, state: State, folder: Path) -> bytes:
    if kind == "safetensors":
        return save({n: t.contiguous() for n, t in state.items()})
    torch.save(state, folder / "made", _use_new_zipfile_serialization=kind == "zip")
    content = (folder / "made").read_bytes()
    (folder / "made").unlink()
    return content


@pytest.mark.parametrize("kind", ["safetensors", "zip", "old"])
def test_a_damaged_file_opens_whole_or_is_one_line(tmp_path: Path, state: State, kind: str) -> None:
    """Cut anywhere, or with bytes changed near its beginning and end, where its structure is."""
    some = {name: state[name] for name in list(state)[:5]}
    content = made(kind, some, tmp_path)
    path = tmp_path / "model.bin"

    @given(st.data())
    def damaged(data: st.DataObject) -> None:
        spoilt = bytearray(content)
        if data.draw(st.booleans()):
            del spoilt[data.draw(st.integers(0, len(content) - 1)) :]
        for _ in range(data.draw(st.integers(0, 3))):
            near = st.integers(0, min(700, len(spoilt)))
            place = data.draw(near) * data.draw(st.sampled_from([1, -1]))
            if -len(spoilt) <= place < len(spoilt):
                spoilt[place] = data.draw(st.integers(0, 255))
        path.write_bytes(spoilt)
        said = ""
        try:
            for entry in open_checkpoint(path).entries.values():
                assert tuple(entry.read().shape) == entry.shape
        except ZhbertError as error:
            said = str(error)
        assert "\n" not in said
        assert not said or str(path) in said

    damaged()


def test_a_quantised_model_is_refused_and_inspected(folder: Path, state: State, capsys) -> None:
    whole = {name: tensor.to(torch.int8) for name, tensor in state.items()}
    torch.save(whole, folder / "model.pt")
    with pytest.raises(ZhbertError, match="kept as int8: a quantised model"):
        BertModel.from_pretrained(folder)
    assert main(["inspect", str(folder)]) == 0
    assert "quantised" in capsys.readouterr().out


def test_a_whole_model_object_and_another_protocol_are_named(tmp_path: Path, state: State) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "whole.pt")
    with pytest.raises(ZhbertError, match=r"Linear first \(it could run code\).*state_dict\(\)"):
        open_checkpoint(tmp_path / "whole.pt")
    torch.save(state, tmp_path / "four.pt", pickle_protocol=4)
    with pytest.raises(ZhbertError, match="another pickle protocol"):
        open_checkpoint(tmp_path / "four.pt")
    (tmp_path / "jit.pt").write_bytes(b"PK\x03\x04" + bytes(22) + b"\x0a\0\0\0jit/data/0")
    with pytest.raises(ZhbertError, match="TorchScript"):
        open_checkpoint(tmp_path / "jit.pt")
    torch.save([state], tmp_path / "list.pt")
    with pytest.raises(ZhbertError, match="no table of tensors by name; it holds list"):
        open_checkpoint(tmp_path / "list.pt")


def test_a_number_repeated_beyond_the_file_does_not_fill_the_memory(tmp_path: Path) -> None:
    torch.save({"x.a": torch.ones(1).expand(1 << 20, 1 << 20)}, tmp_path / "model.pt")
    with pytest.raises(ZhbertError, match=r"x\.a, 4,398,046,511,104 bytes, is larger than the"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    "weight_map",
    [None, [], {}, "x", {"a": 1}, {"a": None}, {"a": ["x"]}, {"a": "../x"}, {"a": "no.bin"}],
)
def test_an_index_that_leads_nowhere_is_one_line(tmp_path: Path, weight_map: Any) -> None:
    index = tmp_path / "pytorch_model.bin.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": "x"}, "weight_map": weight_map}))
    with pytest.raises(ZhbertError, match=r"no weight_map|not a file beside it|missing, though"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize("name", ["config.json", "vocab.txt"])
@pytest.mark.parametrize("content", [POINTER, b"<!DOCTYPE html><html><title>404</title></html>"])
def test_a_pointer_or_a_page_beside_the_weights_is_named(
    folder: Path, state: State, name: str, content: bytes
) -> None:
    from zhbert.text.tokenizer import Tokenizer

    torch.save(state, folder / "model.pt")
    (folder / name).write_bytes(content)
    opened = BertModel if name == "config.json" else Tokenizer
    with pytest.raises(ZhbertError, match=rf"{name}: .*a (Git LFS pointer|web page)"):
        opened.from_pretrained(folder)
