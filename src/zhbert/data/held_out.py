"""Choice of held-out text if the documents' hashes have chosen none.

``zhbert prepare`` holds out the documents whose hashes are among the lowest 1 % (say) of all
possible hashes, so that the choice depends only on a document's text. Of a hundred documents that
may be none. Then the document with the lowest hash is held out, the first that a larger share would
choose; if there is only one document, its end is held out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from zhbert.data.shards import Documents, Shard, concatenate, write_shard
from zhbert.wording import counted

Array = np.ndarray[Any, Any]
Entry = dict[str, Any]


def move_document(shard: Path, number: int, target: Path) -> Entry:
    """Move one of a shard's documents to a new shard; return the entry of the remaining shard."""
    contents = Shard(shard).contents()
    begin, end = contents.document_starts[number : number + 2].tolist()
    write_shard(target, part(contents, begin, end))
    rest = [part(contents, 0, begin), part(contents, end, len(contents.pieces))]
    return write_shard(shard, concatenate(piece for piece in rest if piece.documents))


def divide_document(
    shard: Path, share: float, train: Path, held_out: Path
) -> tuple[Entry, str, bool] | None:
    """Divide a shard's only document: hold out its last lines, or its only line's last sentences.

    Args:
        shard: the document's shard.
        share: how much of it to hold out; at least one line or sentence.
        train, held_out: the shards to write.

    Returns:
        the entry of the training shard, a phrase for the held-out part ("2 lines"), and True if a
        line was divided; None if the document is a single sentence.
    """
    contents = Shard(shard).contents()
    for what, starts in (("line", contents.line_starts), ("sentence", contents.sentence_starts)):
        if len(starts) > 1:
            aside = min(max(1, round(share * len(starts))), len(starts) - 1)
            cut = int(starts[-aside])
            write_shard(held_out, part(contents, cut, len(contents.pieces)))
            entry = write_shard(train, part(contents, 0, cut))
            return entry, counted(aside, what), what == "sentence"
    return None


def part(documents: Documents, begin: int, end: int) -> Documents:
    """Return the pieces from ``begin`` to ``end``; documents, lines and sentences are cut there."""

    def inside(starts: Array) -> Array:
        between = starts[(starts > begin) & (starts < end)] - begin
        return np.concatenate([np.zeros(min(1, end - begin), np.int64), between])

    return Documents(
        pieces=documents.pieces[begin:end],
        word_starts=documents.word_starts[begin:end],
        document_starts=np.append(inside(documents.document_starts), end - begin),
        sentence_starts=inside(documents.sentence_starts),
        line_starts=inside(documents.line_starts),
    )
