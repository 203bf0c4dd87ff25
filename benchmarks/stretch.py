"""Ways to make new positions, measured on long rows: before and after some steps of training.

    python benchmarks/stretch.py CORPUS [--model mini] [--steps 50] [--seeds 1 2] [--rows 200]

CORPUS is a folder that ``zhbert prepare`` made with the model's vocabulary. The model is stretched
to twice its positions by each way, and trained on rows of that length, all alike. What is measured
is the accuracy at whole masked words of held-out rows that are full and lie in one document: at
words in the first half of the positions, which were trained before, and in the second. The first
line is the model itself, which reads the halves as rows of their own.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from zhbert.config import EvaluationSettings
from zhbert.data.evaluation import held_out_rows
from zhbert.data.shards import Corpus
from zhbert.model.pretrained import BertForMaskedLM
from zhbert.packing import PackedBatch, pack_rows
from zhbert.pretraining.run import pretrain
from zhbert.surgery import NEW_POSITIONS
from zhbert.surgery.stretch import stretch
from zhbert.zoo import locate

Row = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Masked pieces, the predicted places, and what stood there."""


def long_rows(corpus: Corpus, length: int, rows: int) -> list[Row]:
    """Return held-out rows of one document each that are nearly ``length`` pieces long."""
    tokenizer = corpus.tokenizer()
    settings = EvaluationSettings(rows=10**6, strategies=("wwm",))
    (masked,) = held_out_rows(
        corpus, tokenizer.vocabulary, settings, sequence_length=length, batch_size=1
    )
    found = []
    for batch in masked.batches:
        pieces = batch.packed.input_ids.numpy()
        if len(pieces) > 0.95 * length and (pieces == tokenizer.sep_id).sum() == 1:
            found.append((pieces, batch.predicted_positions.numpy(), batch.labels.numpy()))
    return found[:rows]


def halves(row: Row, first: int) -> Iterable[Row]:
    """Cut a row of 2 x ``first`` pieces in two; the second part begins with [CLS] as well."""
    pieces, places, labels = row
    yield pieces[:first], places[places < first], labels[places < first]
    later = places > first
    rest = np.concatenate([pieces[:1], pieces[first + 1 :]])
    yield rest, places[later] - first, labels[later]


@torch.no_grad()
def accuracy(model: BertForMaskedLM, rows: Iterable[Row], first: int) -> tuple[float, float]:
    """Return the accuracies at places before ``first`` and after it, in per cent."""
    hits: tuple[list[bool], list[bool]] = ([], [])
    for pieces, places, labels in rows:
        batch: PackedBatch = pack_rows(pieces, np.array([len(pieces)]))
        best = model.masked_logits(batch, torch.from_numpy(places)).argmax(1).numpy()
        for place, hit in zip(places, best == labels, strict=True):
            hits[int(place >= first)].append(bool(hit))
    return tuple(100 * float(np.mean(one)) if one else float("nan") for one in hits)  # type: ignore[return-value]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("corpus")
    parser.add_argument("--model", default="mini")
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", type=int, default=200)
    args = parser.parse_args()
    corpus = Corpus.open(args.corpus)
    short = BertForMaskedLM.from_pretrained(locate(args.model), quiet=True).eval()
    first = short.config.max_position_embeddings
    rows = long_rows(corpus, 2 * first, args.rows)
    print(f"{len(rows)} rows of {2 * first} pieces; first half, second half")
    parts = [[*halves(row, first)] for row in rows]
    alone = [accuracy(short, [pair[which] for pair in parts], first)[0] for which in (0, 1)]
    print(f"{'two rows':14}{alone[0]:8.1f}{alone[1]:8.1f}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for way in NEW_POSITIONS:
            to = Path(folder, way)
            stretch(args.model, to, positions=2 * first, new_rows=way)
            models = {f"{way}": to}
            for seed in args.seeds:
                run = Path(folder, f"{way}-{seed}")
                settings = [
                    f"initial_model={to}", f"sequence_length={2 * first}", "batch_size=8",
                    f"steps={args.steps}", f"seed={seed}", "optimizer.learning_rate=3e-4",
                    f"optimizer.warmup_steps={args.steps // 10}", "evaluation.rows=0",
                    f"masking.max_predictions={2 * first}", "checkpoint_every=0",
                ]  # fmt: skip
                pretrain("continue-domain", args.corpus, run, settings)
                models[f"  seed {seed}"] = run / "final"
            for name, model in models.items():
                opened = BertForMaskedLM.from_pretrained(model, quiet=True).eval()
                before, after = accuracy(opened, rows, first)
                print(f"{name:14}{before:8.1f}{after:8.1f}", flush=True)


if __name__ == "__main__":
    main()
