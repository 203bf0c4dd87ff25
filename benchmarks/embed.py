"""Texts to vectors, and search among vectors, beside sentence-transformers, in turns.

python benchmarks/embed.py sentences    10,000 sentences of LCQMC
python benchmarks/embed.py passages     2,000 passages of CMRC 2018 and DRCD, up to 512 pieces
python benchmarks/embed.py stream       1,000,000 sentences, BERT-Tiny; the peer: 50,000 of them
python benchmarks/embed.py train        an epoch of multiple negatives on LCQMC's paraphrases
python benchmarks/embed.py search       1,000 queries among 100,000 vectors of 384 dimensions

Random weights: speed does not depend on them. The peer computes in float32 with its default batch
size and sorting; ours in each of --dtypes. Both work from text to NumPy vectors, with the model
open. The vectors must be the peer's: to 1e-5 in float32, and by their smallest cosine otherwise.
Processor time is given beside the time: on a shared machine it is the steadier of the two. The
floor is the time that the model's matrix products alone take at the rate measured for these shapes,
on all threads. In training, batches of 256 pairs, both in float32 with the same optimiser and rate
(ours in bfloat16, too). Needs ZHBERT_DATA, but for search. --quick: small sizes, to try the script.
"""

from __future__ import annotations

import argparse
import itertools
import json
import multiprocessing
import os
import resource
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")

import numpy as np
import torch

from zhbert import BertConfig, Tokenizer
from zhbert.model import native
from zhbert.runtime import cpu_flags, cpu_name
from zhbert.sentences.encoder import SentenceEncoder
from zhbert.sentences.model import SentenceModel
from zhbert.sentences.nearest import nearest
from zhbert.tasks.cards import load_card
from zhbert.tasks.read import read_examples

SHAPES = {
    "tiny": {"hidden_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2},
    "minilm": {"hidden_size": 384, "num_hidden_layers": 6, "num_attention_heads": 12},
    "base": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12},
}
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "int8": torch.int8}
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_int8")


@dataclass(frozen=True)
class Timed:
    """What some work took, and what it returned."""

    seconds: float
    cpu_seconds: float
    result: Any


def timed(work: Callable[[], Any]) -> Timed:
    begun, cpu_begun = time.perf_counter(), time.process_time()
    result = work()
    return Timed(time.perf_counter() - begun, time.process_time() - cpu_begun, result)


def median(runs: Sequence[Timed]) -> Timed:
    """The medians of the times."""
    return replace(
        runs[0],
        seconds=statistics.median(run.seconds for run in runs),
        cpu_seconds=statistics.median(run.cpu_seconds for run in runs),
    )


def tasks() -> Path:
    return Path(os.environ["ZHBERT_DATA"]).resolve() / "tasks"


def sentences() -> list[str]:
    """The different sentences of LCQMC."""
    card = load_card("lcqmc")
    pairs: Any = [
        one for s in ("train", "dev") for one in read_examples(card, tasks() / "lcqmc", s)
    ]
    return list(dict.fromkeys(text for pair in pairs for text in (pair.text, pair.text_pair)))


def passages() -> list[str]:
    """The different passages of CMRC 2018 and DRCD."""
    found: dict[str, None] = {}
    for name in ("cmrc2018", "drcd"):
        for split in ("train", "dev"):
            questions: Any = read_examples(load_card(name), tasks() / name, split)
            found.update(dict.fromkeys(question.context for question in questions))
    return list(found)


def make_encoder(shape: str) -> SentenceEncoder:
    tokenizer = Tokenizer.default()
    sizes = SHAPES[shape]
    config = BertConfig(
        vocab_size=len(tokenizer), intermediate_size=4 * sizes["hidden_size"], **sizes
    )
    return SentenceEncoder(SentenceModel(config).eval(), tokenizer)


# -- floors ----------------------------------------------------------------------------------------


def product_seconds(shape: str, dtype: str, pieces: int) -> float:
    """The time of the encoder's matrix products for so many pieces, one batch a thread."""
    hidden = SHAPES[shape]["hidden_size"]
    widths = [(hidden, 3 * hidden), (hidden, hidden), (hidden, 4 * hidden), (4 * hidden, hidden)]
    rows = 1024  # pieces of a batch

    def products(_: int) -> float:
        maps = torch.nn.ModuleList(torch.nn.Linear(*width) for width in widths)
        states_dtype = native.INT8_STATES if dtype == "int8" else DTYPES[dtype]
        if dtype == "int8":
            native.quantize(maps)
        maps.to(states_dtype)
        if dtype != "int8":
            native.pack(maps, rows)
        states = [torch.randn(rows, width[0]).to(states_dtype) for width in widths]
        times = []
        with torch.no_grad():
            for _ in range(15):
                begun = time.perf_counter()
                for layer, x in zip(maps, states, strict=True):
                    native.linear(layer, x)
                times.append(time.perf_counter() - begun)
        return statistics.median(times)

    threads = torch.get_num_threads()
    with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        seconds = statistics.mean(pool.map(products, range(threads)))
    torch.set_num_threads(threads)
    return seconds * pieces / rows / threads * SHAPES[shape]["num_hidden_layers"]


# -- texts to vectors ------------------------------------------------------------------------------


def encode(
    shape: str, texts: Sequence[str], dtypes: Sequence[str], repeats: int
) -> Iterator[dict[str, Any]]:
    """Encode by both, in turns."""
    from sentence_transformers import SentenceTransformer

    encoder = make_encoder(shape)
    with tempfile.TemporaryDirectory() as folder:
        encoder.save_pretrained(Path(folder) / "model")
        peer = SentenceTransformer(str(Path(folder) / "model"), device="cpu")

    def ours(dtype: str) -> Any:
        encoder.dtype = DTYPES[dtype]
        return encoder.encode(texts)

    theirs: list[Timed] = []
    mine: dict[str, list[Timed]] = {dtype: [] for dtype in dtypes}
    for _ in range(repeats):
        theirs.append(timed(lambda: peer.encode(texts, show_progress_bar=False)))
        for dtype in dtypes:
            mine[dtype].append(timed(lambda dtype=dtype: ours(dtype)))  # type: ignore[misc]
    pieces = len(encoder.rows(texts).ids)
    expected = theirs[0].result
    for dtype, runs in mine.items():
        found = runs[0].result
        norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
        difference = float(np.abs(found - expected).max())
        assert dtype != "float32" or difference < 1e-5, f"not the peer's vectors: {difference}"
        floor = product_seconds(shape, dtype, pieces)
        yield {
            "texts": len(texts),
            "pieces": pieces,
            "shape": shape,
            "dtype": dtype,
            **compared(runs, theirs, len(texts), len(texts)),
            "share_of_floor": floor / median(runs).seconds,
            "largest_difference": difference,
            "smallest_cosine": float(((found * expected).sum(axis=1) / norms).min()),
        }


def compared(
    mine: Sequence[Timed], theirs: Sequence[Timed], count: int, peer_count: int
) -> dict[str, Any]:
    """Rates, and ratios with their range."""
    ours, peer = median(mine), median(theirs)
    ratios = [
        (b.seconds / peer_count) / (a.seconds / count)
        for a, b in zip(mine, itertools.cycle(theirs), strict=False)
    ]
    return {
        "ours_per_second": count / ours.seconds,
        "theirs_per_second": peer_count / peer.seconds,
        "ratio": statistics.median(ratios),
        "ratios": [round(min(ratios), 2), round(max(ratios), 2)],
        "ratio_of_cpu_time": (peer.cpu_seconds / peer_count) / (ours.cpu_seconds / count),
    }


def run_sentences(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    texts = sentences()[: 200 if options.quick else options.texts or 10_000]
    for shape in options.shapes:
        yield from encode(shape, texts, options.dtypes, options.repeats)


def run_passages(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    texts = passages()[: 4 if options.quick else options.texts or 2_000]
    for shape in options.shapes:
        yield from encode(shape, texts, options.dtypes, options.repeats)


def streamed(count: int, dtype: str) -> tuple[Timed, float]:
    """Encode a stream in a process of its own -> its time, and its largest memory in GB."""
    encoder = make_encoder("tiny")
    encoder.dtype = DTYPES[dtype]
    texts = itertools.islice(itertools.cycle(sentences()), count)
    vectors = timed(lambda: sum(len(some) for some in encoder.encode_stream(texts)))
    assert vectors.result == count
    return vectors, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def run_stream(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from sentence_transformers import SentenceTransformer

    count, peer_count = (2_000, 500) if options.quick else (options.texts or 1_000_000, 50_000)
    with tempfile.TemporaryDirectory() as folder:
        make_encoder("tiny").save_pretrained(Path(folder) / "model")
        peer = SentenceTransformer(str(Path(folder) / "model"), device="cpu")
    texts = list(itertools.islice(itertools.cycle(sentences()), peer_count))
    for dtype in options.dtypes:
        mine, theirs, gigabytes = [], [], 0.0
        for _ in range(options.repeats):
            theirs.append(timed(lambda: peer.encode(texts, show_progress_bar=False)))
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(1, context) as pool:
                taken, gigabytes = pool.submit(streamed, count, dtype).result()
            mine.append(taken)
        yield {
            "texts": count,
            "peer_texts": peer_count,
            "shape": "tiny",
            "dtype": dtype,
            **compared(mine, theirs, count, peer_count),
            "peak_memory_gb": gigabytes,
        }


# -- training --------------------------------------------------------------------------------------

CARD = """
title = "paraphrases"
kind = "embed"
metrics = ["mrr@10"]
[data]
format = "tsv"
train = ["train.tsv"]
dev = ["dev.tsv"]
text = "text_a"
text_pair = "text_b"
[settings]
epochs = 1
sequence_length = 128
batch_size = 256
learning_rate = 3e-5
source = "chosen here"
"""


def paraphrases() -> list[tuple[str, str]]:
    """The pairs of LCQMC's train set that mean the same."""
    pairs: Any = read_examples(load_card("lcqmc"), tasks() / "lcqmc", "train")
    return [(pair.text, pair.text_pair) for pair in pairs if pair.label == "1"]


def write_task(folder: Path, pairs: Sequence[tuple[str, str]]) -> None:
    folder.mkdir()
    (folder / "card.toml").write_text(CARD, encoding="utf-8")
    for name, some in (("train", pairs), ("dev", pairs[:10])):
        lines = ["text_a\ttext_b", *("\t".join(pair) for pair in some)]
        (folder / f"{name}.tsv").write_text("\n".join(lines) + "\n", encoding="utf-8")


def train_peer(model: Path, pairs: Sequence[tuple[str, str]]) -> Timed:
    """An epoch of sentence-transformers' own loop: its trainer needs a library more, datasets."""
    from sentence_transformers import InputExample, SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
    from torch.utils.data import DataLoader

    peer = SentenceTransformer(str(model), device="cpu")
    peer.max_seq_length = 128
    examples: Any = [InputExample(texts=list(pair)) for pair in pairs]
    rows = DataLoader(examples, 256, shuffle=True)
    objective = rows, MultipleNegativesRankingLoss(peer)
    rate = {"lr": 3e-5}
    return timed(
        lambda: peer.old_fit(
            [objective], warmup_steps=0, optimizer_params=rate, show_progress_bar=False
        )
    )


def run_train(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from zhbert.finetuning.run import finetune

    pairs = paraphrases()[: 64 if options.quick else options.texts]
    precisions = {"float32": "fp32", "bfloat16": "bf16"}
    for shape in options.shapes:
        with tempfile.TemporaryDirectory() as folder:
            at = Path(folder)
            make_encoder(shape).save_pretrained(at / "model")
            write_task(at / "task", pairs)

            def ours(dtype: str, at: Path = at) -> Timed:
                precision = f"precision={precisions[dtype]}"
                run = timed(
                    lambda: finetune(
                        at / "task" / "card.toml", at / "model", at / "task", at / "run",
                        [precision], overwrite=True,
                    )
                )  # fmt: skip
                return replace(run, seconds=run.result.summary["seconds"])

            mine: dict[str, list[Timed]] = {d: [] for d in options.dtypes if d in precisions}
            theirs = []
            for _ in range(options.repeats):
                theirs.append(train_peer(at / "model", pairs))
                for dtype, runs in mine.items():
                    runs.append(ours(dtype))
        for dtype, runs in mine.items():
            sizes = {"pairs": len(pairs), "shape": shape, "dtype": dtype}
            yield {**sizes, **compared(runs, theirs, len(pairs), len(pairs))}


# -- search ----------------------------------------------------------------------------------------


def run_search(options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    from sentence_transformers.util import semantic_search

    rng = np.random.default_rng(0)
    rows, asked = (2_000, 20) if options.quick else (100_000, 1_000)
    vectors = rng.standard_normal((rows, 384), np.float32)
    queries = rng.standard_normal((asked, 384), np.float32)
    mine, theirs = [], []
    for _ in range(options.repeats):
        theirs.append(timed(lambda: semantic_search(queries, vectors, top_k=10)))
        mine.append(timed(lambda: nearest(queries, vectors, 10)))
    expected = [[hit["corpus_id"] for hit in hits] for hits in theirs[0].result]
    assert mine[0].result[1].tolist() == expected, "not the peer's answers"
    yield {
        "queries": asked,
        "vectors": rows,
        "dimensions": 384,
        **compared(mine, theirs, asked, asked),
    }


WORK = {
    "sentences": run_sentences,
    "passages": run_passages,
    "stream": run_stream,
    "train": run_train,
    "search": run_search,
}


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("work", choices=WORK)
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["minilm"])
    usual = [dtype for dtype in DTYPES if dtype != "int8" or native.INT8_STATES is not None]
    parser.add_argument("--dtypes", nargs="+", choices=DTYPES, default=usual)
    parser.add_argument("--texts", type=int, help="fewer texts than the work's own number")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="small sizes, to try the script")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args(arguments)
    machine = {
        "cpu": cpu_name(),
        "instructions": " ".join(i for i in INSTRUCTIONS if i in cpu_flags()),
        "threads": torch.get_num_threads(),
    }
    for found in WORK[options.work](options):
        row = {"work": options.work, **machine, **found}
        if options.json:
            print(json.dumps(row))
            continue
        for key, value in row.items():
            print(f"{key:20} {value:,.3g}" if isinstance(value, float) else f"{key:20} {value}")
        print(flush=True)


if __name__ == "__main__":
    main()
