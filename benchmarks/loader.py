"""How fast the loader makes masked batches: pieces a second, each builder and strategy.

python benchmarks/loader.py                      (a synthetic corpus with the words of Chinese text)
python benchmarks/loader.py --corpus corpus/     (a prepared one)
python benchmarks/loader.py --threads 2 --batch-size 512

Medians over repetitions that alternate between the settings, each over rows not seen before. The
plan of an epoch (which sentences stand in which row) is timed apart, and its share of the time is
counted in "with plan"; "per CPU s" leaves out the time when other programs had the core. The floor
is the machine's copy rate over the bytes that a piece's journey needs: 2 read from the shard, 24
written to the three tensors that hold every piece.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import tempfile
import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch

from zhbert.config import MaskingSettings
from zhbert.data import loader as loader_module
from zhbert.data.examples import BUILDERS, ShardLike, make_rows
from zhbert.data.loader import PretrainingLoader
from zhbert.data.masking import Masker, MaskingVocabulary
from zhbert.data.row_order import WholeCorpus
from zhbert.data.similar_words import write_similar_words
from zhbert.masking_strategies import STRATEGIES
from zhbert.text.vocab import default_vocabulary, read_vocabulary

WORD_LENGTH_SHARES = (0.425, 0.43, 0.068, 0.049, 0.01, 0.018)
BYTES_PER_PIECE = 2 + 3 * 8


@dataclass(frozen=True)
class SyntheticShard:
    """Random pieces in words, sentences, lines and documents of usual lengths."""

    pieces: np.ndarray
    word_start_bits: np.ndarray
    document_starts: np.ndarray
    _sentence_starts: np.ndarray
    _line_starts: np.ndarray

    def sentence_starts(self) -> np.ndarray:
        return self._sentence_starts

    def line_starts(self) -> np.ndarray:
        return self._line_starts


def synthetic_shard(pieces: int, vocabulary: list[str]) -> SyntheticShard:
    rng = np.random.default_rng(0)
    words = np.cumsum(rng.choice(np.arange(1, 7), size=pieces // 2, p=WORD_LENGTH_SHARES))
    ends = np.cumsum(rng.integers(5, 35, size=len(words) // 10))  # words a sentence
    sentences = words[ends[ends < len(words)]]
    total = int(sentences[-1])
    flags = np.zeros(total, dtype=bool)
    flags[0] = True
    flags[words[words < total]] = True
    starts = np.concatenate(([0], sentences[:-1]))
    lines = starts[::3]
    return SyntheticShard(
        rng.integers(200, len(vocabulary), size=total).astype(np.uint16),
        np.packbits(flags, bitorder="little"),
        np.concatenate((starts[:: 3 * 8], [total])),
        starts,
        lines,
    )


def similar_words(shard: ShardLike, vocabulary: list[str]) -> MaskingVocabulary:
    """A vocabulary with up to 30,000 words of a shard, each with five similar ones."""
    pieces = shard.pieces[:200_000].tolist()
    flags = np.unpackbits(shard.word_start_bits[: len(pieces) >> 3], bitorder="little")
    starts = np.flatnonzero(flags).tolist()
    words = {tuple(pieces[a:b]) for a, b in pairwise(starts)}
    ordered = sorted(words, key=lambda word: (len(word), word))[:30_000]
    pairs = [
        (word, other, 0.5)
        for place, word in enumerate(ordered)
        for other in ordered[place + 1 : place + 6]
        if len(word) == len(other)
    ]
    with tempfile.TemporaryDirectory() as folder:
        write_similar_words(path := f"{folder}/words.tsv", vocabulary, pairs)
        return MaskingVocabulary(vocabulary, similar_words=path)


def seconds_of(loader: PretrainingLoader, first_step: int, steps: int) -> tuple[float, float, int]:
    """Wall time and processor time of some steps, and their pieces."""
    pieces = 0
    start, start_busy = time.perf_counter(), time.process_time()
    for step in range(first_step, first_step + steps):
        for batch in loader.step(step):
            pieces += batch.packed.num_pieces
    return time.perf_counter() - start, time.process_time() - start_busy, pieces


def copy_rate() -> float:
    """Bytes a second of a large copy on this core (bytes read, not read and written)."""
    source = np.ones(16_000_000, dtype=np.int64)
    target = np.empty_like(source)
    target[:] = source
    times = []
    for _ in range(5):
        start = time.perf_counter()
        np.copyto(target, source)
        times.append(time.perf_counter() - start)
    return source.nbytes / statistics.median(times)


def processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def commit() -> str:
    done = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return done.stdout.strip() or "unknown"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--corpus", type=Path, help="a corpus folder (default: synthetic)")
    parser.add_argument("--pieces", type=int, default=4_000_000, help="of the synthetic corpus")
    parser.add_argument("--sequence-length", type=int, default=128)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--steps", type=int, default=12, help="steps a repetition")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-args.threads :])
    shards: list[ShardLike]
    if args.corpus:
        from zhbert.data.shards import Corpus

        corpus = Corpus.open(args.corpus)
        vocabulary = read_vocabulary(args.corpus / "vocab.txt")
        shards = list(corpus.shards("train"))
    else:
        vocabulary = read_vocabulary(default_vocabulary() / "vocab.txt")
        shards = [synthetic_shard(args.pieces, vocabulary)]
    corpus_pieces = sum(len(shard.pieces) for shard in shards)

    prepared = similar_words(shards[0], vocabulary)
    settings = [(builder, strategy) for builder in BUILDERS for strategy in STRATEGIES]
    loaders = {}
    plan_seconds: dict[str, list[float]] = {}
    for builder, strategy in settings:
        masking = MaskingSettings(
            strategy=strategy, max_predictions=args.sequence_length, similar_words="in memory"
        )
        masker = Masker(masking, prepared)
        start = time.perf_counter()
        rows = make_rows(
            builder,
            shards,
            cls_id=masker.vocabulary.cls_id,
            sep_id=masker.vocabulary.sep_id,
            sequence_length=args.sequence_length,
            seed=0,
        )
        loaders[builder, strategy] = PretrainingLoader(
            WholeCorpus(rows), masker, batch_size=args.batch_size, seed=0, threads=args.threads
        )
        plan_seconds.setdefault(builder, []).append(time.perf_counter() - start)
    rates: dict[tuple[str, str], list[float]] = {key: [] for key in settings}
    busy_rates: dict[tuple[str, str], list[float]] = {key: [] for key in settings}
    for repetition in range(args.repetitions + 1):
        for key in settings:
            seconds, busy, pieces = seconds_of(loaders[key], repetition * args.steps, args.steps)
            if repetition:  # the first is the warm-up
                rates[key].append(pieces / seconds)
                busy_rates[key].append(pieces / busy)
    copied = copy_rate()
    floor = copied / BYTES_PER_PIECE
    results = []
    for builder, strategy in settings:
        rate = statistics.median(rates[builder, strategy])
        plan = statistics.median(plan_seconds[builder])
        results.append(
            {
                "builder": builder,
                "strategy": strategy,
                "pieces_per_second": rate,
                "pieces_per_processor_second": statistics.median(busy_rates[builder, strategy]),
                "lowest": min(rates[builder, strategy]),
                "highest": max(rates[builder, strategy]),
                "with_plan": 1 / (1 / rate + plan / corpus_pieces),
                "of_floor": rate / floor,
            }
        )
    report = {
        "processor": processor(),
        "commit": commit(),
        "native": vars(loader_module)["_rows"] is not None,
        "corpus": str(args.corpus or "synthetic"),
        "corpus_pieces": corpus_pieces,
        "threads": args.threads,
        "sequence_length": args.sequence_length,
        "batch_size": args.batch_size,
        "plan_seconds": {name: statistics.median(times) for name, times in plan_seconds.items()},
        "copy_bytes_per_second": copied,
        "floor_pieces_per_second": floor,
        "results": results,
    }
    if args.json:
        print(json.dumps(report, ensure_ascii=False, indent=2))
        return
    print(
        f"{report['processor']}, threads {args.threads}; commit {report['commit']}; "
        f"native {report['native']}"
    )
    print(
        f"{report['corpus']}: {corpus_pieces:,} pieces; batches of {args.batch_size} rows of "
        f"{args.sequence_length}; medians of {args.repetitions} x {args.steps} steps"
    )
    print(
        f"{'rows':<15} {'masks':<13} {'M pieces/s':>10} {'low..high':>13} "
        f"{'with plan':>9} {'per CPU s':>9}"
    )
    for result in results:
        span = f"{result['lowest'] / 1e6:.2f}..{result['highest'] / 1e6:.2f}"
        print(
            f"{result['builder']:<15} {result['strategy']:<13} "
            f"{result['pieces_per_second'] / 1e6:>10.2f} {span:>13} "
            f"{result['with_plan'] / 1e6:>9.2f} "
            f"{result['pieces_per_processor_second'] / 1e6:>9.2f}"
        )
    plans = ", ".join(f"{name} {1000 * s:.0f} ms" for name, s in report["plan_seconds"].items())
    print(f"plan of an epoch: {plans}")
    print(f"floor: {copied / 1e9:.1f} GB/s copied = {floor / 1e6:.0f} M pieces/s")


if __name__ == "__main__":
    main()
