"""Atomic writes, checksums, and one line for what is wrong with a file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from zhbert.errors import ZhbertError
from zhbert.signatures import HEAD, how_to_convert, no_text

_Json = TypeVar("_Json", dict[str, Any], list[Any])


def describe_os_error(error: OSError, doing: str) -> ZhbertError:
    """Turn an OSError into one line that says what to do about it.

    >>> str(describe_os_error(OSError(28, "No space left on device", "x.bin"), "writing"))
    'writing x.bin: the disk is full; free some space and run the same command again'
    >>> str(describe_os_error(OSError(28, "No space left on device"), "writing the run:"))
    'writing the run: the disk is full; free some space and run the same command again'
    """
    where = f"{doing} {error.filename}" if error.filename else doing.removesuffix(":")
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return ZhbertError(
            f"{where}: the disk is full; free some space and run the same command again"
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return ZhbertError(
            f"{where}: no permission; choose another folder or change its permissions"
        )
    if error.errno == errno.ENOENT:
        return ZhbertError(f"{where}: no such file or folder")
    return ZhbertError(f"{where}: {error.strerror or error}")


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
        return _without_halves(value) if _HALF_ESCAPED.search(text) else value
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", str(error))
        if isinstance(error, RecursionError):
            why = "nested too deeply"
        number = line or getattr(error, "lineno", 1)
        raise ZhbertError(f"{path}:{number}: not JSON ({why}){hint}") from None


def _without_halves(value: Any) -> Any:
    if isinstance(value, str):
        return HALF_SURROGATE.sub("\ufffd", value)
    if isinstance(value, list):
        return [_without_halves(one) for one in value]
    if isinstance(value, dict):
        return {_without_halves(key): _without_halves(one) for key, one in value.items()}
    return value


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
        should = f"not {what}, but " if what else ""
        raise ZhbertError(f"{os.fspath(path)}: {should}{found}")
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
        lines = str(error).strip().splitlines()
        said = lines[0][:200] if lines else type(error).__name__
        why = next((why for one, why in _WHY.items() if isinstance(error, one)), said)
        should = f"damaged, or not {what}" if what else "damaged"
        raise kind(f"{path}: {should} ({why}){hint}") from None


_WHY: Mapping[type[Exception], str] = {
    MemoryError: "it asks for more memory than there is",
    RecursionError: "nested too deeply",
    EOFError: "it ends too early",
}


@contextmanager
def atomic_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; on success it is flushed to disk and takes its place.

    On any error the temporary file is removed and ``path`` is left as it was.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink()
        raise


@contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder beside ``path``; on success it takes the place of a former one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                with file.open("rb+") as handle:
                    os.fsync(handle.fileno())
        if path.exists():
            # rename cannot replace a folder that is not empty: the old one steps aside first.
            old = path.with_name(f".{path.name}.{os.getpid()}.old")
            shutil.rmtree(old, ignore_errors=True)
            path.rename(old)
            temporary.rename(path)
            shutil.rmtree(old, ignore_errors=True)
        else:
            temporary.rename(path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


@contextmanager
def locked(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Make ``folder``, if need be, and hold it; a process that is killed lets it go, too.

    Raises ZhbertError where another process holds it.
    """
    import fcntl

    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        handle = os.open(folder, os.O_RDONLY)
    except OSError as error:
        raise describe_os_error(error, "making") from None
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ZhbertError(
                f"{os.fspath(folder)}: another process is at work there; wait for it, or choose "
                "another --out"
            ) from None
        except OSError:  # a network disk without locks
            pass
        yield
    finally:
        os.close(handle)


def empty_folder(folder: str | os.PathLike[str]) -> None:
    """Remove what is in ``folder``, but not the folder, which may be held."""
    for path in Path(folder).iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()


def check_not_inside(folder: str | os.PathLike[str], needed: Mapping[str, Path]) -> None:
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
                "--out"
            )


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write ``text`` as UTF-8 to ``path``, atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write ``value`` as JSON, atomically; keys keep their order, Chinese stays readable."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def sha256_of(path: str | os.PathLike[str]) -> str:
    """The SHA-256 of a file's bytes, as hex digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
