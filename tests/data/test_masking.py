"""Masks: their distributions against the rules, a slow reference, and the plain Python version."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data import reference_masking as reference

import zhbert
from zhbert.config import MaskingSettings
from zhbert.data import masking, row_plans
from zhbert.data.masking import IGNORED, MaskingVocabulary, mask_words, quota
from zhbert.errors import ZhbertError

SPECIAL = ["[PAD]", "[unused1]", "[unused99]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "<S>", "<T>"]
HAN = [chr(0x4E00 + i) for i in range(60)]
OTHER = ["。", "，", "2024", "the", "##ing", "##lity", "é", "が"]
NEVER = [*SPECIAL, "##一", "##㐀", "##豈", "##𠀀"]
VOCABULARY = [*NEVER, *HAN, *OTHER]
UNK, CLS, SEP, MASK = (VOCABULARY.index(mark) for mark in ("[UNK]", "[CLS]", "[SEP]", "[MASK]"))
FIRST_TEXT = len(NEVER)
PREPARED = MaskingVocabulary(VOCABULARY)
STRATEGIES = ["char", "wwm", "wwm-unbiased", "ngram"]
WORD_STRATEGIES = STRATEGIES[1:]
# Fixed seeds: each of these tests either always passes or always fails. One in a thousand
# correct programs would have to choose another seed.
UNLIKELY = 1e-3

native = pytest.mark.skipif(masking._rows is None, reason="the native module was not compiled")

IntArray = np.ndarray


def row_of(lengths: Sequence[Sequence[int]]) -> tuple[list[int], list[bool]]:
    """A row of sentences of words of these lengths; every piece is another one."""
    ids, starts = [CLS], [True]
    for sentence in lengths:
        for length in sentence:
            ids += [FIRST_TEXT + (len(ids) + k) % len(HAN) for k in range(length)]
            starts += [True] + [False] * (length - 1)
        ids.append(SEP)
        starts.append(True)
    return ids, starts


@cache
def text_rows(length: int, count: int) -> list[tuple[IntArray, IntArray]]:
    """Rows as of Chinese text, with a [SEP] near the middle."""
    rng = random.Random(length)
    rows = []
    for _ in range(count):
        middle = rng.randrange(length // 3, length * 2 // 3)
        ids = [rng.randrange(FIRST_TEXT, len(VOCABULARY)) for _ in range(length)]
        starts = [
            True,
            *reference.random_words(middle - 1, rng),
            True,
            *reference.random_words(length - middle - 2, rng),
            True,
        ]
        ids[0], ids[middle], ids[-1] = CLS, SEP, SEP
        rows.append((np.array(ids), np.array(starts)))
    return rows


def words_of(ids: IntArray, starts: IntArray) -> list[reference.Word]:
    segments = reference.words_of(ids.tolist(), starts.tolist(), {CLS, SEP})
    return [word for segment in segments for word in segment]


def predicted(labels: IntArray) -> list[int]:
    return np.flatnonzero(labels != IGNORED).tolist()


def lengths_hit(ids: IntArray, starts: IntArray, labels: IntArray) -> tuple[Counter, Counter]:
    """Words, and wholly predicted words, by number of pieces."""
    words = words_of(ids, starts)
    hit = set(predicted(labels))
    return Counter(map(len, words)), Counter(len(word) for word in words if hit >= set(word))


def rates_by_length(strategy: str, length: int, cap: int, count: int) -> list[float]:
    seen, hit = Counter(), Counter()
    rng = np.random.default_rng(7)
    for ids, starts in text_rows(length, count):
        _, labels = mask_words(
            ids, starts, strategy=strategy, max_predictions=cap, vocabulary=PREPARED, rng=rng
        )
        words, masked = lengths_hit(ids, starts, labels)
        seen += words
        hit += masked
    return [100 * hit[size] / seen[size] for size in range(1, 7)]


# --- How many pieces, which words: the distributions


@pytest.mark.parametrize(
    ("pieces", "rate", "cap", "expected"),
    [
        (128, 0.15, 20, 19),
        (512, 0.15, 77, 77),
        (512, 0.15, 76, 76),
        (3, 0.15, 20, 1),
        (4, 1.0, 9, 4),
        # Python's round: halves to even.
        (10, 0.25, 20, 2),
        (30, 0.25, 20, 8),
        (50, 0.25, 20, 12),
        (10, 0.15, 20, 2),
    ],
)
def test_the_quota_is_google_s(pieces: int, rate: float, cap: int, expected: int) -> None:
    assert quota(pieces, rate, cap) == expected == reference.quota_of(pieces, rate, cap)
    ids, starts = row_of([[1] * (pieces - 2)])
    for strategy in ("char", "wwm"):
        _, labels = mask_words(
            ids,
            starts,
            strategy=strategy,
            rate=rate,
            max_predictions=cap,
            vocabulary=PREPARED,
            rng=np.random.default_rng(0),
        )
        assert len(predicted(labels)) == min(expected, pieces - 2)


@pytest.mark.parametrize(("length", "cap"), [(32, 20), (128, 20), (128, 5), (512, 77)])
def test_char_predicts_exactly_the_quota_in_every_row(length: int, cap: int) -> None:
    rng = np.random.default_rng(1)
    counts = Counter()
    for ids, starts in text_rows(length, 300):
        _, labels = mask_words(
            ids, starts, strategy="char", max_predictions=cap, vocabulary=PREPARED, rng=rng
        )
        counts[len(predicted(labels))] += 1
    assert counts == {reference.quota_of(length, 0.15, cap): 300}


@pytest.mark.parametrize(
    ("length", "cap", "count", "published"),
    [
        (32, 20, 6000, (24.4, 16.1, 12.9, 9.7, 7.8, 0.0)),
        (128, 20, 2000, (17.0, 15.0, 14.0, 13.9, 11.9, 11.2)),
        (512, 77, 400, (15.0, 15.0, 15.0, 15.0, 15.0, 15.0)),
    ],
)
def test_wwm_masks_long_words_less_often_as_published(
    length: int, cap: int, count: int, published: tuple[float, ...]
) -> None:
    # The published figures are of other text, with other shares of long words: hence the margin.
    rates = rates_by_length("wwm", length, cap, count)
    assert rates == pytest.approx(published, abs=1.5), rates
    assert length > 32 or rates[5] == 0.0  # longer than the quota


@pytest.mark.parametrize(("length", "cap"), [(32, 20), (128, 20), (128, 5), (512, 77)])
def test_wwm_unbiased_masks_words_of_every_length_alike(length: int, cap: int) -> None:
    seen, hit = Counter(), Counter()
    pieces = 0
    rows = text_rows(length, 40_000 // length)
    rng = np.random.default_rng(11)
    for ids, starts in rows:
        _, labels = mask_words(
            ids, starts, strategy="wwm-unbiased", max_predictions=cap, vocabulary=PREPARED, rng=rng
        )
        words, masked = lengths_hit(ids, starts, labels)
        seen, hit, pieces = seen + words, hit + masked, pieces + len(predicted(labels))
    limit = reference.quota_of(length, 0.15, cap)
    share = limit / (length - 3)
    observed, expected = [], []
    for size in range(1, 7):
        observed += [hit[size], seen[size] - hit[size]]
        expected += [seen[size] * share, seen[size] * (1 - share)]
    assert reference.chi_square_p(observed, expected, lost=6) > UNLIKELY
    # The expected number of predicted pieces is the quota.
    assert pieces / len(rows) == pytest.approx(limit, rel=0.03)


def test_wwm_unbiased_draws_each_word_on_its_own() -> None:
    ids, starts = row_of([[1] * 10])
    rng = np.random.default_rng(2)
    counts, pairs = Counter(), Counter()
    rows = 5000
    for _ in range(rows):
        _, labels = mask_words(
            ids, starts, strategy="wwm-unbiased", rate=0.25, vocabulary=PREPARED, rng=rng
        )
        hit = predicted(labels)
        counts[len(hit)] += 1
        pairs[(1 in hit, 2 in hit)] += 1
    share = quota(12, 0.25, 20) / 10
    binomial = [_choose(10, k) * share**k * (1 - share) ** (10 - k) * rows for k in range(11)]
    assert reference.chi_square_p([counts[k] for k in range(11)], binomial) > UNLIKELY
    both = [rows * p * q for p in (share, 1 - share) for q in (share, 1 - share)]
    cells = [pairs[a, b] for a in (True, False) for b in (True, False)]
    assert reference.chi_square_p(cells, both) > UNLIKELY
    assert max(counts) > quota(12, 0.25, 20)  # the cap is of the quota, not of the draw


def _choose(n: int, k: int) -> int:
    return 1 if k == 0 else _choose(n - 1, k - 1) * n // k


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("length", [24, 128])
def test_masks_are_distributed_as_the_reference_s(strategy: str, length: int) -> None:
    ours: dict[str, Counter] = {name: Counter() for name in ("pieces", "lengths", "spans", "parts")}
    theirs: dict[str, Counter] = {name: Counter() for name in ours}
    generator, rng = np.random.default_rng(3), random.Random(3)
    for ids, starts in text_rows(length, 40_000 // length):
        _, labels = mask_words(ids, starts, strategy=strategy, vocabulary=PREPARED, rng=generator)
        _count(ours, ids, starts, set(predicted(labels)))
        chosen = reference.choose(
            ids.tolist(), starts.tolist(), {CLS, SEP}, strategy=strategy, rng=rng
        )
        _count(theirs, ids, starts, {position for word in chosen for position in word})
    for name in ours:
        p = reference.two_sample_p(ours[name], theirs[name])
        assert p > UNLIKELY, (name, p, ours[name], theirs[name])


def _count(
    counts: dict[str, Counter], ids: IntArray, starts: IntArray, positions: set[int]
) -> None:
    """Pieces a row; of one predicted word a row: its length, place and span (so independent)."""
    words = words_of(ids, starts)
    chosen = [positions >= set(word) for word in words]
    counts["pieces"][len(positions)] += 1
    picks = [index for index, hit in enumerate(chosen) if hit]
    if not picks:
        return
    pick = picks[len(ids) % len(picks)]  # one word a row: words of a row are not independent
    counts["lengths"][len(words[pick])] += 1
    counts["parts"][words[pick][0] * 10 // len(ids)] += 1
    first = last = pick
    while first and chosen[first - 1]:
        first -= 1
    while last + 1 < len(words) and chosen[last + 1]:
        last += 1
    counts["spans"][min(last - first + 1, 8)] += 1


def test_ngram_spans_have_their_published_shares() -> None:
    """A quota of 4 in a long row of one-piece words: spans touch by chance in under 0.5 %."""
    ids, starts = row_of([[1] * 3998])
    rng = np.random.default_rng(5)
    spans: Counter[tuple[int, ...]] = Counter()
    for _ in range(6000):
        _, labels = mask_words(
            ids, starts, strategy="ngram", max_predictions=4, vocabulary=PREPARED, rng=rng
        )
        hit = np.array(predicted(labels))
        spans[tuple(sorted(map(len, np.split(hit, np.flatnonzero(np.diff(hit) > 1) + 1))))] += 1
    # 40/30/20/10 %, and what overshoots is shortened: 2 then 4 gives 2 and 2, for example.
    due = {(4,): 0.10, (1, 3): 0.32, (2, 2): 0.18, (1, 1, 2): 0.336, (1, 1, 1, 1): 0.064}
    assert spans.keys() == due.keys()
    for key, share in due.items():
        assert spans[key] / spans.total() == pytest.approx(share, abs=0.015), key


def test_ngram_spans_end_at_a_separator() -> None:
    """Sentences of one word: no span joins two of them, so neighbours meet by chance alone."""
    ids, starts = row_of([[1]] * 400)
    rng = np.random.default_rng(7)
    touching = 0
    for _ in range(500):
        _, labels = mask_words(
            ids, starts, strategy="ngram", max_predictions=4, vocabulary=PREPARED, rng=rng
        )
        hit = predicted(labels)
        assert len(hit) == 4
        touching += bool((np.diff(hit) == 2).any())
    assert touching < 30  # 3 in 200 by chance; nearly every row if spans ran on


@pytest.mark.parametrize("strategy", WORD_STRATEGIES)
def test_words_are_masked_alike_wherever_they_stand(strategy: str) -> None:
    """Equal words are chosen equally often; ngram, whose spans end at [SEP], as its reference."""
    words, rows = 30, 6000
    ids, starts = row_of([[2] * words])
    generator, rng = np.random.default_rng(13), random.Random(13)
    hits, expected = np.zeros(len(ids)), np.zeros(len(ids))
    for _ in range(rows):
        _, labels = mask_words(ids, starts, strategy=strategy, vocabulary=PREPARED, rng=generator)
        hits += labels != IGNORED
        if strategy == "ngram":
            chosen = reference.choose(ids, starts, {CLS, SEP}, strategy=strategy, rng=rng)
            expected[[position for word in chosen for position in word]] += 1
    if strategy != "ngram":
        expected[1:-1] = hits.sum() / (2 * words)
    # Each word's count is a binomial: 4 standard deviations of the difference.
    deviation = np.sqrt(2 * expected * (1 - expected / rows))
    assert (np.abs(hits - expected) <= 4 * deviation).all()
    assert hits.sum() == pytest.approx(expected.sum(), rel=0.02)


def test_char_masks_every_position_alike() -> None:
    rng = np.random.default_rng(17)
    ids, starts = row_of([[3] * 10, [1] * 10])
    hits = np.zeros(len(ids))
    for _ in range(8000):
        _, labels = mask_words(ids, starts, strategy="char", vocabulary=PREPARED, rng=rng)
        hits += labels != IGNORED
    marks = [index for index, piece in enumerate(ids) if piece in (CLS, SEP)]
    assert not hits[marks].any()
    text = np.delete(hits, marks).tolist()
    assert reference.chi_square_p(text, [sum(text) / len(text)] * len(text)) > UNLIKELY


# --- What replaces a chosen piece


def _actions(strategy: str, **options: object) -> tuple[Counter, list[list[str]]]:
    rng = np.random.default_rng(19)
    pieces, words = Counter(), []
    for ids, starts in text_rows(128, 1500):
        inputs, labels = mask_words(
            ids, starts, strategy=strategy, vocabulary=PREPARED, rng=rng, **options
        )
        words_here = words_of(ids, starts)
        if strategy == "char":
            words_here = [[position] for word in words_here for position in word]
        for word in words_here:
            if labels[word[0]] == IGNORED:
                continue
            # A random piece may be the same piece again: counted as kept, corrected by callers.
            done = [
                "mask" if inputs[k] == MASK else "kept" if inputs[k] == ids[k] else "random"
                for k in word
            ]
            pieces.update(done)
            words.append(done)
    return pieces, words


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("shares", [(0.8, 0.1), (0.5, 0.3), (1.0, 0.0), (0.0, 1.0)])
def test_chosen_pieces_are_masked_randomised_or_kept_by_their_shares(
    strategy: str, shares: tuple[float, float]
) -> None:
    pieces, _ = _actions(strategy, mask_share=shares[0], random_share=shares[1])
    same = shares[1] / len(PREPARED.random_ids)
    expected = [shares[0], shares[1] - same, 1 - sum(shares) + same]
    observed = [pieces[action] for action in ("mask", "random", "kept")]
    due = [share * sum(observed) for share in expected]
    assert reference.chi_square_p(observed, due) > UNLIKELY, pieces


def test_pieces_of_a_word_are_replaced_independently_by_default() -> None:
    _, words = _actions("wwm")
    pairs = Counter(tuple(done) for done in words if len(done) == 2)
    same = 0.1 / len(PREPARED.random_ids)
    share = {"mask": 0.8, "random": 0.1 - same, "kept": 0.1 + same}
    keys = [(a, b) for a in share for b in share]
    due = [share[a] * share[b] * pairs.total() for a, b in keys]
    assert reference.chi_square_p([pairs[key] for key in keys], due) > UNLIKELY


@pytest.mark.parametrize("strategy", WORD_STRATEGIES)
def test_per_word_draws_one_action_a_word(strategy: str) -> None:
    rng = np.random.default_rng(23)
    actions = Counter()
    for ids, starts in text_rows(128, 1500):
        # Pieces that are never drawn at random, so that kept and random cannot be confused.
        ids = np.where((ids == CLS) | (ids == SEP), ids, UNK)
        inputs, labels = mask_words(
            ids, starts, strategy=strategy, vocabulary=PREPARED, rng=rng, per_word=True
        )
        for word in words_of(ids, starts):
            if labels[word[0]] != IGNORED:
                kinds = {
                    "mask" if inputs[k] == MASK else "kept" if inputs[k] == UNK else "random"
                    for k in word
                }
                assert len(kinds) == 1
                actions[kinds.pop()] += 1
    due = [share * actions.total() for share in (0.8, 0.1, 0.1)]
    observed = [actions[kind] for kind in ("mask", "random", "kept")]
    assert reference.chi_square_p(observed, due) > UNLIKELY


@pytest.mark.parametrize("source", ["corpus", "all"])
def test_random_pieces_are_drawn_uniformly_from_their_source(source: str) -> None:
    rng = np.random.default_rng(29)
    drawn = Counter()
    for ids, starts in text_rows(128, 1500):
        inputs, labels = mask_words(
            ids,
            starts,
            vocabulary=VOCABULARY,
            random_pieces=source,
            rng=rng,
            mask_share=0.0,
            random_share=1.0,
        )
        drawn.update(inputs[labels != IGNORED].tolist())
    allowed = range(len(VOCABULARY)) if source == "all" else range(FIRST_TEXT, len(VOCABULARY))
    assert set(drawn) == set(allowed)
    due = [drawn.total() / len(allowed)] * len(allowed)
    assert reference.chi_square_p([drawn[piece] for piece in allowed], due) > UNLIKELY


def test_corpus_random_pieces_of_the_shipped_vocabulary_can_stand_in_a_text() -> None:
    shipped = masking.__file__.replace("data/masking.py", "assets/vocab.txt")
    with open(shipped, encoding="utf-8") as file:  # noqa: PTH123
        pieces = file.read().splitlines()
    drawn = [pieces[i] for i in MaskingVocabulary(pieces).random_ids]
    assert len(drawn) > 10_000
    assert not {piece for piece in drawn if piece.startswith("[") and piece != "["}
    assert not {p for p in drawn if len(p) == 3 and p[:2] == "##" and "一" <= p[2] <= "鿿"}


# --- Properties of any row


@st.composite
def rows(draw: Callable) -> tuple[IntArray, IntArray]:
    """Any row: marks anywhere, [UNK] and [MASK] in the text, flags right or wrong."""
    ids = draw(
        st.lists(
            st.sampled_from([CLS, SEP, UNK, MASK, *range(FIRST_TEXT, len(VOCABULARY))]),
            min_size=1,
            max_size=60,
        )
    )
    starts = draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids)))
    if draw(st.booleans()):
        ids, starts = [CLS, *ids, SEP], [True, *starts, True]
    return np.array(ids), np.array(starts)


options = st.fixed_dictionaries(
    {
        "rate": st.sampled_from([0.01, 0.15, 0.4, 1.0]),
        "max_predictions": st.sampled_from([1, 2, 5, 20]),
        "per_word": st.booleans(),
        "random_pieces": st.sampled_from(["corpus", "all"]),
        "strategy": st.sampled_from(STRATEGIES),
    }
)
seeds = st.integers(0, 2**32)


@given(rows(), options, seeds)
def test_whatever_the_row_the_rules_hold(
    row: tuple[IntArray, IntArray], options: dict, seed: int
) -> None:
    ids, starts = row
    before = ids.copy(), starts.copy()
    inputs, labels = mask_words(
        ids, starts, vocabulary=VOCABULARY, rng=np.random.default_rng(seed), **options
    )
    assert (ids == before[0]).all()  # the caller's arrays stay as they were
    assert (starts == before[1]).all()
    assert inputs.dtype == labels.dtype == np.int64
    assert inputs.shape == labels.shape == ids.shape
    hit = labels != IGNORED
    marks = (ids == CLS) | (ids == SEP)
    assert not (hit & marks).any()
    assert (inputs[~hit] == ids[~hit]).all()
    assert (labels[hit] == ids[hit]).all()
    words = words_of(ids, starts)
    limit = reference.quota_of(len(ids), options["rate"], options["max_predictions"])
    if options["strategy"] == "char":
        assert hit.sum() == min(limit, (~marks).sum())
        return
    for word in words:  # a mask never splits a word, nor runs over a mark
        assert len(set(hit[word].tolist())) == 1
        if options["strategy"] != "wwm-unbiased":
            assert len(word) <= limit or not hit[word[0]]
    if options["strategy"] != "wwm-unbiased":
        assert hit.sum() <= limit
        # Nothing more would have fitted.
        left = [len(word) for word in words if not hit[word[0]]]
        assert not left or hit.sum() + min(left) > limit


@native
@given(rows(), options, seeds)
def test_the_plain_version_masks_as_the_native_module_does(
    row: tuple[IntArray, IntArray], options: dict, seed: int
) -> None:
    compiled = masking._rows
    both = []
    for module in (compiled, None):
        rng = np.random.default_rng(seed)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(masking, "_rows", module)
            both.append(
                (*mask_words(*row, vocabulary=VOCABULARY, rng=rng, **options), rng.random())
            )
    assert (both[0][0] == both[1][0]).all()
    assert (both[0][1] == both[1][1]).all()
    assert both[0][2] == both[1][2]  # as many draws


@native
@given(rows(), options, seeds)
def test_shares_and_generators_of_other_kinds_give_the_same_masks_natively(
    row: tuple[IntArray, IntArray], options: dict, seed: int
) -> None:
    both = []
    for module in (masking._rows, None):
        rng = np.random.Generator(np.random.MT19937(seed))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(masking, "_rows", module)
            both.append(
                mask_words(
                    *row, vocabulary=PREPARED, rng=rng, mask_share=0.3, random_share=0.4, **options
                )
            )
    assert np.array_equal(both[0], both[1])


@native
@given(st.lists(st.lists(st.integers(1, 40), min_size=1, max_size=8), max_size=8), seeds)
def test_the_plain_version_plans_as_the_native_module_does(
    documents: list[list[int]], seed: int
) -> None:
    lengths = [length for document in documents for length in document]
    sentences = np.cumsum([0, *lengths])
    first = np.cumsum([0, *map(len, documents)])
    groups = sentences[first[:-1]]
    flags = np.random.default_rng(seed).random(sentences[-1]) < 0.6
    bits = np.packbits(flags, bitorder="little")
    both = []
    for module in (row_plans._rows, None):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(row_plans, "_rows", module)
            rng = np.random.default_rng(seed)
            plans = [
                row_plans.plan_pairs(sentences, first, 17, 0.3, rng),
                row_plans.plan_packed(sentences, groups, bits, 11, 1),
                row_plans.plan_packed(sentences, groups, bits, 11, -1),
            ]
            if len(flags) > 1:
                cut = len(flags) // 3
                plans += [
                    np.array(row_plans.truncate_pair(flags[:cut], flags[cut:], limit, rng))
                    for limit in (2, 5, 30)
                ]
            both.append([*plans, np.array(rng.random())])
    for ours, plain in zip(*both, strict=True):
        assert ours.shape == plain.shape
        assert (ours == plain).all()


# --- Edges


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_smallest_row_has_its_one_piece_predicted(strategy: str) -> None:
    _, labels = mask_words(
        [CLS, UNK, SEP], [1, 1, 1], strategy=strategy, vocabulary=PREPARED,
        rng=np.random.default_rng(0),
    )  # fmt: skip
    assert labels.tolist() == [IGNORED, UNK, IGNORED]


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("ids", [[], [CLS], [CLS, SEP], [CLS, SEP, SEP]])
def test_a_row_of_marks_alone_stays_as_it_is(strategy: str, ids: list[int]) -> None:
    inputs, labels = mask_words(
        ids, [1] * len(ids), strategy=strategy, vocabulary=PREPARED, rng=np.random.default_rng(0)
    )
    assert inputs.tolist() == ids
    assert labels.tolist() == [IGNORED] * len(ids)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_padding_is_no_part_of_a_row(strategy: str) -> None:
    ids, starts = row_of([[2, 1, 3, 1, 2], [1, 1, 2]])
    padded = [*ids, *[VOCABULARY.index("[PAD]")] * 60]
    for seed in range(20):
        plain, labels = mask_words(
            ids, starts, strategy=strategy, vocabulary=PREPARED, rng=np.random.default_rng(seed)
        )
        inputs, more_labels = mask_words(
            padded,
            [*starts, *[False] * 60],
            strategy=strategy,
            vocabulary=PREPARED,
            rng=np.random.default_rng(seed),
        )
        assert inputs.tolist() == [*plain, *padded[len(ids) :]]
        assert more_labels.tolist() == [*labels, *[IGNORED] * 60]


def test_flags_that_are_wrong_at_the_marks_do_not_join_words_over_them() -> None:
    ids = [CLS, 20, 21, SEP, 22, 23, SEP]
    starts = [0, 0, 0, 0, 0, 0, 0]
    seen = set()
    for seed in range(50):
        _, labels = mask_words(
            ids, starts, rate=0.3, vocabulary=PREPARED, rng=np.random.default_rng(seed)
        )
        seen.add(tuple(predicted(labels)))
    assert seen == {(1, 2), (4, 5)}


def test_a_literal_mask_or_unknown_piece_is_predicted_like_any_other() -> None:
    ids, seen = [CLS, MASK, UNK, 30, SEP], set()
    for seed in range(40):
        _, labels = mask_words(ids, [1] * 5, vocabulary=PREPARED, rng=np.random.default_rng(seed))
        seen.update(labels[labels != IGNORED].tolist())
    assert seen == {MASK, UNK, 30}


def test_a_vocabulary_may_be_a_list_a_tuple_or_prepared() -> None:
    ids, starts = row_of([[2, 1, 3], [2, 2]])
    results = [
        mask_words(ids, starts, rate=0.5, vocabulary=vocabulary, rng=np.random.default_rng(1))
        for vocabulary in (VOCABULARY, tuple(VOCABULARY), PREPARED)
    ]
    for inputs, labels in results[1:]:
        assert np.array_equal(inputs, results[0][0])
        assert np.array_equal(labels, results[0][1])


def test_another_vocabulary_is_not_mistaken_for_the_last_one() -> None:
    ids, starts = row_of([[1] * 8])
    moved = [*VOCABULARY, "[MASK]"]
    moved[MASK] = "原"
    for vocabulary, mask_id in ((list(VOCABULARY), MASK), (moved, len(moved) - 1)):
        inputs, labels = mask_words(
            ids, starts, vocabulary=vocabulary, rng=np.random.default_rng(0),
            mask_share=1.0, random_share=0.0,
        )  # fmt: skip
        assert (inputs[labels != IGNORED] == mask_id).all()


def test_rows_may_be_any_arrays_of_numbers() -> None:
    ids, starts = row_of([[1, 2, 3, 1, 2]])
    expected = mask_words(ids, starts, vocabulary=PREPARED, rng=np.random.default_rng(0))
    doubled = np.repeat(np.array(ids, dtype=np.uint16), 2)
    for row, flags in (
        (doubled[::2], np.repeat(starts, 2)[::2]),
        (np.array(ids[::-1], dtype=np.int32)[::-1], np.array(starts[::-1])[::-1]),
        (tuple(ids), np.array(starts, dtype=np.uint8)),
    ):
        found = mask_words(row, flags, vocabulary=PREPARED, rng=np.random.default_rng(0))
        assert np.array_equal(found, expected)


def test_the_package_exports_the_function_that_masks() -> None:
    assert zhbert.mask_words is mask_words


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"strategy": "whole"}, "strategy = .whole.*known: char, wwm, wwm-unbiased, ngram"),
        ({"rate": 0.0}, "rate = 0"),
        ({"rate": 1.5}, "rate = 1.5"),
        ({"rate": float("nan")}, "rate = NaN"),
        ({"max_predictions": 0}, "max_predictions = 0"),
        (
            {"mask_share": 0.8, "random_share": 0.3},
            "random_share = 1.1: must be at most 1",
        ),
        ({"mask_share": -0.1}, "mask_share = -0.1: must be from 0 to 1"),
        ({"mask_share": float("nan")}, "mask_share = NaN"),
        ({"random_pieces": "some"}, "random_pieces = .some.*known: corpus, all"),
        ({"vocabulary": ["[CLS]", "[SEP]", "字"]}, r"no \[MASK\]"),
        ({"vocabulary": ["[CLS]", "[SEP]", "[MASK]"]}, "no piece that a text can contain"),
        ({"word_starts": [1, 1]}, r"shape \(3,\) and word_starts of shape \(2,\)"),
        ({"piece_ids": [[CLS, 30, SEP]], "word_starts": [[1, 1, 1]]}, "one row"),
    ],
)
def test_a_mistake_is_one_clear_line(changed: dict, message: str) -> None:
    arguments = {
        "piece_ids": [CLS, 30, SEP],
        "word_starts": [1, 1, 1],
        "vocabulary": VOCABULARY,
        "rng": np.random.default_rng(0),
    } | changed
    with pytest.raises(ZhbertError, match=message) as error:
        mask_words(**arguments)
    assert "\n" not in str(error.value)


def test_the_rate_changes_linearly_over_the_run() -> None:
    changing = MaskingSettings(rate=0.3, final_rate=0.15)
    assert [changing.rate_at(p) for p in (0.0, 0.5, 1.0, 1.5)] == pytest.approx(
        [0.3, 0.225, 0.15, 0.15]
    )
    assert MaskingSettings(rate=0.2).rate_at(0.7) == 0.2
