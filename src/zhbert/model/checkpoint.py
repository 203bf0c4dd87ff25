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
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, read_json, refused, scratch, write_json
from zhbert.model.names import ALIASES, CONSTANTS, holds_bert, modern_names, segments_of_uer
from zhbert.zoo.layout import find_model, weights_format

# Pages of a mapped file stay in memory while the mapping lives: it is renewed after so many bytes.
_WINDOW = 64 << 20
_SAFETENSORS, _PYTORCH = "a safetensors file", "a file of torch.save"
# Keys that training programs keep the model under, beside its average or its teacher.
_USUAL = ("state_dict", "model_state_dict", "model", "module", "net")
# Tables inside tables are looked into to this depth.
_DEEPEST = 6
# What training programs save beside tensors: objects of these names are left aside, unopened.
_HARMLESS = (
    "argparse.Namespace",
    "builtins.list",
    "datetime.datetime",
    "datetime.timedelta",
    "numpy.core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray._reconstruct",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.Path",
    "pathlib.PosixPath",
    "pathlib.WindowsPath",
    "pathlib._local.PosixPath",
    "pathlib._local.WindowsPath",
)
_TABLES = (
    "collections.defaultdict",
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
)
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
    # In the file, but no weights: optimiser slots, the step, constants, what is no tensor.
    skipped: tuple[str, ...] = ()

    @classmethod
    def of(cls, file: Path, format: str, raw: Mapping[str, Entry]) -> Checkpoint:
        """A checkpoint of tensors under the names in its file, which older programs wrote."""
        entries: dict[str, Entry] = {}
        names: dict[str, str] = {}
        modern_name = modern_names(raw, file)
        for name, entry in raw.items():
            modern = modern_name[name]
            if segments_of_uer(name):
                entry = entry.then(lambda rows: rows[1:])
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

    def checked(self) -> dict[str, Entry]:
        """The entries; reading one that holds NaN or infinity raises a ZhbertError."""

        def read(name: str) -> Tensor:
            tensor = self.entries[name].read()
            if not is_finite(tensor):
                raise ZhbertError(
                    f"{self.file}: {name} holds NaN or infinite numbers: the training that wrote "
                    "it diverged; use an earlier checkpoint"
                )
            return tensor

        return {n: replace(entry, read=partial(read, n)) for n, entry in self.entries.items()}


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
    entries: dict[str, Entry] = {}
    aside: dict[str, None] = {}
    for part in weight_files(files.weights):
        opened, left = _OPENED[weights_format(part)](part)
        entries |= opened
        aside |= dict.fromkeys(left)
    checkpoint = Checkpoint.of(files.weights, files.format, entries)
    return replace(checkpoint, skipped=(*checkpoint.skipped, *aside))


def weight_files(weights: Path) -> list[Path]:
    """The files that hold the tensors: ``weights`` itself, or those that an index names.

    Raises:
        ZhbertError: no index of weights, or a file that it names is missing.
    """
    if weights.suffix != ".json":
        return [weights]
    names = read_json(weights, dict, "an index of model files").get("weight_map")
    if not isinstance(names, dict) or not names:
        raise ZhbertError(f"{weights}: not an index of model files: no weight_map")
    parts = []
    for name in sorted({str(name) for name in names.values()}):
        path = weights.parent / name
        # A name with folders in it could lead out of the model folder; one too long is no name.
        if Path(name).name != name or len(name) > 255 or not path.is_file():
            raise ZhbertError(
                f"{weights.parent / name[:255]}: missing, though {weights.name} names it; fetch it "
                "again"
            )
        parts.append(path)
    return parts


class _Window:
    """A mapped pickle; opened again after ``_WINDOW`` bytes, so that its pages leave memory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tensors: dict[str, Tensor] | None = None
        self._left = 0

    def read(self, name: str, size: int) -> Tensor:
        with refused(self._path, _PYTORCH):
            if self._tensors is None:
                self._tensors, self._left = _load_pickle(self._path, mapped=True)[0], _WINDOW
            # A copy: what is returned must not keep the mapping alive.
            tensor = self._tensors[name].clone()
        self._left -= size
        if self._left <= 0:
            self._tensors = None
        return tensor


def _open_safetensors(path: Path) -> tuple[dict[str, Entry], list[str]]:
    from safetensors import safe_open

    kinds = {name: dtype for dtype, name in _SAFETENSORS_NAMES.items()}
    # Opened by the library, too, for its checks of the header, which are strict.
    with refused(path, _SAFETENSORS), path.open("rb") as file, safe_open(path, "pt"):
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
    """A tensor's bytes, read and not mapped: pages of a mapped file count as memory in use."""
    tensor = torch.empty(shape, dtype=dtype)
    room = _bytes_of(tensor)
    with refused(path, _SAFETENSORS), path.open("rb") as file:
        file.seek(start)
        if file.readinto(room) < len(room):
            raise EOFError(f"{file.tell():,} bytes")
    return tensor


def _open_pickle(path: Path) -> tuple[dict[str, Entry], list[str]]:
    with refused(path, _PYTORCH):
        # Files of PyTorch before 1.6 are no zip archives: they cannot be mapped.
        mapped = zipfile.is_zipfile(path)
        if mapped:
            with zipfile.ZipFile(path) as archive:
                if any(record.compress_type for record in archive.infolist()):
                    raise ValueError("compressed inside, as torch.save never does")
        tensors, aside = _load_pickle(path, mapped)
        size = path.stat().st_size
    window = _Window(path)
    entries = {}
    for name, tensor in tensors.items():
        entry = Entry.of(tensor)
        if tensor.layout != torch.strided or tensor.dtype not in _SAFETENSORS_NAMES:
            kind = tensor.dtype if tensor.layout == torch.strided else tensor.layout
            raise ZhbertError(f"{path}: {name} is kept as {kind}, which no BERT is")
        if entry.size > size:
            # One number, repeated by a stride of 0, would fill the memory when it is copied.
            raise ZhbertError(f"{path}: {name}, {entry.size:,} bytes, is larger than the file")
        if mapped:
            entry = Entry(entry.shape, entry.dtype, partial(window.read, name, entry.size))
        entries[name] = entry
    return entries, aside


_OPENED = {"safetensors": _open_safetensors, "pytorch": _open_pickle}


class _LeftAside:
    """Stands for an object of no use here: nothing of it is imported, called or kept."""

    def __new__(cls, *_: Any) -> Any:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class _PlainTable:
    """Stands for a class of tables: its items are kept."""

    def __new__(cls, *_: Any) -> Any:
        return {}


def _load_pickle(path: Path, mapped: bool) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a file of torch.save by name, and the names of what stands beside them."""
    found = _unpickled(path, mapped)
    tables = dict(_tables(found, ()))
    if not tables:
        there = ", ".join(map(str, found)) if isinstance(found, Mapping) else type(found).__name__
        raise ZhbertError(
            f"{path}: no table of tensors by name; it holds {there[:80] or 'nothing'}"
        )
    chosen = _the_model(path, tables)
    aside = list(_beside(found, chosen))
    if chosen is not None:
        return tables[chosen], aside
    return {
        ".".join((*place, name)): tensor
        for place, table in tables.items()
        for name, tensor in table.items()
    }, aside


def _unpickled(path: Path, mapped: bool) -> Any:
    """What a file of torch.save holds; of objects other than tensors only the tables are kept."""
    stands_for: list[Any] = [(_LeftAside, name) for name in _HARMLESS]
    stands_for += [(_PlainTable, name) for name in _TABLES]
    with warnings.catch_warnings(), torch.serialization.safe_globals(stands_for):
        # An unusual pickle protocol: it loads or it fails.
        warnings.simplefilter("ignore", UserWarning)
        try:
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mapped)
        except pickle.UnpicklingError as error:
            named = re.search(r"GLOBAL (\S+)", str(error))
            if "operand" in str(error):
                raise ZhbertError(
                    f"{path}: damaged, or saved with another pickle protocol than PyTorch's own, "
                    "which is 2; save it again without pickle_protocol, or as safetensors"
                ) from None
            if named is None:
                raise ValueError(str(error).rpartition("rror: ")[2].strip()) from None
            raise ZhbertError(
                f"{path}: this pickle holds more than tensors, {named[1]} first (it could run "
                "code); where you trust it, save its model.state_dict() alone, or safetensors"
            ) from None


_Place = tuple[str, ...]
"""Keys that lead to a table inside the tables of a training program."""


def _tables(found: Any, place: _Place) -> Iterator[tuple[_Place, dict[str, Tensor]]]:
    """Every table of tensors by name, with the keys that lead to it."""
    if not isinstance(found, Mapping) or len(place) > _DEEPEST:
        return
    named = {key: value for key, value in found.items() if isinstance(key, str)}
    if tensors := {key: value for key, value in named.items() if isinstance(value, Tensor)}:
        yield place, tensors
    for key, value in named.items():
        yield from _tables(value, (*place, key))


def _the_model(path: Path, tables: Mapping[_Place, Mapping[str, Tensor]]) -> _Place | None:
    """Where the model is among several tables; None: in all of them together, as it seems."""
    if len(tables) == 1:
        return next(iter(tables))
    berts = [place for place, table in tables.items() if holds_bert(table)]
    usual = [place for place in berts if place and place[-1] in _USUAL]
    for places in (berts, usual):
        if len(places) == 1:
            return places[0]
    if not berts:
        return None
    names = " and ".join(repr(".".join(place)) for place in berts)
    raise ZhbertError(f"{path}: {len(berts)} models in one file, {names}; save one of them alone")


def _beside(found: Mapping[Any, Any], chosen: _Place | None) -> Iterator[str]:
    """The names of what is not the model: all that stands beside its table or is no tensor in it.

    Without a chosen table every tensor is the model's.
    """
    for key, value in found.items():
        if chosen and key == chosen[0]:
            yield from _beside(value, chosen[1:])
        elif chosen or not isinstance(value, (Tensor, Mapping)):
            yield str(key)


# ---------------------------------------------------------------- writing


def write_safetensors(
    folder: Path,
    entries: Mapping[str, Entry],
    *,
    max_shard_bytes: int | None = None,
) -> None:
    """Write model.safetensors, or shards of at most ``max_shard_bytes`` and their index.

    One tensor is in memory at a time. A single tensor above the bound gets a shard of its own.
    """
    shards = in_shards(entries, max_shard_bytes)
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


def in_shards(entries: Mapping[str, Entry], most_bytes: int | None) -> list[dict[str, Entry]]:
    """The entries in parts of at most ``most_bytes`` (or one larger entry), in their order."""
    shards: list[dict[str, Entry]] = [{}]
    filled = 0
    for name, entry in entries.items():
        if most_bytes and shards[-1] and filled + entry.size > most_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = entry
        filled += entry.size
    return shards


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


def write_pytorch(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Write pytorch_model.bin as torch.save does, one tensor in memory at a time."""
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
            # torch.save names the folder inside by its file: the skeleton's name is another each
            # time, and the same model is to be the same bytes.
            inside = record.filename.partition("/")[2]
            is_data = re.fullmatch(r"data/\d+", inside)
            content = _bytes_of(next(data).read()) if is_data else source.read(record)
            _add_record(target, f"pytorch_model/{inside}", content)


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


# ---------------------------------------------------------------- tensors in memory


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity.

    This needs no memory; torch.isfinite needs twice that of the tensor.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    # NaN is both the least and the greatest to it.
    low, high = torch.aminmax(tensor)
    return math.isfinite(low) and math.isfinite(high)


def entries_of(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> dict[str, Entry]:
    """Entries of tensors in memory, by name."""
    return {name: Entry.of(tensor) for name, tensor in dict(tensors).items()}
