"""Similarities of vectors, with the names and results of sentence-transformers.

Shapes: A, B = numbers of vectors, D = their dimension.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

Vectors = Tensor | NDArray[Any] | Sequence[Tensor] | Sequence[NDArray[Any]] | Sequence[Any]
"""(n, D), or one vector (D,): tensors, arrays, or lists of numbers."""


class Similarity(NamedTuple):
    """A measure of all pairs, (A, D), (B, D) -> (A, B), and of equal places, (A, D) -> (A,)."""

    of_all: Callable[[Tensor, Tensor], Tensor]
    pairwise: Callable[[Tensor, Tensor], Tensor]


def _unit(vectors: Tensor) -> Tensor:
    return functional.normalize(vectors, p=2, dim=-1)


SIMILARITIES: Mapping[str, Similarity] = {
    "cosine": Similarity(
        lambda a, b: _unit(a) @ _unit(b).T, lambda a, b: (_unit(a) * _unit(b)).sum(-1)
    ),
    "dot": Similarity(lambda a, b: a @ b.T, lambda a, b: (a * b).sum(-1)),
    "euclidean": Similarity(
        lambda a, b: -torch.cdist(a, b, p=2.0),
        lambda a, b: -torch.linalg.vector_norm(a - b, dim=-1),
    ),
    "manhattan": Similarity(
        lambda a, b: -torch.cdist(a, b, p=1.0), lambda a, b: -(a - b).abs().sum(-1)
    ),
}
"""The measures by name. A greater number means more similar: distances are negative."""


def as_tensor(vectors: Vectors) -> Tensor:
    """Return vectors as one tensor, in float32 if they are of a narrower float dtype."""
    if isinstance(vectors, Tensor):
        found = vectors
    elif isinstance(vectors, np.ndarray):
        found = torch.from_numpy(vectors) if vectors.flags.writeable else torch.tensor(vectors)
    elif len(vectors) and isinstance(vectors[0], Tensor | np.ndarray):
        found = torch.stack([as_tensor(one) for one in vectors])
    else:
        found = torch.tensor(vectors)
    narrow = found.is_floating_point() and torch.finfo(found.dtype).bits < 32
    return found.float() if narrow else found


def similarity(a: Vectors, b: Vectors, name: str = "cosine") -> Tensor:
    """Return the similarity of each vector of ``a`` to each of ``b``: (A, B).

    >>> similarity(np.eye(2), np.array([[3.0, 0.0]])).tolist()
    [[1.0], [0.0]]
    """
    left, right = as_tensor(a), as_tensor(b)
    pair = (one[None] if one.ndim == 1 else one for one in (left, right))
    return SIMILARITIES[name].of_all(*pair)


def similarity_pairwise(a: Vectors, b: Vectors, name: str = "cosine") -> Tensor:
    """Return the similarity of each vector of ``a`` to the one of ``b`` at its place: (A,)."""
    return SIMILARITIES[name].pairwise(as_tensor(a), as_tensor(b))
