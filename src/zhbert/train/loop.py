"""The training loop of all runs, independent of BERT and of Chinese.

A `Trainer` gets a model, an objective that turns a micro-batch into sums of losses, a source of
steps, and evaluation sets; it makes the optimiser steps, the lines of the log, and checkpoints.

For each of the objective's parts, the loss of a step is the mean over all predictions of the global
batch. The counts of all micro-batches and ranks are added up before the first backward pass, so
that each prediction has the same weight, however the batch is divided.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any, Generic, cast

import torch
from torch import Tensor, nn

from zhbert.errors import ZhbertError
from zhbert.train.distributed import ALONE, Ranks
from zhbert.train.graphs import RecordableObjective, RecordedStep, Recorder
from zhbert.train.log import Sink
from zhbert.train.optim import Optimizer, RecordableOptimizer, Schedule
from zhbert.train.prefetch import Batch, Prefetcher, to_device
from zhbert.train.signals import StopSignals
from zhbert.train.step import EagerStep, Forward, Objective, Step, WholeStep, autocast, mix


@dataclass(frozen=True)
class EvaluationSet(Generic[Batch]):
    """Named batches for evaluation."""

    name: str
    batches: Sequence[Batch]
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further entries of each of its lines in the log, such as the score of a trivial guess."""


@dataclass(frozen=True, kw_only=True)
class LoopSettings:
    """The length, intervals and number format of training."""

    last_step: int
    """The step at which training ends, counted from the start of the first phase."""
    seed: int = 0
    dtype: torch.dtype = torch.float32
    """float32, or bfloat16 for automatic mixed precision."""
    clip_norm: float = 1.0
    """The maximum global norm of the gradient; 0: no clipping."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: only the last step has one."""
    evaluate_every: int = 0
    """Steps between evaluations; 0: only the last step has one."""


@dataclass(frozen=True)
class TrainState:
    """The progress of a run, stored in a checkpoint in addition to the tensors."""

    step: int = 0
    """Completed optimiser steps."""
    pieces: int = 0
    """Pieces read in these steps, on all ranks."""
    seconds: float = 0.0
    """Duration of these steps, without evaluation and saving."""


BEGINNING = TrainState()


@dataclass(frozen=True)
class Judgement:
    """The result of a judge, the caller's evaluation function."""

    lines: Sequence[Mapping[str, Any]]
    """Lines for the log."""
    enough: bool = False
    """True: training ends after this step's checkpoint."""


@dataclass(frozen=True)
class Outcome:
    """The result of the loop."""

    step: int
    pieces: int
    seconds: float
    """As in TrainState: the total over all resumptions."""
    signal: int | None
    """SIGINT, SIGTERM or SIGHUP if one ended the run early; its state is saved."""
    evaluations: list[dict[str, Any]]
    """The lines of the last evaluation."""
    late_signal: int | None = None
    """A signal that arrived after the run was complete: the caller should do nothing further."""


class NotFiniteError(ZhbertError):
    """The error of a loss or gradient norm that is infinite or NaN."""

    def __init__(self, what: str, step: int, learning_rate: float) -> None:
        super().__init__(f"{what} at step {step} (learning rate {learning_rate:.3g})")
        self.what, self.step, self.learning_rate = what, step, learning_rate


@dataclass
class Trainer(Generic[Batch]):
    """The training of a model from one state to ``settings.last_step``: ``Trainer(...).train()``.

    SIGINT, SIGTERM and SIGHUP end a run after the current micro-batch (with several processes: the
    current step) and a checkpoint; a second signal ends it at once.
    """

    model: nn.Module
    objective: Objective[Batch]
    _: KW_ONLY
    source: Callable[[int], Iterator[Sequence[Batch]]]
    """``source(done)`` yields this rank's micro-batches of each step after ``done`` steps."""
    optimizer: Optimizer
    schedule: Schedule
    settings: LoopSettings
    save: Callable[[TrainState], object]
    """Writes a checkpoint of the state."""
    sinks: Sequence[Sink] = ()
    """Receive the log's lines."""
    whole_step: WholeStep[Batch] | None = None
    """For losses that compare the rows of different micro-batches: called with the model, a step's
    micro-batches and its seed, without gradients, before the backward passes; returns the
    micro-batches that the objective gets."""
    weights: Callable[[int], Sequence[float]] | None = None
    """``weights(done)``: the factor of each part's mean in the loss of the step after ``done``
    steps; None: 1. The log has the losses of the parts without it."""
    evaluations: Sequence[EvaluationSet[Batch]] = ()
    evaluation_objective: Objective[Batch] | None = None
    """The losses of ``evaluations``; None: the objective's."""
    judge: Callable[[TrainState], Judgement] | None = None
    """Evaluates whenever ``evaluations`` are due, before the checkpoint. Signals do not interrupt
    it, so that its decision is in the checkpoint and the same after a resumption."""
    record: Recorder | None = None
    """How steps are recorded and repeated, such as `zhbert.train.graphs.CudaGraphs`, if objective
    and optimiser can be; None: they are not."""
    ranks: Ranks = ALONE
    divided: Forward | None = None
    """The model's forward pass, if its weights are divided among the ranks (`train.sharding`)."""
    start: TrainState = BEGINNING
    evaluated: Collection[str] | None = None
    """None: nothing is evaluated before the first step. Otherwise the names of the evaluations of
    the step ``start`` in the log. Others that are due at that step are made first: a signal
    interrupted them, or the log was damaged. At step 0 all are due, to measure the first model."""
    notice: Callable[[str], None] = lambda line: None
    """Called with a line when a signal arrives."""

    def __post_init__(self) -> None:
        self.state = self.start
        self._saved_step = self.start.step
        self._steps = self._step_maker()
        self._alone = not self.ranks.connected
        # A GPU's numbers are read while it computes the next step, so that it is never idle.
        self._lag = 1 if self.ranks.device.type == "cuda" else 0
        self._pending: list[_StepRecord] = []
        self._last_evaluation: list[dict[str, Any]] = []
        self._enough = False

    def train(self) -> Outcome:
        """Train to the end; raise NotFiniteError, without a checkpoint, if it diverges."""
        self.model.train()
        with (
            self._steps.running(),
            StopSignals(self.notice, self._alone) as self._signals,
            Prefetcher(self._prepared()) as batches,
        ):
            complete = self._evaluate_start() and self._all_steps(batches)
            self._write_steps()
            if not complete and self._saved_step != self.state.step:
                self._checkpoint()
        received, at = self._signals.received, self.state
        stop, late = (None, received) if complete else (received or signal.SIGTERM, None)
        return Outcome(at.step, at.pieces, at.seconds, stop, self._last_evaluation, late)

    def _step_maker(self) -> Step:
        model, optimizer, settings = self.model, self.optimizer, self.settings
        objective: Any = self.objective
        if (
            self.record is not None
            and self.whole_step is None
            and isinstance(objective, RecordableObjective)
            and isinstance(optimizer, RecordableOptimizer)
        ):
            return RecordedStep(
                model,
                objective,
                optimizer,
                self.ranks,
                dtype=settings.dtype,
                clip_norm=settings.clip_norm,
                record=self.record,
            )
        return EagerStep(
            model,
            objective,
            optimizer,
            self.ranks,
            settings.dtype,
            settings.clip_norm,
            self.whole_step,
            self.divided,
        )

    def _prepared(self) -> Iterator[_Prepared]:
        """Yield the steps after ``start``, for the thread that prepares them."""
        for step, batches in enumerate(self.source(self.start.step), self.start.step):
            counts = map(sum, zip(*map(self.objective.counts, batches), strict=True))
            pieces = sum(map(self.objective.pieces, batches))
            seed = mix(self.settings.seed, step)
            yield _Prepared(self._steps.prepared(batches, seed), seed, [*counts, pieces])

    def _all_steps(self, batches: Prefetcher[_Prepared]) -> bool:
        """Train to the last step; return False if a signal ended the run before."""
        self._clock = time.perf_counter()
        while self.state.step < self.settings.last_step and not self._enough:
            if self._alone and self._signals.received:
                return False
            if not (self._step(batches) and self._after_step()):
                return False
        return True

    def _step(self, batches: Prefetcher[_Prepared]) -> bool:
        """Make one optimiser step; return False if a signal prevented it."""
        ready, waited = batches.take()
        # One exchange before the step: the whole batch's counts, and which ranks got a signal.
        mine = [*ready.counts, self._signals.received or 0]
        *counts, pieces_of_all, wish = self.ranks.sum(mine)
        if wish:
            return False
        learning_rate = self.schedule(self.state.step)
        factors = self.weights(self.state.step) if self.weights else [1.0] * len(counts)
        found = self._steps.make(
            ready.batches,
            ready.seed,
            weights=[
                factor * self._steps.scale / count if count else 0.0
                for factor, count in zip(factors, counts, strict=True)
            ],
            learning_rate=learning_rate,
            stopped=lambda: self._alone and self._signals.received,
        )
        if found is None:  # the step is repeated when the run resumes
            return False
        numbers = _Numbers(found)
        if not self._lag:
            numbers.read()
        now = time.perf_counter()
        seconds, self._clock = now - self._clock, now
        at = self.state
        self.state = TrainState(at.step + 1, at.pieces + int(pieces_of_all), at.seconds + seconds)
        self._pending.append(
            _StepRecord(
                self.state,
                numbers,
                counts,
                factors,
                learning_rate,
                int(pieces_of_all),
                seconds,
                waited,
            )
        )
        return True

    def _after_step(self) -> bool:
        """Log, judge, save and evaluate as due; return False if a signal stopped an evaluation."""
        self._write_steps(self._lag)
        evaluate_now = self._evaluation_is_due()
        if evaluate_now and self.judge is not None:
            self._write_steps()
            judgement = self.judge(self.state)
            self._enough = judgement.enough
            for line in judgement.lines:
                self._write(line)
        ended = self._enough or self.state.step == self.settings.last_step
        save_now = ended or _is_multiple(self.state.step, self.settings.checkpoint_every)
        if save_now:
            self._checkpoint()
        done = not (evaluate_now and self.evaluations) or self._evaluate(self.evaluations)
        if evaluate_now or save_now:
            self._clock = time.perf_counter()
        return done

    # -- evaluation, checkpoints, log --------------------------------------------------------------

    def _evaluation_is_due(self) -> bool:
        step = self.state.step
        return step == self.settings.last_step or _is_multiple(step, self.settings.evaluate_every)

    def _evaluate_start(self) -> bool:
        """Evaluate if due before the first step; return False if a signal prevented it."""
        if self.evaluated is None or not (self.start == BEGINNING or self._evaluation_is_due()):
            return True
        return self._evaluate([one for one in self.evaluations if one.name not in self.evaluated])

    def _evaluate(self, sets: Sequence[EvaluationSet[Batch]]) -> bool:
        """Evaluate and log; return False if a signal stopped it: it is repeated on resuming."""
        self._write_steps()
        lines = evaluate(
            self.model,
            self.evaluation_objective or self.objective,
            sets,
            self.state.step,
            self.settings.dtype,
            self.ranks,
            self._signals if self._alone else None,
            divided=self.divided,
        )
        self._last_evaluation = lines or self._last_evaluation
        for line in lines:
            self._write(line)
        return bool(lines) or not sets

    def _checkpoint(self) -> None:
        self._write_steps()
        self.save(self.state)
        self._saved_step = self.state.step

    def _write_steps(self, left: int = 0) -> None:
        """Write the lines of all steps but the newest ``left``, which may still be running."""
        while len(self._pending) > left:
            self._write(self._pending.pop(0).line(self.objective.parts))

    def _write(self, line: Mapping[str, Any]) -> None:
        for sink in self.sinks:
            sink.write(line)


def evaluate(
    model: nn.Module,
    objective: Objective[Batch],
    sets: Sequence[EvaluationSet[Batch]],
    step: int,
    dtype: torch.dtype = torch.float32,
    ranks: Ranks = ALONE,
    signals: StopSignals | None = None,
    *,
    divided: Forward | None = None,
) -> list[dict[str, Any]]:
    """Evaluate the model on every set, without dropout; the ranks share the batches.

    Returns:
        a log line for each set: each part's mean loss, accuracy and number of predictions;
        [] if a stop signal arrives in ``signals`` during the evaluation.
    """
    lines: list[dict[str, Any]] = []
    parts, forward = objective.parts, divided or Forward(model)
    was_training = model.training
    model.eval()
    try:
        for one in sets:
            losses = torch.zeros(len(parts), dtype=torch.float64, device=ranks.device)
            correct = torch.zeros_like(losses)
            counts = [0] * len(parts)
            for batch in one.batches[ranks.rank :: ranks.world_size]:
                if signals is not None and signals.received:
                    return []
                with torch.no_grad(), autocast(ranks.device, dtype):
                    sums = forward(objective, to_device(batch, ranks.device), 0)
                losses += sums[0].double()
                correct += sums[1].double()
                counts = [a + b for a, b in zip(counts, objective.counts(batch), strict=True)]
            if divided and ranks.rank >= len(one.batches) % ranks.world_size > 0:
                # All ranks must call a divided model equally often.
                with torch.no_grad(), autocast(ranks.device, dtype):
                    forward(objective, to_device(one.batches[0], ranks.device), 0)
            flat = ranks.sum([*losses.tolist(), *correct.tolist(), *counts])
            columns = [flat[i * len(parts) : (i + 1) * len(parts)] for i in range(3)]
            line: dict[str, Any] = {"step": step, "evaluation": one.name}
            for part, loss, right, number in zip(parts, *columns, strict=True):
                line[f"{part}_loss"] = loss / number if number else None
                line[f"{part}_accuracy"] = right / number if number else None
                line[f"{part}_predictions"] = int(number)
            lines.append({**line, **one.extra})
    finally:
        model.train(was_training)
    return lines


@dataclass(frozen=True)
class _Prepared:
    """A step's prepared micro-batches on this rank."""

    batches: Sequence[Any]
    seed: int
    counts: list[int]
    """The predictions of each of the objective's parts, then the pieces."""


class _Numbers:
    """A step's numbers, which are being copied from the device."""

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
class _StepRecord:
    """One optimiser step, to be logged when its numbers have been copied."""

    at: TrainState
    numbers: _Numbers
    counts: list[float]
    factors: Sequence[float]
    """The factor of each part's mean in the loss."""
    learning_rate: float
    pieces: int
    seconds: float
    waited: float

    def line(self, parts: Sequence[str]) -> dict[str, Any]:
        norm, *sums = self.numbers.read()
        means = [s / c if c else None for s, c in zip(sums, self.counts, strict=True)]
        loss = sum(
            factor * mean
            for factor, mean in zip(self.factors, means, strict=True)
            if mean is not None
        )
        if not math.isfinite(loss):
            raise NotFiniteError(f"the loss is {loss}", self.at.step, self.learning_rate)
        if not math.isfinite(norm):
            raise NotFiniteError(f"the gradient's norm is {norm}", self.at.step, self.learning_rate)
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


def _is_multiple(step: int, every: int) -> bool:
    return every > 0 and step % every == 0
