"""Hard and soft labels over the vocabulary, from one product of states and word embeddings.

A teacher's soft labels are its logits: Hinton et al. 2015, https://arxiv.org/abs/1503.02531. The
student's logits are computed once, into memory that is used again at each step. The backward pass
puts the gradient of both losses in their place, and only then multiplies. Shapes: P = predicted
positions, H = hidden size, V = vocabulary, k = the teacher's best pieces.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from zhbert.model.loss import Candidates, vocabulary_cross_entropy

Temperature = Callable[[Tensor, Tensor], Tensor]
"""Maps the logits of student and teacher, (P, n) each and detached, to temperatures (P,)."""

# Rows of logits in a block: 32 x 21,128 x 4 bytes stay in the second-level caches of two cores
# while the softmaxes pass over them. A GPU needs larger blocks to be busy.
_ROWS = {"cpu": 32}
_ROWS_ELSEWHERE = 1024

# Columns of which `best_pieces` takes the highest logit first.
_COLUMNS = 64


@dataclass(frozen=True)
class BestPieces:
    """The k pieces that a teacher finds most likely at each of P positions, the best one first."""

    pieces: Tensor
    """(P, k) int64, ids of the student's vocabulary"""
    logits: Tensor
    """(P, k) floating point; only their differences within a row matter"""


class _SoftLoss(NamedTuple):
    """A loss between logits that are divided by the temperature, (P, n) each."""

    value: Callable[[Tensor, Tensor], Tensor]
    """student, teacher -> (P,)"""
    gradient: Callable[[Tensor, Tensor], Tensor]
    """student, teacher -> (P, n) new memory: of the value with respect to the student's"""


def _cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    return student.logsumexp(1) - (teacher.softmax(1) * student).sum(1)


def _cross_entropy_gradient(student: Tensor, teacher: Tensor) -> Tensor:
    return student.softmax(1).sub_(teacher.softmax(1))


def _mean_squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square().mean(1)


def _mean_squared_error_gradient(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).mul_(2 / student.shape[1])


_SOFT_LOSSES = {
    "ce": _SoftLoss(_cross_entropy, _cross_entropy_gradient),
    "mse": _SoftLoss(_mean_squared_error, _mean_squared_error_gradient),
}


def distilled_cross_entropy(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    labels: Tensor,
    teacher: Tensor | BestPieces,
    *,
    kind: str = "ce",
    temperature: float | Temperature = 1.0,
    workspace: Tensor | None = None,
    candidates: Candidates | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the summed losses of hard and soft labels, and the count of right guesses.

    The logits are ``hidden @ weight.T + bias``. The loss of the hard labels is their cross entropy;
    that of the soft ones, for each position, compares the logits of both models divided by the
    temperature. Under autocast the products are done in its precision, the rest in float32.

    With a teacher's best pieces, both distributions are renormalised over these pieces: for the
    soft labels, logits are log probabilities given that it is one of them. Then nothing but the
    loss of the hard labels is computed over the vocabulary, and ``weight`` gets a sparse gradient
    besides (as in `vocabulary_cross_entropy`).

    Args:
        hidden: (P, H), the student's states at the predicted positions.
        weight: (V, H), its word embeddings.
        bias: (V,).
        labels: (P,) int64, the hard labels.
        teacher: its logits (P, V), or its best pieces; without gradients.
        kind: "ce", the cross entropy of the two distributions, or "mse", the mean over the pieces
            of the squared differences of the logits.
        temperature: of both models; a function may give each position its own.
        workspace: room for P x V numbers of the products' type, to be used again at each step, but
            not before the backward pass.
        candidates: with best pieces, estimate the softmax of the hard labels with these pieces.

    Returns:
        hard loss (), right guesses () int64, soft loss ()
    """
    kind_of_device = hidden.device.type
    narrow = torch.is_autocast_enabled(kind_of_device)
    dtype = torch.get_autocast_dtype(kind_of_device) if narrow else weight.dtype
    if isinstance(teacher, BestPieces) or not len(labels):
        hard, correct = vocabulary_cross_entropy(
            hidden, weight, bias, labels, workspace, candidates
        )
    with torch.autocast(kind_of_device, enabled=False):
        if not len(labels):
            return hard, correct, hard.clone()
        if isinstance(teacher, BestPieces):
            soft = _over_best_pieces(hidden, weight, bias, teacher, kind, temperature)
            return hard, correct, soft
        assert candidates is None, "soft labels over the vocabulary need all of its logits"
        soft_labels = _SoftLabels(teacher, _SOFT_LOSSES[kind], temperature)
        hard, correct, soft = _DistilledCrossEntropy.apply(  # type: ignore[no-untyped-call]
            hidden, weight, bias, labels, soft_labels, dtype, workspace
        )
    return hard, correct, soft


def _over_best_pieces(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor,
    best: BestPieces,
    kind: str,
    temperature: float | Temperature,
) -> Tensor:
    rows = functional.embedding(best.pieces, weight, sparse=True)
    logits = (rows @ hidden.to(rows.dtype)[:, :, None])[:, :, 0] + bias.take(best.pieces)
    student, teacher = logits.log_softmax(1), best.logits.to(logits.dtype).log_softmax(1)
    if callable(temperature):
        degrees: float | Tensor = temperature(student.detach(), teacher)[:, None]
    else:
        degrees = temperature
    return _SOFT_LOSSES[kind].value(student / degrees, teacher / degrees).sum()


class _SoftLabels(NamedTuple):
    teacher: Tensor
    loss: _SoftLoss
    temperature: float | Temperature


class _DistilledCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor,
        labels: Tensor,
        soft_labels: _SoftLabels,
        dtype: torch.dtype,
        workspace: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        shape = (hidden.shape[0], weight.shape[0])
        if workspace is None:
            logits = torch.empty(shape, dtype=dtype, device=hidden.device)
        else:
            logits = workspace[: shape[0] * shape[1]].view(shape)
        torch.addmm(bias.to(dtype), hidden.to(dtype), weight.to(dtype).t(), out=logits)
        teacher, soft_loss, temperature = soft_labels
        if callable(temperature):
            inverse = 1 / temperature(_wide(logits), _wide(teacher))[:, None]
        else:
            inverse = _wide(logits[:, :1]).new_full((shape[0], 1), 1 / temperature)
        hard, soft, correct = [], [], []
        for rows in _blocks(logits):
            student, label = _wide(logits[rows]), labels[rows, None]
            of_label = student.gather(1, label)[:, 0]
            hard.append((student.logsumexp(1) - of_label).sum())
            correct.append((of_label >= student.amax(1)).sum())
            scale = inverse[rows]
            soft.append(soft_loss.value(student * scale, _wide(teacher[rows]) * scale).sum())
        ctx.save_for_backward(hidden, weight, bias, labels)
        # Neither is an input or output of autograd's: their versions are compared by hand.
        ctx.kept = (logits, logits._version, teacher, teacher._version, inverse, soft_loss)
        right = torch.stack(correct).sum()
        ctx.mark_non_differentiable(right)
        return torch.stack(hard).sum(), right, torch.stack(soft).sum()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_hard: Tensor, _: Tensor, of_soft: Tensor
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, labels = ctx.saved_tensors
        logits, version, teacher, teacher_version, inverse, soft_loss = ctx.kept
        if (logits._version, teacher._version) != (version, teacher_version):
            raise RuntimeError("this loss gives its gradient once, and before the next forward")
        for rows in _blocks(logits):
            student, scale = _wide(logits[rows]), inverse[rows]
            gradient = student.softmax(1).mul_(of_hard)
            gradient.scatter_add_(1, labels[rows, None], -of_hard.expand(len(gradient), 1))
            of_both = soft_loss.gradient(student * scale, _wide(teacher[rows]) * scale)
            logits[rows] = gradient.addcmul_(of_both, scale * of_soft)
        dtype = logits.dtype
        return (
            (logits @ weight.to(dtype)).to(hidden.dtype),
            (logits.t() @ hidden.to(dtype)).to(weight.dtype),
            logits.sum(0, dtype=bias.dtype),
            *[None] * 4,
        )


def _wide(logits: Tensor) -> Tensor:
    """Return logits in a precision that sums can be done in."""
    return logits if logits.dtype in (torch.float32, torch.float64) else logits.float()


def _blocks(logits: Tensor) -> list[slice]:
    size = _ROWS.get(logits.device.type, _ROWS_ELSEWHERE)
    return [slice(start, start + size) for start in range(0, len(logits), size)]


def best_pieces(logits: Tensor, k: int) -> BestPieces:
    """Return the k pieces of the highest logits of each row of (P, V), the best one first.

    >>> best = best_pieces(torch.tensor([[0.0, 3.0, 1.0]]), 2)
    >>> best.pieces.tolist(), best.logits.tolist()
    ([[1, 2]], [[3.0, 1.0]])
    """
    positions, vocabulary = logits.shape
    groups = vocabulary // _COLUMNS
    if groups <= k:
        values, pieces = logits.topk(k)
        return BestPieces(pieces, values)
    # The k best are among the k groups with the highest maxima, or among the columns left over:
    # several times as fast as to select among all.
    even = logits[:, : groups * _COLUMNS].view(positions, groups, _COLUMNS)
    columns = torch.arange(groups * _COLUMNS, vocabulary, device=logits.device)
    inside = torch.arange(_COLUMNS, device=logits.device)
    chosen = (even.amax(2).topk(k).indices[:, :, None] * _COLUMNS + inside).flatten(1)
    chosen = torch.cat((chosen, columns.expand(positions, -1)), 1)
    values, places = logits.gather(1, chosen).topk(k)
    return BestPieces(chosen.gather(1, places), values)
