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
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from zhbert.model.attention import RowLayout, pad


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
    differences = _at_least_float32(own) - _at_least_float32(theirs)
    return differences.square().sum() / own.shape[1]


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
    first, second = (
        [pad(states, layout) for states in pair]
        for pair in zip(student.tensors, teacher.tensors, strict=True)
    )
    # X'Y of the student minus that of the teacher is one product of both, one above the other.
    left = torch.cat((first[0], -first[1]), dim=1)
    differences = left.transpose(1, 2) @ torch.cat(second, dim=1)
    squares = _at_least_float32(differences).square().mean((1, 2))
    return (squares / layout.cu_seqlens.diff().square()).sum()


def nst(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pairs of pieces the squared difference of x . y / H, x and y of two layers.

    Neuron selectivity transfer, which TextBrewer also calls mmd: https://arxiv.org/abs/1707.01219.
    Where a mask is given, TextBrewer divides by the length of the padded rows in place of H, so
    that the loss depends on the padding; here it is always H.
    """
    scales = (1 / student.tensors[0].shape[1], 1 / teacher.tensors[0].shape[1])
    return _squared_differences(student, teacher, layout, scales)


def attention_mse(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pairs of pieces, and average over the heads, attention's squared difference.

    Attention's scores are compared, which are those before the softmax.
    """
    scales = (_scale(student), _scale(teacher))
    total = _squared_differences(student, teacher, layout, scales, student.heads)
    return total / student.heads


def attention_mse_sum(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pairs of pieces the squared difference of the sums of all heads' scores."""
    # The sum of the products of the heads is the product of all columns.
    return _squared_differences(student, teacher, layout, (_scale(student), _scale(teacher)))


def attention_ce(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pieces, and average over the heads, the cross entropy of their attention."""
    own, theirs = (
        _products(one.tensors[0], one.tensors[1], layout, _scale(one), one.heads)
        for one in (student, teacher)
    )
    return _cross_entropy(own, theirs, layout)


def attention_ce_mean(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pieces the cross entropy of attention by the mean of all heads' scores."""
    own, theirs = (
        _products(one.tensors[0], one.tensors[1], layout, _scale(one) / one.heads)
        for one in (student, teacher)
    )
    return _cross_entropy(own, theirs, layout)


def relations(student: Features, teacher: Features, layout: RowLayout) -> Tensor:
    """Sum over the pieces, and average over the heads, the divergence of MiniLMv2's relations.

    The relations of queries are the softmax of their scaled products with each other, and so those
    of keys and of values: https://arxiv.org/abs/2012.15828. The three divergences are added. Heads
    are parts of equal width, any number of them, and need not be those of attention.
    """
    total = layout.bias.new_zeros(())
    for own, theirs in zip(student.tensors, teacher.tensors, strict=True):
        scores = _products(own, own, layout, _scale(student), student.heads)
        targets = _products(theirs, theirs, layout, _scale(teacher), teacher.heads)
        total = total + _divergence(scores, targets, layout)
    return total


def _squared_differences(
    student: Features,
    teacher: Features,
    layout: RowLayout,
    scales: tuple[float, float],
    heads: int = 1,
) -> Tensor:
    """Sum the squared differences of the products of two tensors' pieces, head by head.

    The student's product minus the teacher's is one product of both, side by side. Padding is 0 in
    both, so that it adds nothing.
    """
    (x, y, *_), (theirs_x, theirs_y, *_) = student.tensors, teacher.tensors
    left = _side_by_side(x * scales[0], theirs_x * -scales[1], heads)
    differences = _products(left, _side_by_side(y, theirs_y, heads), layout, 1.0, heads)
    return _at_least_float32(differences).square().sum()


def _side_by_side(own: Tensor, theirs: Tensor, heads: int) -> Tensor:
    """Join the columns of two tensors within each head: (T, H), (T, H') -> (T, H + H')."""
    return torch.cat([x.reshape(len(x), heads, -1) for x in (own, theirs)], dim=2).flatten(1)


def _products(x: Tensor, y: Tensor, layout: RowLayout, scale: float, heads: int = 1) -> Tensor:
    """Return the scaled products of each row's pieces: (T, H), (T, H) -> (R, heads, L, L)."""
    if scale != 1.0:
        x = x * scale
    x, y = (pad(z, layout) for z in (x, y))
    rows, length, width = x.shape
    x, y = (z.view(rows, length, heads, width // heads).transpose(1, 2) for z in (x, y))
    return x @ y.transpose(2, 3)


def _scale(features: Features) -> float:
    """Return what attention multiplies its products by: 1 / root of the head's width."""
    return 1 / math.sqrt(features.tensors[0].shape[1] // features.heads)


def _cross_entropy(scores: Tensor, targets: Tensor, layout: RowLayout) -> Tensor:
    """Sum over the pieces, and average over the heads: (R, heads, L, L) twice -> ()."""
    scores = scores + layout.bias
    shares = torch.softmax(targets + layout.bias, dim=-1)
    return _of_pieces(scores.logsumexp(-1) - (shares * scores).sum(-1), layout)


def _divergence(scores: Tensor, targets: Tensor, layout: RowLayout) -> Tensor:
    """Sum the Kullback-Leibler divergence from the targets' softmax, as `_cross_entropy`."""
    own, theirs = (torch.log_softmax(x + layout.bias, dim=-1) for x in (scores, targets))
    parts = functional.kl_div(own, theirs, reduction="none", log_target=True)
    return _of_pieces(parts.sum(-1), layout)


def _of_pieces(losses: Tensor, layout: RowLayout) -> Tensor:
    """Average (R, heads, L) over the heads, and sum what is no padding."""
    return (losses.mean(1) * (layout.bias[:, 0, 0] == 0)).sum()


def _at_least_float32(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _rows(lengths: NDArray[Any]) -> int:
    return len(lengths)


def _pieces(lengths: NDArray[Any]) -> int:
    return int(lengths.sum())


def _pairs(lengths: NDArray[Any]) -> int:
    return sum(int(length) ** 2 for length in lengths)


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
