"""A corpus folder during its preparation: its files, its beginning and its completion."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhbert.data import SPLITS
from zhbert.data.shards import FORMAT, VERSION, flush_shards
from zhbert.errors import ZhbertError
from zhbert.files import read_json, remove, sweep, write_json
from zhbert.folders import Claim, locked
from zhbert.text.tokenizer import Tokenizer
from zhbert.wording import differences


@dataclass(frozen=True)
class CorpusPaths:
    """The paths of all files of a corpus folder, finished or not."""

    out: Path

    @property
    def description(self) -> Path:
        """corpus.json, which is written last: it exists only in a finished corpus."""
        return self.out / "corpus.json"

    @property
    def partial(self) -> Path:
        """The folder for unfinished work; a finished corpus does not have it."""
        return self.out / ".partial"

    @property
    def settings(self) -> Path:
        """The settings of the unfinished work."""
        return self.partial / "settings.json"

    def train(self, block: int) -> Path:
        """Return the path of the shard of a block's training documents."""
        return self.out / f"train-{block:05d}.arrow"

    def unscattered(self, block: int) -> Path:
        """Return the path of a block's training documents before all of them are scattered."""
        return self.partial / f"train-{block:05d}.arrow"

    def scattered(self, number: int) -> Path:
        """Return the path of the note that a shard of scattered documents is finished."""
        return self.partial / f"scattered-{number:05d}.json"

    def held_out(self, block: int) -> Path:
        """Return the path of a block's held-out documents; at the end, all of them are merged."""
        return self.partial / f"held_out-{block:05d}.arrow"

    def result(self, block: int) -> Path:
        """Return the path of a block's result, which is written after its shards."""
        return self.partial / f"{block:05d}.json"

    def line_hashes(self, block: int) -> Path:
        """Return the path of the hashes of a block's lines, used to find duplicates."""
        return self.partial / f"lines-{block:05d}.bin"

    def repeated(self, block: int) -> Path:
        """Return the path of the lines that occur earlier in the same block: uint32 numbers."""
        return self.partial / f"repeated-{block:05d}.bin"

    def duplicates(self, number: int) -> Path:
        """Return the path of the duplicates in some partitions of the lines' hashes."""
        return self.partial / f"duplicates-{number:05d}.bin"

    def shards(self) -> list[Path]:
        """List the existing shards."""
        return [path for split in SPLITS for path in self.out.glob(f"{split}-*.arrow")]


class CorpusFolder:
    """The folder that a preparation writes to.

    Args:
        paths: the paths of its files.
        overwrite: replace an existing corpus.
    """

    def __init__(self, paths: CorpusPaths, overwrite: bool) -> None:
        self.paths = paths
        self._overwrite = overwrite

    def check(self) -> None:
        """Raise an error for a folder that must not be written to, before any work is done."""
        if self._is_finished and self.paths.partial.is_dir():
            # A process was killed just before its last clean-up.
            with locked(self.paths.out):
                if self._is_finished:
                    remove(self.paths.partial)
        self._claim().check()

    @property
    def _is_finished(self) -> bool:
        return self.paths.description.exists()

    def _claim(self) -> Claim:
        finished = self._is_finished
        return Claim(
            folder=self.paths.out,
            what="a finished corpus" if finished else "a corpus",
            is_ours=lambda _: finished or self.paths.partial.is_dir(),
            overwrite=self._overwrite,
            goes_on=not finished,
        )

    def begin(self, described: Mapping[str, Any]) -> None:
        """Make the folder ready, in a process that has locked it.

        Args:
            described: everything that the corpus's content depends on, except the input.
                Unfinished work with the same settings is resumed.
        """
        paths = self.paths
        wanted = {"format": FORMAT, "version": VERSION, **described}
        # Another process may have written to the folder since the first check.
        self._claim().check()
        finished = self._is_finished
        paths.partial.mkdir(exist_ok=True)
        sweep(paths.partial)
        if finished:
            # corpus.json is removed first, so that the rest counts as an unfinished corpus.
            paths.description.unlink()
            self._clear()
        elif paths.settings.exists():
            before = read_json(paths.settings, dict)
            if before != wanted:
                what = ", ".join(differences(before, wanted))
                if not self._overwrite:
                    raise ZhbertError(
                        f"{paths.out}: an unfinished corpus of other settings ({what}): repeat the "
                        "command that began it, or add --overwrite to begin anew"
                    )
                self._clear()
        write_json(paths.settings, wanted)

    def _clear(self) -> None:
        for path in [*self.paths.shards(), *self.paths.partial.iterdir()]:
            path.unlink()

    def discard(self) -> None:
        """Remove the unfinished work, so that it is not resumed."""
        self._clear()
        remove(self.paths.partial)

    def finish(self, info: Mapping[str, Any], tokenizer: Tokenizer) -> None:
        """Write corpus.json, last of all, and remove the folder for unfinished work."""
        paths = self.paths
        listed = {entry["file"] for entries in info["shards"].values() for entry in entries}
        for path in paths.shards():
            if path.name not in listed:
                path.unlink()
        flush_shards(paths.out / name for name in sorted(listed))
        tokenizer.save_pretrained(paths.out)
        write_json(paths.description, info)
        remove(paths.partial)
        # Remove files that workers of a killed process have left in the meantime.
        sweep(paths.out)
