"""A teacher's best pieces for the rows of pretraining, on disk: computed once, for all runs.

A row's masks are a function of (seed, epoch, row), so its number in the loader's endless stream
stands for what the teacher sees. The folder has identity.json, which says whose outputs these are
and of which rows, and a folder for each maximum length of rows, with blocks of consecutive rows. A
block is a file that is written at once, with a checksum, and never changed:

- the number of rows and of predicted pieces, uint32 each;
- the number of predicted pieces of each row, uint16;
- for each predicted piece, the ids of the teacher's k best pieces, best first, and by how much the
  logits of the others are below the best one's, in half precision. Nothing else of the logits
  matters, since both distributions are renormalised over these pieces. With k = 10 and a vocabulary
  of up to 65,536 pieces that is 38 bytes;
- the SHA-256 of all that, in 32 bytes.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import KW_ONLY, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from zhbert.data.loader import GrowingRows, MaskedBatch, PretrainingLoader
from zhbert.data.shards import piece_type
from zhbert.errors import ZhbertError
from zhbert.files import atomic_file, make_folder, read_json, refused, write_json
from zhbert.folders import Claim
from zhbert.model.distilled_loss import BestPieces
from zhbert.train.distributed import Ranks
from zhbert.wording import differences

VERSION = 1
_WHAT = "a cache of soft labels"
_AGAIN = "delete this file, and the next run makes it again"

# Pieces in the rows of a block. What a kill can lose: seconds of a small teacher's work on a CPU,
# about two minutes of BERT-base's.
_PIECES = 1 << 18
# Rows whose numbers are looked at at once.
_CHUNK = 1 << 20
_CHECKSUM = hashlib.sha256().digest_size
_HEAD = 8

Teach = Callable[[MaskedBatch], BestPieces]
"""Computes the teacher's best pieces at a batch's predicted positions, on any device."""
Advance = Callable[[int, int], None]
"""Called with the number of rows that are done, and of all that were missing."""


@dataclass(frozen=True)
class TaughtBatch(MaskedBatch):
    """Masked rows with the teacher's soft labels."""

    _: KW_ONLY
    best: BestPieces
    """the teacher's best pieces at the predicted positions; on the CPU, as all tensors"""


class SoftLabelCache:
    """A teacher's best pieces for the rows that runs have read; a folder that grows.

    Args:
        folder: the folder.
        top_k: k, the number of pieces.
        vocabulary_size: all ids are lower.
    """

    def __init__(self, folder: Path, top_k: int, vocabulary_size: int) -> None:
        self.folder = folder
        self._record = type_of_records(top_k, vocabulary_size)
        self._parts: dict[int, _Part] = {}

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Make the folder, which the caller has locked, ready to be filled.

        Args:
            identity: everything that the labels depend on besides the length and the numbers of
                the rows, as JSON data.

        Raises:
            ZhbertError: the folder has labels of another teacher, other rows or other masks, or is
                something else.
        """
        path = self.folder / "identity.json"
        claim = Claim(
            folder=self.folder,
            what=_WHAT,
            is_ours=lambda folder: (folder / path.name).is_file(),
            goes_on=True,
            option="distill.cache",
        )
        wanted = json.loads(json.dumps({"version": VERSION, **identity}))
        if not claim.check():
            make_folder(self.folder)
            write_json(path, wanted)
        elif other := list(differences(read_json(path, dict, _WHAT), wanted)):
            raise ZhbertError(
                f"{self.folder}: the soft labels of another run: {', '.join(other)}; choose another"
                " distill.cache"
            )

    # -- filling -----------------------------------------------------------------------------

    def fill(
        self,
        rows: GrowingRows,
        steps: range,
        teach: Teach,
        ranks: Ranks,
        advance: Advance = lambda done, total: None,
    ) -> None:
        """Compute the labels that are missing for some steps; the processes share the blocks.

        Args:
            rows: the rows of a run.
            steps: the steps that it will make, counted as by ``rows``.
            teach: the teacher.
            ranks: the processes; all of them call this.
            advance: called at the beginning and after every round of blocks.

        Raises:
            ZhbertError: writing fails, here or in another process, or the teacher's logits are not
                finite.
        """
        missing = list(self._missing(rows, steps))
        total = sum(work.end - work.begin for work in missing)
        # An exchange, so that no process writes a block while another one still looks for it.
        if ranks.sum([total])[0] != total * ranks.world_size:
            raise ZhbertError(f"{self.folder}: not the same for all processes: share one folder")
        done = 0
        advance(done, total)
        for first in range(0, len(missing), ranks.world_size):
            error: ZhbertError | None = None
            for work in missing[first + ranks.rank :][:1]:
                try:
                    work.part.write(work, teach)
                except ZhbertError as failure:
                    error = failure
            # Without this the others would wait in vain in their next exchange.
            if ranks.sum([float(error is not None)])[0]:
                raise error or ZhbertError(f"{self.folder}: another process could not fill it")
            done += sum(one.end - one.begin for one in missing[first : first + ranks.world_size])
            advance(done, total)

    def missing(self, rows: GrowingRows, steps: range) -> int:
        """Return how many rows `fill` would compute."""
        return sum(work.end - work.begin for work in self._missing(rows, steps))

    def _missing(self, rows: GrowingRows, steps: range) -> Iterator[_Work]:
        for loader, begin, end in rows.stretches(steps.start, steps.stop):
            part = self._part(loader)
            yield from part.missing(loader, begin * loader.batch_size, end * loader.batch_size)

    def _part(self, loader: PretrainingLoader) -> _Part:
        length = loader.sequence_length
        if length not in self._parts:
            self._parts[length] = _Part(self.folder / f"rows-of-{length}", length, self._record)
        return self._parts[length]

    # -- reading -----------------------------------------------------------------------------

    def labelled(self, rows: GrowingRows, start_step: int = 0) -> Iterator[list[TaughtBatch]]:
        """Yield this process's micro-batches of each step, as ``rows.steps``, with their labels.

        Raises:
            ZhbertError: a block is missing, damaged, or of other masks.
        """
        for step, batches in enumerate(rows.steps(start_step), start_step):
            loader = rows.loader_at(step)
            part = self._part(loader)
            yield [part.labelled(batch, loader, step) for batch in batches]


@dataclass(frozen=True)
class _Work:
    """Consecutive rows of a block that are to be computed."""

    part: _Part
    loader: PretrainingLoader
    begin: int
    end: int


class _Part:
    """The labels of rows of one maximum length."""

    def __init__(self, folder: Path, sequence_length: int, record: np.dtype[Any]) -> None:
        self._folder, self._record = folder, record
        self._rows = max(1, _PIECES // sequence_length)
        self._blocks: dict[int, _Block] = {}

    def _path(self, block: int) -> Path:
        return self._folder / f"{block:06d}.labels"

    # -- filling

    def missing(self, loader: PretrainingLoader, begin: int, end: int) -> Iterator[_Work]:
        """Yield the blocks that the rows ``begin`` to ``end`` of the stream need and that lack."""
        ends: dict[int, int] = {}
        for start in range(begin, end, _CHUNK):
            firsts = np.unique(loader.firsts(start, min(start + _CHUNK, end)))
            blocks, counts = np.unique(firsts // self._rows, return_counts=True)
            highest = firsts[np.cumsum(counts) - 1] + 1
            for block, stop in zip(blocks.tolist(), highest.tolist(), strict=True):
                ends[block] = max(stop, ends.get(block, 0))
        for block, stop in ends.items():
            if _rows_in(self._path(block)) < stop - block * self._rows:
                yield _Work(self, loader, block * self._rows, stop)

    def write(self, work: _Work, teach: Teach) -> None:
        """Compute a block and write its file."""
        counts: list[NDArray[Any]] = []
        records: list[NDArray[Any]] = []
        for batch in work.loader.rows(work.begin, work.end):
            counts.append(_predictions(batch))
            records.append(to_records(teach(batch), self._record))
        rows, pieces = np.concatenate(counts), np.concatenate(records)
        content = b"".join(
            [
                np.array([len(rows), len(pieces)], "<u4").tobytes(),
                rows.astype("<u2").tobytes(),
                pieces.tobytes(),
            ]
        )
        make_folder(self._folder)
        with atomic_file(self._path(work.begin // self._rows)) as temporary:
            temporary.write_bytes(content + hashlib.sha256(content).digest())

    # -- reading

    def labelled(self, batch: MaskedBatch, loader: PretrainingLoader, step: int) -> TaughtBatch:
        """Return a batch of a step with the labels of its rows."""
        begin = step * loader.batch_size + batch.first_row
        firsts = loader.firsts(begin, begin + batch.packed.num_rows)
        rows = [self._row(number) for number in firsts.tolist()]
        if [len(row) for row in rows] != _predictions(batch).tolist():
            # The identity says that the masks are the same: they were made by another zhbert.
            raise ZhbertError(
                f"{self._folder}: its rows have other masks than the run's; choose another "
                "distill.cache"
            )
        own = {one.name: getattr(batch, one.name) for one in fields(MaskedBatch)}
        return TaughtBatch(**own, best=read_records(np.concatenate(rows)))

    def _row(self, number: int) -> NDArray[Any]:
        block, row = divmod(number, self._rows)
        if block not in self._blocks:
            self._blocks[block] = _Block(self._path(block), self._record)
        return self._blocks[block].row(row)


class _Block:
    """One memory-mapped block, whose checksum is compared when it is opened."""

    def __init__(self, path: Path, record: np.dtype[Any]) -> None:
        self._path, self._type = path, record
        with refused(path, "a block of soft labels", hint=f"; {_AGAIN}"):
            self._bytes = np.memmap(path, np.uint8, "r")
        content, checksum = self._bytes[:-_CHECKSUM], self._bytes[-_CHECKSUM:].tobytes()
        if hashlib.sha256(content.data).digest() != checksum:
            raise ZhbertError(f"{path}: damaged: its checksum differs; {_AGAIN}")

    @cached_property
    def _starts(self) -> NDArray[np.int64]:
        rows = int(self._bytes[:4].view("<u4")[0])
        counts = self._bytes[_HEAD : _HEAD + 2 * rows].view("<u2")
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])

    @cached_property
    def _records(self) -> NDArray[Any]:
        begin = _HEAD + 2 * (len(self._starts) - 1)
        end = begin + int(self._starts[-1]) * self._type.itemsize
        return self._bytes[begin:end].view(self._type)

    def row(self, number: int) -> NDArray[Any]:
        """Return the records of one of its rows."""
        if number >= len(self._starts) - 1:
            raise ZhbertError(f"{self._path}: fewer rows than the run needs; {_AGAIN}")
        begin, end = self._starts[number : number + 2].tolist()
        return self._records[begin:end]


def _rows_in(path: Path) -> int:
    """Return how many rows a block has; 0 if there is none."""
    if not path.exists():
        return 0
    with refused(path, "a block of soft labels", hint=f"; {_AGAIN}"), path.open("rb") as file:
        return int(np.frombuffer(file.read(_HEAD), "<u4", 2)[0])


def type_of_records(top_k: int, vocabulary_size: int) -> np.dtype[Any]:
    """Return the type of what is kept for a predicted piece.

    >>> type_of_records(10, 21128).itemsize
    38
    """
    ids = np.dtype(piece_type(vocabulary_size)).newbyteorder("<")
    return np.dtype([("pieces", ids, (top_k,)), ("below", "<f2", (top_k - 1,))])


def to_records(best: BestPieces, record: np.dtype[Any]) -> NDArray[Any]:
    """Return the records (P,) of the best pieces at P positions.

    Raises:
        ZhbertError: the teacher's logits are not finite.
    """
    logits = best.logits.float().cpu().numpy()
    if not np.isfinite(logits).all():
        raise ZhbertError(
            "the teacher's scores are not finite numbers (NaN or infinity): its weights are damaged"
            " or too large for this precision"
        )
    records = np.empty(len(logits), record)
    records["pieces"] = best.pieces.cpu().numpy()
    below = logits[:, :1] - logits[:, 1:]
    records["below"] = np.minimum(below, np.finfo(np.float16).max)
    return records


def read_records(records: NDArray[Any]) -> BestPieces:
    """Return the best pieces, on the CPU; the logit of the best one is 0."""
    pieces = records["pieces"].astype(np.int64)
    logits = np.zeros(pieces.shape, np.float32)
    logits[:, 1:] -= records["below"]
    return BestPieces(torch.from_numpy(pieces), torch.from_numpy(logits))


def _predictions(batch: MaskedBatch) -> NDArray[np.int64]:
    """Return each row's number of predicted pieces."""
    edges = np.searchsorted(batch.predicted_positions.numpy(), batch.packed.cu_seqlens.numpy())
    return np.diff(edges)
