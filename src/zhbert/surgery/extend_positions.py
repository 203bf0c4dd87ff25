"""A model that reads longer rows: more positions, made of the trained ones."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zhbert.config import RANGES
from zhbert.errors import ZhbertError
from zhbert.model.folder import check_out, open_model_folder
from zhbert.surgery import NEW_POSITIONS
from zhbert.surgery.entries import resize_positions
from zhbert.wording import without_secrets


def extend_positions(
    model: str | Path,
    out: str | Path,
    *,
    positions: int,
    new_rows: str = NEW_POSITIONS[0],
    overwrite: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write a model with more positions to the folder ``out``; return its figures.

    Args:
        model: a folder, an archive or a name: anything that ``zhbert.zoo.locate`` takes.
        positions: how many positions the new model has, those of ``model`` first.
        new_rows: how they are made: one of ``zhbert.surgery.NEW_POSITIONS``.

    Raises:
        ZhbertError: no more positions than the model has, or more than can be made so.
    """
    said, possible = RANGES["model.max_position_embeddings"]
    if not possible(positions):
        raise ZhbertError(f"--positions {positions}: must be {said}")
    out = check_out(out, model, overwrite=overwrite)
    opened = open_model_folder(model, quiet=quiet)
    had = opened.config.max_position_embeddings
    if positions <= had:
        raise ZhbertError(
            f"--positions {positions:,}: the model has {had:,} already; 'zhbert shrink' makes fewer"
        )
    entries = resize_positions(opened.entries, positions, new_rows)
    opened.changed(entries).write(out, overwrite=overwrite)
    return {
        "model": without_secrets(str(model)),
        "out": str(out),
        "positions": positions,
        "positions_before": had,
        "new_rows": new_rows,
    }
