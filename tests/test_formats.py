"""Every format that is written, opened by the field's libraries: docs/formats.md is this test's.

    ZHBERT_WRITE_DOCS=1 pytest tests/test_formats.py

writes that page anew.
"""

from __future__ import annotations

import json
import os
import shutil
import tarfile
import warnings
import zipfile
from collections.abc import Callable, Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.model.conftest import enlarge
from tests.transformers4 import run_with_transformers4

from zhbert import BertConfig, BertForPreTraining, Tokenizer
from zhbert.export.convert import convert

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
}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model with weights that matter, and its tokenizer."""
    folder = tmp_path_factory.mktemp("source")
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
    return folder


@pytest.fixture(scope="module")
def written(source: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder of each form in WRITTEN."""
    parent = tmp_path_factory.mktemp("written")
    folders = {}
    for number, (name, (form, options, _)) in enumerate(WRITTEN.items()):
        folders[name] = parent / str(number)
        convert(source, folders[name], form, **options)
    return folders


def batch() -> dict[str, torch.Tensor]:
    tokenizer = Tokenizer.default()
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


def numbers_of(model: Any) -> Numbers:
    inputs = batch()
    with torch.no_grad():
        output = model.eval()(**inputs, output_hidden_states=True)
    return {
        "last layer": output.hidden_states[-1].float().numpy(),
        "masked words": output.prediction_logits.float().numpy()[..., :60],
        "sentence pair": output.seq_relationship_logits.float().numpy(),
    }


def of_zhbert(folder: Path) -> Numbers:
    return numbers_of(BertForPreTraining.from_pretrained(folder, quiet=True))


def of_transformers(folder: Path) -> Numbers:
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert tokenizer(TEXTS, padding=True)["input_ids"] == batch()["input_ids"].tolist()
    return numbers_of(
        transformers.AutoModelForPreTraining.from_pretrained(folder, dtype=torch.float32)
    )


OLDER = """
import json, sys
import numpy, torch
from transformers import AutoModelForPreTraining, AutoTokenizer
inputs, texts = json.loads(sys.argv[1]), json.loads(sys.argv[2])
inputs = {name: torch.tensor(value) for name, value in inputs.items()}
for folder in sys.argv[3:]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer(texts, padding=True)["input_ids"] == inputs["input_ids"].tolist()
    model = AutoModelForPreTraining.from_pretrained(folder, torch_dtype=torch.float32).eval()
    with torch.no_grad():
        output = model(**inputs, output_hidden_states=True)
    numpy.savez(folder + "/numbers.npz", **{
        "last layer": output.hidden_states[-1].numpy(),
        "masked words": output.prediction_logits.numpy()[..., :60],
        "sentence pair": output.seq_relationship_logits.numpy(),
    })
result = None
"""


def of_transformers_4(folder: Path) -> Numbers:
    """It has computed for all folders beside this one, in one process, when this returns."""
    if not (folder / "numbers.npz").exists():
        folders = [str(p) for p in folder.parent.iterdir() if (p / "config.json").exists()]
        inputs = {name: value.tolist() for name, value in batch().items()}
        run_with_transformers4(OLDER, json.dumps(inputs), json.dumps(TEXTS), *folders)
    with np.load(folder / "numbers.npz") as numbers:
        return dict(numbers)


def of_sentence_transformers(folder: Path) -> Numbers:
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        # It says that it adds mean pooling to a plain BERT, which is what is wanted here.
        warnings.simplefilter("ignore")
        model = SentenceTransformer(
            str(folder), device="cpu", model_kwargs={"dtype": torch.float32}
        )
        return {"mean of the last layer": model.encode(TEXTS, show_progress_bar=False)}


def of_tensorflow(folder: Path) -> Numbers:
    from tests.export.tf_bert import TensorFlowBert

    inputs = {name: value.numpy() for name, value in batch().items()}
    segments = np.zeros_like(inputs["input_ids"])
    outputs = TensorFlowBert(folder)(**inputs, token_type_ids=segments)
    assert outputs.words is not None
    assert outputs.pair is not None
    return {
        "last layer": outputs.hidden_states[-1],
        "masked words": outputs.words[..., :60],
        "sentence pair": outputs.pair,
    }


# Library -> (its distribution, how it opens, which formats it knows).
OPENERS: dict[str, tuple[str, Callable[[Path], Numbers], tuple[str, ...]]] = {
    "transformers": ("transformers", of_transformers, ("safetensors", "pytorch")),
    "transformers 4": ("", of_transformers_4, ("safetensors", "pytorch")),
    "sentence-transformers": (
        "sentence-transformers",
        of_sentence_transformers,
        ("safetensors", "pytorch"),
    ),
    "TensorFlow": ("tensorflow-cpu", of_tensorflow, ("tensorflow",)),
    "zhbert": ("zhbert", of_zhbert, ("safetensors", "pytorch", "tensorflow")),
}


def largest_difference(expected: Numbers, got: Numbers) -> float:
    """Over what both have, padding apart, relative to the largest expected number."""
    there = batch()["attention_mask"].numpy().astype(bool)
    weights = there / there.sum(1, keepdims=True)
    mean = (expected["last layer"] * weights[..., None]).sum(1)
    differences = []
    for name, theirs in got.items():
        ours = mean if name == "mean of the last layer" else expected[name]
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


def openings() -> list[tuple[str, str]]:
    return list(_openings())


def _openings() -> Iterator[tuple[str, str]]:
    for form, (kind, _, _) in WRITTEN.items():
        for library, (_, _, kinds) in OPENERS.items():
            if kind in kinds:
                yield form, library


@pytest.fixture(scope="module")
def expected(source: Path) -> Numbers:
    return of_zhbert(source)


@pytest.mark.parametrize(("form", "library"), openings())
def test_the_fields_libraries_open_what_is_written(
    written: dict[str, Path], expected: Numbers, form: str, library: str
) -> None:
    got = OPENERS[library][1](written[form])
    assert largest_difference(expected, got) < WRITTEN[form][2]


@pytest.mark.parametrize("layout", READ)
def test_what_others_wrote_is_opened(
    source: Path, expected: Numbers, tmp_path: Path, layout: str
) -> None:
    path = READ[layout](source, tmp_path)
    assert largest_difference(expected, of_zhbert(path)) < 1e-5
    tokenizer = Tokenizer.from_pretrained(path)
    assert tokenizer.encode(TEXTS[0]).ids.tolist() == batch()["input_ids"][0, 1:-1].tolist()


def _version(library: str) -> str:
    if library == "transformers 4":
        pins = (ROOT / "requirements" / "transformers4.txt").read_text().split("\n")
        return (
            next(pin for pin in pins if pin.startswith("transformers==")).split("==")[1].split()[0]
        )
    return metadata.version(OPENERS[library][0])


def page() -> str:
    """docs/formats.md: it states only what the tests above have asserted."""
    heads = [f"{name} {_version(name)}" for name in OPENERS]
    heads = [head.replace("transformers 4 4", "transformers 4") for head in heads]
    lines = [
        "# Formats 格式",
        "",
        "<!-- Made by tests/test_formats.py (ZHBERT_WRITE_DOCS=1), which asserts every cell. -->",
        "",
        "## What is written, and who opens it",
        "",
        "`zhbert convert` writes these forms of one model; each library opens the folder as its "
        "users would (`AutoModelForPreTraining`, `AutoTokenizer`, `SentenceTransformer`; "
        "TensorFlow: a BERT written in TensorFlow for the test, which reads the variables by "
        "Google's names), and computes the last layer and the logits of both heads "
        "(sentence-transformers: the mean of "
        "the last layer) in float32. A cell is the bound that the largest difference from the "
        "float32 model stays under, as a share of the largest number: what rounding explains.",
        "",
        "| written | " + " | ".join(heads) + " |",
        "| --- |" + " ---: |" * len(heads),
    ]
    known = set(openings())
    for form, (_, _, bound) in WRITTEN.items():
        cells = [f"{bound:g}" if (form, library) in known else "" for library in OPENERS]
        lines.append(f"| {form} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "An empty cell: that library does not read this format. transformers 5 and 4 read no "
        "TensorFlow checkpoint by themselves: convert it first.",
        "",
        "## What is opened",
        "",
        "Each of these was made of one model with the library or in the layout named, and gives "
        "the same numbers (largest difference below 1e-5) and the same piece ids through "
        "`BertForPreTraining.from_pretrained(PATH)` and `Tokenizer.from_pretrained(PATH)`:",
        "",
        *(f"- {layout}" for layout in READ),
        "",
        "A genuine checkpoint that Google's TensorFlow 1 code wrote, optimiser slots included, is "
        "opened in tests/model/test_tensorflow.py, where the development data holds it.",
        "",
    ]
    return "\n".join(lines)


def test_the_page_says_what_was_tested() -> None:
    if os.environ.get("ZHBERT_WRITE_DOCS"):
        PAGE.write_text(page(), encoding="utf-8")
    assert PAGE.read_text(encoding="utf-8") == page()
