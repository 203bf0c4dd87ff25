"""The result of a pretraining run."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PretrainingResult:
    """The result of a pretraining run."""

    folder: Path
    step: int
    pieces: int
    seconds: float
    """Time in training steps, the total over all resumptions."""
    signal: int | None
    """SIGINT, SIGTERM or SIGHUP if one ended the run early; its state is saved."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """The lines of the last evaluation, one for each masking strategy."""
    dropped_share: float = 0.0
    """The share of pieces that were cut off to make pairs fit their rows, since the run was
    started or resumed."""
    kept_step: int = 0
    """The step of the final model's weights: the last, or with ``keep_best`` the best."""

    @property
    def final(self) -> Path | None:
        """The model folder; None if the run is not complete."""
        return None if self.signal else self.folder / "final"
