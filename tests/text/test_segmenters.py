"""jieba, segmented text, user dictionaries, simplifying: the ends cover the text, and no more."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import rjieba
from hypothesis import given, settings
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.text import simplify as simplifying
from zhbert.text.segmenters import Segmenter, jieba, load_segmenter
from zhbert.text.segmenters.user_words import read_user_words
from zhbert.text.sentences import CUT, codes_of, split_text
from zhbert.text.simplify import simplify

HAN = st.sampled_from("使用语言模型来预测下一个词的研究生命中国乾隆語體龍")
ODD = st.sampled_from("。！？…!?”’」）)\"'，, \t\u3000\r\x00\x85ab1.+#%-/😀\u0301\ufeff𠀀")
TEXTS = st.text(HAN | ODD | st.characters(exclude_categories=["Cs"]), max_size=40)
LINES = TEXTS.map(lambda text: text.replace("\n", ""))


def words_of(segmenter: Segmenter, text: str) -> list[str]:
    ends = segmenter.segment([text])[0].tolist()
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize("name", ["jieba", "whitespace"])
@given(st.lists(TEXTS, max_size=5))
def test_word_ends_increase_and_end_with_the_text(name: str, texts: list[str]) -> None:
    found = load_segmenter(name).segment(texts)
    assert len(found) == len(texts)
    for text, ends in zip(texts, found, strict=True):
        assert ends.dtype == np.int32
        assert (np.diff(ends, prepend=0) > 0).all()
        assert (ends[-1] == len(text)) if text else not len(ends)


@pytest.mark.parametrize("name", ["jieba", "whitespace"])
@given(st.lists(TEXTS, max_size=5))
def test_a_text_s_words_do_not_depend_on_its_neighbours(name: str, texts: list[str]) -> None:
    segmenter = load_segmenter(name)
    together = segmenter.segment(texts)
    for text, ends in zip(texts, together, strict=True):
        assert segmenter.segment([text])[0].tolist() == ends.tolist()


@given(TEXTS)
def test_jieba_gives_rjieba_s_own_words(text: str) -> None:
    assert words_of(load_segmenter(traditional="none"), text) == rjieba.cut(text)


@given(st.lists(LINES, max_size=8), st.integers(5, 200))
def test_a_run_of_sentences_is_cut_like_each_sentence_alone(lines: list[str], call: int) -> None:
    segmenter = load_segmenter()
    text = "".join(line + "\n" for line in lines).replace("\r\n", "\n")
    codes = codes_of(text)
    found = split_text(codes, np.zeros(1, np.int64), longest=12)
    before = jieba._CHARACTERS_PER_CALL
    jieba._CHARACTERS_PER_CALL = call
    try:
        run = segmenter.segment_run(text, codes, found.ends, (found.flags & CUT).astype(bool))
    finally:
        jieba._CHARACTERS_PER_CALL = before
    starts = [0, *found.ends[:-1].tolist()]
    alone = segmenter.segment([text[a:b] for a, b in zip(starts, found.ends, strict=False)])
    expected = {a + int(end) for a, ends in zip(starts, alone, strict=False) for end in ends}
    assert set(run.tolist()) | set(found.ends.tolist()) == expected


def test_lines_of_real_text_cut_together_equal_rjieba_line_by_line(data: Path) -> None:
    for name in ("mixed", "law_traditional", "tech"):
        raw = (data / "corpus" / f"{name}.txt").read_bytes()[:300_000]
        text = raw[: raw.rfind(b"\n") + 1].decode()
        codes = codes_of(text)
        found = split_text(codes, np.zeros(1, np.int64))
        segmenter = load_segmenter()
        apart = np.zeros(len(found.ends), bool)
        run = segmenter.segment_run(text, codes, found.ends, apart).tolist()
        expected, at = [], 0
        for line in simplify(text).split("\n"):
            for word in [*rjieba.cut(line), "\n"]:
                at += len(word)
                expected.append(at)
        assert run == expected[:-1]


def test_traditional_text_is_cut_like_simplified() -> None:
    assert words_of(load_segmenter(), "使用語言模型來預測") == [
        "使用",
        "語言",
        "模型",
        "來",
        "預測",
    ]
    assert words_of(load_segmenter(), "學術研究計畫") == ["學術研究", "計畫"]
    assert words_of(load_segmenter(traditional="none"), "學術研究計畫") != ["學術研究", "計畫"]


@given(TEXTS)
def test_simplifying_keeps_the_length(text: str) -> None:
    assert len(simplify(text)) == len(text)
    assert simplify(simplify(text)) == simplify(text)


def test_the_table_is_opencc_s_of_single_characters() -> None:
    opencc = pytest.importorskip("opencc")
    convert = opencc.OpenCC("t2s").convert
    table, _ = simplifying._table()
    changed = np.flatnonzero(table != np.arange(len(table))).tolist()
    assert len(changed) > 4000
    assert all(convert(chr(code)) == chr(table[code]) for code in changed)


def test_qian_of_qianlong_stays() -> None:
    assert words_of(load_segmenter(), "乾隆与乾坤") == ["乾隆", "与", "乾坤"]


@given(TEXTS)
@settings(max_examples=50)
def test_opencc_gives_ends_within_the_text(text: str) -> None:
    pytest.importorskip("opencc")
    ends = load_segmenter(traditional="opencc").segment([text])[0]
    assert (np.diff(ends, prepend=0) > 0).all()
    assert not text or ends[-1] == len(text)


def test_opencc_that_changes_the_length_falls_back_to_characters() -> None:
    pytest.importorskip("opencc")
    convert = simplifying._OpenCC()
    convert._convert = lambda text: text.replace("體", "体体")
    assert convert("字體\n語言") == "字体\n語言"


def test_words_of_the_user_are_kept_whole(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("\ufeff通义千问\n語言模型 2000\n下一个 3000 n\n\n", encoding="utf-8")
    segmenter = load_segmenter(user_words=file)
    assert words_of(segmenter, "用通义千问和语言模型") == ["用", "通义千问", "和", "语言模型"]
    assert words_of(segmenter, "語言模型")[0] == "語言模型"
    assert "user_words" in segmenter.options
    assert words_of(load_segmenter(), "用通义千问") != ["用", "通义千问"]


def test_a_user_s_word_that_jieba_cuts_all_the_same_is_told(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("A/B测试\n通义千问\n", encoding="utf-8")
    (remark,) = load_segmenter(user_words=file).remarks
    assert "1 of 2" in remark
    assert "A/B测试" in remark


# What jieba's load_userdict makes of a line, and what the tools make of it that know no frequency.
USER_LINES = {
    "云计算 5": ("云计算", 5, None),
    "李小福 2 nr": ("李小福", 2, "nr"),
    "凱特琳 nz": ("凱特琳", None, "nz"),
    "台中": ("台中", None, None),
    "Edu Trust认证 2000": ("Edu Trust认证", 2000, None),
    "iPhone X": ("iPhone X", None, None),
    "云 计算": ("云 计算", None, None),
    "云 计算 10 n": ("云 计算", 10, "n"),
    "2025": ("2025", None, None),
    "第 5 代 0": ("第 5 代", 0, None),
    "5G 5": ("5G", 5, None),
    "# 词": ("# 词", None, None),
    "词  7": ("词 ", 7, None),
    "云计算\tn": ("云计算", None, "n"),
    "云 计算\tNoun": ("云 计算", None, "Noun"),
    "云计算\t5\tn": ("云计算", 5, "n"),
    "\u3000词 ": ("词", None, None),
    "词 ５": ("词 ５", None, None),
}


@pytest.mark.parametrize(("line", "expected"), USER_LINES.items())
@pytest.mark.parametrize("segmenter", ["jieba", "pkuseg", "ltp", "thulac", "hanlp"])
def test_a_line_of_a_user_dictionary_is_what_its_tool_takes_it_for(
    tmp_path: Path, line: str, expected: tuple[str, int | None, str | None], segmenter: str
) -> None:
    file = tmp_path / "words.txt"
    for ends in ("\n", "\r\n", "\r"):
        content = f"\ufeff{line}{ends}{ends} {ends}好{ends}"
        file.write_text(content, encoding="utf-8", newline="")
        assert read_user_words(file, segmenter) == [expected, ("好", None, None)]


def test_small_letters_at_the_end_are_a_tag_for_jieba_alone(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("机器 learning\n深度 learning 5\n", encoding="utf-8")
    words = read_user_words(file)
    assert words == [("机器", None, "learning"), ("深度 learning", 5, None)]
    assert read_user_words(file, "pkuseg")[0] == ("机器 learning", None, None)
    remarks = load_segmenter(user_words=file).remarks
    assert any("1 of 2 lines" in remark and "机器 learning" in remark for remark in remarks)


def test_jieba_s_words_with_spaces_are_told(tmp_path: Path) -> None:
    file = tmp_path / "words.txt"
    file.write_text("iPhone X\n云 计算\n通义千问\n", encoding="utf-8")
    segmenter = load_segmenter(user_words=file)
    (remark,) = segmenter.remarks
    assert "2 of 3 words whole" in remark
    assert remark.endswith("iPhone X, 云 计算")
    assert "通义千问" in words_of(segmenter, "买通义千问")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "words.txt: no such file"),
        ("中国".encode("gbk"), "words.txt: not UTF-8.*iconv -f GB18030"),
        ("中国".encode("utf-16"), "words.txt: not UTF-8.*iconv -f UTF-16"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer.*git lfs pull"),
        (b"<!DOCTYPE html><html></html>", "a web page"),
        (b"PK\x03\x04", "a zip archive: unpack it first"),
        (f"a\n词 {'9' * 20}".encode(), r"words.txt:2: a frequency of more than 12 digits"),
    ],
)
def test_a_bad_file_of_user_words_is_one_line(
    tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "words.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(ZhbertError, match=message) as caught:
        load_segmenter(user_words=file)
    assert "\n" not in str(caught.value)


def test_whitespace_words_end_before_the_next_begins() -> None:
    assert words_of(load_segmenter("whitespace"), " 使用 语言\u3000 模型 ") == [
        " 使用 ",
        "语言\u3000 ",
        "模型 ",
    ]


def test_an_unknown_segmenter_names_the_known_ones() -> None:
    with pytest.raises(ZhbertError, match="'nope'; known: jieba, whitespace, ltp, pkuseg"):
        load_segmenter("nope")
    with pytest.raises(ZhbertError, match="known: characters, opencc, none"):
        load_segmenter(traditional="taiwan")


def test_a_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "rjieba", None)
    with pytest.raises(ZhbertError, match="pip install rjieba"):
        load_segmenter()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "opencc", None)
    with pytest.raises(ZhbertError, match="pip install 'OpenCC"):
        load_segmenter(traditional="opencc")


def test_a_segmenter_without_runs_is_asked_text_by_text() -> None:
    class Halves(Segmenter):
        name, version, options = "halves", "1", {}

        def segment(self, texts: Sequence[str]) -> list[np.ndarray]:
            return [np.array([len(text) // 2, len(text)], np.int32) for text in texts]

    text = "一二三四五六"
    ends = Halves().segment_run(text, codes_of(text), np.array([2, 6]), np.zeros(2, bool))
    assert ends.tolist() == [1, 2, 4, 6]


def test_without_the_native_part_the_words_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["使用語言模型", "", "來預測下一個詞。a b"]
    fast = [ends.tolist() for ends in load_segmenter().segment(texts)]
    monkeypatch.setattr(jieba, "native", None)
    monkeypatch.setattr(simplifying, "native", None)
    assert [ends.tolist() for ends in load_segmenter().segment(texts)] == fast
