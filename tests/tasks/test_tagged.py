"""Sentences with tags, in all forms in which others write them."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.tasks.card import TaskCard
from zhbert.tasks.cards import parse_card
from zhbert.tasks.entity_spans import SpanReader, cluener_label, tags_of
from zhbert.tasks.examples import Example, TagExample
from zhbert.tasks.read import read_examples
from zhbert.tasks.schemes import scheme_of

Read = Callable[..., list[tuple[str, ...]]]


def tag_card(form: str = "jsonl", language: str = "zh", **data: object) -> TaskCard:
    table: dict[str, Any] = {"format": form, "dev": "dev", "labels": ["name", "地名"], **data}
    return parse_card(
        {"title": "t", "kind": "tag", "metrics": ["f1"], "language": language, "data": table},
        Path("mine.toml"),
    )


@pytest.fixture
def remarks() -> list[str]:
    return []


@pytest.fixture
def read(tmp_path: Path, remarks: list[str]) -> Read:
    """Each sentence's tokens with their tags, as in 李/B-name."""

    def read(contents: Any, card: TaskCard | None = None) -> list[tuple[str, ...]]:
        if not isinstance(contents, str | bytes):
            lines = contents if isinstance(contents, list) else [contents]
            contents = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        path = tmp_path / "dev"
        path.write_bytes(contents.encode() if isinstance(contents, str) else contents)
        examples = read_examples(card or tag_card(), path, "dev", remark=remarks.append)
        return [shown(one) for one in examples]

    return read


def shown(example: Example) -> tuple[str, ...]:
    assert isinstance(example, TagExample)
    assert example.tags is not None
    return tuple(map("/".join, zip(example.tokens, example.tags, strict=True)))


LI_BAI = ("李/B-name", "白/I-name", "到/O", "成/B-地名", "都/I-地名")

# -- the same sentence in every form ---------------------------------------------------------------

SPANS = [{"start": 0, "end": 2, "text": "李白", "labels": ["name"]},
         {"start": 3, "end": 5, "text": "成都", "labels": ["地名"]}]  # fmt: skip
RECORDS: dict[str, Any] = {
    "CLUENER": {"text": "李白到成都",
                "label": {"name": {"李白": [[0, 1]]}, "地名": {"成都": [[3, 4]]}}},
    "Doccano's label": {"id": 7, "text": "李白到成都", "label": [[0, 2, "name"], [3, 5, "地名"]]},
    "Doccano's labels": {"text": "李白到成都", "labels": [[3, 5, "地名"], [0, 2, "name"]]},
    "Doccano's objects": {"id": 1, "text": "李白到成都", "relations": [], "entities": [
        {"id": 1, "label": "name", "start_offset": 0, "end_offset": 2},
        {"id": 2, "label": "地名", "start_offset": "3", "end_offset": 5.0}]},
    "Label Studio": {"id": 1, "data": {"text": "李白到成都"}, "annotations": [
        {"was_cancelled": False, "result": [
            {"type": "labels", "from_name": "l", "to_name": "text", "value": value}
            for value in SPANS]}]},
    "Label Studio's JSON_MIN": {"id": 1, "text": "李白到成都", "label": SPANS, "annotator": 1},
    "tokens": {"id": "0", "tokens": list("李白到成都"),
               "ner_tags": ["B-name", "I-name", "O", "B-地名", "I-地名"]},
    "tokens and numbers": {"tokens": list("李白到成都"), "ner_tags": [1, 2, 0, 3, 4]},
}  # fmt: skip
LINES = {
    "a blank": "李 B-name\n白 I-name\n到 O\n成 B-地名\n都 I-地名\n",
    "tabs": "李\tB-name\n白\tI-name\n到\tO\n成\tB-地名\n都\tI-地名\n",
    "blanks and CRLF": "李   B-name\r\n白  I-name\r\n到 O  \r\n成 B-地名\r\n都 I-地名\r\n  \r\n",
    "old Mac": "李 B-name\r白 I-name\r到 O\r成 B-地名\r都 I-地名\r\r",
    "a sentence a line": "李/B-name 白/I-name  到/O 成/B-地名 都/I-地名 \n",
    "documents": "-DOCSTART- O\n\n李 B-name\n白 I-name\n到 O\n成 B-地名\n都 I-地名\n",
}


@pytest.mark.parametrize("record", RECORDS.values(), ids=RECORDS)
def test_every_form_of_spans_says_the_same(read: Read, remarks: list[str], record: Any) -> None:
    assert read([record]) == [LI_BAI]
    assert read(json.dumps([record], indent=2)) == [LI_BAI]
    assert read(json.dumps([record]), tag_card("bio")) == [LI_BAI]
    assert remarks == []


@pytest.mark.parametrize("lines", LINES.values(), ids=LINES)
def test_every_form_of_lines_says_the_same(read: Read, lines: str) -> None:
    for card in (tag_card("bio"), tag_card("jsonl")):
        assert read(lines, card) == [LI_BAI]


def test_columns_are_chosen_by_number(read: Read) -> None:
    lines = "李 NR 0 B-name\n白 NR 1 I-name\n\n到 V 2 O\n"
    assert read(lines, tag_card("bio", text=0, label=3)) == [LI_BAI[:2], LI_BAI[2:3]]
    swapped = "B-name\t李\nI-name\t白\nO\t到\n"
    assert read(swapped, tag_card("bio", text=1, label=0)) == [LI_BAI[:3]]


@st.composite
def sentences(draw: st.DrawFn) -> tuple[str, list[tuple[str, int, int]]]:
    """A text of characters of one, two and four bytes and UTF-16 units, and its entities."""
    text = draw(st.text("甲乙a𠀀 ", min_size=1, max_size=15).filter(str.strip))
    found, at = [], 0
    for gap, length in draw(st.lists(st.tuples(st.integers(0, 3), st.integers(1, 4)))):
        if at + gap + length <= len(text):
            kind = draw(st.sampled_from(["name", "地名"]))
            found.append((kind, at + gap, at + gap + length))
            at += gap + length
    return text, found


@given(sentences(), st.sampled_from(["BIO", "BIOES", "BMES"]))
def test_cluener_doccano_and_label_studio_give_the_same_rows(
    sentence: tuple[str, list[tuple[str, int, int]]], scheme: str
) -> None:
    text, found = sentence
    card = tag_card(scheme=scheme)
    utf16 = [len(text[:place].encode("utf-16-le")) // 2 for place in range(len(text) + 1)]
    forms = [
        {"text": text, "label": cluener_label(list(text), found)},
        {"text": text, "label": [[start, end, kind] for kind, start, end in found]},
        {"data": {"text": text}, "annotations": [{"result": [
            {"value": {"start": utf16[start], "end": utf16[end], "labels": [kind],
                       "text": text[start:end]}} for kind, start, end in found
        ]}]},
    ]  # fmt: skip
    tags = tuple(scheme_of(card.data.labels).tags(len(text), found))

    # In UTF-16 units a place may be another's in code points: where a text stands once only.
    places = [(text.find(text[start:end]), text.rfind(text[start:end])) for _, start, end in found]
    once = all(first == last for first, last in places)
    for form in forms if once else forms[:2]:
        record = SpanReader("zh", card.data.labels, Counter()).read(form, "x")
        assert record is not None
        assert tags_of(record, scheme_of(card.data.labels), "x") == tags


# -- what is repaired, and said --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "remark"),
    [
        ({"text": "李白到成都", "label": {"name": {"李白": [[0, 2]]}, "地名": {"成都": [[3, 5]]}}},
         "spans whose ends are not included, told from their texts: 2"),
        ({"text": "李白到成都", "label": {"name": {"李白": [[1, 2]]}, "地名": {"成都": [[3, 4]]}}},
         "spans found again, not where the file says: 1"),
        ({"text": "李白到成都", "label": [[0, 2, "name"], [0, 1, "name"], [3, 5, "地名"],
                                          [4, 5, "name"], [0, 2, "name"]]},
         "spans that lie inside or across another, left out: 2"),
        ({"data": {"text": "李白到成都"}, "annotations": [
            {"was_cancelled": True, "result": []},
            {"result": [*({"value": span} for span in SPANS), {"type": "choices", "value": {}}]}]},
         "cancelled annotations, not read: 1"),
        ({"data": {"content": "李白到成都"}, "completions": [
            {"result": [{"value": span} for span in SPANS]}, {"result": []}]},
         "further annotations of a task, of which the first is read: 1"),
        ({"text": "李白到成都", "label": [
            {"start": 0, "end": 2, "labels": ["name", "地名"]}, *SPANS[1:]]},
         "spans of several types, of which the first is read: 1"),
    ],
)  # fmt: skip
def test_what_is_repaired_or_left_out_is_counted(
    read: Read, remarks: list[str], record: Any, remark: str
) -> None:
    assert read([record]) == [LI_BAI]
    assert f"dev: {remark}" in remarks


@pytest.mark.parametrize("unit", ["utf-16-le", "utf-8"])
def test_places_in_other_units_are_told_from_the_texts(
    read: Read, remarks: list[str], unit: str
) -> None:
    text = "😀😀李白见李白"
    place = len(text[:5].encode(unit)) // (2 if unit == "utf-16-le" else 1)
    record = {"text": text, "label": [
        {"start": place, "end": place + 2, "text": "李白", "labels": ["name"]}
    ]}  # fmt: skip
    assert [tag[-1] for tag in read([record])[0]] == list("OOOOOee")
    name = "UTF-16 units" if unit == "utf-16-le" else "bytes"
    assert remarks == [f"dev: spans whose places are counted in {name}: 1"]


def test_tasks_that_nobody_annotated_are_left_out_and_counted(
    read: Read, remarks: list[str]
) -> None:
    assert read([{"data": {"text": "甲"}, "annotations": []}, RECORDS["Label Studio"]]) == [LI_BAI]
    assert remarks == ["dev: tasks without an annotation, left out: 1"]


def test_english_spans_are_widened_to_words(read: Read, remarks: list[str]) -> None:
    record = {"text": "Li Bai went to Chengdu.", "label": [[0, 6, "name"], [15, 22, "地名"]]}
    assert read([record], tag_card(language="en")) == [
        ("Li/B-name", "Bai/I-name", "went/O", "to/O", "Chengdu./B-地名")
    ]
    assert remarks == ["dev: spans that begin or end inside a word, widened to it: 1"]


def test_tags_that_break_a_strict_scheme_are_counted(read: Read, remarks: list[str]) -> None:
    read("李 B-name\n白 I-name\n到 O\n", tag_card("bio", scheme="BIOES"))
    assert remarks == ["dev: tags that do not keep to BIOES, of no entity: 2"]


# -- what is refused -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"text": "李白", "label": [[0, 3, "name"]]}, 'the span 0 to 3 ("name") is not in its'),
        ({"text": "李白", "label": [[2, 1, "name"]]}, "the span 2 to 1"),
        ({"text": "李白", "label": [[-1, 1, "name"]]}, "the span -1 to 1"),
        ({"text": "李白", "label": [[0, 2, "nane"]]},
         "the type \"nane\" is not in the card; did you mean 'name'?"),
        ({"text": "李白", "label": {"name": {"杜甫": [[0, 1]]}}},
         '"杜甫" does not stand in its text'),
        ({"text": "李白", "label": {"name": [[0, 1]]}}, "must be {entity: [[first, last]]}"),
        ({"text": "李白", "label": {"name": {"李白": [[0]]}}}, "[0]: must be [first, last]"),
        ({"text": "李白", "label": [["a", 1, "name"]]}, "a span's ends must be whole numbers"),
        ({"text": "李白", "label": [[0, 1]]}, "[0, 1]: must be [start, end, type]"),
        ({"text": "李白", "label": [{"start": 0, "end": 1}]}, "must have a start, an end and a"),
        ({"text": "李白"}, "no 'label' with the spans; there: text"),
        ({"sentences": "李白"}, "no 'tokens' and no 'text'; there: sentences"),
        ({"tokens": ["李", "白"], "ner_tags": ["O"]}, "1 tags for 2 tokens"),
        ({"tokens": ["李"], "ner_tags": ["X"]}, 'the tag "X" is not in the card'),
        ({"tokens": ["李"], "ner_tags": [9]}, "the tag 9 is not in the card"),
    ],
)  # fmt: skip
def test_a_problem_is_one_line_with_file_and_line(read: Read, record: Any, said: str) -> None:
    with pytest.raises(ZhbertError) as caught:
        read([RECORDS["CLUENER"], record])
    assert "/dev:2: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
