"""Entries, the tensors of a model file that are read on demand, and functions of all formats."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint. Each call of ``read`` reads it again, without a cache."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def size(self) -> int:
        """Size in bytes, in its stored dtype."""
        return math.prod(self.shape) * self.dtype.itemsize

    @classmethod
    def of(cls, tensor: Tensor) -> Entry:
        """Return the entry of a tensor in memory."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)

    def then(self, change: Callable[[Tensor], Tensor]) -> Entry:
        """Return an entry that applies ``change`` when read; its shape is inferred without data.

        >>> Entry.of(torch.ones(2, 3)).then(torch.t).shape
        (3, 2)
        """
        like = change(torch.empty(self.shape, dtype=self.dtype, device="meta"))
        return Entry(tuple(like.shape), like.dtype, lambda: change(self.read()))


def is_finite(tensor: Tensor) -> bool:
    """Return True if a tensor contains neither NaN nor infinity.

    This needs no additional memory; torch.isfinite needs twice the tensor's.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    # aminmax returns NaN for both if there is any.
    low, high = torch.aminmax(tensor)
    return math.isfinite(low) and math.isfinite(high)


def entries_of(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> dict[str, Entry]:
    """Return the entries of tensors in memory, by name."""
    return {name: Entry.of(tensor) for name, tensor in dict(tensors).items()}


def in_shards(entries: Mapping[str, Entry], most_bytes: int | None) -> list[dict[str, Entry]]:
    """Divide entries, in order, into parts of at most ``most_bytes`` (or one larger entry)."""
    shards: list[dict[str, Entry]] = [{}]
    filled = 0
    for name, entry in entries.items():
        if most_bytes and shards[-1] and filled + entry.size > most_bytes:
            shards.append({})
            filled = 0
        shards[-1][name] = entry
        filled += entry.size
    return shards


def converted(entries: Mapping[str, Entry], dtype: torch.dtype | None) -> dict[str, Entry]:
    """Convert floating-point tensors to ``dtype`` when they are read; None: no conversion."""
    if dtype is None:
        return dict(entries)
    return {
        name: entry.then(lambda t: t.to(dtype)) if entry.dtype.is_floating_point else entry
        for name, entry in entries.items()
    }


def bytes_of(tensor: Tensor) -> memoryview:
    """Return a tensor's numbers as bytes, in row-major order."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
