"""What a recipe needs, from its shape alone: rows of a micro-batch, bytes and operations."""

from __future__ import annotations

from zhbert.config import ModelShape, Recipe
from zhbert.train.memory import Workload, micro_batch_rows


def auto_micro_batch_rows(
    recipe: Recipe,
    shape: ModelShape,
    vocabulary_size: int,
    rows: int,
    budget: int,
    flash_attention: bool,
    bytes_per_number: int,
) -> int:
    """The rows of a micro-batch whose activations fit into ``budget`` bytes."""
    work = workload(recipe, shape, vocabulary_size)
    each = work.activation_bytes(bytes_per_number, stored_attention=not flash_attention)
    return micro_batch_rows(rows, recipe.sequence_length, each, budget)


def workload(recipe: Recipe, shape: ModelShape, vocabulary_size: int) -> Workload:
    """The sizes from which memory and operations are estimated; the shape is resolved."""
    softmax, masking = recipe.softmax, recipe.masking
    if softmax.frequent:
        vocabulary_size = min(vocabulary_size, softmax.frequent + softmax.sampled)
    return Workload.of(
        shape,
        vocabulary_size=vocabulary_size,
        sequence_length=recipe.sequence_length,
        predicted_share=max(masking.rate, masking.final_rate or 0.0),
    )
