"""The four-row table: what it shows, how it looks, and clear lines for mistakes."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from rich.cells import cell_len
from rich.console import Console

import zhbert
from zhbert import console
from zhbert.cli import main
from zhbert.data.similar_words import write_similar_words
from zhbert.text.tokenizer import Tokenizer

EXAMPLE = "使用语言模型来预测下一个词的probability。"
STRATEGIES = ["char", "wwm", "wwm-unbiased", "ngram"]


def table(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """The printed rows by their Chinese labels."""
    assert main(["mask", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0]: line for line in lines}


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict:
    assert main(["mask", "--json", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def on_a_terminal(monkeypatch: pytest.MonkeyPatch, width: int, **options: object) -> io.StringIO:
    shown = io.StringIO()
    monkeypatch.setattr(
        console,
        "out",
        lambda: Console(file=shown, force_terminal=True, width=width, highlight=False, **options),
    )
    return shown


def test_the_table_has_the_four_rows_of_the_references(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(capsys, EXAMPLE, "--rate", "0.3")
    assert list(rows) == ["原文", "分词", "字掩码", "全词掩码"]
    assert rows["原文"].endswith(f"original            {EXAMPLE}")
    words = "使用 语言 模型 来 预测 下 一个 词 的 probability 。"
    assert rows["分词"].endswith(f"segmented           {words}")
    assert rows["字掩码"].count("[MASK]") == rows["全词掩码"].count("[MASK]") == 6
    assert "whole word masking" in rows["全词掩码"]


@pytest.mark.parametrize("strategy", STRATEGIES[1:])
def test_the_last_row_masks_whole_words(capsys: pytest.CaptureFixture[str], strategy: str) -> None:
    for seed in range(10):
        shown = as_json(
            capsys, EXAMPLE, "--strategy", strategy, "--seed", str(seed), "--rate", "0.4"
        )
        hit = set(shown["masks"][strategy]["predicted"])
        starts = [i for i, start in enumerate(shown["word_starts"]) if start]
        for first, end in zip(starts, [*starts[1:], len(shown["pieces"])], strict=True):
            assert len(hit & set(range(first, end))) in (0, end - first)


def test_the_masks_are_those_of_mask_words(capsys: pytest.CaptureFixture[str]) -> None:
    shown = as_json(capsys, EXAMPLE, "--replace", "--rate", "0.5", "--seed", "4")
    vocabulary = (Path(zhbert.__file__).parent / "assets" / "vocab.txt").read_text("utf-8").split()
    ids = [vocabulary.index(piece) for piece in ["[CLS]", *shown["pieces"], "[SEP]"]]
    for strategy, masks in shown["masks"].items():
        inputs, labels = zhbert.mask_words(
            ids,
            [True, *shown["word_starts"], True],
            strategy=strategy,
            rate=0.5,
            vocabulary=vocabulary,
            rng=np.random.default_rng(4),
        )
        assert masks["pieces"] == [vocabulary[piece] for piece in inputs[1:-1]]
        assert masks["predicted"] == (np.flatnonzero(labels != -100) - 1).tolist()


def test_mac_shows_similar_words_in_place_of_masks(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    vocabulary = Tokenizer.default().vocabulary
    word, other = (tuple(vocabulary.index(c) for c in text) for text in ("语言", "文字"))
    write_similar_words(tmp_path / "similar.tsv", vocabulary, [(word, other, 0.5)])
    arguments = ["语言", "--strategy", "mac", "--similar-words", str(tmp_path / "similar.tsv")]
    rows = table(capsys, *arguments, "--rate", "0.9")
    assert rows["近义替换"].endswith("MacBERT masking    文 字")
    shown = as_json(capsys, *arguments, "--rate", "0.9")
    assert shown["masks"]["mac"]["actions"] == ["replaced", "replaced"]


def test_only_with_replace_do_random_and_kept_pieces_appear(
    capsys: pytest.CaptureFixture[str],
) -> None:
    text = EXAMPLE * 20
    plain = as_json(capsys, text)
    assert {a for masks in plain["masks"].values() for a in masks["actions"]} == {"mask"}
    real = as_json(capsys, text, "--replace", "--rate", "0.9")
    for masks in real["masks"].values():
        assert set(masks["actions"]) == {"mask", "random", "kept"}
        for position, action in zip(masks["predicted"], masks["actions"], strict=True):
            piece = masks["pieces"][position]
            assert (piece == "[MASK]") == (action == "mask")
            assert (piece == real["pieces"][position]) == (action == "kept")
    # The picture is of the rate: no cap of 20 predictions.
    assert len(real["masks"]["char"]["predicted"]) == real["quota"] > 300


def test_character_masking_alone_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(table(capsys, EXAMPLE, "--strategy", "char")) == ["原文", "分词", "字掩码"]


def test_the_seed_decides(capsys: pytest.CaptureFixture[str]) -> None:
    first, again, other = (table(capsys, EXAMPLE, "--seed", seed) for seed in ("1", "1", "2"))
    assert first == again != other


def test_words_come_from_the_segmenter_that_is_asked_for(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = "研究生命的起源"
    assert as_json(capsys, text)["words"] == ["研究", "生命", "的", "起源"]
    shown = as_json(capsys, "研究生 命的 起源", "--segmenter", "whitespace")
    assert shown["words"] == ["研究生", "命的", "起源"]
    assert shown["word_starts"] == [True, False, False, True, False, True, False]
    own = tmp_path / "words.txt"
    own.write_text("生命的起源\n", encoding="utf-8")
    assert as_json(capsys, text, "--user-words", str(own))["words"] == ["研究", "生命的起源"]


def test_the_vocabulary_may_be_a_file_or_a_folder(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"使用"]
    (tmp_path / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    for where in (tmp_path, tmp_path / "vocab.txt"):
        assert as_json(capsys, "使用模型", "--vocab", str(where))["pieces"] == [
            "使",
            "用",
            "[UNK]",
            "[UNK]",
        ]


def test_special_tokens_in_the_text_are_plain_text(capsys: pytest.CaptureFixture[str]) -> None:
    shown = as_json(capsys, "我[MASK]你[SEP]")
    assert "[MASK]" not in shown["pieces"]
    assert main(["mask", "我[MASK]你"]) == 0
    assert "own [MASK] is plain text" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["我", "a", "。", "😀", "3"])
def test_a_text_of_one_character_is_masked_whole(
    capsys: pytest.CaptureFixture[str], text: str
) -> None:
    for strategy in STRATEGIES[:2]:
        assert as_json(capsys, text)["masks"][strategy]["pieces"] == ["[MASK]"]


def test_a_word_longer_than_the_quota_is_explained(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mask", "internationalizationalism"]) == 0
    shown = capsys.readouterr()
    assert "[MASK]" not in shown.out.splitlines()[-1]
    assert "no word fits the quota" in shown.err


def test_a_long_text_is_shown_whole(capsys: pytest.CaptureFixture[str]) -> None:
    text = EXAMPLE * 300
    assert main(["mask", text]) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[0].endswith(text)
    assert len(shown.out.splitlines()) == 4
    assert "in several rows" in shown.err


def test_nothing_in_a_text_moves_the_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mask", "你\x1b[31m好\n世\r界\u2028人\x07\x9b2J"]) == 0
    shown = capsys.readouterr().out
    assert len(shown.splitlines()) == 4
    assert not {"\x1b", "\r", "\x07", "\x9b"} & set(shown)


def test_markup_in_a_text_is_text(capsys: pytest.CaptureFixture[str]) -> None:
    rows = table(capsys, "[bold]你好[/bold][link=x]")
    assert "[bold]你好[/bold][link=x]" in rows["原文"]


@pytest.mark.parametrize("width", [30, 50, 71, 72, 80, 200])
def test_no_line_is_wider_than_the_terminal_and_no_mask_is_broken(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    shown = on_a_terminal(monkeypatch, width, color_system=None)
    assert main(["mask", EXAMPLE * 4, "--rate", "0.5", "--quiet"]) == 0
    lines = shown.getvalue().splitlines()
    assert max(map(cell_len, lines)) <= width
    masks = as_json(capsys, EXAMPLE * 4, "--rate", "0.5")["masks"].values()
    assert sum(line.count("[MASK]") for line in lines) == sum(
        masks_["actions"].count("mask") for masks_ in masks
    )
    if width >= 72:  # labels beside the texts: wide characters are aligned by cells
        starts = {cell_len(line[: line.index(word)]) for line in lines for word in _first(line)}
        assert len(starts) == 1


def _first(line: str) -> list[str]:
    labels = ("original", "segmented", "character masking", "whole word masking")
    return [label for label in labels if label in line]


def test_masks_are_coloured_on_a_terminal_only(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["mask", EXAMPLE]) == 0
    assert "\x1b" not in "".join(capsys.readouterr())
    shown = on_a_terminal(monkeypatch, 80, color_system="standard")
    assert main(["mask", EXAMPLE, "--quiet"]) == 0
    assert "\x1b[1;31m[MASK]\x1b[0m" in shown.getvalue()


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    def give(content: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), "utf-8"))

    return give


def test_every_line_of_stdin_is_a_text(
    capsys: pytest.CaptureFixture[str], stdin: Callable[[bytes], None]
) -> None:
    stdin("第一行。\n\n第二行。\r\n".encode())
    assert [one["text"] for one in as_json(capsys, "-")] == ["第一行。", "第二行。"]
    stdin("第一行。\n第二行。".encode())
    assert main(["mask", "-"]) == 0
    assert capsys.readouterr().out.count("全词掩码") == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "stdin: no text"),
        (b"\n \n", "stdin: no text"),
        ("好\n".encode() + b"\xff\n", "not UTF-8"),
        ("好\n\x00\n".encode(), "stdin, line 2: no text to mask"),
    ],
)
def test_mistakes_on_stdin_are_one_line(
    capsys: pytest.CaptureFixture[str],
    stdin: Callable[[bytes], None],
    content: bytes,
    message: str,
) -> None:
    stdin(content)
    assert main(["mask", "-"]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([""], "no text to mask"),
        ([" \n\t"], "no text to mask"),
        (["\udcff"], "not UTF-8"),
        (
            ["好", "--strategy", "nope"],
            'strategy = "nope": not a choice; known: char, wwm, wwm-unbiased, ngram, mac',
        ),
        (
            ["好", "--strategy", "mac"],
            "strategy = mac: needs similar_words, a file that 'zhbert similar-words",
        ),
        (["好", "--rate", "0"], "rate = 0"),
        (["好", "--rate", "1.5"], "rate = 1.5"),
        (["好", "--seed", "-1"], "--seed -1"),
        (["好", "--segmenter", "nope"], "unknown segmenter 'nope'; known: jieba, whitespace"),
        (["好", "--vocab", "nowhere"], "nowhere: no such folder"),
        (["好", "--user-words", "nowhere"], "reading nowhere: no such file"),
    ],
)
def test_a_mistake_is_one_line(
    capsys: pytest.CaptureFixture[str], arguments: list[str], message: str
) -> None:
    assert main(["mask", *arguments]) == 2
    shown = capsys.readouterr()
    assert message in shown.err
    assert shown.err.count("\n") == 1
    assert shown.out == ""


def test_quiet_prints_the_table_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mask", EXAMPLE, "--quiet"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    assert len(shown.out.splitlines()) == 4
