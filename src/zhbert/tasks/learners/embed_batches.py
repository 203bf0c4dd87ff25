"""Batches of examples whose texts are compared with each other.

Shapes: R = rows, that is, distinct texts; E = examples; D = dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zhbert.inference.rows import micro_batches
from zhbert.packing import PackedBatch
from zhbert.sentences.denoising import damaged
from zhbert.sentences.losses import (
    LOSSES,
    Comparison,
    EmbeddingLoss,
    Ranking,
    Scored,
    Triplets,
)
from zhbert.tasks.batches import BatchLimits, Numbers
from zhbert.tasks.rows import LabelledBatch, LabelledRows


@dataclass(frozen=True)
class Group:
    """Examples of one card that are learnt by one loss; a batch is from one group."""

    loss: str
    """A name in `LOSSES`."""
    begin: int
    """The number of its first example."""
    end: int
    """The number after that of its last one."""


@dataclass(frozen=True)
class TextsOfExamples:
    """The rows of the examples' texts."""

    texts: Numbers
    """The rows of the texts of all examples, one after another."""
    cu_texts: Numbers
    """(E + 1,): where the texts of each example begin in ``texts``."""
    values: NDArray[np.float32]
    """(E,): the similarity; NaN if there is none."""
    passages: Numbers | None = None
    """The rows of the passages among which are searched; None: nothing is."""
    groups: tuple[Group, ...] = ()
    """For training: what is learnt together."""

    def of(self, examples: Numbers, place: int) -> Numbers:
        """Return the row of the text at ``place`` of each example."""
        return self.texts[self.cu_texts[examples] + place]

    def all_of(self, examples: Numbers, first: int = 0) -> tuple[Numbers, Numbers]:
        """Return the rows of all texts from place ``first`` on, and the example of each.

        Examples are numbered by their places in ``examples``.
        """
        begins, ends = self.cu_texts[examples] + first, self.cu_texts[examples + 1]
        counts = np.maximum(ends - begins, 0)
        owners = np.repeat(np.arange(len(examples)), counts)
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        return self.texts[np.repeat(begins, counts) + within], owners


@dataclass(frozen=True)
class EmbedBatch(LabelledBatch):
    """Some of the texts of a step, computed at once, and what is compared in the whole step.

    ``predictions`` is the number of the step's examples in its first batch, else 0.
    """

    more: tuple[PackedBatch, ...] = ()
    """Further rows: small batches are fast, and the loss needs the activations of them all."""
    loss: str = ""
    """A name in `LOSSES`."""
    compared: Comparison | None = None
    """The texts that are compared, numbered by the rows of the whole step."""
    originals: PackedBatch | None = None
    """For TSDAE: the rows before they were damaged."""
    gradient: Tensor | None = None
    """(losses, R, D): the gradients of the step's losses with respect to the vectors, if the step
    has several batches. There is a second loss if there are ``soft`` targets."""
    values: Tensor | None = None
    """(losses,): the losses of the step in the first batch, 0 in the others; given with
    ``gradient``."""

    @property
    def parts(self) -> tuple[PackedBatch, ...]:
        """All rows."""
        return (self.packed, *self.more)

    @property
    def num_pieces(self) -> int:
        """The number of pieces."""
        return sum(part.num_pieces for part in self.parts)


@dataclass(frozen=True)
class ExampleBatches:
    """Batches of ``batch_size`` examples of one group."""

    rows: LabelledRows
    texts: TextsOfExamples

    def per_epoch(self, batch_size: int) -> int:
        """Return the number of steps of an epoch."""
        return sum(-(-(one.end - one.begin) // batch_size) for one in self.texts.groups)

    def plan(self, batch_size: int, seed: int, epoch: int) -> list[Numbers]:
        """Return the examples of each step, all of one group.

        Every example occurs once, and the batches of all groups are shuffled together, so that the
        groups take turns in proportion to their sizes.
        """
        rng = np.random.default_rng([seed, epoch])
        batches: list[Numbers] = []
        for group in self.texts.groups:
            order = group.begin + rng.permutation(group.end - group.begin)
            batches += np.split(order, range(batch_size, len(order), batch_size))
        return [batches[number] for number in rng.permutation(len(batches))]

    def parts_of(self, chosen: Numbers, limits: BatchLimits) -> list[Numbers]:
        """Return the rows of a step, the shortest first, as they are computed."""
        rows, _ = self._by_length(self.texts.all_of(chosen)[0])
        rows = np.repeat(rows, 2) if LOSSES[self._loss_of(chosen)].twice else rows
        return micro_batches(rows, self.rows.lengths, limits.max_padded_tokens, limits.max_rows)

    def gather(self, chosen: Numbers, limits: BatchLimits) -> list[EmbedBatch]:
        """Return the batches of a step, each as large as memory allows."""
        loss = self._loss_of(chosen)
        if LOSSES[loss].compares is None:
            return self._damaged(chosen, limits, loss)
        rows, compared = self._compare(chosen, LOSSES[loss])
        lengths = self.rows.lengths
        parts = micro_batches(rows, lengths, limits.max_padded_tokens, limits.max_rows)
        batches: list[EmbedBatch] = []
        first = 0
        for group in _together(parts, lengths, limits):
            packed, *more = (self.rows.pack(part)[0] for part in group)
            soft = None
            if self.rows.soft is not None:
                soft = torch.from_numpy(self.rows.soft[np.concatenate(group)])
            batch = EmbedBatch(packed, None, 0, first, soft, more=tuple(more), loss=loss)
            batches.append(batch)
            first += sum(map(len, group))
        batches[0] = replace(batches[0], predictions=len(chosen), compared=compared)
        return batches

    def _damaged(self, examples: Numbers, limits: BatchLimits, loss: str) -> list[EmbedBatch]:
        """Return damaged texts with the whole ones."""
        rows, _ = self._by_length(self.texts.of(examples, 0))
        lengths = self.rows.lengths
        # The examples of a step follow from the seed and the epoch, and so does what is deleted.
        rng = np.random.default_rng(examples)
        batches: list[EmbedBatch] = []
        first = 0
        for part in micro_batches(rows, lengths, limits.max_padded_tokens, limits.max_rows):
            whole, _ = self.rows.pack(part)
            pieces = whole.num_pieces - len(part)
            packed = damaged(whole, rng)
            batches.append(EmbedBatch(packed, None, pieces, first, loss=loss, originals=whole))
            first += len(part)
        return batches

    def _loss_of(self, examples: Numbers) -> str:
        return next(one.loss for one in self.texts.groups if examples[0] < one.end)

    def _compare(self, examples: Numbers, loss: EmbeddingLoss) -> tuple[Numbers, Comparison]:
        """Return the distinct rows of a step, the shortest first, and what is compared."""
        anchors = self.texts.of(examples, 0)
        if loss.twice:
            return self._twice(anchors)
        others = self.texts.of(examples, 1)
        negatives, owners = self.texts.all_of(examples, first=2)
        rows, places = self._by_length(np.concatenate((anchors, others, negatives)))
        left, right, further = np.split(places, np.cumsum((len(anchors), len(others))))
        if loss.compares is Scored:
            values = torch.from_numpy(self.texts.values[examples])
            return rows, Scored(torch.from_numpy(left), torch.from_numpy(right), values)
        if loss.compares is Triplets:
            triples = left[owners], right[owners], further
            return rows, Triplets(*map(torch.from_numpy, triples))
        return rows, Ranking.among(left, right, further, np.arange(len(rows)))

    def _twice(self, texts: Numbers) -> tuple[Numbers, Ranking]:
        """Return each text in two neighbouring rows, the second to be found from the first."""
        rows, places = self._by_length(texts)
        same = np.arange(2 * len(rows)) // 2
        return rows[same], Ranking.among(2 * places, 2 * places + 1, places[:0], same)

    def _by_length(self, rows: Numbers) -> tuple[Numbers, Numbers]:
        """Return the distinct rows, the shortest first, and the places of ``rows`` in them."""
        distinct, places = np.unique(rows, return_inverse=True)
        order = np.argsort(self.rows.lengths[distinct], kind="stable")
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order))
        return distinct[order], rank[places]


def _together(
    parts: Sequence[Numbers], lengths: Numbers, limits: BatchLimits
) -> list[list[Numbers]]:
    """Return groups of parts whose activations memory can hold at once."""
    groups: list[list[Numbers]] = []
    kept = 0
    for part in parts:
        size = len(part) * int(lengths[part].max())
        # A limit of the rows that the user has set is one of memory.
        if not groups or kept + size > limits.max_kept_tokens or limits.max_rows:
            groups.append([])
            kept = 0
        groups[-1].append(part)
        kept += size
    return groups
