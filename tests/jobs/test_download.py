"""``zhbert download``: what it writes and says, and that a mistake leaves nothing behind."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.zoo.models import LAYOUTS, contents, make_archive, make_folder
from tests.zoo.server import Fault, Server, serving

from zhbert.cli import main
from zhbert.zoo import download


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """A server with two archives, an empty cache, and no waiting."""
    monkeypatch.setenv("ZHBERT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(download, "RETRY", download.RetryPolicy(sleep=lambda seconds: None))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    with serving() as server:
        server.add("/model.zip", make_archive(tmp_path, "zip", nest="bert").read_bytes())
        yield server


def test_a_model_is_written_where_out_says(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    server.faults = [Fault(break_after=3000)]
    assert main(["download", f"{server.url}/model.zip", "--out", "model"]) == 0
    captured = capsys.readouterr()
    assert captured.out == "model  (pytorch, 0.0 MB)\n"
    assert captured.err == "note: the connection broke off; trying again in 1 s\n"
    assert set(contents(Path("model"))) == set(LAYOUTS["pytorch"])


def test_figures_as_json(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{server.url}/model.zip"
    assert main(["download", url, "--json"]) == 0
    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert captured.err == ""
    assert (found["name"], found["format"]) == (url, "pytorch")
    folder = Path(found["folder"])
    assert Path(found["weights"]) == folder / "pytorch_model.bin"
    assert found["bytes"] == sum(map(len, contents(folder).values()))
    # The second time nobody is asked.
    assert main(["download", url, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert len(server.requests) == 1


def test_an_archive_that_is_here_is_unpacked(
    server: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["download", "model.zip", "--out", "model", "--quiet"]) == 0
    assert set(contents(Path("model"))) == set(LAYOUTS["pytorch"])
    assert capsys.readouterr().out == "model  (pytorch, 0.0 MB)\n"
    assert server.requests == []


def test_only_a_model_is_overwritten(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{server.url}/model.zip"
    make_folder(Path("old"), "google")
    make_folder(Path("home") / "model")
    make_folder(Path("project"))
    (Path("project") / "src").mkdir()
    Path("file").write_text("")
    Path("empty").mkdir()
    for out, said in (
        ("old", "old: a model stands there; --overwrite replaces it"),
        ("home", "home: not empty, and not a model; choose another --out"),
        ("project", "project: not empty, and not a model; choose another --out"),
        ("file", "file: a file; --out names the folder to make"),
    ):
        before = contents(Path(out))
        for options in ([], [] if out == "old" else ["--overwrite"]):
            assert main(["download", url, "--out", out, *options]) == 2
            assert capsys.readouterr().err == f"zhbert: error: {said}\n"
        assert contents(Path(out)) == before
    assert server.requests == []
    assert main(["download", url, "--out", "old", "--overwrite"]) == 0
    assert set(contents(Path("old"))) == set(LAYOUTS["pytorch"])
    assert main(["download", url, "--out", "empty"]) == 0


def test_every_mistake_is_one_clear_line_and_writes_nothing(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    server.add("/page.zip", b"<html>log in</html>")
    server.add("/cut.zip", server.files["/model.zip"][:4000])
    server.add(
        "/evil.zip", server.files["/model.zip"].replace(b"bert/vocab.txt", b"../../../../x.")
    )
    with serving() as gone:
        nowhere = gone.url
    for name, said in {
        f"{server.url}/nothing.zip": "not there (the server answers 404)",
        f"{server.url}/page.zip": "a web page came where an archive was expected",
        f"{server.url}/cut.zip": "damaged, or not a whole archive",
        f"{server.url}/evil.zip": "leads out of the folder",
        f"{server.url}/model.zip#sha256={'0' * 64}": "the published one is 00000",
        f"{nowhere}/model.zip": "connection refused",
        "nothing.zip": "no such file or folder",
        "rbt33": "did you mean rbt3",
        "hfl/rbt3": "HF_HUB_OFFLINE is set",
        "": "name a model",
    }.items():
        assert main(["download", name, "--out", "out"]) == 2, name
        error = capsys.readouterr().err.splitlines()
        assert [line for line in error if not line.startswith("note: ")] == error[-1:]
        assert said in error[-1], name
        assert error[-1].startswith("zhbert: error: ")
        assert sorted(p.name for p in tmp_path.iterdir()) == ["cache", "model.zip"], name


def test_a_format_that_there_is_not(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["download", "bert_2L_cn", "--format", "tensorflow"]) == 2
    error = "bert_2L_cn: not published as tensorflow; there is pytorch"
    assert capsys.readouterr().err == f"zhbert: error: {error}\n"
