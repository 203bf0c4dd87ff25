"""The nearest vectors: exact, in order, of any array."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.sentences import nearest as module
from zhbert.sentences.nearest import nearest


@given(st.integers(0, 2**32 - 1), st.integers(1, 7), st.integers(1, 40), st.integers(1, 12))
def test_ties_stand_in_the_order_of_their_indices(
    seed: int, queries: int, vectors: int, k: int
) -> None:
    """Small whole numbers: many equal scores, all of them exact."""
    rng = np.random.default_rng(seed)
    asked = rng.integers(-1, 2, (queries, 2))
    among = rng.integers(-1, 2, (vectors, 2))
    exact = asked @ among.T
    wanted = np.argsort(-exact, axis=1, kind="stable")[:, :k]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_FIRST_ROWS", 3)
        patch.setattr(module, "_NUMBERS", 8)
        patch.setattr(module, "_QUERIES", 2)
        scores, indices = nearest(asked, among, k, similarity="dot")
    assert indices.tolist() == wanted.tolist()
    assert scores.tolist() == np.take_along_axis(exact, wanted, 1).tolist()


@pytest.mark.parametrize("order", [1, -1], ids=["better to the front", "better to the end"])
def test_the_same_as_sentence_transformers(order: int) -> None:
    import torch
    from sentence_transformers.util import semantic_search

    rng = np.random.default_rng(0)
    asked = rng.standard_normal((20, 16), np.float32)
    among = rng.standard_normal((5_000, 16), np.float32)
    among = among[np.argsort(among @ asked[0])][::order].copy()
    found = semantic_search(torch.from_numpy(asked), torch.from_numpy(among), top_k=10)
    scores, indices = nearest(asked, among, 10)
    assert indices.tolist() == [[one["corpus_id"] for one in row] for row in found]
    theirs = [[one["score"] for one in row] for row in found]
    np.testing.assert_allclose(scores, theirs, atol=1e-6)


def test_a_mapped_file_and_tensors_give_the_same_as_arrays(tmp_path: Path) -> None:
    import torch

    rng = np.random.default_rng(1)
    asked, among = rng.standard_normal((3, 8)), rng.standard_normal((50, 8)).astype(np.float16)
    np.save(tmp_path / "vectors.npy", among)
    wanted = nearest(asked, among, 5)
    mapped = nearest(asked, np.load(tmp_path / "vectors.npy", mmap_mode="r"), 5)
    tensors = nearest(torch.from_numpy(asked), torch.from_numpy(among), 5)  # type: ignore[arg-type]
    for other in (mapped, tensors):
        assert all((one == two).all() for one, two in zip(wanted, other, strict=True))


def test_a_zero_vector_is_similar_to_nothing() -> None:
    scores, indices = nearest([[1.0, 0.0]], [[0.0, 0.0], [-1.0, 0.0], [1.0, 0.0]], 3)
    assert (indices.tolist(), scores.tolist()) == ([[2, 0, 1]], [[1.0, 0.0, -1.0]])


def test_nothing_to_search_in_and_nothing_asked() -> None:
    assert nearest(np.ones((2, 3)), np.ones((0, 3)), 5)[0].shape == (2, 0)
    assert nearest(np.ones((0, 3)), np.ones((4, 3)), 5)[1].shape == (0, 4)


NAN = [[float("nan"), 1.0]]


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        ((np.ones((1, 2)), np.ones((1, 2)), 0), {}, "k = 0: must be 1 or more"),
        ((np.ones((1, 2)), np.ones((1, 3)), 1), {}, "shape (1, 2) and vectors of the shape (1, 3)"),
        ((np.ones(2), np.ones((1, 2)), 1), {}, "must be (queries, dimensions)"),
        ((NAN, np.ones((1, 2)), 1), {}, "vectors with NaN"),
        ((np.ones((1, 2)), NAN, 1), {}, "vectors with NaN"),
        ((np.ones((1, 2)), np.ones((1, 2)), 1), {"similarity": "near"}, 'similarity = "near"'),
    ],
)
def test_what_cannot_be_searched_is_one_line(
    arguments: tuple[Any, Any, int], options: dict[str, str], words: str
) -> None:
    with pytest.raises(ZhbertError) as error:
        nearest(*arguments, **options)
    assert words in str(error.value)
