"""Make the model of the package, src/zhbert/assets/zhbert-mini, from a run of 'zhbert pretrain'::

python tools/make_mini.py RUN [RUN ...]                         (the weights, the recipes)
python tools/make_mini.py --corpus CORPUS --tasks RUN [RUN ...] (its scores, measured or read)

Several runs are the phases of one training, in their order: the last one's weights are taken. They
are halved and lose the heads that were never trained. Scores stand in scores.json:
masked accuracy on the held-out part of CORPUS and the set phrases of benchmarks/set_phrases.py are
measured here, with the halved weights; those of fine-tuned tasks are read from the summary.json of
'zhbert finetune --model mini'. The model card and the checksums are made anew at every call.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

from zhbert import BertConfig, Tokenizer
from zhbert.config import load_recipe, recipe_to_toml
from zhbert.export.convert import convert
from zhbert.files import read_json, write_json, write_text
from zhbert.model.checkpoint import open_checkpoint
from zhbert.model.published import score_facts
from zhbert.pretraining.masked_accuracy import masked_accuracy
from zhbert.report.runs import PretrainingRun, read_runs
from zhbert.zoo.packaged import DEFAULT, FOLDER, write_checksums

ROOT = Path(__file__).parent.parent
MOST_BYTES = 18_000_000
RECIPE_HEAD = """\
# A phase of the training of zhbert-mini, every setting of it
#
#   zhbert pretrain {name} --corpus CORPUS --out RUN
"""


def make_model(runs: list[Path], out: Path) -> None:
    """Write config.json, model.safetensors, the tokenizer's files and the recipes."""
    convert(
        runs[-1] / "final", out, "safetensors",
        dtype="float16", drop_untrained_heads=True, overwrite=True,
    )  # fmt: skip
    # transformers computes in the type that is named here; half precision is slow on a CPU, and
    # no type to fine-tune in.
    config = read_json(out / "config.json", dict, "a model's configuration")
    write_json(out / "config.json", config | {"dtype": "float32"})
    # 0.3 MB that both transformers make of vocab.txt themselves.
    before = Tokenizer.from_pretrained(out).fingerprint()
    (out / "tokenizer.json").unlink()
    assert Tokenizer.from_pretrained(out).fingerprint() == before
    for phase, run in enumerate(runs):
        recipe = load_recipe(run / "recipe.toml")
        # What it started from is a folder of whoever trained it.
        start = f"PHASE-{phase}/final" if phase else ""
        assert bool(recipe.initial_model) == bool(start), f"{run}: not phase {phase + 1}"
        recipe = dataclasses.replace(recipe, initial_model=start)
        name = f"phase-{phase + 1}.toml"
        write_text(out / name, RECIPE_HEAD.format(name=name) + recipe_to_toml(recipe))


def training_of(runs: list[Path]) -> list[dict[str, Any]]:
    """What the phases of the training were: steps, pieces, seconds, device."""
    phases = []
    for found in read_runs(runs):
        assert isinstance(found, PretrainingRun)
        phases.append(
            {
                "steps": found.last_step,
                "pieces": found.pieces,
                "seconds": round(found.seconds),
                "device": found.origin["gpu"] or found.origin["cpu"],
                "precision": found.origin["precision"],
            }
        )
    return phases


def set_phrases(model: Path) -> dict[str, int]:
    """How many set phrases the model completes."""
    script = ROOT / "benchmarks" / "set_phrases.py"
    command = [sys.executable, str(script), str(model), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    (found,) = json.loads(done.stdout)
    return {key: found[key] for key in ("phrases", "top1", "top5")}


def task_scores(folders: list[Path]) -> dict[str, Any]:
    """The deciding metric of each run of 'zhbert finetune', in per cent, and how it was reached."""
    scores = {}
    for folder in folders:
        found = read_json(folder / "summary.json", dict, "a summary of 'zhbert finetune'")
        spread = found["metrics"][found["main_metric"]]
        scores[found["task"]] = {
            "metric": found["main_metric"],
            "split": found["split"],
            **{key: spread[key] and round(spread[key], 2) for key in ("mean", "std")},
            "seeds": len(spread["values"]),
            "epochs": found["settings"]["epochs"],
            "learning_rate": found["settings"]["optimizer.learning_rate"],
            "note": found["split_note"].partition(": ")[2],
        }
    return scores


def model_card(folder: Path) -> str:
    """The README.md of a folder, from the template and what lies there."""
    shape = BertConfig.from_pretrained(folder).to_dict().items()
    scores = read_json(folder / "scores.json", dict, "scores")
    tensors = open_checkpoint(folder).entries.values()
    training = [
        f"- `phase-{number}.toml`: {one['steps']:,} steps, {one['pieces'] / 1e6:,.0f} M pieces, "
        f"{one['seconds'] / 60:.1f} minutes on one {one['device']} in {one['precision']}\n"
        for number, one in enumerate(scores["training"], 1)
    ]
    rows = [f"| {what} | {figure} |\n" for what, figure in score_facts(scores)]
    template = (ROOT / "tools" / "mini_card.md").read_text(encoding="utf-8")
    return template.format(
        **{name: f"{value:,}" for name, value in shape if isinstance(value, int)},
        parameters=f"{sum(math.prod(entry.shape) for entry in tensors):,}",
        training="".join(training),
        scores="".join(rows),
    )


def main() -> None:
    """Make what the arguments name, and what depends on it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="*", type=Path, metavar="RUN")
    parser.add_argument("--corpus", metavar="CORPUS")
    parser.add_argument("--tasks", nargs="+", type=Path, default=[], metavar="RUN")
    args = parser.parse_args()
    folder = FOLDER / DEFAULT
    file = folder / "scores.json"
    scores = read_json(file, dict, "scores") if file.is_file() else {}
    if args.runs:
        make_model(args.runs, folder)
        # Other weights have other scores.
        scores = {"training": training_of(args.runs)}
    if args.corpus is not None:
        scores["held_out"] = masked_accuracy(folder, args.corpus)
        scores["set_phrases"] = set_phrases(folder)
    scores["tasks"] = scores.pop("tasks", {}) | task_scores(args.tasks)
    write_json(file, scores)
    write_text(folder / "README.md", model_card(folder))
    write_checksums(folder)
    size = sum(path.stat().st_size for path in folder.iterdir())
    print(f"{folder}: {size:,} bytes of {MOST_BYTES:,}")
    if size > MOST_BYTES:
        raise SystemExit("too large")


if __name__ == "__main__":
    main()
