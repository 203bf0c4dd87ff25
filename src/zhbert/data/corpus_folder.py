"""A corpus folder during its preparation: its files, its beginning and its completion."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhbert.data import SPLITS
from zhbert.data.blocks import TextBlock
from zhbert.data.shards import FORMAT, VERSION, flush_shards
from zhbert.errors import ZhbertError
from zhbert.files import read_json, read_json_if_sound, remove, sweep, write_json
from zhbert.folders import Claim, locked
from zhbert.text.tokenizer import Tokenizer
from zhbert.wording import shortly

# Finished blocks that are compared with the input before it counts as another text.
_TRIED = 8


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
                if not self._overwrite:
                    raise self._of_other("settings", ", ".join(_changes(before, wanted)))
                self._clear()
        write_json(paths.settings, wanted)

    def _of_other(self, what: str, differs: str) -> ZhbertError:
        return ZhbertError(
            f"{self.paths.out}: an unfinished corpus of other {what} ({differs}): repeat the "
            "command that began it, or add --overwrite to begin anew"
        )

    def check_text(self, blocks: Iterator[TextBlock]) -> Iterator[TextBlock]:
        """Pass on the input's blocks, in order, unless finished ones are of another text.

        One of the first finished blocks must be the same: text that has grown, or was corrected in
        places, is gone on with.

        Raises:
            ZhbertError: the finished blocks would be lost.
        """
        paths = self.paths
        notes = paths.partial.glob("[0-9]*.json")
        if self._overwrite or not any(map(read_json_if_sound, notes)):
            yield from blocks
            return
        held: list[TextBlock] = []  # few, because those of a pipe hold their text
        tried = 0
        for block in blocks:
            held.append(block)
            if finished := read_json_if_sound(paths.result(block.number)):
                # What follows the text's fingerprint is that of its duplicate lines.
                if finished.get("fingerprint", "").partition("-")[0] == block.fingerprint():
                    yield from held
                    yield from blocks
                    return
                tried += 1
            if tried == _TRIED:
                break
        raise self._of_other("text", "none of its finished blocks looked at is in this input")

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


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Yield where two descriptions of settings differ, by the command's options.

    >>> before, now = {"held_out": 0.1, "scatter": True}, {"held_out": 0}
    >>> list(_changes({"options": before}, {"options": now}))
    ['--held-out was 0.1, now is 0', '--scatter was given, now is not given']
    """
    if any(before.get(name) != now.get(name) for name in ("format", "version")):
        yield "another version of zhbert began it"
    if before.get("tokenizer") != now.get("tokenizer"):
        yield "--vocab is another one"
    segmenters = before.get("segmenter", {}), now.get("segmenter", {})
    for name, called in (("name", "--segmenter"), ("version", "the segmenter's version")):
        yield from _change(called, *(one.get(name) for one in segmenters))
    for one, other in (
        [segmenter.get("options", {}) for segmenter in segmenters],
        [described.get("options", {}) for described in (before, now)],
    ):
        for name in dict.fromkeys([*one, *other]):
            yield from _change(f"--{name.replace('_', '-')}", one.get(name), other.get(name))


def _change(called: str, before: Any, now: Any) -> Iterator[str]:
    if before != now:
        yield f"{called} was {_in_words(before)}, now is {_in_words(now)}"


def _in_words(value: Any) -> str:
    """Return an option's value as the user knows it: a flag is given or not."""
    if value is None or isinstance(value, bool):
        return "given" if value else "not given"
    return shortly(value).strip('"')
