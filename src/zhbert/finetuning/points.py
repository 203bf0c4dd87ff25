"""The points of a grid, each with its settings and its folder."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import read_toml, write_text
from zhbert.finetuning.result import finished
from zhbert.schema import build, to_toml
from zhbert.tasks.settings import FineTuningSettings, differences


@dataclass(frozen=True)
class GridPoint:
    """One combination of settings, and the folder of the seeds trained with it."""

    folder: Path
    settings: FineTuningSettings
    varied: tuple[str, ...] = ()
    """The ``key=value`` texts that distinguish it from other points; empty for a single point."""

    def begin(self) -> None:
        """Write the settings."""
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "settings.toml", to_toml(self.settings))

    def check_same_settings(self) -> None:
        """Raise ZhbertError if the folder contains a run with other settings."""
        path = self.folder / "settings.toml"
        if not path.is_file():
            return
        try:
            table = read_toml(path)
        except ZhbertError as error:
            raise ZhbertError(f"{error}; --overwrite begins the run anew") from None
        former = build(FineTuningSettings, table, "", str(path))
        if changed := differences(self.settings, former):
            raise ZhbertError(
                f"{self.folder}: a run with other settings is there already "
                f"({'; '.join(changed)}); --overwrite replaces it, or choose another --out"
            )


def points_of(
    run: Path, overrides: Sequence[tuple[str, ...]], settings: Sequence[FineTuningSettings]
) -> list[GridPoint]:
    """Return the points of a run's grid; a single point uses the run folder itself.

    >>> overrides = [("epochs=2", "threads=1"), ("epochs=3", "threads=1")]
    >>> settings = FineTuningSettings()
    >>> points = points_of(Path("run"), overrides, [settings, settings])
    >>> [(point.folder.as_posix(), point.varied) for point in points]
    [('run/grid/epochs=2', ('epochs=2',)), ('run/grid/epochs=3', ('epochs=3',))]
    """
    if len(overrides) == 1:
        return [GridPoint(run, settings[0])]
    points = []
    for texts, values in zip(overrides, settings, strict=True):
        varied = tuple(text for text in texts if not all(text in other for other in overrides))
        # Sorted, so that the folder does not depend on the order of the keys.
        name = ",".join(sorted(varied)).replace("/", "_")
        points.append(GridPoint(run / "grid" / name, values, varied))
    return points


def seeds_of(points: Sequence[GridPoint], asked_for: int) -> list[int]:
    """Return the requested seeds and any others that are already finished at every point."""
    names = [path.name.removeprefix("seed-") for path in points[0].folder.glob("seed-[0-9]*")]
    more = [
        int(name)
        for name in names
        if name.isdecimal() and all(finished(point.folder / f"seed-{name}") for point in points)
    ]
    return sorted({*range(asked_for), *more})
