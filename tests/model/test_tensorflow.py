"""TensorFlow checkpoints: names, what is skipped, and clear words about bad files."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.model.checkpoint import Checkpoint, open_checkpoint
from zhbert.model.config import BertConfig
from zhbert.model.formats import tensorflow as module
from zhbert.model.formats.tensorflow import NAMES, import_tensorflow, read_tensorflow
from zhbert.model.loading import check_architecture
from zhbert.model.names import TEMPLATES

WORDS = "bert/embeddings/word_embeddings"


def save(prefix: Path, variables: dict[str, Any]) -> Path:
    tensorflow = import_tensorflow()
    tensorflow.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(variables),
        shape_and_slices=[""] * len(variables),
        tensors=list(variables.values()),
    )
    return prefix


def opened(prefix: Path) -> Checkpoint:
    return open_checkpoint(prefix.with_name(f"{prefix.name}.index"))


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, np.float32)


@pytest.fixture
def fixture_prefix(data: Path) -> Path:
    return data / "fixtures" / "tf1_tiny_bert" / "bert_model.ckpt"


@given(st.integers(0, 99))
def test_every_name_of_the_model_has_one_of_tensorflows_and_back(layer: int) -> None:
    theirs = set()
    for template in TEMPLATES:
        name = template.replace("*", str(layer))
        found = NAMES.from_hugging_face(name)
        assert found is not None
        assert NAMES.to_hugging_face(found[0]) == (name, found[1])
        assert found[1] == found[0].endswith("/kernel")
        theirs.add(found[0])
    assert len(theirs) == len(TEMPLATES)


def test_the_genuine_checkpoint_opens_whole(fixture_prefix: Path) -> None:
    checkpoint = opened(fixture_prefix)
    fine_tuned = ("classifier.", "qa_outputs.")
    names = {name.replace("*", str(n)) for name in TEMPLATES for n in range(2)}
    assert set(checkpoint.entries) == {n for n in names if not n.startswith(fine_tuned)}
    assert checkpoint.format == "tensorflow"
    for entry in checkpoint.entries.values():
        tensor = entry.read()
        assert (tuple(tensor.shape), tensor.dtype) == (entry.shape, torch.float32)
    # Two slots of Adam a variable, and the step.
    assert len(checkpoint.skipped) == 2 * len(checkpoint.entries) + 1
    assert "global_step" in checkpoint.skipped
    assert open_checkpoint(fixture_prefix.parent).entries.keys() == checkpoint.entries.keys()
    kernel = "bert/encoder/layer_1/intermediate/dense/kernel"
    reader = import_tensorflow().train.load_checkpoint(str(fixture_prefix))
    ours = checkpoint.entries["bert.encoder.layer.1.intermediate.dense.weight"].read()
    assert np.array_equal(ours.numpy(), reader.get_tensor(kernel).T)


def test_what_optimisers_keep_is_skipped_whatever_they_call_it(tmp_path: Path) -> None:
    slots = {
        f"{WORDS}/{slot}": ones(3, 2)
        for slot in ("adam_m", "lamb_v", "Adam", "Adam_1", "Momentum", "ExponentialMovingAverage")
    }
    others = ("global_step", "beta1_power", "beta2_power_1", "loss_scale", "bad_steps")
    state: dict[str, Any] = {name: np.float32(1) for name in others}
    state["current_loss_scale"] = np.float32(1)
    state["training/LAMB/bert/x/lamb_m"] = ones(2)
    checkpoint = opened(save(tmp_path / "x", {WORDS: ones(3, 2)} | slots | state))
    assert list(checkpoint.entries) == ["bert.embeddings.word_embeddings.weight"]
    assert set(checkpoint.skipped) == set(slots) | set(state)


def test_a_scope_before_all_names_is_seen(tmp_path: Path) -> None:
    kernel = np.arange(6, dtype=np.float32).reshape(2, 3)
    variables = {f"model/{WORDS}": ones(3, 2), "model/bert/pooler/dense/kernel": kernel}
    entries = opened(save(tmp_path / "x", variables)).entries
    assert set(entries) == {"bert.embeddings.word_embeddings.weight", "bert.pooler.dense.weight"}
    assert entries["bert.pooler.dense.weight"].read().tolist() == kernel.T.tolist()


def test_heads_of_googles_fine_tuning_and_unknown_variables(tmp_path: Path) -> None:
    weights = np.arange(8, dtype=np.float32).reshape(2, 4)
    variables = {
        "output_weights": weights,
        "output_bias": ones(2),
        "cls/squad/output_weights": 2 * weights,
        "cls/squad/output_bias": ones(2),
        "crf/kernel": ones(2, 3),
    }
    entries = opened(save(tmp_path / "x", variables)).entries
    assert set(entries) == {
        *("classifier.weight", "classifier.bias", "qa_outputs.weight", "qa_outputs.bias"),
        "crf/kernel",
    }
    assert entries["classifier.weight"].read().tolist() == weights.tolist()
    assert entries["crf/kernel"].shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "what"),
    [
        ("bert/encoder/transformer/group_0/inner_group_0/attention_1/self/key/bias", "an ALBERT"),
        ("electra/encoder/layer_0/output/dense/bias", "an ELECTRA"),
    ],
)
def test_other_architectures_are_named(tmp_path: Path, name: str, what: str) -> None:
    checkpoint = opened(save(tmp_path / "x", {name: ones(2)}))
    with pytest.raises(ZhbertError, match=f"{what}, not a BERT"):
        check_architecture(checkpoint, BertConfig())


def test_every_type_is_read(tmp_path: Path) -> None:
    tensorflow = import_tensorflow()
    kinds = {"float16": torch.float16, "bfloat16": torch.bfloat16, "float64": torch.float64}
    numbers = [[1.5, -2.25, 3.0]]
    variables = {f"of/{kind}": tensorflow.constant(numbers, kind) for kind in kinds}
    entries = opened(save(tmp_path / "x", variables)).entries
    for kind, dtype in kinds.items():
        tensor = entries[f"of/{kind}"].read()
        assert tensor.dtype == dtype
        assert tensor.tolist() == numbers


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda p: Path(f"{p}.data-00000-of-00001").unlink(), "data-00000-of-00001: missing"),
        (lambda p: _cut(Path(f"{p}.data-00000-of-00001")), "truncated: 1,206 of 2,412 bytes"),
        (lambda p: _cut(Path(f"{p}.index")), "damaged, or not a checkpoint of TensorFlow"),
        (lambda p: Path(f"{p}.index").write_bytes(b"<html>not found</html>" * 9), "damaged, or"),
        (
            lambda p: Path(f"{p}.index").write_bytes(b""),
            "damaged, or not a checkpoint of TensorFlow",
        ),
    ],
)
def test_a_bad_file_is_one_clear_line(tmp_path: Path, spoil: Any, message: str) -> None:
    prefix = save(tmp_path / "x", {WORDS: ones(200, 3), "bert/pooler/dense/bias": ones(3)})
    spoil(prefix)
    with pytest.raises(ZhbertError, match=message) as caught:
        read_tensorflow(prefix)
    assert "\n" not in str(caught.value)
    assert str(prefix) in str(caught.value)


def test_a_flipped_bit_is_seen_when_the_tensor_is_read(tmp_path: Path) -> None:
    prefix = save(tmp_path / "x", {WORDS: ones(200, 3)})
    part = Path(f"{prefix}.data-00000-of-00001")
    content = bytearray(part.read_bytes())
    content[100] ^= 1
    part.write_bytes(content)
    entry = opened(prefix).entries["bert.embeddings.word_embeddings.weight"]
    with pytest.raises(ZhbertError, match="damaged, or not a checkpoint of TensorFlow"):
        entry.read()


def test_a_checkpoint_of_tensorflow_2_objects_is_named(tmp_path: Path) -> None:
    tensorflow = import_tensorflow()
    prefix = tensorflow.train.Checkpoint(v=tensorflow.Variable([1.0])).write(str(tmp_path / "x"))
    with pytest.raises(ZhbertError, match="a checkpoint of TensorFlow 2 objects"):
        read_tensorflow(Path(prefix))


def test_without_tensorflow_one_line_says_what_to_install(
    fixture_prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with pytest.raises(ZhbertError, match=r"pip install 'tensorflow[^' ]*'$"):
        read_tensorflow(fixture_prefix)


def test_a_broken_tensorflow_is_not_called_a_missing_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str) -> None:
        raise ImportError("libcudart.so.12: cannot open shared object file", name="_pywrap")

    monkeypatch.setattr(module.importlib, "import_module", broken)
    with pytest.raises(ZhbertError, match=r"TensorFlow does not start: libcudart\.so\.12"):
        import_tensorflow()


def test_tensorflow_keeps_quiet_and_whole(fixture_prefix: Path) -> None:
    code = f"""
import os, sys
from zhbert.model.checkpoint import open_checkpoint
print(len(open_checkpoint({str(fixture_prefix.parent)!r}).entries))
sys.stderr.write("still heard\\n"); sys.stderr.flush()
os.write(2, b"and below\\n")
import tensorflow
print(tensorflow.keras.layers.Dense.__name__, os.environ["TF_CPP_MIN_LOG_LEVEL"])
"""
    environment = {k: v for k, v in os.environ.items() if k != "TF_CPP_MIN_LOG_LEVEL"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.split() == ["46", "Dense", "2"]
    assert done.stderr == "still heard\nand below\n"


def test_tensorflow_is_as_quiet_as_its_user_wants_it(
    fixture_prefix: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TF_CPP_MIN_LOG_LEVEL", "3")
    open_checkpoint(fixture_prefix.parent)
    assert os.environ["TF_CPP_MIN_LOG_LEVEL"] == "3"
