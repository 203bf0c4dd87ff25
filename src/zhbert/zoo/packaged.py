"""Models that are part of this package; their files are checked before they are used."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, sha256_of, write_text

FOLDER = Path(__file__).parents[1] / "assets"
"""The folder that holds a folder for each such model."""
DEFAULT = "zhbert-mini"
"""The model that a verb takes where it needs one and none is named."""
CHECKSUMS = "SHA256SUMS"
"""The list of checksums in a model's folder, as sha256sum writes and checks it."""


def packaged_model(name: str) -> Path:
    """The folder of a model of this package, whose files are as they were published.

    Raises:
        ZhbertError: it is not in this installation, or one of its files is damaged.
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
    """Whether this installation has such a model; its files are not checked."""
    return name is not None and (FOLDER / name).is_dir()


def write_checksums(folder: Path) -> None:
    """Write the list of checksums; to be called last, when the model's files are complete."""
    files = sorted(path for path in folder.iterdir() if path.name != CHECKSUMS)
    write_text(folder / CHECKSUMS, "".join(f"{sha256_of(file)}  {file.name}\n" for file in files))


_AGAIN = "; install zhbert again"


# Checking 18 MB takes about 15 ms. ``state`` (names and times of change) is in the arguments so
# that files that have changed since are checked anew.
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
