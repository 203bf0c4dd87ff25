"""Rows of pieces for fine-tuned models, and the batches that a model takes them in.

A data set is tokenized once. Its rows lie one after another in one array; a batch is a choice of
rows, made of rows of about the same length, and gathered without a loop over them. Shapes: T =
pieces of all rows together, R = rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.packing import PackedBatch, pack_rows
from zhbert.text.tokenizer import Tokenizer

Ids = NDArray[np.int32]

NOT_A_TARGET = -100
"""The target of a piece that is not predicted."""

# An epoch's rows are sorted by length inside windows of so many batches: long enough that the rows
# of a batch are nearly equal. But a data set has two windows or more: sorted as a whole, a small
# one would make nearly the same batches in every epoch.
BATCHES_PER_WINDOW, WINDOWS = 100, 2


@dataclass(frozen=True)
class Rows:
    """Rows of one data set, on the CPU, in NumPy."""

    ids: Ids
    """(T,): [CLS] ... [SEP] of every row."""
    cu_seqlens: NDArray[np.int64]
    """(R + 1,): where each row begins, and T (the cumulative lengths)."""
    second: NDArray[np.int32]
    """(R,): the place in the row where the second segment begins; the row's length without one."""
    targets: NDArray[Any] | None = None
    """What is to be predicted: (R, ...), or (T,) where pieces are labelled; None: unknown."""
    of_pieces: bool = False
    """Whether targets belong to pieces."""
    cut: int = 0
    """How many rows hold less than their texts."""

    def __len__(self) -> int:
        return len(self.second)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """(R,): pieces of each row."""
        return np.diff(self.cu_seqlens)

    def row(self, number: int) -> Ids:
        """One row's pieces."""
        return self.ids[self.cu_seqlens[number] : self.cu_seqlens[number + 1]]


@dataclass(frozen=True)
class LabelledBatch:
    """A few rows and their targets; tensors are on the CPU until the loop moves them."""

    packed: PackedBatch
    targets: Tensor | None
    """as in ``Rows``, of these rows"""
    predictions: int
    """how many targets there are"""
    first_row: int = 0
    """the place of the first row in the step's batch, which may be cut into several of these"""


def text_rows(
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pairs: Sequence[str | None],
    sequence_length: int,
) -> Rows:
    """Rows ``[CLS] text [SEP]``, or ``[CLS] text [SEP] pair [SEP]``, cut to ``sequence_length``.

    Of a pair the longer text is cut first, as transformers' ``longest_first`` does.
    """
    first = tokenizer.encode_batch(texts)
    there = [place for place, pair in enumerate(pairs) if pair is not None]
    second = tokenizer.encode_batch([pair for pair in pairs if pair is not None])
    room = sequence_length - 2
    segments: list[tuple[Ids, ...]] = [(a[:room],) for a in first]
    lengths = np.array(
        [(len(first[place]), len(b)) for place, b in zip(there, second, strict=True)]
    )
    kept = longest_first(lengths.reshape(-1, 2), sequence_length - 3).tolist()
    cut = np.array([len(a) > room for a in first], bool)
    for place, b, (m, n) in zip(there, second, kept, strict=True):
        segments[place] = (first[place][:m], b[:n])
        cut[place] = m + n < len(first[place]) + len(b)
    return replace(pack(tokenizer, segments), cut=int(cut.sum()))


def longest_first(lengths: NDArray[np.int64], room: int) -> NDArray[np.int64]:
    """How much of each pair fits into ``room`` when the longer one is cut first: (R, 2) -> (R, 2).

    The rule of Hugging Face's tokenizers; two texts that are both too long get half each, and an
    odd piece goes to the longer one.

    >>> longest_first(np.array([[3, 4], [9, 2], [9, 8], [8, 8]]), 7).tolist()
    [[3, 4], [5, 2], [4, 3], [3, 4]]
    """
    short, long = lengths.min(1), lengths.max(1)
    left = np.where(short > room, short, np.maximum(short, room - short))
    short_kept, long_kept = short, np.minimum(long, left)
    over = short_kept + long_kept > room
    short_kept = np.where(over, room // 2, short_kept)
    long_kept = np.where(over, room - room // 2, long_kept)
    first_is_longer = lengths[:, 0] > lengths[:, 1]
    first = np.where(first_is_longer, long_kept, short_kept)
    return np.stack([first, np.where(first_is_longer, short_kept, long_kept)], axis=1)


def pack(tokenizer: Tokenizer, segments: Sequence[tuple[Ids, ...]]) -> Rows:
    """One row for each one or two segments, with [CLS] before them and [SEP] after each."""
    cls, sep = _special_pieces(tokenizer)
    parts: list[Ids] = []
    lengths = np.empty(len(segments), np.int64)
    second = np.empty(len(segments), np.int32)
    for number, row in enumerate(segments):
        parts.append(cls)
        for segment in row:
            parts += (segment, sep)
        second[number] = 2 + len(row[0])
        lengths[number] = second[number] + (1 + len(row[1]) if len(row) > 1 else 0)
    starts = np.concatenate(([0], np.cumsum(lengths)))
    return Rows(np.concatenate([np.empty(0, np.int32), *parts]), starts, second)


def _special_pieces(tokenizer: Tokenizer) -> tuple[Ids, Ids]:
    missing = [name for name in ("cls_token", "sep_token") if name not in tokenizer.special_tokens]
    if missing:
        raise ZhbertError(
            f"the model's vocabulary has no {missing[0]}; set it in tokenizer_config.json"
        )
    return np.array([tokenizer.cls_id], np.int32), np.array([tokenizer.sep_id], np.int32)


def gather(rows: Rows, chosen: NDArray[np.int64]) -> tuple[LabelledBatch, NDArray[np.int64]]:
    """The chosen rows as a batch, and where their pieces lie among all pieces: (T,)."""
    lengths = rows.cu_seqlens[chosen + 1] - rows.cu_seqlens[chosen]
    starts = np.cumsum(lengths) - lengths
    pieces = np.arange(lengths.sum()) + np.repeat(rows.cu_seqlens[chosen] - starts, lengths)
    targets, predictions = None, 0
    if rows.targets is not None:
        found = rows.targets[pieces if rows.of_pieces else chosen]
        predictions = int((found != NOT_A_TARGET).sum()) if rows.of_pieces else len(chosen)
        targets = torch.from_numpy(found)
    batch = LabelledBatch(
        packed=pack_rows(rows.ids[pieces], lengths, rows.second[chosen]),
        targets=targets,
        predictions=predictions,
    )
    return batch, pieces


def plan_epoch(
    lengths: NDArray[np.int64], batch_size: int, seed: int, epoch: int
) -> list[NDArray[np.int64]]:
    """Which rows each step of an epoch takes: a pure function of its arguments.

    Rows are shuffled, sorted by length inside windows of many batches and cut into batches, whose
    order is shuffled. Every row is taken once.
    """
    rng = np.random.default_rng([seed, epoch])
    order = rng.permutation(len(lengths))
    batches: list[NDArray[np.int64]] = []
    window = batch_size * min(BATCHES_PER_WINDOW, max(1, len(order) // (WINDOWS * batch_size)))
    for begin in range(0, len(order), window):
        rows = order[begin : begin + window]
        rows = rows[np.argsort(lengths[rows], kind="stable")]
        batches += np.split(rows, range(batch_size, len(rows), batch_size))
    return [batches[number] for number in rng.permutation(len(batches))]


def micro_batches(
    chosen: NDArray[np.int64], lengths: NDArray[np.int64], cells: int, most: int = 0
) -> list[NDArray[np.int64]]:
    """Rows cut so that no part's grid, rows times the longest row, has more than ``cells`` cells.

    ``chosen`` is sorted by length. A row that is too long by itself is a part by itself. No part
    has more than ``most`` rows, where that is not 0.

    >>> micro_batches(np.arange(5), np.array([2, 2, 3, 8, 8]), 9)
    [array([0, 1, 2]), array([3]), array([4])]
    """
    parts: list[NDArray[np.int64]] = []
    begin = 0
    longest = lengths[chosen]
    for number in range(1, len(chosen) + 1):
        full = number - begin == most
        if full or number == len(chosen) or (number + 1 - begin) * int(longest[number]) > cells:
            parts.append(chosen[begin:number])
            begin = number
    return parts


def by_length(lengths: NDArray[np.int64], rows: int, cells: int) -> list[NDArray[np.int64]]:
    """All rows in batches of like length for prediction: ``rows`` and ``cells`` at most."""
    order = np.argsort(lengths, kind="stable")
    return [
        part
        for begin in range(0, len(order), rows)
        for part in micro_batches(order[begin : begin + rows], lengths, cells)
    ]


def check_segments(rows: Rows, type_vocab_size: int) -> None:
    """Refuse pairs for a model that knows one segment only, as some RoBERTas do.

    Raises ZhbertError where a row has a second segment and the model no embedding for it.
    """
    if type_vocab_size < 2 and bool((rows.second < rows.lengths).any()):
        raise ZhbertError(
            f"the model has one segment only (type_vocab_size = {type_vocab_size} in its "
            "config.json), and a pair of texts has two; take another model"
        )


def padding_share(lengths: NDArray[np.int64], parts: Sequence[NDArray[np.int64]]) -> float:
    """Of the cells of the attention's grids, rows times longest row: the share without a piece."""
    cells = sum(len(part) * int(lengths[part].max(initial=0)) for part in parts)
    pieces = sum(int(lengths[part].sum()) for part in parts)
    return 1 - pieces / cells if cells else 0.0


def steps_of(
    rows: Rows, *, batch_size: int, seed: int, done: int, cells: int, most: int = 0
) -> Iterator[list[LabelledBatch]]:
    """The micro-batches of every step after the first ``done``, endlessly."""
    lengths = rows.lengths
    per_epoch = -(-len(rows) // batch_size)
    epoch, skip = divmod(done, per_epoch)
    while True:
        for chosen in plan_epoch(lengths, batch_size, seed, epoch)[skip:]:
            parts = micro_batches(chosen, lengths, cells, most)
            firsts = np.cumsum([0, *map(len, parts)]).tolist()
            yield [
                replace(gather(rows, part)[0], first_row=first)
                for part, first in zip(parts, firsts, strict=False)
            ]
        epoch, skip = epoch + 1, 0
