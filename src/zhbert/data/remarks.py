"""Remarks on a corpus before training, if little can be learnt from it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zhbert.wording import counted

# With a larger share of punctuation, or of [UNK], a text is of little use for training.
_MOSTLY, _MANY = 0.5, 0.1


def on_text(info: Mapping[str, Any]) -> list[str]:
    """Return remarks on a corpus.json with many uninformative pieces.

    >>> on_text({"alignment": {"pieces": 10, "unknown_pieces": 0}, "read": {"punctuation": 9}})
    ['90% of the pieces are punctuation or symbols: there is little to learn from them']
    """
    found = []
    alignment, read = info.get("alignment", {}), info.get("read", {})
    pieces = max(1, alignment.get("pieces", 0))
    punctuation = read.get("punctuation", 0) / pieces
    unknown = alignment.get("unknown_pieces", 0) / pieces
    if punctuation > _MOSTLY:
        found.append(
            f"{punctuation:.0%} of the pieces are punctuation or symbols: there is little to learn "
            "from them"
        )
    if unknown > _MANY:
        found.append(
            f"{unknown:.0%} of the pieces are [UNK]: zhbert vocab coverage names the characters, "
            "zhbert vocab train makes a vocabulary that has them"
        )
    return found


def on_rows(info: Mapping[str, Any], builder: str, rows: int, batch_size: int) -> list[str]:
    """Return remarks on a corpus.json: what cannot be learnt from its training rows.

    Args:
        info: the content of corpus.json.
        builder: the row builder, one of zhbert.data.examples.BUILDERS.
        rows: number of rows in an epoch; an estimate is enough.
        batch_size: number of rows in a step.
    """
    found = []
    entries = info["shards"]["train"]
    documents, sentences = (
        sum(entry[name] for entry in entries) for name in ("documents", "sentences")
    )
    other = "another corpus, or rows.builder=full-sentences, is better"
    if builder == "pairs" and documents == 1:
        found.append(
            "sentence pairs of a single document: its random second sentences come from itself, "
            f"so some pairs labelled as random do follow each other: {other}"
        )
    elif builder == "pairs" and sentences == documents:
        found.append(
            "sentence pairs of documents that are one sentence each: no second sentence follows a "
            f"first one, all are random: {other}"
        )
    if rows < batch_size:
        found.append(
            f"{counted(rows, 'row')} an epoch, but {batch_size:,} a step: every step sees the "
            "same rows more than once"
        )
    return found
