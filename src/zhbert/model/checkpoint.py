"""Tensors from the files of a model folder, whatever form they were saved in."""

from __future__ import annotations

import json
import pickle
import warnings
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, describe_os_error

# In the order in which they are looked for, as transformers does.
SINGLE = ("model.safetensors", "pytorch_model.bin")
INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def read_tensors(folder: Path) -> tuple[dict[str, Tensor], Path]:
    """Every tensor of a model folder under the names in its files, and the file to name in errors.

    Raises:
        ZhbertError: no model file, a damaged one, or a pickle that holds more than tensors.
    """
    for name, index in zip(SINGLE, INDEXES, strict=True):
        if (folder / name).exists():
            return _read_file(folder / name), folder / name
        if (folder / index).exists():
            return _read_shards(folder / index), folder / index
    others = [p.name for p in sorted(folder.glob("*")) if p.suffix in (".index", ".h5", ".ckpt")]
    hint = f" ({others[0]} is a TensorFlow file: convert it first)" if others else ""
    raise ZhbertError(f"{folder}: no model file here{hint}; looked for {', '.join(SINGLE)}")


def _read_shards(index: Path) -> dict[str, Tensor]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except OSError as error:
        raise describe_os_error(error, "reading") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ZhbertError(f"{index}: not an index of model files: no weight_map") from None
    tensors: dict[str, Tensor] = {}
    for name in sorted(set(names)):
        path = index.parent / name
        # A name with folders in it could lead out of the model folder.
        if Path(name).name != name or not path.exists():
            raise ZhbertError(f"{path}: missing, though {index.name} names it; fetch it again")
        tensors.update(_read_file(path))
    return tensors


def _read_file(path: Path) -> dict[str, Tensor]:
    try:
        tensors = load_file(path) if path.suffix == ".safetensors" else _read_pickle(path)
    except SafetensorError as error:
        raise ZhbertError(f"{path}: damaged or truncated ({error}); fetch it again") from None
    except OSError as error:
        raise describe_os_error(error, "reading") from None
    return tensors


def _read_pickle(path: Path) -> dict[str, Tensor]:
    try:
        with warnings.catch_warnings():
            # An unusual pickle protocol: it loads or it fails below.
            warnings.simplefilter("ignore", UserWarning)
            tensors = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ZhbertError(
            f"{path}: this pickle holds more than tensors (it could run code), or is damaged; "
            "save it again as safetensors where you trust it"
        ) from None
    except (RuntimeError, EOFError, ValueError) as error:
        line = str(error).split("\n")[0]
        raise ZhbertError(f"{path}: damaged or truncated ({line}); fetch it again") from None
    if isinstance(tensors, dict) and isinstance(tensors.get("state_dict"), dict):
        tensors = tensors["state_dict"]
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ZhbertError(f"{path}: not a table of tensors by name")
    return tensors


def write_tensors(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write a safetensors file, atomically; parts of one tensor are copied apart first."""
    own = {name: tensor.detach().cpu().clone() for name, tensor in tensors.items()}
    try:
        with atomic_file(path) as temporary:
            save_file(own, temporary, metadata={"format": "pt"})
    except SafetensorError as error:
        # safetensors wraps a full disk in an error of its own.
        raise ZhbertError(f"writing {path}: {error}; free some space and try again") from None
    except OSError as error:
        raise describe_os_error(error, "writing") from None
