"""Checkpoints: tensors by Hugging Face's names, read and written one at a time.

A model of several gigabytes passes through in the memory of its largest tensor (and, of a pickle, a
window of the file: ``_WINDOW``).
"""

from __future__ import annotations

import json
import math
import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, describe_os_error, scratch, write_json
from zhbert.model.names import ALIASES, CONSTANTS, modern_name
from zhbert.zoo.layout import find_model

# Pages of a mapped file stay in memory while the mapping lives: it is renewed after so many bytes.
_WINDOW = 64 << 20
# What safetensors and TensorFlow call the types that checkpoints are kept in.
DTYPES = {
    "float64": torch.float64,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_SAFETENSORS_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint; ``read`` reads it when it is called and holds nothing."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def size(self) -> int:
        """Bytes in its own type."""
        return math.prod(self.shape) * self.dtype.itemsize

    @classmethod
    def of(cls, tensor: Tensor) -> Entry:
        """An entry of a tensor in memory."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)

    def then(self, change: Callable[[Tensor], Tensor]) -> Entry:
        """This entry with ``change`` applied when it is read; the new shape is found without data.

        >>> Entry.of(torch.ones(2, 3)).then(torch.t).shape
        (3, 2)
        """
        like = change(torch.empty(self.shape, dtype=self.dtype, device="meta"))
        return Entry(tuple(like.shape), like.dtype, lambda: change(self.read()))


@dataclass(frozen=True)
class Checkpoint:
    """The tensors of a model in any format, by today's Hugging Face names (``bert.`` prefixed)."""

    file: Path  # to name in errors
    format: str  # "safetensors", "pytorch" or "tensorflow"
    entries: dict[str, Entry]
    # Second names of tensors that stand among the entries: the decoder's matrix and bias.
    aliases: dict[str, Entry] = field(default_factory=dict)
    # In the file, but no weights: optimiser slots, the step, constants.
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(cls, file: Path, format: str, raw: Mapping[str, Entry]) -> Checkpoint:
        """A checkpoint of tensors under the names in its file, which older programs wrote."""
        entries: dict[str, Entry] = {}
        names: dict[str, str] = {}
        for name, entry in raw.items():
            modern = modern_name(name)
            if modern in entries:
                raise ZhbertError(
                    f"{file}: '{names[modern]}' and '{name}' both mean {modern}: two models in one "
                    "file; save one of them alone"
                )
            entries[modern], names[modern] = entry, name
        aliases: dict[str, Entry] = {}
        for alias, name in ALIASES.items():
            if alias in entries:
                aliases[alias] = entries.pop(alias)
                entries.setdefault(name, aliases[alias])
        skipped = tuple(name for name in entries if name in CONSTANTS)
        for name in skipped:
            del entries[name]
        return cls(file, format, entries, aliases, skipped)

    def with_entries(self, entries: Mapping[str, Entry]) -> Checkpoint:
        """The same file, other tensors; second names are gone, as their tensors may be others."""
        return replace(self, entries=dict(entries), aliases={})


def open_checkpoint(path: str | Path) -> Checkpoint:
    """Open a model folder (or one of its files) of any format; only names and shapes are read.

    Raises:
        ZhbertError: no model there, a damaged file, or a pickle that holds more than tensors.
    """
    files = find_model(path)
    if files.format == "tensorflow":
        from zhbert.model.tensorflow import read_tensorflow

        found: Checkpoint = read_tensorflow(files.weights)
        return found
    parts = _shards(files.weights) if files.weights.suffix == ".json" else [files.weights]
    opened = _open_safetensors if files.format == "safetensors" else _open_pickle
    entries: dict[str, Entry] = {}
    for part in parts:
        entries.update(opened(part))
    return Checkpoint.of(files.weights, files.format, entries)


def _shards(index: Path) -> list[Path]:
    try:
        names = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
    except OSError as error:
        raise describe_os_error(error, "reading") from None
    except (ValueError, KeyError, AttributeError, TypeError):
        raise ZhbertError(f"{index}: not an index of model files: no weight_map") from None
    parts = [index.parent / str(name) for name in sorted(set(names))]
    for path in parts:
        # A name with folders in it could lead out of the model folder.
        if path.parent != index.parent or not path.exists():
            raise ZhbertError(f"{path}: missing, though {index.name} names it; fetch it again")
    return parts


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    """Turn what libraries raise for a bad file into one line."""
    from safetensors import SafetensorError

    try:
        yield
    except SafetensorError as error:
        raise ZhbertError(f"{path}: damaged or truncated ({error}); fetch it again") from None
    except OSError as error:
        raise describe_os_error(error, "reading") from None
    except pickle.UnpicklingError:
        raise ZhbertError(
            f"{path}: this pickle holds more than tensors (it could run code), or is damaged; "
            "save it again as safetensors where you trust it"
        ) from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        line = str(error).split("\n")[0]
        raise ZhbertError(f"{path}: damaged or truncated ({line}); fetch it again") from None


class _Window:
    """A mapped pickle; opened again after ``_WINDOW`` bytes, so that its pages leave memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tensors: dict[str, Tensor] | None = None
        self._left = 0

    def read(self, name: str, size: int) -> Tensor:
        with _reading(self._path):
            if self._tensors is None:
                self._tensors, self._left = _load_pickle(self._path, mapped=True), _WINDOW
            # A copy: what is returned must not keep the mapping alive.
            tensor = self._tensors[name].clone()
        self._left -= size
        if self._left <= 0:
            self._tensors = None
        return tensor


def _open_safetensors(path: Path) -> dict[str, Entry]:
    from safetensors import safe_open

    kinds = {name: dtype for dtype, name in _SAFETENSORS_NAMES.items()}
    entries = {}
    # Opened by the library, too, for its checks of the header, which are strict. It calls whatever
    # cannot be opened missing: Python says why.
    with _reading(path), path.open("rb") as file, safe_open(path, "pt"):
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    for name, about in header.items():
        kind = kinds.get(about["dtype"])
        if kind is None:
            raise ZhbertError(f"{path}: {name} is kept as {about['dtype']}, which no BERT is")
        shape = tuple(about["shape"])
        start = 8 + length + about["data_offsets"][0]
        entries[name] = Entry(shape, kind, partial(_read_bytes, path, start, shape, kind))
    return entries


def _read_bytes(path: Path, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor's bytes, read and not mapped: pages of a mapped file count as memory in use."""
    tensor = torch.empty(shape, dtype=dtype)
    room = _bytes_of(tensor)
    with _reading(path), path.open("rb") as file:
        file.seek(start)
        if file.readinto(room) < len(room):
            raise EOFError(f"{file.tell():,} bytes")
    return tensor


def _open_pickle(path: Path) -> dict[str, Entry]:
    mapped = False
    with _reading(path):
        # Files of PyTorch before 1.6 are no zip archives: they cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        tensors = _load_pickle(path, mapped)
    window = _Window(path)
    entries = {}
    for name, tensor in tensors.items():
        entry = Entry.of(tensor)
        if mapped:
            entry = Entry(entry.shape, entry.dtype, partial(window.read, name, entry.size))
        entries[name] = entry
    return entries


def _load_pickle(path: Path, mapped: bool) -> dict[str, Tensor]:
    with warnings.catch_warnings():
        # An unusual pickle protocol: it loads or it fails.
        warnings.simplefilter("ignore", UserWarning)
        tensors = torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
    for key in ("state_dict", "model_state_dict", "model"):
        # Training programs wrap the weights; the optimiser beside them is of no use here.
        if isinstance(tensors, dict) and isinstance(tensors.get(key), dict):
            tensors = tensors[key]
            break
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise ZhbertError(f"{path}: not a table of tensors by name")
    return {str(name): tensor for name, tensor in tensors.items()}


# ---------------------------------------------------------------- writing


def write_safetensors(
    folder: Path,
    entries: Mapping[str, Entry],
    *,
    dtype: torch.dtype | None = None,
    max_shard_bytes: int | None = None,
) -> None:
    """Write model.safetensors, or shards of at most ``max_shard_bytes`` and their index.

    Floating point tensors become ``dtype``; None keeps each one's own. One tensor is in memory at
    a time. A single tensor above the bound gets a shard of its own.
    """
    entries = converted(entries, dtype)
    shards: list[dict[str, Entry]] = [{}]
    filled = 0
    for name, entry in entries.items():
        if max_shard_bytes and shards[-1] and filled + entry.size > max_shard_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = entry
        filled += entry.size
    if len(shards) == 1:
        _write_safetensors_file(folder / "model.safetensors", entries)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_safetensors_file(folder / file, shard)
        weight_map |= dict.fromkeys(shard, file)
    total = sum(entry.size for entry in entries.values())
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )


def converted(entries: Mapping[str, Entry], dtype: torch.dtype | None) -> dict[str, Entry]:
    """Floating point tensors as ``dtype`` when they are read; None keeps each one's own."""
    if dtype is None:
        return dict(entries)
    return {
        name: entry.then(lambda t: t.to(dtype)) if entry.dtype.is_floating_point else entry
        for name, entry in entries.items()
    }


def _bytes_of(tensor: Tensor) -> memoryview:
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


def _write_safetensors_file(path: Path, entries: Mapping[str, Entry]) -> None:
    """The format: the header's length (8 bytes), the header (JSON), the tensors' bytes in order."""
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, entry in entries.items():
        start, end = end, end + entry.size
        header[name] = {
            "dtype": _SAFETENSORS_NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    # Padded so that the tensors begin at a multiple of eight.
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for entry in entries.values():
            file.write(_bytes_of(entry.read()))


def write_pytorch(
    folder: Path, entries: Mapping[str, Entry], *, dtype: torch.dtype | None = None
) -> None:
    """Write pytorch_model.bin as torch.save does, one tensor in memory at a time."""
    entries = converted(entries, dtype)
    path = folder / "pytorch_model.bin"
    with atomic_file(path) as temporary, scratch(path) as (_, skeleton):
        _write_pickle(temporary, skeleton, entries)


def _write_pickle(path: Path, skeleton: Path, entries: Mapping[str, Entry]) -> None:
    """torch.save writes ``skeleton``, all but the data (a sparse file); its records are copied to
    ``path`` and the data filled in.

    Filling the sparse file itself would leave the archive's checksums wrong.
    """
    from torch._subclasses.fake_tensor import FakeTensorMode
    from torch.serialization import skip_data

    with FakeTensorMode():
        fakes = {n: torch.empty(e.shape, dtype=e.dtype) for n, e in entries.items()}
    try:
        with skip_data(materialize_fake_tensors=True):
            torch.save(fakes, skeleton)
    except RuntimeError as error:
        why = str(error).split("\n")[0]
        raise ZhbertError(f"writing {path}: torch.save failed ({why}); is the disk full?") from None
    # torch.save numbers the data's records in the order of the table.
    data = iter(entries.values())
    with zipfile.ZipFile(skeleton) as source, zipfile.ZipFile(path, "w") as target:
        for record in source.infolist():
            if re.search(r"/data/\d+$", record.filename):
                _add_record(target, record.filename, _bytes_of(next(data).read()))
            else:
                _add_record(target, record.filename, source.read(record))


def _add_record(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    info = zipfile.ZipInfo(name)
    info.file_size = len(content)
    # Data begins at multiples of 64 bytes, as torch.save has it, so that it can be mapped.
    assert archive.fp is not None
    header = archive.fp.tell() + 30 + len(name.encode()) + 4
    padding = -header % 64
    info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    with archive.open(info, "w") as record:
        record.write(content)


# ---------------------------------------------------------------- whole models


def is_finite(tensor: Tensor) -> bool:
    """Are there neither NaN nor infinities? It needs no memory, where torch.isfinite needs twice
    that of the tensor.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    # NaN is both the least and the greatest to it.
    low, high = torch.aminmax(tensor)
    return math.isfinite(low) and math.isfinite(high)


def check_finite(file: Path, name: str, tensor: Tensor) -> None:
    """Raise a ZhbertError where a tensor holds NaN or infinity: nothing good comes of it."""
    if not is_finite(tensor):
        raise ZhbertError(
            f"{file}: {name} holds NaN or infinite numbers: the training that wrote it diverged; "
            "use an earlier checkpoint"
        )


def entries_of(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> dict[str, Entry]:
    """Entries of tensors in memory, by name."""
    return {name: Entry.of(tensor) for name, tensor in dict(tensors).items()}
