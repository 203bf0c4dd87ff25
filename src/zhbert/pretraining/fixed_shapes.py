"""Micro-batches of few shapes, so that what a GPU does for one can be recorded for the next."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zhbert.data.loader import MaskedBatch
from zhbert.data.masking import IGNORED
from zhbert.packing import PackedBatch


def with_fixed_shape(batch: MaskedBatch, pad_id: int) -> MaskedBatch:
    """Append rows of [PAD] without weight, so that all batches have one of a few shapes.

    The losses and gradients of the batch's own rows do not change. Appended predictions and pairs
    have the label -100, and their positions lie in the appended rows.

    Args:
        batch: a batch of at least one row.
        pad_id: the id of [PAD].
    """
    packed = batch.packed
    longest, pieces = packed.max_length, packed.num_pieces
    lengths, predictions = _extent(packed, len(batch.labels))
    added = int(lengths.sum())
    first = np.zeros(added, dtype=bool)
    starts = np.cumsum(lengths) - lengths
    first[starts] = True
    places = pieces + np.flatnonzero(~first)[: predictions - len(batch.labels)]
    positions = np.arange(added) - np.repeat(starts, lengths)
    pairs = batch.next_sentence_labels
    return replace(
        batch,
        packed=PackedBatch(
            input_ids=_appended(packed.input_ids, np.full(added, pad_id)),
            token_type_ids=_appended(packed.token_type_ids, np.zeros(added)),
            position_ids=_appended(packed.position_ids, positions),
            cu_seqlens=_appended(packed.cu_seqlens, pieces + starts + lengths),
            max_length=_round_up(longest, 64),
        ),
        predicted_positions=_appended(batch.predicted_positions, places),
        labels=_appended(batch.labels, np.full(len(places), IGNORED)),
        next_sentence_labels=None
        if pairs is None
        else _appended(pairs, np.full(len(lengths), IGNORED)),
    )


def _extent(packed: PackedBatch, predictions: int) -> tuple[NDArray[np.int64], int]:
    """Return the lengths of the rows to append, none of them empty, and the final predictions."""
    rows, pieces, longest = packed.num_rows, packed.num_pieces, packed.max_length
    length = _round_up(longest, 64)
    # The sum of rows of which a tenth is short has a standard deviation of 0.17 * length *
    # sqrt(rows): with steps of twice that, three shapes are common.
    step = 2 ** round(math.log2(length * math.sqrt(rows) / 3))
    share = math.ceil(64 * predictions / pieces)
    appended = 1 + (2 * step + rows * length // 32) // length
    while True:
        total = _round_up(pieces + appended, step)
        # Every appended prediction has a piece of its own, which is not its row's first.
        while total - pieces - appended < -(-total * share // 64) - predictions:
            total += step
        added = total - pieces
        if added <= appended * longest:
            break
        appended = -(-added // longest)
    lengths = np.full(appended, added // appended)
    lengths[: added % appended] += 1
    return lengths, -(-total * share // 64)


def _appended(tensor: Tensor, more: NDArray[np.generic]) -> Tensor:
    """Append numbers to a tensor in its own type."""
    return torch.cat((tensor, torch.from_numpy(more).to(tensor.dtype)))


def _round_up(number: int, multiple: int) -> int:
    return -(-number // multiple) * multiple
