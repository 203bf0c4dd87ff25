"""Models with more positions, made from the trained ones, for longer rows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from zhbert.config import RANGES
from zhbert.errors import ZhbertError
from zhbert.model.folder import check_out, open_model_folder
from zhbert.surgery import NEW_POSITIONS
from zhbert.surgery.entries import resize_positions
from zhbert.wording import without_secrets


def stretch(
    model: str | Path,
    out: str | Path,
    *,
    positions: int,
    new_rows: str = NEW_POSITIONS[0],
    overwrite: bool = False,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write a model with more positions to the folder ``out``.

    Args:
        model: a model, given as anything that ``zhbert.zoo.locate`` accepts.
        positions: the number of positions of the new model.
        new_rows: how they are made: one of ``zhbert.surgery.NEW_POSITIONS``. The trained ones come
            first and unchanged, but with ``interpolate``.

    Returns:
        ``model``, ``out``, ``positions``, ``positions_before`` and ``new_rows``.

    Raises:
        ZhbertError: ``positions`` is not larger than the model's number, or too large.
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
