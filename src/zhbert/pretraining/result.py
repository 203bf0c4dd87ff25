"""How a pretraining run ended."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class PretrainingResult:
    """How a run ended."""

    folder: Path
    step: int
    pieces: int
    seconds: float
    """Time in training steps, over all resumptions."""
    signal: int | None
    """SIGINT, SIGTERM or SIGHUP where one ended the run early; its state is saved."""
    evaluations: list[dict[str, Any]] = field(default_factory=list)
    """The lines of the last evaluation, one for each masking strategy."""
    dropped_share: float = 0.0
    """The share of the pieces, read since the run was begun or resumed, that was cut off to make
    pairs fit their rows."""
    kept_step: int = 0
    """The step whose weights the run's model has: the last, or with ``keep_best`` the best."""

    @property
    def final(self) -> Path | None:
        """The model folder; None where the run is not complete."""
        return None if self.signal else self.folder / "final"
