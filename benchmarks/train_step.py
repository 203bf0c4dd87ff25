"""One training step, ours against transformers, alternated in one process on the same rows.

python benchmarks/train_step.py --shape tiny --precision fp32
python benchmarks/train_step.py --shape mini --precision bf16 --json

A step is forward, backward, clipping and AdamW. Ours: `BertForPreTraining.pretraining_loss` and
`zhbert.train.optim.AdamW`. The peer: `transformers.BertForPreTraining` and `torch.optim.AdamW`,
both at their defaults, labels -100 where nothing is predicted; in float32 (its default) whatever
the precision of ours, and with `--peer-precision bf16` under autocast too. Rows are full, so the
peer computes no padding. Nothing is kept between repetitions but the models themselves.

The floor is the time that the step's matrix products alone would take at the rate measured, in the
same run, on products of the step's own shapes. "ms of CPU" is processor time of all threads: on a
machine that other programs use it says more than the clock.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

# Threads that wait sleep instead of spinning: on an idle machine both are equally fast, on a busy
# one spinning makes every step, ours and the peer's, up to ten times as long. Read when torch is
# imported; set OMP_WAIT_POLICY=active to measure the other way.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining
from zhbert.packing import PackedBatch
from zhbert.train.optim import AdamW, global_norm

SHAPES = {  # layers, hidden size, heads
    "tiny": (2, 128, 2),
    "mini": (4, 256, 4),
    "small": (4, 512, 8),
    "base": (12, 768, 12),
}
LEARNING_RATE, CLIP_NORM = 1e-4, 1.0
# The flags that decide which matrix kernels a CPU has.
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "amx_bf16", "amx_tile")


def rows(options: argparse.Namespace, vocabulary: int) -> dict[str, Any]:
    """Random full rows of two segments, packed: what the loader yields."""
    generator = torch.Generator().manual_seed(0)
    count, length, predictions = options.rows, options.length, options.predictions
    positions = [
        torch.randperm(length - 2, generator=generator)[:predictions].sort().values + 1 + r * length
        for r in range(count)
    ]
    place = torch.arange(length)
    return {
        "batch": PackedBatch(
            input_ids=torch.randint(5, vocabulary, (count * length,), generator=generator),
            token_type_ids=(place > length // 2).long().repeat(count),
            position_ids=place.repeat(count),
            cu_seqlens=torch.arange(0, count * length + 1, length, dtype=torch.int32),
            max_length=length,
        ),
        "predicted_positions": torch.cat(positions),
        "labels": torch.randint(5, vocabulary, (count * predictions,), generator=generator),
        "next_sentence_labels": torch.randint(0, 2, (count,), generator=generator),
    }


def autocast(precision: str) -> AbstractContextManager[Any]:
    return torch.autocast("cpu", dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


def our_step(config: BertConfig, batch: dict[str, Any], options: Any) -> Callable[[], None]:
    model = BertForPreTraining(config).train()
    if options.compile:
        model.compile_layers()
    optimizer = AdamW(model.named_parameters())
    predictions, pairs = len(batch["labels"]), len(batch["next_sentence_labels"])
    steps = iter(range(1 << 60))

    def step() -> None:
        model.set_dropout_seed(next(steps))
        with autocast(options.precision):
            loss = model.pretraining_loss(**batch)
        (loss.masked_lm_loss_sum / predictions + loss.next_sentence_loss_sum / pairs).backward()
        divisor = (global_norm(model.parameters()) / CLIP_NORM).clamp_min(1.0)
        optimizer.step(LEARNING_RATE, divisor)
        model.zero_grad(set_to_none=True)

    return step


def peer_step(config: BertConfig, batch: dict[str, Any], options: Any) -> Callable[[], None]:
    import transformers

    shape = {k: v for k, v in config.to_dict().items() if k != "model_type"}
    model = transformers.BertForPreTraining(transformers.BertConfig(**shape)).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE)
    packed: PackedBatch = batch["batch"]
    labels = torch.full_like(packed.input_ids, -100)
    labels[batch["predicted_positions"]] = batch["labels"]
    padded = {
        "input_ids": packed.input_ids.view(options.rows, options.length),
        "token_type_ids": packed.token_type_ids.view(options.rows, options.length),
        "attention_mask": torch.ones(options.rows, options.length, dtype=torch.long),
        "labels": labels.view(options.rows, options.length),
        "next_sentence_label": batch["next_sentence_labels"],
    }

    def step() -> None:
        with autocast(options.peer_precision):
            loss = model(**padded).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad()

    return step


def products(config: BertConfig, options: argparse.Namespace) -> list[tuple[str, int, int, int]]:
    """Our forward pass's matrix products: (name, rows, inner size, columns), layers summed."""
    pieces, hidden = options.rows * options.length, config.hidden_size
    inner, layers = config.intermediate_size, config.num_hidden_layers
    predicted = options.rows * options.predictions
    wanted = predicted + options.rows  # the last layer's pieces: predicted ones and each [CLS]
    full = (layers - 1) * pieces
    return [
        ("queries, keys, values", full, hidden, 3 * hidden),
        ("last keys, values", pieces, hidden, 2 * hidden),
        ("last queries", wanted, hidden, hidden),
        # Scores and their weighted sums: (length x head size) for each head, twice.
        ("attention", full + wanted, 2 * options.length, hidden),
        ("attention's output", full + wanted, hidden, hidden),
        ("feed-forward, in", full + wanted, hidden, inner),
        ("feed-forward, out", full + wanted, inner, hidden),
        ("transform", predicted, hidden, hidden),
        ("vocabulary", predicted, hidden, config.vocab_size),
    ]


def peer_operations(config: BertConfig, options: argparse.Namespace) -> float:
    """Floating-point operations of one step when every piece goes everywhere."""
    pieces, hidden = options.rows * options.length, config.hidden_size
    layer = 8 * hidden**2 + 4 * hidden * config.intermediate_size + 4 * options.length * hidden
    head = 2 * hidden**2 + 2 * hidden * config.vocab_size
    return 3.0 * pieces * (config.num_hidden_layers * layer + head)


def product_rates(config: BertConfig, options: Any, repetitions: int) -> dict[str, float]:
    """Measured operations a second of the step's own products, forward and both backward ones."""
    dtype = torch.bfloat16 if options.precision == "bf16" else torch.float32
    pieces = options.rows * options.length
    rates: dict[str, float] = {}
    for name, count, inner, columns in products(config, options):
        if name == "attention":
            size = config.hidden_size // config.num_attention_heads
            heads = options.rows * config.num_attention_heads
            x = torch.randn(heads, options.length, size).to(dtype)
            y = torch.randn(heads, size, options.length).to(dtype)
            calls = [lambda x=x, y=y: torch.bmm(x, y)]
            operations = 2.0 * heads * options.length**2 * size
        else:
            count = min(count, pieces) or 1
            columns = min(columns, 1024) if name == "vocabulary" else columns
            x, w = torch.randn(count, inner).to(dtype), torch.randn(columns, inner).to(dtype)
            g = torch.randn(count, columns).to(dtype)
            calls = [
                lambda x=x, w=w: x @ w.t(),
                lambda g=g, w=w: g @ w,
                lambda g=g, x=x: g.t() @ x,
            ]
            operations = 6.0 * count * inner * columns
        for call in calls:
            call()
        times = []
        for _ in range(repetitions):
            begun = time.perf_counter()
            for call in calls:
                call()
            times.append(time.perf_counter() - begun)
        rates[name] = operations / min(times)
    return rates


def copy_rate() -> float:
    """Bytes a second, read and written, of a large copy."""
    source = torch.zeros(16 << 20)
    target = torch.empty_like(source)
    times = []
    for _ in range(5):
        begun = time.perf_counter()
        target.copy_(source)
        times.append(time.perf_counter() - begun)
    return 2 * source.numel() * 4 / min(times)


def timed(step: Callable[[], None], steps: int) -> tuple[float, float]:
    """Seconds a step by the clock, and of processor time."""
    begun, used = time.perf_counter(), time.process_time()
    for _ in range(steps):
        step()
    return (time.perf_counter() - begun) / steps, (time.process_time() - used) / steps


def machine() -> dict[str, Any]:
    info = Path("/proc/cpuinfo")
    text = info.read_text(encoding="utf-8") if info.exists() else ""
    words = set(text.split())
    model = next((x.split(":")[1].strip() for x in text.splitlines() if "model name" in x), "")
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty", "--exclude=*"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parent,
        check=False,
    ).stdout.strip()
    return {
        "cpu": model or platform.processor(),
        "flags": [flag for flag in FLAGS if flag in words],
        "threads": torch.get_num_threads(),
        "wait_policy": os.environ["OMP_WAIT_POLICY"].lower(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
        "commit": commit,
    }


def measure(options: argparse.Namespace) -> dict[str, Any]:
    layers, hidden, heads = SHAPES[options.shape]
    config = BertConfig(num_hidden_layers=layers, hidden_size=hidden, num_attention_heads=heads)
    batch = rows(options, config.vocab_size)
    pieces = options.rows * options.length
    ours, theirs = our_step(config, batch, options), peer_step(config, batch, options)
    begun = time.perf_counter()
    ours()
    first = time.perf_counter() - begun
    for _ in range(2):
        ours()
        theirs()
    our_times, peer_times = [], []
    for _ in range(options.repetitions):
        our_times.append(timed(ours, options.steps))
        peer_times.append(timed(theirs, 1))
    rates = product_rates(config, options, repetitions=5)
    forward = {n: 2.0 * m * k * c for n, m, k, c in products(config, options)}
    floor = sum(3 * forward[n] / rates[n] for n in forward)
    ours_median, peer_median = (
        statistics.median(t[0] for t in times) for times in (our_times, peer_times)
    )
    ratios = [p[0] / o[0] for o, p in zip(our_times, peer_times, strict=True)]
    operations = 3 * sum(forward.values())
    return {
        "shape": options.shape,
        "precision": options.precision,
        "peer_precision": options.peer_precision,
        "compiled": options.compile,
        "rows": options.rows,
        "length": options.length,
        "predictions": options.predictions,
        "first_step_s": first,
        "ours_ms": ours_median * 1e3,
        "ours_best_ms": min(t[0] for t in our_times) * 1e3,
        "ours_cpu_ms": statistics.median(t[1] for t in our_times) * 1e3,
        "peer_ms": peer_median * 1e3,
        "peer_best_ms": min(t[0] for t in peer_times) * 1e3,
        "peer_cpu_ms": statistics.median(t[1] for t in peer_times) * 1e3,
        "ours_pieces_per_second": pieces / ours_median,
        "peer_pieces_per_second": pieces / peer_median,
        "ratio": statistics.median(ratios),
        "ratio_lowest": min(ratios),
        "ratio_highest": max(ratios),
        "ratio_of_best": min(t[0] for t in peer_times) / min(t[0] for t in our_times),
        "ratio_of_cpu": statistics.median(
            p[1] / o[1] for o, p in zip(our_times, peer_times, strict=True)
        ),
        "gigaflop": operations / 1e9,
        "peer_gigaflop": peer_operations(config, options) / 1e9,
        "product_rate_gigaflop_per_s": operations / floor / 1e9,
        "floor_ms": floor * 1e3,
        "share_of_floor": floor / min(t[0] for t in our_times),
        "copy_gb_per_s": copy_rate() / 1e9,
        **machine(),
    }


REPORT = """\
{shape}, {rows} x {length} pieces, {predictions} predictions a row, vocabulary 21,128, dropout 0.1
  {cpu}, {threads} threads, {flags}, {wait_policy} waits, load {load},
  torch {torch}, commit {commit}
  ours, {precision}, {how}: {ours_ms:.1f} ms ({ours_best_ms:.1f} at best, \
{ours_cpu_ms:.0f} of CPU), {ours_pieces_per_second:,.0f} pieces/s
    (the first step took {first_step_s:.1f} s)
  peer, {peer_precision}: {peer_ms:.1f} ms ({peer_best_ms:.1f} at best, {peer_cpu_ms:.0f} of CPU), \
{peer_pieces_per_second:,.0f} pieces/s
  ratio {ratio:.2f} (median; {ratio_lowest:.2f} to {ratio_highest:.2f}), \
{ratio_of_best:.2f} best against best, {ratio_of_cpu:.2f} by CPU time
  {gigaflop:.1f} GFLOP a step (the peer {peer_gigaflop:.1f}); its products alone run at \
{product_rate_gigaflop_per_s:.0f} GFLOP/s: floor {floor_ms:.1f} ms; \
at best {share_of_floor:.0%} of that speed
  copies run at {copy_gb_per_s:.1f} GB/s"""


def report(result: dict[str, Any]) -> str:
    how = "compiled" if result["compiled"] else "eager"
    return REPORT.format(**{**result, "flags": " ".join(result["flags"])}, how=how)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--peer-precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--predictions", type=int, default=19, help="a row; 15 %% of 128 is 19")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--steps", type=int, default=4, help="of ours in one repetition")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--no-compile", dest="compile", action="store_false")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    result = measure(options)
    print(json.dumps(result, indent=2) if options.json else report(result))


if __name__ == "__main__":
    main()
