"""Estimates of what a training step needs, from the shape alone; no torch here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zhbert.runtime import has_compiler

# Single-precision weights, gradients and the optimiser's two running means.
BYTES_PER_PARAMETER = 16
PREDICTED_SHARE = 0.15
# With ``compile = "auto"``, shorter runs would spend more on compiling than they gain. Compiling
# takes up to a minute on two cores and gains 5 to 20 % on a CPU: it pays from 15 minutes on, which
# is about so many operations.
COMPILE_FROM_STEPS = 500
COMPILE_FROM_OPERATIONS_ON_CPU = 1e14


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The sizes that decide a step's memory and operations."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocabulary_size: int
    """Pieces that a prediction is compared with."""
    sequence_length: int
    predicted_share: float = PREDICTED_SHARE
    """Of the pieces: those that are predicted, at most."""

    @classmethod
    def of(
        cls,
        shape: Any,
        *,
        vocabulary_size: int,
        sequence_length: int,
        predicted_share: float = PREDICTED_SHARE,
    ) -> Workload:
        """The sizes of a model's configuration, or of a recipe's resolved shape."""
        return cls(
            predicted_share=predicted_share,
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
            intermediate_size=shape.intermediate_size,
            vocabulary_size=vocabulary_size,
            sequence_length=sequence_length,
        )

    def activation_bytes(self, bytes_per_number: int = 4, stored_attention: bool = True) -> int:
        """Bytes that one piece leaves behind for the backward pass.

        ``stored_attention``: the attention weights are kept, as on a CPU; flash attention on a GPU
        recomputes them.
        """
        layer = 14 * self.hidden_size + 3 * self.intermediate_size
        if stored_attention:
            layer += 3 * self.num_attention_heads * self.sequence_length
        logits = self.predicted_share * self.vocabulary_size * 4 * 2
        return int(self.num_hidden_layers * layer * bytes_per_number + logits)

    def operations(self) -> float:
        """Floating-point operations of one piece, forward and backward (three times forward)."""
        layer = 8 * self.hidden_size**2 + 4 * self.hidden_size * self.intermediate_size
        layer += 4 * self.sequence_length * self.hidden_size
        head = (
            self.predicted_share
            * 2
            * (self.hidden_size**2 + self.hidden_size * self.vocabulary_size)
        )
        return 3.0 * (self.num_hidden_layers * layer + head)


def memory_budget(memory: int, on_gpu: bool, processes: int = 1) -> int:
    """The bytes that a micro-batch's activations may take, of so much memory."""
    # On a CPU a larger batch gains nothing beyond a few thousand pieces.
    return memory // 3 if on_gpu else min(memory // (8 * processes), 2**31)


def micro_batch_rows(rows: int, sequence_length: int, bytes_per_piece: int, budget: int) -> int:
    """Rows of one micro-batch: as few micro-batches as fit the budget, all about equally large.

    >>> micro_batch_rows(32, 128, 64_000, 2**31), micro_batch_rows(384, 512, 500_000, 2**31)
    (32, 8)
    """
    most = max(1, budget // (bytes_per_piece * sequence_length))
    parts = -(-rows // most)
    return -(-rows // parts)


def compile_layers(
    model: Any,
    choice: str,
    *,
    steps: int,
    operations: float,
    on_cpu: bool,
    say: Callable[[str], None],
) -> None:
    """Compile a model's layers if ``choice`` is "yes", or "auto" and the whole run gains by it."""
    short = steps < COMPILE_FROM_STEPS
    short = short or (on_cpu and operations < COMPILE_FROM_OPERATIONS_ON_CPU)
    if choice == "no" or (choice == "auto" and short):
        return
    if on_cpu and not has_compiler():
        say("no C++ compiler found (g++, clang++): training runs uncompiled, slower")
        return
    model.compile_layers()
