"""Running a model over rows, in batches of similar length, without dropout or gradients."""

from __future__ import annotations

import copy
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zhbert.errors import ZhbertError
from zhbert.inference.rows import PieceRows, by_length, check_segments
from zhbert.model import native
from zhbert.model.encoder import Encoder, has_hooks
from zhbert.packing import PackedBatch
from zhbert.train.cost import MAX_PADDED_TOKENS, max_predicted_tokens
from zhbert.train.prefetch import to_device

Array = NDArray[Any]
Forward = Callable[[nn.Module, PackedBatch], Tensor]
"""A function of a model and a batch that returns scores of rows, (R, n), or of pieces, (T, n)."""

# The maximum number of rows in a batch, and of pieces on a CPU; larger batches are no faster.
MAX_ROWS = 512
MAX_TOKENS_ON_CPU = 2048
# The maximum number of batches computed in parallel on a CPU; bounds the memory for activations.
MAX_BATCHES_AT_ONCE = 4


def run_model(
    model: nn.Module,
    rows: PieceRows,
    forward: Forward,
    *,
    dtype: torch.dtype = torch.float32,
) -> Array:
    """Return the scores of all rows or pieces, (R, n) or (T, n) float32, in the order of the rows.

    The other rows of a batch change a row's scores by rounding only: by about 1e-5 in float32.

    Args:
        model: a model of `zhbert.model.pretrained`, on any device; it is not changed. Or an
            `zhbert.inference.onnx_model.OnnxModel`, which is run as it is.
        rows: rows of at least two pieces.
        forward: computes the scores of a batch.
        dtype: float32 or bfloat16, the dtype of the encoder, or int8: linear maps with weights and
            inputs of 8 bits, on CPUs with AVX512_VNNI. The head stays in float32.

    Raises:
        ZhbertError: a score is not finite, the rows are pairs and the model has only one segment,
            or this device has no int8.
    """
    config: Any = model.config
    check_segments(rows, config.type_vocab_size)
    device = device_of(model)
    # Another program's encoder is of the dtype that it has.
    ours = isinstance(getattr(model, "encoder", None), Encoder)

    on_cpu = device.type == "cpu"
    most = max_predicted_tokens(config.intermediate_size, on_cpu)
    if on_cpu:
        most = min(most, MAX_TOKENS_ON_CPU)

    def scored(chosen: Array) -> tuple[Array, Array]:
        batch, pieces = rows.pack(chosen)
        if on_cpu and ours:
            batch = _filled(batch, most)
        scores = forward(model, to_device(batch, device)).float().cpu().numpy()
        places = pieces if len(scores) == batch.num_pieces else chosen
        return places, scores[: len(places)]

    batches = by_length(rows.lengths, MAX_ROWS, most)
    scores = np.empty((0, 1), np.float32)
    # A model in training changes its weights at the next step, so its copy is not kept.
    keep = not model.training
    prepared = _encoder_in(model, dtype, keep) if ours else nullcontext()
    compute = _side_by_side if on_cpu else map
    with _evaluating(model), torch.no_grad(), prepared:
        for chosen, (places, some) in zip(batches, compute(scored, batches), strict=True):
            if not len(scores):
                count = len(rows) if places is chosen else len(rows.ids)
                scores = np.empty((count, some.shape[1]), np.float32)
            scores[places] = some
    if not np.isfinite(scores).all():
        raise ZhbertError(
            "the model's scores are not finite numbers (NaN or infinity), so nothing can be "
            "predicted: its weights are damaged or diverged, or too large for "
            + str(dtype).removeprefix("torch.")
        )
    return scores


def device_of(model: nn.Module) -> torch.device:
    """Return the device of a model's parameters; a model without any is on the CPU."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def _filled(batch: PackedBatch, size: int) -> PackedBatch:
    """Fill a batch up to ``size`` pieces with one more row, if few are missing.

    For every new number of pieces oneDNN compiles its code again: milliseconds a batch, in which a
    small model computes half of it.
    """
    missing = size - batch.num_pieces
    if not 0 < missing <= size // 32:
        return batch
    zeros = torch.zeros(missing, dtype=torch.int64)
    return PackedBatch(
        input_ids=torch.cat((batch.input_ids, zeros)),
        token_type_ids=torch.cat((batch.token_type_ids, zeros)),
        position_ids=torch.cat((batch.position_ids, zeros)),
        cu_seqlens=torch.cat((batch.cu_seqlens, batch.cu_seqlens.new_tensor([size]))),
        max_length=max(batch.max_length, missing),
    )


def _side_by_side(
    scored: Callable[[Array], tuple[Array, Array]], batches: Sequence[Array]
) -> Iterator[tuple[Array, Array]]:
    """Yield the batches' scores in order; compute several batches in parallel.

    Cores then do not wait for each other between operations or for Python between batches: on two
    cores this is a tenth faster than computing each batch on both.
    """
    threads = torch.get_num_threads()
    workers = min(threads, len(batches), MAX_BATCHES_AT_ONCE)
    if workers < 2:
        yield from map(scored, batches)
        return

    def without_gradients(chosen: Array) -> tuple[Array, Array]:
        # torch.no_grad applies to the current thread only.
        with torch.no_grad():
            return scored(chosen)

    each = max(1, threads // workers)
    pool = ThreadPoolExecutor(workers, initializer=torch.set_num_threads, initargs=(each,))
    try:
        yield from pool.map(without_gradients, batches)
    finally:
        pool.shutdown(cancel_futures=True)
        torch.set_num_threads(threads)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch off dropout, and restore the model's mode at the end."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def _encoder_in(model: Any, dtype: torch.dtype, keep: bool) -> Iterator[None]:
    """Compute with a copy of the encoder for prediction in ``dtype``; the head stays in float32.

    Autocast would convert activations back and forth and round the head's scores to 8 bits, so that
    many starts and ends of answers would have the same score.
    """
    own = model.encoder
    model.encoder = _copy_for_prediction(own, dtype, keep)
    try:
        yield
    finally:
        model.encoder = own


# The last copy of each encoder, with what its weights were at that time.
_COPIES: weakref.WeakKeyDictionary[nn.Module, tuple[object, nn.Module]] = (
    weakref.WeakKeyDictionary()
)


def _copy_for_prediction(encoder: nn.Module, dtype: torch.dtype, keep: bool) -> nn.Module:
    """Copy an encoder to ``dtype``, with weights laid out for this CPU.

    A copy in the encoder's own dtype shares its parameters. A copy that is kept serves until the
    weights change: short calls, such as a single query, then do not wait for it.
    """
    parameters = list(encoder.parameters())
    on_cpu = parameters[0].device.type == "cpu"
    if parameters[0].dtype == dtype and not on_cpu:
        return encoder
    keep = keep and not has_hooks(encoder) and not any(p.is_inference() for p in parameters)
    state = (dtype, [(p.data_ptr(), p._version) for p in parameters]) if keep else None
    kept, copied = _COPIES.get(encoder, (None, None))
    if copied is not None and kept == state:
        return copied
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach(), False) for p in parameters}
    copied = copy.deepcopy(encoder, shared)
    if dtype == torch.int8:
        native.quantize(copied)
        copied.to(_int8_states(on_cpu))
    else:
        copied.to(dtype)
        if on_cpu:
            native.pack(copied, MAX_PADDED_TOKENS)
    if keep:
        _COPIES[encoder] = (state, copied)
    return copied


def _int8_states(on_cpu: bool) -> torch.dtype:
    if not on_cpu or native.INT8_STATES is None:
        raise ZhbertError(
            "weights of 8 bits (int8) are computed by CPUs with AVX512_VNNI only; take float32 or "
            "bfloat16"
        )
    return native.INT8_STATES
