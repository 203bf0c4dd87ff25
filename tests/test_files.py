"""Files and folders that survive: kills at every operation, full disks, other processes."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.killing import at_most, every_kill, one_line

from zhbert import files
from zhbert.cli import main
from zhbert.data.prepare import prepare
from zhbert.data.shards import Corpus
from zhbert.errors import ZhbertError
from zhbert.files import (
    advising,
    atomic_file,
    atomic_folder,
    read_json_if_sound,
    remove,
    scratch,
    sweep,
    write_json,
    write_text,
)
from zhbert.folders import Claim, empty_folder, locked

# Python 3.12 warns of forking where threads run; the children here start no others.
pytestmark = pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")

TEXT = (
    "使用语言模型来预测下一个词。\n\n研究生命的起源。\n我们在学习。\n\n人民大会。\n\n语言模型。\n"
)


def tree(folder: Path) -> dict[str, bytes]:
    """Every file of a folder, hidden ones and all, by its name."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


def put_back(folder: Path, before: dict[str, bytes]) -> None:
    shutil.rmtree(folder)
    folder.mkdir()
    for name, content in before.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def assert_whole_after_every_kill(
    folder: Path, work: Callable[[], object], *, sizes: tuple[int, ...] = ()
) -> list[dict[str, bytes]]:
    """What ``work`` writes into ``folder`` is there after no kill by halves, and comes when it is
    run again, without rubbish. Returns what the kills left, but for hidden names.
    """
    before = tree(folder)
    work()
    after = tree(folder)
    assert after != before
    put_back(folder, before)
    left = []
    for kill in every_kill(work, sizes):
        left.append({name: text for name, text in tree(folder).items() if "/." not in f"/{name}"})
        if left[-1] != after or tree(folder) != after:
            work()
        assert tree(folder) == after, kill
        put_back(folder, before)
    return [one for one in left if one not in (before, after)]


# ---------------------------------------------------------------- kills


@pytest.mark.parametrize("former", [None, "old"])
def test_a_file_is_the_old_one_or_the_new_one_after_every_kill(tmp_path: Path, former) -> None:
    path = tmp_path / "词表.txt"
    if former:
        path.write_text(former)
    half = assert_whole_after_every_kill(
        tmp_path, lambda: write_text(path, "new" * 1000), sizes=(0, 1, 2999)
    )
    assert not half


def write_folder(path: Path) -> None:
    with atomic_folder(path) as temporary:
        write_json(temporary / "config.json", {"a": 1})
        (temporary / "parts").mkdir()
        (temporary / "parts" / "model.bin").write_bytes(b"new" * 1000)


@pytest.mark.parametrize("former", [None, "empty", "old"])
def test_a_folder_is_the_old_one_or_the_new_one_after_every_kill(tmp_path: Path, former) -> None:
    path = tmp_path / "模型"
    if former == "old":
        path.mkdir()
        (path / "config.json").write_text("old")
        (path / "former.bin").write_bytes(b"old" * 10)
    elif former == "empty":
        path.mkdir()
    half = assert_whole_after_every_kill(tmp_path, lambda: write_folder(path), sizes=(0, 10, 2000))
    assert not half


def test_without_an_exchange_of_names_the_old_folder_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_exchange", lambda one, other: False)
    path = tmp_path / "model"
    path.mkdir()
    (path / "config.json").write_text("old")
    before = tree(tmp_path)
    hidden = 0
    for kill in every_kill(lambda: write_folder(path)):
        hidden += not path.exists()
        Claim(folder=path, what="a model", is_ours=lambda folder: True, overwrite=True).check()
        assert (path / "config.json").read_text() in ("old", '{\n  "a": 1\n}\n'), kill
        assert [one.name for one in tmp_path.iterdir()] == ["model"], kill
        put_back(tmp_path, before)
    assert hidden, "one of the kills came between the two renames"


@pytest.mark.parametrize("overwrite", [False, True])
def test_prepare_goes_on_after_every_kill(tmp_path: Path, overwrite: bool) -> None:
    text = tmp_path / "text.txt"
    text.write_text(TEXT, encoding="utf-8")
    vocab = tmp_path / "vocab.txt"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(TEXT.replace("\n", "")))]
    vocab.write_text("\n".join(pieces) + "\n", encoding="utf-8")
    quick = {"vocab": vocab, "segmenter": "whitespace", "held_out": 0.4}
    folder = tmp_path / "work"
    folder.mkdir()
    out = folder / "corpus"

    def work() -> None:
        if not overwrite and (out / "corpus.json").exists():
            # A kill after the last file: the corpus is whole, and what is left over goes.
            Corpus.open(out).verify()
            with pytest.raises(ZhbertError, match="a finished corpus stands there"):
                prepare([text], out, **quick)
            return
        prepare([text], out, overwrite=overwrite, **quick)

    if overwrite:
        other = tmp_path / "other.txt"
        other.write_text("另外的文本。\n\n我们在学习。\n", encoding="utf-8")
        prepare([other], out, **quick)
    for left in assert_whole_after_every_kill(folder, work, sizes=(0, 100, 1500)):
        assert "corpus/corpus.json" not in left or set(left) >= {"corpus/vocab.txt"}


# ---------------------------------------------------------------- what is swept


def test_only_what_a_dead_process_left_is_swept(tmp_path: Path) -> None:
    others = [".vocab.txt.1234.tmp", ".vocab.txt.zhbert-0123abcd.tmp.bak", "vocab.txt.tmp"]
    dead = [".vocab.txt.zhbert-0123abcd.tmp", ".corpus.zhbert-0123abcd.tmp"]
    for name in (*others, *dead):
        (tmp_path / name).write_text("x")
    with scratch(tmp_path / "vocab.txt") as (_, living):
        sweep(tmp_path, "vocab.txt")
        assert living.exists()
        assert not (tmp_path / dead[0]).exists()
        assert (tmp_path / dead[1]).exists(), "another name's"
        sweep(tmp_path)
        assert living.exists()
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(others)


def test_a_link_is_never_followed_out_of_the_folder(tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.mkdir()
    (precious / "thesis.txt").write_text("x")
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / ".final.zhbert-0123abcd.tmp").symlink_to(precious)
    (folder / "link").symlink_to(precious)
    (folder / "recipe.toml").write_text("")
    with locked(folder):
        empty_folder(folder, last="recipe.toml")
    remove(folder)
    assert (precious / "thesis.txt").exists()


def test_a_link_at_the_place_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    (tmp_path / "model").symlink_to(tmp_path / "disk" / "model")
    for _ in range(2):
        write_folder(tmp_path / "model")
    assert (tmp_path / "model").is_symlink()
    assert sorted(tree(tmp_path / "disk" / "model")) == ["config.json", "parts/model.bin"]
    (tmp_path / "v.txt").symlink_to(tmp_path / "disk" / "v.txt")
    write_text(tmp_path / "v.txt", "x")
    assert (tmp_path / "disk" / "v.txt").read_text() == "x"
    assert len(list((tmp_path / "disk").iterdir())) == 2


def test_two_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    with atomic_file(path) as first:
        first.write_text("first")
        with atomic_file(path) as second:
            assert second != first
            second.write_text("second")
        assert path.read_text() == "second"
    assert path.read_text() == "first"


def test_what_appears_meanwhile_is_not_replaced_unasked(tmp_path: Path) -> None:
    path = tmp_path / "model"

    def write() -> None:
        with atomic_folder(path, replace=False):
            path.mkdir()
            (path / "theirs").write_text("")

    with pytest.raises(ZhbertError, match=f"^writing {path}: something stands there already$"):
        write()
    assert [one.name for one in tmp_path.rglob("*")] == ["model", "theirs"]


def test_the_folder_where_one_is_cannot_be_replaced(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "in").mkdir()
    monkeypatch.chdir(tmp_path / "in")
    for name in (".", "", tmp_path / "in", ".."):
        with (
            pytest.raises(ZhbertError, match="the folder where you are; name a folder in it"),
            atomic_folder(name),
        ):
            pytest.fail("begun")


# ---------------------------------------------------------------- the claim


def claim(folder: Path, **options: object) -> Claim:
    def is_run(folder: Path) -> bool:
        return (folder / "recipe.toml").is_file()

    return Claim(folder=folder, what="a run", is_ours=is_run, **options)


def test_a_claim_says_what_is_there_and_which_options_go_on(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert not claim(run).check()
    run.mkdir()
    (run / ".recipe.toml.zhbert-0123abcd.tmp").write_text("killed at its first file")
    assert not claim(run).check()
    assert not list(run.iterdir())
    (run / "thesis.txt").write_text("")
    for overwrite in (False, True):
        with pytest.raises(ZhbertError, match=f"^{run}: not empty, and not a run; choose another"):
            claim(run, overwrite=overwrite).check()
    (run / "recipe.toml").write_text("")
    with pytest.raises(ZhbertError, match=f"^{run}: a run stands there; x, --overwrite replaces"):
        claim(run, ways="x, ").check()
    assert claim(run, overwrite=True).check()
    assert claim(run, goes_on=True).check()
    with pytest.raises(ZhbertError, match="--overwrite would remove the text, "):
        claim(run, overwrite=True, needed={"text": run / "thesis.txt"}).check()
    with pytest.raises(ZhbertError, match="a file; DST names the folder to make"):
        claim(run / "thesis.txt", option="DST").check()
    with pytest.raises(ZhbertError, match="/: not empty, and not a run"):
        claim(Path("/"), overwrite=True).check()
    with pytest.raises(ZhbertError, match="File name too long; choose a shorter one"):
        claim(tmp_path / ("长" * 200)).check()


def test_a_claim_looks_again_once_it_holds_the_folder(tmp_path: Path) -> None:
    run = tmp_path / "run"
    mine = claim(run)
    assert not mine.check()
    with claim(run).held():
        (run / "recipe.toml").write_text("another process was quicker")
    with pytest.raises(ZhbertError, match="a run stands there"), mine.held():
        pytest.fail("held")
    with locked(run), pytest.raises(ZhbertError, match="another process is at work there"):
        claim(run, overwrite=True).held().__enter__()


def test_a_folder_that_stays_empty_goes_again(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    for name in ("new", "mine"):
        with locked(tmp_path / name):
            assert (tmp_path / name).is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_a_disk_without_locks_works_and_nothing_is_swept_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    rest = tmp_path / ".x.json.zhbert-0123abcd.tmp"
    rest.write_text("")
    with locked(tmp_path):
        write_json(tmp_path / "x.json", {})
        write_folder(tmp_path / "folder")
    assert rest.exists()
    assert len(list(tmp_path.iterdir())) == 3


def test_on_a_disk_without_locks_a_file_keeps_other_processes_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    file = tmp_path / ".run.zhbert-lock"
    with locked(tmp_path / "run"):
        with pytest.raises(ZhbertError, match=f"this disk has no locks: .* {file} names"):
            locked(tmp_path / "run").__enter__()
        left = file.read_text()
    assert not file.exists()
    # What a killed process of this machine has left is no lock; there, one may still be alive.
    file.write_text(left.replace(str(os.getpid()), str(2**22 + 1)))
    with locked(tmp_path / "run"):
        pass
    file.write_text(f"elsewhere {2**22 + 1}")
    with pytest.raises(ZhbertError, match="another process is at work there"):
        locked(tmp_path / "run").__enter__()


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, "the disk is full; free some space and try it so"),
        (errno.EDQUOT, "the disk quota is used up; free some space and try it so"),
        (errno.EFBIG, "more than a file may hold here (see ulimit -f); raise the limit and try"),
        (errno.EROFS, "no permission: the disk is read-only; choose another folder"),
        (errno.EACCES, "no permission; choose another folder or change its permissions"),
        (errno.EMFILE, "too many open files; raise the limit (ulimit -n 4096) and try it so"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_an_error_names_the_users_file_and_a_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, said: str
) -> None:
    monkeypatch.chdir(tmp_path)

    def fail(handle: int) -> None:
        raise OSError(number, os.strerror(number))

    def fail_by_name(self: Path, *_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(self))

    for where, failing in ((files.os, ("fsync", fail)), (Path, ("write_text", fail_by_name))):
        with monkeypatch.context() as patched, advising("try it so"):
            patched.setattr(where, *failing)
            if where is files.os and number not in files._OF_WRITING:
                continue  # the system names no file, and it might have been one that is read
            with pytest.raises(ZhbertError) as caught:
                write_text("x.txt", "")
            assert str(caught.value).startswith(f"writing x.txt: {said}")
            with pytest.raises(ZhbertError) as caught:
                write_folder(Path("out"))
            assert str(caught.value).startswith(f"writing out/config.json: {said}")
    assert not list(tmp_path.iterdir())


def test_what_goes_wrong_in_reading_is_not_blamed_on_what_is_written(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), atomic_file(tmp_path / "out.txt"):
        (tmp_path / "in.txt").read_text()
    assert not list(tmp_path.iterdir())


COMMANDS = {
    "prepare": "prepare text.txt --workers 1 --held-out 0.4 --out out",
    "duplicates": "prepare text.txt --workers 1 --held-out 0.4 --deduplicate --out out",
    "vocab": "vocab train text.txt --size 300 --characters none --out out",
    "recipes": "recipes copy tiny out",
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_a_full_disk_is_one_line_and_the_same_command_works_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, command: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    for size in (0, 100, 1000):
        with at_most(size):
            code = main(command.split())
        if code:
            assert code == 2
            one_line(capsys, "out")
    assert size or code, "the limits are felt"
    assert main(command.split()) == 0
    assert not list(tmp_path.rglob(".*"))


MISPLACED = {
    "prepare": "prepare text.txt --workers 1 --out",
    "vocab": "vocab train text.txt --size 300 --characters none --out",
    "recipes": "recipes copy tiny",
    "quickstart": "quickstart text.txt --out",
    "download": "download https://localhost:1/model.zip --out",
    "report": "report run --out",
    "predict": "predict model text.txt --out",
    "pretrain": "pretrain tiny --corpus corpus --out",
    "shrink": "shrink model --layers 0 --out",
    "extend": "vocab extend model --with text.txt --out",
    "convert": "convert model --to safetensors",
    "finetune": "finetune tnews --model model --data data --out",
}
PLACES = ["/", "text.txt", "text.txt/x", "full", "/dev/null", "x" * 300]


@pytest.mark.parametrize(
    ("command", "place"),
    [
        pytest.param(command, place, id=f"{verb}-{place[:10]}")
        for verb, command in MISPLACED.items()
        for place in PLACES
        # Into a folder a recipe is copied.
        if (verb, place) not in (("recipes", "/"), ("recipes", "full"))
    ],
)
def test_a_place_that_cannot_be_is_one_line_and_stays_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, command: str, place: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(TEXT, encoding="utf-8")
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("x")
    before = tree(tmp_path)
    assert main([*command.split(), place]) == 2
    said = capsys.readouterr().err
    assert said.startswith("zhbert: error: ")
    assert said.count("\n") == 1
    assert tree(tmp_path) == before
    assert Path("/dev/null").is_char_device()


def test_an_empty_name_is_not_the_folder_where_one_is(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for out in (["--out", ""], ["--out="]):
        assert main(["prepare", "text.txt", *out]) == 2
        assert "--out: an empty name; name a file or a folder" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("text", "value", "said"),
    [('{"a": 1}', {"a": 1}, ""), ("[1]", {}, "must hold an object"), ('{"a"', {}, "not JSON")],
)
def test_a_json_file_that_is_only_a_help_may_be_damaged(
    tmp_path: Path, text: str, value: object, said: str
) -> None:
    path = tmp_path / "note.json"
    remarks: list[str] = []
    assert read_json_if_sound(path, remarks.append) == {}
    path.write_text(text)
    assert read_json_if_sound(path, remarks.append) == value
    missing, *others = remarks
    assert str(path) in missing
    assert "no such file" in missing
    assert said in "".join(others)
    assert len(others) == bool(said)
