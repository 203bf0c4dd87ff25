"""Check a recipe and say what it would do, without training.

zhbert check tiny
zhbert check bert-wwm-phase1 batch_size=1024 --corpus corpus
"""

from __future__ import annotations

import argparse
import dataclasses
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from zhbert.config import (
    Recipe,
    check_shape,
    flatten,
    load_recipe,
    recipe_path,
    recipe_to_toml,
    resolve_shape,
)
from zhbert.data.remarks import on_rows, on_text
from zhbert.options import add_recipe_arguments
from zhbert.runtime import total_memory
from zhbert.train.cost import BYTES_PER_PARAMETER, Hardware, Workload, micro_batch_rows
from zhbert.wording import counted, without_secrets
from zhbert.zoo.catalogue import find_card
from zhbert.zoo.origin import is_here

# Of the models that were published; a corpus says how large its own is.
DEFAULT_VOCABULARY_SIZE = 21128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the verb's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument(
        "--corpus", metavar="DIR", help="also count steps and epochs on this corpus"
    )


def run(args: argparse.Namespace) -> int:
    """Do what the command line says."""
    from zhbert import console

    result = check(args.recipe, args.overrides, corpus=args.corpus)
    if args.json:
        console.print_json(result)
        return 0
    import sys

    if not args.quiet:
        recipe = load_recipe(args.recipe, args.overrides)
        shape = resolve_shape(recipe.model, result["initial_shape"])
        sys.stdout.write(recipe_to_toml(dataclasses.replace(recipe, model=shape)) + "\n")
    lines = [
        ("parameters", f"{result['parameters']:,}"),
        ("pieces a step", f"at most {result['pieces_per_step']:,}"),
        ("micro-batch", f"{counted(result['micro_batch_size'], 'row')} on this machine's CPU"),
        ("memory", f"about {result['memory_bytes'] / 2**30:.2g} GiB on a CPU in fp32"),
        (
            "operations",
            f"{result['operations']:.2g} in all, {result['operations_per_step']:.2g} a step",
        ),
    ]
    if result["epochs"] is not None:
        lines.append(("corpus", f"{result['corpus_pieces']:,} pieces to train on"))
        lines.append(("epochs", f"about {result['epochs']:.3g}"))
    width = max(len(name) for name, _ in lines)
    for name, value in lines:
        sys.stdout.write(f"{name:<{width}}  {value}\n")
    for note in result["notes"]:
        sys.stdout.write(f"note: {note}\n")
    return 0


def check(
    recipe: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    corpus: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Validate a recipe and estimate its parameters, memory, operations and epochs.

    Raises ZhbertError for whatever ``pretrain`` would refuse in the recipe itself.
    """
    from zhbert.model.config import BertConfig, count_parameters_by_part

    settings = load_recipe(recipe, overrides)
    notes: list[str] = []
    initial = _initial_shape(settings, notes)
    shape = resolve_shape(settings.model, initial)
    check_shape(shape, settings.sequence_length, recipe_path(recipe).name)
    pieces = vocabulary_size = None
    if corpus is not None:
        vocabulary_size, pieces = _corpus_sizes(corpus, settings, notes)
    size = vocabulary_size or (initial or {}).get("vocab_size") or DEFAULT_VOCABULARY_SIZE
    config = BertConfig(vocab_size=size, **flatten(shape))
    parameters = sum(count_parameters_by_part(config).values())
    work = Workload.of_recipe(settings, shape, size)
    rows = settings.micro_batch_size or micro_batch_rows(
        settings.batch_size, work, Hardware(memory=total_memory())
    )
    per_step = settings.batch_size * settings.sequence_length
    operations = work.operations() * per_step
    needed = parameters * BYTES_PER_PARAMETER
    needed += work.activation_bytes() * rows * settings.sequence_length
    options = settings.optimizer
    if options.warmup_steps > max(settings.steps, options.schedule_steps):
        notes.append(
            f"optimizer.warmup_steps = {options.warmup_steps} is longer than steps = "
            f"{settings.steps}: the learning rate never reaches its peak"
        )
    return {
        "recipe": recipe_path(recipe).stem,
        "values": flatten(dataclasses.replace(settings, model=shape)),
        "initial_shape": initial,
        "parameters": parameters,
        "vocabulary_size": size,
        "pieces_per_step": per_step,
        "micro_batch_size": rows,
        "memory_bytes": needed,
        "operations_per_step": operations,
        "operations": operations * settings.steps,
        "corpus_pieces": pieces,
        "epochs": settings.steps * per_step / pieces if pieces else None,
        "notes": notes,
    }


def _corpus_sizes(
    folder: str | os.PathLike[str], recipe: Recipe, notes: list[str]
) -> tuple[int, int]:
    """The pieces of a corpus's vocabulary and of its text to train on."""
    from zhbert.data.shards import Corpus

    corpus = Corpus.open(Path(folder))
    pieces = sum(entry["pieces"] for entry in corpus.info["shards"]["train"])
    if not corpus.info["shards"]["held_out"]:
        notes.append(
            f"{folder}: no held-out documents: evaluation will be skipped; prepare it again "
            "with --held-out 0.01 --overwrite to have some"
        )
    rows = max(1, pieces // recipe.sequence_length)
    notes += on_text(corpus.info)
    notes += on_rows(corpus.info, recipe.rows.builder, rows, recipe.batch_size)
    return corpus.vocabulary_size, pieces


def _initial_shape(recipe: Recipe, notes: list[str]) -> dict[str, Any] | None:
    """The shape that the model to start from has, if it is there already."""
    if recipe.continue_from:
        former = Path(recipe.continue_from) / "recipe.toml"
        if former.is_file():
            return flatten(load_recipe(former).model)
        notes.append(f"continue_from = {recipe.continue_from}: not there yet")
    elif recipe.initial_model:
        if is_here(recipe.initial_model):
            from zhbert.model.config import BertConfig

            return BertConfig.from_pretrained(recipe.initial_model).to_dict()
        card = find_card(recipe.initial_model)
        if card is not None and card.opens_here:
            notes.append(f"initial_model = {recipe.initial_model}: fetched when training begins")
            return {
                "hidden_size": card.hidden_size,
                "num_hidden_layers": card.num_layers,
                "num_attention_heads": card.num_heads,
            }
        notes.append(f"initial_model = {without_secrets(recipe.initial_model)}: not there yet")
    return None
