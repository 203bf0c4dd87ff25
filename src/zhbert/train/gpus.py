"""What a training step takes on a GPU that is not here, fitted to steps that were measured.

A step is products, attention, traffic (all that reads and writes memory and computes little) and
launches. The time of each at the data sheet's rates follows from the model's shape; how many times
longer it takes in truth is fitted to `MEASURED_STEPS`. To refit, change that table.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from zhbert.errors import ZhbertError
from zhbert.train.cost import BYTES_PER_PARAMETER, Workload
from zhbert.wording import listed

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Gpu:
    """A GPU as its vendor describes it."""

    name: str
    tflops: float
    """Dense products in bfloat16, in TFLOP/s; in float32 (TF32) half of it."""
    memory: float
    """In GB (10^9 bytes)."""
    bandwidth: float
    """Of its memory, in GB/s."""
    link: float
    """To the other GPUs of its machine, in one direction, in GB/s."""
    source: str

    @property
    def memory_bytes(self) -> int:
        """The memory in bytes."""
        return int(self.memory * 1e9)


_NVIDIA = "https://www.nvidia.com/en-us/data-center/"
GPUS = {
    "h200": Gpu(name="H200", tflops=989, memory=141, bandwidth=4800, link=450,
                source=_NVIDIA + "h200/"),
    "h100": Gpu(name="H100 SXM", tflops=989, memory=80, bandwidth=3350, link=450,
                source=_NVIDIA + "h100/"),
    "a100": Gpu(name="A100 SXM", tflops=312, memory=80, bandwidth=2039, link=300,
                source=_NVIDIA + "a100/"),
    "a100-40": Gpu(name="A100 SXM 40 GB", tflops=312, memory=40, bandwidth=1555, link=300,
                   source=_NVIDIA + "a100/"),
    "l40s": Gpu(name="L40S", tflops=362, memory=48, bandwidth=864, link=32,
                source=_NVIDIA + "l40s/"),
    "l4": Gpu(name="L4", tflops=121, memory=24, bandwidth=300, link=32,
              source=_NVIDIA + "l4/"),
    "4090": Gpu(name="RTX 4090", tflops=165, memory=24, bandwidth=1008, link=32,
                source="https://images.nvidia.com/aem-dam/Solutions/geforce/ada/"
                       "nvidia-ada-gpu-architecture.pdf"),
}  # fmt: skip
"""The GPUs by the names of ``zhbert check --device``."""

GPUS_PER_MACHINE = 8
# Between machines, in GB/s: one link of 400 Gbit/s, the usual one of rented machines of 8 GPUs.
NETWORK = 50.0
# What CUDA and its libraries take on each GPU before the first tensor.
CONTEXT_BYTES = 1 << 30


@dataclass(frozen=True, kw_only=True)
class MeasuredStep:
    """A measured training step: AdamW, bfloat16, compiled, dropout 0.1, one micro-batch."""

    gpu: str
    layers: int
    hidden: int
    length: int
    rows: int
    milliseconds: float
    gigabytes: float
    """The largest memory in use, in GB (10^9 bytes)."""

    @property
    def workload(self) -> Workload:
        """The step's sizes: BERT's proportions and Google's Chinese vocabulary."""
        return Workload(
            hidden_size=self.hidden,
            num_hidden_layers=self.layers,
            num_attention_heads=self.hidden // 64,
            intermediate_size=4 * self.hidden,
            vocabulary_size=21128,
            sequence_length=self.length,
        )


# torch 2.11, CUDA 13, whole steps replayed as CUDA graphs: docs/results.md. Rows are counted with
# their padding, as rows of the full length.
MEASURED_STEPS = (
    MeasuredStep(gpu="h200", layers=12, hidden=768, length=128, rows=483, milliseconds=84.8,
                 gigabytes=20.8),
    MeasuredStep(gpu="h200", layers=12, hidden=768, length=512, rows=103, milliseconds=81.8,
                 gigabytes=19.3),
    MeasuredStep(gpu="h200", layers=2, hidden=128, length=128, rows=32, milliseconds=1.35,
                 gigabytes=0.225),
)  # fmt: skip

# Kernel by kernel, in BERT-base's step: products run at 74 % of the data sheet's rate, flash
# attention over rows of 128 at a tenth of it; a layer of Tiny has about 60 kernels of 2.5
# microseconds. The fit stays near these values where the measured steps do not say otherwise.
_BY_KERNEL = np.array([1.35, 3.4, 2.0, 1.5e-4])
_WEIGHT_BY_KERNEL = 0.01


def gpu_named(name: str) -> Gpu:
    """Return a GPU by its name; raise ZhbertError for one that is not in the table.

    >>> gpu_named("H100").memory
    80
    """
    found = GPUS.get(name.lower())
    if found is None:
        raise ZhbertError(f"--device {name}: not in the table of GPUs; known: {listed(GPUS)}")
    return found


def step_seconds(
    work: Workload,
    gpu: Gpu,
    *,
    rows: int,
    micro_batches: int = 1,
    gpus: int = 1,
    bytes_per_number: int = 2,
    sharded: bool = False,
) -> float:
    """Estimate the seconds of a training step.

    Args:
        work: the model and its rows.
        gpu: each of the GPUs.
        rows: rows of one GPU in a step, all of the full length.
        micro_batches: forward and backward passes in a step.
        gpus: the number of GPUs, eight in a machine.
        bytes_per_number: 2 in bfloat16, 4 in float32.
        sharded: weights are divided among the GPUs and gathered when they are needed.
    """
    pieces = rows * work.sequence_length
    parts = _at_full_rate(work, gpu, pieces, micro_batches, bytes_per_number)
    seconds = float(parts @ _fit(MEASURED_STEPS))
    exchange = _exchange_seconds(work, gpu, gpus)
    if sharded:
        # Weights are gathered forward and backward, in every micro-batch; while they travel, the
        # GPU computes.
        return max(seconds, exchange * (1 + micro_batches) / 2)
    return seconds + exchange


def memory_bytes(
    parameters: int, work: Workload, *, rows: int, bytes_per_number: int = 2, shards: int = 1
) -> int:
    """Estimate the memory of a step with micro-batches of ``rows`` rows on each GPU."""
    states = parameters * BYTES_PER_PARAMETER // shards
    activations = work.activation_bytes(bytes_per_number, on_gpu=True)
    return states + activations * rows * work.sequence_length


def error() -> float | None:
    """Return the largest relative error of a measured step, estimated from all the others.

    None: there are too few steps, which prove nothing.
    """
    if len(MEASURED_STEPS) < 3:
        return None
    errors = []
    for number, step in enumerate(MEASURED_STEPS):
        others = MEASURED_STEPS[:number] + MEASURED_STEPS[number + 1 :]
        errors.append(abs(float(_parts_of(step) @ _fit(others)) - 1.0))
    return max(errors)


def _fit(steps: Sequence[MeasuredStep]) -> Floats:
    """Fit how many times longer each part takes than at full rate, by relative least squares."""
    near = _WEIGHT_BY_KERNEL * np.diag(1 / _BY_KERNEL)
    rows = np.vstack([*map(_parts_of, steps), near])
    goals = np.concatenate([np.ones(len(steps)), np.full(len(near), _WEIGHT_BY_KERNEL)])
    return np.asarray(np.linalg.lstsq(rows, goals, rcond=None)[0])


def _parts_of(step: MeasuredStep) -> Floats:
    """Return a measured step's parts as shares of its time."""
    parts = _at_full_rate(step.workload, GPUS[step.gpu], step.rows * step.length, 1, 2)
    return parts / (step.milliseconds / 1e3)


def _at_full_rate(
    work: Workload, gpu: Gpu, pieces: int, micro_batches: int, bytes_per_number: int
) -> Floats:
    """Return the seconds of products, attention and traffic at full rate; and the launches."""
    hidden, inner, share = work.hidden_size, work.intermediate_size, work.predicted_share
    layers, passes = work.num_hidden_layers, 4 if work.checkpointing else 3
    rate, bandwidth = gpu.tflops * 1e12 * 2 / bytes_per_number, gpu.bandwidth * 1e9
    # The last layer computes the predicted pieces only, from the keys and values of all.
    whole = 8 * hidden**2 + 4 * hidden * inner
    layer_flops = (layers - 1 + share) * whole + (1 - share) * 4 * hidden**2
    head_flops = share * 2 * hidden * (hidden + work.vocabulary_size)
    flops = passes * layer_flops + 3 * head_flops
    # Each product reads one side of a layer and writes the other.
    moved = layers * passes * (8 * hidden + 2 * inner) * bytes_per_number
    products = pieces * max(flops / rate, moved / bandwidth)
    # Two products forward, five backward, which computes the weights again; and as long as 256
    # more pieces would take, to begin and end each row.
    attention = pieces * layers * 14 * (work.sequence_length + 256) * hidden / rate
    # LayerNorm, GELU, dropout, residuals, the biases' gradients; the softmax over the vocabulary.
    numbers = layers * (31 * hidden + 6 * inner) * passes / 3 + share * 5 * work.vocabulary_size
    # AdamW reads four numbers and writes three; gradients are zeroed, added to and measured, and
    # weights are cast.
    traffic = (pieces * numbers * bytes_per_number + work.parameters * 46) / bandwidth
    # Embeddings, heads, loss and optimiser launch about as much as four layers.
    return np.array([products, attention, traffic, micro_batches * (layers + 4)])


def _exchange_seconds(work: Workload, gpu: Gpu, gpus: int) -> float:
    """Return the seconds in which rings sum the gradients, in a machine and among machines."""
    size = 2 * 4 * work.parameters / 1e9
    inside = min(gpus, GPUS_PER_MACHINE)
    machines = -(-gpus // GPUS_PER_MACHINE)
    return size * ((1 - 1 / inside) / gpu.link + (1 - 1 / machines) / NETWORK)
