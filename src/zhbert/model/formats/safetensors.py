"""safetensors files, read and written tensor by tensor: https://github.com/huggingface/safetensors.

A file is the header's length (8 bytes), the header (JSON), and the tensors' bytes in order.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, refused, write_json
from zhbert.model.entry import Entry, bytes_of, in_shards

_WHAT = "a safetensors file"
DTYPE_NAMES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint16: "U16",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}
"""The header's names of the dtypes that a model may have."""


def read_safetensors(path: Path) -> tuple[dict[str, Entry], list[str]]:
    """Return the entries of one file by their names in it, and no names of other content."""
    from safetensors import safe_open

    kinds = {name: dtype for dtype, name in DTYPE_NAMES.items()}
    # The library opens it, too, for its strict checks of the header.
    with refused(path, _WHAT), path.open("rb") as file, safe_open(path, "pt"):
        length = struct.unpack("<Q", file.read(8))[0]
        header = json.loads(file.read(length))
    header.pop("__metadata__", None)
    entries = {}
    for name, about in header.items():
        kind = kinds.get(about["dtype"])
        if kind is None:
            raise ZhbertError(f"{path}: {name} is kept as {about['dtype']}, which no BERT is")
        shape = tuple(about["shape"])
        start = 8 + length + about["data_offsets"][0]
        entries[name] = Entry(shape, kind, partial(_read_bytes, path, start, shape, kind))
    return entries, []


def _read_bytes(path: Path, start: int, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Read a tensor without mapping the file, since mapped pages count as memory in use."""
    tensor = torch.empty(shape, dtype=dtype)
    room = bytes_of(tensor)
    with refused(path, _WHAT), path.open("rb") as file:
        file.seek(start)
        if file.readinto(room) < len(room):
            raise EOFError(f"{file.tell():,} bytes")
    return tensor


def write_safetensors(
    folder: Path,
    entries: Mapping[str, Entry],
    *,
    max_shard_bytes: int | None = None,
    written_for: str = "pt",
) -> None:
    """Write model.safetensors, or shards of at most ``max_shard_bytes`` and their index.

    One tensor is in memory at a time. A single tensor above the limit gets a separate shard.
    ``written_for`` is the framework that the metadata name: "pt" (PyTorch), "np" (PaddleNLP).
    """
    shards = in_shards(entries, max_shard_bytes)
    if len(shards) == 1:
        _write_file(folder / "model.safetensors", entries, written_for)
        return
    weight_map: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        file = f"model-{number:05}-of-{len(shards):05}.safetensors"
        _write_file(folder / file, shard, written_for)
        weight_map |= dict.fromkeys(shard, file)
    total = sum(entry.size for entry in entries.values())
    write_json(
        folder / "model.safetensors.index.json",
        {"metadata": {"total_size": total}, "weight_map": weight_map},
    )


def _write_file(path: Path, entries: Mapping[str, Entry], written_for: str) -> None:
    header: dict[str, Any] = {"__metadata__": {"format": written_for}}
    end = 0
    for name, entry in entries.items():
        start, end = end, end + entry.size
        header[name] = {
            "dtype": DTYPE_NAMES[entry.dtype],
            "shape": list(entry.shape),
            "data_offsets": [start, end],
        }
    text = json.dumps(header, separators=(",", ":")).encode()
    # Padding, so that the tensors begin at a multiple of eight bytes.
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as temporary, temporary.open("wb") as file:
        file.write(struct.pack("<Q", len(text)))
        file.write(text)
        for entry in entries.values():
            file.write(bytes_of(entry.read()))
