"""Pairs to triples: a file that a card trains on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from zhbert.cli import main
from zhbert.errors import ZhbertError
from zhbert.retrieval.hard_negatives import Mined, write_hard_negatives
from zhbert.tasks.cards import load_card
from zhbert.tasks.read import read_examples

PAIRS = [("天气好", "今天天气很好。"), ("股票跌", "股票跌了。"), ("天气好", "天气好，股票好。")]

CARD = """
title = "mined"
kind = "embed"
metrics = ["mrr@10"]
[data]
format = "jsonl"
train = ["out.jsonl"]
dev = ["out.jsonl"]
text = "text"
text_pair = "text_pair"
negative = "negative"
"""


def write_pairs(folder: Path) -> Path:
    path = folder / "pairs.tsv"
    path.write_text("".join(f"{one}\t{two}\n" for one, two in PAIRS), encoding="utf-8")
    return path


def test_a_card_reads_the_triples(model: Path, corpus: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    mined = write_hard_negatives(
        model, write_pairs(tmp_path), out, corpus=corpus, mining={"num_negatives": 2}
    )
    assert mined == Mined(out, pairs=3, triples=3, negatives=6)
    card = tmp_path / "mined.toml"
    card.write_text(CARD, encoding="utf-8")
    examples: list[Any] = read_examples(load_card(str(card)), tmp_path, "train")
    assert [example.texts[:2] for example in examples] == PAIRS
    for example in examples:
        right = {two for one, two in PAIRS if one == example.texts[0]}
        assert len(example.texts) == 4
        assert not right & {*example.texts[2:]}


def test_pairs_without_negatives_are_left_out(model: Path, tmp_path: Path) -> None:
    pairs = write_pairs(tmp_path)
    pairs.write_text("猫\t猫在睡觉\n猫\t狗在睡觉\n狗\t狗在睡觉\n", encoding="utf-8")
    mined = write_hard_negatives(model, pairs, tmp_path / "out.jsonl")
    lines = (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()
    assert (mined.pairs, mined.triples) == (3, 1)
    assert [json.loads(line)["negative"] for line in lines] == [["猫在睡觉"]]


@pytest.mark.parametrize(
    ("content", "options", "words"),
    [
        ("text\ttext_pair\n", {}, "no pairs in it"),
        ("天气好\n", {}, "pairs.tsv"),
        ("天气好\t今天天气很好。\n", {}, "no pair has a hard negative"),
        ("猫\t狗\n狗\t猫\n", {"out": "out.tsv"}, "ends in .jsonl"),
        ("猫\t狗\n狗\t猫\n", {"out": "pairs.tsv"}, "ends in .jsonl"),
    ],
)
def test_what_cannot_be_mined_is_one_line(
    model: Path, tmp_path: Path, content: str, options: dict[str, str], words: str
) -> None:
    pairs = write_pairs(tmp_path)
    pairs.write_text(content, encoding="utf-8")
    with pytest.raises(ZhbertError) as error:
        write_hard_negatives(model, pairs, tmp_path / options.get("out", "out.jsonl"))
    assert words in str(error.value)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.jsonl").exists()


def test_the_verb_writes_the_triples_and_says_how_many(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mining = ["--mine", str(write_pairs(tmp_path)), "--out", str(tmp_path / "out.jsonl")]
    assert main(["search", str(model), *mining, "--negatives", "1"]) == 0
    assert "3 hard negatives for 3 of 3 pairs, in " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--mine", "pairs.tsv"], "--mine needs --out FILE.jsonl"),
        (["--mine", "pairs.tsv", "--out", "out.jsonl", "猫"], "--mine takes no queries"),
        (["--mine", "pairs.tsv", "--out", "out.jsonl", "--negatives", "0"], "num_negatives = 0"),
        (["猫", "--corpus", "texts.txt", "--range-min", "2"], "are for --mine PAIRS"),
    ],
)
def test_a_wrong_combination_of_options_is_one_line(
    model: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", str(model), *arguments]) == 2
    assert words in capsys.readouterr().err
