"""Locating the folder of a fine-tuned model without opening the model."""

from __future__ import annotations

import os
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import read_json
from zhbert.zoo import locate


def locate_fine_tuned(name: str | os.PathLike[str], *, quiet: bool = True) -> Path:
    """Return the folder of a model, given as anything `zhbert.zoo.locate` accepts or a run folder.

    A run folder with one seed stands for that seed's model. Raises ZhbertError if nothing is found
    or the run has several seeds.
    """
    folder = Path(name)
    if (folder / "config.json").is_file() or not (folder / "summary.json").is_file():
        return locate(os.fspath(name), quiet=quiet)
    finals = sorted(folder.glob("seed-*/final"))
    if len(finals) != 1:
        raise ZhbertError(
            f"{folder}: a run of {len(finals)} seeds; name one of its models, for example "
            f"{folder / 'seed-0' / 'final'}"
        )
    return locate(finals[0], quiet=quiet)


def locate_teacher(name: str | os.PathLike[str], *, quiet: bool = True) -> Path:
    """Return the folder of a model, given as `locate_fine_tuned` takes it.

    A run folder with several seeds stands for the model of the one that is best on dev.
    """
    folder = Path(name)
    if (folder / "config.json").is_file() or not (folder / "summary.json").is_file():
        return locate(os.fspath(name), quiet=quiet)
    summary = read_json(folder / "summary.json", dict)
    try:
        values = summary["metrics"][summary["main_metric"]]["values"]
        best = max(zip(values, summary["seeds"], strict=True))[1]
    except (KeyError, TypeError, ValueError):
        raise ZhbertError(f"{folder / 'summary.json'}: not that of a fine-tuning run") from None
    return locate(folder / f"seed-{best}" / "final", quiet=quiet)
