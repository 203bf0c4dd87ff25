"""The corpus folder: documents of pieces in memory-mapped Arrow files, with checksums.

One row of a file is one document. Positions count pieces; special tokens are not stored. pyarrow,
polars and ``datasets`` can read the files.

Damage to a corpus, by a disk, a copy or by hand, would not be noticed in training. So a shard's
structure is checked when it is opened, and its checksum before its pieces are first read: 20 ms for
the 36 MB of 16 million pieces, each time that a shard is opened (once per run, unless the corpus is
large: see ``row_windows``).
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, overload
from weakref import WeakValueDictionary

import numpy as np
import pyarrow as pa

from zhbert.data import SPLITS
from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, read_json, refused, sha256_of
from zhbert.text.tokenizer import Tokenizer

FORMAT = "zhbert corpus"
VERSION = 1
COLUMNS = {
    "pieces": (pa.uint16(), pa.uint32()),
    "word_starts": (pa.bool_(),),
    "sentence_starts": (pa.uint32(),),
    "line_starts": (pa.uint32(),),
}
"""The columns: each has a list for every document, with values of one of these types."""

COUNTS = ("documents", "sentences", "lines", "words", "pieces")
"""The counts of each shard in corpus.json."""

# The pieces' frequencies are counted in this many of the first training pieces.
COUNTED_PIECES = 20_000_000

# Held-out parts are merged into shards of at most this many pieces.
MERGED_PIECES = 16_000_000

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Documents:
    """Documents as flat arrays in memory: the contents of one shard."""

    pieces: Array  # (pieces,) uint16 or uint32
    word_starts: Array  # (pieces,) bool
    document_starts: Array  # (documents + 1,) int64, into pieces
    sentence_starts: Array  # (sentences,) int64, into pieces; a document's start is one of them
    line_starts: Array  # (lines,) int64, likewise

    @property
    def documents(self) -> int:
        """The number of documents."""
        return len(self.document_starts) - 1


def piece_type(vocabulary_size: int) -> type[np.uint16] | type[np.uint32]:
    """Return the type in which pieces are stored.

    >>> piece_type(21128).__name__, piece_type(65537).__name__
    ('uint16', 'uint32')
    """
    return np.uint16 if vocabulary_size <= 65_536 else np.uint32


def concatenate(parts: Iterable[Documents]) -> Documents:
    """Concatenate documents."""
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


def lists(offsets: Array, values: pa.Array) -> pa.ListArray:
    """Return lists that are parts of ``values``, without copying these."""
    return pa.ListArray.from_arrays(pa.array(offsets.astype(np.int32)), values)


def lists_within(starts: Array, documents: Array) -> pa.ListArray:
    """Convert positions in the shard to positions within each document."""
    offsets = np.searchsorted(starts, documents)
    base = np.repeat(documents[:-1], np.diff(offsets))
    return lists(offsets, pa.array((starts - base).astype(np.uint32)))


class _HashingFile:
    """A file to write to, with the checksum of the written data."""

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

    It is not flushed to disk, so that the next block is not delayed: at the end ``flush_shards``
    flushes all shards, and until then the checksum detects damage by a power cut.
    """
    pieces = len(documents.pieces)
    bits = np.packbits(documents.word_starts, bitorder="little")
    starts = documents.document_starts
    batch = pa.record_batch(
        {
            "pieces": lists(starts, pa.array(documents.pieces)),
            "word_starts": lists(
                starts, pa.Array.from_buffers(pa.bool_(), pieces, [None, pa.py_buffer(bits)])
            ),
            "sentence_starts": lists_within(documents.sentence_starts, starts),
            "line_starts": lists_within(documents.line_starts, starts),
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
    """Flush files to the disk."""
    for path in paths:
        with path.open("rb+") as file:
            os.fsync(file.fileno())


class Shard:
    """One memory-mapped shard: its arrays are read-only views without copies.

    Attributes:
        word_start_bits: uint8; piece i starts a word if bit ``i & 7`` of byte ``i >> 3`` is set.
        document_starts: (documents + 1,) int64: the first piece of each document, and the end.

    Args:
        path: the file.
        entry: its entry in corpus.json, to compare with; missing keys are not compared.
        vocabulary_size: all ids must be lower.

    Raises:
        ZhbertError: the file does not exist or is not a shard.
    """

    def __init__(
        self, path: Path, entry: Mapping[str, Any] | None = None, vocabulary_size: int = 1 << 32
    ) -> None:
        self.path = path
        self._entry: Mapping[str, Any] = entry or {}
        self._vocabulary_size = vocabulary_size
        self._verified = False
        if not path.is_file():
            raise ZhbertError(f"{path}: this shard of the corpus is missing; prepare again")
        with refused(path, "a shard of a corpus; prepare it again"):
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as reader:
                if reader.num_record_batches != 1:
                    raise ValueError("one record batch was expected")
                self._batch = reader.get_batch(0)
            self._batch.validate(full=True)
            self._check_columns()
            self._pieces = _values(self._batch, "pieces")
            words = self._batch.column("word_starts").values
            self.word_start_bits = np.frombuffer(words.buffers()[1] or b"", np.uint8)
            self.document_starts: Array = _offsets(self._batch, "pieces").astype(np.int64)
            if np.any(np.diff(self.document_starts) < 1):
                raise ValueError("a document without pieces")
            if not np.array_equal(_offsets(self._batch, "word_starts"), self.document_starts):
                raise ValueError("as many marks of words as pieces were expected")

    def _check_columns(self) -> None:
        """Check that every column has lists of its type, without nulls and unused values."""
        for name, kinds in COLUMNS.items():
            column = self._batch.column(name)
            if not pa.types.is_list(column.type) or column.type.value_type not in kinds:
                raise ValueError(f"{name}: {column.type}")
            if column.null_count or column.values.null_count or column.values.offset:
                raise ValueError(f"{name}: values are missing")
            offsets = _offsets(self._batch, name)
            if offsets[0] != 0 or offsets[-1] != len(column.values):
                raise ValueError(f"{name}: values that belong to no document")
        for name, column in (
            ("documents", self._batch),
            ("pieces", self._batch.column("pieces").values),
            ("sentences", self._batch.column("sentence_starts").values),
            ("lines", self._batch.column("line_starts").values),
        ):
            if len(column) != self._entry.get(name, len(column)):
                raise ValueError(f"{len(column):,} {name}, corpus.json says {self._entry[name]}")

    def __repr__(self) -> str:
        return f"Shard({self.path.name}, {self.documents} documents, {len(self._pieces)} pieces)"

    @property
    def documents(self) -> int:
        """The number of documents."""
        return len(self.document_starts) - 1

    @property
    def pieces(self) -> Array:
        """(pieces,) uint16 or uint32; the first access verifies the shard."""
        if not self._verified:
            self.verify()
        return self._pieces

    @property
    def batch(self) -> pa.RecordBatch:
        """The documents with the columns of `COLUMNS`; the first access verifies the shard."""
        self.verify()
        return self._batch

    def verify(self) -> None:
        """Compare the shard's checksum, if corpus.json has one, and check that the ids exist.

        Further calls do nothing.

        Raises:
            ZhbertError: the file was changed after it was written.
        """
        if self._verified:
            return
        known = self._entry.get("sha256")
        with refused(self.path):
            if known is not None and sha256_of(self.path) != known:
                raise ZhbertError(f"{self.path}: its checksum differs: altered; prepare again")
        highest = int(self._pieces.max(initial=0))
        if highest >= self._vocabulary_size:
            raise ZhbertError(
                f"{self.path}: holds piece {highest} of a vocabulary of {self._vocabulary_size:,}: "
                "altered; prepare again"
            )
        self._verified = True

    def sentence_starts(self) -> Array:
        """Return the start of each sentence in ``pieces``: (sentences,) int64, increasing."""
        return self._starts("sentence_starts")

    def line_starts(self) -> Array:
        """Return the start of each input line in ``pieces``: (lines,) int64, increasing."""
        return self._starts("line_starts")

    def word_starts(self) -> Array:
        """Unpack ``word_start_bits``: (pieces,) bool."""
        bits = np.unpackbits(self.word_start_bits, count=len(self.pieces), bitorder="little")
        return bits.view(bool)

    def contents(self) -> Documents:
        """Return the shard's documents as flat arrays."""
        return Documents(
            self.pieces,
            self.word_starts(),
            self.document_starts,
            self.sentence_starts(),
            self.line_starts(),
        )

    def part(self, first: int, last: int) -> Documents:
        """Copy the documents from ``first`` to ``last``; read no others, and verify nothing."""
        batch = self._batch.slice(first, last - first)
        columns = {name: batch.column(name).flatten() for name in COLUMNS}
        starts = self.document_starts[first : last + 1] - self.document_starts[first]

        def within(name: str) -> Array:
            counts = np.diff(_offsets(batch, name))
            places: Array = columns[name].to_numpy() + np.repeat(starts[:-1], counts)
            return places

        return Documents(
            columns["pieces"].to_numpy().copy(),
            columns["word_starts"].to_numpy(zero_copy_only=False),
            starts,
            within("sentence_starts"),
            within("line_starts"),
        )

    def _starts(self, name: str) -> Array:
        offsets = _offsets(self._batch, name)
        firsts = self.document_starts[:-1]
        starts: Array = _values(self._batch, name) + np.repeat(firsts, np.diff(offsets))
        inside = not len(starts) or starts[-1] < self.document_starts[-1]
        if (
            not inside
            or np.any(np.diff(offsets) < 1)
            or np.any(np.diff(starts) < 1)
            or not np.array_equal(starts[offsets[:-1]], firsts)
        ):
            raise ZhbertError(
                f"{self.path}: damaged: {name} do not increase from the start of every document; "
                "prepare again"
            )
        return starts


def _offsets(batch: pa.RecordBatch, name: str) -> Array:
    column = batch.column(name)
    return np.asarray(column.offsets)


def _values(batch: pa.RecordBatch, name: str) -> Array:
    values: Array = batch.column(name).values.to_numpy(zero_copy_only=True)
    return values


class Corpus:
    """An opened corpus folder; ``info`` is the content of its corpus.json."""

    def __init__(self, folder: Path, info: dict[str, Any]) -> None:
        self.folder = folder
        self.info = info
        self.vocabulary_size: int = info["vocabulary_size"]
        self.fingerprint: str = info["tokenizer"]["fingerprint"]

    @classmethod
    def open(cls, folder: str | Path) -> Corpus:
        """Open a corpus folder.

        Raises:
            ZhbertError: the folder, corpus.json or a shard is missing, or a shard's size differs
                from corpus.json.
        """
        folder = Path(folder)
        if not folder.is_dir():
            raise ZhbertError(f"{folder}: no such folder; 'zhbert prepare' makes a corpus")
        path = folder / "corpus.json"
        if not path.is_file():
            hint = (
                "prepare has not finished here; run the same prepare command again"
                if (folder / ".partial").is_dir()
                else "not a corpus; 'zhbert prepare' makes one"
            )
            raise ZhbertError(f"{folder}: no corpus.json: {hint}")
        info = read_json(path, dict, "the description of a zhbert corpus")
        if info.get("format") != FORMAT:
            raise ZhbertError(f"{path}: not the description of a zhbert corpus")
        if info.get("version") != VERSION:
            raise ZhbertError(
                f"{folder}: a corpus of format {info.get('version')}, this zhbert reads "
                f"{VERSION}: prepare it again"
            )
        for entry in _checked_entries(info, path):
            shard = folder / entry["file"]
            size = _size(shard)
            if size != entry["bytes"]:
                raise ZhbertError(
                    f"{shard}: {size:,} bytes where {entry['bytes']:,} were written: cut short or "
                    "altered; prepare again"
                )
        return cls(folder, info)

    def tokenizer(self) -> Tokenizer:
        """Return the tokenizer that made the corpus.

        Raises:
            ZhbertError: the folder's tokenizer has changed and no longer gives the same ids.
        """
        tokenizer = Tokenizer.from_pretrained(self.folder)
        found = tokenizer.fingerprint()
        if found != self.fingerprint or len(tokenizer) != self.vocabulary_size:
            raise ZhbertError(
                f"{self.folder}: its vocab.txt, tokenizer_config.json or tokenizer.json is not the "
                f"one that made the corpus ({len(tokenizer):,} pieces, hash {found[:12]}; "
                f"corpus.json says {self.vocabulary_size:,}, {self.fingerprint[:12]}): put the "
                "former one back, or prepare again"
            )
        return tokenizer

    @cached_property
    def _shards(self) -> dict[str, Shards]:
        entries = self.info["shards"]
        return {
            split: Shards(self.folder, entries[split], self.vocabulary_size) for split in SPLITS
        }

    @cached_property
    def piece_counts(self) -> Array:
        """(vocabulary,) int64: the count of each piece in the first 20 M training pieces."""
        counts = np.zeros(self.vocabulary_size, dtype=np.int64)
        left = COUNTED_PIECES
        for shard in self.shards("train"):
            pieces = shard.pieces[:left]
            counts += np.bincount(pieces, minlength=len(counts))
            left -= len(pieces)
            if left <= 0:
                break
        return counts

    def shards(self, split: str) -> Shards:
        """Return the shards of ``train`` or ``held_out`` in order; ``held_out`` may have none."""
        if split not in SPLITS:
            raise ZhbertError(f"no split '{split}' in a corpus; known: {', '.join(SPLITS)}")
        return self._shards[split]

    def verify(self) -> None:
        """Verify the tokenizer and all shards.

        Raises:
            ZhbertError: a file was altered; the error names the first one.
        """
        self.tokenizer()
        for split in SPLITS:
            for shard in self.shards(split):
                shard.verify()


class Shards(Sequence[Shard]):
    """The shards of a split, in order: each is opened when it is taken, and closed after its use.

    A shard that somebody holds is not opened again, so that its checksum is compared once.

    Args:
        folder: the corpus.
        entries: the shards' entries in corpus.json.
        vocabulary_size: all ids must be lower.
    """

    def __init__(
        self, folder: Path, entries: Sequence[Mapping[str, Any]], vocabulary_size: int
    ) -> None:
        self.entries = entries
        self._folder, self._vocabulary_size = folder, vocabulary_size
        self._opened: WeakValueDictionary[int, Shard] = WeakValueDictionary()

    @property
    def piece_bytes(self) -> int:
        """The number of bytes of all pieces."""
        pieces: int = sum(entry["pieces"] for entry in self.entries)
        return pieces * np.dtype(piece_type(self._vocabulary_size)).itemsize

    @property
    def opened(self) -> list[Shard]:
        """The shards that somebody holds."""
        return [shard for reference in self._opened.valuerefs() if (shard := reference())]

    def __len__(self) -> int:
        return len(self.entries)

    @overload
    def __getitem__(self, index: int) -> Shard: ...

    @overload
    def __getitem__(self, index: slice) -> list[Shard]: ...

    def __getitem__(self, index: int | slice) -> Shard | list[Shard]:
        if isinstance(index, slice):
            return [self[number] for number in range(len(self))[index]]
        index = range(len(self))[index]
        shard = self._opened.get(index)
        if shard is None:
            entry = self.entries[index]
            shard = Shard(self._folder / entry["file"], entry, self._vocabulary_size)
            self._opened[index] = shard
        return shard


def _size(shard: Path) -> int:
    """Return the size of a shard's file, which may be one of many thousands."""
    try:
        status = shard.stat()
    except FileNotFoundError:
        status = None
    if status is None or not stat.S_ISREG(status.st_mode):
        raise ZhbertError(f"{shard}: this shard of the corpus is missing; prepare again")
    return status.st_size


def _checked_entries(info: Mapping[str, Any], path: Path) -> list[dict[str, Any]]:
    """Return the entries of all shards.

    Raises:
        ZhbertError: corpus.json lacks a key that readers need.
    """
    try:
        entries = [entry for split in SPLITS for entry in info["shards"][split]]
        names = [entry["file"] for entry in entries]
        numbers = [entry[name] for entry in entries for name in (*COUNTS, "bytes")]
        fine = (
            isinstance(info["tokenizer"]["fingerprint"], str)
            and all(
                type(number) is int and 0 <= number < 1 << 48
                for number in (info["vocabulary_size"], *numbers)
            )
            and all(isinstance(name, str) and Path(name).name == name for name in names)
            and len(set(names)) == len(names)
        )
    except (KeyError, TypeError, AttributeError) as error:
        raise ZhbertError(f"{path}: damaged ({error} is missing); prepare again") from None
    if not fine:
        raise ZhbertError(f"{path}: damaged (a value that cannot be right); prepare again")
    return entries


def merge_shards(
    parts: Iterable[Path], folder: Path, name: str, limit: int = MERGED_PIECES
) -> list[dict[str, Any]]:
    """Merge small shards into a few large ones; return their entries for corpus.json.

    Args:
        parts: the shards to merge.
        folder: where to write name-00000.arrow, name-00001.arrow, ...
        name: the beginning of their names.
        limit: maximum number of pieces in a merged shard; these and one part are in memory.
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
