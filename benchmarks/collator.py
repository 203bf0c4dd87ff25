"""Rows to masked batches for transformers' Trainer: ours beside transformers' own collators.

    ZHBERT_DATA=.data python benchmarks/collator.py [--rows 4096] [--repeats 5] [--json]

Batches of 32 rows of at most 128 pieces: lines of Chinese text. Peers:
DataCollatorForLanguageModeling, which masks single pieces, and the same with whole_word_mask=True
(DataCollatorForWholeWordMask of transformers 4), which takes a Chinese sentence for one word, and
rows of one length only: padded before, which is not timed. The candidates alternate; medians of
processor time, one thread. "tokenized": rows that the tokenizer and the segmenter have already
seen; "text": strings, tokenized by the same fast tokenizer.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import AutoTokenizer, DataCollatorForLanguageModeling

from tokenizer import first_lines, machine
from zhbert import Tokenizer, WholeWordMaskCollator
from zhbert.zoo import locate

BATCH, LENGTH = 32, 128


def candidates(
    texts: list[str], model: Path
) -> dict[str, tuple[Callable[[list[Any]], Any], list[Any]]]:
    """By name, a collator and the rows that it gets."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    single = DataCollatorForLanguageModeling(tokenizer)
    whole = DataCollatorForLanguageModeling(tokenizer, whole_word_mask=True)
    fast, native = (
        WholeWordMaskCollator(one, sequence_length=LENGTH)
        for one in (tokenizer, Tokenizer.from_pretrained(model))
    )
    for ours in (fast, native):
        ours.set_epoch(0)
    options = {"truncation": True, "max_length": LENGTH, "return_special_tokens_mask": True}
    plain = [tokenizer(text, **options).data for text in texts]
    options_whole = options | {"return_offsets_mapping": True, "padding": "max_length"}
    padded = [tokenizer(text, **options_whole).data for text in texts]
    segments = native._source.segments(texts, native.segmenter.segment(texts))
    words = [
        {"pieces": ids[: LENGTH - 2].tolist(), "word_starts": starts[: LENGTH - 2].tolist()}
        for ids, starts in segments
    ]
    strings = [{"text": text} for text in texts]

    def from_text(batch: list[Any]) -> Any:
        columns = tokenizer([row["text"] for row in batch], **options).data
        rows = zip(*columns.values(), strict=True)
        return single([dict(zip(columns, row, strict=True)) for row in rows])

    return {
        "tokenized: transformers, single pieces": (single, plain),
        "tokenized: transformers, whole words": (whole, padded),
        "tokenized: ours": (native, words),
        "text: transformers, single pieces": (from_text, strings),
        "text: ours, transformers' tokenizer": (fast, strings),
        "text: ours, our tokenizer": (native, strings),
    }


def seconds(collate: Callable[[list[Any]], Any], rows: list[Any]) -> float:
    begin = time.process_time()
    for first in range(0, len(rows), BATCH):
        # Collators change rows: padding them, or taking columns out.
        collate([dict(row) for row in rows[first : first + BATCH]])
    return time.process_time() - begin


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=os.environ.get("ZHBERT_DATA"))
    parser.add_argument("--model", default="mini")
    parser.add_argument("--rows", type=int, default=4096)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("name the development data: --data or ZHBERT_DATA")
    torch.set_num_threads(1)
    # transformers' whole words have no random pieces, which it says.
    warnings.filterwarnings("ignore", "Random token replacement")
    lines = first_lines(arguments.data / "corpus" / "history.txt", 400 * arguments.rows)
    texts = [line for line in lines if len(line) > 20][: arguments.rows]
    found = candidates(texts, locate(arguments.model))
    times: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(arguments.repeats):
        for name, (collate, rows) in found.items():
            times[name].append(seconds(collate, rows))
    speeds = {name: len(texts) / statistics.median(some) for name, some in times.items()}
    if arguments.json:
        print(json.dumps({"machine": machine(), "rows": len(texts), "rows_a_second": speeds}))
        return 0
    print(f"{len(texts):,} rows, batches of {BATCH}; {machine()}")
    for name, speed in speeds.items():
        print(f"{name:<42}{speed:>10,.0f} rows/s")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
