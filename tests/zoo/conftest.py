"""An empty cache, a server, and no waiting, for all tests of downloads."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.zoo.server import Server, serving

from zhbert.zoo import download, packaged


@pytest.fixture
def server() -> Iterator[Server]:
    """A server on this machine."""
    with serving() as server:
        yield server


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """zhbert's cache: empty, and only of this test."""
    folder = tmp_path / "cache"
    monkeypatch.setenv("ZHBERT_CACHE", str(folder))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    return folder


@pytest.fixture(autouse=True)
def no_packaged_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package without a model in it."""
    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "assets")


@pytest.fixture(autouse=True)
def waited(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that would have been waited between attempts."""
    seconds: list[float] = []
    quick = dataclasses.replace(download.RETRY, sleep=seconds.append, timeouts=(5, 0.5))
    monkeypatch.setattr(download, "RETRY", quick)
    return seconds
