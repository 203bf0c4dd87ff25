"""The vectors nearest to some queries, exactly, in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from zhbert.errors import ZhbertError
from zhbert.schema import check_choice

Floats = npt.NDArray[np.float32]
Indices = npt.NDArray[np.int64]

SIMILARITIES = ("cosine", "dot")
# A block of vectors and its scores for a group of queries have at most this many numbers each.
_NUMBERS = 1 << 23
_QUERIES = 1024
# The first block is small: it yields a bound that excludes nearly everything in the others.
_FIRST_ROWS = 2048


def nearest(
    queries: npt.ArrayLike, vectors: npt.ArrayLike, k: int, *, similarity: str = "cosine"
) -> tuple[Floats, Indices]:
    """Return the ``k`` most similar vectors for each query, the most similar first.

    The result is exact. Equal scores are in the order of their indices. ``vectors`` may be a
    memory-mapped file (``np.load(..., mmap_mode="r")``): it is read once, block by block.

    Args:
        queries: (Q, D), numbers of any type; NumPy arrays, or torch tensors in main memory.
        vectors: (N, D).
        k: how many to find for each query; all of them if ``vectors`` has fewer.
        similarity: ``cosine``, or ``dot`` for the inner product.

    Returns:
        Scores, (Q, min(k, N)), descending; and the indices of the vectors, of the same shape.

    Raises:
        ZhbertError: ``k`` is less than 1, the shapes do not match, or a query or too many vectors
            contain NaN.

    >>> scores, indices = nearest([[1.0, 0.0]], [[0.0, 2.0], [3.0, 0.0], [1.0, 1.0]], k=2)
    >>> indices.tolist(), scores.round(3).tolist()
    ([[1, 2]], [[1.0, 0.7070000171661377]])
    """
    asked, among = np.asarray(queries, np.float32), np.asanyarray(vectors)
    check_choice(similarity, SIMILARITIES, "similarity")
    if k < 1:
        raise ZhbertError(f"k = {k}: must be 1 or more")
    if asked.ndim != 2 or among.ndim != 2 or asked.shape[1] != among.shape[1]:
        raise ZhbertError(
            f"queries of the shape {asked.shape} and vectors of the shape {among.shape}: must be "
            "(queries, dimensions) and (vectors, dimensions)"
        )
    cosine = similarity == "cosine"
    if cosine:
        asked = asked * _inverse_norms(asked)[:, None]
    groups = [
        _Best(asked[first : first + _QUERIES], min(k, len(among)))
        for first in range(0, len(asked), _QUERIES)
    ]
    for first, last in _blocks(len(among), among.shape[1], len(asked)):
        block = np.asarray(among[first:last], np.float32)
        scales = _inverse_norms(block) if cosine else None
        for group in groups:
            group.add(block, first, scales)
    if not all(group.complete for group in groups):
        raise ZhbertError("vectors with NaN have no order; compute them again with sound weights")
    empty = np.empty((0, min(k, len(among))), np.float32)
    return (
        np.concatenate([empty, *(group.scores for group in groups)]),
        np.concatenate([empty.astype(np.int64), *(group.indices for group in groups)]),
    )


def _inverse_norms(vectors: Floats) -> Floats:
    """Return 1 / length of each vector, and 0 for zero vectors, which are similar to nothing."""
    norms = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    inverse: Floats = np.divide(1, norms, out=np.zeros_like(norms), where=norms > 0)
    return inverse


def _blocks(count: int, dimensions: int, queries: int) -> Iterator[tuple[int, int]]:
    most = max(_NUMBERS // max(dimensions, min(queries, _QUERIES), 1), _FIRST_ROWS)
    first, rows = 0, _FIRST_ROWS
    while first < count:
        yield first, min(first + rows, count)
        first, rows = first + rows, most


class _Best:
    """The best scores of a group of queries so far."""

    def __init__(self, queries: Floats, k: int) -> None:
        self._queries, self._k = queries, k
        self.scores = np.full((len(queries), k), -np.inf, np.float32)
        self.indices = np.full((len(queries), k), -1, np.int64)

    @property
    def complete(self) -> bool:
        """Whether ``k`` vectors were found for each query."""
        return bool((self.indices >= 0).all())

    def add(self, block: Floats, first: int, scales: Floats | None) -> None:
        """Take the vectors of a block, which follow all earlier ones, into account."""
        scores: Floats = self._queries @ block.T
        if scales is not None:
            scores *= scales
        # An equal score in a later block loses to the earlier one, so the comparison is strict.
        better = scores > self.scores[:, -1:]
        if np.count_nonzero(better) > 8 * self._k * len(scores) and len(block) > self._k:
            # Sorting them all would be slow: first find the k-th best of the block.
            bound = np.partition(scores, -self._k, axis=1)[:, -self._k, None]
            better &= scores >= bound
        rows, columns = np.nonzero(better)
        if len(rows):
            self._merge(rows, scores[rows, columns], columns + first)

    def _merge(self, rows: Indices, scores: Floats, indices: Indices) -> None:
        changed, rows = np.unique(rows, return_inverse=True)
        held = np.repeat(np.arange(len(changed)), self._k)
        rows = np.concatenate([held, rows])
        scores = np.concatenate([self.scores[changed].ravel(), scores])
        indices = np.concatenate([self.indices[changed].ravel(), indices])
        # Stable, and the indices of a row ascend among equal scores: they need no sort key.
        order = np.lexsort((-scores, rows))
        starts = np.searchsorted(rows[order], np.arange(len(changed)))
        best = order[starts[:, None] + np.arange(self._k)]
        self.scores[changed], self.indices[changed] = scores[best], indices[best]
