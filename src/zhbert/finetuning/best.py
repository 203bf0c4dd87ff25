"""The best weights of a seed, by the main metric on dev."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor

from zhbert.inference.run_model import Array
from zhbert.train.checkpoint import TrainingCheckpoint


@dataclass
class Best:
    """The best weights so far, and what they scored."""

    value: float
    """Of the main metric on dev."""
    step: int
    epoch: float
    metrics: dict[str, float]
    kind: dict[str, Any]
    """What was tuned on dev."""
    state: dict[str, Tensor]
    scores: Array | None = None
    """Of dev; None after a resumption."""

    @property
    def info(self) -> dict[str, Any]:
        """All but the arrays, for a checkpoint."""
        return {key: one for key, one in vars(self).items() if key not in ("state", "scores")}

    @classmethod
    def restored(cls, checkpoint: TrainingCheckpoint) -> Best | None:
        """The best model that a checkpoint knows of."""
        if "best" not in checkpoint.info:
            return None
        own = (checkpoint.path / "best.safetensors").is_file()
        return cls(**checkpoint.info["best"], state=checkpoint.tensors("best" if own else "model"))
