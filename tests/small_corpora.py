"""A tiny corpus made by code, and a tiny shape: what the tests of the jobs train on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from zhbert.data.shards import FORMAT, VERSION, Documents, write_shard
from zhbert.text.tokenizer import Tokenizer

PIECES = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *map(chr, range(0x4E00, 0x4E00 + 55)))

TINY = (
    "model.hidden_size=16",
    "model.num_hidden_layers=2",
    "model.num_attention_heads=2",
    "model.intermediate_size=32",
    "model.max_position_embeddings=64",
    "sequence_length=32",
    "batch_size=8",
    "masking.max_predictions=5",
    "evaluation.rows=8",
    "compile=no",
    "threads=1",
    # The numbers that tests compare: whatever the recipe holds, and whatever this CPU is best at.
    "precision=fp32",
    "model.hidden_dropout_prob=0.1",
    "model.attention_probs_dropout_prob=0.1",
    "optimizer.learning_rate=1e-3",
    # The plain ways; recipes for small models choose others.
    "optimizer.name=adamw",
    "initial_weights=bert",
    "softmax.frequent=0",
    "masking.rate=0.15",
    "masking.final_rate=",
)

# What recipes for small models choose, of a vocabulary of sixty pieces.
MUON = (
    "optimizer.name=muon",
    "initial_weights=scaled",
    "softmax.frequent=9",
    "softmax.sampled=12",
    "optimizer.beta2=0.98",
)


def documents(count: int, seed: int) -> Documents:
    """Documents of words of one or two pieces; each keeps to the few words of one of ten topics."""
    rng = np.random.default_rng(seed)
    pieces: list[int] = []
    words: list[bool] = []
    document_starts, sentence_starts = [0], []
    for _ in range(count):
        topic = 5 + 5 * int(rng.integers(0, 10))
        for _ in range(rng.integers(3, 7)):
            sentence_starts.append(len(pieces))
            for _ in range(rng.integers(3, 8)):
                first = topic + int(rng.integers(0, 4))
                pieces.append(first)
                words.append(True)
                if rng.random() < 0.6:
                    pieces.append(first + 1)
                    words.append(False)
        document_starts.append(len(pieces))
    return Documents(
        np.array(pieces, dtype=np.uint16),
        np.array(words),
        np.array(document_starts),
        np.array(sentence_starts),
        np.array(sentence_starts),
    )


def cycles(count: int, seed: int) -> Documents:
    """Documents of one sentence of one-piece words, in which every piece tells the next one."""
    rng = np.random.default_rng(seed)
    lengths = rng.integers(10, 40, count)
    pieces = [5 + (rng.integers(50) + np.arange(length)) % 50 for length in lengths]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    words = np.ones(starts[-1], bool)
    return Documents(
        np.concatenate(pieces).astype(np.uint16), words, starts, starts[:-1], starts[:-1]
    )


def make_corpus(
    folder: Path,
    *,
    held_out: int = 8,
    train: int = 60,
    seed: int = 0,
    documents: Callable[[int, int], Documents] = documents,
) -> Path:
    """Write a corpus folder."""
    folder.mkdir(parents=True)
    tokenizer = Tokenizer(PIECES)
    tokenizer.save_pretrained(folder)
    shards: dict[str, list[object]] = {"train": [], "held_out": []}
    for number, (split, count) in enumerate((("train", train), ("held_out", held_out))):
        if count:
            path = folder / f"{split}-00000.arrow"
            shards[split].append(write_shard(path, documents(count, seed + number)))
    info = {
        "format": FORMAT,
        "version": VERSION,
        "vocabulary_size": len(PIECES),
        "tokenizer": {"fingerprint": tokenizer.fingerprint()},
        "shards": shards,
    }
    (folder / "corpus.json").write_text(json.dumps(info), encoding="utf-8")
    return folder
