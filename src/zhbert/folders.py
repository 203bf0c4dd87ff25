"""May I write here? The one claim of a folder or a file that a verb writes, and a folder's lock."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, is_at, make_folder, remove, sweep


@dataclass(frozen=True, kw_only=True)
class Claim:
    """What a verb wants with the folder that it writes: a new one, or one of its own kind.

    >>> Claim(folder=Path("src"), what="a corpus", is_ours=lambda folder: False).check()
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: src: not empty, and not a corpus; choose another --out
    """

    folder: Path
    what: str
    """The kind of folder, in words: "a corpus"."""
    is_ours: Callable[[Path], bool]
    """Is a folder with something in it of this kind? Nothing else is ever replaced."""
    overwrite: bool = False
    """What stands there may be replaced."""
    goes_on: bool = False
    """What stands there is gone on with."""
    ways: str = ""
    """What may be done with it besides: "--resume goes on with it, "."""
    needed: Mapping[str, Path] = field(default_factory=dict)
    """What the work is made from, by name: it must not be replaced."""
    option: str = "--out"

    def check(self) -> bool:
        """Does one of the kind stand there? False where nothing is, or an empty folder.

        Raises ZhbertError where the folder may not be written.
        """
        folder = self.folder
        real = Path(os.path.realpath(folder))
        sweep(real.parent, real.name)
        sweep(real)
        try:
            if not folder.exists():
                above = next(path for path in real.parents if path.exists())
                if not above.is_dir():
                    raise ZhbertError(f"{folder}: Not a directory: {above} is a file")
                return False
            if not folder.is_dir():
                raise ZhbertError(f"{folder}: a file; {self.option} names the folder to make")
            if not any(folder.iterdir()):
                return False
        except OSError as error:
            raise describe_os_error(error, "looking into") from None
        if not self.is_ours(folder):
            raise ZhbertError(
                f"{folder}: not empty, and not {self.what}; choose another {self.option}"
            )
        if self.overwrite or not self.goes_on:
            check_not_inside(folder, self.needed, self.option)
        if not (self.overwrite or self.goes_on):
            raise ZhbertError(
                f"{folder}: {self.what} stands there; {self.ways}--overwrite replaces it"
            )
        return True

    @contextmanager
    def held(self) -> Iterator[bool]:
        """Hold the folder, and look once more: another process may have been there meanwhile."""
        with locked(self.folder):
            yield self.check()


def check_not_inside(
    folder: str | os.PathLike[str], needed: Mapping[str, Path], option: str = "--out"
) -> None:
    """Before ``folder`` is replaced: refuse where it holds something that is ``needed``, by name.

    >>> check_not_inside("runs/a", {"model": Path("runs/b/final")})
    >>> check_not_inside("runs/a", {"model": Path("runs/a/final")})
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: --overwrite would remove the model, runs/a/final: it lies in \
runs/a; choose another --out
    """
    own = Path(folder).resolve()
    for what, path in needed.items():
        if own in (path.resolve(), *path.resolve().parents):
            raise ZhbertError(
                f"--overwrite would remove the {what}, {path}: it lies in {folder}; choose another "
                f"{option}"
            )


def check_file(
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    needed: Mapping[str, Path] | None = None,
    make_parents: bool = False,
    label: str | None = None,
    way: str = "--overwrite replaces it",
) -> None:
    """May a verb write the file ``path``? ``needed`` are the files that it reads, by name.

    Raises ZhbertError where it may not: with ``label`` (``--out PATH``) and, where a file stands
    there, the ``way`` out.
    """
    path = Path(path)
    label = label or f"--out {path}"
    try:
        if path.is_dir():
            raise ZhbertError(f"{label}: a folder; name a file in it")
        if path.exists():
            for what, other in (needed or {}).items():
                if other.exists() and path.samefile(other):
                    raise ZhbertError(f"{label}: is the {what}; give another name")
            if not path.is_file():
                raise ZhbertError(f"{label}: a device, not a file; give another name")
            if not overwrite:
                raise ZhbertError(f"{label}: exists already; {way}")
        elif not make_parents and not path.parent.is_dir():
            raise ZhbertError(f"{label}: no folder {path.parent}; make it first")
    except OSError as error:
        raise describe_os_error(error, "looking at") from None


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Make ``folder``, if need be, and hold it; a process that is killed lets it go, too.

    What an earlier one left unfinished in it is swept. A folder that was made here and stays empty
    is removed in the end. Raises ZhbertError where another process holds it.
    """
    folder = Path(folder)
    busy = ZhbertError(
        f"{folder}: another process is at work there; wait for it, or choose another --out"
    )
    new = not folder.exists()
    make_folder(folder)
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise describe_os_error(error, "opening") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise busy from None
        except OSError:  # a network disk without locks
            pass
        if not is_at(handle, folder):  # removed by the one that held it
            raise busy
        sweep(folder)
        yield
    finally:
        if new:
            with suppress(OSError):  # not empty
                folder.rmdir()
        os.close(handle)


def empty_folder(folder: str | os.PathLike[str], *, last: str) -> None:
    """Remove what is in ``folder``, but not the folder, which may be held.

    ``last`` is the file by which it is known as ours: it goes when all else has gone.
    """
    for path in sorted(Path(folder).iterdir(), key=lambda path: path.name == last):
        remove(path)
