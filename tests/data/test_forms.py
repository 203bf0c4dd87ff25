"""What a file is, is told by its first bytes: one set of documents, in every form, reads alike."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from tests.data.test_blocks import PACKERS, Read, write

from zhbert.data.read_options import ReadOptions
from zhbert.data.sources import find_sources
from zhbert.data.texts import read_lines, read_texts
from zhbert.errors import ZhbertError
from zhbert.signatures import no_text

Documents = list[list[str]]

LINES = st.text(
    st.sampled_from("今天气很好，。！“”\"'、\u3000 ab,;\t12<>&{}[]\\/:爨\u2028"),
    min_size=1,
    max_size=20,
).filter(lambda line: line.strip(' \u3000\t\u2028"') != "" and line == line.strip())
DOCUMENTS = st.lists(st.lists(LINES, min_size=1, max_size=4), min_size=1, max_size=5)


def as_text(documents: Documents) -> str:
    return "\n\n".join("\n".join(lines) for lines in documents) + "\n"


def as_json_lines(documents: Documents) -> str:
    return "".join(json.dumps({"id": 1, "text": "\n".join(d)}) + "\n" for d in documents)


def as_table(documents: Documents, **options: Any) -> str:
    file = io.StringIO()
    table = csv.writer(file, **options)
    table.writerow(["id", "text"])
    table.writerows([str(number), "\n".join(d)] for number, d in enumerate(documents))
    return file.getvalue()


def as_articles(documents: Documents) -> str:
    title = '题目 "一" & 二'
    return "".join(
        f'<doc id="{number}" url="https://example.org/?curid={number}" title="{title}">\n'
        + f"{title}\n\n"
        + "\n".join(lines)
        + "\n\n</doc>\n"
        for number, lines in enumerate(documents)
    )


FORMS: dict[str, tuple[str, Callable[[Documents], str]]] = {
    "JSON lines": ("wiki_00", as_json_lines),
    "an array of objects": (
        "a.json",
        lambda documents: json.dumps([{"text": "\n".join(d)} for d in documents], indent=1),
    ),
    "an array of strings": (
        "a.txt",
        lambda documents: json.dumps(["\n".join(d) for d in documents], ensure_ascii=False),
    ),
    "objects over several lines": (
        "a.json",
        lambda documents: "\n".join(
            json.dumps({"text": "\n".join(d)}, indent=2) for d in documents
        ),
    ),
    "csv": ("a.csv", as_table),
    "csv with semicolons": ("a.csv", lambda documents: as_table(documents, delimiter=";")),
    "tsv": ("a.tsv", lambda documents: as_table(documents, delimiter="\t")),
    "WikiExtractor": ("wiki_00", as_articles),
}


def plain_lines(lines: list[str]) -> bool:
    """Whether txt can hold these: nothing that a first line could be taken for."""
    return lines[0][0] not in "{[<"


@pytest.mark.parametrize("form", FORMS)
@given(documents=DOCUMENTS)
@example(documents=[['他说："好', "不"], ['"'], ["<a>&amp;"]])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_the_same_documents_in_every_form(tmp_path: Path, form: str, documents: Documents) -> None:
    name, spelled = FORMS[form]
    read = Read(write(tmp_path / name, spelled(documents)))
    assert read.lines == documents
    assert not read.places


@pytest.mark.parametrize(
    "encoding", ["gb18030", "gbk", "utf-16", "utf-16-be", "utf-32", "utf-8-sig"]
)
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
@given(documents=DOCUMENTS.filter(lambda documents: plain_lines(documents[0])))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
def test_the_same_documents_in_every_encoding(
    tmp_path: Path, encoding: str, ending: str, documents: Documents
) -> None:
    # GBK has no U+2028.
    text = as_text(documents).replace("\u2028", "龘").replace("\n", ending)
    file = write(tmp_path / "a.txt", text.encode(encoding))
    expected = [[line.replace("\u2028", "龘") for line in lines] for lines in documents]
    assert Read(file, encoding=encoding).lines == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ending", sorted(PACKERS))
def test_forms_are_told_inside_of_every_compression_and_encoding(
    tmp_path: Path, form: str, ending: str
) -> None:
    documents = [["今天天气很好，我们去公园。", "散步。"], ["他说：“好”。"]] * 400
    name, spelled = FORMS[form]
    raw = PACKERS[ending](spelled(documents).encode("gb18030"))
    read = Read(write(tmp_path / f"{name}{ending}", raw), encoding="gb18030")
    assert read.lines == documents
    # With small blocks the same, in the same order.
    parts = Read(tmp_path / f"{name}{ending}", encoding="gb18030", block_bytes=500)
    assert parts.lines == documents
    assert len(parts.blocks) > 10


def test_parquet_is_told_by_its_first_bytes(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["一。", "二。"]}), tmp_path / "data")
    assert Read(tmp_path / "data").lines == [["一。"], ["二。"]]


# ---------------------------------------------------------------- which column, which field


@pytest.mark.parametrize(
    ("name", "content", "field", "lines"),
    [
        ("a.csv", "id,正文\n1,好\n", "正文", [["好"]]),
        ("a.csv", "1,好\n2,不好\n", "2", [["好"], ["不好"]]),
        ("a.csv", "今天，好。\n明天，好。\n", None, [["今天，好。"], ["明天，好。"]]),
        ("a.csv", "今天\n明天,好\n", None, [["今天"], ["明天,好"]]),
        ("a.csv", "text\n今天\n", None, [["今天"]]),
        ("a.txt", "id\tcontent\n1\t好\n", "content", [["好"]]),
        # Quotes that do not pair up are text: they swallow nothing.
        ("a.tsv", '1\t"好\n2\t他"好\n3\t"好"吗\n', "2", [['"好'], ['他"好'], ['"好"吗']]),
        ("a.csv", 'id,text\n1,"一\n二,""三"""\n', None, [["一", '二,"三"']]),
        ("a.jsonl", '{"c": "好"}\n', "c", [["好"]]),
        ("a.json", '["好", "不好"]', "c", [["好"], ["不好"]]),
    ],
)  # fmt: skip
def test_the_column_is_the_one_that_is_meant(
    tmp_path: Path, name: str, content: str, field: str | None, lines: Documents
) -> None:
    read = Read(write(tmp_path / name, content), field=field)
    assert read.lines == lines
    assert not read.places


@pytest.mark.parametrize(
    ("name", "content", "place"),
    [
        ("a.csv", "id,content\n1,好\n", "no column 'text' in its first line: id, content; --field"),
        ("a.csv", "id,内容\n1,好\n".encode("gbk"), "its first line is not UTF-8; --encoding gb"),
        ("a.csv", "id,text\n1,好,不\n", "a.csv:2: 3 columns where the first line has 2"),
        ("a.json", '[{"t": "好"}]', "a.json:1: no field 'text'; it has: t; --field names the"),
        ("a.json", '[{"text": "好"} {"text": "好"}]', "line 1: not JSON: no comma between"),
        ("a.json", '[\n{"text": "好"},\n{"te', "line 3: not JSON"),
        ("a.json", '[{"text": "好"}', "cut short: its JSON array does not end"),
        ("a.json", '[{"a": ' + "[" * 200_000, "nested too deeply"),
        ("a.jsonl", '{"text": ' + "[" * 200_000, "nested too deeply"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_records_is_one_line(
    tmp_path: Path, name: str, content: str | bytes, place: str
) -> None:
    read = Read(write(tmp_path / name, content))
    assert any(place in found for found in read.places), read.places


def test_a_record_of_an_array_too_long_stops_reading_in_bounded_memory(tmp_path: Path) -> None:
    raw = json.dumps([{"text": "好"}, {"text": "x" * 3_000_000}])
    read = Read(write(tmp_path / "a.json", raw), document_bytes=1000)
    assert "longer than" in read.places[0]
    assert read.lines == [["好"]]


# ---------------------------------------------------------------- WikiExtractor


def test_articles_have_neither_tags_nor_their_repeated_titles(tmp_path: Path) -> None:
    text = (
        '<doc id="1" url="u" title="数学 &amp; &quot;逻辑&quot;">\n'
        '数学 & "逻辑"\n\n数学 & "逻辑"\n\n一。\n\n'
        '数学 & "逻辑"\n</doc>\n'
        '<doc id="2" url="u" title="空">\n空\n\n\n</doc>\n'
        '<doc id="3" url="u" title="三">\n没有题目。</doc>\n'
        '<doc id="4" url="u" title="四">\n四\n\n没有结尾。\n<doc id="5">\n五。\n</doc>\n外面。\n'
    )
    read = Read(write(tmp_path / "wiki_00", text))
    assert read.lines == [
        ["一。", '数学 & "逻辑"'], ["没有题目。"], ["没有结尾。"], ["五。"], ["外面。"]
    ]  # fmt: skip
    assert read.counts["documents.empty"] == 1
    assert read.places == ["wiki_00:10: an empty document"]


@pytest.mark.parametrize("between", ["\n", ""])
def test_of_sogou_news_only_titles_and_texts_are_read(tmp_path: Path, between: str) -> None:
    text = "".join(
        between.join(
            ("<doc>", f"<url>http://a.cn/?b={n}</url>", f"<docno>{n}f-a</docno>",
             f"<contenttitle>题目{n}</contenttitle>", f"<content>{body}</content>", "</doc>\n")
        )
        for n, body in enumerate(["一。<b", "", "三。"])
    )  # fmt: skip
    read = Read(write(tmp_path / "news.txt", text.encode("gb18030")), encoding="gbk")
    assert read.lines == [["题目0", "一。<b"], ["题目1"], ["题目2", "三。"]]
    assert read.counts["told.SogouCS' articles"] == 1


def test_a_broken_line_of_an_article_leaves_its_neighbours(tmp_path: Path) -> None:
    raw = '<doc id="1" title="a">\na\n\n一。\n坏\n二。\n</doc>\n'.encode().replace(
        "坏".encode(), b"\xff"
    )
    read = Read(write(tmp_path / "wiki_00", raw))
    assert read.lines == [["一。", "二。"]]
    assert read.places == ["wiki_00:5: not UTF-8"]
    assert read.counts["lines.broken_utf8"] == 1
    assert read.counts["lines.found"] == 3 + read.counts["lines.blank"]


def test_a_long_article_is_split_and_counted(tmp_path: Path) -> None:
    text = as_articles([["一二三。"] * 1000])
    read = Read(write(tmp_path / "wiki_00", text), document_bytes=500)
    assert sum(map(len, read.lines)) == 1000
    assert read.counts["documents.split"] == len(read.documents) - 1 > 10


# ---------------------------------------------------------------- what is not read


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"PK\x03\x04\x14\0\0\0\0\0....a.txt", "a zip archive: unpack it first"),
        (b"PK\x03\x04....xl/workbook.xml", "an Excel workbook"),
        (b"PK\x03\x04....word/document.xml", "a Word document"),
        (b"%PDF-1.4\n", "a PDF"),
        (b"<!DOCTYPE html><html>", "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (("今天天气很好，我们去公园散步。" * 9).encode("utf-16-le"), "UTF-16LE, not"),
        (("今天天气很好，我们去公园散步。" * 9).encode("utf-16-be"), "UTF-16BE, not UTF-8"),
        (bytes(1000), "no text: many of its bytes are NUL"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("ending", ["", ".gz"])
def test_what_is_no_text_is_named(tmp_path: Path, raw: bytes, reason: str, ending: str) -> None:
    packed = PACKERS[ending](raw) if ending else raw
    read = Read(write(tmp_path / f"a.txt{ending}", packed))
    assert reason in read.places[0]
    assert not read.documents


def test_old_tar_files_without_a_magic_are_told(tmp_path: Path) -> None:
    import tarfile

    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("a.txt"))
    head = buffer.getvalue()[:257] + bytes(255)
    assert no_text(head) == "a tar archive: unpack it first"


def test_parquet_that_unpacks_to_gigabytes_is_refused_unread(tmp_path: Path) -> None:
    table = pa.table({"text": ["x" * 300_000_000]})
    pq.write_table(table, tmp_path / "a.parquet", compression="zstd", use_dictionary=False)
    del table
    read = Read(tmp_path / "a.parquet")
    assert "no memory holds such texts" in read.places[0]
    assert read.counts["files.damaged"] == 1


# ---------------------------------------------------------------- encodings


def test_what_an_encoding_cannot_read_is_counted_as_broken(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", "好。\n".encode("gbk") + b"\xff\n" + "好。\n".encode("gbk"))
    read = Read(file, encoding="gbk")
    assert read.lines == [["好。", "好。"]]
    assert read.places == ["a.txt:2: not GBK"]


@pytest.mark.parametrize("encoding", ["nope", "hex", "rot13"])
def test_an_unknown_encoding_is_one_line(encoding: str) -> None:
    with pytest.raises(ZhbertError, match=f"--encoding {encoding}: unknown; for example: gb18030"):
        ReadOptions(encoding=encoding)


def test_a_mark_is_believed_more_than_the_option(tmp_path: Path) -> None:
    for mark in ("utf-8-sig", "utf-16", "utf-32"):
        file = write(tmp_path / "a.txt", "今天。\n".encode(mark))
        assert Read(file, encoding="gbk").lines == [["今天。"]]


@pytest.mark.parametrize("name", ["block_bytes", "document_bytes"])
def test_blocks_of_nothing_are_refused(name: str) -> None:
    for size in (0, -1):
        with pytest.raises(ZhbertError, match=f"{name} = {size}: must be 1 or more"):
            ReadOptions(**{name: size})  # type: ignore[arg-type]


# ---------------------------------------------------------------- text without documents


@pytest.mark.parametrize("form", FORMS)
def test_lines_and_texts_are_those_of_the_records(tmp_path: Path, form: str) -> None:
    name, spelled = FORMS[form]
    documents = [["今天，好。", "明天。"], ["后天。"]]
    file = write(tmp_path / name, spelled(documents))
    found = [line for lines in read_lines(file) for line in lines]
    assert [line for line in found if line] == [line for lines in documents for line in lines]
    texts = "".join(read_texts(find_sources([file]), ReadOptions()))
    assert [line for line in texts.split("\n") if line] == [line for line in found if line]


@pytest.mark.parametrize("raw", ["今天天气\n很好\n".encode("gbk"), b"[\n" + b'{"text": "\xff"}]'])
def test_nothing_broken_passes_where_nothing_may_be_left_out(tmp_path: Path, raw: bytes) -> None:
    file = write(tmp_path / "a.txt", raw)
    for read in (
        lambda: list(read_lines(file)),
        lambda: list(read_texts(find_sources([file]), ReadOptions())),
    ):
        with pytest.raises(ZhbertError, match=r"a\.txt:\d: not UTF-8; .*iconv -f GB18030"):
            read()
