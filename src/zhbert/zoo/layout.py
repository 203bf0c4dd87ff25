"""Finding a model's files in a folder, in Hugging Face's layout, Google's or a mixture."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from zhbert import signatures
from zhbert.errors import ZhbertError
from zhbert.files import read_head, read_json
from zhbert.wording import shortly

# In the order in which transformers looks for them.
SAFETENSORS = ("model.safetensors", "model.safetensors.index.json")
PYTORCH = ("pytorch_model.bin", "pytorch_model.bin.index.json")
PADDLE = ("model_state.pdparams", "model_state.pdparams.index.json")
# Other files that training programs write with torch.save.
_NO_MODEL = re.compile(r"training_args\.bin|(optimizer|scheduler|scaler|rng_state.*)\.(pt|pth|bin)")
MODULES = "modules.json"
"""The list of the modules of a sentence-transformers folder; the first one is the BERT."""
ONNX_FOLDER = "onnx"
"""The subfolder with a model's ONNX graph, as optimum and transformers.js expect it."""
JUNK_FOLDERS = {"__MACOSX"}
"""Names of folders in archives that never contain a model."""


@dataclass(frozen=True)
class ModelFiles:
    """The files of one model, all of them in ``folder``."""

    folder: Path
    format: str  # "safetensors", "pytorch", "tensorflow", or "onnx": a graph alone
    weights: Path  # a file, an index of shards, or a TensorFlow prefix (a path without .index)
    config: Path | None
    vocabulary: Path | None


def find_model(path: str | Path) -> ModelFiles:
    """Find the model in a folder, in its only subfolder with one, or of a weights file.

    TensorFlow checkpoints may be given by their prefix, such as ``x/bert_model.ckpt``.

    Raises:
        ZhbertError: the path does not exist or contains no model or several models.
    """
    path = Path(path)
    if path.is_dir():
        found = _in_folder(path) or _in_one_subfolder(path)
        if found is None:
            names = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
            for file in (path / name for name in names if (path / name).is_file()):
                if signatures.other_model(read_head(file), file.name):
                    weights_format(file)  # raises an error that names the kind of file
            there = f"it holds {', '.join(names[:4])}" if names else "it is empty"
            raise ZhbertError(
                f"{path}: no model file here ({there}); looked for {SAFETENSORS[0]}, {PYTORCH[0]}, "
                f"{PADDLE[0]}, their shards, a TensorFlow checkpoint (*.ckpt.index), and an ONNX "
                f"graph ({ONNX_FOLDER}/*.onnx)"
            )
        return found
    prefix = path.with_name(re.sub(r"\.(index|meta|data-\d+-of-\d+)$", "", path.name))
    if Path(f"{prefix}.index").is_file():
        return _described(path.parent, prefix, "tensorflow")
    if not path.exists():
        raise ZhbertError(f"{path}: no such model folder or file")
    if not path.name.endswith(".index.json"):
        weights_format(path)  # raises an error if it is not a weights file
    return _described(path.parent, path)


def weights_format(path: Path) -> str:
    """Return ``safetensors``, ``pytorch`` or ``paddle``, determined from the file's first bytes.

    Raises:
        ZhbertError: the file has another format, which the message names if it is known.
    """
    head = read_head(path)
    if (found := signatures.weights_format(head)) is not None:
        return found
    what = (
        signatures.no_weights(head, path.name)
        or "no file of safetensors, torch.save or paddle.save"
    )
    raise ZhbertError(f"{path}: {what}")


def is_weights(path: Path) -> bool:
    """Return True if a file's first bytes are those of a weights file; its name is ignored."""
    return signatures.weights_format(read_head(path)) is not None


def is_model_alone(folder: Path) -> bool:
    """Return True if a folder contains a model and no other folders, so that it may be replaced.

    The folders of a sentence model's modules and of its ONNX graph belong to it.
    """
    own = {*module_folders(folder), ONNX_FOLDER}
    if any(path.is_dir() and path.name not in own for path in folder.iterdir()):
        return False
    try:
        return _in_folder(folder) is not None
    except ZhbertError:
        return False


def sentence_folder(model_folder: Path) -> Path | None:
    """Return the sentence-transformers folder whose BERT is in ``model_folder``, if there is one.

    The BERT lies beside modules.json or, before version 2, in a subfolder like ``0_Transformer``.
    """
    if (model_folder / MODULES).is_file():
        return model_folder
    folder = model_folder.resolve()
    return folder.parent if module_folders(folder.parent)[:1] == [folder.name] else None


def module_folders(folder: Path) -> list[str]:
    """Return the subfolders that modules.json names, in order; "" is ``folder`` itself."""
    return [place for _, place in read_module_entries(folder)]


def read_module_entries(folder: Path) -> list[tuple[str, str]]:
    """Return the class and the subfolder of each module in modules.json, in order.

    The result is empty if there is no such file, or if it is no list of modules.
    """
    try:
        entries = read_json(folder / MODULES, list) if (folder / MODULES).is_file() else []
    except ZhbertError:  # reported when the folder is opened as a sentence model
        return []
    named = [(e.get("type"), e.get("path")) for e in entries if isinstance(e, dict)]
    return [
        (str(kind).rpartition(".")[2], place)
        for kind, place in named
        if isinstance(place, str) and place != ".." and Path(place).name == place
    ]


def _in_folder(folder: Path) -> ModelFiles | None:
    for inside in filter(None, module_folders(folder)[:1]):
        if (folder / inside).is_dir():
            return _in_folder(folder / inside)
    for name in (*SAFETENSORS, *PYTORCH, *PADDLE):
        if (folder / name).is_file():
            return _described(folder, folder / name)
    if (prefix := _tensorflow_prefix(folder)) is not None:
        return _described(folder, prefix, "tensorflow")
    # A weights file of another name is accepted if it is the only one of its format.
    found: dict[str, list[Path]] = {"safetensors": [], "pytorch": [], "paddle": []}
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or _NO_MODEL.fullmatch(path.name) or not path.is_file():
            continue
        if kind := signatures.weights_format(read_head(path)):
            found[kind].append(path)
    for paths in found.values():
        if len(paths) == 1:
            return _described(folder, paths[0])
    if several := [path for paths in found.values() for path in paths]:
        names = ", ".join(path.name for path in several[:4])
        raise ZhbertError(f"{folder}: several files of weights in it, {names}; name one of them")
    graphs = onnx_graphs(folder)
    return _described(folder, graphs[0], "onnx") if graphs else None


def onnx_graphs(folder: Path) -> list[Path]:
    """Return the ONNX graphs of a model folder: in its subfolder, or else beside config.json."""
    return sorted((folder / ONNX_FOLDER).glob("*.onnx")) or sorted(folder.glob("*.onnx"))


def _tensorflow_prefix(folder: Path) -> Path | None:
    prefixes = [path.with_suffix("") for path in folder.glob("*.index")]
    if not prefixes:
        return None
    state = folder / "checkpoint"
    if state.is_file():
        # TensorFlow writes the name of the latest checkpoint to this file.
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
    inside = [p for p in sorted(folder.iterdir()) if p.is_dir() and p.name not in JUNK_FOLDERS]
    inside = [p for p in inside if not p.name.startswith(".")]
    found = [model for p in inside if (model := _in_folder(p)) is not None]
    if len(found) > 1:
        names = ", ".join(str(model.folder) for model in found[:3])
        raise ZhbertError(f"{folder}: several models in it; name one: {names}")
    if not found and depth > 1 and len(inside) == 1:
        return _in_one_subfolder(inside[0], depth - 1)
    return found[0] if found else None


def _described(folder: Path, weights: Path, kind: str | None = None) -> ModelFiles:
    if kind is None:
        # A file of another format is refused when it is opened.
        suffixes = ((".safetensors", "safetensors"), (".pdparams", "paddle"), ("", "pytorch"))
        named = next(form for suffix, form in suffixes if suffix in weights.name)
        kind = signatures.weights_format(read_head(weights)) or named
    config = _one_of(folder, ("config.json", "bert_config.json"), "*config*.json")
    vocabulary = _one_of(folder, ("vocab.txt",), "*vocab*.txt")
    return ModelFiles(folder, kind, weights, config, vocabulary)


def _one_of(folder: Path, names: tuple[str, ...], pattern: str) -> Path | None:
    for name in names:
        if (folder / name).is_file():
            return folder / name
    others = [p for p in folder.glob(pattern) if not p.name.startswith(("tokenizer", "generation"))]
    return others[0] if len(others) == 1 else None


def shards_of(weights: Path) -> list[str]:
    """Return the names of the files that an index of weights lists; none for other files."""
    if weights.suffix != ".json":
        return []
    table = read_json(weights, dict, "an index of model files").get("weight_map")
    if not isinstance(table, dict) or not table:
        raise ZhbertError(f"{weights}: not an index of model files: no weight_map")
    for name in table.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise ZhbertError(f"{weights}: names {shortly(name)}: not a file beside it")
    return sorted(set(table.values()))
