"""Shards: what is written is what is read; what is missing or altered is one line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.pretraining_loaders import loader_over

from zhbert.config import MaskingSettings
from zhbert.data.shards import (
    FORMAT,
    VERSION,
    Corpus,
    Documents,
    Shard,
    concatenate,
    merge_shards,
    write_shard,
)
from zhbert.errors import ZhbertError
from zhbert.text.tokenizer import Tokenizer

# A document is a list of lines, a line of sentences, a sentence of words, a word of pieces.
DOCUMENTS = st.lists(
    st.lists(
        st.lists(
            st.lists(
                st.lists(st.integers(0, 65_535), min_size=1, max_size=3), min_size=1, max_size=4
            ),
            min_size=1,
            max_size=3,
        ),
        min_size=1,
        max_size=3,
    ),
    min_size=1,
    max_size=5,
)


def flat(documents: list, kind: type = np.uint16) -> Documents:
    pieces: list[int] = []
    words: list[bool] = []
    starts, sentences, lines = [0], [], []
    for document in documents:
        for line in document:
            lines.append(len(pieces))
            for sentence in line:
                sentences.append(len(pieces))
                for word in sentence:
                    words += [True] + [False] * (len(word) - 1)
                    pieces += word
        starts.append(len(pieces))
    return Documents(
        np.array(pieces, kind),
        np.array(words, bool),
        np.array(starts, np.int64),
        np.array(sentences, np.int64),
        np.array(lines, np.int64),
    )


def same(first: Documents, second: Documents) -> bool:
    return all(
        getattr(first, name).tolist() == getattr(second, name).tolist()
        for name in Documents.__dataclass_fields__
    )


@given(DOCUMENTS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
def test_a_shard_holds_what_was_written(tmp_path: Path, documents: list) -> None:
    written = flat(documents)
    entry = write_shard(tmp_path / "a.arrow", written)
    shard = Shard(tmp_path / "a.arrow")
    assert same(shard.contents(), written)
    assert entry["documents"] == shard.documents == len(documents)
    assert entry["pieces"] == len(shard.pieces)
    assert entry["sentences"] == len(shard.sentence_starts())
    assert entry["lines"] == len(shard.line_starts())
    bits = np.unpackbits(shard.word_start_bits, bitorder="little")[: len(shard.pieces)]
    assert bits.tolist() == shard.word_starts().tolist()


def test_pyarrow_reads_a_shard_as_lists(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.arrow", flat([[[[[1, 2], [3]], [[4]]]], [[[[5]]], [[[6, 7]]]]]))
    with pa.memory_map(str(tmp_path / "a.arrow")) as file:
        table = pa.ipc.open_file(file).read_all()
    assert table.schema.names == ["pieces", "word_starts", "sentence_starts", "line_starts"]
    assert table.schema.field("pieces").type == pa.list_(pa.uint16())
    assert table.to_pylist() == [
        {
            "pieces": [1, 2, 3, 4],
            "word_starts": [True, False, True, True],
            "sentence_starts": [0, 3],
            "line_starts": [0],
        },
        {
            "pieces": [5, 6, 7],
            "word_starts": [True, True, False],
            "sentence_starts": [0, 1],
            "line_starts": [0, 1],
        },
    ]


def test_a_shard_is_mapped_and_read_only(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.arrow", flat([[[[[1, 2]]]]]))
    shard = Shard(tmp_path / "a.arrow")
    assert not shard.pieces.flags.writeable
    assert not shard.pieces.flags.owndata


def test_large_vocabularies_take_four_bytes_a_piece(tmp_path: Path) -> None:
    write_shard(tmp_path / "a.arrow", flat([[[[[70_000]]]]], np.uint32))
    assert Shard(tmp_path / "a.arrow").pieces.tolist() == [70_000]


@given(st.lists(DOCUMENTS, min_size=1, max_size=4), st.sampled_from([1, 30, 10_000]))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_merging_keeps_documents_and_their_order(
    tmp_path: Path, parts: list[list], limit: int
) -> None:
    paths = []
    for number, part in enumerate(parts):
        paths.append(tmp_path / f"part-{number}.arrow")
        write_shard(paths[-1], flat(part))
    entries = merge_shards(paths, tmp_path, "held_out", limit)
    merged = [Shard(tmp_path / entry["file"]).contents() for entry in entries]
    assert same(concatenate(merged), flat([document for part in parts for document in part]))
    assert entries[0]["file"] == "held_out-00000.arrow"


# ---------------------------------------------------------------- what is wrong with a folder


PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"使用语言模型来预测下一个词的概率")


def corpus(folder: Path) -> Path:
    entry = write_shard(folder / "train-00000.arrow", flat([[[[[1, 2], [3]]]]]))
    tokenizer = Tokenizer(PIECES)
    tokenizer.save_pretrained(folder)
    info = {
        "format": FORMAT,
        "version": VERSION,
        "vocabulary_size": len(PIECES),
        "tokenizer": {"fingerprint": tokenizer.fingerprint()},
        "shards": {"train": [entry], "held_out": []},
    }
    (folder / "corpus.json").write_text(json.dumps(info))
    return folder


def test_a_whole_corpus_opens_and_verifies(tmp_path: Path) -> None:
    found = Corpus.open(corpus(tmp_path))
    found.verify()
    (shard,) = found.shards("train")
    assert shard.pieces.tolist() == [1, 2, 3]
    assert list(found.shards("held_out")) == []
    assert found.vocabulary_size == len(found.tokenizer()) == len(PIECES)
    with pytest.raises(ZhbertError, match="known: train, held_out"):
        found.shards("test")


def change_info(folder: Path, **changes: object) -> None:
    info = json.loads((folder / "corpus.json").read_text())
    (folder / "corpus.json").write_text(json.dumps(info | changes))


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda f: (f / "corpus.json").unlink(), "no corpus.json: not a corpus"),
        (lambda f: ((f / "corpus.json").unlink(), (f / ".partial").mkdir()), "has not finished"),
        (lambda f: (f / "corpus.json").write_text("{"), r"corpus.json:1: not JSON"),
        (
            lambda f: (f / "corpus.json").write_text("[]"),
            "corpus.json: not the description of a zhbert corpus",
        ),
        (lambda f: change_info(f, version=0), "of format 0"),
        (lambda f: (f / "train-00000.arrow").unlink(), "is missing"),
        (lambda f: (f / "train-00000.arrow").write_bytes(b"x"), "1 bytes where"),
        (
            lambda f: (f / "train-00000.arrow").write_bytes(
                bytes((f / "train-00000.arrow").stat().st_size)
            ),
            r"00000.arrow: damaged, or not a shard",
        ),
    ],
)
def test_a_damaged_corpus_is_one_line(tmp_path: Path, damage, message: str) -> None:
    damage(corpus(tmp_path))
    with pytest.raises(ZhbertError, match=message) as caught:
        list(Corpus.open(tmp_path).shards("train"))
    assert "\n" not in str(caught.value)


def test_an_altered_shard_fails_its_checksum(tmp_path: Path) -> None:
    path = corpus(tmp_path) / "train-00000.arrow"
    raw = bytearray(path.read_bytes())
    place = raw.index(np.array([1, 2, 3], np.uint16).tobytes())
    raw[place] = 9
    path.write_bytes(raw)
    opened = Corpus.open(tmp_path)
    with pytest.raises(ZhbertError, match="checksum"):
        opened.verify()


def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(ZhbertError, match="no such folder"):
        Corpus.open(tmp_path / "nowhere")


# ---------------------------------------------------------------- a bit that has changed

SHUFFLED = "\n".join((*PIECES[:5], *reversed(PIECES[5:]))) + "\n"


@pytest.mark.parametrize(
    ("name", "text"),
    [("vocab.txt", SHUFFLED), ("tokenizer_config.json", '{"do_lower_case": false}')],
)
def test_a_corpus_is_read_with_the_tokenizer_that_made_it(
    tmp_path: Path, name: str, text: str
) -> None:
    opened = Corpus.open(corpus(tmp_path))
    (tmp_path / "tokenizer.json").unlink()
    opened.tokenizer()
    (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(ZhbertError, match=r"vocab.txt, .* is not the one that made the corpus"):
        opened.tokenizer()


def many_documents(folder: Path, *, checksums: bool) -> Path:
    """A corpus of two training shards and one set aside."""
    rng = np.random.default_rng(0)
    folder.mkdir()
    tokenizer = Tokenizer(PIECES)
    tokenizer.save_pretrained(folder)
    shards: dict[str, list[object]] = {"train": [], "held_out": []}
    for name, split in (("a.arrow", "train"), ("b.arrow", "train"), ("c.arrow", "held_out")):
        contents = flat(
            [
                [
                    [
                        [
                            rng.integers(5, len(PIECES), rng.integers(1, 3)).tolist()
                            for _ in range(6)
                        ]
                        for _ in range(2)
                    ]
                    for _ in range(2)
                ]
                for _ in range(4)
            ]
        )
        entry = write_shard(folder / name, contents)
        if not checksums:
            del entry["sha256"]
        shards[split].append(entry)
    info = {
        "format": FORMAT,
        "version": VERSION,
        "vocabulary_size": len(PIECES),
        "tokenizer": {"fingerprint": tokenizer.fingerprint()},
        "shards": shards,
    }
    (folder / "corpus.json").write_text(json.dumps(info, indent=1))
    return folder


def read_as_a_run_does(folder: Path, builder: str) -> list[np.ndarray]:
    """The rows of a few steps and of an evaluation, then what a checkpoint waits for."""
    opened = Corpus.open(folder)
    loaders = [
        loader_over(
            opened.shards(split),
            opened.tokenizer().vocabulary,
            builder=builder,
            sequence_length=12,
            batch_size=4,
            masking=MaskingSettings(max_predictions=3),
            seed=0,
        )
        for split in ("held_out", "train")
    ]
    batches = [*loaders[0].evaluation(8), *loaders[1].step(0), *loaders[1].step(1)]
    for shard in opened.shards("train"):
        shard.verify()
    arrays = []
    for batch in batches:
        rows = batch.packed
        arrays += [rows.input_ids, rows.token_type_ids, rows.cu_seqlens]
        arrays += [batch.predicted_positions, batch.labels]
    return [array.numpy() for array in arrays]


def flips(folder: Path, each: int) -> Iterator[Path]:
    """Change one bit after the other, spread over every file, and put it back."""
    for path in sorted(folder.iterdir()):
        whole = path.read_bytes()
        for number in range(each):
            bit = (number * 8 * len(whole) // each + number % 8) % (8 * len(whole))
            damaged = bytearray(whole)
            damaged[bit // 8] ^= 1 << bit % 8
            path.write_bytes(damaged)
            yield path
        path.write_bytes(whole)


@pytest.mark.parametrize("builder", ["pairs", "full-sentences", "lines"])
def test_a_flipped_bit_is_refused_in_one_line_or_changes_no_row(
    tmp_path: Path, builder: str
) -> None:
    folder = many_documents(tmp_path / "corpus", checksums=True)
    expected = read_as_a_run_does(folder, builder)
    said: list[tuple[Path, str]] = []
    harmless = 0
    for path in flips(folder, 80):
        try:
            found = read_as_a_run_does(folder, builder)
        except ZhbertError as error:
            said.append((path, str(error)))
            continue
        harmless += 1
        assert path.suffix != ".arrow"
        assert all(np.array_equal(one, two) for one, two in zip(found, expected, strict=True))
    assert len(said) > 300
    for path, line in said:
        assert "\n" not in line
        assert str(path if path.suffix == ".arrow" else folder) in line
    assert harmless < 150


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize("builder", ["pairs", "full-sentences", "lines"])
def test_without_checksums_a_flipped_bit_never_leads_outside_of_an_array(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, builder: str, native: bool
) -> None:
    if not native:
        monkeypatch.setattr("zhbert.data.row_plans._rows", None)
    folder = many_documents(tmp_path / "corpus", checksums=False)
    expected = read_as_a_run_does(folder, builder)
    outcomes = set()
    for path in flips(folder, 80):
        if path.suffix != ".arrow":
            continue
        try:
            found = read_as_a_run_does(folder, builder)
        except ZhbertError as error:
            outcomes.add("refused" if path.name in str(error) else str(error))
            continue
        ids = np.concatenate(found[::5])
        assert ids.min() >= 0
        assert ids.max() < len(PIECES)
        same = [np.array_equal(one, two) for one, two in zip(found, expected, strict=False)]
        outcomes.add("equal" if all(same) else "other rows")
    assert outcomes == {"refused", "equal", "other rows"}
