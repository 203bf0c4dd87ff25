"""Attention over packed rows on a GPU, by PyTorch's flash attention.

One operation each way, which a compiler does not look into: rows are found by cumulative lengths
without padding, queries, keys and values are read as columns of one tensor, and their gradients are
joined into one by a single copy (the compiler's own takes four times as long). Dropout of the
probabilities is inside the kernel, from CUDA's generator.

Source: https://arxiv.org/abs/2307.08691. Shapes: T = pieces of all rows together, H = hidden size,
R = rows, Q = queries.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

# The largest heads that the kernels of all GPUs serve, with dropout and with gradients.
_LARGEST_HEAD = 128


def available(device: torch.device) -> bool:
    """Return True if PyTorch has flash attention for a device."""
    return (
        device.type == "cuda"
        and torch.version.cuda is not None
        and torch.backends.cuda.is_flash_attention_available()
        and torch.cuda.get_device_capability(device) >= (8, 0)
    )


def serves(dtype: torch.dtype, size: int) -> bool:
    """Return True if flash attention computes in ``dtype`` with heads of ``size``."""
    half = dtype in (torch.float16, torch.bfloat16)
    return half and size % 8 == 0 and size <= _LARGEST_HEAD


_SEEDED = (torch.Tag.nondeterministic_seeded,)


@torch.library.custom_op("zhbert::flash_attention", mutates_args=(), tags=_SEEDED)
def flash_attention(
    query: Tensor | None,
    packed: Tensor,
    query_cu_seqlens: Tensor,
    cu_seqlens: Tensor,
    longest_query: int,
    longest: int,
    heads: int,
    rate: float,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Attend from each row's queries to its keys and values.

    Args:
        query: (Q, H); None: the first third of ``packed``.
        packed: (T, 2H), keys and values; or (T, 3H), queries, keys and values.
        query_cu_seqlens, cu_seqlens: (R + 1,) int32, of the queries' rows and of the keys'.
        longest_query, longest: at least the number of queries, and of keys, in a row.
        heads: number of heads.
        rate: dropout rate of the probabilities.

    Returns:
        (Q, H), and what the backward pass needs: the normalisers and the generator's state.
    """
    found, normalisers, state, unused, _ = torch.ops.aten._flash_attention_forward(
        *_split(query, packed, heads),
        query_cu_seqlens,
        cu_seqlens,
        longest_query,
        longest,
        rate,
        False,
        False,
    )
    return found.flatten(1), normalisers, state, unused


@torch.library.custom_op("zhbert::flash_attention_backward", mutates_args=())
def _backward(
    gradient: Tensor,
    inputs: list[Tensor],
    cu_seqlens: list[Tensor],
    kept: list[Tensor],
    longest_query: int,
    longest: int,
    heads: int,
    rate: float,
) -> tuple[Tensor, Tensor]:
    """Return the gradients of ``packed`` and of the query, which is empty if there is none.

    Args:
        gradient: of the result, (Q, H).
        inputs: the query, if there is one, and ``packed``.
        cu_seqlens: of the queries' rows and of the keys'.
        kept: what the forward pass returned.
        longest_query, longest, heads, rate: as in the forward pass.
    """
    found, normalisers, state, unused = kept
    parts = torch.ops.aten._flash_attention_backward(
        _by_heads(gradient, heads),
        *_split(inputs[0] if inputs[1:] else None, inputs[-1], heads),
        _by_heads(found, heads),
        normalisers,
        *cu_seqlens,
        longest_query,
        longest,
        rate,
        False,
        state,
        unused,
    )
    of_query, *others = (part.flatten(1) for part in parts)
    if not inputs[1:]:
        return torch.cat((of_query, *others), 1), gradient.new_empty(0)
    return torch.cat(others, 1), of_query


def _split(query: Tensor | None, packed: Tensor, heads: int) -> list[Tensor]:
    """Return queries, keys and values as views, (Q or T, heads, H / heads) each."""
    parts = packed.chunk(3, 1) if query is None else (query, *packed.chunk(2, 1))
    return [_by_heads(part, heads) for part in parts]


def _by_heads(x: Tensor, heads: int) -> Tensor:
    return x.view(x.shape[0], heads, -1)


@flash_attention.register_fake
def _(query: Tensor | None, packed: Tensor, *others: Any) -> tuple[Tensor, ...]:
    heads = others[-2]
    like = packed[:, : packed.shape[1] // 3] if query is None else query
    return (
        like.new_empty(like.shape),
        like.new_empty(heads, like.shape[0], dtype=torch.float32),
        like.new_empty(2, dtype=torch.uint64),
        like.new_empty((), dtype=torch.uint64),
    )


@_backward.register_fake
def _(gradient: Tensor, inputs: list[Tensor], *others: object) -> tuple[Tensor, Tensor]:
    query = gradient.new_empty(inputs[0].shape if inputs[1:] else 0)
    return gradient.new_empty(inputs[-1].shape), query


def _keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    ctx.save_for_backward(*inputs[:4], *output)
    ctx.sizes = inputs[4:]


def _gradients(ctx: Any, gradient: Tensor, *_: object) -> tuple[Tensor | None, ...]:
    query, packed, *others = ctx.saved_tensors
    inputs = [packed] if query is None else [query, packed]
    of_packed, of_query = _backward(gradient, inputs, others[:2], others[2:], *ctx.sizes)
    return None if query is None else of_query, of_packed, *[None] * 6


flash_attention.register_autograd(_gradients, setup_context=_keep)
