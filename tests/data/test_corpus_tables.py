"""A corpus in datasets, polars and pandas: the same rows, in the memory of its own files."""

from __future__ import annotations

import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from tests.small_corpora import make_corpus

import zhbert
from zhbert.data.examples import WholeSentenceRows
from zhbert.data.shards import Corpus
from zhbert.errors import ZhbertError

LENGTH = 24


def values(column: pa.ChunkedArray) -> int:
    """The address of the first chunk's values."""
    return column.chunk(0).values.buffers()[1].address


def mapped_files() -> list[tuple[range, str]]:
    """The addresses of this process's memory-mapped files."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("this machine does not say where files are mapped")
    found = re.findall(r"^(\w+)-(\w+) .* (/.*)$", maps.read_text(), re.MULTILINE)
    return [(range(int(first, 16), int(end, 16)), file) for first, end, file in found]


@pytest.fixture(scope="module")
def documents(corpus: Path) -> pa.Table:
    return zhbert.load_corpus(corpus)["train"]


@pytest.fixture(scope="module")
def rows(corpus: Path) -> pa.Table:
    return zhbert.load_corpus(corpus, sequence_length=LENGTH)["train"]


def test_a_row_is_a_document(corpus: Path, documents: pa.Table) -> None:
    contents = Corpus.open(corpus).shards("train")[0].contents()
    bounds = contents.document_starts
    assert documents.num_rows == contents.documents
    assert documents["pieces"].to_pylist() == [
        contents.pieces[a:b].tolist() for a, b in pairwise(bounds)
    ]


def test_rows_are_those_of_pretraining(corpus: Path, rows: pa.Table) -> None:
    opened = Corpus.open(corpus)
    cls, sep = (opened.tokenizer().id_of(mark) for mark in ("[CLS]", "[SEP]"))
    theirs = WholeSentenceRows(
        opened.shards("train"), cls_id=cls, sep_id=sep, sequence_length=LENGTH, lines=False
    )
    assert rows["row"].to_pylist() == list(range(theirs.count(0)))
    assert any(rows["document_starts"].to_pylist())
    for number, row in enumerate(rows.to_pylist()):
        expected = theirs.row(0, number, np.random.default_rng(0))
        inside = np.insert(row["pieces"], row["document_starts"], sep)
        assert expected.piece_ids.tolist() == [cls, *inside, sep]


@pytest.mark.parametrize("table", ["documents", "rows"])
@pytest.mark.parametrize("column", ["pieces", "word_starts"])
def test_the_memory_is_the_file_s_in_every_library(
    table: str, column: str, request: pytest.FixtureRequest
) -> None:
    import datasets
    import pandas
    import polars

    ours = request.getfixturevalue(table)
    address = values(ours[column])
    (file,) = (file for addresses, file in mapped_files() if address in addresses)
    assert file.endswith("train-00000.arrow")
    assert values(datasets.Dataset(ours).data[column]) == address
    frame = ours.to_pandas(types_mapper=pandas.ArrowDtype)
    assert values(frame[column].array.__arrow_array__()) == address
    assert values(polars.from_arrow(ours).to_arrow()[column]) == address


def test_datasets_need_not_copy_the_table_to_name_it(
    corpus: Path, documents: pa.Table, rows: pa.Table
) -> None:
    import datasets

    names = [datasets.Dataset(table)._fingerprint for table in (documents, documents, rows)]
    assert names[0] == names[1] != names[2]


def test_a_data_set_gives_tensors_and_is_saved(rows: pa.Table, tmp_path: Path) -> None:
    import datasets
    import torch

    table = datasets.Dataset(rows)
    pieces = table.with_format("torch")[0]["pieces"]
    assert pieces.dtype == torch.int64
    assert pieces.tolist() == rows["pieces"][0].as_py()
    table.save_to_disk(tmp_path / "saved")
    assert datasets.load_from_disk(tmp_path / "saved")["pieces"][:] == rows["pieces"].to_pylist()


def test_pieces_become_text_again(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("使用语言模型。\n\n研究生命的起源。\n", encoding="utf-8")
    zhbert.prepare([tmp_path / "text.txt"], tmp_path / "corpus", held_out=0)
    corpus = zhbert.load_corpus(tmp_path / "corpus")
    texts = [corpus.tokenizer.decode(row) for row in corpus["train"]["pieces"].to_pylist()]
    assert texts == ["使用语言模型。", "研究生命的起源。"]
    assert corpus.info["totals"]["train"]["documents"] == 2


@pytest.mark.parametrize("length", [None, LENGTH])
def test_a_split_may_be_empty(tmp_path: Path, length: int | None) -> None:
    tables = zhbert.load_corpus(
        make_corpus(tmp_path / "corpus", held_out=0), sequence_length=length
    )
    assert [*tables] == ["train", "held_out"]
    assert tables["held_out"].schema == tables["train"].schema
    assert tables["held_out"].num_rows == 0
    with pytest.raises(KeyError):
        tables["test"]


def test_damage_is_noticed(tmp_path: Path) -> None:
    folder = make_corpus(tmp_path / "corpus")
    shard = folder / "train-00000.arrow"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ZhbertError, match=r"train-00000\.arrow: "):
        zhbert.load_corpus(folder)["train"]


def test_rows_too_short_are_refused(corpus: Path) -> None:
    with pytest.raises(ZhbertError, match="at least 3 pieces"):
        zhbert.load_corpus(corpus, sequence_length=2)["train"]
