"""The texts of every form of file, with their ids; one line for what is wrong."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from zhbert.errors import ZhbertError
from zhbert.retrieval.texts import read_texts
from zhbert.tasks.sources import StandardInput

TEXTS = ["好\t的", "不好", "text"]
ROWS = [{"id": f"n{number}", "text": text} for number, text in enumerate(TEXTS)]
NUMBERED = [(str(number), text) for number, text in enumerate(TEXTS)]
NAMED = [(f"n{number}", text) for number, text in enumerate(TEXTS)]


def written(folder: Path, name: str, content: str, encoding: str = "utf-8") -> Path:
    (folder / name).write_text(content, encoding=encoding)
    return folder / name


def test_a_text_a_line_with_tabs_and_without_blank_lines(tmp_path: Path) -> None:
    said: list[str] = []
    path = written(tmp_path, "a.txt", "好\t的\n\n不好\ntext\n")
    found = list(read_texts(path, remark=said.append))
    assert found == [("0", "好\t的"), ("2", "不好"), ("3", "text")]
    assert "blank lines left out" in said[0]


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.json"])
def test_json_lines_and_lists(tmp_path: Path, name: str) -> None:
    lines = "\n".join(map(json.dumps, ROWS))
    assert list(read_texts(written(tmp_path, name, lines))) == NAMED
    assert list(read_texts(written(tmp_path, name, json.dumps(ROWS)))) == NAMED


def test_csv_and_tsv(tmp_path: Path) -> None:
    table = "label,text\n1,好\t的\n0,不好\n0,text\n"
    assert list(read_texts(written(tmp_path, "a.csv", table))) == NUMBERED
    assert list(read_texts(written(tmp_path, "a.tsv", "id\ttext\nx\t好\n"))) == [("x", "好")]


def test_parquet(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    assert list(read_texts(tmp_path / "a.parquet")) == NAMED


def test_a_field_by_name_and_by_number(tmp_path: Path) -> None:
    path = written(tmp_path, "a.tsv", "a\tb\n1\t好\n")
    assert list(read_texts(path, field="b")) == [("0", "好")]
    assert list(read_texts(path, field="2")) == [("0", "b"), ("1", "好")]


def test_stdin_in_every_form_of_text() -> None:
    for content in ("好\t的\n不好\ntext\n", "label,text\n1,好\t的\n0,不好\n0,text\n"):
        stdin = StandardInput(io.BytesIO(content.encode()))
        assert list(read_texts(stdin)) == NUMBERED


def test_another_encoding(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "好\t的\n不好\ntext\n", "gb18030")
    assert list(read_texts(path, encoding="gbk")) == NUMBERED


@pytest.mark.parametrize(
    ("name", "content", "field", "words"),
    [
        ("a.jsonl", '{"text": "好"}\n{"text": null}\n', None, 'a.jsonl:2: "text" is null: must be'),
        ("a.jsonl", '{"text": "好"}\n{"text": \n', None, "a.jsonl:2: not JSON"),
        ("a.tsv", "text\tn\n好\t1\n好\n", None, "a.tsv:3: 1 columns where the header has 2"),
        ("a.tsv", "a\tb\n好\t1\n", None, 'no column "text" or "sentence"; there: a, b; --field'),
        ("a.csv", "text,b\n好,1\n", "c", 'no column "c"; there: text, b'),
        ("a.txt", "好\n", "c", "no column 'c': it has a text a line"),
        ("a.tsv", "a\tb\n", "0", "--field 0: columns are counted from 1"),
        ("a.tsv", "a\tb\n", "3", "--field 3: it has 2 columns"),
    ],
)
def test_what_is_wrong_is_one_line(
    tmp_path: Path, name: str, content: str, field: str | None, words: str
) -> None:
    with pytest.raises(ZhbertError) as error:
        list(read_texts(written(tmp_path, name, content), field=field))
    assert words in str(error.value)


def test_gbk_without_its_name_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "a.txt", "好\n" * 9, "gb18030")
    with pytest.raises(ZhbertError, match=r"a\.txt:1: not UTF-8 .*--encoding gb18030"):
        list(read_texts(path))
