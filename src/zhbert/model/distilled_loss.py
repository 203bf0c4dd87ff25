"""Hard and soft labels over the vocabulary, from one product of states and word embeddings.

A teacher's soft labels are its logits: Hinton et al. 2015, https://arxiv.org/abs/1503.02531. The
student's logits are computed once, into memory that is used again at each step. While they are in
the processor's cache, the gradients of both losses take the place of both models' logits; the
backward pass adds them up, weighted, and only then multiplies. Shapes: P = predicted
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

from zhbert.model.loss import Candidates, ignored_labels, vocabulary_cross_entropy, without

Temperature = Callable[[Tensor, Tensor], Tensor]
"""Maps the logits of student and teacher, (P, n) each and detached, to temperatures (P,)."""

# Rows of logits in a block: 16 x 21,128 x 4 bytes stay in a core's second-level cache while the
# softmaxes pass over them. A GPU needs larger blocks to be busy.
_ROWS = {"cpu": 16}
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
    with_gradient: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
    """student, teacher -> the same, and its gradient with respect to the student's, (P, n)"""


def _cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    return -(teacher.softmax(1) * student.log_softmax(1)).sum(1)


def _cross_entropy_with_gradient(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    target, own = teacher.softmax(1), student.softmax(1)
    value = _normaliser(student, own) - torch.linalg.vecdot(target, student)
    return value, own.sub_(target)


def _mean_squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    return (student - teacher).square().mean(1)


def _mean_squared_error_with_gradient(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    difference = student - teacher
    value = torch.linalg.vecdot(difference, difference) / student.shape[1]
    return value, difference.mul_(2 / student.shape[1])


def _normaliser(logits: Tensor, softmax: Tensor) -> Tensor:
    """Return ``logits.logsumexp(1)``, from the softmax: PyTorch's takes twice as long."""
    # The largest probability is at least 1 / n: its logarithm is exact.
    return logits.amax(1) - softmax.amax(1).log()


_SOFT_LOSSES = {
    "ce": _SoftLoss(_cross_entropy, _cross_entropy_with_gradient),
    "mse": _SoftLoss(_mean_squared_error, _mean_squared_error_with_gradient),
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
        labels: (P,) int64, the hard labels; -100: neither loss has a weight there.
        teacher: its logits (P, V), which are overwritten if there are gradients, or its best
            pieces; itself without gradients.
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
            return hard, correct, without(soft, ignored_labels(labels)).sum()
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
    return _SOFT_LOSSES[kind].value(student / degrees, teacher / degrees)


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
        wants_gradient = any(ctx.needs_input_grad)
        hard, soft, correct = [], [], []
        ignored = ignored_labels(labels)
        for rows in _blocks(logits):
            unseen = None if ignored is None else ignored[rows]
            student, label, scale = _wide(logits[rows]), labels[rows, None], inverse[rows]
            if ignored is not None:
                label = label.clamp_min(0)
            losses, gradient = soft_loss.with_gradient(
                student * scale, _wide(teacher[rows]) * scale
            )
            soft.append(without(losses, unseen).sum())
            of_label, highest = student.gather(1, label)[:, 0], student.amax(1)
            probabilities = student.softmax(1)
            losses = highest - probabilities.amax(1).log() - of_label
            hard.append(without(losses, unseen).sum())
            correct.append(without(of_label >= highest, unseen).sum())
            if wants_gradient:
                minus_one = probabilities.new_full((), -1.0).expand(label.shape)
                logits[rows] = without(probabilities.scatter_add_(1, label, minus_one), unseen)
                teacher[rows] = without(gradient, unseen)
        ctx.save_for_backward(hidden, weight, bias)
        # Neither is an input or output of autograd's: their versions are compared by hand.
        ctx.kept = (logits, logits._version, teacher, teacher._version, inverse)
        right = torch.stack(correct).sum()
        ctx.mark_non_differentiable(right)
        return torch.stack(hard).sum(), right, torch.stack(soft).sum()

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, of_hard: Tensor, _: Tensor, of_soft: Tensor
    ) -> tuple[Tensor | None, ...]:
        hidden, weight, bias = ctx.saved_tensors
        logits, version, soft, soft_version, inverse = ctx.kept
        if (logits._version, soft._version) != (version, soft_version):
            raise RuntimeError("this loss gives its gradient once, and before the next forward")
        dtype = logits.dtype
        of_soft = (inverse * of_soft).to(dtype)
        for rows in _blocks(logits):
            logits[rows].mul_(of_hard).addcmul_(soft[rows].to(dtype), of_soft[rows])
        # A product with one column: half-precision sums over columns are slow.
        ones = torch.ones(len(logits), 1, dtype=dtype, device=logits.device)
        return (
            (logits @ weight.to(dtype)).to(hidden.dtype),
            (logits.t() @ hidden.to(dtype)).to(weight.dtype),
            (logits.t() @ ones)[:, 0].to(bias.dtype),
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
