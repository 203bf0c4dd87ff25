"""Folders around small random models, as sentence-transformers 2 to 6 writes them."""

from __future__ import annotations

import json
import logging
import shutil
import warnings
from pathlib import Path
from typing import Any

import torch
from tests.small_models import SHAPE, make_model

WIDTH = SHAPE["hidden_size"]
TEXTS = [
    "",
    "a",
    "transformer的人。",
    "不了 bert, transform 0 是的！" * 9,
    "在有和 Trans É 一 \x00x",
    "Bert",
]


def open_theirs(folder: Path, **options: Any) -> Any:
    """The folder as sentence-transformers opens it."""
    from sentence_transformers import SentenceTransformer

    with warnings.catch_warnings():
        # It says that it adds mean pooling to a plain BERT.
        warnings.simplefilter("ignore")
        logging.getLogger("sentence_transformers").setLevel(logging.ERROR)
        return SentenceTransformer(str(folder), device="cpu", **options)


def write_theirs(
    folder: Path, *rest: Any, modes: Any = "mean", include_prompt: bool = True, **options: Any
) -> Path:
    """A folder as sentence-transformers writes it: a Transformer, a Pooling and the ``rest``."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Transformer
    from sentence_transformers.sentence_transformer.modules import Pooling

    bert = make_model(folder.with_name(f"{folder.name}-bert"))
    modules = [Transformer(str(bert)), Pooling(WIDTH, modes, include_prompt), *rest]
    model = SentenceTransformer(modules=modules, device="cpu", **options)
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def as_older(folder: Path, **flags: bool) -> None:
    """Rewrite a folder's modules as version 2 does, with ``flags`` for its pooling modes."""
    path = folder / "modules.json"
    modules = json.loads(path.read_text())
    for module in modules:
        module["type"] = "sentence_transformers.models." + module["type"].rpartition(".")[2]
    path.write_text(json.dumps(modules))
    names = ("cls_token", "mean_tokens", "max_tokens", "mean_sqrt_len_tokens")
    pooling = {f"pooling_mode_{name}": False for name in names} | flags
    pooling |= {"word_embedding_dimension": WIDTH}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))


def in_subfolder(folder: Path, name: str) -> None:
    """Move a folder's BERT into a subfolder, as before version 2."""
    inside = folder / name
    inside.mkdir()
    for file in [path for path in folder.iterdir() if path.is_file()]:
        if file.name not in ("modules.json", "config_sentence_transformers.json"):
            shutil.move(file, inside)
    path = folder / "modules.json"
    modules = json.loads(path.read_text())
    modules[0]["path"] = name
    path.write_text(json.dumps(modules))


def rewrite(path: Path, **values: Any) -> None:
    """Change some values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def dense(width: int = WIDTH, out: int = 8, **options: Any) -> Any:
    """A Dense with random weights."""
    from sentence_transformers.base.modules import Dense

    torch.manual_seed(3)
    return Dense(width, out, **options)
