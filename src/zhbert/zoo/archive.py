"""Safe unpacking of archives: no paths outside the folder, links or decompression bombs."""

from __future__ import annotations

import re
import stat
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

from zhbert.errors import ZhbertError
from zhbert.files import read_head, refused
from zhbert.signatures import archive_of, compression_of, looks_like_a_page, no_text
from zhbert.wording import name as shown
from zhbert.zoo.layout import JUNK_FOLDERS
from zhbert.zoo.progress import DownloadProgress

if TYPE_CHECKING:
    import tarfile
    import zipfile

SUFFIXES = (".zip", ".tgz", ".tar.gz", ".tar", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
_JUNK_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}
_BLOCK = 1 << 20
# tarfile reads long names and pax headers at once, and zipfile the list of all members. In archives
# of models these are far smaller than this limit.
_LONGEST_READ = 1 << 20
# A depth of nested folders and a name length, in bytes, that every file system allows.
_DEEPEST = 32
_LONGEST_NAME = 255


class BadArchiveError(ZhbertError):
    """The error of a damaged or refused archive: unpacking it again would fail again."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Limits that no archive of a model reaches; the largest published one unpacks to 2 GB."""

    members: int = 10_000
    # Unpacked bytes.
    size: int = 64 << 30
    # Unpacked bytes per packed byte: about 1 for weights, a thousand for zeros.
    ratio: int = 100
    # Unpacked bytes up to which the ratio is ignored: small files of zeros are harmless.
    harmless: int = 64 << 20


def kind_of(path: Path) -> str | None:
    """Return ``zip``, ``tar`` or a compression, from the first bytes; None if unsupported."""
    head = read_head(path)
    packed = compression_of(head)
    return archive_of(head) or (None if packed == "zstd" else packed)


def is_archive_name(name: str) -> bool:
    """Return True if a name has an archive's suffix.

    >>> is_archive_name("rbt3.TGZ"), is_archive_name("rbt3")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def unpack(
    archive: Path,
    folder: Path,
    *,
    limits: Limits | None = None,
    progress: DownloadProgress | None = None,
) -> list[Path]:
    """Unpack ``archive`` into the existing, empty ``folder``; return the written files.

    Use a temporary folder (``zhbert.files.atomic_folder``): files written before an error remain.

    Raises:
        BadArchiveError: not an archive, damaged or encrypted, or with members that lead out of the
            folder, are links or devices, or are too many or too large.
        ZhbertError: the disk is full, or permission is denied.
    """
    should, doing = "a whole archive", "unpacking"
    with refused(archive, should, doing=doing, hint="; fetch it again", kind=BadArchiveError):
        kind = kind_of(archive)
        if kind is None:
            raise BadArchiveError(f"{archive}: {_what_else(archive)}")
        unpacker = _Unpacker(archive, folder, limits or Limits(), progress or DownloadProgress())
        with archive.open("rb") as packed:
            _unpack_zip(unpacker, packed) if kind == "zip" else _unpack_tar(unpacker, packed, kind)
    return unpacker.written


def _what_else(path: Path) -> str:
    head = read_head(path)
    if looks_like_a_page(head):
        return "a web page, not an archive; open the address in a browser to see what it says"
    if not head:
        return "empty, not an archive; fetch it again"
    known = f"not an archive that is known here ({', '.join(SUFFIXES)})"
    return f"{known}; it is {what}" if (what := no_text(head)) else known


class _Unpacker:
    """A writer of checked members that counts unpacked bytes, as sizes in headers may be wrong."""

    def __init__(
        self, archive: Path, folder: Path, limits: Limits, progress: DownloadProgress
    ) -> None:
        self.archive = archive
        self.folder = folder
        self.limits = limits
        self.progress = progress
        self.packed = archive.stat().st_size
        self.unpacked = 0
        self.members = 0
        self.written: list[Path] = []

    def place(self, name: str) -> Path | None:
        """Return the path to write a member to; None for junk."""
        self.members += 1
        if self.members > self.limits.members:
            self.refuse(f"more than {self.limits.members:,} members")
        parts = member_parts(name)
        if parts is None:
            self.refuse(f"the member '{shown(name)}' leads out of the folder")
        if not parts or is_junk(parts):
            return None
        try:
            longest = max(len(part.encode()) for part in parts)
        except UnicodeEncodeError:
            self.refuse(f"the name of the member '{shown(name)}' is in no known encoding")
        if len(parts) > _DEEPEST or longest > _LONGEST_NAME:
            self.refuse(f"the name of the member '{shown(name)}' is too long")
        return self.folder.joinpath(*parts)

    def make_folder(self, path: Path) -> None:
        """Create a folder; refuse the archive if a file of that name exists."""
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            self.refuse(f"'{shown(path.name)}' is both a file and a folder in it")

    def write(self, path: Path, source: IO[bytes], total: int | None = None) -> None:
        """Copy one member's bytes to ``path``."""
        self.make_folder(path.parent)
        try:
            file = path.open("xb")
        except FileExistsError:
            self.refuse(f"the member '{shown(path.name)}' is in it twice")
        with file:
            while block := source.read(_BLOCK):
                self.count(len(block))
                file.write(block)
                self.progress.advance("unpacking", self.unpacked, total)
        self.written.append(path)

    def count(self, length: int) -> None:
        """Add to the number of unpacked bytes and check it."""
        self.unpacked += length
        self.check(self.unpacked)

    def check(self, unpacked: int) -> None:
        """Raise BadArchiveError if ``unpacked`` bytes exceed `Limits` for the archive's size."""
        if unpacked > self.limits.size:
            self.refuse(f"more than {self.limits.size:,} bytes when unpacked")
        if unpacked > max(self.limits.harmless, self.limits.ratio * self.packed):
            self.refuse(
                f"{self.packed:,} bytes that unpack to more than {unpacked:,}: a bomb, no model"
            )

    def refuse(self, why: str) -> NoReturn:
        """Raise a BadArchiveError with this reason."""
        raise BadArchiveError(f"{self.archive}: refused: {why}; nothing was unpacked")


def member_parts(name: str) -> tuple[str, ...] | None:
    """Return the parts of a member's relative path; None if it leads out of the folder.

    >>> member_parts("./bert/config.json"), member_parts("../x"), member_parts("C:/x")
    (('bert', 'config.json'), None, None)
    """
    if name.startswith("/") or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name):
        return None
    parts = PurePosixPath(name).parts
    return None if ".." in parts else parts


def is_junk(parts: tuple[str, ...]) -> bool:
    """Return True if a member is one of the files that file managers add to archives.

    >>> is_junk(("__MACOSX", "bert", "._config.json")), is_junk(("bert", "config.json"))
    (True, False)
    """
    name = parts[-1]
    return bool(JUNK_FOLDERS & set(parts)) or name in _JUNK_FILES or name.startswith("._")


# --- zip ----------------------------------------------------------------------------------------


def _unpack_zip(unpacker: _Unpacker, packed: IO[bytes]) -> None:
    import zipfile

    with zipfile.ZipFile(cast(IO[bytes], _Bounded(packed, unpacker))) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        for member in members:
            name = _zip_name(member)
            path = unpacker.place(name)
            mode = stat.S_IFMT(member.external_attr >> 16)
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                unpacker.refuse(f"the member '{shown(name)}' is a link or a device")
            if path is None:
                continue
            if member.is_dir():
                unpacker.make_folder(path)
                continue
            if member.flag_bits & 0x1:
                raise BadArchiveError(
                    f"{unpacker.archive}: encrypted; unpack it with its password and give the "
                    "folder"
                )
            try:
                with archive.open(member) as source:
                    unpacker.write(path, source, total)
            except NotImplementedError as error:
                raise BadArchiveError(
                    f"{unpacker.archive}: packed in a way that Python cannot read ({error}); "
                    "unpack it and give the folder"
                ) from None


def _zip_name(member: zipfile.ZipInfo) -> str:
    """Return the original name: zipfile decodes names without the UTF-8 flag as code page 437."""
    if member.flag_bits & 0x800 or member.filename.isascii():
        return member.filename
    return _decoded(member.filename.encode("cp437")) or member.filename


def _decoded(name: bytes) -> str | None:
    """Decode a name of unknown encoding: UTF-8, or GBK as on Chinese Windows."""
    for encoding in ("utf-8", "gb18030"):
        try:
            return name.decode(encoding)
        except UnicodeError:
            continue
    return None


# --- tar ----------------------------------------------------------------------------------------


def _unpack_tar(unpacker: _Unpacker, packed: IO[bytes], kind: str) -> None:
    import bz2
    import gzip
    import lzma
    import tarfile

    decompress: dict[str, Callable[[IO[bytes]], Any]] = {
        "tar": nullcontext,
        "gzip": lambda file: gzip.GzipFile(fileobj=file),
        "bzip2": bz2.BZ2File,
        "xz": lzma.LZMAFile,
    }
    with decompress[kind](packed) as file:
        bounded = _Bounded(file, unpacker)
        with tarfile.open(
            fileobj=cast(IO[bytes], bounded), mode="r:", encoding="utf-8", errors="surrogateescape"
        ) as archive:
            for member in archive:
                _unpack_tar_member(unpacker, archive, member)
            # tarfile treats a damaged header and the end of a truncated file as the end of the
            # archive. After the real end there are only zeros. Reading them to the last byte also
            # makes the decompressor verify its checksum.
            bounded.seek(archive.offset)
            zeros = 0
            while block := bounded.read(_BLOCK):
                zeros += len(block)
                if block.strip(b"\0"):
                    raise tarfile.ReadError("a header in the middle is broken")
            if zeros < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("its end is missing")


def _unpack_tar_member(
    unpacker: _Unpacker, archive: tarfile.TarFile, member: tarfile.TarInfo
) -> None:
    import tarfile

    name = member.name
    if not name.isascii():
        name = _decoded(name.encode(errors="surrogateescape")) or name
    path = unpacker.place(name)
    if not member.isreg() and not member.isdir():
        unpacker.refuse(f"the member '{shown(name)}' is a link or a device")
    if member.size < 0:
        raise tarfile.ReadError("a member of a size below 0")
    if path is None:
        return
    if member.isdir():
        unpacker.make_folder(path)
        return
    source = archive.extractfile(member)
    assert source is not None  # a regular file
    with source:
        unpacker.write(path, source)


class _Bounded:
    """A file or decompressed stream that raises when it exceeds `Limits`."""

    def __init__(self, file: IO[bytes], unpacker: _Unpacker) -> None:
        self.file = file
        self.unpacker = unpacker
        self.tell = file.tell
        self.seekable = file.seekable

    def read(self, size: int = -1) -> bytes:
        """Read at most ``size`` bytes; a negative number stands for all remaining ones."""
        data = self.file.read(min(size, _LONGEST_READ + 1) if size >= 0 else _LONGEST_READ + 1)
        if max(size, len(data)) > _LONGEST_READ:
            self.unpacker.refuse(f"a header of {max(size, len(data)):,} bytes")
        self.unpacker.check(self.file.tell())
        return data

    def seek(self, position: int, whence: int = 0) -> int:
        """Move to a position; a compressed stream is decompressed up to it."""
        if not whence:
            self.unpacker.check(position)
        return self.file.seek(position, whence)
