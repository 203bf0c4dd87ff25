"""Masks of ``mac``: similar words against a slow reference, natively and plainly; their file."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data import reference_masking as reference

from zhbert.config import EvaluationSettings, MaskingSettings, parse_recipe
from zhbert.data import masking
from zhbert.data.masking import IGNORED, Masker, MaskingVocabulary
from zhbert.data.similar_words import SimilarWords, read_similar_words, write_similar_words
from zhbert.errors import ZhbertError

MARKS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
VOCABULARY = [*MARKS, *(chr(0x4E00 + i) for i in range(12))]
UNK, CLS, SEP, MASK = range(1, 5)
HAN = range(5, len(VOCABULARY))
# Of one piece: two words with similar words. Of two: one. Of three: none at all.
SIMILAR = {(5,): [(6,), (7,)], (6,): [(5,)], (8, 9): [(10, 11), (5, 6), (9, 8)]}
UNLIKELY = 1e-3

mac = partial(MaskingSettings, strategy="mac", similar_words="given below")


def vocabulary() -> MaskingVocabulary:
    prepared = MaskingVocabulary(VOCABULARY)
    prepared.similar_words = SimilarWords((a, b) for a, others in SIMILAR.items() for b in others)
    return prepared


PREPARED = vocabulary()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    found = [(a, b, 0.5) for a, others in SIMILAR.items() for b in others]
    write_similar_words(tmp_path / "similar.tsv", VOCABULARY, found)
    return tmp_path / "similar.tsv"


# --- what replaces a word


def test_a_word_becomes_similar_random_or_stays_as_the_reference_s() -> None:
    words = [(5,), (7,), (8, 9), (12, 13), (14, 15, 16), (UNK,)]
    row = [CLS, *(piece for word in words for piece in word), SEP]
    starts = [True, *(not place for word in words for place in range(len(word))), True]
    masker = Masker(mac(rate=0.7), PREPARED)
    generator, rng = np.random.default_rng(3), random.Random(3)
    ours: dict[tuple[int, ...], Counter] = {word: Counter() for word in words}
    theirs: dict[tuple[int, ...], Counter] = {word: Counter() for word in words}
    for _ in range(6000):
        inputs = np.array(row)
        labels = masker.mask(inputs, np.array(starts), generator)
        chosen = reference.choose(row, starts, {CLS, SEP}, strategy="mac", rate=0.7, rng=rng)
        random_pieces = PREPARED.random_ids.tolist()
        expected = reference.replace_by_words(
            row, chosen, similar=SIMILAR, random_pieces=random_pieces, rng=rng
        )
        at = 1
        for word in words:
            place = slice(at, at + len(word))
            at += len(word)
            if labels[at - 1] != IGNORED:
                assert tuple(labels[place].tolist()) == word
                ours[word][tuple(inputs[place].tolist())] += 1
            if expected[1][at - 1] != IGNORED:
                theirs[word][tuple(expected[0][place])] += 1
    for word in words:
        p = reference.two_sample_p(ours[word], theirs[word])
        assert p > UNLIKELY, (word, ours[word], theirs[word])
    # Of a word with similar words, 80 % become one of them, and 10 % stay or are drawn again.
    alike = len(
        {word for pair in SIMILAR.items() for word in (pair[0], *pair[1]) if len(word) == 2}
    )
    share = dict.fromkeys(SIMILAR[8, 9], 0.8 / 3 + 0.1 / alike) | {(8, 9): 0.1 + 0.1 / alike}
    seen = ours[8, 9]
    due = [share[word] * seen.total() for word in share]
    assert reference.chi_square_p([seen[word] for word in share], due) > UNLIKELY


@st.composite
def rows(draw: Callable) -> tuple[np.ndarray, np.ndarray]:
    ids = draw(st.lists(st.sampled_from([CLS, SEP, UNK, MASK, *HAN]), min_size=1, max_size=40))
    starts = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    return np.array(ids), np.array(starts)


settings = st.builds(
    mac,
    rate=st.sampled_from([0.15, 0.6, 1.0]),
    max_predictions=st.sampled_from([1, 5, 40]),
    char_share=st.sampled_from([0.0, 0.5]),
    mask_share=st.sampled_from([0.0, 0.5, 0.8]),
    random_share=st.sampled_from([0.0, 0.1, 0.2]),
)
seeds = st.integers(0, 2**32)


@given(rows(), settings, seeds)
def test_no_mask_appears_and_words_are_replaced_whole(
    row: tuple[np.ndarray, np.ndarray], settings: MaskingSettings, seed: int
) -> None:
    ids, starts = row
    inputs = ids.copy()
    masker = Masker(settings, PREPARED)
    labels = masker.mask(inputs, starts, np.random.default_rng(seed), strategy="mac")
    hit = labels != IGNORED
    assert (inputs == MASK).sum() <= (ids == MASK).sum()
    assert (inputs[~hit] == ids[~hit]).all()
    assert (labels[hit] == ids[hit]).all()
    for segment in reference.words_of(ids.tolist(), starts.tolist(), {CLS, SEP}):
        for word in segment:
            assert len(set(hit[word].tolist())) == 1


@pytest.mark.skipif(masking._rows is None, reason="the native module was not compiled")
@given(rows(), settings, seeds)
def test_the_plain_version_draws_as_the_native_module_does(
    row: tuple[np.ndarray, np.ndarray], settings: MaskingSettings, seed: int
) -> None:
    both = []
    for module in (masking._rows, None):
        rng = np.random.default_rng(seed)
        inputs = row[0].copy()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(masking, "_rows", module)
            labels = Masker(settings, PREPARED).mask(inputs, row[1], rng)
        both.append((inputs.tolist(), labels.tolist(), rng.random()))
    assert both[0] == both[1]


# --- the file


def test_what_is_written_is_read(file: Path) -> None:
    lines = file.read_text(encoding="utf-8").splitlines()
    assert lines[1] == "一\t丁\t0.5000"
    assert lines[4] == "七 丄\t丅 丆\t0.5000"
    words = read_similar_words(file, VOCABULARY)
    given = SimilarWords((a, b) for a, others in SIMILAR.items() for b in others)
    assert words.words == given.words
    for ours, theirs in zip(words.arrays, given.arrays, strict=True):
        assert np.array_equal(ours, theirs)
    assert len(words.sha256) == 64


BROKEN = {
    "other vocabulary": (lambda text: text, [*VOCABULARY, "x"], "another vocabulary"),
    "no head": (
        lambda text: text.split("\n", 1)[1],
        VOCABULARY,
        "'zhbert similar-words CORPUS' ma",
    ),
    "one column": (lambda text: text + "一\n", VOCABULARY, "line 8: must be a word, a tab"),
    "another length": (lambda text: text + "一\t一 丁\t1\n", VOCABULARY, "line 8: must be"),
    "an unknown piece": (lambda text: text + "一\t龘\t1\n", VOCABULARY, "line 8: must be"),
    "no pairs": (lambda text: text.split("\n", 1)[0], VOCABULARY, "no similar words in it"),
}


@pytest.mark.parametrize(("change", "pieces", "said"), BROKEN.values(), ids=BROKEN)
def test_a_file_that_cannot_be_used_is_one_line(
    file: Path, change: Callable[[str], str], pieces: list[str], said: str
) -> None:
    file.write_text(change(file.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ZhbertError, match=said) as error:
        Masker(MaskingSettings(strategy="mac", similar_words=str(file)), pieces)
    assert "\n" not in str(error.value)


def test_where_there_are_no_similar_words_mac_is_refused() -> None:
    with pytest.raises(ZhbertError, match="needs similar_words, a file that 'zhbert similar-words"):
        parse_recipe({"masking": {"strategy": "mac"}})
    with pytest.raises(ZhbertError, match="'mac': it needs a file of similar words"):
        Masker(MaskingSettings(), VOCABULARY).mask(
            np.array([CLS, 5, SEP]), np.ones(3, bool), np.random.default_rng(0), strategy="mac"
        )


def test_an_evaluation_has_masks_that_depend_on_no_file() -> None:
    with pytest.raises(ZhbertError, match=r"evaluation\.strategies: mac depends on a file"):
        parse_recipe({}, ['evaluation.strategies=["wwm", "mac"]'])
    assert "mac" not in EvaluationSettings().strategies
