"""The files to read, and each file's text as UTF-8: decompressed and decoded."""

from __future__ import annotations

import bz2
import codecs
import lzma
import os
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error, reason_of
from zhbert.signatures import (
    COMPRESSIONS,
    HEAD,
    compression_of,
    how_to_convert,
    no_text,
    utf_16_by_its_han,
    utf_16_or_32,
)
from zhbert.wording import counted, listed, name

TEXT, JSON_LINES, PARQUET, CSV, TSV = "txt", "jsonl", "parquet", "csv", "tsv"
SUFFIXES = {
    ".txt": TEXT,
    ".text": TEXT,
    "": TEXT,
    ".jsonl": JSON_LINES,
    ".ndjson": JSON_LINES,
    ".json": JSON_LINES,
    ".parquet": PARQUET,
    ".csv": CSV,
    ".tsv": TSV,
}
"""The form of a file by its name's ending, unless its first bytes show another form."""
PACKED = dict(zip((".gz", ".bz2", ".xz", ".zst"), COMPRESSIONS, strict=True))
"""The compression by a name's ending."""

_MARK = codecs.BOM_UTF8
# The larger encoding is used, as in browsers: files declared as GBK often contain GB18030.
_READ_AS = {"gbk": "gb18030", "gb2312": "gb18030", "big5": "big5hkscs"}


@dataclass(frozen=True)
class Source:
    """One file to read, or stdin (``path`` is None)."""

    number: int
    name: str
    path: Path | None
    size: int

    @property
    def suffix(self) -> str:
        """The ending of the name that shows the file's form, without that of its compression."""
        return suffixes(self.name)[0] if self.path is not None else ""


class Sources(list[Source]):
    """The files to read, in order; ``left_out`` lists the skipped files in the given folders."""

    def __init__(self) -> None:
        super().__init__()
        self.left_out: list[str] = []

    def add(self, path: Path | None, name: str) -> None:
        """Add a file, or stdin, as the next source."""
        size = path.stat().st_size if path is not None and path.is_file() else 0
        self.append(Source(len(self), name, path, size))

    def describe_left_out(self) -> str:
        """Return one line about the files that were left out; empty if there are none.

        >>> sources = Sources()
        >>> sources.left_out = ["a.bin", "b.md"]
        >>> sources.describe_left_out()
        'left out of the folder: a.bin, b.md (2 files); what is named itself is read'
        """
        if not self.left_out:
            return ""
        return (
            f"left out of the folder: {listed(self.left_out)} "
            f"({counted(len(self.left_out), 'file')}); what is named itself is read"
        )


class DamagedError(Exception):
    """The error of a file that cannot be read, or not beyond some place."""


# ---------------------------------------------------------------- finding files


def find_sources(inputs: Iterable[str | Path], *, leave_out: Path | None = None) -> Sources:
    """Find the files of ``inputs``: files as given, folders recursively and sorted, "-" for stdin.

    In a folder, a file is read if its name's ending (before .gz, .bz2, .xz or .zst) is in SUFFIXES,
    or if it begins with Chinese text. Other files, hidden files and linked folders are
    ``left_out``. The folder ``leave_out`` is not searched.

    Raises:
        ZhbertError: a file is missing or cannot be read, or a folder has no text.
    """
    sources = Sources()
    own = leave_out.resolve() if leave_out is not None else None
    for given in inputs:
        path = Path(given)
        if str(given) == "-":
            sources.add(None, "stdin")
        elif path.is_dir():
            _add_folder(sources, path, own)
        elif path.exists():
            sources.add(path, str(path))
        else:
            raise ZhbertError(f"{path}: no such file or folder")
    for source in sources:
        if source.path is not None and not os.access(source.path, os.R_OK):
            raise ZhbertError(f"{source.path}: no permission to read it")
    if not sources:
        raise ZhbertError("no input: name files or folders, or - for stdin")
    return sources


def _add_folder(sources: Sources, folder: Path, own: Path | None) -> None:
    before = len(sources)
    for file, is_text in sorted(_scan(folder, own), key=lambda found: found[0].parts):
        if is_text:
            sources.add(file, str(file))
        else:
            sources.left_out.append(str(file.relative_to(folder)))
    if len(sources) == before:
        left_out = sources.describe_left_out()
        raise ZhbertError(
            f"{folder}: no text in this folder (.txt, .jsonl, .json, .csv, .tsv, .parquet, or "
            f"these with .gz, .bz2, .xz, .zst){'; ' if left_out else ''}{left_out}"
        )


def _scan(folder: Path, own: Path | None) -> Iterator[tuple[Path, bool]]:
    """Yield the files in a folder and its subfolders, with True for those to read."""
    for entry in folder.iterdir():
        hidden = entry.name.startswith(".")
        if entry.is_dir():
            if entry.resolve() == own:
                continue
            if hidden or entry.is_symlink():
                yield entry, False
            else:
                yield from _scan(entry, own)
        elif hidden or not entry.is_file():
            yield entry, False
        else:
            yield entry, suffixes(entry.name)[0] in SUFFIXES or _is_chinese(entry)


def _is_chinese(path: Path) -> bool:
    """Return True if at least half of a file's first characters, without blanks, are Han."""
    with path.open("rb") as raw, suppress(DamagedError):
        head = Stream(Source(0, path.name, path, 0), raw).head.decode(errors="ignore")
        characters = [character for character in head if not character.isspace()]
        han = sum("\u3400" <= character <= "\u9fff" for character in characters)
        return han * 2 >= len(characters) > 0
    return False


def suffixes(name: str) -> tuple[str, str]:
    """Return a file name's ending, and that of its compression.

    >>> suffixes("news.jsonl.gz"), suffixes("wiki_00")
    (('.jsonl', '.gz'), ('', ''))
    """
    path = Path(name)
    packed = path.suffix.lower() if path.suffix.lower() in PACKED else ""
    if packed:
        path = path.with_suffix("")
    return path.suffix.lower(), packed


# ---------------------------------------------------------------- one file's text


def check_encoding(encoding: str | None, where: str = "--encoding") -> str | None:
    """Return the name of the codec that reads files in an encoding; None: UTF-8.

    ``where`` is the option with the encoding, for the error.

    >>> check_encoding("GBK"), check_encoding("utf-8"), check_encoding(None)
    ('gb18030', None, None)

    Raises:
        ZhbertError: Python has no such text encoding.
    """
    if encoding is None:
        return None
    try:
        "".encode(encoding)
        found = codecs.lookup(encoding).name
    except (LookupError, ValueError, UnicodeError):
        raise ZhbertError(
            f"{where} {name(encoding)}: unknown; for example: gb18030, gbk, big5, utf-16, utf-8"
        ) from None
    return None if found in ("utf-8", "utf-8-sig") else _READ_AS.get(found, found)


def way_out(encoding: str | None) -> str:
    """Return advice about text that this encoding (None: UTF-8) does not decode."""
    if encoding is not None:
        return "another --encoding may be right"
    return (
        "--encoding gb18030 (gbk, big5, ...) reads what is that; or convert the file, for example: "
        "iconv -f GB18030 -t UTF-8"
    )


@contextmanager
def opened(source: Source) -> Iterator[BinaryIO]:
    """Open a file or stdin as bytes."""
    try:
        if source.path is None:
            if sys.stdin is None:
                raise ZhbertError("stdin is closed; name a file")
            yield sys.stdin.buffer
        else:
            with source.path.open("rb") as raw:
                yield raw
    except OSError as error:
        error.filename = source.name
        raise describe_os_error(error, "reading") from error


def is_parquet(source: Source, raw: BinaryIO) -> bool:
    """Return True if a file is parquet by its name or its first bytes.

    Raises:
        DamagedError: it is parquet from a pipe.
    """
    magic = raw.peek(4)[:4] if hasattr(raw, "peek") else b""
    if magic != b"PAR1":
        return SUFFIXES.get(source.suffix) == PARQUET
    if source.path is None:
        raise DamagedError("parquet cannot be read from a pipe: write it to a file and name that")
    return True


class Stream:
    r"""The text of one file, as UTF-8: decompressed, decoded, without a byte order mark.

    Bytes that cannot be decoded become bytes that are not UTF-8 either, so that the reader detects
    them. If lines end with carriage returns only, each becomes ``\n`` (``old_line_ends``).

    Args:
        source: the file.
        raw: its bytes.
        encoding: the result of ``check_encoding``.
        enough: number of bytes to inspect to recognise the encoding and form.

    Raises:
        DamagedError: the file is not text, or is damaged from here on.
    """

    def __init__(
        self, source: Source, raw: BinaryIO, encoding: str | None = None, enough: int = HEAD
    ) -> None:
        first = raw.peek(8)[:8] if hasattr(raw, "peek") else b""
        promised = suffixes(source.name)[1] if source.path is not None else ""
        packed = compression_of(first)
        if promised and first and packed != PACKED[promised]:
            raise DamagedError(f"named {promised}, but its content is not")
        self._file: Any = raw if packed is None else _Decompressed(raw, _DECOMPRESSORS[packed])
        self._damage: DamagedError | None = None
        self._decoder: codecs.IncrementalDecoder | None = None
        self.old_line_ends = self._after_return = False
        head = self._first(enough)
        self.empty = not head and self._damage is None
        self.encoding = encoding = encoding_of(head, encoding)
        if encoding is not None:
            self._decoder = codecs.getincrementaldecoder(encoding)(_BROKEN)
            head = self._decoded(head)
        marked, head = len(head), head.removeprefix(_MARK)
        self.old_line_ends = b"\r" in head and b"\n" not in head
        self.head = self._with_line_feeds(head) if self.old_line_ends else head
        """the beginning, which ``read`` returns first"""
        self._ready = self.head
        unchanged = self._file is raw and self._decoder is None and not self.old_line_ends
        self.begin = marked - len(head) if unchanged else None
        """where in the file the text begins, if the file's bytes are the text's; else None"""

    def read(self, size: int) -> bytes:
        """Read about ``size`` bytes, at least one, as soon as they arrive; none at the end."""
        if self._ready:
            ready, self._ready = self._ready, b""
            return ready
        while True:
            raw = self._pull(size)
            data = raw if self._decoder is None else self._decoded(raw)
            if self.old_line_ends:
                data = self._with_line_feeds(data)
            if data or not raw:
                return data

    def _first(self, enough: int) -> bytes:
        head = b""
        # The data before the damage is still read.
        with suppress(DamagedError):
            while len(head) < enough and (part := self._pull(256 << 10)):
                head += part
        return head

    def _pull(self, size: int) -> bytes:
        if self._damage is not None:
            raise self._damage
        try:
            # read1, not read: read would lose the data before the damaged place of a file, and wait
            # for more data from a pipe than is needed.
            data: bytes = self._file.read1(size)
            return data
        except DamagedError as error:
            self._damage = error
        except Exception as error:
            # zlib.error, LZMAError and ZstdError have no common base class but Exception.
            if isinstance(error, OSError) and error.errno is not None:
                raise
            self._damage = DamagedError(f"damaged: {reason_of(error)}")
        raise self._damage

    def _decoded(self, data: bytes) -> bytes:
        assert self._decoder is not None
        text = self._decoder.decode(data, final=not data)
        return text.encode("utf-8", "surrogateescape")

    def _with_line_feeds(self, data: bytes) -> bytes:
        if self._after_return:
            data = data.removeprefix(b"\n")
        self._after_return = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")


def encoding_of(head: bytes, given: str | None) -> str | None:
    """Return the codec for a file that begins with ``head``; None: UTF-8.

    ``given`` is the requested codec, from ``check_encoding``.

    Raises:
        DamagedError: it is not text, or its encoding has to be given.
    """
    if (what := no_text(head)) is not None:
        raise DamagedError(what)
    if head.startswith(_MARK):
        return None
    marked = head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, codecs.BOM_UTF32_BE))
    wide = utf_16_or_32(head)
    if given is not None:
        # A byte order mark takes precedence over the option; without one, UTF-16's byte order is
        # inferred from the bytes.
        return wide if wide is not None and (marked or given == "utf-16") else given
    if marked or utf_16_by_its_han(head) or head.count(0) * 5 > len(head):
        if wide is None:
            raise DamagedError("no text: many of its bytes are NUL")
        raise DamagedError(
            f"{wide}, not UTF-8: --encoding {wide.lower()} reads it; or {how_to_convert(head)}"
        )
    return None


_BROKEN = "zhbert.broken"
# Undecodable bytes become this surrogate, and then the byte FF, which never occurs in UTF-8.
codecs.register_error(_BROKEN, lambda error: ("\udcff", error.end))  # type: ignore[attr-defined]


class _Decompressed:
    """The content of a compressed file, which may be a concatenation of several.

    Unlike the libraries' readers, it detects truncated files in all formats and bounds the memory
    that a file can require.
    """

    def __init__(self, raw: BinaryIO, make: Callable[[], Any]) -> None:
        self._raw, self._make = raw, make
        self._frame: Any = None
        self._rest = b""
        self._ready = b""
        self._at = 0

    def read1(self, size: int) -> bytes:
        while self._at == len(self._ready):
            # Small steps, since 4 KB of zstandard can unpack to 128 MB.
            data = self._rest or self._raw.read(4096)
            self._rest = b""
            if not data:
                if self._frame is not None:
                    raise DamagedError("cut short: the compressed data ends too early")
                return b""
            if self._frame is None:
                # Tape archives and xz pad with NULs.
                data = data.lstrip(b"\0")
                if not data:
                    continue
                self._frame = self._make()
            self._ready, self._at = self._frame.decompress(data), 0
            if self._frame.eof:
                self._rest = self._frame.unused_data
                self._frame = None
        part = self._ready[self._at : self._at + size]
        self._at += len(part)
        return part


def _zstandard() -> Any:
    import zstandard

    # Long-distance files (zstd --long) require windows up to 2 GB; 128 MB is zstd's default limit.
    return zstandard.ZstdDecompressor(max_window_size=1 << 27).decompressobj()


_DECOMPRESSORS: dict[str, Callable[[], Any]] = {
    "gzip": lambda: zlib.decompressobj(wbits=31),
    "bzip2": bz2.BZ2Decompressor,
    # xz -9 needs 65 MB.
    "xz": lambda: lzma.LZMADecompressor(memlimit=1 << 28),
    "zstd": _zstandard,
}
