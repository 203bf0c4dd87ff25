"""A corpus as Arrow tables whose memory is that of its files: for datasets, polars and pandas."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from zhbert.data import SPLITS
from zhbert.data.examples import plan_sentences
from zhbert.data.shards import COLUMNS, Corpus, Shard, lists, lists_within, piece_type
from zhbert.text.tokenizer import Tokenizer
from zhbert.wording import counted


class CorpusTables(Mapping[str, pa.Table]):
    """The tables of a corpus by split: ``train`` and ``held_out``, which may be empty.

    A shard is a chunk of its table. Its pieces and word starts are the memory-mapped file: they are
    read when they are needed, and other processes share them.
    """

    def __init__(self, corpus: Corpus, sequence_length: int | None = None) -> None:
        self._corpus = corpus
        self._sequence_length = sequence_length

    def __repr__(self) -> str:
        totals = self.info["totals"]
        counts = (f"{split}: {counted(totals[split]['documents'], 'document')}" for split in self)
        return f"CorpusTables({str(self._corpus.folder)!r}, {', '.join(counts)})"

    @property
    def info(self) -> dict[str, Any]:
        """The content of corpus.json: ``totals`` has each split's documents, words and pieces."""
        return self._corpus.info

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that made the corpus; its ``decode`` makes pieces text again."""
        return self._corpus.tokenizer()

    def __getitem__(self, split: str) -> pa.Table:
        """Return a table, after comparing its files with their checksums.

        Raises:
            KeyError: there is no such split.
            ZhbertError: a file is missing or damaged.
        """
        if split not in SPLITS:
            raise KeyError(split)
        shards = self._corpus.shards(split)
        if self._sequence_length is None:
            batches = [shard.batch for shard in shards]
        else:
            batches, first = [], 0
            for shard in shards:
                batches.append(_rows(shard, self._sequence_length, first))
                first += len(batches[-1])
        # Without one of its own, datasets would copy all data to hash it.
        name = hashlib.sha256(json.dumps([self.info, split, self._sequence_length]).encode())
        own = json.dumps({"fingerprint": name.hexdigest()[:32]})
        schema = batches[0].schema if batches else self._empty_schema()
        return pa.Table.from_batches(batches, schema).replace_schema_metadata({"huggingface": own})

    def __iter__(self) -> Iterator[str]:
        return iter(SPLITS)

    def __len__(self) -> int:
        return len(SPLITS)

    def _empty_schema(self) -> pa.Schema:
        kind = pa.from_numpy_dtype(piece_type(self._corpus.vocabulary_size))
        columns = {name: pa.list_(kinds[0]) for name, kinds in COLUMNS.items()}
        columns["pieces"] = pa.list_(kind)
        if self._sequence_length is not None:
            columns = {name: columns[name] for name in ("pieces", "word_starts")}
            columns |= {"document_starts": pa.list_(pa.uint32()), "row": pa.int64()}
        return pa.schema(columns)


def load_corpus(folder: str | Path, *, sequence_length: int | None = None) -> CorpusTables:
    """Open a corpus folder as Arrow tables, without copying it.

    Args:
        folder: what ``zhbert prepare`` has made.
        sequence_length: None: one row of a table is one document (``pieces``, ``word_starts``,
            ``sentence_starts``, ``line_starts``; all positions count its pieces). Otherwise it is
            an input of at most so many pieces, [CLS] and [SEP] counted: consecutive whole
            sentences, as with ``rows.builder = "full-sentences"``. ``document_starts`` are the
            places where another document begins inside of it, and ``row`` is its number.

    Raises:
        ZhbertError: this is no corpus, or a file is missing or damaged.
    """
    return CorpusTables(Corpus.open(folder), sequence_length)


def _rows(shard: Shard, sequence_length: int, first: int) -> pa.RecordBatch:
    """Return the shard's rows: its own pieces, with offsets of their own."""
    plan = plan_sentences(shard, sequence_length)
    ends = np.append(plan[:, 0], plan[-1:, 1])
    inside = np.setdiff1d(shard.document_starts[:-1], ends)
    return pa.record_batch(
        {
            "pieces": lists(ends, shard.batch.column("pieces").values),
            "word_starts": lists(ends, shard.batch.column("word_starts").values),
            "document_starts": lists_within(inside, ends),
            "row": pa.array(np.arange(first, first + len(plan))),
        }
    )
