"""A run's folder: claimed before the work, held during it, and with a record of its beginning.

Pretraining and fine-tuning write the same kind of folder. A settings file (``recipe.toml``,
``task.toml``) says what the run computes, and a folder is known as a run by it; provenance.json
says what it was made from and with, at its beginning and at each resumption.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from zhbert.files import write_json, write_text
from zhbert.folders import Claim, empty_folder
from zhbert.runs.provenance import FILE, read_provenance
from zhbert.schema import flatten


@dataclass(frozen=True, kw_only=True)
class RunFolder:
    """One run's folder, and what the caller wants with it."""

    path: Path
    what: str
    """This kind of folder in words, as in "a run folder"."""
    settings_file: str
    """The name of the file with the run's settings."""
    overwrite: bool = False
    """A run that stands there is replaced."""
    goes_on: bool = False
    """A run that stands there is gone on with."""
    ways: str = ""
    """For the error about a run that stands there: what else the user can do."""
    needed: Mapping[str, Path] = field(default_factory=dict)
    """What the run is made from, by name: it must not lie in a folder that is replaced."""

    @property
    def continued(self) -> bool:
        """Whether a run is there that is gone on with."""
        return self.goes_on and not self.overwrite and (self.path / self.settings_file).is_file()

    def check(self) -> bool:
        """Whether anything of a run stands there; ZhbertError where it may not be written."""
        return self._claim().check()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Hold the folder, making it if need be; ZhbertError where another process holds it."""
        with self._claim().held():
            yield

    def begin(self, settings: str, origin: Mapping[str, Any], *latest: str) -> None:
        """Write settings and provenance; of a run that is replaced, remove everything first.

        Args:
            settings: the text of the settings file.
            origin: how the run begins, or is resumed now: appended to "resumed" in the latter case.
            latest: the keys of ``origin`` whose newest value counts for the whole run.
        """
        if self.continued:
            former = read_provenance(self.path)
            changed = {key: origin[key] for key in latest}
            origin = {**former, **changed, "resumed": [*former.get("resumed", []), origin]}
        elif self.overwrite:
            empty_folder(self.path, last=self.settings_file)
        write_json(self.path / FILE, origin)
        write_text(self.path / self.settings_file, settings)

    def _claim(self) -> Claim:
        return Claim(
            folder=self.path,
            what=self.what,
            is_ours=self._is_ours,
            overwrite=self.overwrite,
            goes_on=self.goes_on,
            ways=self.ways,
            needed=self.needed,
        )

    def _is_ours(self, folder: Path) -> bool:
        # provenance.json alone is what is left where the disk was full at once.
        names = {path.name for path in folder.iterdir()}
        return (folder / self.settings_file).is_file() or names == {FILE}


def changed_settings(now: Any, before: Any) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ between two settings objects: dotted key -> (now, before).

    >>> from zhbert.config import Recipe
    >>> changed_settings(Recipe(steps=3), Recipe(steps=2))
    {'steps': (3, 2)}
    """
    former = flatten(before)
    return {
        key: (value, former[key]) for key, value in flatten(now).items() if value != former[key]
    }
