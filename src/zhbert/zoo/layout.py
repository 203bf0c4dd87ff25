"""Which files of a folder make up a model: Hugging Face's layout, Google's, and their mixtures."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from zhbert.errors import ZhbertError

# In the order in which they are looked for, as transformers does.
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PYTORCH = ("pytorch_model.bin", "pytorch_model.bin.index.json")
_KINDS = {".safetensors": "safetensors", ".bin": "pytorch", ".pt": "pytorch", ".pth": "pytorch"}
# Folders inside archives that hold no model.
_JUNK = {"__MACOSX"}


@dataclass(frozen=True)
class ModelFiles:
    """One model's files; ``folder`` holds them all."""

    folder: Path
    format: str  # "safetensors", "pytorch" or "tensorflow"
    weights: Path  # a file, an index of shards, or a TensorFlow prefix (a path without .index)
    config: Path | None
    vocabulary: Path | None


def find_model(path: str | Path) -> ModelFiles:
    """The model in a folder, in the one folder inside it, or named by its weights' file.

    TensorFlow checkpoints may be named by their prefix, as TensorFlow does: ``x/bert_model.ckpt``.

    Raises:
        ZhbertError: nothing there, no model among the files, or several in several folders.
    """
    path = Path(path)
    if path.is_dir():
        found = _in_folder(path) or _in_one_subfolder(path)
        if found is None:
            names = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
            there = f"it holds {', '.join(names[:4])}" if names else "it is empty"
            raise ZhbertError(
                f"{path}: no model file here ({there}); looked for {SAFETENSORS[0]}, {PYTORCH[0]}, "
                "their shards, and a TensorFlow checkpoint (*.ckpt.index)"
            )
        return found
    prefix = path.with_name(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path.name))
    if Path(f"{prefix}.index").is_file():
        return _described(path.parent, "tensorflow", prefix)
    if not path.exists():
        raise ZhbertError(f"{path}: no such model folder or file")
    name = path.name.removesuffix(".index.json")
    kind = _KINDS.get(Path(name).suffix)
    if kind is None:
        raise ZhbertError(f"{path}: not a model; give its folder, or a {', '.join(_KINDS)} file")
    return _described(path.parent, kind, path)


def is_model_alone(folder: Path) -> bool:
    """Is a folder a model's and holds nothing else? Only such a one may be replaced."""
    try:
        inside = find_model(folder).folder != folder
    except ZhbertError:
        return False
    return not inside and not any(path.is_dir() for path in folder.iterdir())


def _in_folder(folder: Path) -> ModelFiles | None:
    for kind, names in (("safetensors", SAFETENSORS), ("pytorch", PYTORCH)):
        for name in names:
            if (folder / name).is_file():
                return _described(folder, kind, folder / name)
    if (prefix := _tensorflow_prefix(folder)) is not None:
        return _described(folder, "tensorflow", prefix)
    # Unusual names, where there is no doubt which file is meant.
    for kind, pattern in (("safetensors", "*.safetensors"), ("pytorch", "*.bin")):
        files = [p for p in folder.glob(pattern) if p.is_file() and p.name != "training_args.bin"]
        if len(files) == 1:
            return _described(folder, kind, files[0])
    return None


def _tensorflow_prefix(folder: Path) -> Path | None:
    prefixes = [path.with_suffix("") for path in folder.glob("*.index")]
    if not prefixes:
        return None
    state = folder / "checkpoint"
    if state.is_file():
        # TensorFlow's own note of which of several checkpoints is the latest.
        text = state.read_text(encoding="utf-8", errors="replace")
        if named := re.search(r'^model_checkpoint_path:\s*"(.*)"', text, re.MULTILINE):
            latest = folder / Path(named[1]).name
            if latest in prefixes:
                return latest
    return max(prefixes, key=lambda p: (p.name == "bert_model.ckpt", _step(p), p.name))


def _step(prefix: Path) -> int:
    number = re.search(r"-(\d+)$", prefix.name)
    return int(number[1]) if number else -1


def _in_one_subfolder(folder: Path, depth: int = 2) -> ModelFiles | None:
    inside = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name not in _JUNK]
    inside = [p for p in inside if not p.name.startswith(".")]
    found = [model for p in inside if (model := _in_folder(p)) is not None]
    if len(found) > 1:
        names = ", ".join(str(model.folder) for model in found[:3])
        raise ZhbertError(f"{folder}: several models in it; name one: {names}")
    if not found and depth > 1 and len(inside) == 1:
        return _in_one_subfolder(inside[0], depth - 1)
    return found[0] if found else None


def _described(folder: Path, kind: str, weights: Path) -> ModelFiles:
    config = _one_of(folder, ("config.json", "bert_config.json"), "*config*.json")
    vocabulary = _one_of(folder, ("vocab.txt",), "*vocab*.txt")
    return ModelFiles(folder, kind, weights, config, vocabulary)


def _one_of(folder: Path, names: tuple[str, ...], pattern: str) -> Path | None:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = [p for p in folder.glob(pattern) if not p.name.startswith(("tokenizer", "generation"))]
    return others[0] if len(others) == 1 else None
