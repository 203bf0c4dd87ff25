"""Models that are part of this package, verified by checksums before they are used."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, sha256_of, write_text

FOLDER = Path(__file__).parents[1] / "assets"
"""The folder with a subfolder for each such model."""
DEFAULT = "zhbert-mini"
"""The model that verbs use if none is given."""
CHECKSUMS = "SHA256SUMS"
"""The list of checksums in a model's folder, in the format of sha256sum."""


def packaged_model(name: str) -> Path:
    """Return the folder of a packaged model after verifying its files.

    Raises:
        ZhbertError: the installation lacks the model, or one of its files is damaged.
    """
    folder = FOLDER / name
    if not folder.is_dir():
        raise ZhbertError(f"{name}: not in this installation ({folder} is missing){_AGAIN}")
    try:
        _check(folder, tuple((file.name, file.stat().st_mtime_ns) for file in folder.iterdir()))
    except FileNotFoundError as error:
        raise _damaged(Path(error.filename), "missing") from None
    except OSError as error:
        raise describe_os_error(error, "reading") from None
    return folder


def is_packaged(name: str | None) -> bool:
    """Return True if this installation contains such a model; its files are not verified."""
    return name is not None and (FOLDER / name).is_dir()


def write_checksums(folder: Path) -> None:
    """Write the list of checksums. Call this last, when the model's files are complete."""
    files = sorted(path for path in folder.iterdir() if path.name != CHECKSUMS)
    write_text(folder / CHECKSUMS, "".join(f"{sha256_of(file)}  {file.name}\n" for file in files))


_AGAIN = "; install zhbert again"


# Verifying 18 MB takes about 15 ms. ``state`` (names and modification times) is an argument so that
# changed files are verified again.
@functools.cache
def _check(folder: Path, state: tuple[tuple[str, int], ...]) -> None:
    lines = (folder / CHECKSUMS).read_text(encoding="ascii", errors="replace").splitlines()
    sums = [re.fullmatch(r"([0-9a-f]{64})  (\S+)", line) for line in lines]
    if not sums or None in sums:
        raise _damaged(folder / CHECKSUMS, "not a list of checksums")
    for expected, name in (line.groups() for line in sums if line):
        found = sha256_of(folder / name)
        if found != expected:
            told = f"checksum {found[:12]}, published {expected[:12]}"
            raise _damaged(folder / name, told)


def _damaged(file: Path, how: str) -> ZhbertError:
    return ZhbertError(f"{file}: damaged ({how}){_AGAIN}")
