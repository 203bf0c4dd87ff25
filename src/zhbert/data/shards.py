"""The corpus folder: documents of pieces in Arrow files, mapped into memory, checksummed.

One row is one document. Positions count pieces, and pieces are stored without special tokens.
pyarrow, polars and ``datasets`` read the files as they are.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, sha256_of

FORMAT = "zhbert corpus"
VERSION = 1
SPLITS = ("train", "held_out")
# Held-out parts are merged up to this many pieces a shard.
MERGED_PIECES = 16_000_000

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Documents:
    """Some documents as flat arrays: the contents of one shard, in memory."""

    pieces: Array  # (pieces,) uint16 or uint32
    word_starts: Array  # (pieces,) bool
    document_starts: Array  # (documents + 1,) int64, into pieces
    sentence_starts: Array  # (sentences,) int64, into pieces; a document's start is one of them
    line_starts: Array  # (lines,) int64, likewise

    @property
    def documents(self) -> int:
        """How many documents there are."""
        return len(self.document_starts) - 1


def piece_type(vocabulary_size: int) -> type[np.uint16] | type[np.uint32]:
    """The type that pieces are stored in.

    >>> piece_type(21128).__name__, piece_type(65537).__name__
    ('uint16', 'uint32')
    """
    return np.uint16 if vocabulary_size <= 65_536 else np.uint32


def concatenate(parts: Iterable[Documents]) -> Documents:
    """Put documents one after another."""
    listed = list(parts)
    bases = np.cumsum([0] + [len(part.pieces) for part in listed])
    return Documents(
        pieces=np.concatenate([part.pieces for part in listed]),
        word_starts=np.concatenate([part.word_starts for part in listed]),
        document_starts=np.concatenate(
            [part.document_starts[:-1] + base for part, base in zip(listed, bases, strict=False)]
            + [bases[-1:]]
        ),
        sentence_starts=np.concatenate(
            [part.sentence_starts + base for part, base in zip(listed, bases, strict=False)]
        ),
        line_starts=np.concatenate(
            [part.line_starts + base for part, base in zip(listed, bases, strict=False)]
        ),
    )


def _lists(offsets: Array, values: pa.Array) -> pa.ListArray:
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)


def _within(starts: Array, documents: Array) -> pa.ListArray:
    """Positions in the shard -> for each document the positions within it."""
    offsets = np.searchsorted(starts, documents)
    base = np.repeat(documents[:-1], np.diff(offsets))
    return _lists(offsets, pa.array((starts - base).astype(np.uint32)))


class _HashingFile:
    """A file to write to that takes the checksum of what passes."""

    closed = False

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.digest = hashlib.sha256()
        self.size = 0

    def write(self, data: Any) -> int:
        self.digest.update(data)
        written = self._file.write(data)
        self.size += written
        return written

    def flush(self) -> None:
        self._file.flush()


def write_shard(path: Path, documents: Documents) -> dict[str, Any]:
    """Write one shard, atomically; return its entry for corpus.json.

    It is not flushed to disk (``flush_shards`` does that for all of them in the end): the next
    block need not wait, and its checksum tells if a power cut has spoilt it.
    """
    pieces = len(documents.pieces)
    bits = np.packbits(documents.word_starts, bitorder="little")
    starts = documents.document_starts
    batch = pa.record_batch(
        {
            "pieces": _lists(starts, pa.array(documents.pieces)),
            "word_starts": _lists(
                starts, pa.Array.from_buffers(pa.bool_(), pieces, [None, pa.py_buffer(bits)])
            ),
            "sentence_starts": _within(documents.sentence_starts, starts),
            "line_starts": _within(documents.line_starts, starts),
        }
    )
    with atomic_file(path, flush=False) as temporary, temporary.open("wb") as file:
        sink = _HashingFile(file)
        with pa.ipc.new_file(pa.PythonFile(sink, mode="w"), batch.schema) as writer:
            writer.write_batch(batch)
    return {
        "file": path.name,
        "documents": documents.documents,
        "sentences": len(documents.sentence_starts),
        "lines": len(documents.line_starts),
        "words": int(np.count_nonzero(documents.word_starts)),
        "pieces": pieces,
        "bytes": sink.size,
        "sha256": sink.digest.hexdigest(),
    }


def flush_shards(paths: Iterable[Path]) -> None:
    """Wait until files lie on the disk."""
    for path in paths:
        with path.open("rb+") as file:
            os.fsync(file.fileno())


class Shard:
    """One shard, mapped into memory: read-only views, nothing is copied.

    Attributes: ``pieces`` (pieces,) uint16 or uint32; ``word_start_bits`` uint8, piece i starts a
    word if bit ``i & 7`` of byte ``i >> 3`` is set; ``document_starts`` (documents + 1,) int64.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                if reader.num_record_batches != 1:
                    raise ZhbertError(f"{path}: not a shard: one record batch was expected")
                self._batch = reader.get_batch(0)
            self.pieces = _values(self._batch, "pieces")
            words = self._batch.column("word_starts").values
            self.word_start_bits = np.frombuffer(words.buffers()[1] or b"", np.uint8)
            offsets = _offsets(self._batch, "pieces")
            if len(words) != len(self.pieces):
                raise ZhbertError(f"{path}: damaged: as many words' marks as pieces were expected")
        except FileNotFoundError as error:
            raise ZhbertError(
                f"{path}: this shard of the corpus is missing; prepare again"
            ) from error
        except (pa.ArrowException, KeyError, OSError, AttributeError) as error:
            raise ZhbertError(f"{path}: not a readable shard; prepare the corpus again") from error
        self.document_starts: Array = offsets.astype(np.int64)

    def __repr__(self) -> str:
        return f"Shard({self.path.name}, {self.documents} documents, {len(self.pieces)} pieces)"

    @property
    def documents(self) -> int:
        """How many documents the shard holds."""
        return len(self.document_starts) - 1

    def sentence_starts(self) -> Array:
        """(sentences,) int64: where each sentence starts in ``pieces``; increasing."""
        return self._starts("sentence_starts")

    def line_starts(self) -> Array:
        """(lines,) int64: where each line of the input starts in ``pieces``; increasing."""
        return self._starts("line_starts")

    def word_starts(self) -> Array:
        """(pieces,) bool: ``word_start_bits`` unpacked."""
        bits = np.unpackbits(self.word_start_bits, count=len(self.pieces), bitorder="little")
        return bits.view(bool)

    def contents(self) -> Documents:
        """The shard's documents as flat arrays."""
        return Documents(
            self.pieces,
            self.word_starts(),
            self.document_starts,
            self.sentence_starts(),
            self.line_starts(),
        )

    def _starts(self, name: str) -> Array:
        counts = np.diff(_offsets(self._batch, name))
        starts: Array = _values(self._batch, name) + np.repeat(self.document_starts[:-1], counts)
        return starts


def _offsets(batch: pa.RecordBatch, name: str) -> Array:
    column = batch.column(name)
    return np.asarray(column.offsets)


def _values(batch: pa.RecordBatch, name: str) -> Array:
    values: Array = batch.column(name).values.to_numpy(zero_copy_only=True)
    return values


class Corpus:
    """A corpus folder, opened: ``info`` is its corpus.json."""

    def __init__(self, folder: Path, info: dict[str, Any]) -> None:
        self.folder = folder
        self.info = info
        self.vocabulary_size: int = info["vocabulary_size"]
        self.fingerprint: str = info["tokenizer"]["fingerprint"]

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """Open a corpus folder; every shard must be there in its full size.

        Raises ZhbertError where the folder, corpus.json or a shard is missing or cut short.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ZhbertError(f"{folder}: no such folder; 'zhbert prepare' makes a corpus")
        try:
            info = json.loads((folder / "corpus.json").read_text(encoding="utf-8"))
        except FileNotFoundError:
            hint = (
                "prepare has not finished here; run the same prepare command again"
                if (folder / ".partial").is_dir()
                else "not a corpus; 'zhbert prepare' makes one"
            )
            raise ZhbertError(f"{folder}: no corpus.json: {hint}") from None
        except ValueError as error:
            raise ZhbertError(f"{folder}/corpus.json: not readable as JSON: {error}") from error
        if not isinstance(info, dict) or info.get("format") != FORMAT:
            raise ZhbertError(f"{folder}/corpus.json: not the description of a zhbert corpus")
        if info.get("version") != VERSION:
            raise ZhbertError(
                f"{folder}: a corpus of format {info.get('version')}, this zhbert reads "
                f"{VERSION}: prepare it again"
            )
        corpus = cls(folder, info)
        for entry in corpus._entries():
            path = folder / entry["file"]
            if not path.is_file():
                raise ZhbertError(f"{path}: this shard of the corpus is missing; prepare again")
            size = path.stat().st_size
            if size != entry["bytes"]:
                raise ZhbertError(
                    f"{path}: {size:,} bytes where {entry['bytes']:,} were written: cut short or "
                    "altered; prepare again"
                )
        return corpus

    def _entries(self) -> Iterator[dict[str, Any]]:
        for split in SPLITS:
            yield from self.info["shards"][split]

    @cached_property
    def _shards(self) -> dict[str, list[Shard]]:
        return {
            split: [Shard(self.folder / entry["file"]) for entry in self.info["shards"][split]]
            for split in SPLITS
        }

    def shards(self, split: str) -> list[Shard]:
        """The shards of ``train`` or ``held_out``, in order; perhaps none of ``held_out``."""
        if split not in SPLITS:
            raise ZhbertError(f"no split '{split}' in a corpus; known: {', '.join(SPLITS)}")
        return self._shards[split]

    def verify(self) -> None:
        """Read every shard and compare its checksum; ZhbertError names the first that differs."""
        for entry in self._entries():
            path = self.folder / entry["file"]
            if sha256_of(path) != entry["sha256"]:
                raise ZhbertError(f"{path}: its checksum differs: altered; prepare again")


def merge_shards(
    parts: Iterable[Path], folder: Path, name: str, limit: int = MERGED_PIECES
) -> list[dict[str, Any]]:
    """Merge small shards into few: name-00000.arrow, ...; return their entries for corpus.json.

    Memory holds at most ``limit`` pieces and one part.
    """
    entries: list[dict[str, Any]] = []
    waiting: list[Documents] = []

    def flush() -> None:
        if waiting:
            path = folder / f"{name}-{len(entries):05d}.arrow"
            entries.append(write_shard(path, concatenate(waiting)))
            waiting.clear()

    for part in parts:
        contents = Shard(part).contents()
        if sum(len(documents.pieces) for documents in waiting) + len(contents.pieces) > limit:
            flush()
        waiting.append(contents)
    flush()
    return entries
