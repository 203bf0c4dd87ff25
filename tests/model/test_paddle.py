"""PaddleNLP's files without Paddle: names, .pdparams, and what is refused. See tests/paddle."""

from __future__ import annotations

import json
import os
import pickle
import shutil
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file
from tests.model.conftest import SHAPE, enlarge

from zhbert import BertConfig, BertForPreTraining, BertModel, Tokenizer
from zhbert.cli import main
from zhbert.errors import ZhbertError
from zhbert.export.convert import convert
from zhbert.model.checkpoint import open_checkpoint
from zhbert.model.entry import entries_of
from zhbert.model.formats.paddle import from_paddle, is_paddle, to_paddle
from zhbert.model.names import TEMPLATES

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(0x4E00, 0x4E00 + 92))]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    enlarge(BertForPreTraining(BertConfig(**SHAPE))).save_pretrained(folder)
    Tokenizer(PIECES).save_pretrained(folder, model_max_length=40)
    return folder


@pytest.fixture
def paddle(model: Path, tmp_path: Path) -> Path:
    """The same model as Paddle's save_pretrained leaves it: its weights in a .pdparams."""
    folder = tmp_path / "paddle"
    convert(model, folder, "paddle")
    arrays = {n: t.numpy() for n, t in load_file(folder / "model.safetensors").items()}
    (folder / "model.safetensors").unlink()
    save(folder / "model_state.pdparams", arrays)
    return folder


def save(path: Path, value: Any, protocol: int = 4) -> None:
    path.write_bytes(pickle.dumps(value, protocol=protocol))


def arrays_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = pickle.loads((folder / "model_state.pdparams").read_bytes())
    return found


def assert_same_tensors(one: Path, other: Path) -> None:
    a, b = open_checkpoint(one).entries, open_checkpoint(other).entries
    assert a.keys() == b.keys()
    for name in a:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name].read(), b[name].read()), name


@given(st.integers(0, 99))
def test_every_name_has_one_of_paddles_and_back(layer: int) -> None:
    names = [name.replace("*", str(layer)) for name in TEMPLATES if "qa_outputs" not in name]
    entries = entries_of({name: torch.zeros(2, 3) for name in names})
    theirs = to_paddle(entries)
    # The decoder, which shares the word embeddings, stands there by its own names, too.
    assert len(theirs) == len(names) + 2
    back = from_paddle(theirs)
    assert {name for name in back if "decoder" not in name} >= set(names)
    assert all(back[name].shape == (2, 3) for name in names)


def test_a_round_is_exact_to_the_byte(model: Path, tmp_path: Path) -> None:
    for number, options in enumerate(({}, {"max_shard_size": 30_000})):
        convert(model, tmp_path / f"paddle{number}", "paddle", **options)
        convert(tmp_path / f"paddle{number}", tmp_path / f"back{number}", "safetensors")
        for name in ("model.safetensors", "vocab.txt", "tokenizer_config.json", "tokenizer.json"):
            assert (tmp_path / f"back{number}" / name).read_bytes() == (model / name).read_bytes()
    configs = [json.loads((f / "config.json").read_text()) for f in (model, tmp_path / "back0")]
    assert configs[0] == configs[1]


def test_pdparams_open_as_a_model(paddle: Path, model: Path, tmp_path: Path) -> None:
    assert_same_tensors(paddle, model)
    ids = torch.randint(0, 97, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        ours, theirs = (
            BertForPreTraining.from_pretrained(f)(ids).prediction_logits for f in (model, paddle)
        )
    assert torch.equal(ours, theirs)


def test_other_ways_to_write_a_pdparams(paddle: Path, model: Path) -> None:
    arrays = arrays_of(paddle)
    name = "bert.encoder.layers.0.linear1.weight"
    for other in (
        OrderedDict(arrays),
        arrays | {name: np.asfortranarray(arrays[name])},
        {n: (n, array) for n, array in arrays.items()},  # beside other objects, as paddle.save does
        arrays | {"StructuredToParameterName@@": {name: "linear_2.w_0"}, "epoch": 3, "lr": 1e-4},
        {f"module.{n}": array for n, array in arrays.items()},
        # The names of the first versions of PaddleNLP.
        {n.replace("decoder.weight", "decoder_weight"): a for n, a in arrays.items()},
    ):
        for protocol in (2, 4):  # PaddlePaddle before 2.1, and since
            save(paddle / "model_state.pdparams", other, protocol)
            assert_same_tensors(paddle, model)


def test_a_model_without_its_class_around_it(paddle: Path, model: Path, tmp_path: Path) -> None:
    arrays = {n.removeprefix("bert."): a for n, a in arrays_of(paddle).items() if "cls." not in n}
    save(paddle / "model_state.pdparams", arrays)
    ids = torch.randint(0, 97, (2, 9), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states = [
            BertModel.from_pretrained(folder, quiet=True)(ids).last_hidden_state
            for folder in (model, paddle)
        ]
    assert states[0] is not None
    assert states[1] is not None
    assert torch.equal(*states)


def test_the_configuration_of_older_versions(paddle: Path, model: Path) -> None:
    values = json.loads((paddle / "config.json").read_text())
    (paddle / "config.json").unlink()
    inner = {name: values[name] for name in SHAPE} | {"init_class": "BertModel"}
    old = {"init_args": [inner], "init_class": "BertForPretraining"}
    (paddle / "model_config.json").write_text(json.dumps(old))
    config = BertConfig.from_pretrained(paddle)
    assert config.hidden_size == SHAPE["hidden_size"]
    assert config.other["architectures"] == ["BertForPreTraining"]
    assert_same_tensors(paddle, model)


def test_the_head_of_question_answering_has_its_own_name(tmp_path: Path) -> None:
    from zhbert.model.pretrained import BertForQuestionAnswering

    enlarge(BertForQuestionAnswering(BertConfig(**SHAPE))).save_pretrained(tmp_path / "model")
    convert(tmp_path / "model", tmp_path / "paddle", "paddle")
    assert "classifier.weight" in load_file(tmp_path / "paddle" / "model.safetensors")
    assert_same_tensors(tmp_path / "paddle", tmp_path / "model")


def test_inspect_names_the_format(paddle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(paddle)]) == 0
    assert "paddle, model_state.pdparams" in capsys.readouterr().out


def test_safetensors_are_taken_before_pdparams(paddle: Path, model: Path, tmp_path: Path) -> None:
    """As PaddleNLP does, where a folder holds both."""
    convert(model, tmp_path / "both", "paddle", dtype="float16")
    shutil.copy(paddle / "model_state.pdparams", tmp_path / "both")
    checkpoint = open_checkpoint(tmp_path / "both")
    assert checkpoint.file.name == "model.safetensors"
    assert next(iter(checkpoint.entries.values())).dtype == torch.float16


def test_a_sentence_model_stays_one(model: Path, tmp_path: Path) -> None:
    from zhbert.sentences.encoder import SentenceEncoder

    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {"idx": 1, "name": "1", "path": "1_P", "type": "sentence_transformers.models.Pooling"},
    ]
    (model / "modules.json").write_text(json.dumps(modules))
    (model / "1_P").mkdir()
    pooling = {"word_embedding_dimension": SHAPE["hidden_size"], "pooling_mode_mean_tokens": True}
    (model / "1_P" / "config.json").write_text(json.dumps(pooling))
    convert(model, tmp_path / "paddle", "paddle")
    vectors = [
        SentenceEncoder.from_pretrained(f).encode(["一丁"]) for f in (model, tmp_path / "paddle")
    ]
    assert np.array_equal(*vectors)


class _Code:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/never",)


def _hostile(folder: Path) -> None:
    save(folder / "model_state.pdparams", arrays_of(folder) | {"x": _Code()})


def _truncated(folder: Path) -> None:
    file = folder / "model_state.pdparams"
    file.write_bytes(file.read_bytes()[:-3000])


def _without_arrays(folder: Path) -> None:
    file = folder / "model_state.pdparams"
    save(file, {"numpy.core": 1, "lr": 2})


def _with(name: str, array: Any) -> Callable[[Path], None]:
    return lambda folder: save(folder / "model_state.pdparams", arrays_of(folder) | {name: array})


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (_hostile, r"holds more than arrays, posix\.system first \(it could run code\)"),
        (_truncated, "damaged, or not a file of paddle.save"),
        (_without_arrays, "no array in it; it holds numpy.core, lr"),
        (_with("x", np.ones(3, np.complex64)), "x is kept as c8, which no BERT is"),
        (_with("bert.pooler.dense.bias", np.ones(3, np.float32)), r"has the shape \(3,\)"),
    ],
)
def test_a_bad_file_is_one_clear_line(
    paddle: Path, spoil: Callable[[Path], None], message: str, tmp_path: Path
) -> None:
    spoil(paddle)
    with pytest.raises(ZhbertError, match=message) as caught:
        convert(paddle, tmp_path / "out", "safetensors")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_an_activation_that_paddle_lacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = BertForPreTraining(BertConfig(**SHAPE, hidden_act="gelu_new"))
    model.save_pretrained(tmp_path / "model")
    assert main(["convert", str(tmp_path / "model"), str(tmp_path / "out"), "--to", "paddle"]) == 2
    said = capsys.readouterr().err
    assert "hidden_act = 'gelu_new': PaddleNLP's BERT has gelu and relu only" in said
    assert said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_another_pooler_is_refused(paddle: Path) -> None:
    values = json.loads((paddle / "config.json").read_text())
    (paddle / "config.json").write_text(json.dumps(values | {"pool_act": "relu"}))
    with pytest.raises(ZhbertError, match='pool_act = "relu": must be tanh'):
        BertForPreTraining.from_pretrained(paddle)


def test_other_models_of_paddlenlp_are_none_of_its_berts() -> None:
    layer = "encoder.layers.0.norm1.weight"
    assert is_paddle(["embeddings.word_embeddings.weight", layer])
    assert not is_paddle(["ernie.embeddings.word_embeddings.weight", f"ernie.{layer}"])
    assert not is_paddle(["embed_tokens.weight", layer])
