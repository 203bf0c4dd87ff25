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
    opened = Shard(shard)
    write_shard(target, opened.part(number, number + 1))
    rest = [opened.part(0, number), opened.part(number + 1, opened.documents)]
    return write_shard(shard, concatenate(rest))


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
            write_shard(held_out, _part(contents, cut, len(contents.pieces)))
            entry = write_shard(train, _part(contents, 0, cut))
            return entry, counted(aside, what), what == "sentence"
    return None


def _part(document: Documents, begin: int, end: int) -> Documents:
    """Return a document's pieces from ``begin`` to ``end``; lines and sentences are cut there."""

    def inside(starts: Array) -> Array:
        return np.append(0, starts[(starts > begin) & (starts < end)] - begin)

    return Documents(
        pieces=document.pieces[begin:end],
        word_starts=document.word_starts[begin:end],
        document_starts=np.array([0, end - begin]),
        sentence_starts=inside(document.sentence_starts),
        line_starts=inside(document.line_starts),
    )
