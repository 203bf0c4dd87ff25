"""Losses between what a layer of the student computes and what one of the teacher does.

Each loss is a sum over packed rows. Divided by its count over a whole batch it is the mean that
TextBrewer's function of the same name gives for padded rows with a mask; the table `MATCH_LOSSES`
has both. Sums and counts of parts of a batch add up to those of the batch. Products are computed
in the precision of the states (or that of autocast), and what follows at least in float32.

Shapes: T = pieces of all rows together, R = rows, L = length of the longest row, H = hidden size
(the teacher's can be another where a loss compares no states directly).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from zhbert.model.attention import RowLayout, pad

Padded = Sequence[Tensor]
"""The tensors of some rows' features, padded with zeros: (R, L, H) each."""
RowsLoss = Callable[[Padded, Padded, Tensor], Tensor]
"""Maps the student's tensors, the teacher's, and the rows' (R, 1, 1, L) bias to a sum."""


class Features(NamedTuple):
    """What one model gives to a loss."""

    tensors: tuple[Tensor, ...]
    """The states of a layer, (T, H); those of two layers for fsp and nst; or the queries, keys and
    values of a layer, (T, H) each."""
    heads: int = 1
    """Number of heads of the queries, keys and values."""


@dataclass(frozen=True)
class MatchLoss:
    """A loss that compares a layer (for fsp and nst: two) of the student with one of the teacher.

    >>> layout = RowLayout.of(torch.tensor([0, 2, 3]), 2, 3)
    >>> student = Features((torch.zeros(3, 4),))
    >>> teacher = Features((torch.full((3, 4), 2.0),))
    >>> loss = MATCH_LOSSES["hidden_mse"]
    >>> float(loss.sum(student, teacher, layout)), loss.count(layout.cu_seqlens.diff().numpy())
    (12.0, 3)
    """

    sum: Callable[[Features, Features, RowLayout], Tensor]
    """Maps the student's features, the teacher's, and the rows to the sum of the losses."""
    count: Callable[[NDArray[Any]], int]
    """Maps the (R,) lengths of the rows to what the sum is divided by."""


def hidden_mse(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pieces the mean squared difference of their states."""
    (own,), (theirs,) = student.tensors, teacher.tensors
    own, theirs = _at_least_float32(own), _at_least_float32(theirs)
    return functional.mse_loss(own, theirs, reduction="sum") / own.shape[1]


def cos(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pieces 1 - the cosine of their states (https://arxiv.org/abs/1910.01108)."""
    (own,), (theirs,) = student.tensors, teacher.tensors
    similarity = functional.cosine_similarity(_at_least_float32(own), _at_least_float32(theirs))
    return (1 - similarity).sum()


def pkd(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the rows the squared distance of their first states, scaled to length 1.

    BERT-PKD: https://arxiv.org/abs/1908.09355
    """
    (own,), (theirs,) = student.tensors, teacher.tensors
    first = layout.cu_seqlens[:-1]
    own, theirs = (_at_least_float32(states[first]) for states in (own, theirs))
    return (functional.normalize(own) - functional.normalize(theirs)).square().sum()


def fsp(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the rows the mean squared difference of X'Y / length, X and Y being two layers.

    Flow of the solution procedure, which TextBrewer also calls gram:
    https://openaccess.thecvf.com/content_cvpr_2017/papers/Yim_A_Gift_From_CVPR_2017_paper.pdf
    """
    width = teacher.tensors[0].shape[1]

    def loss(own: Padded, theirs: Padded, bias: Tensor) -> Tensor:
        grams = [x.transpose(1, 2) @ y for x, y in (own, theirs)]
        return (_squares(*grams).mean((1, 2)) / _is_piece(bias).sum(-1).square()).sum()

    return _over_rows(loss, student, teacher, layout, width**2)


def nst(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pairs of pieces the squared difference of x . y / H, x and y of two layers.

    Neuron selectivity transfer, which TextBrewer also calls mmd: https://arxiv.org/abs/1707.01219.
    Where a mask is given, TextBrewer divides by the length of the padded rows in place of H, so
    that the loss depends on the padding; here it is always H.
    """

    def loss(own: Padded, theirs: Padded, bias: Tensor) -> Tensor:
        return _squares(*(_products(x, y, 1 / x.shape[2]) for x, y in (own, theirs))).sum()

    return _over_rows(loss, student, teacher, layout, layout.max_length**2)


def attention_mse(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pairs of pieces, and average over the heads, the scores' squared difference.

    The scores are those of attention before the softmax.
    """

    def loss(own: Padded, theirs: Padded, bias: Tensor) -> Tensor:
        return _squares(_scores(own, student), _scores(theirs, teacher)).sum() / student.heads

    return _over_attention(loss, student, teacher, layout, student.heads)


def attention_mse_sum(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pairs of pieces the squared difference of the sums of all heads' scores."""

    def loss(own: Padded, theirs: Padded, bias: Tensor) -> Tensor:
        # The sum of the products of the heads is the product of all columns.
        total = _products(own[0], own[1], _scale(student))
        return _squares(total, _products(theirs[0], theirs[1], _scale(teacher))).sum()

    return _over_attention(loss, student, teacher, layout)


def attention_ce(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pieces, and average over the heads, the cross entropy of their attention."""

    def loss(own: Padded, theirs: Padded, bias: Tensor) -> Tensor:
        return _cross_entropy(_scores(own, student), _scores(theirs, teacher), bias)

    return _over_attention(loss, student, teacher, layout, student.heads)


def attention_ce_mean(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pieces the cross entropy of attention by the mean of all heads' scores."""

    def loss(own: Padded, theirs: Padded, bias: Tensor) -> Tensor:
        mean = _products(own[0], own[1], _scale(student) / student.heads)
        target = _products(theirs[0], theirs[1], _scale(teacher) / teacher.heads)
        return _cross_entropy(mean, target, bias)

    return _over_attention(loss, student, teacher, layout)


def relations(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pieces, and average over the heads, the divergence of MiniLMv2's relations.

    The relations of queries are the softmax of their scaled products with each other, and so those
    of keys and of values: https://arxiv.org/abs/2012.15828. The three divergences are added. Heads
    are parts of equal width, any number of them, and need not be those of attention.
    """

    def loss(own: Padded, theirs: Padded, bias: Tensor) -> Tensor:
        scores = (_products(x, x, _scale(student), student.heads) for x in own)
        targets = (_products(y, y, _scale(teacher), teacher.heads) for y in theirs)
        parts = [_divergence(x, y, bias) for x, y in zip(scores, targets, strict=True)]
        return torch.stack(parts).sum()

    return _over_rows(loss, student, teacher, layout, student.heads * layout.max_length**2)


# How many products of pieces are computed at once: on a CPU they stay in its cache, on a GPU they
# take a bounded part of its memory.
_AT_ONCE = {"cpu": 1 << 16, "cuda": 1 << 26}


def _over_rows(
    loss: RowsLoss, student: Features, teacher: Features, layout: RowLayout, products: int
) -> Tensor:
    """Sum a loss over padded rows, few at a time; ``products`` are computed for each row."""
    rows = max(1, _AT_ONCE.get(layout.grid.bias.device.type, 1 << 26) // products)
    own, theirs = ([pad(x, layout) for x in one.tensors] for one in (student, teacher))
    learning = torch.is_grad_enabled() and any(x.requires_grad for x in own)
    total: Tensor = _OverRows.apply(  # type: ignore[no-untyped-call]
        loss, _ranges(layout, rows), learning, layout.grid.bias, theirs, *own
    )
    return total


def _over_attention(
    loss: RowsLoss, student: Features, teacher: Features, layout: RowLayout, heads: int = 1
) -> Tensor:
    """Sum a loss of queries and keys, without the values."""
    own, theirs = (one._replace(tensors=one.tensors[:2]) for one in (student, teacher))
    return _over_rows(loss, own, theirs, layout, heads * layout.max_length**2)


class _OverRows(torch.autograd.Function):
    """The sum of a loss over ranges of padded rows.

    Its gradient is computed with it, so that the products of one range are held at a time.
    """

    @staticmethod
    def forward(
        ctx: Any,
        loss: RowsLoss,
        ranges: Sequence[tuple[slice, slice]],
        learning: bool,
        bias: Tensor,
        theirs: Padded,
        *own: Tensor,
    ) -> Tensor:
        gradients = [torch.zeros_like(x) for x in own] if learning else []
        dtype = torch.promote_types(own[0].dtype, torch.float32)
        total = torch.zeros((), dtype=dtype, device=bias.device)
        for rows, places in ranges:
            mine = [x[rows, places].detach().requires_grad_(learning) for x in own]
            targets = [x[rows, places] for x in theirs]
            with torch.set_grad_enabled(learning):
                part = loss(mine, targets, bias[rows, ..., places])
            total += part.detach()
            if learning:
                for gradient, found in zip(gradients, torch.autograd.grad(part, mine), strict=True):
                    gradient[rows, places] = found
        ctx.save_for_backward(*gradients)
        return total

    @staticmethod
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        return (None,) * 5 + tuple(gradient * factor for gradient in ctx.saved_tensors)


def _ranges(layout: RowLayout, rows: int) -> list[tuple[slice, slice]]:
    """Divide the rows into ranges of so many, each with the places up to its longest row."""
    number, cpu = layout.grid.bias.shape[0], layout.grid.bias.device.type == "cpu"
    # On a GPU, looking at the lengths would be a synchronisation.
    lengths = layout.cu_seqlens.diff().tolist() if cpu else [layout.max_length] * number
    return [(slice(i, i + rows), slice(max(lengths[i : i + rows]))) for i in range(0, number, rows)]


def _scores(tensors: Padded, features: Features) -> Tensor:
    """Return attention's scores: (R, heads, L, L)."""
    return _products(tensors[0], tensors[1], _scale(features), features.heads)


def _products(x: Tensor, y: Tensor, scale: float, heads: int = 1) -> Tensor:
    """Return the scaled products of each row's pieces: (R, L, H), (R, L, H) -> (R, heads, L, L)."""
    rows, length, width = x.shape
    x, y = (z.reshape(rows, length, heads, width // heads).transpose(1, 2) for z in (x * scale, y))
    return x @ y.transpose(2, 3)


def _scale(features: Features) -> float:
    """Return what attention multiplies its products by: 1 / root of the head's width."""
    return 1 / math.sqrt(features.tensors[0].shape[1] // features.heads)


def _squares(own: Tensor, theirs: Tensor) -> Tensor:
    """Return the squared differences, which are 0 for padding, since its products are."""
    return functional.mse_loss(_at_least_float32(own), _at_least_float32(theirs), reduction="none")


def _cross_entropy(scores: Tensor, targets: Tensor, bias: Tensor) -> Tensor:
    """Sum over the pieces, and average over the heads: (R, heads, L, L) twice -> ()."""
    scores = scores + bias
    shares = torch.softmax(targets + bias, dim=-1)
    return _of_pieces(scores.logsumexp(-1) - (shares * scores).sum(-1), bias)


def _divergence(scores: Tensor, targets: Tensor, bias: Tensor) -> Tensor:
    """Sum the Kullback-Leibler divergence from the targets' softmax, as `_cross_entropy`."""
    own, theirs = (torch.log_softmax(x + bias, dim=-1) for x in (scores, targets))
    parts = functional.kl_div(own, theirs, reduction="none", log_target=True)
    return _of_pieces(parts.sum(-1), bias)


def _of_pieces(losses: Tensor, bias: Tensor) -> Tensor:
    """Average (R, heads, L) over the heads, and sum what is no padding."""
    return (losses.mean(1) * _is_piece(bias)).sum()


def _is_piece(bias: Tensor) -> Tensor:
    """Return what is no padding: (R, L) bool."""
    return bias[:, 0, 0] == 0


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _rows(lengths: NDArray[Any]) -> int:
    return len(lengths)


def _pieces(lengths: NDArray[Any]) -> int:
    return int(lengths.sum())


def _pairs(lengths: NDArray[Any]) -> int:
    lengths = lengths.astype(np.int64)
    return int(lengths @ lengths)


MATCH_LOSSES: Mapping[str, MatchLoss] = {
    "hidden_mse": MatchLoss(hidden_mse, _pieces),
    "cos": MatchLoss(cos, _pieces),
    "pkd": MatchLoss(pkd, _rows),
    "fsp": MatchLoss(fsp, _rows),
    "nst": MatchLoss(nst, _pairs),
    "attention_mse": MatchLoss(attention_mse, _pairs),
    "attention_mse_sum": MatchLoss(attention_mse_sum, _pairs),
    "attention_ce": MatchLoss(attention_ce, _pieces),
    "attention_ce_mean": MatchLoss(attention_ce_mean, _pieces),
    "relations": MatchLoss(relations, _pieces),
}
"""The losses by their names in TextBrewer, and MiniLMv2's relations: `MATCH_NAMES`."""
