"""Every row once an epoch, batches of like length, and where a run goes on."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhbert.inference.rows import padding_share
from zhbert.tasks.batches import BatchLimits, RowBatches, plan_epoch, steps_of
from zhbert.tasks.rows import LabelledRows


def some_rows(lengths):
    cu_seqlens = np.concatenate(([0], lengths.cumsum()))
    ids = np.arange(cu_seqlens[-1], dtype=np.int32)
    return LabelledRows(ids, cu_seqlens, (lengths // 2).astype(np.int32))


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
        steps = steps_of(RowBatches(rows), batch_size=8, seed=5, done=done, limits=BatchLimits(64))
        return [
            [b.packed.input_ids.tolist() for b in step] for step in itertools.islice(steps, count)
        ]

    assert batches(0, 20)[9:] == batches(9, 11)


def test_a_part_of_a_batch_knows_where_it_begins():
    rows = some_rows(np.random.default_rng(0).integers(3, 20, 50))
    for step in itertools.islice(
        steps_of(RowBatches(rows), batch_size=8, seed=5, done=0, limits=BatchLimits(64)), 10
    ):
        ends = itertools.accumulate(batch.packed.num_rows for batch in step)
        assert [batch.first_row for batch in step] == [0, *ends][:-1]
