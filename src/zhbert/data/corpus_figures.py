"""Figures of a corpus folder, and a few of its documents in readable form."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from zhbert.data import SPLITS
from zhbert.data.shards import Corpus, Shard

# Maximum number of pieces in which the used ones are counted: takes a second.
_COUNTED = 100_000_000
_SENTENCES_SHOWN = 8


def describe_corpus(corpus: Corpus) -> dict[str, Any]:
    """Return the content of corpus.json, and how many pieces of the vocabulary occur.

    Returns:
        corpus.json without its shards, and ``pieces_in_use`` among the first ``pieces_counted``.
    """
    counts = np.zeros(corpus.vocabulary_size, np.int64)
    counted = 0
    for split in SPLITS:
        for shard in corpus.shards(split):
            if counted >= _COUNTED:
                break
            counts += np.bincount(shard.pieces, minlength=corpus.vocabulary_size)
            counted += len(shard.pieces)
    info = {key: value for key, value in corpus.info.items() if key != "shards"}
    return info | {"pieces_in_use": int(np.count_nonzero(counts)), "pieces_counted": counted}


def sample_documents(corpus: Corpus, split: str, rows: int) -> list[dict[str, Any]]:
    """Return some documents, evenly spread over a split, with blanks between words.

    Returns:
        for each of at most ``rows`` documents its ``number`` in the split, the numbers of its
        ``sentences`` and ``pieces``, and the ``text`` of its first eight sentences.
    """
    shards = corpus.shards(split)
    firsts = np.cumsum([0] + [entry["documents"] for entry in shards.entries])
    total = int(firsts[-1])
    vocabulary = corpus.tokenizer().vocabulary
    documents = []
    for row in range(min(rows, total)):
        number = row * total // min(rows, total)
        place = int(np.searchsorted(firsts, number, "right")) - 1
        documents.append(
            {"number": number}
            | _read_document(shards[place], number - int(firsts[place]), vocabulary)
        )
    return documents


def _read_document(shard: Shard, number: int, vocabulary: Sequence[str]) -> dict[str, Any]:
    begin, end = shard.document_starts[number : number + 2].tolist()
    sentences = shard.sentence_starts()
    sentences = sentences[(sentences >= begin) & (sentences < end)]
    starts = shard.word_starts()
    places = list(pairwise([*sentences[: _SENTENCES_SHOWN + 1].tolist(), end]))
    return {
        "sentences": len(sentences),
        "pieces": end - begin,
        "text": [
            _readable(
                [vocabulary[piece] for piece in shard.pieces[first:last].tolist()],
                starts[first:last].tolist(),
            )
            for first, last in places[:_SENTENCES_SHOWN]
        ],
    }


def _readable(pieces: Sequence[str], word_starts: Sequence[bool]) -> str:
    """Join pieces to a sentence with blanks between its words.

    >>> _readable(["语", "言", "model", "##s"], [True, False, True, False])
    '语言 models'
    """
    text = ""
    for piece, starts_word in zip(pieces, word_starts, strict=True):
        plain = piece[2:] if piece.startswith("##") and len(piece) > 2 else piece
        text += (" " if starts_word and text else "") + plain
    return text
