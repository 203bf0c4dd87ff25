"""A first look at a text says what is wrong with it, in one line, before work begins."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhbert.data.first_look import LEAST_HAN, LOOKED_AT, first_look
from zhbert.data.read_options import ReadOptions
from zhbert.errors import ZhbertError
from zhbert.text.tokenizer import Tokenizer

CHINESE = "春天的早晨，院子里的桃花开了。" * 100 + "\n"
# Without the marks that no tokenizer's vocabulary of ours lacks.
ENGLISH = "The quick brown fox jumps over the lazy dog.\n" * 100
JAPANESE = "春の朝、庭の桃の花が咲きました。子供たちは学校へ行きます。\n" * 100

UNFIT = {
    "empty": (b"", "empty|no text"),
    "blank": (b" \n\n\t\n", "no text"),
    "ten lines": (
        ("今天天气很好。\n" * 10).encode(),
        "too short: 60 Han characters in 10 sentences",
    ),
    "one sentence": (("春天" * 900).encode(), "too short: 1,800 Han characters in 1 sentence,"),
    "English": (ENGLISH.encode(), "not Chinese: 0 of its .* begins: The quick"),
    "Japanese": (JAPANESE.encode(), r"Japanese, not Chinese: \d\d%"),
    "Korean": (("봄날 아침에 복숭아꽃이 피었다.\n" * 100).encode(), "not Chinese: 0 of"),
    "numbers": (b"12 345 6789\n" * 500, "not Chinese"),
    "GBK": (CHINESE.encode("gbk"), "not UTF-8; --encoding gb18030"),
    "a zip": (b"PK\x03\x04" + bytes(100), "zip"),
    "zeros": (bytes(5_000), "no text"),
    "cut gzip": (gzip.compress(CHINESE.encode())[:-30], "cut short|damaged|too short"),
}


@pytest.mark.parametrize("what", UNFIT)
def test_an_unfit_text_is_refused_by_name_in_one_line(tmp_path: Path, what: str) -> None:
    content, said = UNFIT[what]
    file = tmp_path / ("my.txt.gz" if "gzip" in what else "my.txt")
    file.write_bytes(content)
    with pytest.raises(ZhbertError, match=said) as error:
        first_look([file], ReadOptions())
    assert "my.txt" in str(error.value)
    assert "\n" not in str(error.value)


def test_files_that_are_not_there_folders_without_text_and_stdin_are_refused(
    tmp_path: Path,
) -> None:
    names = {tmp_path / "no.txt": "no such file", tmp_path: "no text", "-": "twice"}
    for name, said in names.items():
        with pytest.raises(ZhbertError, match=said):
            first_look([name], ReadOptions())


def test_gbk_is_read_as_it_is_said_to_be(tmp_path: Path) -> None:
    file = tmp_path / "my.txt"
    file.write_bytes(CHINESE.encode("gbk"))
    assert (
        first_look([file], ReadOptions(encoding="gbk")).sentence == "春天的早晨，院子里的桃花开了。"
    )


def test_a_few_broken_lines_foreign_words_and_kana_do_no_harm(tmp_path: Path) -> None:
    file = tmp_path / "my.txt"
    lines = "他说：Hello, world! 这本书叫《ノルウェイの森》。\n" + CHINESE.replace("。", "。\n")
    file.write_bytes(lines.encode() + "断".encode()[:2])
    look = first_look([file], ReadOptions())
    assert look.whole
    assert look.text.count("桃花") == 100


def test_of_a_large_text_the_beginning_is_looked_at(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(CHINESE * 400, encoding="utf-8")
    (tmp_path / "b.txt").write_text(CHINESE * 4000, encoding="utf-8")
    look = first_look([tmp_path], ReadOptions())
    assert not look.whole
    assert LOOKED_AT <= len(look.text.encode()) < 2 * LOOKED_AT


@given(st.text(alphabet=st.characters(blacklist_categories=["Cs"])))
def test_whatever_stands_in_a_text_it_is_taken_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    file = tmp_path_factory.mktemp("look") / "my.txt"
    file.write_text(text + "汉。" * (LEAST_HAN - 5), encoding="utf-8", newline="")
    refused = ""
    try:
        assert first_look([file], ReadOptions()).sentence
    except ZhbertError as error:
        refused = str(error)
    assert re.fullmatch(f"(|{file}: (too short|not Chinese|Japanese|no text).*)", refused)


def test_a_vocabulary_that_lacks_much_is_refused_and_one_that_lacks_little_is_noted(
    tmp_path: Path,
) -> None:
    file = tmp_path / "my.txt"
    file.write_text(CHINESE, encoding="utf-8")
    look = first_look([file], ReadOptions())
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *sorted(set(CHINESE))]
    assert look.check_vocabulary(Tokenizer(pieces), "") == []
    pieces.remove("桃")
    (note,) = look.check_vocabulary(Tokenizer(pieces), "")
    assert note == "6.7% of the pieces would be [UNK]: the vocabulary lacks 1 character (桃)"
    pieces.remove("花")
    with pytest.raises(ZhbertError, match=r"my\.txt: 13.3% .* lacks 2 characters \(桃 花\); do so"):
        look.check_vocabulary(Tokenizer(pieces), "do so")
