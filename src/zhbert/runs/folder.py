"""Run folders: checked before the work, locked during it, with a record of their origin.

Pretraining and fine-tuning write the same kind of folder. A settings file (``recipe.toml``,
``task.toml``) contains the settings of the run and marks the folder as a run; provenance.json
records inputs, software and hardware at the start and at each resumption.
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
    """A run folder, and how an existing run in it is to be treated."""

    path: Path
    what: str
    """A description of this kind of folder for errors, such as "a run folder"."""
    settings_file: str
    """The name of the file with the run's settings."""
    overwrite: bool = False
    """Replace an existing run."""
    goes_on: bool = False
    """Resume an existing run."""
    ways: str = ""
    """Other options for the user, for the error about an existing run."""
    needed: Mapping[str, Path] = field(default_factory=dict)
    """The run's inputs, by name; they must not be in a folder that is replaced."""

    @property
    def continued(self) -> bool:
        """True if the folder contains a run that will be resumed."""
        return self.goes_on and not self.overwrite and (self.path / self.settings_file).is_file()

    def check(self) -> bool:
        """Return True if the folder contains a run; raise ZhbertError if it must not be written."""
        return self._claim().check()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Lock the folder, creating it if needed; raise ZhbertError if another process holds it."""
        with self._claim().held():
            yield

    def begin(self, settings: str, origin: Mapping[str, Any], *latest: str) -> None:
        """Write settings and provenance; remove a run that is to be replaced first.

        Args:
            settings: the text of the settings file.
            origin: the provenance; for a resumed run it is appended to the key "resumed".
            latest: the keys of ``origin`` that are also updated at the top level when resuming.
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
        # provenance.json is written first: it is alone if the disk was full right after it.
        names = {path.name for path in folder.iterdir()}
        return (folder / self.settings_file).is_file() or names == {FILE}


def changed_settings(now: Any, before: Any) -> dict[str, tuple[Any, Any]]:
    """Return the keys whose values differ between two settings objects: key -> (now, before).

    >>> from zhbert.config import Recipe
    >>> changed_settings(Recipe(steps=3), Recipe(steps=2))
    {'steps': (3, 2)}
    """
    mine, former = flatten(now), flatten(before)
    # A section may be in one of them alone.
    return {
        key: (mine.get(key), former.get(key))
        for key in dict.fromkeys((*mine, *former))
        if mine.get(key) != former.get(key)
    }
