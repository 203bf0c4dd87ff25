"""zhbert search: what is found, the index that is kept, one line for what is wrong."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tests.killing import at_most, every_kill, one_line
from tests.retrieval.conftest import TEXTS, save_model

from zhbert import SentenceEncoder, ZhbertError
from zhbert.cli import main
from zhbert.retrieval import search, store
from zhbert.retrieval.index import ApproximateIndex
from zhbert.retrieval.search import Hit, opened_search
from zhbert.sentences.nearest import nearest

QUERIES = ["股票", "今天"]


def found(*arguments: Any, top_k: int = 3, **options: Any) -> list[list[Hit]]:
    with opened_search(*arguments, **options) as opened:
        return opened.answer(QUERIES, top_k)


def refusal(*arguments: Any, **options: Any) -> str:
    with pytest.raises(ZhbertError) as error:
        found(*arguments, **options)
    return str(error.value)


@pytest.mark.parametrize("name", ["cosine", "dot"])
def test_the_most_similar_texts_by_the_models_own_measure_and_prompts(
    tmp_path: Path, corpus: Path, name: str
) -> None:
    prompts = {"query": "我们：", "document": "天气："}
    model = save_model(tmp_path / "model", prompts=prompts, similarity_fn_name=name)
    encoder = SentenceEncoder.from_pretrained(model)
    scores = encoder.similarity(encoder.encode_query(QUERIES), encoder.encode_document(TEXTS))
    for row, hits in zip(scores.numpy(), found(model, corpus), strict=True):
        best = np.argsort(-row)[:3]
        assert [hit.id for hit in hits] == [str(number) for number in best]
        assert [hit.text for hit in hits] == [TEXTS[number] for number in best]
        assert [hit.rank for hit in hits] == [1, 2, 3]
        assert [hit.score for hit in hits] == pytest.approx(row[best], rel=1e-5)


def test_an_index_is_used_again_without_its_corpus(
    tmp_path: Path, model: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = found(model, corpus)
    assert found(model, corpus, index=tmp_path / "index") == wanted
    monkeypatch.setattr(store.VectorStore, "fill", None)
    assert found(model, corpus, index=tmp_path / "index") == wanted
    assert found(model, index=tmp_path / "index") == wanted


def test_texts_at_the_end_of_the_corpus_are_added(
    tmp_path: Path, model: Path, corpus: Path
) -> None:
    found(model, corpus, index=tmp_path / "index")
    with corpus.open("a", encoding="utf-8") as file:
        file.write("股票\n今天\n")
    said: list[str] = []
    hits = found(model, corpus, index=tmp_path / "index", remark=said.append, top_k=8)
    assert said == [f"{corpus} has changed: 2 texts more, added"]
    assert [[hit.id for hit in row] for row in hits] == [
        [hit.id for hit in row] for row in found(model, corpus, top_k=8)
    ]


def test_a_corpus_of_a_newer_date_with_the_same_texts_is_the_same(
    tmp_path: Path, model: Path, corpus: Path
) -> None:
    wanted = found(model, corpus, index=tmp_path / "index")
    os.utime(corpus, (0, 0))
    assert found(model, corpus, index=tmp_path / "index") == wanted


ANEW = "make it anew with --overwrite"


def test_an_index_of_other_texts_is_refused(tmp_path: Path, model: Path, corpus: Path) -> None:
    found(model, corpus, index=tmp_path / "index")
    for texts in (["另一个", *TEXTS[1:]], TEXTS[:-1]):
        corpus.write_text("\n".join(texts), encoding="utf-8")
        line = refusal(model, corpus, index=tmp_path / "index")
        assert line.startswith(f"{tmp_path / 'index'}: an index of other texts: the file has chan")
        assert line.endswith(ANEW)
    options: dict[str, Any] = {"index": tmp_path / "index"}
    assert found(model, corpus, overwrite=True, **options) == found(model, corpus)


def test_an_index_of_another_model_is_refused(tmp_path: Path, model: Path, corpus: Path) -> None:
    found(model, corpus, index=tmp_path / "index")
    other = save_model(tmp_path / "other", seed=2)
    for arguments in ((other, corpus), (other,)):
        line = refusal(*arguments, index=tmp_path / "index")
        assert line.startswith(f"{tmp_path / 'index'}: an index made with another model;")
        assert line.endswith(ANEW)


@pytest.mark.parametrize("name", ["progress.json", "vectors.float32", "ends.int64", "texts.jsonl"])
def test_a_damaged_index_is_refused(tmp_path: Path, model: Path, corpus: Path, name: str) -> None:
    found(model, corpus, index=tmp_path / "index")
    path = tmp_path / "index" / name
    path.write_bytes(path.read_bytes()[:7])
    assert refusal(model, index=tmp_path / "index").startswith(f"{path}: damaged")


def test_a_folder_of_something_else_is_not_touched(
    tmp_path: Path, model: Path, corpus: Path
) -> None:
    (tmp_path / "index").mkdir()
    (tmp_path / "index" / "mine").touch()
    line = refusal(model, corpus, index=tmp_path / "index", overwrite=True)
    assert line == f"{tmp_path / 'index'}: not empty, and not an index; choose another --index"


def test_killed_anywhere_the_same_call_makes_the_same_index(
    tmp_path: Path, model: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "_TEXTS", 2)
    monkeypatch.setattr(store, "_EVERY", 0.0)
    monkeypatch.setattr(search, "WORTHWHILE", 5)
    folder = tmp_path / "index"
    wanted = found(model, corpus, index=tmp_path / "other")

    def work() -> None:
        found(model, corpus, index=folder)

    for when in every_kill(work, (200, 900), step=9):
        work()
        assert found(model, index=folder) == wanted, when
        assert not list(folder.glob(".*")), when
        shutil.rmtree(folder)


def test_a_full_disk_is_one_line_and_the_index_is_finished_afterwards(
    tmp_path: Path, model: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus.write_text("\n".join(TEXTS * 40), encoding="utf-8")
    folder = str(tmp_path / "index")
    command = ["search", str(model), "--corpus", str(corpus), "--index", folder, "--quiet"]
    with at_most(6_000):
        assert main(command) == 2
    assert "more than a file may hold" in one_line(capsys, folder)
    line = refusal(model, index=folder)
    assert (
        line
        == f"--index {folder}: no finished index there; give --corpus FILE, of which it is made"
    )
    assert main(command) == 0
    assert found(model, index=folder) == found(model, corpus)


# -- usearch -------------------------------------------------------------------------------------


def test_a_graph_finds_nearly_all_and_its_recall_is_that_of_usearch(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((3_000, 16), np.float32)
    queries = rng.standard_normal((50, 16), np.float32)
    graph = ApproximateIndex(tmp_path, vectors)
    assert not graph.open()
    graph.build()
    again = ApproximateIndex(tmp_path, vectors)
    assert again.open()
    assert again.recall == graph.recall > 0.95
    one, _ = again.search(queries[:1], 10)
    scores, indices = again.search(queries, 10)
    np.testing.assert_allclose(one[0], scores[0], rtol=1e-6)
    exact_scores, exact = nearest(queries, vectors, 10, similarity="dot")
    assert np.mean([len({*a} & {*b}) / 10 for a, b in zip(indices, exact, strict=True)]) > 0.95
    same = indices == exact
    np.testing.assert_allclose(scores[same], exact_scores[same], rtol=1e-6)


def test_the_recall_is_the_share_of_the_others_that_are_found(tmp_path: Path) -> None:
    class Half(ApproximateIndex):
        def search(self, queries: Any, k: int) -> tuple[Any, Any]:
            scores, indices = super().search(queries, k)
            indices[:, 6:] = -1  # the vector itself and five others are left
            return scores, indices

    graph = Half(tmp_path, np.random.default_rng(0).standard_normal((500, 8), np.float32))
    graph.build()
    assert graph.recall == pytest.approx(0.5, abs=0.05)


def test_a_stale_or_damaged_graph_is_not_opened(tmp_path: Path) -> None:
    vectors = np.random.default_rng(0).standard_normal((500, 8), np.float32)
    ApproximateIndex(tmp_path, vectors).build()
    assert ApproximateIndex(tmp_path, vectors).open()
    assert not ApproximateIndex(tmp_path, vectors[:-1]).open()
    path = tmp_path / "index.usearch"
    path.write_bytes(path.read_bytes()[:-1])
    assert not ApproximateIndex(tmp_path, vectors).open()


@pytest.fixture
def from_five_texts_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "WORTHWHILE", 5)


@pytest.mark.usefixtures("from_five_texts_on")
def test_a_large_corpus_is_searched_by_usearch_and_its_recall_is_said(
    tmp_path: Path, model: Path, corpus: Path
) -> None:
    said: list[str] = []
    hits = found(model, corpus, index=tmp_path / "index", remark=said.append)
    assert (tmp_path / "index" / "index.usearch").is_file()
    assert said == [
        "searching by usearch, which finds 100.0% of the 10 nearest (measured on texts of the "
        "corpus); --exact finds all"
    ]
    exact = found(model, corpus, index=tmp_path / "index", exact=True)
    assert [[hit.id for hit in row] for row in hits] == [[hit.id for hit in row] for row in exact]


@pytest.mark.usefixtures("from_five_texts_on")
def test_without_usearch_the_error_names_the_extra_before_the_work_begins(
    tmp_path: Path, model: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "usearch.index", None)
    line = refusal(model, corpus, index=tmp_path / "index")
    assert "--index needs usearch: pip install '" in line
    assert not (tmp_path / "index").exists()
    assert found(model, corpus, index=tmp_path / "index", exact=True) == found(model, corpus)


# -- the verb ------------------------------------------------------------------------------------


def test_queries_from_stdin_as_json_lines(
    model: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    lines = io.TextIOWrapper(io.BytesIO("\n".join(["", *QUERIES, ""]).encode()))
    monkeypatch.setattr(sys, "stdin", lines)
    assert main(["search", str(model), "-", "--corpus", str(corpus), "--json", "--top-k", "2"]) == 0
    printed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [line["query"] for line in printed] == QUERIES
    wanted = [vars(hit) for hit in found(model, corpus, top_k=2)[0]]
    assert printed[0]["results"] == wanted


def test_a_pipe_gets_a_line_of_columns_for_each_text(
    model: Path, corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    corpus.write_text("{}\n{}\n".format("好\t" * 500, "股票"), encoding="utf-8")
    assert main(["search", str(model), "股票", "今天", "--corpus", str(corpus), "--quiet"]) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[:2] for row in rows] == [["股票", "1"], ["股票", "2"], ["今天", "1"], ["今天", "2"]]
    assert {row[3]: row[4] for row in rows} == {"0": " ".join("好" * 500), "1": "股票"}


def test_a_terminal_gets_a_table_with_the_beginnings_of_the_texts(
    model: Path,
    corpus: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "60")
    corpus.write_text("{}\n{}\n".format("好" * 500, "股票"), encoding="utf-8")
    assert main(["search", str(model), "股票", "--corpus", str(corpus), "--quiet"]) == 0
    heading, columns, *rows = re.sub("\x1b.*?m", "", capsys.readouterr().out).splitlines()
    assert (heading, columns.split()) == ("股票", ["score", "id", "text"])
    assert max(map(len, rows)) <= 60
    assert sum(row.count("好") for row in rows) == 199


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--corpus", "CORPUS"], "give a QUERY, or - for a query a line on stdin"),
        (["好"], "give --corpus FILE, or --index DIR"),
        (["好", " ", "--corpus", "CORPUS"], "query 2 is empty"),
        (["好", "-", "--corpus", "CORPUS"], "not both"),
        (["好", "--corpus", "-"], "write the texts to a file first"),
        (["好", "--corpus", "nosuch"], "nosuch: no such file"),
        (["好", "--corpus", "EMPTY"], "no texts in it"),
        (["好", "--index", "nosuch"], "--index nosuch: no finished index there"),
        (["好", "--index", "nosuch", "--overwrite"], "give --corpus FILE, of which it is made"),
        (["好", "--corpus", "CORPUS", "--top-k", "0"], "--top-k 0: must be 1 or more"),
    ],
)
def test_what_is_wrong_is_one_line(
    model: Path,
    corpus: Path,
    arguments: list[str],
    words: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    empty = corpus.with_name("empty.txt")
    empty.touch()
    names = {"CORPUS": str(corpus), "EMPTY": str(empty)}
    assert main(["search", str(model), *(names.get(one, one) for one in arguments)]) == 2
    assert words in one_line(capsys, "")
