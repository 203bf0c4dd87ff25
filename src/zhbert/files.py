"""Atomic writes that a kill cannot spoil, checksums, and one line for what is wrong with a file."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import secrets
import shutil
import tomllib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TypeVar

from zhbert.errors import ZhbertError
from zhbert.signatures import HEAD, how_to_convert, no_text

_Json = TypeVar("_Json", dict[str, Any], list[Any])


_AGAIN = "run the same command again"
_again: ContextVar[str] = ContextVar("again", default=_AGAIN)

# What is wrong -> what can be done. An error of one of the first kinds comes from writing, even
# where the system names no file.
_OF_WRITING = {
    errno.ENOSPC: "the disk is full; free some space and {again}",
    errno.EDQUOT: "the disk quota is used up; free some space and {again}",
    errno.EFBIG: "more than a file may hold here (see ulimit -f); raise the limit and {again}",
}
_TROUBLES = _OF_WRITING | {
    errno.EMFILE: "too many open files; raise the limit (ulimit -n 4096) and {again}",
    errno.ENFILE: "too many open files on this machine; close some programs and {again}",
    errno.EACCES: "no permission; choose another folder or change its permissions",
    errno.EPERM: "no permission; choose another folder or change its permissions",
    errno.EROFS: "no permission: the disk is read-only; choose another folder",
    errno.EBUSY: "in use by the system; choose another folder",
    errno.ENAMETOOLONG: "{error}; choose a shorter one",
    errno.ENOENT: "no such file or folder",
    errno.EISDIR: "a folder, where a file is expected",
    errno.ENOTDIR: "{error}: a file stands on the way",
    errno.EEXIST: "something stands there already",
    errno.ENOTEMPTY: "something stands there already",
}


@contextmanager
def advising(again: str) -> Iterator[None]:
    """Within it, errors say ``again`` where they would say "run the same command again".

    What stands outermost holds: it alone knows the user's command.
    """
    token = _again.set(again if _again.get() == _AGAIN else _again.get())
    try:
        yield
    finally:
        _again.reset(token)


def describe_os_error(error: OSError, doing: str) -> ZhbertError:
    """Turn an OSError into one line that says what to do about it.

    >>> full = OSError(28, "No space left on device", "x.bin")
    >>> str(describe_os_error(full, "writing"))
    'writing x.bin: the disk is full; free some space and run the same command again'
    >>> with advising("go on with --resume"):
    ...     str(describe_os_error(full, "writing"))
    'writing x.bin: the disk is full; free some space and go on with --resume'
    >>> str(describe_os_error(OSError(30, "Read-only file system"), "writing the run:"))
    'writing the run: no permission: the disk is read-only; choose another folder'
    """
    where = f"{doing} {error.filename}" if error.filename else doing.removesuffix(":")
    trouble = _TROUBLES.get(error.errno or 0, "{error}")
    return ZhbertError(
        f"{where}: {trouble.format(again=_again.get(), error=error.strerror or error)}"
    )


HALF_SURROGATE = re.compile("[\ud800-\udfff]")
"""Half a surrogate pair in a text, where a JSON escape alone can put it; no file can hold it."""
# As it is escaped in JSON, or both halves.
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str, path: object, line: int | None = None, hint: str = "") -> Any:
    """What a file's text, or one line of it, says in JSON; an error names file and line.

    Half a surrogate pair, which an escape can write and no file can hold, becomes U+FFFD.

    >>> parse_json('{"a": 1}', "x.jsonl", 7)
    {'a': 1}
    >>> parse_json("{", "x.jsonl", 7, "; write one object a line")
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: x.jsonl:7: not JSON (Expecting property name enclosed in double \
quotes); write one object a line
    """
    try:
        value = json.loads(text)
        return _changed(value, _without_half) if _HALF_ESCAPED.search(text) else value
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", str(error))
        if isinstance(error, RecursionError):
            why = "nested too deeply"
        number = line or getattr(error, "lineno", 1)
        raise ZhbertError(f"{path}:{number}: not JSON ({why}){hint}") from None


def _without_half(value: Any) -> Any:
    return HALF_SURROGATE.sub("\ufffd", value) if isinstance(value, str) else value


def _changed(value: Any, change: Callable[[Any], Any]) -> Any:
    """A value of JSON with every text, number and key in it changed."""
    if isinstance(value, list | tuple):
        return [_changed(one, change) for one in value]
    if isinstance(value, dict):
        return {change(key): _changed(one, change) for key, one in value.items()}
    return change(value)


def read_head(path: str | os.PathLike[str]) -> bytes:
    """A file's first bytes, by which `zhbert.signatures` tells what it is."""
    try:
        # A pipe or the kernel's log may have nothing to say for ever: nobody waits for them.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return file.read(HEAD) or b""
    except OSError as error:
        raise describe_os_error(error, "reading") from None


def read_text(path: str | os.PathLike[str], what: str = "") -> str:
    """What a text file holds, as UTF-8 and without a byte order mark; line ends stay as they are.

    ``what`` is what the file should have been ("a user dictionary"), for the error.

    Raises:
        ZhbertError: the file cannot be read, is not UTF-8, or is no text at all (a Git LFS
            pointer, a web page, an archive); the error says which and what to do.
    """
    with refused(path, what):
        raw = Path(path).read_bytes()
    if (found := no_text(raw[:HEAD])) is not None:
        raise ZhbertError(f"{os.fspath(path)}: {found}")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ZhbertError(
            f"{os.fspath(path)}: not UTF-8 ({error.reason} at byte {error.start + 1}); "
            f"{how_to_convert(raw[:HEAD])}"
        ) from None


def read_json(path: str | os.PathLike[str], kind: type[_Json], what: str = "") -> _Json:
    """What a JSON file holds; a byte order mark does no harm.

    ``kind`` is what must stand there, ``dict`` or ``list``; ``what`` is what the file should have
    been ("an index of model files"), for the error.

    Raises:
        ZhbertError: the file cannot be read, is not UTF-8, not JSON, or holds something else.
    """
    text = read_text(path, what)
    if not text.strip():
        raise ZhbertError(f"{os.fspath(path)}: empty")
    value = parse_json(text, path)
    if not isinstance(value, kind):
        wanted = "an object {...}" if kind is dict else "a list [...]"
        raise ZhbertError(f"{os.fspath(path)}: {f'not {what}: ' if what else ''}must hold {wanted}")
    return value


def read_toml(path: str | os.PathLike[str], what: str = "") -> dict[str, Any]:
    """What a TOML file holds; ``what`` it should have been ("a recipe"), for the error.

    Raises:
        ZhbertError: the file cannot be read, is not UTF-8, or not TOML.
    """
    try:
        return tomllib.loads(read_text(path, what))
    except (ValueError, RecursionError) as error:  # ValueError: a number of 5,000 digits, too
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ZhbertError(f"{os.fspath(path)}: not valid TOML: {why}") from None


def json_lines(path: str | os.PathLike[str]) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """The lines of a file of one JSON object a line: as they stand, and what each says.

    None: a line that is damaged, or torn because the writer was killed. For files of our own; a
    user's are read with ``parse_json``, which says what is wrong.
    """
    with Path(path).open("rb") as file:
        for line in file:
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                value = None
            yield line, value if isinstance(value, dict) else None


@contextmanager
def refused(
    path: object,
    what: str = "",
    *,
    doing: str = "reading",
    hint: str = "",
    kind: type[ZhbertError] = ZhbertError,
) -> Iterator[None]:
    """Turn all that a damaged or hostile file can make a reader raise into one line.

    ``what`` is what the file should have been ("a zip archive"). This is the one place for it:
    libraries raise ValueError, KeyError, RecursionError, struct.error, MemoryError and errors of
    their own over wrong bytes, which have nothing but Exception in common. Damage is raised as
    ``kind``, and ends in ``hint``. A full disk or a missing permission is not the file's fault, and
    is said as such: while ``doing`` what. ZHBERT_DEBUG=1 shows what was raised.
    """
    try:
        yield
    except ZhbertError:
        raise
    except Exception as error:
        if os.environ.get("ZHBERT_DEBUG"):
            raise
        if isinstance(error, OSError) and error.errno is not None:
            error.filename = error.filename or str(path)
            raise describe_os_error(error, doing) from None
        should = f"damaged, or not {what}" if what else "damaged"
        raise kind(f"{path}: {should} ({reason_of(error)}){hint}") from None


def reason_of(error: Exception) -> str:
    """What a library said of a damaged file, in a line of bounded length.

    >>> reason_of(EOFError()), reason_of(ValueError("no magic\\nnumber"))
    ('it ends too early', 'no magic')
    """
    lines = str(error).strip().splitlines()
    said = lines[0][:200] if lines else type(error).__name__
    return next((why for one, why in _WHY.items() if isinstance(error, one)), said)


_WHY: Mapping[type[Exception], str] = {
    MemoryError: "it asks for more memory than there is",
    RecursionError: "nested too deeply",
    EOFError: "it ends too early",
}


# What stands in for NAME until it is whole, and what NAME was before, where two names cannot be
# exchanged at once.
_UNFINISHED = re.compile(r"\.(.+)\.zhbert-[0-9a-f]{8}\.(tmp|old)", re.DOTALL)


def _beside(path: Path, suffix: str = "tmp") -> Path:
    return path.with_name(f".{path.name}.zhbert-{secrets.token_hex(4)}.{suffix}")


@contextmanager
def scratch(path: str | os.PathLike[str], *, folder: bool = False) -> Iterator[tuple[Path, Path]]:
    """Yield where ``path`` really lies and an empty temporary file or folder beside that.

    What is left of the temporary one in the end is removed. While this process lives it is held by
    a lock, by which others tell it from what a killed process has left (``sweep``).

    Raises ZhbertError for what goes wrong in writing; errors name ``path``, not what stands in for
    it.
    """
    target = Path(os.path.realpath(path))
    temporary = _beside(target)
    handle = None
    try:
        sweep(target.parent, target.name)
        handle = _create(temporary, folder)
        yield target, temporary
    except ZhbertError as error:
        error.args = tuple(str(part).replace(str(temporary), str(path)) for part in error.args)
        raise
    except OSError as error:
        writing = error.errno in _OF_WRITING
        named = str(error.filename or (temporary if writing else ""))
        if not (writing or named.startswith(str(temporary))):
            raise
        error.filename = named.replace(str(temporary), str(path))
        raise describe_os_error(error, "writing") from None
    finally:
        _delete(temporary)
        if handle is not None:
            os.close(handle)


def _create(path: Path, folder: bool) -> int:
    """Make a new file or folder, and lock it."""
    while True:
        if folder:
            path.mkdir()
        flags = os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
        handle = os.open(path, flags, 0o666)
        with suppress(OSError):  # a network disk without locks, where nobody sweeps
            fcntl.flock(handle, fcntl.LOCK_EX)
        if is_at(handle, path):
            return handle
        # Somebody has swept it between its making and its locking.
        os.close(handle)


def is_at(handle: int, path: str | os.PathLike[str]) -> bool:
    """Does the open file or folder still stand under that name?"""
    try:
        return os.path.samestat(os.fstat(handle), Path(path).stat())
    except FileNotFoundError:
        return False


def sweep(folder: str | os.PathLike[str], name: str | None = None) -> None:
    """Remove from ``folder`` what killed processes have left unfinished there, of ``name`` or all.

    What a process had only set aside is put back. What a living process holds stays, and so does
    everything on disks where that cannot be told.
    """
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in list(entries):
            found = _UNFINISHED.fullmatch(entry.name)
            if found is None or name not in (None, found[1]):
                continue
            path, original = Path(entry.path), Path(folder, found[1])
            kind = os.O_RDONLY if entry.is_dir(follow_symlinks=False) else os.O_RDWR
            with suppress(OSError), _open(path, kind | os.O_NOFOLLOW) as handle:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if found[2] == "old" and not os.path.lexists(original):
                    path.rename(original)
                else:
                    _delete(path)


@contextmanager
def _open(path: str | os.PathLike[str], flags: int) -> Iterator[int]:
    handle = os.open(path, flags)
    try:
        yield handle
    finally:
        os.close(handle)


def _delete(path: Path) -> None:
    """Remove a file or folder, if it is there and as far as it can be done."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def remove(path: Path) -> None:
    """Remove a file or a folder whole: whoever is killed meanwhile leaves no half under its name.

    Raises OSError where that cannot be done.
    """
    leaving = _beside(path)
    path.rename(leaving)
    _delete(leaving)


def make_folder(path: Path) -> None:
    """Make a folder and those on the way to it, where they are not there."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise describe_os_error(error, "making") from None


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it takes its place, flushed to disk.

    On any error ``path`` is left as it was. ``flush=False`` is for what can be made again: it is
    quicker, and after a power cut the file may be damaged.
    """
    with scratch(path) as (target, temporary):
        yield temporary
        if flush:
            _flush(temporary)
        temporary.replace(target)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it takes its place, flushed to disk.

    Where ``path`` is a folder with something in it, that is replaced, at once; with
    ``replace=False`` it is left as it is, and a ZhbertError says so.
    """
    target = Path(os.path.realpath(path))
    if Path.cwd().is_relative_to(target):
        raise ZhbertError(f"{os.fspath(path)}: the folder where you are; name a folder in it")
    make_folder(target.parent)
    with scratch(path, folder=True) as (target, temporary):
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _flush(file)
        try:
            temporary.rename(target)  # where nothing is, or an empty folder
        except OSError as error:
            if not replace or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            _replace_folder(target, temporary)


def _replace_folder(target: Path, temporary: Path) -> None:
    if _exchange(temporary, target):
        return
    # Whoever is killed between the two renames leaves the old one to be put back (sweep).
    old = _beside(target, "old")
    target.rename(old)
    temporary.rename(target)
    _delete(old)


def _exchange(one: Path, other: Path) -> bool:
    """Swap two names, at once, where system and disk can: Linux's renameat2, macOS' renamex_np."""
    library = ctypes.CDLL(None, use_errno=True)
    first, second = os.fsencode(one), os.fsencode(other)
    here, swap = -100, 2  # AT_FDCWD; RENAME_EXCHANGE, and RENAME_SWAP
    if hasattr(library, "renameat2"):
        return bool(library.renameat2(here, first, here, second, swap) == 0)
    if hasattr(library, "renamex_np"):
        return bool(library.renamex_np(first, second, swap) == 0)
    return False


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def to_json(value: Any, *, indent: int | None = None) -> str:
    """``value`` as JSON, Chinese readable; a number that is none (NaN, infinity) becomes null.

    JSON has no such numbers: what Python writes instead no other program reads.

    >>> to_json({"好": [1.5, float("nan")]})
    '{"好": [1.5, null]}'
    """
    try:
        return json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False)
    except ValueError:
        finite = _changed(value, _finite)
        return json.dumps(finite, ensure_ascii=False, indent=indent, allow_nan=False)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as `to_json` does, atomically; keys keep their order."""
    write_text(path, to_json(value, indent=2) + "\n")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, as hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
