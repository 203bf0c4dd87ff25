"""A graph of usearch over many vectors: nearly all of the nearest, in a fraction of the time.

Hierarchical navigable small worlds: https://arxiv.org/abs/1603.09320. Shapes: Q = queries,
N = vectors, D = dimensions.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, read_json_if_sound, refused, write_json
from zhbert.runtime import processors
from zhbert.sentences.nearest import Floats, Indices, nearest
from zhbert.wording import how_to_install

WORTHWHILE = 100_000
"""The number of vectors from which on a graph is built; fewer are searched exactly."""
# The recall is measured with so many vectors of the corpus, at so many nearest.
_SAMPLE, _RECALL_AT = 200, 10
# So many times as many as wanted are asked of the graph, and ordered by their exact scores.
_MORE = 4
_LEAST = 64
# The number of vectors that are added at a time.
_STEP = 4096


class ApproximateIndex:
    """The graph over the vectors of a folder, in the folder's file index.usearch."""

    def __init__(self, folder: Path, vectors: Floats) -> None:
        self._path, self._record = folder / "index.usearch", folder / "index.usearch.json"
        self._vectors = vectors
        self._index: Any = None
        self.recall = 0.0
        """The share of the 10 nearest that it finds, measured on vectors of the corpus."""

    def open(self) -> bool:
        """Open the file, mapped into memory; return False if it is missing, stale or damaged."""
        found = read_json_if_sound(self._record)
        if not self._path.is_file() or found.get("vectors") != len(self._vectors):
            return False
        if found.get("bytes") != self._path.stat().st_size:
            return False
        with refused(self._path, "an index of usearch"):
            self._index = _new(self._vectors.shape[1])
            self._index.view(str(self._path))
        self.recall = float(found["recall"])
        return True

    def build(self, advance: Callable[[int], None] = lambda count: None) -> None:
        """Make and measure the graph, and write it.

        Args:
            advance: called with the number of vectors that were added.

        Raises:
            ZhbertError: usearch is not installed, or writing fails.
        """
        self._index = _new(self._vectors.shape[1])
        for first in range(0, len(self._vectors), _STEP):
            rows = np.asarray(self._vectors[first : first + _STEP])
            keys = np.arange(first, first + len(rows), dtype=np.uint64)
            self._index.add(keys, rows, threads=processors())
            advance(first + len(rows))
        self.recall = self._measured()
        self._record.unlink(missing_ok=True)
        with atomic_file(self._path) as temporary, refused(self._path, doing="writing"):
            self._index.save(str(temporary))
        record = {"vectors": len(self._vectors), "bytes": self._path.stat().st_size}
        write_json(self._record, {**record, "recall": self.recall})

    def _measured(self) -> float:
        rng = np.random.default_rng(0)
        count = min(_SAMPLE, len(self._vectors))
        chosen = np.sort(rng.choice(len(self._vectors), count, replace=False))
        queries = np.asarray(self._vectors[chosen])
        _, exact = nearest(queries, self._vectors, _RECALL_AT + 1, similarity="dot")
        _, found = self.search(queries, _RECALL_AT + 1)
        shares = []
        for own, right, ours in zip(chosen, exact, found, strict=True):
            # A vector is its own nearest; that would be too easy.
            wanted = set(right[right != own][:_RECALL_AT])
            shares.append(len(wanted & set(ours)) / max(len(wanted), 1))
        return float(np.mean(shares))

    def search(self, queries: Floats, k: int) -> tuple[Floats, Indices]:
        """Return the ``k`` vectors with the largest inner products, as `nearest` does."""
        k = min(k, len(self._vectors))
        count = min(max(_MORE * k, _LEAST), len(self._vectors))
        self._index.expansion_search = count
        found = self._index.search(queries, count, threads=processors())
        rows = [found] if len(queries) == 1 else found  # usearch has a form of its own for one
        scores = np.full((len(queries), k), -np.inf, np.float32)
        indices = np.full((len(queries), k), -1, np.int64)
        for row, (query, matches) in enumerate(zip(queries, rows, strict=True)):
            # In ascending order, so that equal scores are in the order of their indices.
            candidates = np.sort(matches.keys.astype(np.int64))
            best, order = nearest(query[None], self._vectors[candidates], k, similarity="dot")
            scores[row, : best.shape[1]] = best[0]
            indices[row, : best.shape[1]] = candidates[order[0]]
        return scores, indices


def check_usearch() -> None:
    """Raise a ZhbertError if usearch is not installed."""
    try:
        import usearch.index  # noqa: F401
    except ImportError:
        raise ZhbertError(
            f"from {WORTHWHILE:,} texts on, --index needs usearch: "
            f"{how_to_install('search')}; or search exactly, with --exact"
        ) from None


def _new(dimensions: int) -> Any:
    check_usearch()
    from usearch.index import Index

    return Index(ndim=dimensions, metric="ip", dtype="f16")
