"""Sentences cover the text, keep their quotes, and are the same natively and in Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhbert.text import sentences
from zhbert.text.sentences import GIVEN, STARTS_DOCUMENT, STARTS_LINE, codes_of, split_text

HAN = st.sampled_from("使用语言模型来预测下一个词的研究生命中国乾隆語體龍")
ODD = st.sampled_from("。！？…!?”’」）)\"'，, \t\u3000\r\x00\x85ab1.+#%-/😀\u0301\ufeff𠀀")
TEXTS = st.text(HAN | ODD | st.characters(exclude_categories=["Cs"]), max_size=40)
LINES = TEXTS.map(lambda text: text.replace("\n", ""))


def parts(text: str, **options: object) -> list[str]:
    ends = split_text(codes_of(text), np.zeros(1, np.int64), **options).ends.tolist()  # type: ignore[arg-type]
    return [text[a:b] for a, b in zip([0, *ends], ends, strict=False)]


@pytest.mark.parametrize(
    "expected",
    [
        ["他说：“好。”", "我走了。"],
        ["『真的！？』", "是的……", "好吧！！"],
        ["（见上文。）", "下一句"],
        ['他说:"好!"', "然后走了。"],
        ["走了。", '"你好"他说'],
        ["圆周率是3.14。", "版本 1.2.3 发布"],
        ["看 https://a.cn/?q=1&b=2!x 这里"],
        ["if a != b 那么？", "不是!  ", "好?"],
        ["Really? ", "Yes! ", "OK"],
        ["什么?", "abc"],
        ["下一个词的probability。"],
        ["……", "嗯"],
    ],
)
def test_sentences_keep_their_marks_and_closing_quotes(expected: list[str]) -> None:
    assert parts("".join(expected)) == expected


@given(st.lists(LINES, max_size=6), st.integers(2, 30))
def test_sentences_one_after_another_are_the_text(lines: list[str], longest: int) -> None:
    text = "\n".join(lines)
    found = split_text(codes_of(text), np.zeros(1, np.int64), longest=longest)
    if not text.strip():
        assert not len(found.ends)
        return
    assert (np.diff(found.ends, prepend=0) > 0).all()
    assert found.ends[-1] == len(text)
    assert found.lines == len(text.removesuffix("\n").split("\n"))
    assert np.count_nonzero(found.flags & STARTS_LINE) == found.lines - found.blank_lines
    # Blank lines stand after a sentence (or before the first), they do not make it longer.
    assert all(len(part.strip()) <= longest for part in parts(text, longest=longest))


@given(st.lists(LINES, max_size=6), st.booleans(), st.integers(2, 30), st.data())
def test_native_sentences_and_hashes_equal_python_s(
    lines: list[str], blank: bool, longest: int, draw: st.DataObject
) -> None:
    text = "\n".join(lines)
    codes = codes_of(text)
    line_starts = [0, *(k + 1 for k, c in enumerate(text) if c == "\n")]
    forced = np.array(sorted(draw.draw(st.sets(st.sampled_from(line_starts)))), np.int64)
    fast = split_text(codes, forced, blank_lines_separate=blank, longest=longest)
    slow = sentences.split_text_python(codes, forced, blank, longest)
    assert fast.ends.tolist() == slow.ends.tolist()
    assert fast.flags.tolist() == slow.flags.tolist()
    assert (fast.lines, fast.blank_lines) == (slow.lines, slow.blank_lines)
    starts = np.append(0, fast.ends[:-1]).astype(np.int32)[: len(fast.ends)]
    assert (
        sentences.hash_spans(codes, starts, fast.ends, 7).tolist()
        == sentences.hash_spans_python(codes, starts, fast.ends, 7).tolist()
    )


def test_the_native_part_is_built() -> None:
    assert sentences.native is not None


def test_documents_start_where_told_and_after_blank_lines() -> None:
    text = "一。\n\n二。\n三。\n"
    flags = split_text(codes_of(text), np.array([0, 7]), blank_lines_separate=True).flags
    first = STARTS_LINE | STARTS_DOCUMENT
    assert flags.tolist() == [first | GIVEN, first, first | GIVEN]


def test_an_over_long_sentence_is_cut_at_a_blank_or_a_comma_or_between_characters() -> None:
    assert parts("a" * 6 + " " + "b" * 6, longest=10) == ["aaaaaa ", "bbbbbb"]
    assert parts("一二三四五六，七八九十一二", longest=10) == ["一二三四五六，", "七八九十一二"]
    assert parts("abc一" + "d" * 9, longest=10) == ["abc一dddddd", "ddd"]


def test_equal_texts_have_equal_hashes_and_blanks_at_the_ends_do_not_count() -> None:
    text = "你好 \n 你好\n你 好\n"
    spans = np.array([0, 4, 8]), np.array([4, 8, 12])
    a, b, c = sentences.hash_spans(codes_of(text), *spans).tolist()
    assert a == b != c
