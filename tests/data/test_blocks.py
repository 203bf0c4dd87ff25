"""ReadOptions: every byte of the input ends up in a document or is counted with its place."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zhbert.data.blocks import read_blocks
from zhbert.data.outline import outline
from zhbert.data.read_options import ReadOptions
from zhbert.data.sources import find_sources
from zhbert.data.texts import read_lines
from zhbert.errors import ZhbertError

PACKERS = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda raw: zstandard.ZstdCompressor().compress(raw),
}


class Read:
    """Everything that reading some files gave."""

    def __init__(self, *files: Path | str, **options: object) -> None:
        self.reading = ReadOptions(**options)  # type: ignore[arg-type]
        self.documents: list[str] = []
        self.counts: Counter[str] = Counter()
        self.places: list[str] = []
        self.blocks: list[int] = []
        for block in read_blocks(find_sources(files), self.reading):
            found = outline(block, self.reading)
            starts, ends = found.spans(found.documents)
            pairs = zip(starts.tolist(), ends.tolist(), strict=True)
            self.documents += [found.text[a:b] for a, b in pairs]
            self.counts += block.counts + found.counts
            places = sorted([*block.places, *found.places], key=lambda p: (p.source, p.line))
            self.places += [str(place).rpartition("/")[2] for place in places]
            self.blocks.append(block.size)

    @property
    def lines(self) -> list[list[str]]:
        """The documents' lines, blank ones left out."""
        split = (document.split("\n") for document in self.documents)
        return [[line for line in lines if line.strip()] for lines in split]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


# ---------------------------------------------------------------- what a document is


@pytest.mark.parametrize(
    ("documents", "expected"),
    [
        ("blank", [["一。", "二。"], ["三。"]]),
        ("line", [["一。"], ["二。"], ["三。"]]),
        ("file", [["一。", "二。", "三。"]]),
    ],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_documents_of_text(tmp_path: Path, documents: str, end: str, expected: object) -> None:
    file = write(tmp_path / "a.txt", "\ufeff一。\n二。\n \u3000\n\n三。".replace("\n", end))
    read = Read(file, documents=documents)
    assert read.lines == expected
    assert read.counts["documents.found"] == len(read.documents) + read.counts["documents.empty"]
    assert read.counts["documents.empty"] == (2 if documents == "line" else 0)


def test_a_record_is_a_document_whatever_blank_lines_it_holds(tmp_path: Path) -> None:
    records = [{"text": "一。\n\n二。\r\n三。"}, {"text": ""}, {"text": "四。"}, {"text": " \n "}]
    raw = "\n".join(json.dumps(record) for record in records) + "\n\n"
    for documents in ("blank", "line", "file"):
        read = Read(write(tmp_path / "a.jsonl", raw), documents=documents)
        assert read.lines == [["一。", "二。", "三。"], ["四。"]]
        assert read.counts["documents.found"] == 4
        assert read.places == ["a.jsonl:2: an empty document", "a.jsonl:4: an empty document"]


def test_parquet_is_read_like_records(tmp_path: Path) -> None:
    texts = ["一。\n二。", None, "", "三。"]
    for kind in (pa.string(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())):
        table = pa.table({"正文": pa.array(texts, pa.string()).cast(kind), "n": range(4)})
        pq.write_table(table, tmp_path / "a.parquet", row_group_size=3)
        read = Read(tmp_path / "a.parquet", field="正文")
        assert read.lines == [["一。", "二。"], ["三。"]]
        assert read.places == ["a.parquet:2: no text: null", "a.parquet:3: an empty document"]
        assert read.counts["documents.found"] == 4


@pytest.mark.parametrize("ending", sorted(PACKERS))
def test_packed_files_read_like_plain_ones(tmp_path: Path, ending: str) -> None:
    raw = ("一。\n二。\n\n三。\n" * 1000).encode()
    pack = PACKERS[ending]
    plain = Read(write(tmp_path / "a.txt", raw + raw))
    # Two members one after another, as `cat a.gz b.gz` makes them.
    packed = Read(write(tmp_path / f"a.txt{ending}", pack(raw) + pack(raw)))
    assert packed.documents == plain.documents


@pytest.mark.parametrize("ending", sorted(PACKERS))
def test_a_packed_file_cut_short_gives_what_it_holds_and_its_name(
    tmp_path: Path, ending: str
) -> None:
    rng = random.Random(0)
    lines = ("".join(chr(rng.randrange(0x4E00, 0x9FA0)) for _ in range(50)) for _ in range(20_000))
    text = "\n".join(lines)
    raw = PACKERS[ending](text.encode())
    read = Read(write(tmp_path / f"a.txt{ending}", raw[: len(raw) // 2]))
    assert read.counts["files.damaged"] == 1
    assert any("cut short" in place for place in read.places)
    assert ending == ".bz2" or read.documents[0][0] == text[0]


def test_stdin_is_read_as_text_or_with_a_field_as_records(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stdin:
        def __init__(self, raw: bytes) -> None:
            self.buffer = io.BufferedReader(io.BytesIO(raw))  # type: ignore[arg-type]

    monkeypatch.setattr("sys.stdin", Stdin(gzip.compress("一。\n\n二。\n".encode())))
    assert Read("-").lines == [["一。"], ["二。"]]
    monkeypatch.setattr("sys.stdin", Stdin('{"正文": "一。"}\n'.encode()))
    assert Read("-", field="正文").lines == [["一。"]]


def test_a_folder_is_read_sorted_and_without_foreign_files(tmp_path: Path) -> None:
    for name in ("b.txt", "a/z.txt", "a/b/c.jsonl", "wiki_00", ".hidden.txt", "x.pdf", "out/v.txt"):
        write(tmp_path / name, '{"text": "一"}' if name.endswith("l") else "一")
    write(tmp_path / "corpus.zh", "今天天气很好。")
    write(tmp_path / "x.pdf", "%PDF-1.4 一二三四五六七八九")
    write(tmp_path / "run.sh", "# 今天\necho 1 > a.txt")
    found = find_sources([tmp_path], leave_out=tmp_path / "out")
    names = [str(source.path.relative_to(tmp_path)) for source in found if source.path]
    assert names == ["a/b/c.jsonl", "a/z.txt", "b.txt", "corpus.zh", "wiki_00"]
    assert found.left_out == [".hidden.txt", "run.sh", "x.pdf"]
    assert ".hidden.txt, run.sh, x.pdf (3 files)" in found.describe_left_out()


# ---------------------------------------------------------------- what cannot be read


@pytest.mark.parametrize(
    ("name", "raw", "place", "counted"),
    [
        ("a.txt", b"ok\n\xff\xfe!\nok\n", "a.txt:2: not UTF-8", "lines.broken_utf8"),
        ("a.txt", "一。".encode("utf-16"), "a.txt: UTF-16", "files.damaged"),
        ("a.txt", "abcdefgh".encode("utf-16-le"), "a.txt: UTF-16", "files.damaged"),
        ("a.txt", b"", "a.txt: empty", "files.empty"),
        ("a.txt.gz", b"plain", "a.txt.gz: named .gz", "files.damaged"),
        ("a.jsonl", b'{"text": "x"\n', "a.jsonl:1: not JSON", "documents.bad_json"),
        ("a.jsonl", b'{}\n["x"]\n', "a.jsonl:2: not a JSON object", "documents.bad_json"),
        ("a.jsonl", b'{"t": 1}\n', "a.jsonl:1: no field 'text'", "documents.missing_field"),
        ("a.jsonl", b'{"text": 3}', "a.jsonl:1: field 'text' is not", "documents.wrong_type"),
        ("a.jsonl", b'{"text": "\xff"}', "a.jsonl:1: not UTF-8", "documents.broken_utf8"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl:1: not JSON", "documents.bad_json"),
        ("a.parquet", b"PAR1 no", "a.parquet: not readable as parquet", "files.damaged"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_counted_with_its_place(
    tmp_path: Path, name: str, raw: bytes, place: str, counted: str
) -> None:
    read = Read(write(tmp_path / name, raw))
    assert any(found.startswith(place) for found in read.places), read.places
    assert read.counts[counted] == 1


def test_a_damaged_parquet_file_leaves_its_neighbours(tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": ["一。"] * 9}), tmp_path / "a.parquet")
    whole = (tmp_path / "a.parquet").read_bytes()
    # The head of its first page, for which pyarrow raises an OSError without a number.
    write(tmp_path / "a.parquet", whole[:4] + b"\xff" * 8 + whole[12:])
    read = Read(tmp_path / "a.parquet", write(tmp_path / "b.txt", "二。".encode()))
    assert read.documents == ["二。\n"]
    assert [place.partition(" as ")[0] for place in read.places] == ["a.parquet: not readable"]


def test_a_document_ends_at_its_blank_line_however_long_it_is(tmp_path: Path) -> None:
    long = "字" * 500_000  # what is read before the next block is full has no line end
    file = write(tmp_path / "a.txt", f"{long}\n \n二\n\n三\n".encode())
    read = Read(file, block_bytes=10)
    assert read.lines == [[long], ["二"], ["三"]]
    assert read.places == []


def test_a_broken_line_leaves_its_neighbours_and_their_numbers(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", b"ok\n\xff\nok\n\n\xff\n\n")
    read = Read(file, documents="line")
    assert read.documents == ["ok\n", "ok\n\n\n"]
    assert read.places == [
        "a.txt:2: not UTF-8",
        "a.txt:4: an empty document",
        "a.txt:5: not UTF-8",
        "a.txt:6: an empty document",
    ]
    assert read.counts["documents.found"] == 6
    assert read.counts["lines.broken_utf8"] == 0
    assert read.counts["documents.broken_utf8"] == 2


@pytest.mark.parametrize(
    ("column", "message"), [("other", "no column 'text'; it has other"), ("text", "holds int64")]
)
def test_parquet_without_the_text_says_what_it_has(
    tmp_path: Path, column: str, message: str
) -> None:
    pq.write_table(pa.table({column: [1, 2]}), tmp_path / "a.parquet")
    read = Read(tmp_path / "a.parquet")
    assert message in read.places[0]
    assert read.counts["files.damaged"] == 1


def test_half_a_surrogate_pair_becomes_a_replacement_and_is_counted(tmp_path: Path) -> None:
    read = Read(write(tmp_path / "a.jsonl", '{"text": "一\\ud800二\\ud83d\\ude00"}'))
    assert read.documents == ["一\ufffd二😀\n"]
    assert read.counts["characters.lone_surrogates"] == 1


def test_nul_characters_are_counted(tmp_path: Path) -> None:
    assert Read(write(tmp_path / "a.txt", "一\0二" * 3)).counts["characters.nul"] == 3


@pytest.mark.parametrize(("names", "message"), [
    (["/nowhere/a.txt"], "no such file"), (["{}"], "no text in this folder"), ([], "no input")
])  # fmt: skip
def test_missing_input_is_one_line(tmp_path: Path, names: list[str], message: str) -> None:
    with pytest.raises(ZhbertError, match=message):
        find_sources([name.format(tmp_path) for name in names])


# ---------------------------------------------------------------- blocks


def test_blocks_are_cut_at_documents_ends(tmp_path: Path) -> None:
    raw = "".join(f"第{k}篇。\n第二行。\n\n" for k in range(2000))
    file = write(tmp_path / "a.txt", raw)
    whole = Read(file)
    parts = Read(file, block_bytes=1000)
    assert len(parts.blocks) > 30
    assert max(parts.blocks) < 1100
    assert parts.lines == whole.lines
    assert parts.counts == whole.counts


def test_small_files_share_a_block(tmp_path: Path) -> None:
    files = [write(tmp_path / f"{k}.txt", f"第{k}篇。") for k in range(50)]
    read = Read(*files)
    assert len(read.blocks) == 1
    assert len(read.documents) == 50


@pytest.mark.parametrize("documents", ["blank", "line", "file"])
def test_a_document_without_end_is_split_within_bounds(tmp_path: Path, documents: str) -> None:
    for raw in (
        "一二三四。五六\n" * 3000,
        "一二三四。五六" * 3000,
        "一二三四五六" * 3000,
        "x" * 60_000,
    ):
        read = Read(
            write(tmp_path / "a.txt", raw),
            documents=documents,
            block_bytes=2000,
            document_bytes=1000,
        )
        assert max(read.blocks) <= 3000
        kept = "".join(read.documents).replace("\n", "")
        assert kept == raw.replace("\n", "")
        split = read.counts["documents.split"]
        assert split == len([place for place in read.places if "was split here" in place])
        if documents != "line" or "\n" not in raw:
            assert split == len(read.blocks) - 1 > 10
        else:
            assert split == 0


def test_a_record_too_long_is_skipped_and_its_neighbours_stay(tmp_path: Path) -> None:
    def record(size: int) -> str:
        return json.dumps({"text": "x" * size}) + "\n"

    for before in (0, 1, 50, 60):
        raw = record(5) * before + record(5000) + record(7) + record(900)
        read = Read(write(tmp_path / "a.jsonl", raw), block_bytes=1000, document_bytes=1000)
        assert [len(document) - 1 for document in read.documents] == [5] * before + [7, 900]
        assert read.counts["documents.too_long"] == 1
        assert read.counts["documents.found"] == before + 3
        (place,) = read.places
        assert place.startswith(f"a.jsonl:{before + 1}: a record longer")


BYTES = st.lists(
    st.sampled_from(
        [b"\n", b"\r\n", b"\n\n", b"\n \t\n", "\u3000\n".encode(), "。".encode(), b"ab ", b"\xff",
         "一二三".encode(), b"\xe4\xb8", b"\0", "\ufeff".encode(), b"{",
         '{"text": "一。\\n二"}'.encode()]
    ),
    max_size=40,
).map(b"".join)  # fmt: skip


@given(
    raws=st.lists(BYTES, min_size=1, max_size=3),
    name=st.sampled_from(["a.txt", "a.jsonl", "a.txt.gz"]),
    documents=st.sampled_from(["blank", "line", "file"]),
    size=st.sampled_from([1, 7, 30, 1000]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=150)
def test_every_document_and_line_is_accounted_for(
    tmp_path: Path, raws: Sequence[bytes], name: str, documents: str, size: int
) -> None:
    files = []
    for number, raw in enumerate(raws):
        packed = gzip.compress(raw) if name.endswith(".gz") else raw
        files.append(write(tmp_path / str(number) / name, packed))
    read = Read(*files, documents=documents, block_bytes=size, document_bytes=size)
    counts = read.counts
    assert counts["files.read"] == len(files)
    bad = ("broken_utf8", "bad_json", "missing_field", "wrong_type", "too_long")
    skipped = sum(counts[f"documents.{what}"] for what in bad)
    assert counts["documents.found"] == len(read.documents) + counts["documents.empty"] + skipped
    kept = sum(len(lines) for lines in read.lines)
    assert counts["lines.found"] == kept + counts["lines.blank"] + counts["lines.broken_utf8"]
    as_text = not any(raw.lstrip(b"\xef\xbb\xbf\r\n\t ").startswith(b'{"text"') for raw in raws)
    if size == 1000 and not name.endswith("jsonl") and as_text:
        # Nothing is split: the documents are what the definition says, file by file.
        assert read.lines == [doc for raw in raws for doc in slow_documents(raw, documents)]


def test_a_lines_end_goes_with_it_before_a_broken_line(tmp_path: Path) -> None:
    read = Read(write(tmp_path / "a.txt", "一。\r\n".encode() + b"\xff"))
    assert read.lines == [["一。"]]


def slow_documents(raw: bytes, documents: str) -> list[list[str]]:
    """The definition of a document, line by line."""
    if raw[:4096].count(0) > len(raw[:4096]) // 5:
        return []
    found: list[list[str]] = [[]]
    for line in raw.removeprefix(b"\xef\xbb\xbf").split(b"\n"):
        try:
            text = line.decode()
        except UnicodeDecodeError:
            continue
        if line != raw.rpartition(b"\n")[2]:
            text = text.removesuffix("\r")
        if not text.strip():
            if documents == "blank":
                found.append([])
        elif documents == "line":
            found.append([text])
        else:
            found[-1].append(text)
    return [document for document in found if document]


def test_blocks_do_not_depend_on_how_the_bytes_arrive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = (
        "".join(f"第{k}篇。\n\n" * (k % 7) + "一二三四。" * (k % 90) for k in range(400))
    ).encode()

    class Dribble(io.RawIOBase):
        def __init__(self) -> None:
            self.at = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
            part = raw[self.at : self.at + min(len(buffer), 37)]
            buffer[: len(part)] = part
            self.at += len(part)
            return len(part)

    class Stdin:
        buffer = io.BufferedReader(Dribble(), 64)

    monkeypatch.setattr("sys.stdin", Stdin)
    options = {"block_bytes": 2000, "document_bytes": 500}
    piped = Read("-", **options)
    for file in (
        write(tmp_path / "a.txt", raw),
        write(tmp_path / "a.txt.gz", gzip.compress(raw)),
        write(tmp_path / "a.txt.zst", PACKERS[".zst"](raw)),
    ):
        read = Read(file, **options)
        assert (read.blocks, read.documents) == (piped.blocks, piped.documents)


def test_equal_lines_and_documents_have_equal_hashes(tmp_path: Path) -> None:
    reading = ReadOptions()
    file = write(tmp_path / "a.txt", "一。\n二。\n\n一。\r\n二。\r\n\n二。\n一。")
    (block,) = read_blocks(find_sources([file]), reading)
    found = outline(block, reading)
    first, second, third = found.document_hashes().tolist()
    assert first == second != third
    assert len(np.unique(found.line_hashes(), axis=0)) == 2


def test_lines_come_as_they_arrive(tmp_path: Path) -> None:
    file = write(tmp_path / "a.txt", b"\xef\xbb\xbf\xe4\xb8\x80\r\nb\n" + b"x" * 3000)
    lines = [line for part in read_lines(file, longest=1000) for line in part]
    assert lines[:2] == ["一", "b"]
    assert "".join(lines[2:]) == "x" * 3000
    assert max(map(len, lines)) <= 1000
    with pytest.raises(ZhbertError, match="a folder"):
        list(read_lines(tmp_path))


@given(
    raw=st.lists(
        st.sampled_from(["使用。", "\n", "\n\n", "\n \n", "a" * 9, '{"text": "一"}\n', "\ufeff"]),
        max_size=40,
    ).map("".join),
    form=st.sampled_from(["txt", "jsonl"]),
    documents=st.sampled_from(["blank", "line", "file"]),
    block_bytes=st.sampled_from([1, 7, 40]),
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_parts_that_are_read_later_are_the_same(
    tmp_path: Path, raw: str, form: str, documents: str, block_bytes: int
) -> None:
    files = [write(tmp_path / f"{number}.{form}", raw) for number in range(2)]
    reading = ReadOptions(documents=documents, block_bytes=block_bytes, document_bytes=20)
    lines = Counter[int]()
    here = list(read_blocks(find_sources(files), reading))
    later = list(read_blocks(find_sources(files), reading, unread=True))
    for block, unread in zip(here, later, strict=True):
        first_lines = [segment.first_line for segment in block.segments]
        places = [place.line for place in block.places]
        assert (block.size, block.counts) == (unread.size, unread.counts)
        for place in unread.places:
            assert place.line + lines[place.source] * (place.line > 0) == places.pop(0)
        before = Counter(lines)
        lines.update(unread.load())
        assert [s.first_line + before[s.source] for s in unread.segments] == first_lines
        assert [s.raw for s in unread.segments] == [s.raw for s in block.segments]
        assert unread.fingerprint() == block.fingerprint()
