"""Atomic writes, checksums, and one line for what is wrong with a file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError


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


def parse_json(text: str, path: object, line: int | None = None, hint: str = "") -> Any:
    """What a file's text, or one line of it, says in JSON; an error names file and line.

    >>> parse_json('{"a": 1}', "x.jsonl", 7)
    {'a': 1}
    >>> parse_json("{", "x.jsonl", 7, "; write one object a line")
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: x.jsonl:7: not JSON (Expecting property name enclosed in double \
quotes); write one object a line
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = getattr(error, "msg", str(error))
        if isinstance(error, RecursionError):
            why = "nested too deeply"
        number = line or getattr(error, "lineno", 1)
        raise ZhbertError(f"{path}:{number}: not JSON ({why}){hint}") from None


def how_to_convert(raw: bytes) -> str:
    """What to do with a file that begins so and is not UTF-8.

    >>> how_to_convert("好".encode("utf-16"))
    'convert the file, for example: iconv -f UTF-16 -t UTF-8'
    """
    theirs = "UTF-16" if raw[:2] in (b"\xff\xfe", b"\xfe\xff") else "GB18030"
    return f"convert the file, for example: iconv -f {theirs} -t UTF-8"


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
