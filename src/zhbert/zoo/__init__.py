"""Published models: a name, an address or an archive becomes a folder."""

from __future__ import annotations

import os
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import atomic_folder, describe_os_error, sha256_of
from zhbert.zoo.layout import find_model

# A file of weights may be a zip inside (PyTorch's are), and is no archive of a model all the same.
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".index", ".json")


def cache_folder() -> Path:
    """Where archives and what they hold are kept: ZHBERT_CACHE, or ~/.cache/zhbert."""
    if chosen := os.environ.get("ZHBERT_CACHE"):
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "zhbert"


def locate(name: str | Path, *, quiet: bool = True) -> Path:
    """A local model folder for a folder, an archive, a catalogue name, a hub id or an address.

    What exists on this machine wins. The rest is fetched and unpacked into the cache, once.

    Raises:
        ZhbertError: nothing there, no model in it, or it could not be fetched.
    """
    path = Path(name).expanduser()
    if path.is_file() and path.suffix not in _WEIGHTS:
        return _unpacked(path)
    if path.exists() or Path(f"{path}.index").exists():
        return find_model(path).folder
    from zhbert.zoo.catalogue import find_card

    card = find_card(str(name))
    raise ZhbertError(f"{name}: {card}")


def _unpacked(archive: Path) -> Path:
    """The model folder of an archive, unpacked into the cache under its content's checksum."""
    from zhbert.zoo.archive import unpack

    try:
        folder = cache_folder() / "models" / sha256_of(archive)[:32]
    except OSError as error:
        raise describe_os_error(error, "reading") from None
    if not folder.is_dir():
        with atomic_folder(folder) as temporary:
            unpack(archive, temporary)
            find_model(temporary)
    return find_model(folder).folder
