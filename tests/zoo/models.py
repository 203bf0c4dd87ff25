"""Model folders in every layout that is published, and archives of them."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

CONFIG = {"vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2}
VOCABULARY = "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"中国人"]) + "\n"

# What the folders of the published archives hold. No test here reads weights.
LAYOUTS = {
    "google": {
        "bert_model.ckpt.index": "weights",
        "bert_model.ckpt.meta": "weights",
        "bert_model.ckpt.data-00000-of-00001": "weights",
        "bert_config.json": "config",
        "vocab.txt": "vocabulary",
    },
    "pytorch": {"pytorch_model.bin": "weights", "config.json": "config", "vocab.txt": "vocabulary"},
    "pytorch, google's config": {
        "pytorch_model.bin": "weights",
        "bert_config.json": "config",
        "vocab.txt": "vocabulary",
    },
    "safetensors": {
        "model.safetensors": "weights",
        "config.json": "config",
        "vocab.txt": "vocabulary",
    },
}
FORMATS = {
    "google": "tensorflow",
    "pytorch": "pytorch",
    "pytorch, google's config": "pytorch",
    "safetensors": "safetensors",
}
KINDS = {
    "zip": "zip",
    "tgz": "gztar",
    "tar.gz": "gztar",
    "tar": "tar",
    "tar.xz": "xztar",
    "tar.bz2": "bztar",
}


def make_folder(folder: Path, layout: str = "pytorch") -> Path:
    """A folder with that layout's files; the weights are random bytes."""
    folder.mkdir(parents=True)
    for name, what in LAYOUTS[layout].items():
        content = {
            "weights": os.urandom(5_000),
            "config": json.dumps(CONFIG).encode(),
            "vocabulary": VOCABULARY.encode(),
        }[what]
        (folder / name).write_bytes(content)
    return folder


def make_archive(place: Path, kind: str = "zip", layout: str = "pytorch", nest: str = "") -> Path:
    """An archive of such a folder, its files flat or in the folder ``nest``."""
    top = place / "to_pack"
    make_folder(top / nest if nest else top, layout)
    made = Path(shutil.make_archive(str(place / "made"), KINDS[kind], top))
    shutil.rmtree(top)
    return made.rename(place / f"model.{kind}")


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, by its path in it."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}
