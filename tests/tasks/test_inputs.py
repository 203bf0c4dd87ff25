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
from zhbert.tasks.cards import card_names, load_card, parse_card
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.read import find_file, read_examples, read_inputs
from zhbert.tasks.sources import StandardInput

PAIRS = "lcqmc"
SINGLE = "chnsenticorp"


def opened(card: Any, kind: str = "") -> Any:
    """As much of a fine-tuned model as reading needs."""
    labels = () if card is None else card.data.labels
    return SimpleNamespace(card=card, kind=KINDS[kind or card.kind], labels=labels)


def stdin(text: str | bytes) -> StandardInput:
    return StandardInput(io.BytesIO(text.encode() if isinstance(text, str) else text))


def read(model: Any, source: Any) -> tuple[list[Any], list[str]]:
    remarks: list[str] = []
    found = read_inputs(model.kind, model.card, model.labels, source, remark=remarks.append)
    return list(found), remarks


def bare(example: Any) -> dict[str, Any]:
    """Without what only a labelled file has."""
    labels = ("label", "value", "tags", "answers", "starts", "kind", "relevant", "passages")
    return {k: v for k, v in dataclasses.asdict(example).items() if k not in labels}


def refusal(model: Any, source: Any) -> str:
    with pytest.raises(ZhbertError) as caught:
        read(model, source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


SAMPLES = Path(__file__).parent / "samples"
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


def test_csv_through_stdin_to_a_task_of_tsv_is_cut_as_csv() -> None:
    text = 'text,text_pair\n"一,二",三\n'
    assert bare(read(opened(load_card(PAIRS)), stdin(text))[0][0])["text"] == "一,二"


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
        assert remarks == ["in.txt: blank lines left out: 2; an id is a line's number, from 0"]


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


@pytest.mark.parametrize(
    ("kind", "record"), [("span", {"question": "谁？", "context": "甲"}), ("tag", {"text": "甲"})]
)
def test_an_id_is_the_records_own_or_its_number_and_stands_there_once(
    kind: str, record: dict[str, str]
) -> None:
    model = opened(None, kind)
    ids: list[Any] = ["a", None, "b"]
    lines = [json.dumps({"id": id_, **record}) for id_ in ids]
    examples, _ = read(model, stdin("\n".join(lines)))
    assert [one.id for one in examples] == ["a", "1", "b"]
    twice = refusal(model, stdin("\n".join([*lines, lines[0]])))
    assert twice.startswith("stdin:4: ")
    assert twice.endswith("the id 'a' stands there twice")


def test_colas_test_set_has_other_columns_than_the_rest(tmp_path: Path) -> None:
    (tmp_path / "test.tsv").write_text(
        "index\tsentence\n0\tBill left.\n1\tLeft Bill?\n", encoding="utf-8"
    )
    examples, _ = read(opened(load_card("cola")), tmp_path / "test.tsv")
    assert [(one.id, one.text) for one in examples] == [("0", "Bill left."), ("1", "Left Bill?")]


def test_tagged_sentences_are_told_from_plain_ones() -> None:
    card = load_card("weibo")
    tagged, _ = read(opened(card), stdin("科0\tO\n技1\tO\n部0\tB-ORG.NAM\n\n北0\tO\n"))
    assert [one.tokens for one in tagged] == [("科", "技", "部"), ("北",)]
    plain, _ = read(opened(card), stdin("维生素 B\n很好 很好\n"))
    assert ["".join(one.tokens) for one in plain] == ["维生素 B", "很好 很好"]
    theirs = opened(None, "tag")
    theirs.labels = ("O", "B-LOC", "I-LOC")
    other, _ = read(theirs, stdin("北 B-LOC\n京 I-LOC\n好 O\n"))
    assert [one.tokens for one in other] == [("北", "京", "好")]


@pytest.mark.parametrize("as_file", [False, True])
def test_plain_texts_stay_texts_whatever_the_card(as_file: bool, tmp_path: Path) -> None:
    def found(card: Any, text: str) -> list[Any]:
        source: Any = stdin(text)
        if as_file:
            source = tmp_path / "in.txt"
            source.write_text(text, encoding="utf-8")
        return [
            (x.id, x.text, *([x.text_pair] if x.text_pair else [])) for x in read(card, source)[0]
        ]

    def own(form: str, **data: Any) -> Any:
        table = {"format": form, "dev": "d", "labels": ["0", "1"], **data}
        card = {"title": "t", "kind": "classify", "metrics": ["accuracy"], "data": table}
        return opened(parse_card(card, Path("own.toml")))

    bare = own("csv", header=False, text=0, label=1)
    text = "房间很大, 早餐也不错\n隔音差, 不会再来, 真的\n"
    assert found(bare, text) == [("0", "房间很大, 早餐也不错"), ("1", "隔音差, 不会再来, 真的")]
    assert found(bare, '"房间, 很大",1\n差,0\n') == [("0", "房间, 很大"), ("1", "差")]
    assert found(bare, '"多行\n文本",1\n差,0\n') == [("0", "多行\n文本"), ("1", "差")]
    numbered = own("tsv", text=0, text_pair=1, label=2)
    assert found(numbered, "甲\t乙\n丙\t丁\n") == [("0", "甲", "乙"), ("1", "丙", "丁")]
    assert found(numbered, "a\tb\tc\n甲\t乙\t1\n") == [("0", "甲", "乙")]
    assert found(own("tsv", text=0, label=1), "甲\n丙\n") == [("0", "甲"), ("1", "丙")]
    news = opened(load_card("thucnews"))
    assert found(news, "标题\t正文一\n") == [("0", "标题\t正文一")]
    assert found(news, "体育\t正文一\n") == [("0", "正文一")]
    titles = opened(load_card("thucnews_titles"))
    assert found(titles, "标题一\n标题二\n") == [("0", "标题一"), ("1", "标题二")]
    csv_card = own("csv", text="text", label="label")
    assert found(csv_card, "甲\r乙\n好\n") == [("0", "甲\r乙"), ("1", "好")]
    assert found(csv_card, '他说"好\n好\n') == [("0", '他说"好'), ("1", "好")]
    assert found(csv_card, "好" * 140_000 + "\n") == [("0", "好" * 140_000)]
    quoted = own("tsv", quoting=True, text="sentence", label="label")
    assert found(quoted, '"sentence"\t"label"\n"a\tb"\t"1"\n') == [("0", "a\tb")]
    score = {"format": "tsv", "dev": "d", "header": False, "text": 0, "text_pair": 1, "label": 2}
    table = {"title": "t", "kind": "regress", "metrics": ["pearson"]}
    data = {**score, "label_range": [0, 5]}
    card = opened(parse_card({**table, "data": data}, Path("own.toml")))
    assert found(card, "甲\t乙\t4.5\n") == [("0", "甲", "乙")]
    assert "3 columns" in refusal(card, stdin("甲\t乙\t丙\n"))


def test_a_table_of_texts_is_known_by_its_header() -> None:
    pairs, single = opened(load_card(PAIRS)), opened(load_card(SINGLE))
    (example,) = read(pairs, stdin("text\ttext_pair\n甲\t乙\n"))[0]
    assert (example.text, example.text_pair) == ("甲", "乙")
    (example,) = read(single, stdin("text,label\n甲,1\n"))[0]
    assert example.text == "甲"
    assert [x.text for x in read(single, stdin("text\n甲\n"))[0]] == ["text", "甲"]


def test_blank_lines_at_the_beginning_change_nothing(tmp_path: Path) -> None:
    pairs, span, tag = (opened(load_card(name)) for name in (PAIRS, "cmrc2018", "weibo"))
    own = load_card(PAIRS).data
    names = [str(own.text[0]), str(own.text_pair[0]), str(own.label[0])]
    (example,) = read(pairs, stdin("\n" + "\t".join(names) + "\n甲\t乙\t1\n"))[0]
    assert (example.text, example.text_pair) == ("甲", "乙")
    file = tmp_path / "a.jsonl"
    file.write_text('\n{"text": "甲", "text_pair": "乙"}\n', encoding="utf-8")
    assert len(read(pairs, file)[0]) == 1
    assert len(read(span, stdin('\n{"question": "a", "context": "b"}\n'))[0]) == 1
    (example,) = read(tag, stdin("\n\n\n科0\tO\n技1\tO\n"))[0]
    assert example.tokens == ("科", "技")


def test_short_sentences_are_no_tagged_tokens(tmp_path: Path) -> None:
    card = opened(load_card("weibo"))
    card.labels = ("O", "B", "I")
    for text in ("我的血型是 O\n", "我的血型是 O\n你的血型是 B\n", "血型 O\n"):
        assert ["".join(x.tokens) for x in read(card, stdin(text))[0]] == text.splitlines()
    spaces, _ = read(card, stdin("中 O\n\u3000 O\n国 O\n"))
    assert [x.tokens for x in spaces] == [("中", "\u3000", "国")]
    spaces, _ = read(card, stdin("中\tO\n \tO\n国\tO\n"))
    assert [x.tokens for x in spaces] == [("中", " ", "国")]
    assert "no 'tokens' and no 'text'; there: a" in refusal(card, stdin('{"a": 1}\n'))


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
        kind = KINDS[load_card(card).kind]
        inputs = read_inputs(kind, None, (), StandardInput(stream))
        assert next(iter(inputs)).id == "0"
        assert stream.given <= 4


def test_what_is_no_text_is_one_line() -> None:
    assert "stdin:1: not UTF-8" in refusal(opened(load_card(SINGLE)), stdin(b"\xb0\xa1\n"))
    assert "iconv -f UTF-16" in refusal(opened(load_card(SINGLE)), stdin("你好\n".encode("utf-16")))
    span = opened(load_card("cmrc2018"))
    assert "not JSON" in refusal(span, stdin("你好\n"))
    assert "stdin:1: question and context" in refusal(span, stdin('{"quesion": "a"}\n{"a": 1}\n'))
    assert read(span, stdin(""))[0] == []
    assert read(opened(load_card(SINGLE)), stdin(""))[0] == []
