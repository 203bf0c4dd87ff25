"""What a forward pass computes inside the encoder, kept for losses that compare two models."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn


@dataclass
class Recording:
    """The states, queries, keys and values of the last forward pass.

    Shapes: T = pieces of all rows together, H = hidden size.
    """

    hidden: Collection[int]
    """Which states are kept: 0: the output of the embeddings, n: of the n-th block."""
    attention: Collection[int] = ()
    """The blocks, from 1, whose queries, keys and values are kept."""
    states: dict[int, Tensor] = field(default_factory=dict)
    """(T, H) for each number in ``hidden``."""
    qkv: dict[int, Tensor] = field(default_factory=dict)
    """(T, 3H) for each number in ``attention``: queries, keys and values, side by side."""


@contextmanager
def recording(
    encoder: nn.Module, hidden: Collection[int], attention: Collection[int] = ()
) -> Iterator[Recording]:
    """Keep parts of the forward passes of an `Encoder` while the context lasts.

    With them, the last block computes all pieces if its states are kept, even where the model's
    head needs only some of them. (Its attention then drops other probabilities in training.)

    Args:
        encoder: a model's ``encoder``.
        hidden: the numbers of the states to keep; 0: those of the embeddings, n: of the n-th block.
        attention: the numbers of the blocks, from 1, whose queries, keys and values to keep.
    """
    kept = Recording(hidden, attention)
    own: Any = encoder
    outer, own.recording = own.recording, kept
    try:
        yield kept
    finally:
        own.recording = outer
