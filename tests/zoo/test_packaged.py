"""The model that is a part of the package: found by its names, and refused where it is damaged."""

from __future__ import annotations

import hashlib
import re
import shutil
from pathlib import Path

import pytest
from tests.zoo.models import contents, make_folder

from zhbert.errors import ZhbertError
from zhbert.zoo import cached_models, locate, packaged, save
from zhbert.zoo.origin import origin_of

NAMES = ("mini", "zhbert-mini", "ZHBERT_MINI", "Mini")


@pytest.fixture
def folder() -> Path:
    """A model in the place of the one of the package."""
    folder = make_folder(packaged.FOLDER / "zhbert-mini", "safetensors")
    packaged.write_checksums(folder)
    return folder


def refused(name: str) -> str:
    with pytest.raises(ZhbertError) as caught:
        locate(name)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith("; install zhbert again")
    return str(caught.value)


@pytest.mark.parametrize("name", NAMES)
def test_its_names_lead_to_the_package(name: str, folder: Path) -> None:
    assert locate(name) == folder
    assert origin_of(name, "pytorch").kind == "package"


def test_what_is_called_so_here_wins(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    mine = make_folder(tmp_path / "mini")
    assert locate("mini").resolve() == mine
    assert locate("zhbert-mini") == folder


def test_the_checksums_are_sha256sums(folder: Path) -> None:
    lines = [
        f"{hashlib.sha256(content).hexdigest()}  {name}\n"
        for name, content in contents(folder).items()
        if name != "SHA256SUMS"
    ]
    assert (folder / "SHA256SUMS").read_text() == "".join(lines)


def test_a_copy_is_the_whole_folder(folder: Path, tmp_path: Path) -> None:
    save("mini", tmp_path / "copy")
    assert contents(tmp_path / "copy") == contents(folder)


def test_it_counts_as_here_without_a_network(folder: Path) -> None:
    assert cached_models() == ["zhbert-mini"]


def test_an_installation_without_it_says_so() -> None:
    assert f"not in this installation ({packaged.FOLDER}" in refused("mini")
    assert cached_models() == []


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "vocab.txt", "SHA256SUMS"])
def test_a_damaged_file_is_named(file: str, folder: Path, tmp_path: Path) -> None:
    path = folder / file
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert re.search(rf"/{re.escape(file)}: damaged \(", refused("mini"))
    path.write_bytes(bytes([whole[0] ^ 1]) + whole[1:])
    assert "damaged (" in refused("mini")
    path.write_bytes(b"")
    assert f"{path}: damaged (" in refused("mini")
    path.unlink()
    assert f"{path}: damaged (missing)" in refused("mini")
    with pytest.raises(ZhbertError, match="damaged"):
        save("mini", tmp_path / "copy")
    assert not (tmp_path / "copy").exists()
    path.write_bytes(whole)
    assert locate("mini") == folder


def test_a_folder_with_nothing_in_it_is_damaged(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    assert "SHA256SUMS: damaged (missing)" in refused("mini")
