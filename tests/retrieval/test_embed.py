"""zhbert embed: files of vectors, their ids, interrupted work, one line for what is wrong."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.killing import at_most, every_kill, one_line
from tests.retrieval.conftest import TEXTS, save_model

from zhbert import SentenceEncoder, ZhbertError
from zhbert.cli import main
from zhbert.files import sha256_of
from zhbert.folders import locked
from zhbert.retrieval import store
from zhbert.retrieval.embed import embed

VECTORS = ("float32", "int8", "uint8", "binary", "ubinary")


def read_npy(path: Path) -> tuple[list[str], Any]:
    described = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    return described["ids"], np.load(path)


def read_safetensors(path: Path) -> tuple[list[str], Any]:
    from safetensors.numpy import load_file

    described = json.loads(Path(f"{path}.json").read_text(encoding="utf-8"))
    return described["ids"], load_file(path)["vectors"]


def read_parquet(path: Path) -> tuple[list[str], Any]:
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    assert table["text"].to_pylist() == TEXTS
    vectors = table["vector"].combine_chunks()
    return table["id"].to_pylist(), np.stack([row.values.to_numpy() for row in vectors])


READERS: dict[str, Callable[[Path], tuple[list[str], Any]]] = {
    "npy": read_npy,
    "safetensors": read_safetensors,
    "parquet": read_parquet,
}


@pytest.mark.parametrize("form", READERS)
@pytest.mark.parametrize("vectors", VECTORS)
def test_the_file_has_what_encode_returns(
    tmp_path: Path, model: Path, corpus: Path, form: str, vectors: str
) -> None:
    done = embed(model, corpus, tmp_path / f"v.{form}", vectors=vectors, normalize=True)
    encoder = SentenceEncoder.from_pretrained(model)
    wanted = encoder.encode(TEXTS, precision=vectors, normalize_embeddings=True)
    ids, found = READERS[form](tmp_path / f"v.{form}")
    assert ids == [str(number) for number in range(len(TEXTS))]
    assert (done.texts, done.dimensions) == (len(TEXTS), 16)
    assert found.dtype == wanted.dtype
    assert (found == wanted).all()
    assert not list(tmp_path.glob("*unfinished*"))


def test_prompts_and_dimensions(tmp_path: Path, model: Path, corpus: Path) -> None:
    embed(model, corpus, tmp_path / "v.npy", prompt_name="weather", truncate_dim=5)
    embed(model, corpus, tmp_path / "w.npy", prompt="天气：", truncate_dim=5)
    encoder = SentenceEncoder.from_pretrained(model)
    wanted = encoder.encode(TEXTS, prompt_name="weather", truncate_dim=5)
    for name in ("v.npy", "w.npy"):
        assert (np.load(tmp_path / name) == wanted).all()


def test_what_came_to_nothing_leaves_nothing(
    tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"")))
    with pytest.raises(ZhbertError, match="stdin: no texts in it"):
        embed(model, "-", tmp_path / "v.npy")
    assert not [*tmp_path.glob("v.npy*")]


@pytest.fixture
def small_groups(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two texts a group, each of which is made safe."""
    monkeypatch.setattr(store, "_TEXTS", 2)
    monkeypatch.setattr(store, "_EVERY", 0.0)


@pytest.mark.usefixtures("small_groups")
@pytest.mark.parametrize("form", READERS)
def test_killed_anywhere_the_same_call_ends_with_the_same_file(
    tmp_path: Path, model: Path, corpus: Path, form: str
) -> None:
    out = tmp_path / "out"
    out.mkdir()
    embed(model, corpus, tmp_path / f"v.{form}")
    wanted = sha256_of(tmp_path / f"v.{form}")

    def work() -> None:
        embed(model, corpus, out / f"v.{form}", overwrite=True)

    for when in every_kill(work, (150, 700), step=9):
        work()
        assert sha256_of(out / f"v.{form}") == wanted, when
        beside = [] if form == "parquet" else [f"v.{form}.json"]
        assert sorted(path.name for path in out.iterdir()) == [f"v.{form}", *beside], when
        shutil.rmtree(out)
        out.mkdir()


@pytest.mark.usefixtures("small_groups")
def test_interrupted_work_goes_on_from_where_it_was(
    tmp_path: Path, model: Path, corpus: Path
) -> None:
    out = tmp_path / "v.npy"

    def stop(doing: str, done: int, total: int | None) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(model, corpus, out, progress=stop)
    assert not out.exists()
    said: list[tuple[str, int, int | None]] = []
    done = embed(model, corpus, out, progress=lambda *told: said.append(told))
    assert said == [("encoding", 4, 6), ("encoding", 6, 6)]
    assert done.resumed == 4
    embed(model, corpus, tmp_path / "w.npy")
    assert out.read_bytes() == (tmp_path / "w.npy").read_bytes()


@pytest.fixture
def unfinished(tmp_path: Path, model: Path, corpus: Path, small_groups: None) -> Path:
    """The target of an interrupted call, of which four texts are done."""

    def stop(doing: str, done: int, total: int | None) -> None:
        if done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        embed(model, corpus, tmp_path / "v.npy", progress=stop)
    return tmp_path / "v.npy"


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(ZhbertError) as error:
        embed(*arguments, **options)
    return str(error.value)


ANEW = "remove this folder to begin anew"


def test_unfinished_work_of_other_options_is_kept(
    unfinished: Path, model: Path, corpus: Path
) -> None:
    line = refusal(model, corpus, unfinished, normalize=True)
    assert line.startswith(f"{unfinished}.unfinished: unfinished vectors made with another norm")
    assert line.endswith(ANEW)


def test_unfinished_work_of_another_model_is_kept(unfinished: Path, corpus: Path) -> None:
    other = save_model(unfinished.parent / "other", seed=2)
    assert "made with another model" in refusal(other, corpus, unfinished)


def test_unfinished_work_of_a_file_that_has_changed_is_kept(
    unfinished: Path, model: Path, corpus: Path
) -> None:
    corpus.write_text("\n".join(["另", *TEXTS[1:]]), encoding="utf-8")
    assert "of other texts: the file has changed" in refusal(model, corpus, unfinished)


@pytest.mark.parametrize("name", ["progress.json", "vectors.float32", "ends.int64", "texts.jsonl"])
def test_damaged_unfinished_work_is_refused(
    unfinished: Path, model: Path, corpus: Path, name: str
) -> None:
    path = Path(f"{unfinished}.unfinished", name)
    path.write_bytes(path.read_bytes()[:7])
    line = refusal(model, corpus, unfinished)
    assert line.startswith(f"{path}: damaged")
    assert line.endswith(ANEW)


def test_another_process_at_work_is_refused(tmp_path: Path, model: Path, corpus: Path) -> None:
    with locked(tmp_path / "v.npy.unfinished"):
        assert "another process is at work there" in refusal(model, corpus, tmp_path / "v.npy")


def test_a_full_disk_is_one_line_and_the_work_goes_on_afterwards(
    tmp_path: Path, model: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus.write_text("\n".join(TEXTS * 40), encoding="utf-8")
    out = str(tmp_path / "v.npy")
    command = ["embed", str(model), str(corpus), "--out", out, "--quiet"]
    with at_most(6_000):
        assert main(command) == 2
    assert "more than a file may hold" in one_line(capsys, out)
    assert not Path(out).exists()
    assert main(command) == 0
    assert len(np.load(out)) == len(TEXTS) * 40


def test_the_verb_says_where_the_vectors_and_ids_are(
    tmp_path: Path, model: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = f"{tmp_path}/v.npy"
    assert main(["embed", str(model), str(corpus), "--out", out]) == 0
    told = capsys.readouterr().err.splitlines()[-1]
    assert told == f"6 vectors of 16 dimensions in {out}; ids in {out}.json"
    assert main(["embed", str(model), str(corpus), "--out", out, "--overwrite", "--json"]) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    assert json.loads(printed.out) == {
        "out": out,
        "texts": 6,
        "dimensions": 16,
        "vectors": "float32",
        "ids": f"{out}.json",
        "resumed": 0,
    }


def test_texts_from_stdin_go_on_too(
    tmp_path: Path, unfinished: Path, model: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(corpus.read_bytes())))
    assert embed(model, "-", unfinished).resumed == 4
    embed(model, corpus, tmp_path / "w.npy")
    assert unfinished.read_bytes() == (tmp_path / "w.npy").read_bytes()


@pytest.mark.parametrize(
    ("file", "out", "options", "words"),
    [
        ("nosuch.txt", "v.npy", {}, "nosuch.txt: no such file"),
        ("empty.txt", "v.npy", {}, "empty.txt: no texts in it"),
        ("gbk.txt", "v.npy", {}, "gbk.txt:1: not UTF-8"),
        ("null.jsonl", "v.npy", {}, 'null.jsonl:2: "text" is null'),
        ("corpus.txt", "v.bin", {}, "name a file that ends in .npy, .parquet or .safetensors"),
        ("corpus.txt", "no/v.npy", {}, "make it first"),
        ("corpus.txt", "corpus.txt", {}, "name a file that ends in"),
        ("corpus.txt", "there.npy", {}, "exists already; --overwrite replaces it"),
        ("corpus.txt", "v.npy", {"prompt_name": "nosuch"}, "the model has no such prompt"),
        ("corpus.txt", "v.npy", {"truncate_dim": 0}, "truncate_dim = 0: must be 1 or more"),
        ("one.txt", "v.npy", {"vectors": "int8"}, "one text: int8 vectors are scaled"),
    ],
)
def test_what_is_wrong_is_one_line_and_nothing_is_written(
    tmp_path: Path,
    model: Path,
    corpus: Path,
    file: str,
    out: str,
    options: dict[str, Any],
    words: str,
) -> None:
    (tmp_path / "empty.txt").write_text("\n\n", encoding="utf-8")
    (tmp_path / "one.txt").write_text("好\n", encoding="utf-8")
    (tmp_path / "gbk.txt").write_text("好\n" * 9, encoding="gb18030")
    (tmp_path / "null.jsonl").write_text('{"text": "好"}\n{"text": null}\n', encoding="utf-8")
    (tmp_path / "there.npy").write_bytes(b"there")
    before = sorted(tmp_path.iterdir())
    assert words in refusal(model, tmp_path / file, tmp_path / out, **options)
    assert sorted(tmp_path.iterdir()) == before
    assert (tmp_path / "there.npy").read_bytes() == b"there"


def test_weights_with_nan_are_refused(tmp_path: Path, model: Path, corpus: Path) -> None:
    from safetensors.numpy import load_file, save_file

    shutil.copytree(model, tmp_path / "nan")
    weights = load_file(tmp_path / "nan" / "model.safetensors")
    name = next(name for name in weights if name.endswith("word_embeddings.weight"))
    weights[name] = np.full_like(weights[name], np.nan)
    save_file(weights, tmp_path / "nan" / "model.safetensors")
    assert "NaN" in refusal(tmp_path / "nan", corpus, tmp_path / "v.npy")
    assert not (tmp_path / "v.npy").exists()
