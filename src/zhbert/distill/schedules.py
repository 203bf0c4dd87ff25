"""The weights of a step's parts, which may rise or fall over the run."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from zhbert.config import DistillSettings
from zhbert.distill.matching import MatchPlan

SCHEDULES: Mapping[str, Callable[[float], float]] = {
    "constant": lambda progress: 1.0,
    "growth": lambda progress: progress,
    "decay": lambda progress: 1.0 - progress,
}
"""The factor of a weight when a share of the run is done."""


def part_weights(
    settings: DistillSettings, plan: MatchPlan, progress: float, hard_parts: int = 1
) -> tuple[float, ...]:
    """Return the weight of each part: the labels' losses, the soft labels, then every match.

    >>> settings = DistillSettings(soft_weight=2.0, soft_schedule="decay")
    >>> part_weights(settings, MatchPlan(), 0.25)
    (1.0, 1.5)

    Args:
        settings: the weights and their schedules. Without soft labels there is no part for them.
        plan: the matches, whose weights stay.
        progress: the share of the run that is done, from 0 to 1.
        hard_parts: number of losses on labels, which come first.
    """
    progress = min(max(progress, 0.0), 1.0)
    hard = settings.hard_weight * SCHEDULES[settings.hard_schedule](progress)
    soft = settings.soft_weight * SCHEDULES[settings.soft_schedule](progress)
    return (hard,) * hard_parts + ((soft,) if settings.soft_labels != "none" else ()) + plan.weights
