"""Fine-tuning in which a student also learns from teachers, as the training loop's objective.

Soft labels come with the batches: the teachers have computed all rows beforehand, without dropout.
Where layers are matched, their encoders compute the batch beside the student's.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from zhbert.config import DistillSettings
from zhbert.distill.matcher import match_counts, match_sums
from zhbert.distill.matching import MatchPlan
from zhbert.distill.schedules import part_weights
from zhbert.model.attention import RowLayout
from zhbert.model.recording import Recording, recording
from zhbert.packing import PackedBatch
from zhbert.tasks.learners.base import FineTuning, Learner
from zhbert.tasks.rows import LabelledBatch


class Distilling(FineTuning):
    """A learner's losses by labels and by soft labels, and those between layers."""

    def __init__(
        self,
        name: str,
        learner: Learner,
        settings: DistillSettings,
        plan: MatchPlan,
        teachers: Sequence[nn.Module],
    ) -> None:
        super().__init__(name, learner)
        self.settings, self.plan, self.teachers = settings, plan, teachers
        self.soft = settings.soft_labels != "none"
        self.parts = (name, *(("soft_labels",) if self.soft else ()), *plan.names)

    def weights(self, progress: float) -> tuple[float, ...]:
        """Return the factor of each part when a share of the run, from 0 to 1, is done."""
        return part_weights(self.settings, self.plan, progress)

    def counts(self, batch: LabelledBatch) -> tuple[int, ...]:
        """Return the number of targets, as often as they are learnt, and what matches count."""
        targets = (batch.predictions,) * (2 if self.soft else 1)
        return (*targets, *match_counts(self.plan, batch.packed))

    def __call__(self, model: nn.Module, batch: LabelledBatch, seed: int) -> tuple[Tensor, Tensor]:
        """Return the sums of the losses, and 0 for correct predictions: metrics judge dev."""
        ours: Any = model
        ours.set_dropout_seed(seed, batch.first_row)
        with ExitStack() as stack:
            wanted = self.plan.student
            # A student without matches is not recorded: its last block may skip pieces.
            kept = stack.enter_context(recording(ours.encoder, *wanted)) if any(wanted) else None
            if self.soft:
                losses = self.learner.distilled_losses(model, batch, self.settings)
            else:
                losses = self.learner.loss(model, batch).reshape(1)
        if kept is not None:
            layout = RowLayout.of_batch(batch.packed)
            theirs = self._recorded(batch.packed, layout)
            matched = match_sums(self.plan, ours.matching, kept, theirs, layout)
            losses = torch.cat((losses, matched))
        return losses, torch.zeros_like(losses)

    def _recorded(self, batch: PackedBatch, layout: RowLayout) -> list[Recording]:
        """Return what each teacher computes in the layers that are matched."""
        found = []
        for number, teacher in enumerate(self.teachers):
            encoder: Any = teacher.encoder
            with torch.no_grad(), recording(encoder, *self.plan.teacher(number)) as kept:
                if any(self.plan.teacher(number)):
                    encoder(batch, layout)
            found.append(kept)
        return found
