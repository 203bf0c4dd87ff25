"""Losses of soft labels: the teacher's scores for a few labels, as what the student should say.

Shapes: N = examples (texts, pieces, ends of answers), C = labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from zhbert.config import DistillSettings
from zhbert.distill.temperature import temperatures


def _cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    return functional.cross_entropy(student, torch.softmax(teacher, dim=-1), reduction="sum")


def _binary_cross_entropy(student: Tensor, teacher: Tensor) -> Tensor:
    targets = torch.sigmoid(teacher)
    loss = functional.binary_cross_entropy_with_logits(student, targets, reduction="sum")
    return loss / student.shape[1]


def squared_error_sum(student: Tensor, teacher: Tensor) -> Tensor:
    """Sum over examples the mean squared difference: (N, C) twice -> (); for scores, C is 1."""
    return functional.mse_loss(student.float(), teacher.float(), reduction="sum") / student.shape[1]


SOFT_LABELS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": _cross_entropy,
    "mse": squared_error_sum,
}
"""The losses of labels of which one is right, by their names in TextBrewer."""

BINARY_SOFT_LABELS: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "ce": _binary_cross_entropy,
    "mse": squared_error_sum,
}
"""The losses of labels each of which is right or wrong by itself."""


def soft_label_sum(
    student: Tensor, teacher: Tensor, settings: DistillSettings, *, binary: bool = False
) -> Tensor:
    """Sum over examples how far the student's labels are from the teacher's: (N, C) twice -> ().

    Divided by N it is TextBrewer's ``kd_ce_loss`` or ``kd_mse_loss``.

    >>> student, teacher = torch.zeros(1, 2), torch.tensor([[8.0, -8.0]])
    >>> round(float(soft_label_sum(student, teacher, DistillSettings())), 4)  # ln 2
    0.6931
    >>> float(soft_label_sum(student, teacher, DistillSettings(soft_labels="mse")))
    1.0

    Args:
        student, teacher: logits, of any float dtype.
        settings: the loss, which is not "none", and its temperature.
        binary: several labels can be right: the mean over the labels of the cross entropy of each,
            by a sigmoid.
    """
    student, teacher = student.float(), teacher.float()
    divisor = temperatures(student, teacher, settings)[:, None]
    losses = BINARY_SOFT_LABELS if binary else SOFT_LABELS
    return losses[settings.soft_labels](student / divisor, teacher / divisor)
