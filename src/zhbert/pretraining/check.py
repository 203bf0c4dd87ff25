"""Validation of a recipe and estimates of its memory, operations and epochs, without training."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zhbert.config import (
    ModelShape,
    Recipe,
    check_shape,
    flatten,
    load_recipe,
    recipe_path,
    resolve_shape,
    teachers_override,
)
from zhbert.data.masking import Masker
from zhbert.data.remarks import on_rows, on_text
from zhbert.model.config import BertConfig, count_parameters_by_part
from zhbert.pretraining.check_distillation import check_distillation
from zhbert.pretraining.check_gpus import GpuPlan
from zhbert.runtime import total_memory
from zhbert.train.cost import BYTES_PER_PARAMETER, Hardware, Workload, micro_batch_rows
from zhbert.wording import without_secrets
from zhbert.zoo.catalogue import find_card
from zhbert.zoo.origin import is_here

if TYPE_CHECKING:
    from zhbert.data.shards import Corpus

# The size of most published models' vocabulary, used if no corpus is given.
DEFAULT_VOCABULARY_SIZE = 21128


def check(
    recipe: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    corpus: str | os.PathLike[str] | None = None,
    teachers: Sequence[str] = (),
    device: str | None = None,
    gpus: int | None = None,
    price: float | None = None,
) -> dict[str, Any]:
    """Validate a recipe and estimate its parameters, memory, operations, time and epochs.

    Args:
        recipe: a recipe's name or path.
        overrides: ``key=value`` texts.
        corpus: a corpus folder, to count the epochs.
        teachers: the teachers of a distillation.
        device: a GPU in `zhbert.train.gpus.GPUS`; None: this machine's CPU.
        gpus: how many of them; None: one.
        price: of an hour of one GPU, in any currency.

    Returns:
        ``values``: every key of the recipe, with the model's resolved shape; ``initial_shape``: the
        shape of the model to start from, if any; ``distillation``: what is learnt from which
        teacher, if anything; ``gpu``: what the run takes on GPUs, if ``device`` names one;
        ``notes``: remarks, one line each; and numbers by name, in which teachers are included.
        Memory and micro-batches are for training on each of the GPUs, or on this machine's CPU in
        fp32.

    Raises:
        ZhbertError: ``pretrain`` or ``distill`` would not accept the recipe, or the GPUs have too
            little memory.
    """
    settings = load_recipe(recipe, [*overrides, *teachers_override(teachers)])
    where = recipe_path(recipe).name
    plan = None
    if device is not None or gpus is not None or price is not None:
        plan = GpuPlan.of(settings, device, 1 if gpus is None else gpus, price)
    notes: list[str] = []
    initial = _initial_shape(settings, notes)
    shape = resolve_shape(settings.model, initial)
    check_shape(shape, settings.sequence_length, where)
    opened = pieces = size = None
    if corpus is not None:
        opened = _open_corpus(corpus)
        size, pieces = opened.vocabulary_size, _count_pieces(opened, settings, notes)
        Masker(settings.masking, opened.tokenizer().vocabulary)
    size = size or (initial or {}).get("vocab_size") or DEFAULT_VOCABULARY_SIZE
    work = Workload.of_recipe(settings, shape, size)
    costs = _costs(settings, shape, work, size, plan)
    distillation = None
    if settings.distill is not None:
        distillation = check_distillation(settings, shape, size, opened, notes)
        costs["memory_bytes"] += distillation["memory_bytes"]
        costs["operations_per_step"] += distillation["operations_per_step"]
        costs["operations"] += distillation["operations_per_step"] * settings.steps
    outcome = None
    if plan is not None:
        outcome = plan.outcome(work, costs, where)
        notes += plan.notes(work, costs)
    per_step = settings.batch_size * settings.sequence_length
    options = settings.optimizer
    if options.warmup_steps > max(settings.steps, options.schedule_steps):
        notes.append(
            f"optimizer.warmup_steps = {options.warmup_steps} is longer than steps = "
            f"{settings.steps}: the learning rate never reaches its peak"
        )
    return {
        "recipe": recipe_path(recipe).stem,
        "values": _values(dataclasses.replace(settings, model=shape)),
        "initial_shape": initial,
        **costs,
        "gpu": outcome,
        "distillation": distillation,
        "corpus_pieces": pieces,
        "epochs": settings.steps * per_step / pieces if pieces else None,
        "notes": notes,
    }


def _values(recipe: Recipe) -> dict[str, Any]:
    """Return every key of the recipe, and its value as JSON data."""
    values = flatten(recipe)
    if recipe.distill is not None:
        values["distill.matches"] = [dataclasses.asdict(match) for match in recipe.distill.matches]
    return values


def _costs(
    recipe: Recipe, shape: ModelShape, work: Workload, vocabulary_size: int, plan: GpuPlan | None
) -> dict[str, Any]:
    config = BertConfig(vocab_size=vocabulary_size, **flatten(shape))
    parameters = sum(count_parameters_by_part(config).values())
    if plan is not None:
        rows = plan.micro_batch_rows(work)
        memory = plan.memory_bytes(work, parameters, rows)
    else:
        rows = recipe.micro_batch_size or micro_batch_rows(
            recipe.batch_size, work, Hardware(memory=total_memory())
        )
        activations = work.activation_bytes() * rows * recipe.sequence_length
        memory = parameters * BYTES_PER_PARAMETER + activations
    pieces = recipe.batch_size * recipe.sequence_length
    operations = work.operations() * pieces
    return {
        "parameters": parameters,
        "vocabulary_size": vocabulary_size,
        "pieces_per_step": pieces,
        "micro_batch_size": rows,
        "memory_bytes": memory,
        "operations_per_step": operations,
        "operations": operations * recipe.steps,
    }


def _open_corpus(folder: str | os.PathLike[str]) -> Corpus:
    from zhbert.data.shards import Corpus

    return Corpus.open(Path(folder))


def _count_pieces(corpus: Corpus, recipe: Recipe, notes: list[str]) -> int:
    """Count the pieces of a corpus's training text; note what is odd about it."""
    pieces = int(sum(entry["pieces"] for entry in corpus.info["shards"]["train"]))
    if not corpus.info["shards"]["held_out"]:
        notes.append(
            f"{corpus.folder}: no held-out documents: evaluation will be skipped; prepare it again "
            "with --held-out 0.01 --overwrite to have some"
        )
    rows = max(1, pieces // recipe.sequence_length)
    notes += on_text(corpus.info)
    notes += on_rows(corpus.info, recipe.rows.builder, rows, recipe.batch_size)
    return pieces


def _initial_shape(recipe: Recipe, notes: list[str]) -> dict[str, Any] | None:
    """Return the shape of the model to start from; None if there is none."""
    if recipe.continue_from:
        former = Path(recipe.continue_from) / "recipe.toml"
        if former.is_file():
            return flatten(load_recipe(former).model)
        notes.append(_not_found("continue_from", recipe.continue_from))
    elif recipe.initial_model:
        if is_here(recipe.initial_model):
            return BertConfig.from_pretrained(recipe.initial_model).to_dict()
        card = find_card(recipe.initial_model)
        if card is not None and card.opens_here:
            notes.append(f"initial_model = {recipe.initial_model}: fetched when training begins")
            return {
                "hidden_size": card.hidden_size,
                "num_hidden_layers": card.num_layers,
                "num_attention_heads": card.num_heads,
            }
        notes.append(_not_found("initial_model", recipe.initial_model))
    return None


def _not_found(key: str, name: str) -> str:
    return f"{key} = {without_secrets(name)}: not found; training would stop there"
