"""Vectors in fewer bits, with the names and results of sentence-transformers.

int8 and uint8 are scaled for each dimension; binary and ubinary keep the signs, eight in a byte:
https://huggingface.co/blog/embedding-quantization. Shapes: N = number of vectors, D = dimension.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.schema import check_choice

PRECISIONS = ("float32", "int8", "uint8", "binary", "ubinary")


def quantize_embeddings(
    embeddings: NDArray[Any],
    precision: str,
    ranges: NDArray[Any] | None = None,
    calibration_embeddings: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Convert float vectors to another precision.

    >>> vectors = np.array([[0.0, 255.0], [128.5, 3.0]])
    >>> quantize_embeddings(vectors, "int8", ranges=np.array([[0, 0], [255, 255]])).tolist()
    [[-128, 127], [0, -125]]
    >>> quantize_embeddings(vectors, "ubinary").tolist()  # the bits 01 and 11
    [[64], [192]]

    Args:
        embeddings: (N, D) float.
        precision: ``float32``; ``int8`` or ``uint8``, (N, D); ``binary`` (int8) or ``ubinary``
            (uint8), (N, D / 8), rounded up.
        ranges: (2, D), the least and the greatest value of each dimension, for int8 and uint8;
            None: those of ``calibration_embeddings``.
        calibration_embeddings: (M, D), vectors like those of the whole corpus; None: ``embeddings``
            themselves.

    Raises:
        ZhbertError: an unknown precision, vectors that are no floats, or ranges of one vector.
    """
    check_choice(precision, PRECISIONS, "precision")
    if embeddings.dtype.kind != "f":
        raise ZhbertError(f"vectors of {embeddings.dtype} cannot be quantized: floats are needed")
    if precision == "float32":
        return embeddings.astype(np.float32)
    if precision.endswith("binary"):
        bits: NDArray[Any] = np.packbits(embeddings > 0, axis=-1)
        return bits if precision == "ubinary" else (bits ^ 0x80).view(np.int8)
    if ranges is None:
        ranges = quantization_ranges(
            embeddings if calibration_embeddings is None else calibration_embeddings
        )
    low, high = ranges.astype(np.float32, copy=False)
    steps = (high - low) / 255
    steps = np.where(steps == 0, 1, steps)
    levels: NDArray[Any] = np.clip(np.floor((embeddings - low) / steps), 0, 255)
    return levels.astype(np.uint8) if precision == "uint8" else (levels - 128).astype(np.int8)


def quantization_ranges(vectors: NDArray[Any]) -> NDArray[Any]:
    """Return the least and the greatest value of each dimension: (N, D) -> (2, D)."""
    if vectors.ndim < 2 or len(vectors) == 1:
        raise ZhbertError(
            "int8 and uint8 are scaled by the ranges of many vectors, and one alone has none: "
            "give quantize_embeddings ranges, or calibration_embeddings"
        )
    if not len(vectors):
        return np.zeros((2, vectors.shape[1]), np.float32)
    return np.stack((vectors.min(axis=0), vectors.max(axis=0)))
