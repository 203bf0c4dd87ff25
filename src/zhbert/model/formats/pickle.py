"""Files of torch.save (pytorch_model.bin): read without running their code; written by tensors.

PyTorch unpickles only tensors (``weights_only``). Of the other objects that training programs save,
some harmless classes are replaced with placeholders; all others are an error.
"""

from __future__ import annotations

import pickle
import re
import struct
import warnings
import zipfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, refused, scratch
from zhbert.model.entry import Entry, bytes_of
from zhbert.model.formats.safetensors import DTYPE_NAMES
from zhbert.model.names import holds_bert

_WHAT = "a file of torch.save"
# Pages of a mapped file stay in memory until it is unmapped, so it is mapped again after this many
# bytes.
_WINDOW = 64 << 20
# Training programs store the model under these keys, next to its average or its teacher.
_USUAL = ("state_dict", "model_state_dict", "model", "module", "net")
# Maximum depth of nested tables that is searched.
_DEEPEST = 6
# Classes that training programs save with tensors. Their objects are skipped, not unpickled.
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


class _Window:
    """A mapped pickle, which is opened again after ``_WINDOW`` bytes to free its pages."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._tensors: dict[str, Tensor] | None = None
        self._left = 0

    def read(self, name: str, size: int) -> Tensor:
        with refused(self._path, _WHAT):
            if self._tensors is None:
                self._tensors, self._left = _load_pickle(self._path, mapped=True)[0], _WINDOW
            # A copy, so that the result does not keep the mapping alive.
            tensor = self._tensors[name].clone()
        self._left -= size
        if self._left <= 0:
            self._tensors = None
        return tensor


def read_pickle(path: Path) -> tuple[dict[str, Entry], list[str]]:
    """Return the entries of one file by their names in it, and the names of its other content."""
    with refused(path, _WHAT):
        # Files of PyTorch before 1.6 are not zip archives and cannot be mapped.
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
        if tensor.layout != torch.strided or tensor.dtype not in DTYPE_NAMES:
            kind = tensor.dtype if tensor.layout == torch.strided else tensor.layout
            raise ZhbertError(f"{path}: {name} is kept as {kind}, which no BERT is")
        if entry.size > size:
            # A stride of 0 repeats one number, so a copy could have any size.
            raise ZhbertError(f"{path}: {name}, {entry.size:,} bytes, is larger than the file")
        if mapped:
            entry = Entry(entry.shape, entry.dtype, partial(window.read, name, entry.size))
        entries[name] = entry
    return entries, aside


class _LeftAside:
    """A placeholder for a skipped object, whose class is not imported or called."""

    def __new__(cls, *_: Any) -> Any:
        return object.__new__(cls)

    def __setstate__(self, state: Any) -> None:
        pass


class _PlainTable:
    """A placeholder for a subclass of dict: a plain dict with the same items."""

    def __new__(cls, *_: Any) -> Any:
        return {}


def _load_pickle(path: Path, mapped: bool) -> tuple[dict[str, Tensor], list[str]]:
    """Load the tensors of a torch.save file by name, and the names of its other content."""
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
    """Unpickle a file of torch.save; of objects other than tensors, only tables are kept."""
    stands_for: list[Any] = [(_LeftAside, name) for name in _HARMLESS]
    stands_for += [(_PlainTable, name) for name in _TABLES]
    with warnings.catch_warnings(), torch.serialization.safe_globals(stands_for):
        # PyTorch warns of an unusual pickle protocol, but the file either loads or fails.
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
"""The keys of a nested table in a training program's file."""


def _tables(found: Any, place: _Place) -> Iterator[tuple[_Place, dict[str, Tensor]]]:
    """Yield every table of named tensors, with its keys."""
    if not isinstance(found, Mapping) or len(place) > _DEEPEST:
        return
    named = {key: value for key, value in found.items() if isinstance(key, str)}
    if tensors := {key: value for key, value in named.items() if isinstance(value, Tensor)}:
        yield place, tensors
    for key, value in named.items():
        yield from _tables(value, (*place, key))


def _the_model(path: Path, tables: Mapping[_Place, Mapping[str, Tensor]]) -> _Place | None:
    """Find the model among several tables; None: it seems to be spread over all of them."""
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
    """Yield the names of content outside the model's table, and of non-tensors in it.

    Without a chosen table all tensors belong to the model.
    """
    for key, value in found.items():
        if chosen and key == chosen[0]:
            yield from _beside(value, chosen[1:])
        elif chosen or not isinstance(value, (Tensor, Mapping)):
            yield str(key)


def write_pickle(folder: Path, entries: Mapping[str, Entry]) -> None:
    """Write pytorch_model.bin like torch.save, with one tensor in memory at a time."""
    path = folder / "pytorch_model.bin"
    with atomic_file(path) as temporary, scratch(path) as (_, skeleton):
        _write_file(temporary, skeleton, entries)


def _write_file(path: Path, skeleton: Path, entries: Mapping[str, Entry]) -> None:
    """Write ``skeleton`` by torch.save without the data (a sparse file); copy its records to
    ``path`` and fill in the data.

    If the sparse file itself were filled, the archive's checksums would be wrong.
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
    # torch.save numbers the data records in the order of the table.
    data = iter(entries.values())
    with zipfile.ZipFile(skeleton) as source, zipfile.ZipFile(path, "w") as target:
        for record in source.infolist():
            # torch.save names the inner folder after the file. The skeleton's name varies, but the
            # same model must give the same bytes.
            inside = record.filename.partition("/")[2]
            is_data = re.fullmatch(r"data/\d+", inside)
            content = bytes_of(next(data).read()) if is_data else source.read(record)
            _add_record(target, f"pytorch_model/{inside}", content)


def _add_record(archive: zipfile.ZipFile, name: str, content: bytes | memoryview) -> None:
    info = zipfile.ZipInfo(name)
    info.file_size = len(content)
    # Data begins at multiples of 64 bytes, as in torch.save, so that it can be mapped.
    assert archive.fp is not None
    header = archive.fp.tell() + 30 + len(name.encode()) + 4
    padding = -header % 64
    info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
    with archive.open(info, "w") as record:
        record.write(content)
