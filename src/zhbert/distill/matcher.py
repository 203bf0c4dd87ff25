"""The losses of a plan's matches, from what a forward pass of each model recorded."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from zhbert.distill.losses import MATCH_LOSSES, Features
from zhbert.distill.matching import MatchPlan, PlannedMatch
from zhbert.model.attention import RowLayout
from zhbert.model.recording import Recording
from zhbert.packing import PackedBatch

# TextBrewer's, whatever the student's own weights are drawn with.
_STANDARD_DEVIATION = 0.02

ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {
    "linear": lambda x: x,
    "relu": torch.relu,
    "tanh": torch.tanh,
}
"""What comes after the linear map of a projection."""


class Projections(nn.Module):
    """The maps of the student's states to a teacher's width, one for each term of a match.

    They are trained with the student and no part of the finished model.

    Args:
        plan: the matches; those without a projection have no parameters here.
        seed: decides the initial weights; biases are 0.
    """

    def __init__(self, plan: MatchPlan, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.maps = nn.ModuleDict()
        for match in plan.matches:
            if match.projection != "none":
                own = nn.ModuleList(nn.Linear(*match.widths) for _ in match.terms)
                self.maps[match.name] = own
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                if name.endswith("bias"):
                    parameter.zero_()
                else:
                    parameter.normal_(std=_STANDARD_DEVIATION, generator=generator)

    def forward(self, states: Tensor, match: PlannedMatch, term: int) -> Tensor:
        """Project the states of a match's term: (T, student's width) -> (T, teacher's width)."""
        if match.projection == "none":
            return states
        maps = self.maps[match.name]
        assert isinstance(maps, nn.ModuleList)
        return ACTIVATIONS[match.projection](maps[term](states))


def match_sums(
    plan: MatchPlan,
    projections: Projections,
    student: Recording,
    teachers: Sequence[Recording],
    layout: RowLayout,
) -> Tensor:
    """Return the sum of each match's loss over the recorded rows: (matches,).

    Args:
        plan: the matches.
        projections: those of this plan.
        student: recorded with ``plan.student``, gradients included.
        teachers: recorded with ``plan.teacher(0)`` and so on, from the same pieces.
        layout: the rows.
    """
    sums = []
    for match in plan.matches:
        teacher = teachers[match.of_teacher]
        loss = torch.zeros((), device=layout.cu_seqlens.device)
        for number, (own, theirs) in enumerate(match.terms):
            features = _features(match, student, own, match.heads[0])
            states = tuple(projections(x, match, number) for x in features.tensors)
            target = _features(match, teacher, theirs, match.heads[1])
            loss = loss + MATCH_LOSSES[match.loss].sum(
                features._replace(tensors=states), target, layout
            )
        sums.append(loss)
    return torch.stack(sums) if sums else torch.zeros(0, device=layout.cu_seqlens.device)


def match_counts(plan: MatchPlan, batch: PackedBatch) -> tuple[int, ...]:
    """Return what each match's sum is divided by over the whole batch, which is on the CPU."""
    lengths = batch.cu_seqlens.diff().numpy()
    return tuple(MATCH_LOSSES[match.loss].count(lengths) for match in plan.matches)


def _features(
    match: PlannedMatch, recorded: Recording, layers: Sequence[int], heads: int
) -> Features:
    """Return what a loss compares of one model's layers."""
    if match.needs.hidden:
        return Features(tuple(recorded.states[layer] for layer in layers))
    (layer,) = layers
    return Features(recorded.qkv[layer].chunk(3, dim=1), heads)
