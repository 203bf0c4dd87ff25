"""Vocabularies: the one that ships, and how one is learnt."""

from __future__ import annotations

import itertools
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.text.character_sets import CHARACTER_SETS, big5_level1_han, gb2312_han
from zhbert.text.learn_vocab import (
    TextCounts,
    bert_words,
    learn_pieces,
    learn_vocabulary,
    longest_match,
    merge_pairs,
)
from zhbert.text.normalize import code_points
from zhbert.text.tokenizer import Tokenizer
from zhbert.text.vocab import default_vocabulary, read_vocabulary
from zhbert.text.wordpiece import MAX_CHARACTERS_PER_WORD

some_words = st.dictionaries(
    st.text("abc1", min_size=1, max_size=7), st.integers(1, 20), max_size=12
)
any_text = st.text(
    st.one_of(
        st.characters(codec="utf-8"),
        st.sampled_from("的一 \n，。“ab1Éïｱ한\u0301\u200b\ufeffΣσ;\u037e😀①\u3000﨑"),
    ),
    max_size=30,
)


# --- the vocabulary that ships ------------------------------------------------------------------


@pytest.fixture(scope="module")
def shipped() -> list[str]:
    return read_vocabulary(default_vocabulary() / "vocab.txt")


def test_shipped_vocabulary_has_21128_different_pieces(shipped: list[str]) -> None:
    assert len(shipped) == len(set(shipped)) == 21128
    assert all(piece == piece.strip() and piece for piece in shipped)


def test_shipped_special_tokens_have_googles_ids(shipped: list[str]) -> None:
    places = {"[PAD]": 0, "[unused1]": 1, "[unused99]": 99}
    places |= {"[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103}
    assert {piece: shipped.index(piece) for piece in places} == places


def test_shipped_vocabulary_holds_every_required_character(shipped: list[str]) -> None:
    pieces = set(shipped)
    assert len(gb2312_han()) == 6763
    assert len(big5_level1_han()) == 5401
    assert pieces >= gb2312_han()
    assert pieces >= big5_level1_han()
    assert pieces >= set("“”‘’—…「」『』《》〈〉【】、。，；：？！（）～·￥％")


def test_shipped_vocabulary_never_makes_english_unknown(shipped: list[str]) -> None:
    pieces = set(shipped)
    assert pieces >= {chr(code) for code in range(33, 127) if not chr(code).isupper()}
    assert pieces >= {f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz0123456789"}


def test_shipped_vocabulary_spends_no_row_that_text_cannot_reach(shipped: list[str]) -> None:
    tokenizer = Tokenizer.from_pretrained(default_vocabulary())
    han = code_points().chinese
    for piece in shipped:
        if piece.startswith("[") and len(piece) > 1:
            continue
        if piece.startswith("##") and len(piece) > 2:
            assert han.isdisjoint(piece)
            assert bert_words(piece[2:]) == [piece[2:]]
        else:
            assert tokenizer.encode(piece).pieces == [piece]


# --- counting -----------------------------------------------------------------------------------


@given(st.lists(any_text, max_size=5))
def test_counts_are_those_of_the_tokenizers_words(texts: list[str]) -> None:
    counts = TextCounts()
    counts.add(texts)
    expected = Counter(
        word for text in texts for word in bert_words(text) if len(word) <= MAX_CHARACTERS_PER_WORD
    )
    assert counts.han() + counts.punctuation() + counts.words() == expected


@given(any_text, any_text)
def test_counts_do_not_depend_on_how_texts_are_gathered(first: str, second: str) -> None:
    together, apart = TextCounts(), TextCounts()
    together.add([f"{first}\n{second}"])
    apart.add([first])
    apart.add([second])
    assert together.words() == apart.words()
    assert together.han() == apart.han()


def test_pruning_bounds_the_words_and_keeps_the_frequent_ones() -> None:
    words = [f"w{number}" for number in range(5000)]
    texts = [" ".join([*words[start : start + 50], "often"] * 2) for start in range(0, 5000, 50)]
    counts = TextCounts(max_words=1000)
    for text in texts:
        counts.add([text])
    kept = counts.words()
    assert len(kept) <= 1000
    assert kept["often"] == 200
    assert kept.total() + counts.pruned == sum(len(text.split()) for text in texts)


# --- learning -----------------------------------------------------------------------------------


def merge_pairs_slowly(words: dict[str, int], limit: int, min_frequency: int) -> list[str]:
    """The rule as it is stated: count all pairs afresh before every merge."""
    spelled = {word: [word[0], *(f"##{c}" for c in word[1:])] for word in words}
    order = sorted({symbol for symbols in spelled.values() for symbol in symbols})
    learnt: list[str] = []
    while len(learnt) < limit:
        pairs: Counter[tuple[str, str]] = Counter()
        for word, symbols in spelled.items():
            for pair in itertools.pairwise(symbols):
                pairs[pair] += words[word]
        if not pairs:
            break
        best = min(pairs, key=lambda p: (-pairs[p], order.index(p[0]), order.index(p[1])))
        if pairs[best] < min_frequency:
            break
        merged = best[0] + best[1].removeprefix("##")
        if merged not in order:
            order.append(merged)
            learnt.append(merged)
        for word, symbols in spelled.items():
            result: list[str] = []
            rest = symbols
            while rest:
                if tuple(rest[:2]) == best:
                    result, rest = [*result, merged], rest[2:]
                else:
                    result, rest = [*result, rest[0]], rest[1:]
            spelled[word] = result
    return learnt


@given(some_words, st.integers(1, 12), st.integers(1, 4))
def test_merging_equals_the_rule_stated_slowly(words, limit, min_frequency) -> None:
    assert merge_pairs(words, limit, min_frequency=min_frequency) == merge_pairs_slowly(
        words, limit, min_frequency
    )


@given(some_words, st.integers(1, 12), st.randoms())
def test_learning_does_not_depend_on_the_words_order(words, limit, rng: random.Random) -> None:
    shuffled = list(words.items())
    rng.shuffle(shuffled)
    assert learn_pieces(dict(shuffled), limit) == learn_pieces(words, limit)


@given(some_words, st.integers(1, 12), st.integers(1, 4))
def test_every_learnt_piece_is_used(words, limit, min_frequency) -> None:
    learnt = learn_pieces(words, limit, min_frequency=min_frequency)
    used = Counter(
        piece for word, n in words.items() for piece in longest_match(word, set(learnt)) * n
    )
    assert len(learnt) == len(set(learnt)) <= limit
    assert all(used[piece] >= min_frequency for piece in learnt)


@given(some_words, st.lists(st.text("abc1", min_size=1, max_size=9), max_size=5))
def test_longest_match_is_the_tokenizers(words, texts) -> None:
    learnt = learn_pieces(words, 10)
    pieces = [*"abc1", "##a", "##b", "##c", "##1", *learnt]
    tokenizer = Tokenizer(["[UNK]", *pieces])
    for text in texts:
        assert longest_match(text, set(pieces)) == tokenizer.encode(text).pieces


# --- whole vocabularies -------------------------------------------------------------------------


def learn(*texts: str, **options):
    counts = TextCounts()
    counts.add(texts)
    return learn_vocabulary(counts, **options).pieces


def test_frequent_characters_get_rows_before_rare_ones() -> None:
    fixed = len(learn("", size=10_000))
    pieces = learn("龘龘龘龖龖靐", size=fixed + 2, min_frequency=1)
    assert "龘" in pieces
    assert "龖" in pieces
    assert "靐" not in pieces
    assert "靐" not in learn("龘龘龘龖龖靐", size=fixed + 9, min_frequency=2)


def test_characters_inside_words_get_continuations_and_han_none() -> None:
    pieces = learn("25℃ 的的 “” ３×４", size=10_000, min_frequency=1)
    assert {"℃", "##℃", "×", "##×", "的", "“"} <= set(pieces)
    assert not {"##的", "##“"} & set(pieces)


def test_required_characters_are_folded_as_text_is() -> None:
    pieces = learn("", size=10_000, characters=["Ａ", "が", "é", "\n", "豈"])
    assert {"ａ", "か", "e", "豈"} <= set(pieces)
    assert not {"Ａ", "が", "é", "\n", ""} & set(pieces)


def test_a_frame_of_box_drawing_characters_is_no_word() -> None:
    pieces = learn("┌──────┐\n" * 50, size=10_000)
    assert {"─", "##─"} <= set(pieces)
    assert "##──" not in pieces


def test_further_special_tokens_stand_where_google_has_them() -> None:
    pieces = learn("", size=10_000, special_tokens=["<S>", "<T>"])
    assert pieces[100:106] == ["[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<T>"]


@given(st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80))
def test_ascii_text_is_never_unknown(text: str) -> None:
    tokenizer = Tokenizer(_small)
    assert tokenizer.unk_id not in tokenizer.encode(text, special_tokens=False).ids


_small = learn("", size=10_000)


def test_a_size_too_small_says_what_is_needed() -> None:
    with pytest.raises(ZhbertError, match=r"--size 5,000 is too small.* take 10,\d\d\d rows"):
        learn("", size=5000, characters=set().union(*(make() for make in CHARACTER_SETS.values())))


@pytest.mark.parametrize("token", ["[CLS]", "[unused3]", "a", ""])
def test_a_special_token_that_is_there_already_is_refused(token: str) -> None:
    with pytest.raises(ZhbertError, match="special token"):
        learn("", size=10_000, special_tokens=[token])
