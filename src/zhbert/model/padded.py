"""Padded batches, as transformers' users have them, to packed rows and back.

Shapes: T = pieces of all rows together, H = hidden size.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.model.dropout import DropoutKey
from zhbert.model.layers import Embeddings
from zhbert.model.outputs import ModelOutput
from zhbert.packing import PackedBatch


@dataclass(frozen=True)
class Grid:
    """The places of the pieces in a padded batch."""

    there: Tensor
    """(batch, length) bool: False at padding"""
    places: Tensor | None
    """(T,) int64 into the flattened batch; None: nothing was padded"""

    def padded(self, x: Tensor) -> Tensor:
        """Restore the padding with zeros: (T, ...) -> (batch, length, ...)."""
        if self.places is not None:
            grid = x.new_zeros(self.there.numel(), *x.shape[1:])
            x = grid.index_copy(0, self.places, x)
        return x.view(*self.there.shape, *x.shape[1:])

    def attention_weights(self, qkv: Tensor, heads: int) -> Tensor:
        """Compute a layer's weights of attention: (T, 3H) -> (batch, heads, length, length)."""
        size = qkv.shape[1] // (3 * heads)
        of_heads = self.padded(qkv).view(*self.there.shape, 3 * heads, size).transpose(1, 2)
        query, keys, _ = of_heads.chunk(3, dim=1)
        scores = query @ keys.transpose(-1, -2) / math.sqrt(query.shape[-1])
        of_padding = ~self.there[:, None, None]
        weights: Tensor = scores.masked_fill(of_padding, torch.finfo(scores.dtype).min).softmax(-1)
        return weights * self.there[:, None, :, None]


def without_padding(
    input_ids: Tensor | None,
    attention_mask: Tensor | None,
    token_type_ids: Tensor | None,
    position_ids: Tensor | None,
    inputs_embeds: Tensor | None,
) -> tuple[PackedBatch, Grid]:
    """Convert a padded input, (batch, length) each, to packed rows.

    Raises:
        ZhbertError: neither or both of ``input_ids`` and ``inputs_embeds`` (batch, length, H), or
            a shape is wrong.
    """
    inputs = input_ids if inputs_embeds is None else inputs_embeds
    if inputs is None or (input_ids is not None and inputs_embeds is not None):
        raise ZhbertError("forward: give either input_ids or inputs_embeds")
    batch, length = shape = _shape_of(inputs, is_ids=inputs_embeds is None)
    if attention_mask is None:
        attention_mask = torch.ones(shape, device=inputs.device)
    elif attention_mask.shape != shape:
        raise ZhbertError(
            f"forward: attention_mask has the shape {tuple(attention_mask.shape)}, must have "
            f"{tuple(shape)}: 1 for pieces, 0 for padding"
        )
    if token_type_ids is None:
        token_type_ids = torch.zeros(shape, dtype=torch.int64, device=inputs.device)
    if position_ids is None:
        position_ids = torch.arange(length, device=inputs.device)
    grid = Grid(attention_mask != 0, None)
    lengths = grid.there.sum(1)
    parts = [x.expand(shape).reshape(-1) for x in (token_type_ids, position_ids)]
    parts = [inputs.flatten(0, 1), *parts]
    if int(lengths.sum()) < batch * length:
        places = grid.there.reshape(-1).nonzero()[:, 0]
        grid = Grid(grid.there, places)
        parts = [x[places] for x in parts]
    packed = PackedBatch(
        input_ids=parts[0],
        token_type_ids=parts[1],
        position_ids=parts[2],
        cu_seqlens=torch.cat((lengths.new_zeros(1), lengths.cumsum(0))).int(),
        max_length=int(lengths.max()) if batch else 0,
    )
    return packed, grid


def _shape_of(inputs: Tensor, *, is_ids: bool) -> torch.Size:
    name, axes = ("input_ids", 2) if is_ids else ("inputs_embeds", 3)
    if inputs.ndim != axes or not inputs.shape[1]:
        needed = "(batch, length)" if is_ids else "(batch, length, hidden)"
        raise ZhbertError(
            f"forward: {name} of shape {tuple(inputs.shape)}: {needed} is needed, at least one "
            "piece long"
        )
    return inputs.shape[:2]


def check_numbers(batch: PackedBatch, embeddings: Embeddings) -> None:
    """Raise a ZhbertError for the first number of a batch that is not in its table."""
    for name, table, what in (
        ("input_ids", embeddings.words, "pieces"),
        ("token_type_ids", embeddings.token_types, "token types"),
        ("position_ids", embeddings.positions, "positions"),
    ):
        numbers, size = getattr(batch, name), table.weight.shape[0]
        # Vectors may stand in the place of ids.
        if numbers.ndim == 1 and len(at := ((numbers < 0) | (numbers >= size)).nonzero()):
            row = int((batch.cu_seqlens <= at[0]).sum()) - 1
            raise ZhbertError(
                f"forward: {name}: {int(numbers[at[0]])} in row {row}: must be 0 to {size - 1}; "
                f"the model has {size} {what}"
            )


@dataclass(frozen=True)
class Encoded:
    """The encoder's output for a padded batch, before the padding is restored."""

    hidden: Tensor  # (T, H)
    grid: Grid
    head_key: DropoutKey | None  # of the dropout before a fine-tuned head
    more: dict[str, Any]  # hidden states and attentions, if they are asked for
    as_tuple: bool

    def padded(self, x: Tensor) -> Tensor:
        """Restore the padding with zeros: (T, ...) -> (batch, length, ...)."""
        return self.grid.padded(x)

    def first(self) -> Tensor:
        """Return the states at the first position of each row: (batch, H)."""
        return self.padded(self.hidden)[:, 0]

    def output(self, **values: Tensor | None) -> ModelOutput | tuple[Any, ...]:
        """Return what ``forward`` has computed; the order is the keywords'."""
        output = ModelOutput({**values, **self.more})
        return output.to_tuple() if self.as_tuple else output
