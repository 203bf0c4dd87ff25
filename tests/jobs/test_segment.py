"""segment with other segmenters, and how they compare; what prepare records of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tests.text import segmenter_models

from zhbert import cli
from zhbert.data.account import describe
from zhbert.data.prepare import prepare
from zhbert.data.shards import Corpus
from zhbert.text.segmenters import SEGMENTERS, load_segmenter
from zhbert.text.segmenters.library import LibrarySegmenter
from zhbert.text.simplify import Simplifier

TEXT = "使用语言模型来预测。\n研究生命的起源\n\n我爱北京天安门\n"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return segmenter_models.pkuseg(tmp_path_factory.mktemp("pkuseg"))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "a.txt").write_text(TEXT, encoding="utf-8")
    return tmp_path / "a.txt"


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["segment", *map(str, arguments)]) == 0, capsys.readouterr().err
    return capsys.readouterr().out


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert cli.main(["segment", *map(str, arguments)]) == 2
    out, message = capsys.readouterr()
    assert out == ""
    assert message.count("\n") == 1
    return message


def test_a_model_of_one_s_own_cuts(
    file: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(capsys, file, "--segmenter", "pkuseg", "--segmenter-model", model)
    assert out.splitlines()[:3] == ["使用 语言 模型 来 预测 。", "研究 生命 的 起源", ""]


# ---------------------------------------------------------------- --against


@pytest.fixture
def whole_lines(file: Path) -> Path:
    """Text that the whitespace segmenter cuts in one place only."""
    file.write_text("研究 生命\n研究生命\n你好\n研究生命\n", encoding="utf-8")
    return file


def test_disagreements_stand_side_by_side(
    whole_lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = run(capsys, whole_lines, "--segmenter", "whitespace", "--against", "jieba", "--top", "1")
    assert [line.split() for line in out.splitlines() if line] == [
        ["A:", "whitespace", "1"],
        ["B:", "jieba", load_version()],
        ["4", "lines;", "A", "and", "B", "differ", "in", "2"],
        ["A", "B", "both", "precision", "recall", "F1"],
        ["words", "5", "7", "3", "60.00", "%", "42.86", "%", "50.00", "%"],
        ["boundaries", "1", "3", "1", "100.00", "%", "33.33", "%", "50.00", "%"],
        ["Most", "frequent", "differences"],
        ["times", "A", "B"],
        ["2", "研究生命", "研究", "生命"],
        ["First", "lines", "that", "differ"],
        ["line", "A", "B"],
        ["2", "研究生命", "研究", "生命"],
    ]
    assert all(len(line) <= 80 for line in out.splitlines())


def load_version() -> str:
    return load_segmenter("jieba").version


def test_a_comparison_for_machines(whole_lines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, whole_lines, "--segmenter", "whitespace", "--against", "jieba", "--json")
    report = json.loads(out)
    assert (report["lines"], report["lines_different"]) == (4, 2)
    assert report["a"] == {"name": "whitespace", "version": "1", "options": {}}
    assert report["b"]["options"]["traditional"] == "characters"
    assert report["words"]["f1"] == 0.5
    assert report["boundaries"] == {
        "found": 1,
        "expected": 3,
        "both": 1,
        "precision": 1.0,
        "recall": pytest.approx(1 / 3),
        "f1": 0.5,
    }
    difference = {"a": ["研究生命"], "b": ["研究", "生命"]}
    assert report["differences"] == [{"count": 2} | difference]
    assert report["examples"] == [
        {"line": line, "differences": [difference], "more": 0} for line in (2, 4)
    ]


def test_what_is_shown_is_bounded(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.txt"
    file.write_text(("研究生命 " * 30 + "\n") * 50, encoding="utf-8")
    compared = [file, "--segmenter", "whitespace", "--against", "jieba"]
    report = json.loads(run(capsys, *compared, "--json", "--top", "2"))
    assert [example["line"] for example in report["examples"]] == [1, 2]
    assert [len(example["differences"]) for example in report["examples"]] == [5, 5]
    assert report["examples"][0]["more"] == 25
    out = run(capsys, *compared, "--top", "2")
    assert out.count("... 25 more") == 2
    assert len(out.splitlines()) < 30
    out = run(capsys, *compared, "--top", "0")
    assert "differences" not in out
    assert "boundaries" in out


def test_two_models_of_one_library_compare(
    file: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pkuseg = ["--segmenter", "pkuseg", "--segmenter-model", model]
    report = json.loads(
        run(capsys, file, *pkuseg, "--against", "pkuseg", "--against-model", model, "--json")
    )
    assert report["lines_different"] == 0
    assert report["a"] == report["b"]
    assert report["boundaries"]["f1"] == 1


def test_words_of_the_user_are_the_first_side_s(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("语言模型 9000\n", encoding="utf-8")
    out = run(capsys, file, "--user-words", words, "--against", "jieba", "--json")
    assert json.loads(out)["differences"] == [
        {"count": 1, "a": ["语言模型"], "b": ["语言", "模型"]}
    ]


# ---------------------------------------------------------------- --gold


def test_words_are_scored_as_the_bakeoffs_do(
    file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = tmp_path / "gold.txt"
    # A byte order mark, ideographic blanks, a blank line at the end: all the same text.
    gold.write_text(
        "\ufeff使用\u3000语言模型  来 预测 。\r\n研究 生命 的 起源\n\n我 爱 北京 天安门\n\n",
        encoding="utf-8",
    )
    report = json.loads(run(capsys, file, "--gold", gold, "--json"))
    assert report["b"] == {"name": "gold", "file": str(gold)}
    assert report["differences"] == [{"count": 1, "a": ["语言", "模型"], "b": ["语言模型"]}]
    words = report["words"]
    assert (words["found"], words["expected"], words["both"]) == (14, 13, 12)
    assert words["f1"] == pytest.approx(2 * 12 / 27)
    assert report["boundaries"]["recall"] == 1
    out = run(capsys, file, "--gold", gold)
    assert f"B: gold, {gold}" in out.replace("\n", "")


def test_the_gold_file_itself_may_be_cut(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    gold = tmp_path / "gold.txt"
    gold.write_text("研 究 生命\n", encoding="utf-8")
    report = json.loads(run(capsys, gold, "--gold", gold, "--json"))
    assert report["differences"] == [{"count": 1, "a": ["研究"], "b": ["研", "究"]}]


def test_a_line_of_megabytes_meets_its_gold_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text, gold = tmp_path / "a.txt", tmp_path / "gold.txt"
    text.write_text("研究生命" * 200_000, encoding="utf-8")
    gold.write_text("研究 生命 " * 200_000, encoding="utf-8")
    report = json.loads(run(capsys, text, "--gold", gold, "--json"))
    assert report["lines"] == 1
    assert report["boundaries"]["expected"] == 399_999


@pytest.mark.parametrize(
    ("gold", "message"),
    [
        (
            "使用 语言\n研究\n",
            r"gold.txt:1: not the text of .*a.txt: '使用语言' here, '使用语言模型来预测。'",
        ),
        (TEXT.replace("起源", "起点"), "gold.txt:2: .*'究生命的起点' here, '究生命的起源' there"),
        (TEXT + "再见\n", "gold.txt:5: .*'再见' here, '' there"),
        (TEXT.split("我")[0], "gold.txt:4: .*'' here, '我爱北京天安门' there"),
    ],
)
def test_gold_of_another_text_is_one_line(
    file: Path, tmp_path: Path, gold: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    (tmp_path / "gold.txt").write_text(gold, encoding="utf-8")
    assert re.search(message, error(capsys, file, "--gold", tmp_path / "gold.txt"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gold", "x", "--against", "jieba"], "one comparison at a time"),
        (["--against-model", "x"], "add --against NAME"),
        (["--against", "nope"], "unknown segmenter 'nope'; known: jieba"),
        (["--against", "jieba", "--top", "-1"], "--top -1"),
        (["--gold", "/nowhere/gold"], "/nowhere/gold"),
        (["--segmenter-model", "x"], "the jieba segmenter has no model to choose"),
    ],
)
def test_a_mistake_is_one_line(
    file: Path, arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert message in error(capsys, file, *arguments)


# ---------------------------------------------------------------- prepare


def test_every_process_of_prepare_makes_the_segmenter_and_the_corpus_says_which(
    tmp_path: Path, model: Path
) -> None:
    (tmp_path / "a.txt").write_text((TEXT + "\n") * 50, encoding="utf-8")
    (tmp_path / "b.txt").write_text((TEXT + "\n") * 50, encoding="utf-8")
    files = [tmp_path / "a.txt", tmp_path / "b.txt"]
    options: dict[str, Any] = {"segmenter": "pkuseg", "segmenter_model": model, "held_out": 0}
    prepare(files, tmp_path / "one", workers=1, **options)
    prepare(files, tmp_path / "two", workers=2, **options)
    one, two = (Corpus.open(tmp_path / name) for name in ("one", "two"))
    described = one.info["segmenter"]
    assert described == two.info["segmenter"]
    assert described["name"] == "pkuseg"
    assert described["options"]["model"] == "model"
    assert len(described["options"]["model_sha256"]) == 64
    for first, second in zip(one.shards("train"), two.shards("train"), strict=True):
        assert first.pieces.tolist() == second.pieces.tolist()
        assert first.word_starts().tolist() == second.word_starts().tolist()
    # "语言 模型" is two words of two pieces each.
    assert one.shards("train")[0].word_starts().tolist()[:8] == [
        True, False, True, False, True, False, True, True,
    ]  # fmt: skip


def test_sentences_that_a_library_loses_are_counted(
    file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def made(**_: object) -> LibrarySegmenter:
        return LibrarySegmenter(
            "made",
            "1",
            lambda sentence: ["[UNK]"] if "生" in sentence else [sentence],
            simplify=Simplifier("none"),
            options={},
        )

    monkeypatch.setitem(SEGMENTERS, "made", made)
    report = prepare([file], tmp_path / "corpus", segmenter="made", held_out=0)
    assert report["read"]["sentences_cut_by_character"] == 1
    assert "1 sentence has a word for each character: what made" in describe(report)
    assert cli.main(["segment", str(file), "--segmenter", "made"]) == 0
    out, remarks = capsys.readouterr()
    assert out.splitlines()[1] == "研 究 生 命 的 起 源"
    assert "1 sentence has a word for each character" in remarks
