"""From whatever names a model to its folder; downloads end to end."""

from __future__ import annotations

import errno
import os
import shutil
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from tests.zoo.models import FORMATS, KINDS, LAYOUTS, contents, make_archive, make_folder
from tests.zoo.server import Fault, Server, serving

from zhbert.errors import ZhbertError
from zhbert.zoo import cache_folder, cached_models, catalogue, locate, save
from zhbert.zoo.layout import find_model, weights_format
from zhbert.zoo.origin import origin_of


def refused(name: str | Path) -> str:
    with pytest.raises(ZhbertError) as caught:
        locate(name)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def leftovers(cache: Path) -> list[str]:
    """What is in the cache besides finished things."""
    return [str(p) for p in cache.rglob("*") if p.suffix in (".part", ".tmp", ".old")]


@pytest.fixture
def card(server: Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> catalogue.ModelCard:
    """A card of the catalogue whose archives are on the local server."""
    for form, layout in (("pt", "pytorch"), ("tf", "google")):
        (tmp_path / form).mkdir()
        archive = make_archive(tmp_path / form, "zip", layout, nest="chinese_L-2_H-128_A-2")
        server.add(f"/{form}/chinese_L-2_H-128_A-2.zip", archive.read_bytes())
    card = catalogue.ModelCard(
        name="toy_cn",
        aliases=("toy",),
        source="tests",
        owner="tests",
        language="cn",
        num_layers=2,
        hidden_size=128,
        num_heads=2,
        vocab_size=8,
        vocab_size_from="published",
        pytorch_archive=f"{server.url}/pt/chinese_L-2_H-128_A-2.zip",
        tensorflow_archive=f"{server.url}/tf/chinese_L-2_H-128_A-2.zip",
    )
    known = catalogue.find_card

    def find_card(name: str) -> catalogue.ModelCard | None:
        return card if name in ("toy", "toy_cn") else known(name)

    monkeypatch.setattr(catalogue, "find_card", find_card)
    monkeypatch.setattr(catalogue, "cards", lambda: (card,))
    return card


# --- on this machine ----------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_folder_is_itself_and_a_nested_one_is_found(layout: str, tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "outer" / "model", layout)
    assert locate(folder) == locate(str(folder)) == folder
    assert locate(tmp_path / "outer") == folder


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("nest", ["", "chinese_L-2_H-128_A-2"])
def test_an_archive_of_every_layout_is_a_model(
    kind: str, layout: str, nest: str, tmp_path: Path
) -> None:
    archive = make_archive(tmp_path, kind, layout, nest)
    folder = locate(archive)
    assert set(contents(folder)) == set(LAYOUTS[layout])
    model = find_model(folder)
    assert model.format == FORMATS[layout]
    assert model.config is not None
    assert model.vocabulary is not None


def test_an_archive_is_unpacked_once(tmp_path: Path, cache: Path) -> None:
    archive = make_archive(tmp_path)
    folder = locate(archive)
    before = {path: path.stat().st_ino for path in folder.iterdir()}
    copy = shutil.copy(archive, tmp_path / "copy.zip")
    assert locate(archive) == locate(copy) == folder
    assert {path: path.stat().st_ino for path in folder.iterdir()} == before
    assert cache in folder.parents
    assert leftovers(cache) == []


def test_several_may_unpack_the_same_at_once(tmp_path: Path, cache: Path) -> None:
    archive = make_archive(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(locate, [archive] * 8))
    assert len(set(folders)) == 1
    assert set(contents(folders[0])) == set(LAYOUTS["pytorch"])
    assert leftovers(cache) == []


def test_an_archive_with_other_bytes_is_another_model(tmp_path: Path) -> None:
    archive = make_archive(tmp_path)
    first = locate(archive)
    (tmp_path / "again").mkdir()
    shutil.move(make_archive(tmp_path / "again"), archive)
    assert locate(archive) != first


def test_weights_are_named_by_their_file(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "model", "google")
    assert locate(folder / "bert_model.ckpt") == folder
    assert locate(folder / "bert_model.ckpt.index") == folder
    # PyTorch's file is a zip inside, and no archive.
    folder = make_folder(tmp_path / "torch")
    torch.save({"a": torch.ones(1)}, folder / "pytorch_model.bin")
    assert locate(folder / "pytorch_model.bin") == folder
    # One of several checkpoints is not exchanged for the latest.
    for end in ("index", "meta", "data-00000-of-00001"):
        (tmp_path / "model" / f"model.ckpt-10.{end}").write_bytes(b"")
    assert locate(tmp_path / "model/model.ckpt-10") == tmp_path / "model/model.ckpt-10"


def test_the_cache_is_where_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cache_folder() == tmp_path / "cache"
    monkeypatch.delenv("ZHBERT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/xdg")
    assert cache_folder() == Path("/xdg/zhbert")
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert cache_folder() == Path.home() / ".cache" / "zhbert"


# --- names --------------------------------------------------------------------------------------


def test_what_a_name_stands_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert origin_of("rbt3").kind == "hub"
    assert origin_of("hfl/rbt3").address == origin_of("RBT3").address == "hfl/rbt3"
    assert origin_of("somebody/some-model").kind == "hub"
    tiny = origin_of("bert_tiny_cn")
    assert (tiny.kind, tiny.alternative) == ("url", "--format tensorflow")
    assert "/pt/" in tiny.address
    assert "/tf1/" in origin_of("bert_tiny_cn", "tensorflow").address
    assert origin_of("https://a.b/c.zip").kind == "url"
    assert origin_of(Path("https://a.b/c.zip")).address == "https://a.b/c.zip"
    # What exists here wins.
    make_folder(tmp_path / "rbt3")
    assert origin_of("rbt3").kind == "folder"
    make_archive(tmp_path, "zip").rename(tmp_path / "bert_tiny_cn")
    assert origin_of("bert_tiny_cn").kind == "archive"


def test_every_card_leads_somewhere() -> None:
    assert len(catalogue.cards()) == 33
    for card in catalogue.cards():
        assert origin_of(card.name).kind in ("package", "hub", "url")
        for form, address in (
            ("tensorflow", card.tensorflow_archive),
            ("pytorch", card.hugging_face_id or card.pytorch_archive),
        ):
            if address:
                assert origin_of(card.name, form).address == address


def test_names_that_stand_for_nothing(tmp_path: Path) -> None:
    for name, said in (
        ("rbt33", "no such model in the catalogue; did you mean rbt3"),
        ("qqqqqqqq", "'zhbert models' lists them"),
        ("./no/such", "no such file or folder"),
        ("/no/such", "no such file or folder"),
        ("some/model.zip", "no such file or folder"),
        ("model.tgz", "no such file or folder"),
        (str(tmp_path), "no model file here"),
        ("x" * 5000, "File name too long"),
    ):
        assert said in refused(name)


def test_a_format_is_chosen_only_where_there_is_a_choice(tmp_path: Path) -> None:
    for name, said in (
        ("bert_2L_cn", "not published as tensorflow; there is pytorch"),
        ("somebody/model", "only for names of the catalogue"),
        (str(tmp_path), "only for names of the catalogue"),
    ):
        with pytest.raises(ZhbertError, match=said):
            origin_of(name, "tensorflow")


# --- from a server ------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_an_address_is_fetched_and_unpacked_once(
    kind: str, server: Server, tmp_path: Path, cache: Path
) -> None:
    archive = make_archive(tmp_path, kind, "google", nest="bert")
    url = server.add(f"/model.{kind}", archive.read_bytes())
    server.faults = [Fault(status=503), Fault(break_after=3000)]
    folder = locate(url)
    assert set(contents(folder)) == set(LAYOUTS["google"])
    assert locate(url) == folder
    assert server.ranges() == [None, None, "bytes=3000-"]
    assert leftovers(cache) == []


def test_a_name_of_the_catalogue_is_fetched(card: catalogue.ModelCard, server: Server) -> None:
    folder = locate("toy")
    assert folder == locate("toy_cn")
    assert find_model(folder).format == "pytorch"
    other = locate("toy", form="tensorflow")
    assert find_model(other).format == "tensorflow"
    assert [one.path[:4] for one in server.requests] == ["/pt/", "/tf/"]


def test_a_model_that_is_gone_has_another_form(card: catalogue.ModelCard, server: Server) -> None:
    del server.files["/pt/chinese_L-2_H-128_A-2.zip"]
    message = refused("toy")
    assert f"{card.pytorch_archive}: not there (the server answers 404)" in message
    assert message.endswith("or try --format tensorflow")


def test_without_a_network_it_says_what_works(
    card: catalogue.ModelCard, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving() as gone:
        nowhere = f"{gone.url}/model.zip"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    assert refused(nowhere).endswith("; no model was fetched before")
    url = server.add("/other.zip", make_archive(tmp_path).read_bytes())
    locate("toy")
    locate(url)
    assert set(cached_models()) == {"toy_cn", url}
    message = refused(nowhere)
    assert "no connection to 127.0.0.1 (connection refused)" in message
    assert "these are here: " in message
    for name in cached_models():
        assert name in message
        assert locate(name).is_dir()


def test_an_unpacked_copy_that_was_deleted_comes_back(
    server: Server, tmp_path: Path, cache: Path
) -> None:
    url = server.add("/model.zip", make_archive(tmp_path).read_bytes())
    folder = locate(url)
    before = contents(folder)
    shutil.rmtree(folder)
    assert contents(locate(url)) == before
    (folder / "pytorch_model.bin").unlink()
    assert contents(locate(url)) == before
    assert len(server.requests) == 1


def test_a_damaged_archive_does_not_stay(server: Server, tmp_path: Path, cache: Path) -> None:
    whole = make_archive(tmp_path).read_bytes()
    url = server.add("/model.zip", whole[:3000])
    assert f"{url}: damaged, or not a whole archive" in refused(url)
    assert {p.suffix or p.name for p in cache.rglob("*") if p.is_file()} == {"lock", ".lock"}
    server.add("/model.zip", whole)
    assert set(contents(locate(url))) == set(LAYOUTS["pytorch"])


def test_an_archive_without_a_model_is_said(server: Server, tmp_path: Path, cache: Path) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "README.md").write_text("no model")
    archive = Path(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "docs"))
    url = server.add("/a.zip", archive.read_bytes())
    assert f"{url}: no model file here (it holds README.md)" in refused(url)
    assert f"{archive}: no model file here (it holds README.md)" in refused(archive)
    assert list((cache / "models").glob("*")) == list((cache / "models").glob("*.lock"))


def test_hostile_archives_from_a_server_leave_nothing(
    server: Server, tmp_path: Path, cache: Path
) -> None:
    import zipfile

    with zipfile.ZipFile(tmp_path / "evil.zip", "w") as archive:
        archive.writestr("pytorch_model.bin", "x")
        archive.writestr("../../../evil", "x")
    url = server.add("/evil.zip", (tmp_path / "evil.zip").read_bytes())
    assert "'../../../evil' leads out of the folder" in refused(url)
    assert not [p for p in tmp_path.rglob("evil*") if p.name != "evil.zip"]
    assert not [p for p in cache.rglob("*") if p.suffix in (".zip", ".bin")]


def test_a_full_disk_leaves_the_archive_and_no_folder(
    server: Server, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = server.add("/model.zip", make_archive(tmp_path).read_bytes())

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("zhbert.zoo.archive._Unpacker.write", full)
        assert "the disk is full" in refused(url)
    assert leftovers(cache) == []
    assert set(contents(locate(url))) == set(LAYOUTS["pytorch"])
    assert len(server.requests) == 1


def test_a_cache_that_cannot_be_written_is_one_line(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ZHBERT_CACHE", str(tmp_path / "file" / "cache"))
    url = server.add("/model.zip", make_archive(tmp_path).read_bytes())
    assert "Not a directory" in refused(url)
    assert "Not a directory" in refused(tmp_path / "model.zip")


# --- saved somewhere ----------------------------------------------------------------------------


@pytest.mark.parametrize("nest", ["", "bert", "a/b"])
def test_what_is_saved_is_the_model_folder_itself(nest: str, tmp_path: Path) -> None:
    archive = make_archive(tmp_path, "tgz", "google", nest)
    before = contents(locate(archive))
    save(archive, tmp_path / "out" / "model")
    assert contents(tmp_path / "out" / "model") == before
    assert locate(tmp_path / "out" / "model") == tmp_path / "out" / "model"


def test_what_stands_beside_a_nested_folder_is_saved_too(tmp_path: Path) -> None:
    make_folder(tmp_path / "top" / "bert")
    (tmp_path / "top" / "LICENSE").write_text("outer")
    (tmp_path / "top" / "vocab.txt").write_text("outer")
    archive = Path(shutil.make_archive(str(tmp_path / "a"), "zip", tmp_path / "top"))
    save(archive, tmp_path / "out")
    found = contents(tmp_path / "out")
    assert found.pop("LICENSE") == b"outer"
    assert found == contents(tmp_path / "top" / "bert")


def test_saving_from_a_server_and_failing(
    card: catalogue.ModelCard, server: Server, tmp_path: Path
) -> None:
    save("toy", tmp_path / "out", form="tensorflow")
    assert set(contents(tmp_path / "out")) == set(LAYOUTS["google"])
    server.add("/pt/chinese_L-2_H-128_A-2.zip", b"PK\x03\x04 nothing")
    with pytest.raises(ZhbertError, match="damaged"):
        save("toy", tmp_path / "other")
    assert not (tmp_path / "other").exists()
    assert [p.name for p in tmp_path.glob(".*")] == []
    with pytest.raises(ZhbertError, match="here already, nothing to download"):
        save(tmp_path / "out", tmp_path / "other")


def test_progress_is_shown_on_stderr_only_when_wanted(
    server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = server.add("/model.zip", make_archive(tmp_path).read_bytes())
    server.faults = [Fault(status=503)]
    locate(url, quiet=False)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == (
        "note: the server answers 503 Service Unavailable; trying again in 1 s\n"
    )
    shutil.rmtree(cache_folder())
    server.faults = [Fault(status=503)]
    locate(url)
    assert capsys.readouterr() == ("", "")


def test_the_bar_shows_speed_and_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from zhbert.zoo.progress import shown

    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "80")
    with shown(False) as progress:
        for done in range(0, 100_000_000, 10_000_000):
            progress.advance("downloading", done, 100_000_000)
            time.sleep(0.05)
    shown_text = capsys.readouterr().err
    assert "/100.0 MB" in shown_text
    assert "MB/s" in shown_text
    assert "0:00:0" in shown_text


def test_nobody_waits_for_a_pipe_among_the_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.bin")
    with pytest.raises(ZhbertError, match="no model file here"):
        find_model(tmp_path)
    with pytest.raises(ZhbertError, match="empty"):
        weights_format(tmp_path / "model.bin")


def test_a_file_that_is_no_model_is_refused_when_it_is_named(tmp_path: Path) -> None:
    (tmp_path / "law.txt").write_text("第一条", encoding="utf-8")
    with pytest.raises(ZhbertError, match=r"law\.txt: "):
        find_model(tmp_path / "law.txt")
