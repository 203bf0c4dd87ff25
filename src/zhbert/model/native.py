"""Faster prediction on CPUs with AVX-512: attention over packed rows, and linear maps.

``_attention.cpp`` is our attention; PyTorch's needs padded rows, and is no faster in bfloat16 than
in float32. Linear maps fused with an activation or an addition are from oneDNN, which PyTorch ships
for its compiler; those with weights of 8 bits are ours (``_int8.cpp``). Without these (another
processor, no compiler at installation), or with gradients, PyTorch's usual operations are used; the
results are equal up to rounding (tested).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from zhbert.model.activations import ACTIVATIONS

try:
    from zhbert.model import _attention
except ImportError:  # installed without a compiler
    _attention = None  # type: ignore[assignment]
try:
    from zhbert.model import _int8
except ImportError:
    _int8 = None  # type: ignore[assignment]

SUPPORTED: dict[torch.dtype, bool] = dict(
    zip(
        (torch.float32, torch.bfloat16),
        _attention.supported() if _attention else (False, False),
        strict=True,
    )
)
"""True if this processor has the instructions for the native attention, by dtype."""

_INT8_SUPPORTED = dict(zip(SUPPORTED, _int8.supported() if _int8 else (False, False), strict=True))
INT8_STATES: torch.dtype | None = next(
    (dtype for dtype in (torch.bfloat16, torch.float32) if _INT8_SUPPORTED[dtype]), None
)
"""The dtype of states between linear maps with weights of 8 bits; None: this processor has none."""

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
    _attention.attention(
        _buffer(query),
        _buffer(keys),
        _buffer(values),
        query_cu_seqlens.numpy(),
        cu_seqlens.numpy(),
        heads,
        _buffer(out),
        8 * query.element_size(),
        torch.get_num_threads(),
    )
    return out


def _buffer(x: Tensor) -> NDArray[Any]:
    # NumPy has no bfloat16.
    return (x.view(torch.int16) if x.dtype == torch.bfloat16 else x).numpy()


def linear(
    layer: nn.Linear, x: Tensor, *, activation: str | None = None, added_to: Tensor | None = None
) -> Tensor:
    """Apply a layer, then an activation or an addition of (T, out): (T, in) -> (T, out)."""
    if not (_HAS_ONEDNN and _serves(x) and is_plain(layer)) or torch.is_autocast_enabled("cpu"):
        mapped: Tensor = layer(x)
        if activation is not None:
            return ACTIVATIONS[activation](mapped)
        return mapped if added_to is None else added_to + mapped
    weight = getattr(layer, _PACKED, layer.weight)
    if isinstance(weight, Int8Weight):
        mapped = weight.linear(x, gelu=activation == "gelu", added_to=added_to)
        return mapped if activation in (None, "gelu") else ACTIVATIONS[activation](mapped)
    fused = torch.ops.mkldnn._linear_pointwise
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


class Int8Weight(NamedTuple):
    """A layer's weights in 8 bits, with a scale for each output, as ``_int8.cpp`` reads them."""

    panels: NDArray[np.int8]
    """(panels, in / 4, 64, 4): 64 outputs a panel, the last one filled up with zeros"""
    scales: NDArray[np.float32]
    """(out,)"""
    sums: NDArray[np.int32]
    """(out,): the sum of each output's weights in 8 bits"""
    bias: NDArray[np.float32]
    """(out,)"""

    @classmethod
    def of(cls, layer: nn.Linear) -> Int8Weight:
        """Round a layer's weights to 8 bits; its sizes are multiples of 16."""
        weight = layer.weight.detach().float()
        # Never 0, for an output whose weights are all 0.
        scales = (weight.abs().amax(dim=1) / 127).clamp(min=torch.finfo(torch.float32).tiny)
        rounded = (weight / scales[:, None]).round().to(torch.int8)
        filled = functional.pad(rounded, (0, 0, 0, -len(rounded) % 64))
        panels = filled.view(-1, 64, weight.shape[1] // 4, 4).transpose(1, 2).contiguous()
        bias = weight.new_zeros(len(weight)) if layer.bias is None else layer.bias.detach().float()
        sums = rounded.sum(dim=1, dtype=torch.int32)
        return cls(panels.numpy(), scales.numpy(), sums.numpy(), bias.clone().numpy())

    def linear(self, x: Tensor, *, gelu: bool, added_to: Tensor | None) -> Tensor:
        """Apply the layer, then GELU or an addition: (T, in) -> (T, out), of the dtype of ``x``."""
        assert _int8 is not None
        out = x.new_empty(x.shape[0], len(self.bias))
        _int8.linear(
            _buffer(x.contiguous()),
            self.panels,
            self.scales,
            self.sums,
            self.bias,
            None if added_to is None else _buffer(added_to.contiguous()),
            _buffer(out),
            x.shape[0],
            x.shape[1],
            out.shape[1],
            gelu,
            8 * x.element_size(),
            torch.get_num_threads(),
        )
        return out


def quantize(module: nn.Module) -> None:
    """Store a copy of each linear weight in 8 bits; as for `pack`, for prediction only.

    A layer whose sizes are no multiples of 16 keeps its own weights.
    """
    for layer in module.modules():
        if type(layer) is nn.Linear and not any(size % LANES for size in layer.weight.shape):
            setattr(layer, _PACKED, Int8Weight.of(layer))
