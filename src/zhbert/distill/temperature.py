"""Temperatures by which logits are divided before student and teacher are compared.

``flsw`` and ``cwsm`` give every example its own, from https://arxiv.org/abs/1911.07471, as
TextBrewer computes them. They compare each example with the mean over those that are computed
together, which are those of one micro-batch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from zhbert.config import DistillSettings

# Around a low temperature, an unusual example could get one of 0 or below.
_LOWEST = 0.1


def constant(student: Tensor, teacher: Tensor, settings: DistillSettings) -> Tensor:
    """Return the temperature of the settings for all examples: (N, C) twice -> (N,)."""
    return student.new_full(student.shape[:1], settings.temperature)


def flsw(student: Tensor, teacher: Tensor, settings: DistillSettings) -> Tensor:
    """Return a lower temperature where student and teacher differ more: (N, C) twice -> (N,).

    Focal loss style weights: (1 - cosine of the logits) to the power gamma.
    """
    own, theirs = (
        logits / (torch.linalg.vector_norm(logits, dim=-1, keepdim=True) + 1e-4)
        for logits in (student, teacher)
    )
    weights = (1 - (own * theirs).sum(-1)).clamp(min=0) ** settings.temperature_gamma
    return _around(weights, settings)


def cwsm(student: Tensor, teacher: Tensor, settings: DistillSettings) -> Tensor:
    """Return a lower temperature where the student is less sure: (N, C) twice -> (N,).

    Confidence weighted by the student's maximum: 1 / its highest probability.
    """
    return _around(1 / (torch.softmax(student, dim=-1).amax(-1) + 1e-3), settings)


def _around(weights: Tensor, settings: DistillSettings) -> Tensor:
    """Return temperatures whose mean is that of the settings, lower where the weight is higher."""
    temperatures = settings.temperature + settings.temperature_beta * (weights.mean() - weights)
    return temperatures.clamp(min=_LOWEST)


TEMPERATURES: Mapping[str, Callable[[Tensor, Tensor, DistillSettings], Tensor]] = {
    "constant": constant,
    "flsw": flsw,
    "cwsm": cwsm,
}
"""The schedules by their names in TextBrewer."""


def temperatures(student: Tensor, teacher: Tensor, settings: DistillSettings) -> Tensor:
    """Return what the logits of each example are divided by: (N, C) twice -> (N,), no gradient.

    >>> logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> temperatures(logits, logits, DistillSettings(temperature=4.0)).tolist()
    [4.0, 4.0]
    """
    of = TEMPERATURES[settings.temperature_schedule]
    with torch.no_grad():
        return of(student.detach().float(), teacher.detach().float(), settings)
