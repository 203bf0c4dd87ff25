"""Real PaddlePaddle: its libraries open what zhbert writes, and zhbert opens what they write."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.model.conftest import enlarge
from tests.paddle.with_paddle import run_with_paddle

from zhbert import BertConfig, BertForPreTraining, BertModel, Tokenizer
from zhbert.cli import main
from zhbert.export.convert import convert
from zhbert.model.checkpoint import open_checkpoint
from zhbert.model.pretrained import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

TEXTS = [
    "使用语言[MASK][MASK]来预测下一个词的probability。",
    "“Café”——２０２６年…… 𠮷野家",
    "NBA的naïve粉丝，3.14%！",
    "",
]
KINDS: dict[str, type] = {
    "pretraining": BertForPreTraining,
    "classify": BertForSequenceClassification,
    "tag": BertForTokenClassification,
    "span": BertForQuestionAnswering,
}
# The class that opens a folder, and what it computes; the first output is that of the class's task.
THEIRS = """
import json, sys
import numpy, paddle
import paddlenlp.transformers as theirs
folder, file, name, dtype = sys.argv[1:5]
batch = {key: paddle.to_tensor(value) for key, value in numpy.load(sys.argv[5]).items()}
model = getattr(theirs, name).from_pretrained(folder, dtype=dtype)
model.eval()
with paddle.no_grad():
    output = model(**batch, return_dict=True)
arrays = {key: value.astype("float32").numpy() for key, value in output.items()}
numpy.savez(file, **arrays)
result = type(model).__name__
"""
TOKENIZED = """
import json, sys
from paddlenlp.transformers import BertTokenizer
tokenizer = BertTokenizer.from_pretrained(sys.argv[1])
result = [tokenizer(text)["input_ids"] for text in json.loads(sys.argv[2])]
"""
SAVED = """
import sys
import numpy, paddle
import paddlenlp.transformers as theirs
source, name, out, safe, shard, dtype = sys.argv[1:7]
model = getattr(theirs, name).from_pretrained(source)
model.to(dtype=dtype)
model.save_pretrained(out, safe_serialization=safe == "safe", max_shard_size=shard)
result = None
"""


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model of each kind with weights so large that a fault shows, and its tokenizer."""
    tokenizer = Tokenizer.default()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=48, max_position_embeddings=128, initializer_range=0.2,
    )  # fmt: skip
    folders = {}
    for kind, model in KINDS.items():
        folders[kind] = tmp_path_factory.mktemp("source") / kind
        own = config.with_labels(list("甲乙丙")) if kind in ("classify", "tag") else config
        enlarge(model(own, seed=1)).save_pretrained(folders[kind])
        tokenizer.save_pretrained(folders[kind], model_max_length=128)
    return folders


@pytest.fixture(scope="module")
def batch() -> dict[str, np.ndarray]:
    """Five rows of 17 pieces, three of them padded, with two segments."""
    rng = np.random.default_rng(5)
    mask = np.ones((5, 17), np.int64)
    mask[1, 9:], mask[3, 2:], mask[4, 16:] = 0, 0, 0
    return {
        "input_ids": rng.integers(5, 21_000, (5, 17)) * mask,
        "attention_mask": mask,
        "token_type_ids": rng.integers(0, 2, (5, 17)),
    }


@pytest.fixture(scope="module")
def batch_file(batch: dict[str, np.ndarray], tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("batch") / "batch.npz"
    np.savez(file, **batch)  # type: ignore[arg-type]
    return file


def outputs_of_paddle(
    folder: Path, name: str, batch_file: Path, dtype: str = "float32"
) -> dict[str, np.ndarray]:
    file = folder.parent / f"{folder.name}-{name}.npz"
    run_with_paddle(THEIRS, str(folder), str(file), name, dtype, str(batch_file))
    with np.load(file) as arrays:
        return dict(arrays)


def outputs_of_zhbert(folder: Path, model: type, batch: dict[str, np.ndarray]) -> Any:
    opened = model.from_pretrained(folder, quiet=True)  # type: ignore[attr-defined]
    inputs = {name: torch.from_numpy(values) for name, values in batch.items()}
    with torch.no_grad():
        return opened.eval()(**inputs, output_hidden_states=True)


def assert_close(got: np.ndarray, wanted: torch.Tensor, there: np.ndarray | None = None) -> None:
    """To 1e-5 of the largest number; ``there`` leaves out padding."""
    expected = wanted.numpy()
    if there is not None:
        got, expected = got[there], expected[there]
    assert got.shape == expected.shape
    scale = np.abs(expected).max()
    assert scale > 1  # so large that a wrong activation or a lost bias would show
    assert np.abs(got - expected).max() < 1e-5 * scale


def test_the_encoder_and_both_heads(
    sources: dict[str, Path], batch: dict[str, np.ndarray], batch_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny"
    convert(sources["pretraining"], folder, "paddle")
    ours = outputs_of_zhbert(sources["pretraining"], BertForPreTraining, batch)
    there = batch["attention_mask"].astype(bool)
    plain = outputs_of_paddle(folder, "BertModel", batch_file)
    assert_close(plain["last_hidden_state"], ours.hidden_states[-1], there)
    pooled = outputs_of_zhbert(sources["pretraining"], BertModel, batch).pooler_output
    assert np.abs(plain["pooler_output"] - pooled.numpy()).max() < 1e-5
    masked = outputs_of_paddle(folder, "BertForMaskedLM", batch_file)
    assert_close(masked["logits"], ours.prediction_logits, there)
    both = outputs_of_paddle(folder, "BertForPretraining", batch_file)
    assert_close(both["prediction_logits"], ours.prediction_logits, there)
    assert_close(both["seq_relationship_logits"], ours.seq_relationship_logits)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("classify", "BertForSequenceClassification"), ("tag", "BertForTokenClassification")],
)
def test_classifiers(
    sources: dict[str, Path],
    batch: dict[str, np.ndarray],
    batch_file: Path,
    tmp_path: Path,
    kind: str,
    name: str,
) -> None:
    convert(sources[kind], tmp_path / "tiny", "paddle")
    theirs = outputs_of_paddle(tmp_path / "tiny", name, batch_file)
    ours = outputs_of_zhbert(sources[kind], KINDS[kind], batch)
    assert_close(
        theirs["logits"],
        ours.logits,
        batch["attention_mask"].astype(bool) if kind == "tag" else None,
    )


def test_question_answering(
    sources: dict[str, Path], batch: dict[str, np.ndarray], batch_file: Path, tmp_path: Path
) -> None:
    convert(sources["span"], tmp_path / "tiny", "paddle")
    theirs = outputs_of_paddle(tmp_path / "tiny", "BertForQuestionAnswering", batch_file)
    ours = outputs_of_zhbert(sources["span"], BertForQuestionAnswering, batch)
    there = batch["attention_mask"].astype(bool)
    assert_close(theirs["start_logits"], ours.start_logits, there)
    assert_close(theirs["end_logits"], ours.end_logits, there)


def test_nothing_is_newly_initialized(sources: dict[str, Path], tmp_path: Path) -> None:
    convert(sources["pretraining"], tmp_path / "tiny", "paddle")
    program = """
import logging, sys
from paddlenlp.transformers import BertForPretraining
from paddlenlp.utils.log import logger
said = []
logger.warning = said.append
BertForPretraining.from_pretrained(sys.argv[1])
result = said
"""
    assert run_with_paddle(program, str(tmp_path / "tiny")) == []


def test_pieces(sources: dict[str, Path], tmp_path: Path) -> None:
    convert(sources["pretraining"], tmp_path / "tiny", "paddle")
    tokenizer = Tokenizer.default()
    expected = [
        [tokenizer.cls_id, *tokenizer.encode(text).ids.tolist(), tokenizer.sep_id] for text in TEXTS
    ]
    assert run_with_paddle(TOKENIZED, str(tmp_path / "tiny"), json.dumps(TEXTS)) == expected


def assert_same_tensors(one: Path, other: Path) -> None:
    a, b = open_checkpoint(one).entries, open_checkpoint(other).entries
    # Each of Paddle's classes has a pooler, also where the task has no use for one.
    assert {name for name in a if name in b or "pooler" not in name} == b.keys()
    for name in b:
        assert a[name].dtype == b[name].dtype
        assert torch.equal(a[name].read(), b[name].read()), name


@pytest.mark.parametrize("form", ["pdparams", "safe"])
@pytest.mark.parametrize("shard", ["10GB", "100KB"])
@pytest.mark.parametrize(
    ("kind", "name"), [("pretraining", "BertForPretraining"), ("span", "BertForQuestionAnswering")]
)
def test_what_paddle_saves_is_opened(
    sources: dict[str, Path], tmp_path: Path, form: str, shard: str, kind: str, name: str
) -> None:
    convert(sources[kind], tmp_path / "tiny", "paddle")
    saved = str(tmp_path / "saved")
    run_with_paddle(SAVED, str(tmp_path / "tiny"), name, saved, form, shard, "float32")
    shutil.copy(sources[kind] / "vocab.txt", saved)
    assert_same_tensors(tmp_path / "saved", sources[kind])
    report = convert(saved, tmp_path / "back", "safetensors")
    assert report["unknown"] == []
    assert_same_tensors(tmp_path / "back", sources[kind])
    architectures = json.loads((tmp_path / "back" / "config.json").read_text())["architectures"]
    assert architectures == [KINDS[kind].__name__]


def test_half_precision_both_ways(
    sources: dict[str, Path], batch: dict[str, np.ndarray], batch_file: Path, tmp_path: Path
) -> None:
    for dtype in ("float16", "bfloat16"):
        folder = tmp_path / dtype
        convert(sources["pretraining"], folder, "paddle", dtype=dtype)
        # Paddle has no kernels for them on CPUs, so it computes in float32 with rounded numbers.
        theirs = outputs_of_paddle(folder, "BertForMaskedLM", batch_file)
        ours = outputs_of_zhbert(folder, BertForPreTraining, batch)
        there = batch["attention_mask"].astype(bool)
        assert_close(theirs["logits"], ours.prediction_logits.float(), there)
        for form in ("pdparams", "safe"):
            saved = str(tmp_path / f"{dtype}-{form}")
            run_with_paddle(SAVED, str(folder), "BertForPretraining", saved, form, "1GB", dtype)
            assert_same_tensors(Path(saved), folder)


def test_a_state_dict_of_paddle_save(
    sources: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(sources["pretraining"], tmp_path / "tiny", "paddle")
    program = """
import sys, paddle
from paddlenlp.transformers import BertForPretraining
state = BertForPretraining.from_pretrained(sys.argv[1]).state_dict()
paddle.save(state, sys.argv[2])
result = None
"""
    (tmp_path / "tiny" / "model.safetensors").unlink()
    convert(sources["pretraining"], tmp_path / "other", "paddle")
    file = tmp_path / "tiny" / "trained.pdparams"
    run_with_paddle(program, str(tmp_path / "other"), str(file))
    assert_same_tensors(tmp_path / "tiny", sources["pretraining"])
    assert main(["inspect", str(tmp_path / "tiny"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["format"] == "paddle"
    assert found["heads"]["masked_words"]["state"] == "trained"


def test_paddlehub_opens_the_folder(
    sources: dict[str, Path], batch: dict[str, np.ndarray], batch_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "tiny"
    convert(sources["pretraining"], folder, "paddle")
    program = """
import sys
import numpy, paddle, paddlehub
folder, batch, file = sys.argv[1:]
plain = paddlehub.Module(directory=folder)
plain.eval()
arrays = numpy.load(batch)
ids, segments = (paddle.to_tensor(arrays[key][:1]) for key in ("input_ids", "token_type_ids"))
hidden, pooled = plain(ids, segments)
numpy.savez(file, hidden=hidden.numpy())
names = {0: "bad", 1: "good", 2: "fair"}
classifier = paddlehub.Module(directory=folder, task="seq-cls", label_map=names)
labels = classifier.predict([["北京"], ["家里"]], max_seq_len=16, use_gpu=False)
result = [plain.get_embedding([["北京"]])[0][0][:2], labels]
"""
    file = tmp_path / "hub.npz"
    embedding, labels = run_with_paddle(program, str(folder), str(batch_file), str(file))
    ours = outputs_of_zhbert(folder, BertForPreTraining, batch)
    with np.load(file) as arrays:
        assert_close(arrays["hidden"], ours.hidden_states[-1][:1])
    assert len(embedding) == 2
    assert set(labels) <= {"bad", "good", "fair"}
