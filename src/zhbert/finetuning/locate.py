"""The folder of a fine-tuned model, found without opening it."""

from __future__ import annotations

import os
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.zoo import locate


def locate_fine_tuned(name: str | os.PathLike[str], *, quiet: bool = True) -> Path:
    """A model's folder, by anything that `zhbert.zoo.locate` understands, or by a run folder.

    Of a run of one seed it is that seed's model. Raises ZhbertError where nothing is found, or a
    run has several seeds.
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
