"""Rows: Google's sentence pairs, and packed sentences that lose nothing."""

from __future__ import annotations

import random
from collections import Counter
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.data import reference_rows as reference
from tests.data.reference_masking import chi_square_p, two_sample_p
from tests.data.reference_rows import CLS, SEP, MemoryShard

from zhbert.data import examples, row_plans
from zhbert.data.examples import PairRows, RowBuilder, make_rows, unpack_bits
from zhbert.data.random_streams import ReusableGenerator, generator
from zhbert.data.row_plans import plan_packed, plan_pairs, truncate_pair
from zhbert.errors import ZhbertError

UNLIKELY = 1e-3
MAX_PIECES = 61

seeds = st.integers(0, 2**32)


@cache
def corpus(count: int = 1500, seed: int = 0) -> list[reference.Document]:
    return reference.random_documents(count, random.Random(seed))


def arrays(documents: list[reference.Document]) -> tuple[np.ndarray, np.ndarray]:
    """First piece of each sentence and the end; first sentence of each document and the end."""
    sizes = [[len(s) for s in reference.sentences_of(document)] for document in documents]
    return (
        np.cumsum([0, *(size for document in sizes for size in document)], dtype=np.int64),
        np.cumsum([0, *map(len, sizes)], dtype=np.int64),
    )


@cache
def plan(short: float = 0.1, seed: int = 0) -> np.ndarray:
    return plan_pairs(*arrays(corpus()), MAX_PIECES, short, np.random.default_rng(seed))


def build(builder: str, documents: list[reference.Document], length: int, **options) -> RowBuilder:
    """Rows over the documents in two shards and an empty one between."""
    half = len(documents) // 2
    shards = [MemoryShard(documents[:half]), MemoryShard([]), MemoryShard(documents[half:])]
    return make_rows(
        builder, shards, cls_id=CLS, sep_id=SEP, sequence_length=length, seed=3, **options
    )


def rows_of(rows: RowBuilder, epoch: int = 0) -> list[examples.TrainingRow]:
    return [rows.row(epoch, i, generator(3, 2, epoch, i)) for i in range(rows.count(epoch))]


def word_starts_of(documents: list[reference.Document]) -> dict[int, bool]:
    return {
        piece: index == 0
        for document in documents
        for line in document
        for sentence in line
        for word in sentence
        for index, piece in enumerate(word)
    }


# --- Sentence pairs: the plan


def test_pairs_are_whole_sentences_of_one_document_each() -> None:
    sentences, documents = arrays(corpus())
    borders = set(sentences.tolist())
    document_of = np.repeat(np.arange(len(documents) - 1), np.diff(sentences[documents]))
    for a, a_length, b, b_length, is_random in plan().tolist():
        assert {a, a + a_length, b, b + b_length} <= borders
        assert min(a_length, b_length) > 0
        assert document_of[a] == document_of[a + a_length - 1]
        assert document_of[b] == document_of[b + b_length - 1]
        if is_random:
            assert document_of[b] != document_of[a]
        else:
            assert b == a + a_length
            assert document_of[b] == document_of[a]


def test_every_sentence_stands_once_in_a_or_in_a_true_b() -> None:
    """So the sentences that a random B displaced are used again, and none is lost."""
    at = 0
    for a, a_length, _, b_length, is_random in plan().tolist():
        assert a == at
        at += a_length + (0 if is_random else b_length)
    assert at == arrays(corpus())[0][-1]


def test_without_short_rows_a_pair_is_filled_to_its_target() -> None:
    sentences, documents = arrays(corpus())
    ends = set(sentences[documents].tolist())
    starts = sentences.tolist()
    length_of = dict(zip(starts, np.diff(sentences).tolist(), strict=False))
    last_of = {starts[i + 1]: starts[i + 1] - starts[i] for i in range(len(starts) - 1)}
    for _, a_length, b, b_length, is_random in plan(short=0.0).tolist():
        total, end = a_length + b_length, b + b_length
        if is_random:  # B ends with the sentence that reaches the target, or with its document
            assert total >= MAX_PIECES or end in ends
            assert b_length == length_of[b] or total - last_of[end] < MAX_PIECES
        else:
            assert total >= MAX_PIECES or end in ends
            assert total - last_of[end] < MAX_PIECES


@pytest.mark.parametrize("short", [0.0, 0.1, 1.0])
def test_pairs_are_distributed_as_google_s(short: float) -> None:
    """One pair a document (its first, or its last): a document's pairs are not independent."""
    names = ("rows", "random", "a", "b", "total", "last total", "a sentences", "b sentences")
    ours: dict[str, Counter] = {name: Counter() for name in names}
    theirs: dict[str, Counter] = {name: Counter() for name in names}
    sentences, documents = arrays(corpus())
    sentence_at = {int(start): index for index, start in enumerate(sentences)}
    document_of = np.repeat(np.arange(len(documents) - 1), np.diff(sentences[documents]))
    by_document: dict[int, list] = {}
    for a, a_length, b, b_length, is_random in plan(short).tolist():
        by_document.setdefault(int(document_of[a]), []).append(
            (
                a_length,
                b_length,
                sentence_at[a + a_length] - sentence_at[a],
                sentence_at[b + b_length] - sentence_at[b],
                is_random,
            )
        )
    flat = [reference.sentences_of(document) for document in corpus()]
    rng = random.Random(5)
    for index in range(len(flat)):
        pairs = reference.google_pairs(flat, index, MAX_PIECES, short, rng)
        expected = [
            (sum(map(len, p.a)), sum(map(len, p.b)), len(p.a), len(p.b), int(p.is_random))
            for p in pairs
        ]
        for counts, found in ((ours, by_document[index]), (theirs, expected)):
            a, b, a_sentences, b_sentences, is_random = found[0]
            counts["rows"][len(found)] += 1
            counts["random"][is_random, a_sentences > 1] += 1
            counts["a"][a // 8] += 1
            counts["b"][b // 8] += 1
            counts["total"][(a + b) // 8] += 1
            counts["last total"][(found[-1][0] + found[-1][1]) // 8, found[-1][4]] += 1
            counts["a sentences"][a_sentences] += 1
            counts["b sentences"][b_sentences] += 1
    for name in names:
        p = two_sample_p(ours[name], theirs[name])
        assert p > UNLIKELY, (name, p, ours[name], theirs[name])


def test_half_of_the_pairs_that_could_be_true_are_random() -> None:
    """First pairs of documents of many sentences: a coin each."""
    sizes = np.arange(0, 2000 * 20 * 10 + 1, 10, dtype=np.int64)
    first = np.arange(0, len(sizes), 20)
    pairs = plan_pairs(sizes, first, 40, 0.0, np.random.default_rng(2))
    firsts = pairs[np.isin(pairs[:, 0], sizes[first[:-1]])]
    assert len(firsts) == 2000
    assert ((firsts[:, 1] + firsts[:, 3])[firsts[:, 4] == 0] == 40).all()
    assert abs(firsts[:, 4].sum() - 1000) < 4 * np.sqrt(500)
    # The cut between A and B is uniform over the inner sentence borders.
    cuts = Counter((firsts[:, 1] // 10).tolist())
    assert cuts.keys() == {1, 2, 3}
    assert chi_square_p([cuts[k] for k in (1, 2, 3)], [2000 / 3] * 3) > UNLIKELY


def test_short_targets_are_uniform_from_2_to_the_row_s_capacity() -> None:
    count = 30_000
    sizes = np.arange(200 * count + 1, dtype=np.int64)  # sentences of one piece
    first = np.arange(0, len(sizes), 200)
    pairs = plan_pairs(sizes, first, 40, 0.25, np.random.default_rng(3))
    firsts = pairs[np.isin(pairs[:, 0], first[:-1])]
    totals = Counter((firsts[:, 1] + firsts[:, 3]).tolist())
    # A random B that starts near its document's end is shorter: true pairs alone tell the target.
    true = Counter((firsts[:, 1] + firsts[:, 3])[firsts[:, 4] == 0].tolist())
    assert set(totals) <= set(range(2, 41))
    due = [true.total() * (0.25 / 39 + (0.75 if total == 40 else 0)) for total in range(2, 41)]
    assert chi_square_p([true[total] for total in range(2, 41)], due) > UNLIKELY


def test_random_b_starts_uniformly_in_a_uniform_other_document() -> None:
    documents, sentences = 6, 5
    sizes = np.arange(0, documents * sentences * 10 + 1, 10, dtype=np.int64)
    first = np.arange(0, documents * sentences + 1, sentences)
    starts: Counter = Counter()
    for seed in range(1500):
        pairs = plan_pairs(sizes, first, 30, 0.0, np.random.default_rng(seed))
        row = pairs[0]
        if row[4]:
            starts[int(row[2]) // 10] += 1
    due = [0.0] * sentences + [starts.total() / (documents - 1) / sentences] * (
        (documents - 1) * sentences
    )
    assert chi_square_p([starts[s] for s in range(documents * sentences)], due) > UNLIKELY


def test_a_lone_document_still_gives_pairs() -> None:
    documents = corpus()[:1]
    rows = rows_of(make_rows("pairs", [MemoryShard(documents)], cls_id=CLS, sep_id=SEP,
                             sequence_length=64, seed=0))  # fmt: skip
    assert rows
    assert all(len(row.piece_ids) <= 64 for row in rows)


# --- Sentence pairs: the rows


@pytest.mark.parametrize("length", [5, 6, 16, 64])
def test_pair_rows_are_marked_typed_and_never_too_long(length: int) -> None:
    documents = corpus(200)
    flags = word_starts_of(documents)
    for row in rows_of(build("pairs", documents, length)):
        ids = row.piece_ids.tolist()
        assert len(ids) <= length
        assert ids[0] == CLS
        assert [i for i, piece in enumerate(ids) if piece == SEP] == [
            row.first_length - 1,
            len(ids) - 1,
        ]
        assert CLS not in ids[1:]
        a, b = ids[1 : row.first_length - 1], ids[row.first_length : -1]
        for segment in (a, b):  # each a run of the corpus
            assert segment == list(range(segment[0], segment[0] + len(segment)))
        assert row.next_sentence_label in (0, 1)
        for piece, start in zip(ids, row.word_starts.tolist(), strict=True):
            assert start == flags.get(piece, True)


def test_long_pairs_are_cut_between_words_and_the_loss_is_counted() -> None:
    documents = corpus(300)
    starts = word_starts_of(documents)
    longest = 6
    builder = build("pairs", documents, 64)
    assert isinstance(builder, PairRows)
    planned = np.concatenate([builder._plan(0)])
    dropped_rows = 0
    for row, (_, a_length, _, b_length, _) in zip(rows_of(builder), planned.tolist(), strict=True):
        a = row.piece_ids[1 : row.first_length - 1].tolist()
        b = row.piece_ids[row.first_length : -1].tolist()
        assert row.dropped == a_length + b_length - len(a) - len(b)
        excess = max(0, a_length + b_length - 61)
        assert excess <= row.dropped < excess + longest
        assert bool(row.dropped) == bool(excess)
        dropped_rows += bool(excess)
        for segment in (a, b):
            assert starts[segment[0]]
            assert starts.get(segment[-1] + 1, True)
    assert dropped_rows > 100


def test_truncation_by_one_piece_words_is_google_s() -> None:
    ours, theirs = Counter(), Counter()
    generator_, rng = np.random.default_rng(7), random.Random(7)
    # An odd limit: of two equally long segments it is B that is cut.
    a, b = list(range(9)), list(range(6))
    for _ in range(4000):
        ours[truncate_pair(np.ones(9, bool), np.ones(6, bool), 7, generator_)] += 1
        cut_a, cut_b = reference.google_truncation(a, b, 7, rng)
        theirs[cut_a[0], cut_a[-1] + 1, cut_b[0], cut_b[-1] + 1] += 1
    assert two_sample_p(ours, theirs) > UNLIKELY


@given(
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.lists(st.integers(1, 9), min_size=1, max_size=12),
    st.integers(2, 40),
    seeds,
)
def test_truncation_keeps_both_segments_and_their_words(
    a: list[int], b: list[int], max_pieces: int, seed: int
) -> None:
    flags = [
        np.array([k == 0 for length in words for k in range(length)], dtype=bool)
        for words in (a, b)
    ]
    a_first, a_end, b_first, b_end = truncate_pair(*flags, max_pieces, np.random.default_rng(seed))
    assert (a_end - a_first) + (b_end - b_first) <= max_pieces
    if sum(a) + sum(b) <= max_pieces:
        assert (a_first, a_end, b_first, b_end) == (0, sum(a), 0, sum(b))
    for words, first, end in ((a, a_first, a_end), (b, b_first, b_end)):
        assert 0 <= first < end <= sum(words)
        edges = [0, *np.cumsum(words).tolist()]
        whole = first in edges and end in edges
        inside_one_word = any(x <= first and end <= y for x, y in pairwise(edges))
        assert whole or inside_one_word  # only a segment's last word is ever cut


def test_pairs_are_drawn_anew_every_epoch() -> None:
    documents = corpus(100)
    fresh = build("pairs", documents, 64)
    assert isinstance(fresh, PairRows)
    assert not np.array_equal(fresh._plan(0)[:50], fresh._plan(1)[:50])
    # An epoch that was forgotten comes back the same.
    first = fresh._plan(0).copy()
    for epoch in range(1, 6):
        fresh.count(epoch)
    assert np.array_equal(fresh._plan(0), first)


# --- Packed sentences


def stripped(row: examples.TrainingRow) -> list[int]:
    return [piece for piece in row.piece_ids.tolist() if piece not in (CLS, SEP)]


@pytest.mark.parametrize("builder", ["full-sentences", "lines"])
@pytest.mark.parametrize("length", [3, 5, 8, 32, 128])
def test_packed_rows_lose_nothing_and_keep_the_order(builder: str, length: int) -> None:
    documents = corpus(120)
    rows = rows_of(build(builder, documents, length))
    flat = [p for document in documents for s in reference.sentences_of(document) for p in s]
    assert [piece for row in rows for piece in stripped(row)] == flat
    assert all(3 <= len(row.piece_ids) <= length for row in rows)
    assert all(row.dropped == 0 and row.next_sentence_label is None for row in rows)
    assert all(row.first_length == len(row.piece_ids) for row in rows)


@pytest.mark.parametrize("builder", ["full-sentences", "lines"])
@pytest.mark.parametrize("length", [8, 20, 64, 128])
def test_packed_rows_are_the_reference_s(builder: str, length: int) -> None:
    """Greedily filled, cut between words, [SEP] where a document ends inside a row."""
    documents = corpus(120)
    half = len(documents) // 2
    expected = [
        row
        for part in (documents[:half], documents[half:])
        for row in reference.packed(part, length, lines=builder == "lines")
    ]
    assert [r.piece_ids.tolist() for r in rows_of(build(builder, documents, length))] == expected


@given(seeds, st.integers(8, 40), st.booleans())
def test_packed_rows_are_the_reference_s_on_any_corpus(seed: int, length: int, lines: bool) -> None:
    documents = reference.random_documents(
        5, random.Random(seed), lines=3, sentences=3, words=1 + seed % 9
    )
    builder = make_rows(
        "lines" if lines else "full-sentences",
        [MemoryShard(documents)],
        cls_id=CLS,
        sep_id=SEP,
        sequence_length=length,
        seed=0,
    )
    found = [row.piece_ids.tolist() for row in rows_of(builder)]
    assert found == reference.packed(documents, length, lines=lines)


@pytest.mark.parametrize("builder", ["full-sentences", "lines"])
def test_packed_rows_start_words_where_the_corpus_does(builder: str) -> None:
    documents = corpus(120)
    starts = word_starts_of(documents)
    for row in rows_of(build(builder, documents, 16)):
        for piece, flag in zip(row.piece_ids.tolist(), row.word_starts.tolist(), strict=True):
            assert flag == starts.get(piece, True)


def test_lines_never_share_a_row() -> None:
    documents = corpus(120)
    line_of = {
        piece: (d, number)
        for d, document in enumerate(documents)
        for number, line in enumerate(document)
        for sentence in line
        for word in sentence
        for piece in word
    }
    for row in rows_of(build("lines", documents, 64)):
        assert len({line_of[piece] for piece in stripped(row)}) == 1


def test_a_separator_stands_at_every_document_border_inside_a_row() -> None:
    documents = corpus(120)
    document_of = {
        piece: d
        for d, document in enumerate(documents)
        for sentence in reference.sentences_of(document)
        for piece in sentence
    }
    inside = 0
    for row in rows_of(build("full-sentences", documents, 128)):
        ids = row.piece_ids.tolist()[1:-1]
        for left, right in pairwise(ids):
            if SEP not in (left, right):
                assert document_of[left] == document_of[right]
        for index, piece in enumerate(ids):
            if piece == SEP:
                assert document_of[ids[index - 1]] + 1 == document_of[ids[index + 1]]
                inside += 1
    assert inside > 20


def test_a_word_longer_than_a_row_is_cut_to_fit_and_kept() -> None:
    documents = [[[[[10, 11], list(range(12, 40)), [40]]]]]
    rows = rows_of(make_rows("lines", [MemoryShard(documents)], cls_id=CLS, sep_id=SEP,
                             sequence_length=12, seed=0))  # fmt: skip
    assert [len(row.piece_ids) for row in rows] == [4, 12, 12, 11]
    assert [piece for row in rows for piece in stripped(row)] == list(range(10, 41))
    assert all(row.word_starts[1] for row in rows)  # the rest of a cut word is a word of its row


# --- Random numbers, flags, mistakes


def test_generators_depend_on_their_four_numbers_alone() -> None:
    reused = ReusableGenerator()
    seen = set()
    for key in [
        (s, t, e, i) for s in (0, 1, 2**40) for t in (0, 2) for e in (0, 9) for i in (0, 5)
    ]:
        reused.at(*key).integers(0, 100, 7)  # leaves half a word in the generator
        values = tuple(reused.at(*key).random(3).tolist())
        assert values == tuple(generator(*key).random(3).tolist())
        seen.add(values)
    assert len(seen) == 24


@given(st.lists(st.booleans(), min_size=1, max_size=80), st.data())
def test_flags_are_unpacked_from_any_place(flags: list[bool], data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(flags)))
    length = data.draw(st.integers(0, len(flags) - start))
    bits = np.packbits(np.array(flags), bitorder="little")
    assert unpack_bits(bits, start, length).tolist() == flags[start : start + length]


@pytest.mark.parametrize(
    ("builder", "length", "message"),
    [
        ("pair", 64, "builder = 'pair'; known: pairs, full-sentences, lines"),
        ("pairs", 4, "sequence_length = 4: a pair needs at least 5"),
        ("lines", 2, "sequence_length = 2: a row needs at least 3"),
    ],
)
def test_a_mistake_is_one_clear_line(builder: str, length: int, message: str) -> None:
    with pytest.raises(ZhbertError, match=message):
        build(builder, corpus(2), length)


@pytest.mark.parametrize("builder", examples.BUILDERS)
def test_no_shards_and_empty_shards_make_no_rows(builder: str) -> None:
    for shards in ([], [MemoryShard([])], [MemoryShard([]), MemoryShard([])]):
        rows = make_rows(builder, shards, cls_id=CLS, sep_id=SEP, sequence_length=16, seed=0)
        assert rows.count(0) == 0


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    ("sentences", "documents"),
    [
        ([0, 9, 5], [0, 2]),
        ([-1, 4], [0, 1]),
        ([0, 4, 8], [0, 3]),
        ([0, 4, 8], [0, 1, 1]),
        ([0, 4, 8], [-1, 2]),
        ([], [0]),
    ],
)
def test_positions_that_lead_outside_are_refused(monkeypatch, native, sentences, documents):
    if not native:
        monkeypatch.setattr(row_plans, "_rows", None)
    starts, firsts = (np.array(x, dtype=np.int64) for x in (sentences, documents))
    with pytest.raises(ValueError, match="must increase from 0 or more to"):
        plan_pairs(starts, firsts, 10, 0.1, np.random.default_rng(0))


@pytest.mark.parametrize("native", [True, False])
@pytest.mark.parametrize(
    ("sentences", "capacity", "message"),
    [
        ([0, 9, 5], 4, "sentences: must increase"),
        ([0, 4, 17], 4, "sentences: must increase from 0 or more to 16 at most"),
        ([0, 4, 16], 0, "capacity: must be 1 at least"),
    ],
)
def test_sentences_outside_of_the_words_marks_are_refused(
    monkeypatch, native, sentences, capacity, message
):
    if not native:
        monkeypatch.setattr(row_plans, "_rows", None)
    bits = np.zeros(2, dtype=np.uint8)
    starts = np.array(sentences, dtype=np.int64)
    with pytest.raises(ValueError, match=message):
        plan_packed(starts, np.array([0]), bits, capacity, 1)
