"""The points of a grid: each has settings and a folder of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import read_toml
from zhbert.finetuning.result import finished
from zhbert.schema import build
from zhbert.tasks.settings import FineTuningSettings, differences


@dataclass(frozen=True)
class GridPoint:
    """Settings, and the folder of all seeds that are trained with them."""

    folder: Path
    settings: FineTuningSettings
    varied: tuple[str, ...] = ()
    """The ``key=value`` texts that tell it from other points; none where it is the only one."""

    def check_same_settings(self) -> None:
        """Refuse to go on with a point that was begun with other settings."""
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
    """The points of the grid of a run folder; a single point is the run itself.

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
        # The same folder whatever the order in which the keys were given.
        name = ",".join(sorted(varied)).replace("/", "_")
        points.append(GridPoint(run / "grid" / name, values, varied))
    return points


def seeds_of(points: Sequence[GridPoint], asked_for: int) -> list[int]:
    """The seeds asked for, and further ones that earlier commands have finished at every point."""
    names = [path.name.removeprefix("seed-") for path in points[0].folder.glob("seed-[0-9]*")]
    more = [
        int(name)
        for name in names
        if name.isdecimal() and all(finished(point.folder / f"seed-{name}") for point in points)
    ]
    return sorted({*range(asked_for), *more})
