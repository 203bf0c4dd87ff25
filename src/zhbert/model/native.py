"""Faster prediction on CPUs with AVX-512: attention over packed rows, and fused linear maps.

``_attention.cpp`` is our attention; PyTorch's needs padded rows, and is no faster in bfloat16 than
in float32. Linear maps fused with an activation or an addition are from oneDNN, which PyTorch ships
for its compiler. Without these (another processor, no compiler at installation), or with gradients,
PyTorch's usual operations are used; the results are equal up to rounding (tested).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from zhbert.model.activations import ACTIVATIONS

try:
    from zhbert.model import _attention
except ImportError:  # installed without a compiler
    _attention = None  # type: ignore[assignment]

SUPPORTED: dict[torch.dtype, bool] = dict(
    zip(
        (torch.float32, torch.bfloat16),
        _attention.supported() if _attention else (False, False),
        strict=True,
    )
)
"""True if this processor has the instructions for the native attention, by dtype."""

LANES = 16
_FUSED = {"gelu": "none", "gelu_new": "tanh"}  # oneDNN's names of the algorithms
_HAS_ONEDNN = hasattr(torch.ops.mkldnn, "_linear_pointwise")
_PACKED = "packed_weight"


def _serves(x: Tensor) -> bool:
    return (
        not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # type: ignore[attr-defined,no-untyped-call]
        and not torch.is_grad_enabled()
        and x.device.type == "cpu"
        and SUPPORTED.get(x.dtype, False)
    )


def serves_attention(x: Tensor, size: int) -> bool:
    """Return True if `packed_attention` supports tensors like ``x`` and heads of ``size``."""
    return size % LANES == 0 and _serves(x)


def packed_attention(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    query_cu_seqlens: Tensor,
    cu_seqlens: Tensor,
    heads: int,
) -> Tensor:
    """Attend from each row's queries to its keys and values: (Q, H), (T, H), (T, H) -> (Q, H).

    Args:
        query, keys, values: all float32 or all bfloat16; may be columns of one wider tensor.
        query_cu_seqlens, cu_seqlens: (R + 1,) int64, of the queries' rows and of the keys'.
        heads: number of heads; H is a multiple of 16 times it.
    """
    assert _attention is not None
    out = torch.empty(query.shape, dtype=query.dtype)
    bits = 8 * query.element_size()

    def buffer(x: Tensor) -> object:
        # NumPy has no bfloat16.
        return (x.view(torch.int16) if bits == 16 else x).numpy()

    _attention.attention(
        buffer(query),
        buffer(keys),
        buffer(values),
        query_cu_seqlens.numpy(),
        cu_seqlens.numpy(),
        heads,
        buffer(out),
        bits,
        torch.get_num_threads(),
    )
    return out


def linear(
    layer: nn.Linear, x: Tensor, *, activation: str | None = None, added_to: Tensor | None = None
) -> Tensor:
    """Apply a layer, then an activation or an addition of (T, out): (T, in) -> (T, out)."""
    if not (_HAS_ONEDNN and _serves(x) and is_plain(layer)) or torch.is_autocast_enabled("cpu"):
        mapped: Tensor = layer(x)
        if activation is not None:
            return ACTIVATIONS[activation](mapped)
        return mapped if added_to is None else added_to + mapped
    fused = torch.ops.mkldnn._linear_pointwise
    weight = getattr(layer, _PACKED, layer.weight)
    if added_to is not None:
        mapped = fused.binary(x, added_to, weight, layer.bias, "add")
    elif activation in _FUSED:
        mapped = fused(x, weight, layer.bias, "gelu", [], _FUSED[activation])
    else:
        mapped = fused(x, weight, layer.bias, "none", [], "")
        if activation is not None:
            mapped = ACTIVATIONS[activation](mapped)
    return mapped


def is_plain(layer: nn.Module) -> bool:
    """Return True if the layer only computes x @ weight.T + bias, so that it need not be called.

    The result is False for other classes (an adapter, a quantized layer, a parametrized weight),
    for layers with hooks, and if ``forward`` was replaced.
    """
    if type(layer) is not nn.Linear:
        return False
    changed = (
        layer._forward_hooks,
        layer._forward_pre_hooks,
        layer._backward_hooks,
        layer._backward_pre_hooks,
        "forward" in vars(layer),
    )
    return not any(changed)


def pack(module: nn.Module, rows: int) -> None:
    """Store a copy of each linear weight in oneDNN's layout, optimised for about ``rows`` rows.

    Use it for prediction only, since the copies are not updated if the weights change.
    """
    for layer in module.modules():
        if _HAS_ONEDNN and type(layer) is nn.Linear and SUPPORTED.get(layer.weight.dtype, False):
            packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), rows)
            setattr(layer, _PACKED, packed)
