"""Reading and writing files: atomic writes, checksums, and one-line errors for damaged files."""

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

# errno -> advice. The first three can only come from writing, so they are reported as write errors
# even where the system does not say which file was being written.
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
    """Replace the advice "run the same command again" in error messages by ``again``.

    If calls are nested, the outermost one wins, because it knows the command that the user typed.
    """
    token = _again.set(again if _again.get() == _AGAIN else _again.get())
    try:
        yield
    finally:
        _again.reset(token)


def describe_os_error(error: OSError, doing: str) -> ZhbertError:
    """Turn an OSError into a ZhbertError: one line that names the file and says what to do.

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
"""An unpaired surrogate. JSON can express one (``\\ud800``), but UTF-8 cannot encode it."""
# The JSON escape of a surrogate, paired or not.
_HALF_ESCAPED = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(text: str, path: object, line: int | None = None, hint: str = "") -> Any:
    """Parse the text of a JSON file, or of one line of it.

    An unpaired surrogate becomes U+FFFD, so that the result can be written as UTF-8.

    Args:
        text: the JSON.
        path: the file's name, for the error.
        line: the line's number in the file, if ``text`` is a single line.
        hint: appended to the error message.

    Raises:
        ZhbertError: ``text`` is not JSON, or is nested too deeply.

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
    """Apply ``change`` to every scalar and every key of a JSON value."""
    if isinstance(value, list | tuple):
        return [_changed(one, change) for one in value]
    if isinstance(value, dict):
        return {change(key): _changed(one, change) for key, one in value.items()}
    return change(value)


def read_head(path: str | os.PathLike[str]) -> bytes:
    """Return the first ``HEAD`` bytes of a file, from which `zhbert.signatures` tells its type."""
    try:
        # Non-blocking, because reading from a pipe without a writer would wait for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
            return file.read(HEAD) or b""
    except OSError as error:
        raise describe_os_error(error, "reading") from None


def read_text(path: str | os.PathLike[str], what: str = "") -> str:
    """Read a UTF-8 text file. A byte order mark is removed; line ends stay as they are.

    ``what`` says what the file should contain ("a user dictionary"); the error quotes it.

    Raises:
        ZhbertError: the file cannot be read, is not UTF-8, or is not text (a Git LFS pointer, a
            web page, an archive). The message says which, and what to do.
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
    """Read a JSON file whose top-level value must be of type ``kind`` (``dict`` or ``list``).

    A byte order mark is ignored. ``what`` says what the file should contain ("an index of model
    files"); the error quotes it.

    Raises:
        ZhbertError: the file cannot be read, is empty, is not UTF-8 or not JSON, or its top-level
            value has another type.
    """
    text = read_text(path, what)
    if not text.strip():
        raise ZhbertError(f"{os.fspath(path)}: empty")
    value = parse_json(text, path)
    if not isinstance(value, kind):
        wanted = "an object {...}" if kind is dict else "a list [...]"
        raise ZhbertError(f"{os.fspath(path)}: {f'not {what}: ' if what else ''}must hold {wanted}")
    return value


def read_json_if_sound(
    path: str | os.PathLike[str], remark: Callable[[str], object] = lambda line: None
) -> dict[str, Any]:
    """The object in a JSON file that is only a help: {} where it is missing or damaged.

    ``remark`` takes the line that says so.
    """
    try:
        return read_json(path, dict)
    except ZhbertError as error:
        remark(str(error))
        return {}


def read_toml(path: str | os.PathLike[str], what: str = "") -> dict[str, Any]:
    """Read a TOML file. ``what`` says what it should contain ("a recipe"), for the error.

    Raises:
        ZhbertError: the file cannot be read, is not UTF-8, or not TOML.
    """
    try:
        return tomllib.loads(read_text(path, what))
    except (ValueError, RecursionError) as error:  # int() raises ValueError for 5,000 digits
        why = "nested too deeply" if isinstance(error, RecursionError) else error
        raise ZhbertError(f"{os.fspath(path)}: not valid TOML: {why}") from None


def json_lines(path: str | os.PathLike[str]) -> Iterator[tuple[bytes, dict[str, Any] | None]]:
    """Yield every line of a JSON-lines file that zhbert wrote: its bytes and the parsed object.

    The object is None if the line is damaged, for example cut short because the process that wrote
    it was killed. Use ``parse_json`` for users' files: it reports what is wrong.
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
    """Turn whatever a reader raises on a damaged or hostile file into a one-line error.

    Libraries raise ValueError, KeyError, RecursionError, struct.error, MemoryError and exceptions
    of their own on wrong bytes; their only common base is Exception. Set ZHBERT_DEBUG=1 to see the
    original exception.

    Args:
        path: the file's name, for the message.
        what: what the file should have been ("a zip archive").
        doing: what was being done, for errors of the system such as a missing permission; those
            are not reported as damage.
        hint: appended to the message about damage.
        kind: the class of the error about damage.
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
    """Return the first line of an exception's message, cut to 200 characters.

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


# A file or folder NAME is written under a temporary name (.tmp) and then renamed. Where the system
# cannot exchange two names in one step, the former NAME is set aside first (.old).
_UNFINISHED = re.compile(r"\.(.+)\.zhbert-[0-9a-f]{8}\.(tmp|old)", re.DOTALL)


def _beside(path: Path, suffix: str = "tmp") -> Path:
    return path.with_name(f".{path.name}.zhbert-{secrets.token_hex(4)}.{suffix}")


@contextmanager
def scratch(path: str | os.PathLike[str], *, folder: bool = False) -> Iterator[tuple[Path, Path]]:
    """Yield the resolved ``path`` and an empty temporary file or folder beside it.

    The temporary file is removed at the end unless it has been renamed. It is locked while this
    process lives, so that ``sweep`` can tell it from one that a killed process left behind.

    Raises:
        ZhbertError: writing fails. The message names ``path``, not the temporary file.
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
    """Create a file or folder and lock it; return the open handle."""
    while True:
        if folder:
            path.mkdir()
        flags = os.O_RDONLY if folder else os.O_RDWR | os.O_CREAT | os.O_EXCL
        handle = os.open(path, flags, 0o666)
        with suppress(OSError):  # a network disk without locks; sweep leaves those alone
            fcntl.flock(handle, fcntl.LOCK_EX)
        if is_at(handle, path):
            return handle
        # Another process has swept it away between its creation and its locking.
        os.close(handle)


def is_at(handle: int, path: str | os.PathLike[str]) -> bool:
    """Return whether ``path`` still names the open file or folder ``handle``."""
    try:
        return os.path.samestat(os.fstat(handle), Path(path).stat())
    except FileNotFoundError:
        return False


def sweep(folder: str | os.PathLike[str], name: str | None = None) -> None:
    """Remove the temporary files that killed processes have left in ``folder``.

    With ``name``, only those of that file. What had been set aside to be replaced is put back.
    Files that a living process has locked stay, and so does everything on disks without locks.
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
    """Remove a file or folder, ignoring errors."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with suppress(OSError):
            path.unlink()


def remove(path: Path) -> None:
    """Remove a file or a folder; a kill meanwhile never leaves half a folder under its name.

    Raises OSError if it cannot be renamed.
    """
    leaving = _beside(path)
    path.rename(leaving)
    _delete(leaving)


def make_folder(path: Path) -> None:
    """Create a folder and its parents, if need be; raise ZhbertError if that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise describe_os_error(error, "making") from None


@contextmanager
def atomic_file(path: str | os.PathLike[str], *, flush: bool = True) -> Iterator[Path]:
    """Yield a temporary path; on success it is flushed to disk and renamed to ``path``.

    On any error ``path`` is left as it was. ``flush=False`` is quicker, but the file may be damaged
    after a power cut: use it for what can be made again.
    """
    with scratch(path) as (target, temporary):
        yield temporary
        if flush:
            _flush(temporary)
        temporary.replace(target)


@contextmanager
def atomic_folder(path: str | os.PathLike[str], *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary folder; on success it is flushed to disk and renamed to ``path``.

    A folder that exists at ``path`` and is not empty is replaced in one step. With
    ``replace=False`` it is kept and a ZhbertError is raised.
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
            temporary.rename(target)  # works if target is missing or an empty folder
        except OSError as error:
            if not replace or error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            _replace_folder(target, temporary)


def _replace_folder(target: Path, temporary: Path) -> None:
    if _exchange(temporary, target):
        return
    # If the process is killed between the two renames, sweep() puts the old folder back.
    old = _beside(target, "old")
    target.rename(old)
    temporary.rename(target)
    _delete(old)


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two names atomically (Linux: renameat2, macOS: renamex_np); False: not possible."""
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
    """Return ``value`` as JSON, with Chinese unescaped. NaN and infinity become null, paths texts.

    Python would write them as ``NaN`` and ``Infinity``, which other programs refuse.

    >>> to_json({"好": [1.5, float("nan")]})
    '{"好": [1.5, null]}'
    """
    try:
        return _dumps(value, indent)
    except ValueError:
        return _dumps(_changed(value, _finite), indent)


def _dumps(value: Any, indent: int | None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent, allow_nan=False, default=os.fspath)


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as `to_json` does, atomically; keys keep their order."""
    write_text(path, to_json(value, indent=2) + "\n")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, as hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
