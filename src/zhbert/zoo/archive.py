"""Unpack an archive that a stranger made: nothing outside the folder, no links, no bombs."""

from __future__ import annotations

import re
import stat
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Any, NoReturn, cast

from zhbert.errors import ZhbertError
from zhbert.files import describe_os_error
from zhbert.signatures import looks_like_a_page
from zhbert.zoo.progress import Progress

if TYPE_CHECKING:
    import tarfile
    import zipfile

# What the first bytes of a file say; a tar without compression names itself at byte 257.
_MAGIC = {
    b"PK\x03\x04": "zip",
    b"PK\x05\x06": "zip",
    b"\x1f\x8b": "gz",
    b"BZh": "bz2",
    b"\xfd7zXZ\x00": "xz",
}
SUFFIXES = (".zip", ".tgz", ".tar.gz", ".tar", ".tar.xz", ".txz", ".tar.bz2", ".tbz2")
_JUNK_FOLDERS = {"__MACOSX"}
_JUNK_FILES = {".DS_Store", "Thumbs.db", "desktop.ini"}
_BLOCK = 1 << 20
# tarfile reads a long name or a pax header whole: an honest one is far smaller than this.
_LONGEST_READ = 16 << 20


class BadArchiveError(ZhbertError):
    """The archive itself is at fault: unpacking it again would end the same way."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What an archive of one model never reaches; the largest published one unpacks to 2 GB."""

    members: int = 10_000
    # Bytes, unpacked.
    size: int = 64 << 30
    # Unpacked bytes for one packed byte. Weights hardly shrink; zeros shrink a thousandfold.
    ratio: int = 100
    # Below this many bytes the ratio does not matter: small files of zeros are honest.
    harmless: int = 64 << 20


def kind_of(path: Path) -> str | None:
    """``zip``, ``tar``, ``gz``, ``bz2`` or ``xz``, by the first bytes; None for anything else."""
    with path.open("rb") as file:
        start = file.read(512)
    if start[257:262] == b"ustar":
        return "tar"
    return next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)


def is_archive_name(name: str) -> bool:
    """Whether a name ends as archives do.

    >>> is_archive_name("rbt3.TGZ"), is_archive_name("rbt3")
    (True, False)
    """
    return name.lower().endswith(SUFFIXES)


def unpack(
    archive: Path, folder: Path, *, limits: Limits | None = None, progress: Progress | None = None
) -> list[Path]:
    """Unpack ``archive`` into the existing, empty ``folder``; return the files written.

    Whoever calls gives a temporary folder (``atomic_folder``): an archive that turns out to be
    hostile or damaged half way is to leave nothing behind.

    Raises:
        BadArchiveError: not an archive, a damaged or encrypted one, or one with members that lead
            out of the folder, are links or devices, or are too many or too large.
        ZhbertError: the disk is full, or no permission.
    """
    try:
        kind = kind_of(archive)
        if kind is None:
            raise BadArchiveError(f"{archive}: {_what_else(archive)}")
        writer = _Writer(archive, folder, limits or Limits(), progress or Progress())
        with _damage_named(archive):
            _unpack_zip(writer) if kind == "zip" else _unpack_tar(writer, kind)
    except OSError as error:
        raise describe_os_error(error, f"unpacking {archive}") from None
    return writer.written


def _what_else(path: Path) -> str:
    with path.open("rb") as file:
        start = file.read(512)
    if looks_like_a_page(start):
        return "a web page, not an archive; open the address in a browser to see what it says"
    if not start:
        return "empty, not an archive; fetch it again"
    return (
        f"not an archive that is known here ({', '.join(SUFFIXES)}); unpack it and give its folder"
    )


@contextmanager
def _damage_named(archive: Path) -> Iterator[None]:
    """Everything that zipfile, tarfile and the decompressors raise over bytes that are wrong."""
    import lzma
    import tarfile
    import zipfile

    damage = (zipfile.BadZipFile, tarfile.TarError, lzma.LZMAError, zlib.error, EOFError)
    try:
        yield
    except (*damage, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk's trouble; without a number it is gzip's or bz2's
        what = str(error).split("\n")[0] or "it ends too early"
        raise BadArchiveError(
            f"{archive}: a damaged or truncated archive ({what}); fetch it again"
        ) from None


class _Writer:
    """Checks each member and writes it, counting the bytes that really come out."""

    def __init__(self, archive: Path, folder: Path, limits: Limits, progress: Progress) -> None:
        self.archive = archive
        self.folder = folder
        self.limits = limits
        self.progress = progress
        self.packed = archive.stat().st_size
        self.unpacked = 0
        self.members = 0
        self.written: list[Path] = []

    def place(self, name: str) -> Path | None:
        """Where a member goes; None for junk."""
        self.members += 1
        if self.members > self.limits.members:
            self.refuse(f"more than {self.limits.members:,} members")
        parts = member_parts(name)
        if parts is None:
            self.refuse(f"the member '{_shown(name)}' leads out of the folder")
        if not parts or is_junk(parts):
            return None
        return self.folder.joinpath(*parts)

    def make_folder(self, path: Path) -> None:
        """Make a folder that the archive names."""
        try:
            path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError):
            self.refuse(f"'{_shown(path.name)}' is both a file and a folder in it")

    def write(self, path: Path, source: IO[bytes], total: int | None = None) -> None:
        """Copy one member's bytes to ``path``."""
        self.make_folder(path.parent)
        try:
            file = path.open("xb")
        except FileExistsError:
            self.refuse(f"the member '{_shown(path.name)}' is in it twice")
        with file:
            while block := source.read(_BLOCK):
                self.count(len(block))
                file.write(block)
                self.progress.advance("unpacking", self.unpacked, total)
        self.written.append(path)

    def count(self, length: int) -> None:
        """Note that so many bytes came out."""
        self.unpacked += length
        self.check(self.unpacked)

    def check(self, unpacked: int) -> None:
        """Refuse what unpacks to more than an honest archive of this size."""
        if unpacked > self.limits.size:
            self.refuse(f"more than {self.limits.size:,} bytes when unpacked")
        if unpacked > max(self.limits.harmless, self.limits.ratio * self.packed):
            self.refuse(
                f"{self.packed:,} bytes that unpack to more than {unpacked:,}: a bomb, no model"
            )

    def refuse(self, why: str) -> NoReturn:
        """Stop here."""
        raise BadArchiveError(f"{self.archive}: refused: {why}; nothing was unpacked")


def _shown(name: str) -> str:
    """A stranger's name without control characters, short enough for one line."""
    clean = "".join(c if c.isprintable() else "?" for c in name)
    return clean if len(clean) <= 60 else clean[:57] + "..."


def member_parts(name: str) -> tuple[str, ...] | None:
    """A member's path below the folder, part by part; None where it would lead elsewhere.

    >>> member_parts("./bert/config.json"), member_parts("../x"), member_parts("C:/x")
    (('bert', 'config.json'), None, None)
    """
    if name.startswith("/") or "\\" in name or "\0" in name or re.match(r"[A-Za-z]:", name):
        return None
    parts = PurePosixPath(name).parts
    return None if ".." in parts else parts


def is_junk(parts: tuple[str, ...]) -> bool:
    """What file managers leave in archives; no model needs it.

    >>> is_junk(("__MACOSX", "bert", "._config.json")), is_junk(("bert", "config.json"))
    (True, False)
    """
    name = parts[-1]
    return bool(_JUNK_FOLDERS & set(parts)) or name in _JUNK_FILES or name.startswith("._")


# --- zip ----------------------------------------------------------------------------------------


def _unpack_zip(writer: _Writer) -> None:
    import zipfile

    with zipfile.ZipFile(writer.archive) as archive:
        members = archive.infolist()
        total = sum(member.file_size for member in members)
        for member in members:
            name = _zip_name(member)
            path = writer.place(name)
            mode = stat.S_IFMT(member.external_attr >> 16)
            if mode not in (0, stat.S_IFREG, stat.S_IFDIR):
                writer.refuse(f"the member '{_shown(name)}' is a link or a device")
            if path is None:
                continue
            if member.is_dir():
                writer.make_folder(path)
                continue
            if member.flag_bits & 0x1:
                raise BadArchiveError(
                    f"{writer.archive}: encrypted; unpack it with its password and give the folder"
                )
            try:
                with archive.open(member) as source:
                    writer.write(path, source, total)
            except NotImplementedError as error:
                raise BadArchiveError(
                    f"{writer.archive}: packed in a way that Python cannot read ({error}); unpack "
                    "it and give the folder"
                ) from None


def _zip_name(member: zipfile.ZipInfo) -> str:
    """The name as it was meant: without its UTF-8 flag, a name is UTF-8 or Chinese Windows' GBK."""
    if member.flag_bits & 0x800 or member.filename.isascii():
        return member.filename
    for encoding in ("utf-8", "gb18030"):
        try:
            return member.filename.encode("cp437").decode(encoding)
        except UnicodeError:
            continue
    return member.filename


# --- tar ----------------------------------------------------------------------------------------


def _unpack_tar(writer: _Writer, kind: str) -> None:
    import bz2
    import gzip
    import lzma
    import tarfile

    decompress: dict[str, Callable[[IO[bytes]], Any]] = {
        "tar": nullcontext,
        "gz": lambda file: gzip.GzipFile(fileobj=file),
        "bz2": bz2.BZ2File,
        "xz": lzma.LZMAFile,
    }
    with writer.archive.open("rb") as packed, decompress[kind](packed) as file:
        bounded = _Bounded(file, writer)
        with tarfile.open(fileobj=cast(IO[bytes], bounded), mode="r:") as archive:
            for member in archive:
                _unpack_tar_member(writer, archive, member)
            # tarfile takes a damaged header, or the end of a truncated file, for the archive's end.
            # The true end is zeros, up to the last byte. Reading to there also makes the
            # decompressor compare its checksum.
            bounded.seek(archive.offset)
            zeros = 0
            while block := bounded.read(_BLOCK):
                zeros += len(block)
                if block.strip(b"\0"):
                    raise tarfile.ReadError("a header in the middle is broken")
            if zeros < tarfile.BLOCKSIZE:
                raise tarfile.ReadError("its end is missing")


def _unpack_tar_member(writer: _Writer, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
    path = writer.place(member.name)
    if not member.isreg() and not member.isdir():
        writer.refuse(f"the member '{_shown(member.name)}' is a link or a device")
    if path is None:
        return
    if member.isdir():
        writer.make_folder(path)
        return
    source = archive.extractfile(member)
    assert source is not None  # a regular file
    with source:
        writer.write(path, source)


class _Bounded:
    """A decompressed stream that ends in an error where a bomb would go on."""

    def __init__(self, file: IO[bytes], writer: _Writer) -> None:
        self.file = file
        self.writer = writer

    def read(self, size: int) -> bytes:
        """At most ``size`` bytes."""
        if size > _LONGEST_READ:
            self.writer.refuse(f"a header of {size:,} bytes")
        data = self.file.read(size)
        self.writer.check(self.file.tell())
        return data

    def seek(self, position: int) -> int:
        """Go to a byte; everything before it is decompressed on the way."""
        self.writer.check(position)
        return self.file.seek(position)

    def tell(self) -> int:
        """The byte that is read next."""
        return self.file.tell()
