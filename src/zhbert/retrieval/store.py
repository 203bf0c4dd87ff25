"""Texts and their vectors in a folder that grows; a kill loses only the last few seconds.

The texts are encoded in groups that depend on the texts alone. Whoever goes on at the end of a
group computes the same groups as an uninterrupted run, and so the same vectors to the last bit.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from io import FileIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.files import parse_json, read_json, refused, write_json
from zhbert.folders import Claim
from zhbert.retrieval.texts import Text

# A group ends when it has so many texts, or characters: BERT-base needs some 20 seconds for it on
# one core. Larger groups are no faster.
_TEXTS, _CHARACTERS = 4096, 1 << 14
# How often what is done is made safe, in seconds.
_EVERY = 5.0

Encode = Callable[[list[str]], NDArray[np.float32]]
"""Computes the vectors of some texts, (texts, D)."""
Advance = Callable[[int], None]
"""Called with the number of texts that are done."""


class VectorStore:
    """A folder with the texts of a file, from the first on, and their vectors.

    Args:
        folder: the folder.
        dimensions: D, the number of dimensions of a vector.
        what: what messages call it: "an index".
        option: the option that names the folder, for messages.
        anew: how to begin anew, for messages.
    """

    def __init__(self, folder: Path, dimensions: int, *, what: str, option: str, anew: str) -> None:
        self.folder, self.dimensions = folder, dimensions
        self._what, self._option, self._anew = what, option, anew
        self.count = 0
        """The number of texts whose vectors are safe on the disk."""
        self._digest = hashlib.sha256().hexdigest()
        self._identity = folder / "identity.json"
        self._progress = folder / "progress.json"
        self._vectors = folder / "vectors.float32"
        self._texts = folder / "texts.jsonl"
        # Where each line of texts.jsonl ends, in bytes.
        self._ends = folder / "ends.int64"

    # -- opening -----------------------------------------------------------------------------

    def begin(self, identity: Mapping[str, Any], *, anew: bool = False) -> None:
        """Make the folder, which the caller has locked, ready to be filled.

        Args:
            identity: everything but the texts on which the vectors depend, as JSON data. If the
                folder has vectors of the same identity, they are kept.
            anew: remove all that is there.

        Raises:
            ZhbertError: there are vectors of another identity, the folder is damaged, or it is
                something else.
        """
        if self._claim().check() and not anew:
            self._open(identity)
            return
        for path in (self._progress, self._vectors, self._texts, self._ends):
            path.unlink(missing_ok=True)
        write_json(self._identity, identity)

    def open(self, identity: Mapping[str, Any]) -> None:
        """Open the folder to read it.

        Raises:
            ZhbertError: there is none, it has vectors of another identity, or it is damaged.
        """
        if not self._claim().check():
            raise ZhbertError(f"{self.folder}: no {self._what} there")
        self._open(identity)

    def _claim(self) -> Claim:
        mark = self._identity.name
        return Claim(
            folder=self.folder,
            what=self._what,
            is_ours=lambda folder: (folder / mark).is_file(),
            goes_on=True,
            option=self._option,
        )

    def _open(self, identity: Mapping[str, Any]) -> None:
        before, wanted = read_json(self._identity, dict), json.loads(json.dumps(identity))
        if before != wanted:
            # If the model is another one, much else is, too.
            other = next((key for key in wanted if before.get(key) != wanted[key]), "version")
            raise ZhbertError(
                f"{self.folder}: {self._what} made with another {other}; choose another "
                f"{self._option}, or {self._anew}"
            )
        if self._progress.exists():
            self.count, self._digest = self._read_progress()

    def _read_progress(self) -> tuple[int, str]:
        try:
            found = read_json(self._progress, dict)
            count, digest = int(found["texts"]), str(found["digest"])
            wanted = (
                (self._vectors, count * self.dimensions * 4),
                (self._ends, count * 8),
                (self._texts, int(found["text_bytes"])),
            )
            short = [path for path, size in wanted if path.stat().st_size < size]
        except (ZhbertError, KeyError, TypeError, ValueError, OSError):
            short = [self._progress]
        if short:
            raise ZhbertError(f"{short[0]}: damaged: less than was written; {self._anew}")
        return count, digest

    # -- filling -----------------------------------------------------------------------------

    def fill(
        self, texts: Iterable[Text], encode: Encode, advance: Advance = lambda count: None
    ) -> None:
        """Encode those of the texts that are not done yet.

        Args:
            texts: all texts of the file.
            encode: computes the vectors of a group.
            advance: called at the beginning and after each group.

        Raises:
            ZhbertError: the file's first texts are not those that are done; or writing fails.
        """
        texts, running = iter(texts), hashlib.sha256()
        # In this order zip does not take one text too many.
        for _, text in zip(range(self.count), texts, strict=False):
            running.update(_line(text))
        if running.hexdigest() != self._digest:
            raise ZhbertError(
                f"{self.folder}: {self._what} of other texts: the file has changed, or it is "
                f"another one; {self._anew}"
            )
        advance(self.count)
        with (
            _opened_at(self._vectors, self.count * self.dimensions * 4) as vectors,
            _opened_at(self._ends, self.count * 8) as ends,
            _opened_at(self._texts, self._end(self.count)) as lines,
        ):
            count, saved = self.count, time.monotonic()
            for group in _groups(texts):
                found = encode([text for _, text in group])
                written = [_line(text) for text in group]
                last = lines.tell() + np.cumsum([len(line) for line in written])
                _write(vectors, found.astype("<f4").tobytes())
                _write(ends, last.astype("<i8").tobytes())
                _write(lines, b"".join(written))
                running.update(b"".join(written))
                count += len(group)
                if time.monotonic() - saved >= _EVERY:
                    self._save(count, running.hexdigest(), (vectors, ends, lines))
                    saved = time.monotonic()
                advance(count)
            self._save(count, running.hexdigest(), (vectors, ends, lines))

    def _save(self, count: int, digest: str, files: Sequence[FileIO]) -> None:
        for file in files:
            with refused(file.name, doing="writing"):
                os.fsync(file.fileno())
        text_bytes = files[-1].tell()
        write_json(self._progress, {"texts": count, "text_bytes": text_bytes, "digest": digest})
        self.count, self._digest = count, digest

    # -- reading -----------------------------------------------------------------------------

    @property
    def vectors(self) -> NDArray[np.float32]:
        """The vectors, (texts, D), mapped into memory."""
        return self._mapped(self._vectors, "<f4").reshape(-1, self.dimensions)

    def text(self, number: int) -> Text:
        """Return one of the texts, counted from 0."""
        with refused(self._texts), self._texts.open("rb") as file:
            file.seek(self._end(number))
            return _parsed(file.readline(), self._texts, number)

    def texts(self) -> Iterator[Text]:
        """Yield the texts."""
        with refused(self._texts), self._texts.open("rb") as file:
            for number in range(self.count):
                yield _parsed(file.readline(), self._texts, number)

    def _end(self, count: int) -> int:
        """Return where the first ``count`` texts end in their file."""
        return int(self._mapped(self._ends, "<i8")[count - 1]) if count else 0

    def _mapped(self, path: Path, dtype: str) -> NDArray[Any]:
        width = self.dimensions if path == self._vectors else 1
        if not self.count:
            return np.empty(0, dtype)
        return np.memmap(path, dtype, "r", shape=(self.count * width,))


def _line(text: Text) -> bytes:
    return json.dumps(text).encode() + b"\n"


def _parsed(line: bytes, path: Path, number: int) -> Text:
    return Text(*parse_json(line.decode(), path, number + 1))


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
        file.seek(size)
        return file


def _write(file: FileIO, data: bytes) -> None:
    with refused(file.name, doing="writing"):
        while data:
            data = data[file.write(data) :]
