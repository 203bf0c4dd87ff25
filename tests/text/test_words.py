"""Words and pieces are aligned by character offsets, natively as in plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhbert.text.tokenizer import Tokenizer
from zhbert.text.wordpiece import PythonWordPiece
from zhbert.text.words import AlignmentReport, WordPieces, align

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"研究生命的起源一个ab12[]"]
PIECES += ["##a", "##b", "##1", "##2", "12", "ab", "##ab", "ᄀ", "##ᅡ", "##ᆨ", "\u1b44", "##\u1b44"]
tokenizer = Tokenizer(PIECES)
ids = {piece: number for number, piece in enumerate(PIECES)}
slow = PythonWordPiece(ids, 1, tokenizer._added, tokenizer.options)


def encode(text: str, *ends: int) -> WordPieces:
    return tokenizer.encode_words([text], [np.array(ends, np.int32)])


def words_of(text: str, *ends: int) -> list[list[str]]:
    """The pieces of each word."""
    encoded = encode(text, *ends)
    words: list[list[str]] = []
    for piece, starts in zip(encoded.ids, encoded.word_starts, strict=True):
        if starts:
            words.append([])
        words[-1].append(PIECES[piece])
    return words


def test_words_follow_the_segmenter_not_a_word_list() -> None:
    assert words_of("研究生命的起源", 2, 4, 5, 7) == [
        ["研", "究"],
        ["生", "命"],
        ["的"],
        ["起", "源"],
    ]
    assert words_of("研究生命", 3, 4) == [["研", "究", "生"], ["命"]]


def test_a_boundary_inside_a_piece_moves_to_its_end() -> None:
    assert words_of("12的", 1, 2, 3) == [["12"], ["的"]]
    assert words_of("的12个", 2, 4) == [["的", "12"], ["个"]]
    encoded = encode("的12个", 2, 4)
    assert (encoded.words, encoded.widened) == (2, 1)


def test_spaces_and_dropped_characters_belong_to_no_piece() -> None:
    assert words_of(" 研究\u200b 生命 ", 1, 3, 4, 5, 7, 8) == [["研", "究"], ["生", "命"]]
    assert encode(" \u200b ", 3).words == 0


def test_special_tokens_are_plain_text() -> None:
    assert words_of("[SEP]", 5)[0][0] == "["
    assert 3 not in encode("a[SEP]b", 7).ids


def test_counts_are_of_words_that_have_pieces() -> None:
    encoded = tokenizer.encode_words(
        ["研究 x", "", "ab12"], [np.array(e, np.int32) for e in ([2, 3, 4], [], [4])]
    )
    assert encoded.starts.tolist() == [0, 3, 3, 6]
    assert (encoded.words, encoded.widened, encoded.unknown) == (3, 0, 1)
    assert encoded.pieces_per_word.tolist() == [1, 1, 1, 0, 0, 0, 0]
    assert encoded.ids.dtype == np.int32
    assert encoded.word_starts.dtype == np.bool_
    assert encoded.starts.dtype == np.int64


def test_pieces_of_one_character_are_in_one_word() -> None:
    assert words_of("각 각", 1, 2, 3) == [["ᄀ", "##ᅡ", "##ᆨ"]] * 2


@st.composite
def texts_with_words(draw: st.DrawFn) -> tuple[str, list[int]]:
    alphabet = "研究生命的ab12 []é\u200b\u0301각\u1b44\u302e😀\ud800x，"
    text = draw(st.text(st.sampled_from(alphabet), max_size=30))
    ends = draw(st.sets(st.integers(1, max(1, len(text))), max_size=20))
    return text, sorted({e for e in ends if e < len(text)} | ({len(text)} if text else set()))


@given(st.lists(texts_with_words(), max_size=5))
@settings(max_examples=500)
def test_native_alignment_equals_the_slow_one(batch: list[tuple[str, list[int]]]) -> None:
    texts = [text for text, _ in batch]
    ends = [np.array(e, np.int32) for _, e in batch]
    fast, plain = tokenizer.encode_words(texts, ends), slow.encode_words(texts, ends)
    for name in ("ids", "word_starts", "starts", "pieces_per_word"):
        assert getattr(fast, name).tolist() == getattr(plain, name).tolist(), name
        assert getattr(fast, name).dtype == getattr(plain, name).dtype, name
    for name in ("words", "widened", "unknown"):
        assert getattr(fast, name) == getattr(plain, name), name


@given(st.lists(texts_with_words(), max_size=5))
@settings(max_examples=200)
def test_texts_out_of_one_array_give_the_same(batch: list[tuple[str, list[int]]]) -> None:
    texts = [text for text, _ in batch]
    joined = "".join(texts).encode("utf-32-le", "surrogatepass")
    text_ends = np.cumsum([len(text) for text in texts], dtype=np.int32)
    begins = [0, *text_ends.tolist()]
    word_ends = sorted({a + e for a, (_, ends) in zip(begins, batch, strict=False) for e in ends})
    arguments = np.frombuffer(joined, np.uint32), text_ends, np.array(word_ends, np.int32)
    expected = slow.encode_words(texts, [np.array(e, np.int32) for _, e in batch])
    for core in (tokenizer, plain_tokenizer()):
        found = core.encode_run(*arguments)
        for name in ("ids", "word_starts", "starts", "pieces_per_word"):
            assert getattr(found, name).tolist() == getattr(expected, name).tolist(), name
        for name in ("words", "widened", "unknown"):
            assert getattr(found, name) == getattr(expected, name), name


def plain_tokenizer() -> Tokenizer:
    plain = Tokenizer(PIECES)
    plain._core = slow
    return plain


def test_an_array_with_numbers_that_are_no_characters_is_refused() -> None:
    codes, ends = np.array([0x7814, 0x110000], np.uint32), np.array([2], np.int32)
    for core in (tokenizer, plain_tokenizer()):
        with pytest.raises(ValueError):  # noqa: PT011 - the codec's own words
            core.encode_run(codes, ends, ends)


@given(texts_with_words())
@settings(max_examples=300)
def test_a_piece_starts_a_word_only_behind_a_boundary(case: tuple[str, list[int]]) -> None:
    """The rule, as its words have it."""
    text, ends = case
    offsets = tokenizer.encode(text, special_tokens=False).offsets
    starts, cut = align(offsets, np.array(ends))
    for i, (start, end) in enumerate(offsets.tolist()):
        behind = i == 0 or any(offsets[i - 1][0] < b <= start for b in ends)
        assert starts[i] == behind
        assert cut[i] == any(start < b < end for b in ends)
    if text:
        assert encode(text, *ends).word_starts.tolist() == starts.tolist()


def test_word_ends_that_do_not_fit_the_text_are_refused() -> None:
    for ends in ([1], [3], [2, 1, 2], [-1, 2], []):
        with pytest.raises(ValueError, match="word"):
            encode("研究", *ends)
        with pytest.raises(ValueError, match="word"):
            slow.encode_words(["研究"], [np.array(ends, np.int32)])
    with pytest.raises(ValueError, match="as many"):
        tokenizer.encode_words(["研究"], [])
    with pytest.raises(ValueError, match="as many"):
        slow.encode_words(["研究"], [])


def test_reports_of_parts_add_up_to_the_report_of_all() -> None:
    texts = ["研究12", "ab的x", "的"]
    ends = [np.array(e, np.int32) for e in ([2, 3, 4], [2, 4], [1])]
    parts = [
        AlignmentReport.of(tokenizer.encode_words([t], [e]))
        for t, e in zip(texts, ends, strict=True)
    ]
    whole = AlignmentReport.of(tokenizer.encode_words(texts, ends))
    assert sum(parts, AlignmentReport()) == whole
    assert whole.to_dict() == {
        "words": 5,
        "pieces": 7,
        "pieces_per_word": [3, 2, 0, 0, 0, 0, 0],
        "widened_words": 1,
        "widened_share": 1 / 5,
        "unknown_pieces": 1,
        "unknown_share": 1 / 7,
    }
    assert whole.describe().startswith("5 words, 7 pieces (1.40 a word)\n")
