"""Which rows are computed together."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from zhbert.inference.rows import by_length, micro_batches


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
