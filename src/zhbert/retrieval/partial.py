"""Vectors of a file's texts in a folder of their own until all are computed; a kill loses little.

The texts are encoded in groups that depend on the texts alone. Whoever goes on at the end of a
group computes the same groups as an uninterrupted run, and so the same vectors to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.files import parse_json, read_json, refused, remove, write_json
from zhbert.folders import Claim
from zhbert.retrieval.texts import Text
from zhbert.wording import listed

# A group ends when it has so many texts, or characters.
_TEXTS, _CHARACTERS = 4096, 1 << 16
# How often what is done is made safe, in seconds.
_EVERY = 5.0

Advance = Callable[[int], None]
"""Called with the number of texts that are done."""


class PartialVectors:
    """The vectors of a file's first texts, and these texts, in a folder.

    Args:
        folder: the folder, which the caller has locked.
        dimensions: D, the number of dimensions of a vector.
    """

    def __init__(self, folder: Path, dimensions: int) -> None:
        self.folder, self.dimensions = folder, dimensions
        self.count = 0
        """The number of texts that are done, and safe on the disk."""
        self.text_bytes = 0
        self.digest = hashlib.sha256().hexdigest()
        """A hash of the ids and texts that are done."""

    @property
    def _vectors(self) -> Path:
        return self.folder / "vectors.float32"

    @property
    def _texts(self) -> Path:
        return self.folder / "texts.jsonl"

    @property
    def _progress(self) -> Path:
        return self.folder / "progress.json"

    @property
    def _identity(self) -> Path:
        return self.folder / "identity.json"

    def begin(self, identity: Mapping[str, Any], *, overwrite: bool) -> None:
        """Make the folder ready: go on with vectors of the same ``identity``, or begin.

        ``identity`` is JSON data: everything but the texts on which the vectors depend.
        ``overwrite`` allows to begin anew where unfinished vectors of another one are.

        Raises:
            ZhbertError: such vectors are there, without ``overwrite``; or the folder is something
                else, or damaged.
        """
        is_ours = self._identity.name
        claim = Claim(
            folder=self.folder,
            what="unfinished vectors",
            is_ours=lambda folder: (folder / is_ours).is_file(),
            goes_on=True,
        )
        wanted = json.loads(json.dumps(identity))
        if claim.check():
            before = read_json(self._identity, dict)
            if before == wanted:
                self._read_progress()
                return
            if not overwrite:
                other = [key for key in wanted if before.get(key) != wanted[key]]
                raise ZhbertError(
                    f"{self.folder}: unfinished vectors, with another {listed(other)}: the command "
                    "that began them goes on with them, --overwrite begins anew"
                )
            for path in (self._progress, self._vectors, self._texts):
                path.unlink(missing_ok=True)
        write_json(self._identity, wanted)

    def _read_progress(self) -> None:
        if not self._progress.exists():
            return
        with refused(self._progress, hint="; --overwrite begins anew"):
            found = read_json(self._progress, dict)
            self.count, self.text_bytes = int(found["texts"]), int(found["text_bytes"])
            self.digest = str(found["digest"])
            there = self._vectors.stat().st_size, self._texts.stat().st_size
        if there[0] < self.count * self.dimensions * 4 or there[1] < self.text_bytes:
            raise ZhbertError(
                f"{self.folder}: damaged: it lacks vectors that were there; --overwrite begins anew"
            )

    def fill(
        self,
        texts: Iterable[Text],
        encode: Callable[[list[str]], NDArray[np.float32]],
        advance: Advance = lambda count: None,
    ) -> None:
        """Encode all texts that are not done yet.

        Args:
            texts: all texts of the file.
            encode: computes the vectors of a group, (texts, D).
            advance: called after each group.

        Raises:
            ZhbertError: the file's first texts are not those that are done; or writing fails.
        """
        texts, running = iter(texts), hashlib.sha256()
        self._skip_done(texts, running)
        advance(self.count)
        with (
            _opened_at(self._vectors, self.count * self.dimensions * 4) as vectors,
            _opened_at(self._texts, self.text_bytes) as lines,
        ):
            count, saved = self.count, time.monotonic()
            for group in _groups(texts):
                found = encode([text for _, text in group])
                written = b"".join(map(_line, group))
                running.update(written)
                _write(vectors, found.astype("<f4").tobytes())
                _write(lines, written)
                count += len(group)
                if time.monotonic() - saved > _EVERY:
                    self._save(count, running.hexdigest(), vectors, lines)
                    saved = time.monotonic()
                advance(count)
            self._save(count, running.hexdigest(), vectors, lines)

    def _skip_done(self, texts: Iterator[Text], running: Any) -> None:
        for _, text in zip(range(self.count), texts, strict=False):
            running.update(_line(text))
        if running.hexdigest() != self.digest:
            raise ZhbertError(
                f"{self.folder}: unfinished vectors of {self.count:,} other texts: the file has "
                "changed, or is another; --overwrite begins anew"
            )

    def _save(self, count: int, digest: str, *files: FileIO) -> None:
        for file in files:
            with refused(file.name, doing="writing"):
                os.fsync(file.fileno())
        self.count, self.digest, self.text_bytes = count, digest, files[1].tell()
        write_json(
            self._progress,
            {"texts": count, "text_bytes": self.text_bytes, "digest": self.digest},
        )

    def vectors(self) -> NDArray[np.float32]:
        """Return the vectors that are done, (texts, D), mapped into memory."""
        shape = self.count, self.dimensions
        if not self.count:
            return np.empty(shape, np.float32)
        return np.memmap(self._vectors, np.dtype("<f4"), "r", shape=shape)

    def texts(self) -> Iterator[Text]:
        """Yield the texts that are done."""
        with self._texts.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, start=1):
                if number > self.count:
                    return
                yield Text(*parse_json(line, self._texts, number))

    def remove(self) -> None:
        """Remove the folder."""
        remove(self.folder)


def _line(text: Text) -> bytes:
    return json.dumps(text).encode() + b"\n"


def _groups(texts: Iterable[Text]) -> Iterator[list[Text]]:
    group: list[Text] = []
    characters = 0
    for text in texts:
        group.append(text)
        characters += len(text.text)
        if len(group) == _TEXTS or characters >= _CHARACTERS:
            yield group
            group, characters = [], 0
    if group:
        yield group


def _opened_at(path: Path, size: int) -> FileIO:
    """Open a file for appending, cut to ``size`` bytes: what follows was not safe yet."""
    with refused(path, doing="writing"):
        file = FileIO(path, "ab")
        file.truncate(size)
        return file


def _write(file: FileIO, data: bytes) -> None:
    with refused(file.name, doing="writing"):
        while data:
            data = data[file.write(data) :]
