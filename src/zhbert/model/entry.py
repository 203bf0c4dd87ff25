"""A tensor of a model file that is read when it is asked for, and what all formats share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Entry:
    """One tensor of a checkpoint. ``read`` reads it anew at each call; nothing is kept."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    read: Callable[[], Tensor]

    @property
    def size(self) -> int:
        """Bytes in its own dtype."""
        return math.prod(self.shape) * self.dtype.itemsize

    @classmethod
    def of(cls, tensor: Tensor) -> Entry:
        """An entry of a tensor in memory."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)

    def then(self, change: Callable[[Tensor], Tensor]) -> Entry:
        """This entry with ``change`` applied when it is read; the new shape is found without data.

        >>> Entry.of(torch.ones(2, 3)).then(torch.t).shape
        (3, 2)
        """
        like = change(torch.empty(self.shape, dtype=self.dtype, device="meta"))
        return Entry(tuple(like.shape), like.dtype, lambda: change(self.read()))


def is_finite(tensor: Tensor) -> bool:
    """Whether a tensor holds neither NaN nor infinity.

    This needs no memory; torch.isfinite needs twice that of the tensor.
    """
    if not tensor.is_floating_point() or not tensor.numel():
        return True
    # aminmax returns NaN for both where there is one.
    low, high = torch.aminmax(tensor)
    return math.isfinite(low) and math.isfinite(high)


def entries_of(tensors: Mapping[str, Tensor] | Iterable[tuple[str, Tensor]]) -> dict[str, Entry]:
    """Entries of tensors in memory, by name."""
    return {name: Entry.of(tensor) for name, tensor in dict(tensors).items()}


def in_shards(entries: Mapping[str, Entry], most_bytes: int | None) -> list[dict[str, Entry]]:
    """The entries in parts of at most ``most_bytes`` (or one larger entry), in their order."""
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
    """Floating point tensors as ``dtype`` when they are read; None keeps each one's own."""
    if dtype is None:
        return dict(entries)
    return {
        name: entry.then(lambda t: t.to(dtype)) if entry.dtype.is_floating_point else entry
        for name, entry in entries.items()
    }


def bytes_of(tensor: Tensor) -> memoryview:
    """A tensor's numbers as they lie in memory, row after row."""
    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data
