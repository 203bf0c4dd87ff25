"""Documents scattered over the shards by a hash of their pieces (``--scatter``).

A block's documents have one source, and so have the neighbours in its shard. To scatter them, each
block's documents are first written in the order of their hashes. A shard then takes an equal range
of hashes from many blocks, spread evenly over the input: it looks up where the range begins and
ends in each of them, and reads nothing else. So memory is bounded by the size of a shard, and the
result depends on the blocks alone.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from zhbert.data.corpus_folder import CorpusPaths
from zhbert.data.shards import Documents, Shard, concatenate, write_shard
from zhbert.text.sentences import hash_spans

Array = np.ndarray[Any, Any]

# A shard takes documents from at most this many blocks: 100 KB or so from each.
MOST_BLOCKS = 128


@dataclass(frozen=True)
class ScatteredShard:
    """A shard to be put together from a range of the documents' hashes in some blocks."""

    number: int
    blocks: tuple[int, ...]
    """as many as there are shards of these documents"""
    part: int
    """which of the equal ranges of hashes it takes"""
    fingerprint: str
    """a hash of all that it is made from"""


def scattered_shards(
    train: Mapping[int, Mapping[str, Any]], most_blocks: int = MOST_BLOCKS
) -> Iterator[ScatteredShard]:
    """Yield the shards to make from those of blocks; ``train`` has the latters' entries.

    >>> [s.blocks for s in scattered_shards({n: {"sha256": ""} for n in range(5)}, 3)]
    [(0, 2, 4), (0, 2, 4), (0, 2, 4), (1, 3), (1, 3)]
    """
    blocks = sorted(train)
    groups = -(-len(blocks) // most_blocks)
    for group in (tuple(blocks[first::groups]) for first in range(groups)):
        made_from = " ".join(train[block]["sha256"] for block in group)
        for part, number in enumerate(group):
            digest = hashlib.sha256(f"{part} {made_from}".encode()).hexdigest()
            yield ScatteredShard(number, group, part, digest)


def hash_order(documents: Documents) -> Array:
    """Return the order of documents by the hashes of their pieces: (documents,) int64."""
    return np.argsort(_hashes(documents), kind="stable")


def write_scattered(paths: CorpusPaths, wanted: ScatteredShard) -> dict[str, Any] | None:
    """Write a shard; return its entry for corpus.json, None (and no file) if it has no document."""
    bounds = [(wanted.part + k) * 2**64 // len(wanted.blocks) for k in range(2)]
    found = []
    for block in wanted.blocks:
        shard = Shard(paths.unscattered(block))
        first, last = (_first_from(shard, bound) for bound in bounds)
        if first < last:
            found.append(shard.part(first, last))
    path = paths.train(wanted.number)
    if not found:
        path.unlink(missing_ok=True)
        return None
    documents = concatenate(found)
    return write_shard(path, in_order(documents, hash_order(documents)))


def _hashes(documents: Documents) -> Array:
    starts = documents.document_starts
    return hash_spans(documents.pieces.astype(np.uint32), starts[:-1], starts[1:])


def _first_from(shard: Shard, bound: int) -> int:
    """Return the first document of a shard in hash order whose hash is ``bound`` or more."""

    def hash_of(document: int) -> int:
        return int(_hashes(shard.part(document, document + 1))[0])

    return bisect_left(range(shard.documents), bound, key=hash_of)


def in_order(documents: Documents, order: Array) -> Documents:
    """Return the documents in another order."""
    begins, ends = documents.document_starts[:-1][order], documents.document_starts[1:][order]
    starts = np.append(0, np.cumsum(ends - begins))

    def moved(values: Array, first: Array, last: Array) -> Array:
        pairs = zip(first.tolist(), last.tolist(), strict=True)
        return np.concatenate([values[a:b] for a, b in pairs])

    def moved_starts(values: Array) -> Array:
        first, last = np.searchsorted(values, begins), np.searchsorted(values, ends)
        shifts: Array = np.repeat(starts[:-1] - begins, last - first)
        return moved(values, first, last) + shifts

    return Documents(
        moved(documents.pieces, begins, ends),
        moved(documents.word_starts, begins, ends),
        starts,
        moved_starts(documents.sentence_starts),
        moved_starts(documents.line_starts),
    )
