"""What predict reads is what evaluate reads: every task's own files, by name and through stdin."""

from __future__ import annotations

import dataclasses
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from zhbert.errors import ZhbertError
from zhbert.jobs.predict_inputs import read_inputs
from zhbert.tasks.cards import card_names, load_card
from zhbert.tasks.read import StandardInput, find_file, read_examples

PAIRS = "lcqmc"
SINGLE = "chnsenticorp"


def opened(card: Any, kind: str = "") -> Any:
    """As much of a fine-tuned model as reading needs."""
    return SimpleNamespace(card=card, kind=SimpleNamespace(name=kind or card.kind))


def stdin(text: str | bytes) -> StandardInput:
    return StandardInput(io.BytesIO(text.encode() if isinstance(text, str) else text))


def read(model: Any, source: Any) -> tuple[list[Any], list[str]]:
    remarks: list[str] = []
    return list(read_inputs(model, source, remarks.append)), remarks


def bare(example: Any) -> dict[str, Any]:
    """Without what only a labelled file has."""
    labels = ("label", "value", "tags", "answers", "starts", "kind")
    return {k: v for k, v in dataclasses.asdict(example).items() if k not in labels}


def refusal(model: Any, source: Any) -> str:
    with pytest.raises(ZhbertError) as caught:
        read(model, source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


SAMPLES = Path(__file__).parents[1] / "tasks" / "samples"
SAMPLED = sorted(folder.name for folder in SAMPLES.iterdir() if (folder.name in card_names()))


def smallest_file(name: str, *folders: Path) -> tuple[str, Path] | None:
    card = load_card(name)
    found = [
        (split, file)
        for split in ("train", "dev")
        for folder in folders
        if folder.is_dir() and (file := find_file(card, folder, split))
    ]
    return min(found, key=lambda one: one[1].stat().st_size) if found else None


def check_own_file(name: str, split: str, file: Path) -> None:
    card = load_card(name)
    expected = [bare(one) for one in read_examples(card, file, split)]
    mine = [bare(one) for one in read(opened(card), file)[0]]
    by_id = {one["id"]: one for one in mine}
    assert len(by_id) == len(mine)
    # Rows that are left out for their label, or are another split's, are predicted, too.
    assert [by_id[one["id"]] for one in expected] == expected
    if file.suffix != ".parquet":
        piped = [bare(one) for one in read(opened(card), stdin(file.read_bytes()))[0]]
        assert piped == mine


def test_every_tasks_own_files_are_read_as_evaluate_reads_them(data: Path) -> None:
    tasks = data / "tasks"
    places = [tasks, tasks / "glue", tasks / "squad"]
    found = {name: one for name in card_names() if (one := smallest_file(name, *places))}
    assert len(found) >= 12
    for name, (split, file) in found.items():
        check_own_file(name, split, file)


@pytest.mark.parametrize("name", SAMPLED)
def test_so_are_the_samples_of_the_others(name: str) -> None:
    found = smallest_file(name, SAMPLES)
    assert found is not None
    check_own_file(name, *found)


def test_numbered_columns_under_a_header_are_found(tmp_path: Path) -> None:
    card = load_card("mrpc")
    text = "Quality\t#1 ID\t#2 ID\t#1 String\t#2 String\n1\t7\t8\tOne.\tTwo.\n0\t9\t10\tA.\tB.\n"
    for source in (tmp_path / "test.txt", tmp_path / "test.tsv", stdin(text)):
        if isinstance(source, Path):
            source.write_text(text, encoding="utf-8")
        examples, _ = read(opened(card), source)
        assert [(x.id, x.text, x.text_pair) for x in examples] == [
            ("0", "One.", "Two."),
            ("1", "A.", "B."),
        ]


def test_ids_count_the_rows_of_the_file_whatever_their_split(tmp_path: Path) -> None:
    card = load_card("stsb")
    rows = [("train", "a", 1.0), ("dev", "b", 2.0), ("train", "c", 3.0), ("dev", "d", 4.0)]
    head = ["split", "genre", "dataset", "year", "sid", "score", "sentence1", "sentence2"]
    column = card.data.split_column
    assert column
    names = [column, *(n for n in head if n != column)]
    lines = ["\t".join(names)]
    for split, text, score in rows:
        values = {column: split, "sentence1": text, "sentence2": text, "score": str(score)}
        lines.append("\t".join(values.get(name, "x") for name in names))
    file = tmp_path / "stsbenchmark.tsv"
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    dev = read_examples(card, file, "dev")
    assert [(one.id, one.text) for one in dev] == [("1", "b"), ("3", "d")]
    assert [(one.id, one.text) for one in read(opened(card), file)[0]] == [
        ("0", "a"), ("1", "b"), ("2", "c"), ("3", "d"),
    ]  # fmt: skip


def test_lines_keep_their_numbers_and_blank_ones_are_said(tmp_path: Path) -> None:
    file = tmp_path / "in.txt"
    file.write_text("很好\n\n  \n坏\n", encoding="utf-8")
    for kind, card in (("classify", SINGLE), ("tag", "weibo")):
        examples, remarks = read(opened(load_card(card), kind), file)
        assert [one.id for one in examples] == ["0", "3"]
        assert remarks == ["in.txt: blank lines left out, an id is a line's number from 0: 2"]


def test_lines_are_texts_or_pairs() -> None:
    pairs, single, unknown = (
        opened(load_card(PAIRS)),
        opened(load_card(SINGLE)),
        opened(None, "classify"),
    )
    assert [(x.text, x.text_pair) for x in read(pairs, stdin("你好\t您好\n"))[0]] == [
        ("你好", "您好")
    ]
    assert [(x.text, x.text_pair) for x in read(single, stdin("你好\t您好\n"))[0]] == [
        ("你好\t您好", None)
    ]
    assert [(x.text, x.text_pair) for x in read(unknown, stdin("你好\n你\t好\n"))[0]] == [
        ("你好", None),
        ("你", "好"),
    ]
    assert refusal(pairs, stdin("你好\t您好\t1\n")).startswith(
        "stdin:1: 3 columns: write a text, or"
    )
    assert "stdin:2: 3 columns" in refusal(unknown, stdin("好\n你好\t您好\t1\n"))
    assert "stdin:1: the model compares two texts" in refusal(pairs, stdin("你好\n"))


def test_json_lines_come_through_stdin_too() -> None:
    line = json.dumps({"text": "你", "text_pair": "您", "label": "1"}) + "\n"
    (example,) = read(opened(load_card(PAIRS)), stdin(line))[0]
    assert (example.text, example.text_pair) == ("你", "您")
    (example,) = read(opened(None, "classify"), stdin(line))[0]
    assert (example.text, example.text_pair) == ("你", "您")
    assert "no column text" in refusal(opened(load_card(SINGLE)), stdin('{"texts": "你"}\n'))
    (example,) = read(opened(load_card("weibo")), stdin('{"text": "你好"}\n'))[0]
    assert example.tokens == ("你", "好")
    (example,) = read(opened(load_card("cmrc2018")), stdin('{"question": "a", "context": "b"}\n'))[
        0
    ]
    assert (example.question, example.context) == ("a", "b")


def test_tagged_sentences_are_told_from_plain_ones() -> None:
    card = load_card("weibo")
    tagged, _ = read(opened(card), stdin("科0\tO\n技1\tO\n部0\tB-ORG.NAM\n\n北0\tO\n"))
    assert [one.tokens for one in tagged] == [("科", "技", "部"), ("北",)]
    plain, _ = read(opened(card), stdin("维生素 B\n很好 很好\n"))
    assert ["".join(one.tokens) for one in plain] == ["维生素 B", "很好 很好"]
    other, _ = read(opened(None, "tag"), stdin("北 B-LOC\n京 I-LOC\n好 O\n"))
    assert [one.tokens for one in other] == [("北", "京", "好")]


def test_no_more_of_stdin_is_read_than_is_needed() -> None:
    class Lines(io.RawIOBase):
        given = 0

        def readable(self) -> bool:
            return True

        def readline(self, size: int | None = -1) -> bytes:
            self.given += 1
            return f"第{self.given}句\n".encode() if self.given <= 100 else b""

    for card in (SINGLE, "weibo", PAIRS):
        stream = Lines()
        inputs = read_inputs(
            opened(None, load_card(card).kind), StandardInput(stream), lambda line: None
        )
        assert next(iter(inputs)).id == "0"
        assert stream.given <= 4


def test_what_is_no_text_is_one_line() -> None:
    assert "stdin:1: not UTF-8" in refusal(opened(load_card(SINGLE)), stdin(b"\xb0\xa1\n"))
    assert "iconv -f UTF-16" in refusal(opened(load_card(SINGLE)), stdin("你好\n".encode("utf-16")))
    assert "not JSON" in refusal(opened(load_card("cmrc2018")), stdin("你好\n"))
    assert read(opened(load_card(SINGLE)), stdin(""))[0] == []
