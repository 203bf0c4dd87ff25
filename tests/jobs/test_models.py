"""``zhbert models``: the list, one card, their JSON, and the page made from them."""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import re
from pathlib import Path

import pytest

from zhbert import cli
from zhbert.errors import ZhbertError
from zhbert.model.published import (
    commands_here,
    commands_in_transformers,
    describe,
)
from zhbert.zoo.catalogue import ModelCard, cards, known_card

ROOT = Path(__file__).parent.parent.parent
NAMES = [card.name for card in cards()]


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def models(*arguments: str) -> int:
    return cli.main(["models", *arguments])


# -- one card ----------------------------------------------------------------------------------


def test_a_card_says_all_that_a_user_asks(capsys: pytest.CaptureFixture[str]) -> None:
    assert models("RBT3") == 0
    captured = capsys.readouterr()
    assert captured.err == ""
    lines = [line.rstrip() for line in captured.out.splitlines()]
    assert lines[0] == "RBT3"
    text = re.sub(r"\s+", " ", captured.out)
    for part in (
        "name rbt3 ",
        "also called chinese-rbt3, hfl/rbt3 ",
        "by HFL (HIT and iFLYTEK joint lab); listed in chinese-bert-wwm",
        "trained on Chinese Wikipedia + general data",
        "licence not stated",
        "3 layers, 768 wide, 12 heads, 512 positions (small)",
        "vocabulary 21,128 pieces ",
        "38,476,800 counted from the shape; with both heads of pretraining 39,091,594.",
        "The published 38M is the count without the heads, rounded.",
        "use Bert classes, not Roberta's.",
        "first 3 layers of RoBERTa-wwm-ext",
        "zhbert recipes show rbt3",
        "hub hfl/rbt3",
        "WARNING The published files hold no trained mask-filling head",
        "zhbert download rbt3 --out rbt3",
        '>>> zhbert.BertModel.from_pretrained("rbt3")',
        '>>> transformers.BertModel.from_pretrained("hfl/rbt3")',
        '>>> transformers.BertTokenizer.from_pretrained("hfl/rbt3")',
    ):
        assert part in text
    assert '  zhbert fill rbt3 "使用语言[MASK][MASK]来预测。"' in lines


@pytest.mark.parametrize("name", NAMES)
def test_every_card_keeps_to_eighty_columns(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert models(name) == 0
    lines = capsys.readouterr().out.splitlines()
    # What is there to be copied is not broken: an address, a line of Python.
    free = [line for line in lines if not re.match(r"\w+ +https://|  >>> |  zhbert ", line)]
    assert all(len(line) <= 80 for line in free)
    assert all(line.strip() != "None" and "  None" not in line for line in lines)
    assert "\x1b" not in "".join(lines)


def test_a_card_that_is_no_bert_names_the_class_and_no_way_to_open_it_here(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert models("stsb-multi_L-12_H-768_A-12") == 0
    text = capsys.readouterr().out
    assert "XLMRobertaModel" in text
    assert "Not a BERT" in text
    assert "zhbert fill" not in text
    assert "zhbert.BertModel" not in text
    card = known_card("stsb_L-12_H-768_A-12")
    assert commands_here(card) == [f"zhbert download {card.name} --out {card.name}"]
    assert commands_in_transformers(card)[0].startswith(">>> transformers.RobertaModel.")


def test_an_unknown_name_is_one_line_with_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    assert models("rtb3") == 2
    assert capsys.readouterr().err == (
        "zhbert: error: no model 'rtb3'; did you mean 'rbt3' or 'rbtl3'?; "
        "'zhbert models' lists them all\n"
    )
    with pytest.raises(ZhbertError, match=r"^no model 'llama'; 'zhbert models' lists them all$"):
        known_card("llama")


# -- the list ----------------------------------------------------------------------------------


def test_the_list_is_a_table_of_eighty_columns(capsys: pytest.CaptureFixture[str]) -> None:
    assert models() == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", *NAMES]
    assert all(len(line) <= 80 for line in (*lines, *captured.err.splitlines()))
    assert "\x1b" not in captured.out
    row = next(line.split() for line in lines if line.startswith("bert_tiny_cn"))
    assert row == ["bert_tiny_cn", "cn", "2x128", "3.2M", "bert-chinese", "pt", "tf"]
    row = next(line.split() for line in lines if line.startswith("chinese-bert-wwm-ext"))
    assert row == ["chinese-bert-wwm-ext", "cn", "12x768", "102.3M", "chinese-bert-wwm", "hub"]
    assert captured.err.startswith("33 of 33 models")
    assert "Not BERTs" in captured.err


def test_a_narrow_window_keeps_the_names_whole(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "70")
    assert models("--quiet") == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["model", *NAMES]
    assert all(line.rstrip().endswith(("forms", "here", "pt", "tf", "hub")) for line in lines)


@pytest.mark.parametrize(
    ("filters", "number"),
    [
        (["--language", "cn"], 26),
        (["--language", "global"], 3),
        (["--size", "large"], 7),
        (["--source", "chinese-bert-wwm"], 10),
        (["--language", "cn", "--size", "small", "--source", "chinese-bert-wwm"], 2),
        (["--language", "en", "--size", "tiny"], 0),
    ],
)
def test_filters_narrow_the_list(
    filters: list[str], number: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert models(*filters, "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert len(found) == number
    wanted = dict(zip((f.removeprefix("--") for f in filters[::2]), filters[1::2], strict=True))
    assert all(card[key] == value for card in found for key, value in wanted.items())
    assert models(*filters, "--quiet") == 0
    captured = capsys.readouterr()
    assert len(captured.out.splitlines()) == number + 1
    assert captured.err == ""


def test_a_name_with_a_filter_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert models("rbt3", "--size", "tiny") == 2
    assert "give a name or filters, not both" in capsys.readouterr().err


# -- JSON --------------------------------------------------------------------------------------


def test_json_is_a_list_of_objects_and_one_object_for_a_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert models("--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [one["name"] for one in listed] == NAMES
    assert models("hfl/rbt3", "--json") == 0
    one = json.loads(capsys.readouterr().out)
    assert one == next(card for card in listed if card["name"] == "rbt3")
    fields = {field.name for field in dataclasses.fields(ModelCard)}
    assert fields < set(one)
    assert all(set(card) == set(one) for card in listed)
    assert one["parameters"] == "38M"
    assert one["parameters_counted"] == 38_476_800
    assert one["parameters_counted_with_heads"] == 39_091_594
    assert one["licence"] is None
    assert one["forms"] == ["hub", "paddle"]
    assert one["transformers_classes"] == ["BertModel", "BertTokenizer"]
    assert "not Roberta's" in one["class_remark"]
    assert describe(known_card("bert-base-chinese"))["head_warning"] is None


# -- the page ----------------------------------------------------------------------------------


def test_the_page_of_all_models_is_what_the_cards_give() -> None:
    tool = ROOT / "tools" / "make_models_page.py"
    if not tool.exists():  # the wheel is tested without the source tree
        return
    spec = importlib.util.spec_from_file_location("make_models_page", tool)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    text = (ROOT / "docs" / "models.md").read_text(encoding="utf-8")
    assert module.page() == text, "run python tools/make_models_page.py"
    rows = [line for line in text.splitlines() if line.startswith("| `")]
    assert [row.split("`")[1] for row in rows] == NAMES
    assert len({row.count(" | ") for row in rows}) == 1
