"""Rows and batches: transformers' pieces, every row once, and where a run goes on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import BertTokenizer

from zhbert.tasks.rows import (
    Rows,
    by_length,
    gather,
    longest_first,
    micro_batches,
    padding_share,
    plan_epoch,
    steps_of,
    text_rows,
)
from zhbert.text.tokenizer import Tokenizer

texts = st.text(alphabet="今天气很好的cat s1，。", max_size=30)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    Tokenizer.default().save_pretrained(folder)
    return Tokenizer.default(), BertTokenizer.from_pretrained(folder)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8), st.integers(8, 40))
def test_rows_of_pairs_are_those_of_transformers(tokenizers, pairs, length):
    ours, theirs = tokenizers
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    rows = text_rows(ours, first, second, length)
    expected = theirs(first, second, truncation="longest_first", max_length=length)
    for number in range(len(pairs)):
        row = rows.row(number)
        assert row.tolist() == expected["input_ids"][number]
        segments = (np.arange(len(row)) >= rows.second[number]).astype(int)
        assert segments.tolist() == expected["token_type_ids"][number]
    assert rows.cut == sum(len(ids) > length for ids in theirs(first, second)["input_ids"])


@given(st.lists(texts, min_size=1, max_size=8), st.integers(8, 40))
def test_rows_of_single_texts_are_those_of_transformers(tokenizers, several, length):
    ours, theirs = tokenizers
    rows = text_rows(ours, several, [None] * len(several), length)
    expected = theirs(several, truncation=True, max_length=length)
    assert [rows.row(n).tolist() for n in range(len(rows))] == expected["input_ids"]
    assert rows.cut == sum(len(ids) > length for ids in theirs(several)["input_ids"])


@given(st.integers(0, 40), st.integers(0, 40), st.integers(2, 40))
def test_the_longer_text_is_cut_first(m, n, room):
    (a, b), total = longest_first(np.array([[m, n]]), room)[0], min(m + n, room)
    assert a + b == total
    assert a <= m
    assert b <= n
    # Nothing is cut from a text while the other one is longer by more than the odd piece.
    assert a == m or a >= b - 1
    assert b == n or b >= a - 1


def some_rows(lengths, targets=None, of_pieces=False):
    lengths = np.array(lengths)
    starts = np.concatenate(([0], lengths.cumsum()))
    ids = np.arange(starts[-1], dtype=np.int32)
    return Rows(ids, starts, (lengths // 2).astype(np.int32), targets, of_pieces)


def test_a_batch_holds_the_rows_one_after_another():
    rows = some_rows([3, 2, 4], np.array([7, 8, 9]))
    batch, pieces = gather(rows, np.array([2, 0]))
    assert batch.packed.input_ids.tolist() == [5, 6, 7, 8, 0, 1, 2] == pieces.tolist()
    assert batch.packed.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch.packed.token_type_ids.tolist() == [0, 0, 1, 1, 0, 1, 1]
    assert batch.packed.cu_seqlens.tolist() == [0, 4, 7]
    assert (batch.packed.max_length, batch.predictions) == (4, 2)
    assert batch.targets is not None
    assert batch.targets.tolist() == [9, 7]


def test_targets_of_pieces_go_with_their_pieces():
    rows = some_rows([3, 2], np.array([-100, 1, -100, -100, 2]), of_pieces=True)
    batch, _ = gather(rows, np.array([1, 0]))
    assert batch.targets is not None
    assert batch.targets.tolist() == [-100, 2, -100, 1, -100]
    assert batch.predictions == 2


@given(st.lists(st.integers(1, 50), min_size=1, max_size=200), st.integers(1, 16))
def test_an_epoch_takes_every_row_once(lengths, size):
    plan = plan_epoch(np.array(lengths), size, 3, 1)
    assert sorted(np.concatenate(plan).tolist()) == list(range(len(lengths)))
    assert len(plan) == -(-len(lengths) // size)
    assert sorted(map(len, plan))[1:] == [size] * (len(plan) - 1)


def test_an_epoch_follows_from_seed_and_number_alone():
    lengths = np.random.default_rng(0).integers(5, 100, 1000)
    one, same, other, next_one = (
        np.concatenate(plan_epoch(lengths, 8, seed, epoch)).tolist()
        for seed, epoch in ((1, 0), (1, 0), (2, 0), (1, 1))
    )
    assert one == same
    assert one not in (other, next_one)


def test_next_to_no_padding_is_computed():
    lengths = np.random.default_rng(0).integers(5, 128, 5000)
    shuffled = np.array_split(np.random.default_rng(1).permutation(5000), 5000 // 32)
    assert padding_share(lengths, plan_epoch(lengths, 32, 0, 0)) < 0.03
    assert padding_share(lengths, shuffled) > 0.4


@pytest.mark.parametrize("count", [635, 2490, 20_000])
def test_batches_differ_from_epoch_to_epoch(count):
    """A small data set sorted as a whole would make nearly the same ones each time."""
    lengths = np.random.default_rng(0).integers(6, 128, count)
    first, second = (
        {tuple(sorted(pair)) for rows in plan_epoch(lengths, 32, 0, epoch)
         for pair in itertools.combinations(rows.tolist(), 2)}
        for epoch in (0, 1)
    )  # fmt: skip
    assert len(first & second) < 0.4 * len(first)


def test_a_run_goes_on_with_the_batches_that_it_would_have_had():
    rows = some_rows(np.random.default_rng(0).integers(3, 20, 50))

    def batches(done, count):
        steps = steps_of(rows, batch_size=8, seed=5, done=done, cells=64)
        return [
            [b.packed.input_ids.tolist() for b in step] for step in itertools.islice(steps, count)
        ]

    assert batches(0, 20)[9:] == batches(9, 11)


def test_a_part_of_a_batch_knows_where_it_begins():
    rows = some_rows(np.random.default_rng(0).integers(3, 20, 50))
    for step in itertools.islice(steps_of(rows, batch_size=8, seed=5, done=0, cells=64), 10):
        ends = itertools.accumulate(batch.packed.num_rows for batch in step)
        assert [batch.first_row for batch in step] == [0, *ends][:-1]


@given(
    st.lists(st.integers(1, 30), min_size=1, max_size=40), st.integers(1, 200), st.integers(0, 9)
)
def test_micro_batches_stay_within_memory(lengths, cells, most):
    lengths = np.sort(np.array(lengths))
    parts = micro_batches(np.arange(len(lengths)), lengths, cells, most)
    assert np.concatenate(parts).tolist() == list(range(len(lengths)))
    for part in parts:
        assert len(part) == 1 or len(part) * lengths[part].max() <= cells
        assert not most or len(part) <= most


def test_prediction_takes_rows_by_length():
    lengths = np.array([9, 2, 9, 3, 2])
    assert [part.tolist() for part in by_length(lengths, 2, 100)] == [[1, 4], [3, 0], [2]]
