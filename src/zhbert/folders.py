"""Whether an output folder or file may be written, and the lock on an output folder."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, is_at, make_folder, remove, sweep


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The intention to write an output folder; ``check`` says whether that is allowed.

    >>> Claim(folder=Path("src"), what="a corpus", is_ours=lambda folder: False).check()
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: src: not empty, and not a corpus; choose another --out
    """

    folder: Path
    what: str
    """The kind of folder, for messages: "a corpus"."""
    is_ours: Callable[[Path], bool]
    """Whether a folder that is not empty is of this kind. No other folder is ever replaced."""
    overwrite: bool = False
    """A folder of this kind that exists may be replaced."""
    goes_on: bool = False
    """A folder of this kind that exists is continued."""
    ways: str = ""
    """Other options for the error about an existing folder: "--resume goes on with it, "."""
    needed: Mapping[str, Path] = field(default_factory=dict)
    """Inputs of the work, by name. A folder that contains one of them is not replaced."""
    option: str = "--out"

    def check(self) -> bool:
        """Return whether a folder of this kind exists; False if nothing or an empty folder does.

        Raises:
            ZhbertError: the folder may not be written.
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
        """Lock the folder and check it again, because another process may have changed it."""
        with locked(self.folder):
            yield self.check()


def check_not_inside(
    folder: str | os.PathLike[str], needed: Mapping[str, Path], option: str = "--out"
) -> None:
    """Raise a ZhbertError if replacing ``folder`` would remove one of the ``needed`` inputs.

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
    """Raise a ZhbertError if the file ``path`` may not be written.

    Args:
        path: the output file.
        overwrite: an existing file may be replaced.
        needed: the input files, by name; none of them may be the output.
        make_parents: missing parent folders will be made.
        label: what the message calls the file (default: ``--out PATH``).
        way: how to proceed if the file exists, for the message.
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
def locked(folder: str | os.PathLike[str], option: str = "--out") -> Iterator[None]:
    """Create ``folder`` if need be, and lock it. The lock ends with the process, even if killed.

    On a disk without locks, a file beside the folder keeps others away; one that a killed process
    of another machine has left must be removed by hand.

    Temporary files that an earlier process left in it are removed. A folder that was created here
    and is still empty at the end is removed. ``option`` names the folder, for the error.

    Raises:
        ZhbertError: another process has locked the folder.
    """
    folder = Path(folder)
    busy = ZhbertError(
        f"{folder}: another process is at work there; wait for it, or choose another {option}"
    )
    new = not folder.exists()
    make_folder(folder)
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise describe_os_error(error, "opening") from None
    try:
        with ExitStack() as stack:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise busy from None
            except OSError:
                stack.enter_context(_lock_file(Path(os.path.realpath(folder))))
            if not is_at(handle, folder):  # the process that had locked it has removed it
                raise busy
            sweep(folder)
            yield
    finally:
        if new:
            with suppress(OSError):  # not empty
                folder.rmdir()
        os.close(handle)


@contextmanager
def _lock_file(folder: Path) -> Iterator[None]:
    """Lock a folder by a file beside it that names this process."""
    path, here = folder.with_name(f".{folder.name}.zhbert-lock"), socket.gethostname()
    if not os.access(folder.parent, os.W_OK):
        yield
        return
    with suppress(OSError, ValueError):
        host, process = path.read_text(encoding="utf-8").split()
        if host == here and not _is_alive(int(process)):
            path.unlink()
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(f"{here} {os.getpid()}")
    except FileExistsError:
        raise ZhbertError(
            f"{folder}: another process is at work there; wait for it (this disk has no locks: if "
            f"the process that {path} names has died, remove that file)"
        ) from None
    try:
        yield
    finally:
        path.unlink(missing_ok=True)


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def empty_folder(folder: str | os.PathLike[str], *, last: str) -> None:
    """Remove what is in ``folder``, but not the folder itself, which may be locked.

    ``last`` is the file that identifies the folder as zhbert's. It is removed last, so that a
    folder that was emptied only in part is still recognised.
    """
    for path in sorted(Path(folder).iterdir(), key=lambda path: path.name == last):
        remove(path)
