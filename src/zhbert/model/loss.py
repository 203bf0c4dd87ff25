"""Cross entropy over the vocabulary, or over a sample of it, with gradients by the forward pass.

The vocabulary is processed in blocks of columns whose logits fit the processor's cache. The first
pass computes a running softmax (Milakov and Gimelshein 2018, https://arxiv.org/abs/1805.02867) and
leaves exponentials, shifted by the largest logit so far. Once the normaliser is known, the second
pass makes every gradient from them by matrix products. Shift and normaliser are applied to the
(P, H) operands of these products, never to the (P, V) exponentials.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

# Columns in a block. 608 positions x 1,024 columns x 4 bytes nearly fit the second-level caches of
# two cores; 512 to 4,096 columns differ by less than a tenth. On a GPU larger products are faster.
_COLUMNS = {"cpu": 1024}
_COLUMNS_ELSEWHERE = 8192

IGNORED = -100
"""The label of a prediction without weight, as PyTorch's losses have it."""


def walk_block(
    block: Tensor,
    labels: Tensor,
    highest: Tensor,
    total: Tensor,
    label_logits: Tensor,
    without_labels: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Add one block of logits to the running softmax; the block becomes their exponentials.

    Args:
        block: (P, C) logits; on return exp(logit - the largest so far), in its own precision.
        labels: (P,), counted from the block's first column.
        highest, total: (P,) float32, the largest logit so far and the sum of exponentials below it.
        label_logits: (P,) float32; filled in where the label lies in this block.
        without_labels: the labels' columns are left out of the softmax (the caller has put the
            labels' own logits into it already), and ``label_logits`` stays as it is.
    """
    logits = block.float()
    # Taken from the product itself: whether a guess is right is a comparison with the largest logit
    # bit for bit.
    here = labels.clamp(0, block.shape[1] - 1)
    found = logits.gather(1, here[:, None])[:, 0]
    if without_labels:
        logits.scatter_(1, here[:, None], found.masked_fill(labels == here, -torch.inf)[:, None])
    else:
        label_logits = torch.where(labels == here, found, label_logits)
    higher = torch.maximum(highest, logits.amax(1))
    exponentials = logits.sub_(higher[:, None]).exp_()
    if exponentials is not block:
        block.copy_(exponentials)
    total = total * (highest - higher).exp() + exponentials.sum(1)
    return higher, total, label_logits


def _gradients(
    blocks: Sequence[Tensor],
    shifts: Sequence[Tensor],
    hidden: Tensor,
    weight: Tensor,
    narrow_weight: Tensor,
    bias: Tensor,
    *,
    highest: Tensor,
    total: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the gradients of the log normaliser: for hidden (P, H), weight (V, H) and bias (V,).

    Args:
        blocks: the exponentials, (P, C) each, in the precision of the products.
        shifts: (P,) for each block, what its logits were shifted by.
        hidden, weight, bias: as given to the loss; ``narrow_weight`` is the weight in the products'
            precision.
        highest, total: (P,), the largest logits, and the sums of the exponentials below them.
    """
    dtype = narrow_weight.dtype
    hidden_gradient = torch.zeros(hidden.shape, dtype=torch.float32, device=hidden.device)
    weight_gradient = torch.empty_like(weight)
    bias_gradient = torch.empty_like(bias)
    start = 0
    for shift, block in zip(shifts, blocks, strict=True):
        stop = start + block.shape[1]
        scale = ((shift - highest).exp_() / total)[:, None]
        scaled = (hidden * scale).to(dtype)
        if dtype == weight.dtype:
            torch.mm(block.t(), scaled, out=weight_gradient[start:stop])
            torch.mv(block.t(), scale[:, 0], out=bias_gradient[start:stop])
        else:
            weight_gradient[start:stop] = block.t() @ scaled
            # A product with one column: the half-precision matrix-vector one is slow.
            bias_gradient[start:stop] = (block.t() @ scale.to(dtype))[:, 0]
        hidden_gradient.addcmul_(block @ narrow_weight[start:stop], scale)
        start = stop
    return hidden_gradient, weight_gradient, bias_gradient


class _Means(NamedTuple):
    """How the loss is computed."""

    dtype: torch.dtype
    workspace: Tensor | None
    walk: Callable[..., tuple[Tensor, Tensor, Tensor]]


class _VocabularyCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        means: _Means,
        own: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        # With ``own``, (P,) float32, the labels' logits are given: they enter the softmax once,
        # first, and the labels' columns, where there are such, are left out.
        dtype, workspace, walk = means
        vocabulary, positions = weight.shape[0], hidden.shape[0]
        columns = _COLUMNS.get(hidden.device.type, _COLUMNS_ELSEWHERE)
        starts = range(0, vocabulary, columns)
        wants_gradient = any(ctx.needs_input_grad)
        narrow_hidden, narrow_weight = hidden.to(dtype), weight.to(dtype)
        highest = hidden.new_full((positions,), -torch.inf, dtype=torch.float32)
        total = torch.zeros_like(highest)
        label_logits = torch.zeros_like(highest)
        if own is not None:
            highest, total, label_logits = own.clone(), torch.ones_like(total), own
        shifts: list[Tensor] = []
        blocks: list[Tensor] = []
        for start in starts:
            part = narrow_weight[start : start + columns]
            size = positions * part.shape[0]
            if workspace is None:
                block = torch.empty(positions, part.shape[0], dtype=dtype, device=hidden.device)
            else:
                place = start * positions if wants_gradient else 0
                block = workspace[place : place + size].view(positions, part.shape[0])
            torch.addmm(bias[start : start + columns].to(dtype), narrow_hidden, part.t(), out=block)
            highest, total, label_logits = walk(
                block, labels - start, highest, total, label_logits, own is not None
            )
            shifts.append(highest)
            blocks.append(block)
        ignored = ignored_labels(labels)
        losses, hits = total.log() + highest - label_logits, label_logits >= highest
        if ignored is not None:
            losses, hits = without(losses, ignored), without(hits, ignored)
            total = total.masked_fill(ignored, torch.inf)  # all their gradients are 0
            labels = labels.clamp_min(0)
        loss, correct = losses.sum(), hits.sum()
        ctx.mark_non_differentiable(correct)
        if not wants_gradient:
            return loss, correct

        hidden_gradient, weight_gradient, bias_gradient = _gradients(
            blocks, shifts, hidden, weight, narrow_weight, bias, highest=highest, total=total
        )
        own_gradient = None
        # Minus one at each label.
        if own is not None:
            own_gradient = (label_logits - highest).exp_() / total - 1.0
            own_gradient = without(own_gradient, ignored)
        else:
            hidden_gradient -= without(narrow_weight[labels], ignored)
            of_labels = without(hidden.to(weight.dtype), ignored)
            weight_gradient.index_add_(0, labels, of_labels, alpha=-1)
            minus_one = without(torch.full_like(total, -1.0), ignored)
            bias_gradient.index_add_(0, labels, minus_one.to(bias.dtype))
        hidden_gradient = hidden_gradient.to(hidden.dtype)
        ctx.gradients = (hidden_gradient, weight_gradient, bias_gradient, own_gradient)
        return loss, correct

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:
        if ctx.gradients is None:
            raise RuntimeError("this loss gives its gradient once: it is scaled in place")
        hidden, weight, bias, own = (
            None if one is None else one.mul_(upstream) for one in ctx.gradients
        )
        ctx.gradients = None
        return hidden, weight, bias, None, None, own


def ignored_labels(labels: Tensor) -> Tensor | None:
    """Return which of (P,) labels are -100, of predictions without weight; None: none is.

    A GPU is not asked, since the answer would have to be waited for.
    """
    ignored = labels == IGNORED
    return ignored if labels.is_cuda or bool(ignored.any()) else None


def without(x: Tensor, ignored: Tensor | None) -> Tensor:
    """Return (P, ...) with zeros at what is ignored."""
    return x if ignored is None else x.masked_fill(ignored.view(-1, *[1] * (x.ndim - 1)), 0)


@dataclass(frozen=True)
class Candidates:
    """The pieces of a step's sampled softmax: the frequent ones, and a sample of the others."""

    pieces: Tensor
    """(C,) int64, all different"""
    log_weights: Tensor
    """(C,) float32: the log of how many pieces each stands for, 0 for the frequent ones"""

    def to(self, device: torch.device) -> Candidates:
        """Return the same on a device."""
        return Candidates(
            self.pieces.to(device, non_blocking=True),
            self.log_weights.to(device, non_blocking=True),
        )


class CandidateSampler:
    """Draws a step's candidates; which they are is a function of the step's seed alone.

    Args:
        frequencies: (V,) how often each piece occurs.
        frequent: so many of the most frequent pieces always take part.
        sampled: so many of the rest are drawn, all with the same probability and without
            repetition, and weighted so that they stand for the whole rest.

    >>> sampler = CandidateSampler(np.array([5, 9, 0, 1, 7, 2]), frequent=2, sampled=2)
    >>> candidates = sampler.draw(seed=1)
    >>> candidates.pieces[:2].tolist(), candidates.log_weights.exp().tolist()
    ([1, 4], [1.0, 1.0, 2.0, 2.0])
    """

    def __init__(self, frequencies: npt.NDArray[np.int64], frequent: int, sampled: int) -> None:
        order = np.argsort(-frequencies, kind="stable")
        self._frequent, self._rest = order[:frequent], order[frequent:]
        self._sampled = min(sampled, len(self._rest))

    def draw(self, seed: int) -> Candidates:
        """Return the candidates of one step."""
        generator = np.random.Generator(np.random.Philox(key=seed))
        drawn = generator.choice(self._rest, self._sampled, replace=False, shuffle=False)
        log_weights = np.zeros(len(self._frequent) + self._sampled, dtype=np.float32)
        if self._sampled:
            log_weights[len(self._frequent) :] = math.log(len(self._rest) / self._sampled)
        pieces = np.concatenate([self._frequent, drawn])
        return Candidates(torch.from_numpy(pieces), torch.from_numpy(log_weights))


def vocabulary_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    workspace: Tensor | None = None,
    candidates: Candidates | None = None,
    walk: Callable[..., tuple[Tensor, Tensor, Tensor]] = walk_block,
) -> tuple[Tensor, Tensor]:
    """Return summed cross entropy of ``hidden @ weight.T + bias`` and the count of right guesses.

    Equal to ``functional.cross_entropy(..., reduction="sum")`` and its gradients. Under autocast
    the products are done in its precision, sums and the softmax's normaliser in float32.

    With ``candidates`` the softmax's normaliser is an estimate: the exponential of the label's
    logit, plus those of the other candidates, each times its weight. On average over the draws it
    is the exact sum; the loss, its log, is a little too small on average. The count is then of
    labels that no weighted candidate outdoes, which is no accuracy. ``weight`` gets a sparse
    gradient: with that of the input embeddings it becomes a dense one without a second buffer.

    Source: https://arxiv.org/abs/1412.2007 (sampling, with a correction of the logits).

    Args:
        hidden: (P, H), one row for each predicted position.
        weight: (V, H).
        bias: (V,).
        labels: (P,) int64; -100: the prediction has no weight, is neither right nor wrong.
        workspace: room for P x V numbers of the products' type, to be used again at each step:
            fresh memory of that size costs more than the softmax.
        candidates: take the softmax over these pieces and the labels instead of over all.
        walk: ``walk_block``, or its compiled form.
    """
    kind = hidden.device.type
    dtype = torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else weight.dtype
    with torch.autocast(kind, enabled=False):
        if hidden.shape[0] == 0:
            # Still a part of the graph: every parameter gets a gradient (of zero). Under autocast
            # the weight's type may be another than that of the hidden states.
            loss = functional.linear(hidden.to(weight.dtype), weight, bias).float().sum()
            return loss, torch.zeros((), dtype=torch.int64, device=hidden.device)
        own = None
        if candidates is not None:
            count = len(candidates.pieces)
            seen = labels.clamp_min(0)
            both = torch.cat((candidates.pieces, seen))
            rows = functional.embedding(both, weight, sparse=True)
            biases = bias.index_select(0, both)
            # Where each label stands among the candidates; -1, which is in no block: nowhere.
            places = torch.full(bias.shape, -1, dtype=torch.int64, device=hidden.device)
            places[candidates.pieces] = torch.arange(count, device=hidden.device)
            own = (hidden.float() * rows[count:]).sum(1) + biases[count:]
            weight, bias = rows[:count], biases[:count] + candidates.log_weights
            labels = places[seen].where(labels != IGNORED, IGNORED)
        result: tuple[Tensor, Tensor] = _VocabularyCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, weight, bias, labels, _Means(dtype, workspace, walk), own
        )
    return result
