"""Locating the folder of a fine-tuned model without opening the model."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import read_json
from zhbert.terminal import say_nothing
from zhbert.wording import counted
from zhbert.zoo import locate


def locate_fine_tuned(
    name: str | os.PathLike[str], *, quiet: bool = True, remark: Callable[[str], None] = say_nothing
) -> Path:
    """Return the folder of a model, given as anything `zhbert.zoo.locate` accepts or a run folder.

    A run folder stands for the model of the seed that is best on dev; if there are several, there
    is a remark. Raises ZhbertError if nothing is found.
    """
    folder = Path(name)
    if (folder / "config.json").is_file() or not (folder / "summary.json").is_file():
        return locate(os.fspath(name), quiet=quiet)
    summary = read_json(folder / "summary.json", dict)
    try:
        values, seeds = summary["metrics"][summary["main_metric"]]["values"], summary["seeds"]
        best = max(zip(values, seeds, strict=True))[1]
    except (KeyError, TypeError, ValueError):
        raise ZhbertError(f"{folder / 'summary.json'}: not that of a fine-tuning run") from None
    if len(seeds) > 1:
        remark(f"{folder}: {counted(len(seeds), 'seed')}; taken is {best}, the best on dev")
    return locate(folder / f"seed-{best}" / "final", quiet=quiet)
