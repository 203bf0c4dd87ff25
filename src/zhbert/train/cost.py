"""Estimates of the memory and operations of training and prediction, and choices based on them.

Everything is estimated from a model's shape alone, before the model exists; nothing imports torch.
The estimates count the large tensors and products, and are right to within about a third.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from zhbert.config import ModelShape, Recipe
from zhbert.errors import ZhbertError
from zhbert.runtime import missing_to_compile, total_memory

# Weights, gradients and the optimiser's two running means, each in single precision.
BYTES_PER_PARAMETER = 16

# Google's masking rate: the default share of predicted pieces.
PREDICTED_SHARE = 0.15

# Compiling takes up to a minute on two cores and gains 5 to 20 % on a CPU. There it pays off from
# about 15 minutes of training on, which corresponds to this many operations.
COMPILE_FROM_STEPS = 500
COMPILE_FROM_OPERATIONS_ON_CPU = 1e14

# On a CPU a training batch of more than a few thousand pieces is no faster.
CPU_TRAINING_BYTES = 2**31

# On a CPU no activation of a batch should be larger than this: from 32 MiB on, glibc's malloc maps
# fresh pages for each tensor, which costs more than a larger batch gains.
CPU_TENSOR_BYTES = 16 << 20

# Maximum size of a prediction batch, as rows times the longest row's length: larger ones are no
# faster, and long rows would need much memory.
MAX_PADDED_TOKENS = 8192


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The sizes that determine the memory and operations of a training step."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocabulary_size: int
    """Number of pieces in the softmax of a prediction; 0: there is no masked-word head."""
    sequence_length: int
    predicted_share: float = PREDICTED_SHARE
    """The largest share of the pieces to predict."""
    checkpointing: bool = False
    """Only the input of each layer is kept for the backward pass, which computes the rest again."""

    @classmethod
    def of(
        cls,
        shape: Any,
        *,
        vocabulary_size: int,
        sequence_length: int,
        predicted_share: float = PREDICTED_SHARE,
        checkpointing: bool = False,
    ) -> Workload:
        """Return the sizes of ``shape``: a BertConfig, or a recipe's resolved ModelShape."""
        return cls(
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
            intermediate_size=shape.intermediate_size,
            vocabulary_size=vocabulary_size,
            sequence_length=sequence_length,
            predicted_share=predicted_share,
            checkpointing=checkpointing,
        )

    @classmethod
    def of_recipe(cls, recipe: Recipe, shape: ModelShape, vocabulary_size: int) -> Workload:
        """Return the sizes of a pretraining run; ``shape`` is the recipe's, resolved."""
        softmax, masking = recipe.softmax, recipe.masking
        if softmax.frequent:
            vocabulary_size = min(vocabulary_size, softmax.frequent + softmax.sampled)
        return cls.of(
            shape,
            vocabulary_size=vocabulary_size,
            sequence_length=recipe.sequence_length,
            predicted_share=max(masking.rate, masking.final_rate or 0.0),
            checkpointing=recipe.activation_checkpointing,
        )

    @property
    def parameters(self) -> int:
        """The number of parameters, without the few that are in no matrix."""
        layer = 4 * self.hidden_size**2 + 2 * self.hidden_size * self.intermediate_size
        return self.num_hidden_layers * layer + self.vocabulary_size * self.hidden_size

    def activation_bytes(self, bytes_per_number: int = 4, on_gpu: bool = False) -> int:
        """Return the bytes per piece that the forward pass keeps for the backward pass.

        Args:
            bytes_per_number: 4 in float32, 2 in bfloat16.
            on_gpu: a compiled model on a GPU keeps less: flash attention computes its weights
                again, and what follows a product by itself is not kept twice.
        """
        if on_gpu:
            layer = 10 * self.hidden_size + 2 * self.intermediate_size
        else:
            layer = 14 * self.hidden_size + 3 * self.intermediate_size
            layer += 3 * self.num_attention_heads * self.sequence_length
        kept = self.num_hidden_layers * layer
        if self.checkpointing:
            kept = self.num_hidden_layers * self.hidden_size + layer
        logits = self.predicted_share * self.vocabulary_size * 2
        return int((kept + logits) * bytes_per_number)

    def operations(self) -> float:
        """Return the floating-point operations per piece, forward and backward (3 x forward).

        Those of a second forward pass (``checkpointing``) do not count.
        """
        layer = 8 * self.hidden_size**2 + 4 * self.hidden_size * self.intermediate_size
        layer += 4 * self.sequence_length * self.hidden_size
        head = (
            self.predicted_share
            * 2
            * (self.hidden_size**2 + self.hidden_size * self.vocabulary_size)
        )
        return 3.0 * (self.num_hidden_layers * layer + head)


@dataclass(frozen=True, kw_only=True)
class Hardware:
    """The properties of the device that the choices below depend on."""

    memory: int
    """Memory of the GPU, or of the whole machine, in bytes."""
    on_gpu: bool = False
    processes: int = 1
    """Number of processes that share the machine's memory; each has its own GPU."""
    bytes_per_number: int = 4
    """4 in float32, 2 in bfloat16."""
    shards: int = 1
    """Number of GPUs among which weights, gradients and the optimiser's state are divided."""

    @classmethod
    def of(cls, device: Any, dtype: Any, processes: int = 1, shards: int = 1) -> Hardware:
        """Return the properties of a torch.device, for computing in a torch.dtype."""
        return cls(
            memory=total_memory(device),
            on_gpu=device.type == "cuda",
            processes=processes,
            bytes_per_number=dtype.itemsize,
            shards=shards,
        )

    def pieces_at_once(self, work: Workload) -> int:
        """Return how many pieces, including padding, one forward and backward has memory for."""
        if self.on_gpu:
            # A third: recorded steps keep their memory to themselves, while the first micro-batch
            # of another shape takes as much again; uncompiled layers keep a third more.
            states = work.parameters * BYTES_PER_PARAMETER // self.shards
            budget = max(0, self.memory - states) // 3
        else:
            budget = min(self.memory // (8 * self.processes), CPU_TRAINING_BYTES)
        return budget // work.activation_bytes(self.bytes_per_number, self.on_gpu)


def micro_batch_rows(rows: int, work: Workload, hardware: Hardware) -> int:
    """Return the rows of one micro-batch if this process has ``rows`` per step.

    The step is cut into as few micro-batches as memory allows, of about equal size.

    >>> base = Workload(
    ...     hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072,
    ...     vocabulary_size=21128, sequence_length=512,
    ... )
    >>> micro_batch_rows(384, base, Hardware(memory=64 << 30))
    2
    >>> micro_batch_rows(384, base, Hardware(memory=80 << 30, on_gpu=True, bytes_per_number=2))
    128
    """
    most = max(1, hardware.pieces_at_once(work) // work.sequence_length)
    parts = -(-rows // most)
    return -(-rows // parts)


def max_padded_tokens(work: Workload, hardware: Hardware) -> int:
    """Return the largest micro-batch of fine-tuning, as rows times the longest row's length."""
    pieces = hardware.pieces_at_once(work)
    if not hardware.on_gpu:
        widest = max(work.intermediate_size, work.num_attention_heads * work.sequence_length)
        pieces = min(pieces, CPU_TENSOR_BYTES // (4 * widest))
    return max(1, pieces)


def max_kept_tokens(work: Workload, hardware: Hardware) -> int:
    """Return how many pieces, including padding, several forward passes have memory for at once.

    On a CPU the limit is the memory alone, since each of the passes is small.
    """
    if hardware.on_gpu:
        return hardware.pieces_at_once(work)
    budget = hardware.memory // (8 * hardware.processes)
    return budget // work.activation_bytes(hardware.bytes_per_number)


def max_predicted_tokens(intermediate_size: int, on_cpu: bool) -> int:
    """Return the largest batch of prediction, as rows times the longest row's length.

    >>> max_predicted_tokens(3072, on_cpu=False), max_predicted_tokens(3072, on_cpu=True)
    (8192, 1365)
    """
    if not on_cpu:
        return MAX_PADDED_TOKENS
    return min(MAX_PADDED_TOKENS, CPU_TENSOR_BYTES // (4 * intermediate_size))


def worth_compiling(choice: str, *, steps: int, operations: float, on_cpu: bool) -> bool:
    """Decide if a run compiles its layers: ``choice`` is "yes", "no", or "auto" for the rule.

    Args:
        choice: the recipe's ``compile``.
        steps: optimiser steps of the run.
        operations: floating-point operations of the whole run.
        on_cpu: True if the run uses a CPU.

    >>> worth_compiling("auto", steps=1000, operations=1e13, on_cpu=True)
    False
    >>> worth_compiling("auto", steps=1000, operations=1e13, on_cpu=False)
    True
    """
    if choice != "auto":
        return choice == "yes"
    if steps < COMPILE_FROM_STEPS:
        return False
    return not on_cpu or operations >= COMPILE_FROM_OPERATIONS_ON_CPU


def compile_if_worth_it(
    model: Any,
    choice: str,
    *,
    steps: int,
    operations: float,
    on_cpu: bool,
    say: Callable[[str], None],
) -> None:
    """Compile a model's layers if ``worth_compiling``; ``say`` gets a line if that is impossible.

    Raises:
        ZhbertError: it is impossible, and ``choice`` is "yes".
    """
    if not worth_compiling(choice, steps=steps, operations=operations, on_cpu=on_cpu):
        return
    if missing := missing_to_compile(on_cpu):
        if choice == "yes":
            raise ZhbertError(f"compile = yes: there is no {missing}")
        say(f"no {missing}: training runs uncompiled, slower")
        return
    model.compile_layers()
