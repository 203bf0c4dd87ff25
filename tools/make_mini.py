"""Make the model of the package, src/zhbert/assets/zhbert-mini, from a run of 'zhbert pretrain'::

python tools/make_mini.py RUN                                   (the weights, the recipe)
python tools/make_mini.py --corpus CORPUS --tasks RUN [RUN ...] (its scores, measured or read)

The weights are halved and lose the heads that were never trained. Scores stand in scores.json:
masked accuracy on the held-out part of CORPUS and the set phrases of benchmarks/set_phrases.py are
measured here, with the halved weights; those of fine-tuned tasks are read from the folders of
'zhbert finetune --model mini'. The model card and the checksums are made anew at every call.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from zhbert import BertConfig, Tokenizer
from zhbert.config import load_recipe, recipe_to_toml
from zhbert.files import read_json, write_json, write_text
from zhbert.jobs.convert import convert
from zhbert.jobs.masked_accuracy import masked_accuracy
from zhbert.jobs.models import score_facts
from zhbert.model.checkpoint import open_checkpoint
from zhbert.report.runs import FineTuningRun, PretrainingRun, read_runs
from zhbert.zoo.packaged import DEFAULT, FOLDER, write_checksums

ROOT = Path(__file__).parent.parent
MOST_BYTES = 18_000_000
RECIPE_HEAD = """\
# The recipe of zhbert-mini, every setting of it
#
#   zhbert pretrain mini.toml --corpus CORPUS --out RUN
"""


def make_model(run: Path, out: Path) -> None:
    """Write config.json, model.safetensors, the tokenizer's files and the recipe."""
    convert(
        run / "final", out, "safetensors",
        dtype="float16", drop_untrained_heads=True, overwrite=True,
    )  # fmt: skip
    # transformers computes in the type that is named here, and half precision is slow on a CPU,
    # and no type to fine-tune in.
    config = read_json(out / "config.json", dict, "a model's configuration")
    write_json(out / "config.json", config | {"dtype": "float32"})
    # 0.3 MB that both transformers make of vocab.txt themselves.
    before = Tokenizer.from_pretrained(out).fingerprint()
    (out / "tokenizer.json").unlink()
    assert Tokenizer.from_pretrained(out).fingerprint() == before
    recipe = load_recipe(run / "recipe.toml")
    # Where it went on from is a folder of whoever trained it.
    recipe = dataclasses.replace(
        recipe,
        initial_model=Path(recipe.initial_model).name,
        continue_from=Path(recipe.continue_from).name,
    )
    write_text(out / "mini.toml", RECIPE_HEAD + recipe_to_toml(recipe))


def training_of(run: Path) -> dict[str, Any]:
    """What the training was: steps, pieces, seconds, device."""
    (found,) = read_runs([run])
    assert isinstance(found, PretrainingRun)
    return {
        "steps": found.last_step,
        "pieces": found.pieces,
        "seconds": round(found.seconds),
        "device": found.origin["gpu"] or found.origin["cpu"],
        "precision": found.origin["precision"],
    }


def set_phrases(model: Path) -> dict[str, int]:
    """How many set phrases the model completes."""
    script = ROOT / "benchmarks" / "set_phrases.py"
    command = [sys.executable, str(script), str(model), "--json"]
    done = subprocess.run(command, stdout=subprocess.PIPE, encoding="utf-8", check=True)
    (found,) = json.loads(done.stdout)
    return {key: found[key] for key in ("phrases", "top1", "top5")}


def task_scores(folders: list[str]) -> dict[str, Any]:
    """The deciding metric of each run of 'zhbert finetune', in per cent."""
    scores = {}
    for run in read_runs(folders):
        assert isinstance(run, FineTuningRun)
        spread = run.scores[run.main_metric]
        scores[run.task] = {
            "metric": run.main_metric,
            "split": run.split,
            "mean": round(spread.mean, 2),
            "std": None if spread.std is None else round(spread.std, 2),
            "seeds": len(spread.values),
        }
    return scores


def model_card(folder: Path) -> str:
    """The README.md of a folder, from the template and what lies there."""
    config = BertConfig.from_pretrained(folder)
    scores = read_json(folder / "scores.json", dict, "scores")
    recipe = load_recipe(folder / "mini.toml")
    parameters = sum(entry.read().numel() for entry in open_checkpoint(folder).entries.values())
    training = scores["training"]
    values = {
        name: f"{value:,}" if isinstance(value, int) else value
        for name, value in config.to_dict().items()
    }
    template = (ROOT / "tools" / "mini_card.md").read_text(encoding="utf-8")
    return template.format(
        **values,
        parameters=f"{parameters:,}",
        training=(
            f"{training['steps']:,} steps of rows of up to {recipe.sequence_length:,} pieces, "
            f"{training['pieces'] / 1e6:,.0f} M pieces in all, "
            f"{training['seconds'] / 60:,.0f} minutes on {training['device']} in "
            f"{training['precision']}; every setting stands in `mini.toml`."
        ),
        scores="\n".join(
            ["| | |", "|---|---|", *(f"| {a} | {b} |" for a, b in score_facts(scores))]
        ),
    )


def main() -> None:
    """Make what the arguments name, and what depends on it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", nargs="?", type=Path, metavar="RUN")
    parser.add_argument("--corpus", metavar="CORPUS")
    parser.add_argument("--tasks", nargs="+", default=[], metavar="RUN")
    args = parser.parse_args()
    folder = FOLDER / DEFAULT
    file = folder / "scores.json"
    scores = read_json(file, dict, "scores") if file.is_file() else {}
    if args.run is not None:
        make_model(args.run, folder)
        # Other weights have other scores.
        scores = {"training": training_of(args.run)}
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
