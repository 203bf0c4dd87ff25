"""Ids, pieces and offsets equal those of `tokenizers`, natively and in plain Python."""

from __future__ import annotations

import importlib.util
import itertools
import os
import pickle
import random
import sys
import threading
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import BertWordPieceTokenizer

from zhbert.errors import ZhbertError
from zhbert.text.added_tokens import SPECIAL_TOKENS
from zhbert.text.normalize import code_point_table, code_points
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.vocab import read_vocabulary
from zhbert.text.wordpiece import PythonWordPiece

# Characters on which the rules of different libraries and versions part: kept marks, jamo, ...
ODD = [
    *map(
        chr, (0x1B44, 0x8D4, 0x302E, 0x302F, 0x16FF0, 0x1D165, 0x1D16D, 0x1E944, 0x1109A, 0x110BA)
    ),
    *map(chr, (0x300, 0x301, 0x307, 0x327, 0x334, 0x345, 0x1100, 0x1112, 0x1161, 0x11A8, 0x93C)),
    *"eEéÉİı中文﨑豈ｱＡ①가각😀#[]-'",
]
PIECES = list(
    dict.fromkeys(
        [*SPECIAL_TOKENS.values(), *ODD, *(f"##{c}" for c in ODD)]
        + [
            prefix + word
            for word in ("a", "b", "ab", "abc", "z", "1", "12")
            for prefix in ("", "##")
        ]
        + ["使", "用", "pro", "##bability", "的"]
    )
)
OPTIONS = [
    {"do_lower_case": lower, "strip_accents": strip, "tokenize_chinese_chars": chinese}
    for lower, strip, chinese in itertools.product(
        (True, False), (None, True, False), (True, False)
    )
]


@cache
def trio(place: int) -> tuple[Tokenizer, PythonWordPiece, BertWordPieceTokenizer]:
    """Ours, ours in plain Python, and the peer, with the options OPTIONS[place]."""
    tokenizer = Tokenizer(PIECES, **OPTIONS[place])
    return tokenizer, in_plain_python(tokenizer), peer(tokenizer)


def in_plain_python(tokenizer: Tokenizer) -> PythonWordPiece:
    pieces = tokenizer.vocabulary[: tokenizer.num_word_pieces]
    ids = {piece: number for number, piece in enumerate(pieces) if piece}
    return PythonWordPiece(ids, tokenizer.unk_id, tokenizer._added, tokenizer.options)


def peer(tokenizer: Tokenizer) -> BertWordPieceTokenizer:
    return BertWordPieceTokenizer(
        {piece: number for number, piece in enumerate(tokenizer.vocabulary) if piece},
        lowercase=tokenizer.options.do_lower_case,
        strip_accents=tokenizer.options.strip_accents,
        handle_chinese_chars=tokenizer.options.tokenize_chinese_chars,
    )


def assert_same_as_tokenizers(
    core: PythonWordPiece, reference: BertWordPieceTokenizer, texts: list[str]
) -> None:
    ids, starts, offsets = core.encode(texts, True)
    expected = reference.encode_batch(texts, add_special_tokens=False)
    for text, here, (a, b) in zip(texts, expected, itertools.pairwise(starts), strict=True):
        assert ids[a:b].tolist() == here.ids, ascii(text)
        assert [tuple(o) for o in offsets[a:b].tolist()] == here.offsets, ascii(text)


def assert_all_agree(place: int, texts: list[str]) -> None:
    tokenizer, slow, reference = trio(place)
    assert_same_as_tokenizers(slow, reference, texts)
    assert_same_as_tokenizers(tokenizer._core, reference, texts)


# --- every input --------------------------------------------------------------------------------

points = code_points()
without_surrogates = st.characters(codec="utf-8")
scripts = st.one_of(
    without_surrogates,
    st.sampled_from(ODD),
    st.sampled_from(list(SPECIAL_TOKENS.values())),
    st.sampled_from("[]CLSEPMAK "),
    st.sampled_from("abcABCz12 .,，。“”…—"),
    st.characters(min_codepoint=0x4E00, max_codepoint=0x9FFF),
    st.characters(min_codepoint=0x20000, max_codepoint=0x323AF),  # CJK extensions
    st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3),
    st.characters(min_codepoint=0x1F300, max_codepoint=0x1FAFF),
    st.sampled_from(sorted(points.orders)),
    st.sampled_from(sorted(points.decompositions)),
    st.sampled_from(sorted(points.lower)),
    st.sampled_from(
        [*sorted(points.spaces), "\0", "\x0b", "\x1c", "\x85", "\ufffd", "\u200b", "\u200d"]
    ),
)
any_text = st.lists(scripts, max_size=24).map("".join)


@given(any_text, st.integers(0, len(OPTIONS) - 1))
@settings(max_examples=1000)
def test_any_text_gives_the_ids_and_offsets_of_tokenizers(text: str, place: int) -> None:
    assert_all_agree(place, [text])


@given(
    st.lists(st.sampled_from([*sorted(points.orders), *"ae가[", "[SEP]", "中", " "]), max_size=12)
)
@settings(max_examples=500)
def test_marks_are_brought_into_canonical_order_as_tokenizers_does(parts: list[str]) -> None:
    for place in (0, 6, 8):
        assert_all_agree(place, ["".join(parts)])


def every_code_point() -> Iterator[str]:
    """Texts that hold every code point but surrogates: most alone between letters."""

    def words(codes: Iterable[int], together: int) -> list[str]:
        characters = [chr(c) for c in codes if not 0xD800 <= c < 0xE000]
        return [
            f"a{''.join(characters[k : k + together])}b"
            for k in range(0, len(characters), together)
        ]

    # Planes 3 to 13 and 15, 16 are unassigned or private: 20 at once make one word or none.
    found = words([*range(0x30000), *range(0xE0000, 0xE1000)], 1)
    found += words([*range(0x30000, 0xE0000), *range(0xE1000, 0x110000)], 20)
    for k in range(0, len(found), 500):
        yield " ".join(found[k : k + 500])


@pytest.mark.parametrize("place", range(len(OPTIONS)))
def test_every_code_point_is_treated_as_by_tokenizers(place: int) -> None:
    tokenizer, slow, reference = trio(place)
    texts = list(every_code_point())
    # All of them with BERT's own options, cased and uncased; every ninth text with the others.
    step = 1 if place in (0, 6) else 9
    assert_same_as_tokenizers(tokenizer._core, reference, texts[place % step :: step])
    assert_same_as_tokenizers(slow, reference, texts[place :: 4 * step + 3])


def test_words_of_over_100_characters_are_unknown() -> None:
    tails = ("", "é", "\u0301", "\u200d", " a", "中", "[SEP]", "\u1b44", "가")
    texts = ["a" * n + tail for n in (98, 99, 100, 101, 102, 5000) for tail in tails]
    for place in (0, 4, 6):
        assert_all_agree(place, texts)


def test_special_tokens_are_found_in_the_original_text() -> None:
    texts = ["[SEP]", "a[SEP]b", "[sep]", "[[SEP]]", "[SEP", "中[MASK]\u0301文", "[CLS][SEP] [PAD]"]
    texts += ["[S\u0301EP]", "[S\u200bEP]", "[UNK]a", "\u1b44[SEP]\u1b44\u0301[MASK]x"]
    for place in range(len(OPTIONS)):
        assert_all_agree(place, texts)


def test_special_tokens_can_be_plain_text() -> None:
    tokenizer = Tokenizer(PIECES)
    assert "[SEP]" in tokenizer.encode("a[SEP]b").pieces
    assert "[SEP]" not in tokenizer.encode("a[SEP]b", special_tokens=False).pieces
    assert tokenizer.encode_batch(["[SEP]"], special_tokens=False)[0][0] != tokenizer.sep_id


def test_the_longest_of_overlapping_special_tokens_wins() -> None:
    extra = ["<a>", "<a><b>", "<", "a[", "中"]
    tokenizer = Tokenizer(PIECES, extra_special_tokens=extra)
    reference = peer(tokenizer)
    reference.add_special_tokens(extra)
    slow = in_plain_python(tokenizer)
    texts = [
        "<a><b>",
        "<a><",
        "x<a>y<a><b><b>",
        "a[SEP]",
        "aa[SEP]",
        "文中文",
        "A[中",
        "\u1b44<a><b>",
    ]
    for core in (tokenizer._core, slow):
        assert_same_as_tokenizers(core, reference, texts)


@given(any_text, st.lists(st.integers(0xD800, 0xDFFF), min_size=1, max_size=4), st.randoms())
@settings(max_examples=100)
def test_lone_surrogates_are_dropped(text: str, codes: list[int], rng: random.Random) -> None:
    places = sorted(rng.choice(range(len(text) + 1)) for _ in codes)
    broken = text
    for place, code in reversed(list(zip(places, codes, strict=True))):
        broken = broken[:place] + chr(code) + broken[place:]
    tokenizer, slow, _ = trio(0)
    ids, _, offsets = tokenizer._core.encode([broken], False)
    assert ids.tolist() == tokenizer.encode(text, special_tokens=False).ids.tolist()
    slow_ids, _, slow_offsets = slow.encode([broken], False)
    assert ids.tolist() == slow_ids.tolist()
    assert offsets.tolist() == slow_offsets.tolist()


def test_the_generated_table_is_what_tokenizers_does() -> None:
    """Derived anew; a new version of `tokenizers` that differs shows here first."""
    generator = load(Path(__file__).parents[2] / "tools" / "codepoints.py")
    for name, value in generator.fields(generator.derive()).items():
        assert " ".join(code_point_table()[name].split()) == value, name


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = module
    spec.loader.exec_module(module)
    return module


# --- whole corpora ------------------------------------------------------------------------------


def sample_of(path: Path, size: int) -> Iterator[list[str]]:
    """Lines spread evenly over the file, about ``size`` bytes of them, some at a time."""
    step = max(1, round(path.stat().st_size / size))
    with path.open(encoding="utf-8", newline="\n") as file:
        lines = (line for number, line in enumerate(file) if number % step == 0)
        while batch := list(itertools.islice(lines, 2000)):
            yield batch


@pytest.mark.parametrize(
    "name", ["history", "law", "law_traditional", "mixed", "reviews", "tech", "wiki"]
)
def test_corpora_give_the_ids_and_offsets_of_tokenizers(data: Path, name: str) -> None:
    """1.1 MB of each file; with ZHBERT_FULL=1 all of it (minutes)."""
    tokenizer = Tokenizer.from_pretrained(data / "google_zh_vocab.txt")
    reference = peer(tokenizer)
    size = sys.maxsize if os.environ.get("ZHBERT_FULL") else 1_100_000
    for lines in sample_of(data / "corpus" / f"{name}.txt", size):
        assert_same_as_tokenizers(tokenizer._core, reference, lines)
        plain = [ids.tolist() for ids in tokenizer.encode_batch(lines)]
        assert plain == [e.ids for e in reference.encode_batch(lines, add_special_tokens=False)]


def test_plain_python_gives_the_same_on_corpora(data: Path) -> None:
    tokenizer = Tokenizer.from_pretrained(
        data / "google_zh_vocab.txt",
    )
    slow = in_plain_python(tokenizer)
    for path in sorted((data / "corpus").glob("*.txt")):
        for lines in sample_of(path, 60_000):
            for ours, theirs in zip(
                tokenizer._core.encode(lines, True), slow.encode(lines, True), strict=True
            ):
                np.testing.assert_array_equal(ours, theirs)


def test_all_files_of_the_corpora_are_compared(data: Path) -> None:
    marks = test_corpora_give_the_ids_and_offsets_of_tokenizers.pytestmark  # type: ignore[attr-defined]
    assert {path.stem for path in (data / "corpus").glob("*.txt")} == set(marks[0].args[1])


@pytest.mark.parametrize("lower", [True, False])
def test_real_text_cased_and_uncased_with_the_google_vocabulary(data: Path, lower: bool) -> None:
    pieces = read_vocabulary(data / "google_zh_vocab.txt")
    tokenizer = Tokenizer(pieces, do_lower_case=lower)
    for lines in sample_of(data / "corpus" / "tech.txt", 200_000):
        assert_same_as_tokenizers(tokenizer._core, peer(tokenizer), lines)


# --- the interface ------------------------------------------------------------------------------


def test_encode_says_pieces_and_offsets_in_the_original() -> None:
    text = "使用 Probábility\u200b！"
    encoding = Tokenizer(PIECES).encode(text)
    assert encoding.pieces == ["使", "用", "pro", "##bability", "[UNK]"]
    assert [text[a:b] for a, b in encoding.offsets] == ["使", "用", "Pro", "bábility", "！"]
    assert encoding.ids.dtype == encoding.offsets.dtype == np.int32
    assert len(encoding) == 5


def test_encode_batch_equals_encode() -> None:
    tokenizer = Tokenizer(PIECES)
    texts = ["", "使用", "abc ab 가[SEP]", " ", "\u1b44\u0301"]
    arrays = tokenizer.encode_batch(iter(texts))
    assert [a.tolist() for a in arrays] == [tokenizer.encode(t).ids.tolist() for t in texts]
    assert all(a.dtype == np.int32 for a in arrays)
    assert tokenizer.encode_batch([]) == []


def test_a_line_of_megabytes_is_encoded() -> None:
    tokenizer = Tokenizer(PIECES)
    assert len(tokenizer.encode("使" * 1_000_000)) == 1_000_000
    assert tokenizer.encode("a" * 1_000_000).ids.tolist() == [tokenizer.unk_id]
    assert tokenizer.encode_batch(["가" * 300_000])[0].tolist() == [tokenizer.unk_id]
    assert len(tokenizer.encode("가\u0301 " * 100_000)) == 200_000


def test_texts_must_be_strings() -> None:
    with pytest.raises(TypeError):
        Tokenizer(PIECES).encode_batch([b"bytes"])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="not one text"):
        Tokenizer(PIECES).encode_batch("使用")


def test_another_process_can_have_the_tokenizer() -> None:
    tokenizer = Tokenizer(PIECES, do_lower_case=False, extra_special_tokens=["<S>"])
    copy = pickle.loads(pickle.dumps(tokenizer))
    assert copy.fingerprint() == tokenizer.fingerprint()
    assert copy.encode("使<S>Éa").ids.tolist() == tokenizer.encode("使<S>Éa").ids.tolist()


def test_decoding_an_id_that_no_piece_has_is_refused() -> None:
    for number in (-100, len(PIECES)):
        with pytest.raises(ZhbertError, match="no piece has the id"):
            Tokenizer(PIECES).decode([number])


def test_threads_encode_at_once() -> None:
    tokenizer = Tokenizer(PIECES)
    texts = ["使用的probability abc 가" * 50] * 200
    expected = [a.tolist() for a in tokenizer.encode_batch(texts)]
    found: list[list[list[int]]] = []
    threads = [
        threading.Thread(
            target=lambda: found.append([a.tolist() for a in tokenizer.encode_batch(texts)])
        )
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 4


def test_decode_is_readable() -> None:
    pieces = [*PIECES, "hello", "world", "bert", "##s", ",", "，", "."]
    tokenizer = Tokenizer(pieces)
    for text in ("使用berts，的", "hello, world.", "使用[MASK][MASK]的", "hello world"):
        assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_without_the_native_module_there_is_one_line_and_the_same_result(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from zhbert.text import tokenizer as module

    expected = Tokenizer(PIECES).encode("使用Probability").ids.tolist()
    monkeypatch.setattr(module, "NativeWordPiece", None)
    module._engine.cache_clear()
    try:
        with pytest.warns(RuntimeWarning, match="plain Python") as warned:
            slow, _ = Tokenizer(PIECES), Tokenizer(PIECES)
        assert len(warned) == 1
        assert "\n" not in str(warned[0].message)
        assert isinstance(slow._core, PythonWordPiece)
        assert slow.encode("使用Probability").ids.tolist() == expected
    finally:
        module._engine.cache_clear()
