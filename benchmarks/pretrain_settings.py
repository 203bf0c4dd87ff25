"""Which settings of pretraining pay: variants of a recipe at equal time, several seeds of each.

    python benchmarks/pretrain_settings.py tiny --corpus CORPUS --minutes 18 --seeds 3
    python benchmarks/pretrain_settings.py tiny --corpus CORPUS --variants today muon --minutes 5
    python benchmarks/pretrain_settings.py mini --corpus CORPUS --only optimizer.learning_rate=1e-3

A variant is a list of overrides of RECIPE (VARIANTS below; ``--only`` makes one from the command
line). Its seconds a step are measured first, in steps of the processor's time and not of the
clock's, so that other programs do not matter; then each gets as many steps as fit into the minutes,
and is trained with every seed. Printed: held-out loss and accuracy with single characters and with
whole words masked, mean and spread over the seeds; with --json all of it.

    zhbert finetune lcqmc --model OUT/muon-0/final --data tasks/lcqmc --out ...

fine-tunes what lies in --out afterwards. One core: set OMP_NUM_THREADS=1 or pass threads=1.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

# What the recipe tiny was until its settings were searched.
BEFORE = [
    "optimizer.name=adamw", "optimizer.learning_rate=2e-3", "initial_weights=bert",
    "masking.rate=0.15", "masking.max_predictions=20", "softmax.frequent=0",
]  # fmt: skip
FULL = ["softmax.frequent=0"]
VARIANTS: dict[str, list[str]] = {
    "recipe": [],
    "today": BEFORE,
    "muon": ["masking.rate=0.15", *FULL],
    "adamw": ["optimizer.name=adamw", "optimizer.learning_rate=2e-3"],
    "rate-30": ["masking.rate=0.3"],
    "rate-30-full": ["masking.rate=0.3", *FULL],
    "rate-50": ["masking.rate=0.5"],
    "rate-stays": ["masking.final_rate=0.3"],
    "frequent-6000": ["softmax.frequent=6000", "softmax.sampled=2048"],
    "learning-rate-2e-3": ["optimizer.learning_rate=2e-3"],
    "learning-rate-8e-3": ["optimizer.learning_rate=8e-3"],
    "beta2-0.98": ["optimizer.beta2=0.98"],
    "cosine": ["optimizer.schedule=cosine"],
    "long-rows": ["rows.warmup_share=0"],
    "three-lengths": ["rows.warmup_share=[0.2,0.25]", "rows.warmup_length=[32,64]"],
    "batch-32": ["batch_size=32"],
    "bert-weights": ["initial_weights=bert"],
    "no-kept": ["masking.mask_share=0.9"],
    "char": ["masking.strategy=char"],
    "half-char": ["masking.char_share=0.5"],
}
# Steps of the run that measures how long one takes; the first of them also compile.
PROBE = 40


def pretrain(recipe: str, corpus: Path, out: Path, overrides: list[str]) -> float:
    """Train, and return the processor's seconds that it took, of all threads."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = [sys.executable, "-m", "zhbert", "pretrain", recipe, "--corpus", str(corpus)]
    subprocess.run([*command, "--out", str(out), "--overwrite", "--quiet", *overrides], check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def seconds_a_step(recipe: str, corpus: Path, out: Path, overrides: list[str]) -> float:
    """The processor's seconds of one more step: of a longer run less a shorter one."""
    quiet = [*overrides, "evaluation.rows=0", "checkpoint_every=0", "optimizer.warmup_steps=1"]
    short, long = (
        pretrain(recipe, corpus, out, [*quiet, f"steps={steps}"]) for steps in (PROBE, 3 * PROBE)
    )
    return max(1e-4, (long - short) / (2 * PROBE))


def measured(run: Path) -> dict[str, dict[str, float]]:
    """The last evaluation of a run: loss and accuracy (in per cent) by kind of masks."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {
        line["evaluation"]: {
            "loss": line["masked_lm_loss"],
            "accuracy": 100 * line["masked_lm_accuracy"],
        }
        for line in lines
        if "evaluation" in line
    }


def row(name: str, steps: int, results: list[dict[str, dict[str, float]]]) -> str:
    """One line of the table."""
    cells = []
    for masks in ("char", "wwm"):
        for what in ("accuracy", "loss"):
            values = [result[masks][what] for result in results]
            spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.2f}{spread}")
    return f"| {name} | {steps:,} | " + " | ".join(cells) + " |"


def main() -> None:
    """Measure the variants and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("recipe", metavar="RECIPE")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("runs/settings"))
    parser.add_argument("--minutes", type=float, default=18.0, help="of the processor, a run")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--only", nargs="+", metavar="key=value", help="one variant, of these")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    variants = {"only": options.only} if options.only else {
        name: VARIANTS[name] for name in options.variants
    }  # fmt: skip
    everything: list[dict[str, Any]] = []
    print("| variant | steps | char accuracy | char loss | wwm accuracy | wwm loss |")
    print("|---|---|---|---|---|---|")
    for name, overrides in variants.items():
        each = seconds_a_step(options.recipe, options.corpus, options.out / "probe", overrides)
        steps = max(PROBE, int(60 * options.minutes / each))
        results = []
        for seed in range(options.seeds):
            run = options.out / f"{name}-{seed}"
            seconds = pretrain(
                options.recipe, options.corpus, run, [*overrides, f"steps={steps}", f"seed={seed}"]
            )
            results.append(measured(run))
            everything.append(
                {"variant": name, "overrides": overrides, "seed": seed, "steps": steps,
                 "seconds": seconds, **results[-1]}
            )  # fmt: skip
        print(row(name, steps, results), flush=True)
    if options.json:
        print(json.dumps(everything, indent=1))


if __name__ == "__main__":
    main()
