"""A step of distillation beside a plain step and the teacher's forward pass, in one process.

python benchmarks/distill.py                              # tiny (2 x 128) learns from zhbert-mini
python benchmarks/distill.py --shape 4x312 --rows 8       # 4 x 312 from 12 x 768, random weights
python benchmarks/distill.py --precision bf16 --json

All steps are those of the training loop: forward, backward, clipping and AdamW, by the objective of
`zhbert distill`; whole rows, on the CPU. The steps are alternated, and the ratios are medians over
the rounds:

- distill: soft labels over the vocabulary, against a plain step + the teacher's forward pass with
  its scores of all pieces (aim: 1.2)
- top_k: soft labels over the teacher's 10 best pieces, against the same
- cached: these 10 pieces from the disk, without the teacher, against a plain step (aim: 1.15)

The floor of a ratio counts the operations of matrix products alone: all that a step of distillation
must add to both is none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

# The first import sets how threads wait, which torch reads.
from train_step import CLIP_NORM, LEARNING_RATE, autocast, machine, products, rows, timed

# isort: split
import torch

from zhbert.config import DistillSettings
from zhbert.data.loader import MaskedBatch
from zhbert.distill.cache import TaughtBatch, read_records, to_records, type_of_records
from zhbert.distill.matcher import Projections
from zhbert.distill.matching import MatchPlan
from zhbert.model import native
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining
from zhbert.pretraining.distillation import DistillationObjective
from zhbert.pretraining.objective import PretrainingObjective
from zhbert.train.cost import MAX_PADDED_TOKENS
from zhbert.train.optim import AdamW, global_norm

Step = Callable[[], None]

# Student and teacher: layers, hidden size, heads; a name: the packaged model.
SHAPES: dict[str, tuple[tuple[int, int, int], tuple[int, int, int] | str]] = {
    "tiny": ((2, 128, 2), "mini"),
    "4x312": ((4, 312, 12), (12, 768, 12)),
}
TOP_K = 10


def model_of(shape: tuple[int, int, int] | str) -> BertForPreTraining:
    if isinstance(shape, str):
        return BertForPreTraining.from_pretrained(shape, quiet=True)
    layers, hidden, heads = shape
    config = BertConfig(
        vocab_size=21128,
        num_hidden_layers=layers,
        hidden_size=hidden,
        num_attention_heads=heads,
        intermediate_size=4 * hidden,
    )
    return BertForPreTraining(config)


class Steps:
    """The steps that are compared, on one batch."""

    def __init__(self, options: argparse.Namespace) -> None:
        own, theirs = SHAPES[options.shape]
        self.options = options
        self.teacher = model_of(theirs).eval().requires_grad_(False)
        self.student = model_of(own)
        self.config = self.student.config
        batch = rows(options, self.config.vocab_size)
        self.batch = MaskedBatch(
            packed=batch["batch"],
            predicted_positions=batch["predicted_positions"],
            labels=batch["labels"],
            next_sentence_labels=None,
            dropped_pieces=0,
        )
        # As `zhbert.distill.teacher` opens it.
        self.teacher.to(torch.bfloat16 if options.precision == "bf16" else torch.float32)
        native.pack(self.teacher.encoder, MAX_PADDED_TOKENS)

    def objective(self, **settings: Any) -> DistillationObjective:
        teaching: Any = SimpleNamespace(
            settings=DistillSettings(**settings),
            teachers=[SimpleNamespace(model=self.teacher)],
            plan=MatchPlan(),
        )
        return DistillationObjective(PretrainingObjective(), teaching)

    def step(self, objective: Any, batch: MaskedBatch | None = None) -> Step:
        """Return a step that trains a copy of the student."""
        model = model_of(SHAPES[self.options.shape][0]).train()
        model.pooler.requires_grad_(False)
        model.nsp_head.requires_grad_(False)
        model.add_matching(Projections(MatchPlan(), 0))
        if self.options.compile:
            model.compile_layers()
        parameters = [p for p in model.parameters() if p.requires_grad]
        optimizer = AdamW((n, p) for n, p in model.named_parameters() if p.requires_grad)
        seeds = iter(range(1 << 60))
        given = self.batch if batch is None else batch

        def step() -> None:
            with autocast(self.options.precision):
                sums, _ = objective(model, given, next(seeds))
            (sums.sum() / len(given.labels)).backward()
            divisor = (global_norm(parameters) / CLIP_NORM).clamp_min(1.0)
            optimizer.step(LEARNING_RATE, divisor)
            for parameter in parameters:
                parameter.grad = None

        return step

    def forward(self, top_k: int) -> Step:
        """Return the teacher's forward pass."""
        head, words = self.teacher.mlm_head, self.teacher.encoder.embeddings.words.weight

        def run() -> None:
            with torch.no_grad():
                hidden, _ = self.teacher.states_for_heads(
                    self.batch.packed, self.batch.predicted_positions, with_first=False
                )
                head.best(hidden, words, top_k) if top_k else head.scores(hidden, words)

        return run

    def cached(self, folder: Path) -> TaughtBatch:
        """Return the batch with the teacher's best pieces as they come from the disk."""
        best = self.objective(top_k=TOP_K).best_pieces(self.batch)
        kind = type_of_records(TOP_K, self.config.vocab_size)
        (folder / "labels").write_bytes(to_records(best, kind).tobytes())
        import numpy as np

        return TaughtBatch(
            **vars(self.batch), best=read_records(np.memmap(folder / "labels", kind, "r"))
        )


def measure(options: argparse.Namespace) -> dict[str, Any]:
    torch.manual_seed(0)
    made = Steps(options)
    with tempfile.TemporaryDirectory() as folder:
        top_k = made.objective(top_k=TOP_K)
        steps = {
            "plain": made.step(PretrainingObjective()),
            "teacher": made.forward(0),
            "distill": made.step(made.objective()),
            "mse": made.step(made.objective(soft_labels="mse")),
            "teacher_top_k": made.forward(TOP_K),
            "top_k": made.step(top_k),
            "cached": made.step(top_k, made.cached(Path(folder))),
        }
        for step in steps.values():
            for _ in range(2):
                step()
        times: dict[str, list[tuple[float, float]]] = {name: [] for name in steps}
        for _ in range(options.repetitions):
            for name, step in steps.items():
                times[name].append(timed(step, options.steps))

    def ratio(name: str, *parts: str) -> dict[str, float]:
        by = [
            [
                times[name][i][clock] / sum(times[part][i][clock] for part in parts)
                for i in range(options.repetitions)
            ]
            for clock in (0, 1)
        ]
        median, cpu = map(statistics.median, by)
        return {"median": median, "lowest": min(by[0]), "highest": max(by[0]), "of_cpu": cpu}

    student, teacher = (
        {n: 2.0 * m * k * c for n, m, k, c in products(model.config, options)}
        for model in (made.student, made.teacher)
    )
    return {
        "shape": options.shape,
        "precision": options.precision,
        "compiled": options.compile,
        "rows": options.rows,
        "length": options.length,
        "predictions": options.predictions,
        "ms": {n: statistics.median(t[0] for t in ts) * 1e3 for n, ts in times.items()},
        "cpu_ms": {n: statistics.median(t[1] for t in ts) * 1e3 for n, ts in times.items()},
        "ratios": {
            "distill": ratio("distill", "plain", "teacher"),
            "mse": ratio("mse", "plain", "teacher"),
            "top_k": ratio("top_k", "plain", "teacher_top_k"),
            "cached": ratio("cached", "plain"),
        },
        "gigaflop": {
            "plain": 3 * sum(student.values()) / 1e9,
            "teacher": sum(teacher.values()) / 1e9,
        },
        **machine(),
    }


def report(result: dict[str, Any]) -> str:
    lines = [
        f"{result['shape']}, {result['precision']}, {result['rows']} x {result['length']} pieces, "
        f"{result['predictions']} predictions a row, vocabulary 21,128",
        f"  {result['cpu']}, {result['threads']} threads, {' '.join(result['flags'])}, load "
        f"{result['load']}, torch {result['torch']}, commit {result['commit']}",
    ]
    for name, milliseconds in result["ms"].items():
        flop = result["gigaflop"].get(name)
        work = f", {flop:.1f} GFLOP in products" if flop else ""
        lines.append(
            f"  {name:14} {milliseconds:8.1f} ms ({result['cpu_ms'][name]:.0f} of CPU){work}"
        )
    for name, found in result["ratios"].items():
        parts = {"cached": "plain", "top_k": "(plain + teacher_top_k)"}
        lines.append(
            f"  {name} / {parts.get(name, '(plain + teacher)')}: {found['median']:.2f} "
            f"({found['lowest']:.2f} to {found['highest']:.2f}), {found['of_cpu']:.2f} by CPU time"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--length", type=int, default=128)
    parser.add_argument("--predictions", type=int, default=19, help="a row; 15 %% of 128 is 19")
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--steps", type=int, default=2, help="in one repetition")
    parser.add_argument("--threads", type=int, default=0, help="0: torch's own choice")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    if options.threads:
        torch.set_num_threads(options.threads)
    result = measure(options)
    print(json.dumps(result, indent=2) if options.json else report(result))


if __name__ == "__main__":
    main()
