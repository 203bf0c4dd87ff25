"""The only training loop: it knows neither BERT nor Chinese.

It gets a model, an objective that turns a micro-batch into sums, a source of steps and a few
evaluations; it gives gradients, optimiser steps, lines for the log, and checkpoints.

The loss of a step is, for each of the objective's parts, the mean over everything that the whole
global batch predicts: the counts of all micro-batches and ranks are added up before the first
backward pass, so a micro-batch with few predictions weighs little.
"""

from __future__ import annotations

import dataclasses
import math
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, Generic, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from zhbert.errors import Interrupted, ZhbertError
from zhbert.train.distributed import Ranks
from zhbert.train.log import Sink
from zhbert.train.optim import Optimizer, Schedule, global_norm

Batch = TypeVar("Batch")
BatchIn = TypeVar("BatchIn", contravariant=True)

ALONE = Ranks()


class Objective(Protocol[BatchIn]):
    """What is learnt, in parts: each has a loss and, in evaluation, an accuracy."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts' names; ``masked_lm`` is logged as ``masked_lm_loss``."""

    def counts(self, batch: BatchIn) -> tuple[int, ...]:
        """How many predictions each part makes on this micro-batch (no look at a GPU)."""

    def pieces(self, batch: BatchIn) -> int:
        """How many pieces the micro-batch holds, padding apart."""

    def __call__(self, model: nn.Module, batch: BatchIn, seed: int) -> tuple[Tensor, Tensor]:
        """(parts,) sums of losses, with gradients, and (parts,) counts of correct predictions.

        ``seed`` is the step's: with each row's place in the global batch, which the micro-batch
        knows, it decides the dropout.
        """


@dataclass(frozen=True)
class Evaluation(Generic[Batch]):
    """A fixed set of batches under a name, and what a trivial guess scores on it."""

    name: str
    batches: Sequence[Batch]
    extra: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """How long, how often, and in which number format."""

    last_step: int
    """The step at which training ends, counted from the first phase's beginning."""
    seed: int = 0
    dtype: torch.dtype = torch.float32
    """float32, or bfloat16 for automatic mixed precision."""
    clip_norm: float = 1.0
    """0: no clipping."""
    checkpoint_every: int = 0
    evaluate_every: int = 0


@dataclass(frozen=True)
class Progressed:
    """Where a run stands; what a checkpoint holds beside tensors."""

    step: int = 0
    pieces: int = 0
    seconds: float = 0.0


BEGINNING = Progressed()


@dataclass(frozen=True)
class Outcome:
    """How the loop ended."""

    step: int
    pieces: int
    seconds: float
    """Time spent in training steps, evaluation and saving apart, over all resumptions."""
    signal: int | None
    """SIGINT, SIGTERM or SIGHUP where one stopped the run, after saving."""
    evaluations: list[dict[str, Any]]
    """The last evaluation's lines."""
    late_signal: int | None = None
    """The same where it came too late to stop anything: the run is complete. A caller with more
    to do after it stops there."""


@dataclass(frozen=True)
class Verdict:
    """What an evaluation of the caller's own comes to."""

    lines: Sequence[Mapping[str, Any]]
    """For the log."""
    enough: bool = False
    """Training ends here, after a checkpoint."""


class NotFiniteError(ZhbertError):
    """A loss or a gradient that is no number any more."""

    def __init__(self, what: str, step: int, learning_rate: float) -> None:
        super().__init__(f"{what} at step {step} (learning rate {learning_rate:.3g})")
        self.what, self.step, self.learning_rate = what, step, learning_rate


class _Forward(nn.Module, Generic[Batch]):
    """Model and objective as one module, so that DDP sees the whole forward pass."""

    def __init__(self, model: nn.Module, objective: Objective[Batch]) -> None:
        super().__init__()
        self.model = model
        self.objective = objective

    def forward(self, batch: Batch, seed: int) -> tuple[Tensor, Tensor]:
        return self.objective(self.model, batch, seed)


def train(
    model: nn.Module,
    objective: Objective[Batch],
    *,
    source: Callable[[int], Iterator[list[Batch]]],
    optimizer: Optimizer,
    schedule: Schedule,
    settings: LoopSettings,
    save: Callable[[Progressed], object],
    sinks: Sequence[Sink] = (),
    evaluations: Sequence[Evaluation[Batch]] = (),
    judge: Callable[[Progressed], Verdict] | None = None,
    ranks: Ranks = ALONE,
    start: Progressed = BEGINNING,
    evaluated: Collection[str] | None = None,
    notice: Callable[[str], None] = lambda line: None,
) -> Outcome:
    """Train from ``start`` to ``settings.last_step``.

    ``source(step)`` yields this rank's micro-batches of the step after ``step`` done ones, and so
    on. ``save`` writes a checkpoint. SIGINT, SIGTERM and SIGHUP end the run after the current
    micro-batch, or, of several processes, the current step, and a checkpoint; a second one ends it
    at once. ``notice`` gets a line when they arrive.
    ``judge`` evaluates in a way of its own, whenever ``evaluations`` would; it is never cut short,
    so that what it decides is the same after a resumption.

    ``evaluated`` names the evaluations of the step ``start`` that the log holds; those that it
    lacks and that are due there, since a signal cut them short or the log was damaged, come first.
    At the beginning all are due: the model that training starts from is measured.

    Raises NotFiniteError when loss or gradient is not finite; no checkpoint is written then.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    forward = ranks.wrap(_Forward(model, objective))
    device = ranks.device
    # A GPU's numbers are read while it computes the next step, so that it never waits for Python.
    lag = 1 if device.type == "cuda" else 0
    pending: list[_Record] = []
    at, saved_step = start, start.step
    last_evaluation: list[dict[str, Any]] = []

    def write(line: Mapping[str, Any]) -> None:
        for sink in sinks:
            sink.write(line)

    def settle(left: int = 0) -> None:
        while len(pending) > left:
            write(pending.pop(0).line(objective.parts))

    def due(step: int) -> bool:
        return step == settings.last_step or _due(step, settings.evaluate_every)

    def measure(which: Sequence[Evaluation[Batch]]) -> bool:
        """Was it done? Else a signal has cut it short, and it is made when the run goes on."""
        nonlocal last_evaluation
        settle()
        lines = evaluate(model, objective, which, at.step, settings.dtype, ranks, hurry)
        last_evaluation = lines or last_evaluation
        for line in lines:
            write(line)
        return bool(lines) or not which

    def checkpoint() -> None:
        nonlocal saved_step
        settle()
        save(at)
        saved_step = at.step

    model.train()
    alone = ranks.world_size == 1
    with _Signals(notice, alone) as signals, Prefetcher(source(start.step), device) as batches:
        hurry = signals if alone else None
        stopped = False
        if evaluated is not None and (start == BEGINNING or due(start.step)):
            stopped = not measure([one for one in evaluations if one.name not in evaluated])
        clock = time.perf_counter()
        while at.step < settings.last_step:
            if alone and signals.received:
                stopped = True
                break
            micro_batches, waited = batches.take()
            # One exchange before the step: what the whole batch predicts, and who wants to stop.
            mine = [
                sum(column) for column in zip(*map(objective.counts, micro_batches), strict=True)
            ]
            pieces = sum(map(objective.pieces, micro_batches))
            *counts, pieces_of_all, wish = ranks.sum([*mine, pieces, signals.received or 0])
            if wish:
                stopped = True
                break
            learning_rate = schedule(at.step)
            sums = _backward(forward, micro_batches, counts, at.step, settings, ranks, hurry)
            if sums is None:  # in the middle of a step, which is made again when the run goes on
                for parameter in parameters:
                    parameter.grad = None
                stopped = True
                break
            norm = global_norm(parameters)
            optimizer.step(learning_rate, _clip_divisor(norm, settings.clip_norm))
            for parameter in parameters:
                parameter.grad = None
            numbers = _Numbers(torch.cat([norm.reshape(1), ranks.sum_tensor(sums)]))
            if not lag:
                numbers.read()
            now = time.perf_counter()
            seconds, clock = now - clock, now
            at = Progressed(at.step + 1, at.pieces + int(pieces_of_all), at.seconds + seconds)
            pending.append(
                _Record(at, numbers, counts, learning_rate, int(pieces_of_all), seconds, waited)
            )
            settle(lag)
            ended = at.step == settings.last_step
            due_now = due(at.step)
            if due_now and judge is not None:
                settle()
                verdict = judge(at)
                for judged in verdict.lines:
                    write(judged)
                ended = ended or verdict.enough
            save_now = ended or _due(at.step, settings.checkpoint_every)
            if save_now:
                checkpoint()
            if due_now and evaluations and not measure(evaluations):
                stopped = True
                break
            if due_now or save_now:
                clock = time.perf_counter()
            if ended:
                break
        settle()
        if stopped and saved_step != at.step:
            checkpoint()
    received = signals.received
    stop, late = (received or signal.SIGTERM, None) if stopped else (None, received)
    return Outcome(at.step, at.pieces, at.seconds, stop, last_evaluation, late)


def evaluate(
    model: nn.Module,
    objective: Objective[Batch],
    evaluations: Sequence[Evaluation[Batch]],
    step: int,
    dtype: torch.dtype = torch.float32,
    ranks: Ranks = ALONE,
    hurry: _Signals | None = None,
) -> list[dict[str, Any]]:
    """Measure the model on every evaluation, without dropout; the ranks share the batches.

    Given ``hurry``, a signal that arrives meanwhile ends it with no lines.
    """
    lines: list[dict[str, Any]] = []
    parts = objective.parts
    was_training = model.training
    model.eval()
    try:
        for evaluation in evaluations:
            losses = torch.zeros(len(parts), dtype=torch.float64)
            correct = torch.zeros(len(parts), dtype=torch.float64)
            counts = [0] * len(parts)
            for batch in evaluation.batches[ranks.rank :: ranks.world_size]:
                if hurry is not None and hurry.received:
                    return []
                with torch.no_grad(), _autocast(ranks.device, dtype):
                    loss_sums, correct_sums = objective(model, move(batch, ranks.device), 0)
                losses += loss_sums.double().cpu()
                correct += correct_sums.double().cpu()
                counts = [a + b for a, b in zip(counts, objective.counts(batch), strict=True)]
            flat = ranks.sum([*losses.tolist(), *correct.tolist(), *counts])
            columns = [flat[i * len(parts) : (i + 1) * len(parts)] for i in range(3)]
            line: dict[str, Any] = {"step": step, "evaluation": evaluation.name}
            for part, loss, right, number in zip(parts, *columns, strict=True):
                line[f"{part}_loss"] = loss / number if number else None
                line[f"{part}_accuracy"] = right / number if number else None
                line[f"{part}_predictions"] = int(number)
            lines.append({**line, **evaluation.extra})
    finally:
        model.train(was_training)
    return lines


def move(batch: Batch, device: torch.device) -> Batch:
    """A dataclass of tensors, also of such dataclasses, on another device; on the CPU as it is."""
    if device.type == "cpu":
        return batch
    return _map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


class Prefetcher(Generic[Batch]):
    """The next steps' batches, made in a thread of its own while the model computes."""

    def __init__(self, source: Iterator[list[Batch]], device: torch.device, depth: int = 2) -> None:
        self._source, self._pin = source, device.type == "cuda"
        self._queue: queue.Queue[list[Batch] | BaseException | None] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="prefetch", daemon=True)

    def __enter__(self) -> Prefetcher[Batch]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(timeout=10)

    def take(self) -> tuple[list[Batch], float]:
        """The next step's micro-batches, and the seconds spent waiting for them.

        Raises whatever the source raised.
        """
        begun = time.perf_counter()
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        if item is None:
            raise ZhbertError("the training data ended before the last step")
        return item, time.perf_counter() - begun

    def _fill(self) -> None:
        try:
            for batches in self._source:
                if self._pin:
                    batches = [_map_tensors(b, lambda t: t.pin_memory()) for b in batches]
                if not self._put(batches):
                    return
            self._put(None)
        except BaseException as error:  # whatever it is, the loop must hear of it
            self._put(error)

    def _put(self, item: list[Batch] | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


class _Signals:
    """Remembers the first signal that asks the run to end, while it is entered; a second one ends
    it at once.
    """

    def __init__(self, notice: Callable[[str], None], alone: bool = True) -> None:
        self.received: int | None = None
        self._notice = notice
        self._alone = alone
        self._former: dict[int, Any] = {}

    def __enter__(self) -> _Signals:
        # Python gives signals to the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) != signal.SIG_IGN:  # as nohup has it
                    self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            # torchrun passes a Ctrl-C on as SIGTERM besides.
            if self._alone or number == signal.SIGINT:
                raise Interrupted(number)
            return
        self.received = number
        again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
        self._notice(f"stopping: the run is saved first{again}")


def write_notice(line: str) -> None:
    """Write a line to stderr from within a signal's handler."""
    try:
        # Not by sys.stderr, which may be in the middle of a write.
        os.write(2, f"\n{line}\n".encode())
    except OSError:
        # The terminal has gone. What the run says while it saves must not end it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


class _Numbers:
    """A step's few numbers on their way from the device."""

    def __init__(self, values: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if values.is_cuda:
            values = values.to("cpu", non_blocking=True)
            self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            self._event.record()
        self._values = values

    def read(self) -> list[float]:
        if self._event is not None:
            self._event.synchronize()
        return cast(list[float], self._values.tolist())


@dataclass(frozen=True)
class _Record:
    """One optimiser step, to be logged once its numbers are there."""

    at: Progressed
    numbers: _Numbers
    counts: list[float]
    learning_rate: float
    pieces: int
    seconds: float
    waited: float

    def line(self, parts: Sequence[str]) -> dict[str, Any]:
        norm, *sums = self.numbers.read()
        means = [s / c if c else None for s, c in zip(sums, self.counts, strict=True)]
        loss = sum(mean for mean in means if mean is not None)
        if not (math.isfinite(loss) and math.isfinite(norm)):
            what = (
                f"the loss is {loss}"
                if not math.isfinite(loss)
                else f"the gradient's norm is {norm}"
            )
            raise NotFiniteError(what, self.at.step, self.learning_rate)
        return {
            "step": self.at.step,
            "loss": loss,
            **{f"{part}_loss": mean for part, mean in zip(parts, means, strict=True)},
            "learning_rate": self.learning_rate,
            "grad_norm": norm,
            "pieces": self.at.pieces,
            "pieces_per_second": self.pieces / self.seconds,
            "data_wait": self.waited / self.seconds,
            "step_seconds": self.seconds,
            "seconds": self.at.seconds,
        }


def _backward(
    forward: nn.Module,
    micro_batches: list[Batch],
    counts: Sequence[float],
    step: int,
    settings: LoopSettings,
    ranks: Ranks,
    hurry: _Signals | None = None,
) -> Tensor | None:
    """Accumulate the gradient of the global batch's mean losses; return this rank's sums.

    Given ``hurry``, a signal that arrives meanwhile ends it with None.
    """
    # DDP averages over ranks what is to be added up.
    weights = torch.tensor([ranks.world_size / count if count else 0.0 for count in counts])
    weights = weights.to(ranks.device, non_blocking=True)
    total = torch.zeros(len(counts), device=ranks.device)
    for index, batch in enumerate(micro_batches):
        if hurry is not None and hurry.received:
            return None
        final = index == len(micro_batches) - 1
        exchange: AbstractContextManager[Any] = nullcontext()
        if not final and ranks.world_size > 1:
            exchange = cast(Any, forward).no_sync()
        with exchange:
            with _autocast(ranks.device, settings.dtype):
                sums, _ = forward(move(batch, ranks.device), mix(settings.seed, step))
            torch.dot(sums.float(), weights).backward()  # type: ignore[no-untyped-call]
        total += sums.detach()
    return total


def mix(*numbers: int) -> int:
    """One 63-bit seed from several numbers, any of which changes all of it (splitmix64)."""
    state = 0
    for number in numbers:
        state = (state + number + 0x9E3779B97F4A7C15) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & 0xFFFFFFFFFFFFFFFF
        state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & 0xFFFFFFFFFFFFFFFF
        state ^= state >> 31
    return state >> 1


def _clip_divisor(norm: Tensor, clip_norm: float) -> Tensor | None:
    """What the gradient has to be divided by: 1, or its norm over the greatest one allowed."""
    if not clip_norm or (not norm.is_cuda and not norm.item() > clip_norm):
        return None
    return (norm / clip_norm).clamp(min=1.0)


def _autocast(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[Any]:
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype=dtype)


def _due(step: int, every: int) -> bool:
    return every > 0 and step % every == 0


def _map_tensors(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(cast(Any, batch)):
        value = getattr(batch, item.name)
        if isinstance(value, Tensor):
            changes[item.name] = change(value)
        elif dataclasses.is_dataclass(value):
            changes[item.name] = _map_tensors(value, change)
    return cast(Batch, dataclasses.replace(cast(Any, batch), **changes))
