"""Dropout by counter: whether an element is kept is a hash of (seed, site, element index).

No random-number state exists, so a step is a pure function of its seed: it is bit-reproducible
after a restart, whatever ran before, eager or compiled, and a compiler fuses the hash into its
neighbours and recomputes it in the backward pass instead of storing a mask.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# Multipliers of the "lowbias32" integer finaliser, as int32; the golden ratio spreads the counter.
_SPREAD = -1640531527  # 0x9E3779B9
_UNSPREAD = pow(_SPREAD, -1, 1 << 32)
_FIRST = 0x7FEB352D
_SECOND = -2073254261  # 0x846CA68B


def _mix64(value: int) -> int:
    """One step of splitmix64: 64 well-mixed bits of a 64-bit counter."""
    value = (value + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
    return value ^ (value >> 31)


def dropout_keys(seed: int, sites: int, device: torch.device | None = None) -> tuple[Tensor, ...]:
    """Two 32-bit keys for each place of the network where something is dropped: (2,) int32 each."""
    start = _mix64(seed & 0xFFFFFFFFFFFFFFFF)
    keys = []
    for site in range(sites):
        bits = _mix64(start ^ _mix64(site))
        first = ((bits & 0xFFFFFFFF) ^ 0x80000000) * _UNSPREAD & 0xFFFFFFFF
        keys.append([(first ^ 0x80000000) - 0x80000000, (bits >> 32) - 0x80000000])
    table = torch.tensor(keys, dtype=torch.int32).reshape(sites, 2).to(device)
    # Copies: of views, the compiler would compile a layer again for each place in the table.
    return tuple(key.clone() for key in table)


def keep_mask(count: int, rate: float, key: Tensor) -> Tensor:
    """Which of ``count`` elements are kept: (count,) bool on the key's device.

    The key enters twice, before and after a multiplication: with one entry alone the sequences of
    two seeds would be shifted copies of each other.
    """
    # Added first, then spread: a product of the index alone would be computed at compile time, in
    # numbers too wide for the GPU's 32 bits.
    bits = (torch.arange(count, dtype=torch.int32, device=key.device) + key[0]) * _SPREAD
    bits = (bits ^ ((bits >> 16) & 0xFFFF)) * _FIRST ^ key[1]
    bits = (bits ^ ((bits >> 15) & 0x1FFFF)) * _SECOND
    bits = bits ^ ((bits >> 16) & 0xFFFF)
    return bits >= int(rate * 2**32) - 2**31


class _Dropout(torch.autograd.Function):
    """The eager form: one byte an element is kept for the backward pass."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float, key: Tensor) -> Tensor:
        keep = keep_mask(x.numel(), rate, key).view(x.shape)
        ctx.save_for_backward(keep)
        ctx.scale = 1.0 / (1.0 - rate)
        return (x * keep).mul_(ctx.scale)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        (keep,) = ctx.saved_tensors
        return (gradient * keep).mul_(ctx.scale), None, None


def dropout(x: Tensor, rate: float, key: Tensor | None) -> Tensor:
    """Zero a share ``rate`` of ``x`` and scale the rest by 1 / (1 - rate); no key, no dropout."""
    if key is None or rate == 0.0:
        return x
    if torch.compiler.is_compiling():
        keep = keep_mask(x.numel(), rate, key).view(x.shape)
        return torch.where(keep, x * (1.0 / (1.0 - rate)), 0.0)
    result: Tensor = _Dropout.apply(x, rate, key)  # type: ignore[no-untyped-call]
    return result
