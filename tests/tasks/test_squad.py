"""Questions and answers in every form in which SQuAD's relatives are written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.tasks.cards import parse_card
from zhbert.tasks.examples import SpanExample
from zhbert.tasks.read import read_examples

CONTEXT = "甲公司2010年成立，乙公司2010年倒闭，丙公司2010年上市。"
CARD = parse_card(
    {"title": "t", "kind": "span", "metrics": ["f1"],
     "data": {"format": "squad", "dev": "dev", "scorer": "cjrc", "no_answer": True}},
    Path("mine.toml"),
)  # fmt: skip
Read = Callable[..., list[SpanExample]]


@pytest.fixture
def remarks() -> list[str]:
    return []


@pytest.fixture
def read(tmp_path: Path, remarks: list[str]) -> Read:
    def read(contents: Any) -> list[SpanExample]:
        text = contents if isinstance(contents, str) else json.dumps(contents)
        (tmp_path / "dev").write_text(text, encoding="utf-8")
        found = read_examples(CARD, tmp_path / "dev", "dev", remark=remarks.append)
        return [one for one in found if isinstance(one, SpanExample)]

    return read


def nested(*rows: dict[str, Any]) -> dict[str, Any]:
    paragraphs = [
        {"context": row["context"], "qas": [{k: v for k, v in row.items() if k != "context"}]}
        for row in rows
    ]
    return {"version": "1", "data": [{"title": "t", "paragraphs": paragraphs}]}


def row(**more: Any) -> dict[str, Any]:
    answers = [{"text": "2010年", "answer_start": 25}]
    return {"id": "1", "context": CONTEXT, "question": "丙哪年上市？", "answers": answers, **more}


def in_columns(table: dict[str, Any]) -> dict[str, Any]:
    """As the datasets library keeps answers."""
    answers = {key: [one[key] for one in table["answers"]] for key in ("text", "answer_start")}
    return {**table, "answers": answers}


@st.composite
def rows(draw: st.DrawFn) -> dict[str, Any]:
    context = draw(st.text("甲乙a😀", min_size=1, max_size=12))
    starts = draw(st.lists(st.integers(0, len(context) - 1), max_size=3))
    answers = [
        {"text": context[start : draw(st.integers(start + 1, len(context)))], "answer_start": start}
        for start in starts
    ]
    return {"context": context, "question": draw(st.text("谁何？", min_size=1)), "answers": answers}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tables=st.lists(rows(), min_size=1, max_size=4))
def test_nested_and_flat_rows_give_the_same_examples(
    read: Read, tables: list[dict[str, Any]]
) -> None:
    tables = [{"id": str(place), **one} for place, one in enumerate(tables)]
    flat = [in_columns(one) for one in tables]
    expected = read(nested(*tables))
    assert [one.starts for one in expected] == [
        tuple(answer["answer_start"] for answer in one["answers"]) for one in tables
    ]
    for form in (flat, tables, {"data": flat}, json.dumps(flat, indent=2)):
        assert read(form) == expected
    lines = "\n\n".join(json.dumps(one, ensure_ascii=False) for one in flat)
    assert read(lines) == expected


def test_rows_may_hold_paragraphs_and_go_without_ids(read: Read) -> None:
    without = {key: value for key, value in row().items() if key != "id"}
    lines = [{"header": {"dataset": "x"}}, without, without]
    found = read("\n".join(map(json.dumps, lines)))
    assert [one.id for one in found] == ["0", "1"]
    paragraph = {"context": CONTEXT, "qas": [row(id=7)]}
    assert [one.id for one in read("\n".join(map(json.dumps, [paragraph, row()])))] == ["7", "1"]


@pytest.mark.parametrize("start", [25, "25", 25.0, "25.0", [25]])
def test_a_start_is_a_number_however_it_is_spelled(
    read: Read, remarks: list[str], start: Any
) -> None:
    for answers in ([{"text": "2010年", "answer_start": start}],
                    {"text": "2010年", "answer_start": start},
                    {"text": ["2010年"], "answer_start": start}):  # fmt: skip
        assert read(nested(row(answers=answers)))[0].training_span == (25, 30)
    assert remarks == []


@pytest.mark.parametrize("start", [None, -1, "", [], float("nan")])
def test_a_start_that_is_not_given_is_looked_for(
    read: Read, remarks: list[str], start: Any
) -> None:
    answers = {"text": ["2010年"], "answer_start": start}
    assert read(nested(row(answers=answers)))[0].training_span == (3, 8)
    assert remarks == ["dev: answers found again, not where the file says: 1"]


@pytest.mark.parametrize(("unit", "encoding", "size"),
                         [("UTF-16 units", "utf-16-le", 2), ("bytes", "utf-8", 1)])  # fmt: skip
def test_starts_in_other_units_are_the_places_that_were_meant(
    read: Read, remarks: list[str], unit: str, encoding: str, size: int
) -> None:
    context = "😀" + CONTEXT
    start = len(context[:26].encode(encoding)) // size
    found = read([row(context=context, answers={"text": ["2010年"], "answer_start": [start]})])
    assert found[0].training_span == (26, 31)
    assert remarks == [f"dev: answers whose places are counted in {unit}: 1"]


def test_one_answer_in_code_points_shows_that_all_are(read: Read, remarks: list[str]) -> None:
    """Byte 9 is character 3, where 2010年 stands; but the first answer was in characters."""
    later = row(id="2", answers=[{"text": "2010年", "answer_start": 9}])
    assert read([row(), later])[1].training_span == (14, 19)
    assert remarks == ["dev: answers found again, not where the file says: 1"]


@pytest.mark.parametrize("answers", [None, [], {"text": [], "answer_start": []}, "", [""],
                                     {"text": None}, [{"text": ""}]])  # fmt: skip
def test_no_answer_is_spelled_in_many_ways(read: Read, answers: Any) -> None:
    for impossible in ("true", "True", True, 1, None):
        assert read([row(answers=answers, is_impossible=impossible)])[0].kind == "none"


@pytest.mark.parametrize("impossible", [True, "true", "True", 1, 1.0])
def test_is_impossible_beside_answers_is_said(
    tmp_path: Path, remarks: list[str], impossible: Any
) -> None:
    data = dataclasses.replace(CARD.data, scorer="squad2.0")
    (tmp_path / "dev").write_text(json.dumps(row(is_impossible=impossible)))
    card = dataclasses.replace(CARD, data=data)
    found = read_examples(card, tmp_path / "dev", "dev", remark=remarks.append)
    assert getattr(found[0], "answers", None) == ("2010年",)
    assert remarks == ["dev: questions with is_impossible and with answers, which count: 1"]


def test_numbers_are_ids_and_answers(read: Read) -> None:
    found = read([row(id=1.0, answers={"text": [2010], "answer_start": [25]}), row(id=2)])
    assert [one.id for one in found] == ["1", "2"]
    assert found[0].answers == ("2010",)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        (row(answers={"text": ["2010年"], "answer_start": ["x"]}),
         'answer_start = "x": must be a whole number'),
        (row(answers={"text": ["2010年"], "answer_start": [2.5]}), "answer_start = 2.5: must be a"),
        (row(answers={"text": ["2010年"], "answer_start": [True]}), "answer_start = true: must be"),
        (row(answers={"text": ["甲", "乙"], "answer_start": [1]}), "a text must have a start"),
        (row(answers=[["甲"]]), '["甲"]: an answer must be a text, or hold one'),
        (row(context=3), "context = 3: must be a text"),
        (row(question=None), "question = null: must be a text"),
        (row(id=[1]), "a question's id is [1]: must be a text or a number"),
        ({"id": "1", "qestion": "x"}, "question and context must be there, not id, qestion"),
        ({"id": "1", "question": "x"}, "no 'context'; there: id, question"),
    ],
)  # fmt: skip
def test_a_problem_of_a_row_is_one_line_with_file_and_line(
    read: Read, table: dict[str, Any], said: str
) -> None:
    with pytest.raises(ZhbertError) as caught:
        read("\n".join(map(json.dumps, [row(id="0"), table])))
    assert "/dev:2: " in str(caught.value)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
