"""The best weights of one seed so far, chosen by the main metric on dev."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zhbert.inference.run_model import Array
from zhbert.train.checkpoint import TrainingCheckpoint


@dataclass(kw_only=True)
class Evaluation:
    """A model's scores on dev."""

    value: float
    """The main metric."""
    metrics: dict[str, float]
    kind: dict[str, Any]
    """The values tuned on dev, such as a decision threshold."""
    scores: Array | None = None
    """The model's raw scores; None after a resumption."""


@dataclass(kw_only=True)
class Best(Evaluation):
    """The best weights so far, with their step and their scores."""

    step: int
    epoch: float
    state: dict[str, Tensor]

    @property
    def info(self) -> dict[str, Any]:
        """All fields except the arrays, to be stored in a checkpoint."""
        return {key: one for key, one in vars(self).items() if key not in ("state", "scores")}

    @classmethod
    def restored(cls, checkpoint: TrainingCheckpoint) -> Best | None:
        """Return the best weights stored in a checkpoint, or None if there are none."""
        if "best" not in checkpoint.info:
            return None
        own = (checkpoint.path / "best.safetensors").is_file()
        return cls(**checkpoint.info["best"], state=checkpoint.tensors("best" if own else "model"))
