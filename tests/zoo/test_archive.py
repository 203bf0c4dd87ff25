"""Unpacking what strangers packed: every layout comes out, nothing else does."""

from __future__ import annotations

import bz2
import errno
import gzip
import io
import lzma
import os
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.zoo.models import KINDS, LAYOUTS, contents, make_archive

from zhbert.errors import ZhbertError
from zhbert.zoo.archive import BadArchiveError, Limits, is_junk, kind_of, member_parts, unpack
from zhbert.zoo.progress import DownloadProgress

Members = list[tuple[str, bytes]]


def make_zip(path: Path, members: Members, **options: int) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for name, content in members:
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)
    return path


def make_tar(path: Path, members: Members, mode: str = "w") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in members:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


MAKERS: dict[str, Callable[[Path, Members], Path]] = {"zip": make_zip, "tar": make_tar}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where archives are unpacked: an empty folder in an empty folder."""
    folder = tmp_path / "place" / "inside"
    folder.mkdir(parents=True)
    return folder


def refused(archive: Path, place: Path, **options: int) -> str:
    """The line that unpacking ends in; nothing got out of the folder."""
    with pytest.raises(BadArchiveError) as caught:
        unpack(archive, place, limits=Limits(**options))
    message = str(caught.value)
    assert message.startswith(f"{archive}: ")
    assert "\n" not in message
    assert [p.name for p in place.parent.iterdir()] == ["inside"]
    return message


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_comes_out_bit_for_bit(
    kind: str, layout: str, tmp_path: Path, place: Path
) -> None:
    archive = make_archive(tmp_path, kind, layout, nest="chinese_L-2_H-128_A-2")
    written = unpack(archive, place)
    inside = contents(place)
    assert set(inside) == {f"chinese_L-2_H-128_A-2/{name}" for name in LAYOUTS[layout]}
    assert sorted(written) == [place / name for name in sorted(inside)]
    if kind == "zip":
        with zipfile.ZipFile(archive) as packed:
            assert inside == {name: packed.read(name) for name in inside}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize(
    "name",
    [
        "../x",
        "bert/../../x",
        "..",
        "/etc/x",
        "//x",
        "C:/x",
        "c:x",
        "..\\x",
        "\\\\host\\x",
        "bert\\..\\x",
        "./../x",
        "__MACOSX/../../x",
    ],
)
def test_no_member_leads_out(kind: str, name: str, tmp_path: Path, place: Path) -> None:
    archive = MAKERS[kind](tmp_path / "a", [("vocab.txt", b"x"), (name, b"evil")])
    assert "leads out of the folder" in refused(archive, place)


@given(
    st.lists(
        st.sampled_from(["..", ".", "", "/", "\\", "a", "C:", "~", "中", "\0", "...", "x.bin"])
        | st.text(max_size=4),
        max_size=6,
    ),
    st.sampled_from(["/", "\\", ""]),
)
def test_whatever_the_name_the_path_is_below_the_folder(parts: list[str], joint: str) -> None:
    name = joint.join(parts)
    found = member_parts(name)
    if found is None:
        return
    folder = Path("/a/b")
    path = Path(os.path.normpath(folder.joinpath(*found)))
    assert path == folder or folder in path.parents
    assert "\\" not in name
    # Python's own filter takes them too: ours is the stricter.
    member = tarfile.TarInfo(name)
    if max(name, default="") < "\ud800" and found:
        assert tarfile.data_filter(member, "/a/b").name


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE]
)
@pytest.mark.parametrize("name", ["link", "__MACOSX/link"])
def test_a_tar_with_links_or_devices_is_refused(
    kind: bytes, name: str, tmp_path: Path, place: Path
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    assert "is a link or a device" in refused(tmp_path / "a.tar", place)


@pytest.mark.parametrize("kind", [stat.S_IFLNK, stat.S_IFCHR, stat.S_IFIFO])
def test_a_zip_with_links_or_devices_is_refused(kind: int, tmp_path: Path, place: Path) -> None:
    member = zipfile.ZipInfo("link")
    member.create_system, member.external_attr = 3, (kind | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, "/etc/passwd")
    assert "is a link or a device" in refused(tmp_path / "a.zip", place)


@pytest.mark.parametrize("kind", MAKERS)
def test_too_many_members_are_refused(kind: str, tmp_path: Path, place: Path) -> None:
    members = [(f"{number}.txt", b"") for number in range(11)]
    archive = MAKERS[kind](tmp_path / "a", members)
    assert "more than 10 members" in refused(archive, place, members=10)
    for path in place.iterdir():
        path.unlink()
    assert len(unpack(archive, place, limits=Limits(members=11))) == 11


@pytest.mark.parametrize("mode", ["zip", "w:gz", "w:bz2", "w:xz", "w"])
def test_bombs_are_refused_while_they_unpack(mode: str, tmp_path: Path, place: Path) -> None:
    members = [(f"{number}.bin", bytes(1 << 20)) for number in range(20)]
    archive = tmp_path / "a"
    if mode == "zip":
        make_zip(archive, members)
    else:
        make_tar(archive, members, mode)
    if mode != "w":
        message = refused(archive, place, harmless=4 << 20)
        assert "a bomb, no model" in message
        assert sum(p.stat().st_size for p in place.iterdir()) <= 5 << 20
        for path in place.iterdir():
            path.unlink()
    assert "more than 3,000,000 bytes" in refused(archive, place, size=3_000_000)


def test_a_zip_that_lies_about_its_sizes_is_refused(tmp_path: Path, place: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("a.bin", bytes(1 << 20))])
    data = archive.read_bytes()
    size = struct.pack("<I", 1 << 20)
    assert data.count(size) >= 1
    archive.write_bytes(data.replace(size, struct.pack("<I", 10)))
    assert "damaged" in refused(archive, place)


def test_a_huge_tar_header_is_not_read_into_memory(tmp_path: Path, place: Path) -> None:
    for kind in (tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE):
        member = tarfile.TarInfo("x")
        member.type, member.size = kind, 1 << 34
        with gzip.open(tmp_path / "a.tgz", "wb") as file:
            file.write(member.tobuf(tarfile.GNU_FORMAT))
            file.write(bytes(1 << 16))
        assert "a header of 17,179,869,184 bytes" in refused(tmp_path / "a.tgz", place)


def test_a_tar_that_promises_a_huge_member_is_not_followed(tmp_path: Path, place: Path) -> None:
    member = tarfile.TarInfo("__MACOSX/x")  # junk: skipped, and not read
    member.size = 1 << 40
    with gzip.open(tmp_path / "a.tgz", "wb") as file:
        file.write(member.tobuf(tarfile.GNU_FORMAT))
    assert "more than" in refused(tmp_path / "a.tgz", place)


def test_an_encrypted_zip_is_named(tmp_path: Path, place: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("a.bin", b"secret")])
    data = bytearray(archive.read_bytes())
    data[6] |= 1  # the flag in the local header and in the central directory
    data[data.index(b"PK\x01\x02") + 8] |= 1
    archive.write_bytes(data)
    assert "encrypted; unpack it with its password" in refused(archive, place)


def test_a_packing_that_is_not_known_is_named(tmp_path: Path, place: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [("a.bin", b"x")])
    data = bytearray(archive.read_bytes())
    data[8] = data[data.index(b"PK\x01\x02") + 10] = 9  # deflate64
    archive.write_bytes(data)
    assert "packed in a way that Python cannot read" in refused(archive, place)


@pytest.mark.parametrize("kind", KINDS)
def test_a_truncated_archive_is_never_taken_for_whole(
    kind: str, tmp_path: Path, place: Path
) -> None:
    archive = make_archive(tmp_path, kind)
    whole = archive.read_bytes()
    if kind == "tar":
        whole = whole.rstrip(b"\0")  # its end, and what fills it up: without them it is truncated
    # 512 and 1024: exactly behind a header or a member of tar.
    for cut in (512, 1024, len(whole) // 2, len(whole) - 1, len(whole)):
        if cut == len(whole) and kind != "tar":
            continue
        archive.write_bytes(whole[:cut])
        assert "damaged, or not a whole archive" in refused(archive, place)
        for path in place.iterdir():
            path.unlink()


@pytest.mark.parametrize("kind", ["zip", "tgz", "tar.xz", "tar.bz2"])
def test_a_changed_byte_is_found(kind: str, tmp_path: Path, place: Path) -> None:
    archive = make_archive(tmp_path, kind)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 1
    archive.write_bytes(data)
    assert "damaged" in refused(archive, place)


def test_a_tar_without_its_end_is_truncated(tmp_path: Path, place: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", [("a", bytes(512)), ("b", bytes(512))])
    whole = archive.read_bytes()
    for members in (1, 2):
        archive.write_bytes(whole[: members * 1024])
        assert "its end is missing" in refused(archive, place)
        for path in place.iterdir():
            path.unlink()


def test_zeros_without_end_behind_the_end_are_refused(tmp_path: Path, place: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", [("a", b"x")])
    (tmp_path / "a.tgz").write_bytes(gzip.compress(archive.read_bytes() + bytes(8 << 20)))
    assert "a bomb" in refused(tmp_path / "a.tgz", place, harmless=4 << 20)


def test_a_broken_header_in_the_middle_is_not_the_end(tmp_path: Path, place: Path) -> None:
    archive = make_tar(tmp_path / "a.tar", [("a", b"x"), ("b", b"y"), ("c", b"z")])
    data = bytearray(archive.read_bytes())
    data[1024] ^= 1  # the first letter of "b": the header's own checksum is wrong now
    archive.write_bytes(data)
    assert "a header in the middle is broken" in refused(archive, place)


def test_what_is_no_archive_is_said(tmp_path: Path, place: Path) -> None:
    for content, said in (
        (b"<!doctype html>", "a web page, not an archive"),
        (b"", "empty, not an archive"),
        (b"\x80\x02 a pickle", "not an archive that is known here"),
        (gzip.compress(b"no tar"), "damaged, or not a whole archive"),
        (bz2.compress(b"x" * 600), "damaged, or not a whole archive"),
        (lzma.compress(b""), "damaged, or not a whole archive"),
    ):
        (tmp_path / "a.zip").write_bytes(content)
        assert said in refused(tmp_path / "a.zip", place)


@pytest.mark.parametrize("kind", MAKERS)
def test_a_member_twice_or_a_file_as_a_folder_is_refused(
    kind: str, tmp_path: Path, place: Path
) -> None:
    archive = MAKERS[kind](tmp_path / "a", [("x", b"1"), ("./x", b"2")])
    assert "is in it twice" in refused(archive, place)
    (place / "x").unlink()
    archive = MAKERS[kind](tmp_path / "b", [("x", b"1"), ("x/y", b"2")])
    assert "is both a file and a folder" in refused(archive, place)


@pytest.mark.parametrize("kind", MAKERS)
def test_chinese_names_are_kept_and_junk_is_not(kind: str, tmp_path: Path, place: Path) -> None:
    junk = ["__MACOSX/模型/._vocab.txt", ".DS_Store", "模型/.DS_Store", "模型/._x", "Thumbs.db"]
    members = [(name, b"junk") for name in junk]
    archive = MAKERS[kind](tmp_path / "a", [("模型/词表.txt", "中".encode()), *members])
    unpack(archive, place)
    assert contents(place) == {"模型/词表.txt": "中".encode()}
    assert not is_junk(("bert", ".hidden"))


@pytest.mark.parametrize("encoding", ["gbk", "utf-8"])
def test_names_without_their_encoding_are_chinese(
    encoding: str, tmp_path: Path, place: Path
) -> None:
    # As Windows in China and older Macs pack: the flag for UTF-8 is missing.
    member = zipfile.ZipInfo("XXXXXX".ljust(len("模型.txt".encode(encoding)), "X"))
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(member, b"x")
    data = (tmp_path / "a.zip").read_bytes()
    (tmp_path / "a.zip").write_bytes(
        data.replace(member.filename.encode(), "模型.txt".encode(encoding))
    )
    unpack(tmp_path / "a.zip", place)
    assert contents(place) == {"模型.txt": b"x"}


def test_names_of_a_tar_without_their_encoding_are_chinese(tmp_path: Path, place: Path) -> None:
    with tarfile.open(
        tmp_path / "a.tar", "w", format=tarfile.GNU_FORMAT, encoding="gbk"
    ) as archive:
        archive.addfile(tarfile.TarInfo("模型/词表.txt"), io.BytesIO())
    unpack(tmp_path / "a.tar", place)
    assert contents(place) == {"模型/词表.txt": b""}


@pytest.mark.parametrize("kind", MAKERS)
@pytest.mark.parametrize("name", ["a/" * 1500 + "x", "a/" * 40 + "x", "x" * 300, "模" * 100])
def test_names_that_no_file_system_takes_are_refused(
    kind: str, name: str, tmp_path: Path, place: Path
) -> None:
    archive = MAKERS[kind](tmp_path / "a", [(name, b"x")])
    assert "is too long" in refused(archive, place)
    assert list(place.iterdir()) == []


def test_a_list_of_millions_of_members_is_not_read_into_memory(tmp_path: Path, place: Path) -> None:
    archive = make_zip(tmp_path / "a.zip", [(f"{number:0200}", b"") for number in range(6000)])
    assert "a header of" in refused(archive, place)


def test_tar_headers_that_lie_are_one_line(tmp_path: Path, place: Path) -> None:
    for size in (-1, -512, -(1 << 40), 1 << 62):
        member = tarfile.TarInfo("x")
        member.size = size
        head = member.tobuf(tarfile.GNU_FORMAT)
        (tmp_path / "a.tar").write_bytes(head + bytes(4096))
        refused(tmp_path / "a.tar", place)
        for path in place.iterdir():
            path.unlink()


def test_pax_headers_without_end_are_one_line(tmp_path: Path, place: Path) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 512
    record = b"30 mtime=1111111111111.111111\n".ljust(512, b"\0")
    (tmp_path / "a.tar").write_bytes((member.tobuf(tarfile.PAX_FORMAT) + record) * 3000)
    assert "nested too deeply" in refused(tmp_path / "a.tar", place)


def test_an_archive_is_known_by_its_content(tmp_path: Path, place: Path) -> None:
    archive = make_archive(tmp_path, "tgz").rename(tmp_path / "model.zip")
    assert kind_of(archive) == "gzip"
    unpack(archive, place)
    assert set(contents(place)) == set(LAYOUTS["pytorch"])


def test_progress_and_a_full_disk(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = make_archive(tmp_path)
    seen: list[int] = []

    class Full(DownloadProgress):
        def advance(self, stage: str, done: int, total: int | None) -> None:
            seen.append(done)
            if done > 5000:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.raises(ZhbertError, match=r"the disk is full") as caught:
        unpack(archive, place, progress=Full())
    # The archive is not to blame, and not to be thrown away.
    assert not isinstance(caught.value, BadArchiveError)
    assert seen[-1] > 5000
