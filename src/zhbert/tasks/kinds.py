"""What the kinds of task share: from examples to rows, from a model's scores to predictions.

A kind knows no files, no optimiser and no console. `fine_tuned.KINDS` is the table of them.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zhbert.errors import ZhbertError
from zhbert.model import native
from zhbert.tasks.read import Example
from zhbert.tasks.rows import LabelledBatch, Rows, by_length, check_segments, gather
from zhbert.text.tokenizer import Tokenizer
from zhbert.train.loop import move

Array = NDArray[Any]

# Prediction takes so many rows at once, and so many cells of rows times longest row: larger
# batches are no faster, and long rows would need much memory.
ROWS_AT_ONCE = 128
CELLS_AT_ONCE = 8192
# And on a CPU so many batches, whose activations are in memory together.
BATCHES_AT_ONCE = 4
# On a CPU the widest activations stay below the size from which on malloc (glibc's largest
# threshold is 32 MiB) takes fresh pages for each tensor, which cost more than they carry.
CPU_BYTES_AT_ONCE = 16 << 20


@dataclass(frozen=True)
class Prepared:
    """Examples as rows."""

    examples: Sequence[Example]
    rows: Rows
    places: Any = None
    """How rows and examples belong together, where it is not one by one."""
    remarks: tuple[str, ...] = ()
    """What was cut or left out, a line each."""


@dataclass(frozen=True)
class Prediction:
    """What a model says of one example."""

    value: str | float | tuple[str, ...]
    """A label, a number, several labels, the tags of a sentence, or an answer."""
    details: Mapping[str, Any] = field(default_factory=dict)
    """How sure it is, and more; plain data."""


class Kind(Protocol):
    """One of them. Frozen: what is learnt beside the weights makes a new one (`tuned`)."""

    name: ClassVar[str]
    architecture: ClassVar[str]
    """The class of `zhbert.model.pretrained`."""
    problem_type: ClassVar[str | None]
    """What config.json calls it, of a sequence classification; None: of other architectures."""
    per_piece: ClassVar[bool]
    """Whether ``scores`` are of pieces."""

    @property
    def tokenizer(self) -> Tokenizer:
        """Makes the pieces."""

    @property
    def labels(self) -> tuple[str, ...] | None:
        """The labels of the model's head; None: it has none of its own."""

    def prepare(self, examples: Sequence[Example], *, training: bool = False) -> Prepared:
        """Tokenize examples; for ``training`` with targets, and without what cannot be learnt."""

    def loss(self, model: nn.Module, batch: LabelledBatch) -> Tensor:
        """The sum of the losses of the batch's predictions."""

    def scores(self, model: nn.Module, batch: LabelledBatch) -> Tensor:
        """(R, n) or, of pieces, (T, n): what ``decode`` needs."""

    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """A prediction for each example."""

    def tuned(self, prepared: Prepared, scores: Array) -> Self:
        """This kind with what is chosen on dev, such as a threshold."""

    def each(
        self, examples: Sequence[Example], predictions: Sequence[Prediction]
    ) -> dict[str, list[float]]:
        """How good each prediction is, 0 to 1: ``score``, and other names that the kind has."""

    def begin(self, model: nn.Module) -> None:
        """Undo ``finish``, of a model whose head was fine-tuned before and is trained further."""

    def finish(self, model: nn.Module) -> None:
        """Change a trained model, in place, so that its outputs are what users expect."""

    def settings(self) -> dict[str, Any]:
        """What a model folder must hold to predict alike, beside the model."""

    def describe(self, example: Example) -> str:
        """What is to be predicted, for people."""


class NothingBesides:
    """For kinds that learn nothing but weights, and whose outputs are what users expect."""

    def tuned(self, prepared: Prepared, scores: Array) -> Self:
        """Nothing is tuned."""
        return self

    def begin(self, model: nn.Module) -> None:
        """Nothing."""

    def finish(self, model: nn.Module) -> None:
        """Nothing."""


class FineTuning:
    """A kind as the training loop's objective."""

    def __init__(self, kind: Kind) -> None:
        self.kind = kind
        self.parts = (kind.name,)

    def counts(self, batch: LabelledBatch) -> tuple[int, ...]:
        """How many targets there are."""
        return (batch.predictions,)

    def pieces(self, batch: LabelledBatch) -> int:
        """All pieces: a batch has no padding."""
        return batch.packed.num_pieces

    def __call__(self, model: nn.Module, batch: LabelledBatch, seed: int) -> tuple[Tensor, Tensor]:
        """The sum of the losses; what is right is counted elsewhere, by the task's own metrics."""
        model.set_dropout_seed(seed, batch.first_row)  # type: ignore[operator]
        loss = self.kind.loss(model, batch)
        return loss.reshape(1), loss.new_zeros(1)


def run_model(
    kind: Kind, model: nn.Module, rows: Rows, *, dtype: torch.dtype = torch.float32
) -> Array:
    """The scores of all rows: (R, n) or (T, n) float32, in the rows' order, without dropout.

    Rows are taken by length. What a row is batched with changes its scores by rounding only: by
    about 1e-5 in float32.

    Raises ZhbertError where a score is no finite number: nothing can be decided by it; and where
    the rows are pairs, and the model knows one segment only.
    """
    check_segments(rows, cast(Any, model).config.type_vocab_size)
    device = next(model.parameters()).device
    found: Array | None = None

    def scored(chosen: Array) -> tuple[Array, Array]:
        batch, pieces = gather(rows, chosen)
        scores = kind.scores(model, move(batch, device)).float().cpu().numpy()
        return (pieces if kind.per_piece else chosen), scores

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad(), _encoder_in(model, dtype):
            batches = list(by_length(rows.lengths, ROWS_AT_ONCE, _cells_at_once(model, device)))
            for places, scores in _side_by_side(scored, batches, device):
                if found is None:
                    count = len(rows.ids) if kind.per_piece else len(rows)
                    found = np.empty((count, scores.shape[1]), np.float32)
                found[places] = scores
    finally:
        model.train(was_training)
    if found is None:
        return np.empty((0, 1), np.float32)
    if not np.isfinite(found).all():
        raise ZhbertError(
            "the model's scores are not finite numbers (NaN or infinity), so nothing can be "
            "predicted: its weights are damaged or diverged, or too large for "
            + str(dtype).removeprefix("torch.")
        )
    return found


def _side_by_side(
    scored: Callable[[Array], tuple[Array, Array]], batches: Sequence[Array], device: torch.device
) -> Iterator[tuple[Array, Array]]:
    """The batches' scores in order; on a CPU several batches at once, on one core each.

    So no core waits for the others between two operations, nor for Python between two batches: a
    tenth faster on two cores than one batch on both.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(batches), BATCHES_AT_ONCE) if device.type == "cpu" else 1
    if workers < 2:
        yield from map(scored, batches)
        return

    def without_gradients(chosen: Array) -> tuple[Array, Array]:
        # That they are off is a thread's own setting, too.
        with torch.no_grad():
            return scored(chosen)

    each = max(1, threads // workers)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(each,))
    try:
        yield from pool.map(without_gradients, batches)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


def _cells_at_once(model: Any, device: torch.device) -> int:
    if device.type != "cpu":
        return CELLS_AT_ONCE
    widest: int = model.config.intermediate_size
    return min(CELLS_AT_ONCE, CPU_BYTES_AT_ONCE // (4 * widest))


@contextmanager
def _encoder_in(model: Any, dtype: torch.dtype) -> Iterator[None]:
    """Compute with a copy of the encoder in ``dtype``; the head stays in float32.

    Autocast would convert activations back and forth, and round a head's scores to 8 bits, which
    makes equals of many starts and ends of answers.
    """
    own = model.encoder
    if next(own.parameters()).dtype != dtype:
        model.encoder = copy.deepcopy(own).to(dtype)
        if next(own.parameters()).device.type == "cpu":
            native.pack(model.encoder, CELLS_AT_ONCE)
    try:
        yield
    finally:
        model.encoder = own


def sigmoid(scores: Array) -> NDArray[np.float64]:
    """Of each score by itself.

    >>> sigmoid(np.array([0.0, -1e4, 1e4])).tolist()
    [0.5, 0.0, 1.0]
    """
    # By the hyperbolic tangent, which large numbers do not overflow.
    probabilities: NDArray[np.float64] = 0.5 + 0.5 * np.tanh(0.5 * scores.astype(np.float64))
    return probabilities


def softmax(scores: Array) -> NDArray[np.float64]:
    """Over the last axis."""
    shifted = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    probabilities: NDArray[np.float64] = shifted / shifted.sum(-1, keepdims=True)
    return probabilities
