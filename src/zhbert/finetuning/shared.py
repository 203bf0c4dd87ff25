"""Several tasks that share an encoder, as one seed trains them.

Each step is of one task, as in MT-DNN (https://arxiv.org/abs/1901.11504, algorithm 1). A task has
as many steps as it would have alone, in an order drawn by the seed, so tasks are drawn in
proportion to their sizes, and every example is seen once in an epoch of its task.
"""

from __future__ import annotations

import dataclasses
import itertools
import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from zhbert.finetuning.best import Best, Evaluation
from zhbert.finetuning.training_task import TrainingTask
from zhbert.tasks.batches import BatchLimits
from zhbert.tasks.rows import LabelledBatch
from zhbert.tasks.settings import FineTuningSettings
from zhbert.train.loop import Outcome
from zhbert.train.optim import Schedule


class SharedModel(nn.ModuleList):
    """Models with the encoder of the first; each has its own head, and opens like any other."""

    def __init__(self, models: Sequence[nn.Module]) -> None:
        for model in models:
            model.encoder = models[0].encoder
        super().__init__(models)

    def compile_layers(self) -> None:
        """Compile the encoder; see the method of that name of one model."""
        self[0].compile_layers()  # type: ignore[operator]


@dataclass(frozen=True)
class SharedBatch:
    """A micro-batch of one of the tasks."""

    task: int
    batch: LabelledBatch


class SharedObjective:
    """The objectives of several tasks as one, whose parts are those of every task."""

    def __init__(self, tasks: Sequence[TrainingTask]) -> None:
        self._each = [task.objective for task in tasks]
        self.parts = tuple(
            f"{task.card.name}_{part}"
            for task, objective in zip(tasks, self._each, strict=True)
            for part in objective.parts
        )
        ends = [*itertools.accumulate(len(objective.parts) for objective in self._each)]
        self._places = list(itertools.pairwise([0, *ends]))

    def weights(self, progress: float) -> tuple[float, ...]:
        """Return the factor of each part when a share of the run, from 0 to 1, is done."""
        return tuple(weight for one in self._each for weight in one.weights(progress))

    def counts(self, batch: SharedBatch) -> tuple[int, ...]:
        """Return the numbers of targets; those of other tasks are 0."""
        begin, end = self._places[batch.task]
        own = self._each[batch.task].counts(batch.batch)
        return (0,) * begin + own + (0,) * (len(self.parts) - end)

    def pieces(self, batch: SharedBatch) -> int:
        """Return the number of pieces."""
        return batch.batch.num_pieces

    def whole_step(
        self, model: nn.Module, batches: Sequence[SharedBatch], seed: int
    ) -> Sequence[SharedBatch]:
        """Return a step's micro-batches, which are of one task, with what it must know of them."""
        task = batches[0].task
        own = [one.batch for one in batches]
        found = self._each[task].whole_step(model[task], own, seed)  # type: ignore[index]
        return [SharedBatch(task, one) for one in found]

    def __call__(self, model: nn.Module, batch: SharedBatch, seed: int) -> tuple[Tensor, Tensor]:
        """Return the sums of all parts' losses; those of other tasks are 0."""
        begin, end = self._places[batch.task]
        found = self._each[batch.task](model[batch.task], batch.batch, seed)  # type: ignore[index]
        losses, correct = (functional.pad(one, (begin, len(self.parts) - end)) for one in found)
        return losses, correct


@dataclass(frozen=True)
class SharedTasks:
    """Several tasks with an encoder, in place of a `TrainingTask`, for one seed."""

    tasks: Sequence[TrainingTask]
    seed: int

    @property
    def settings(self) -> FineTuningSettings:
        """The settings that concern the run as a whole; epochs, rows and rates are the tasks'."""
        return self.tasks[0].settings

    @property
    def device(self) -> torch.device:
        """The device of the training."""
        return self.tasks[0].device

    @property
    def say(self) -> Callable[[str], None]:
        """Called with each remark."""
        return self.tasks[0].say

    @property
    def quiet(self) -> bool:
        """Show no progress on stderr."""
        return self.tasks[0].quiet

    @property
    def metrics(self) -> tuple[str, ...]:
        """The mean of the main metrics on dev, then each of them."""
        return ("mean", *(f"{one.card.name}_{one.card.metrics[0]}" for one in self.tasks))

    def open_model(self, seed: int) -> nn.Module:
        """Open the model to train, with new heads of this seed."""
        return SharedModel([task.open_model(seed) for task in self.tasks])

    @property
    def objective(self) -> SharedObjective:
        """The loss of a micro-batch."""
        return SharedObjective(self.tasks)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """The task of each step: (steps,)."""
        tasks = np.repeat(np.arange(len(self.tasks)), [task.steps for task in self.tasks])
        return np.random.default_rng(self.seed).permutation(tasks)

    def own_steps(self, number: int, step: int) -> int:
        """Return how many of the first ``step`` steps are of a task."""
        return int((self.order[:step] == number).sum())

    @property
    def steps(self) -> int:
        """The number of optimizer steps in the run."""
        return len(self.order)

    @property
    def steps_per_epoch(self) -> int:
        """The number of steps between two evaluations, by default."""
        return -(-self.steps // max(task.settings.epochs for task in self.tasks))

    @property
    def limits(self) -> BatchLimits:
        """The size of a micro-batch on this machine, for every task."""
        every = [task.limits for task in self.tasks]
        return BatchLimits(
            min(one.max_padded_tokens for one in every),
            self.settings.micro_batch_size,
            min(one.max_kept_tokens for one in every),
        )

    @property
    def operations(self) -> float:
        """The floating-point operations of the run."""
        return sum(task.operations for task in self.tasks)

    @property
    def schedule(self) -> Schedule:
        """The learning rate of each step: its task's peak, on the way of the whole run."""
        rates = [task.schedule_of(self.steps) for task in self.tasks]
        return lambda done: rates[self.order[done]](done)

    def micro_batches(
        self, seed: int, done: int, limits: BatchLimits
    ) -> Iterator[Sequence[SharedBatch]]:
        """Yield the micro-batches of each step after the first ``done`` steps."""
        sources = [
            task.micro_batches(seed, self.own_steps(number, done), limits)
            for number, task in enumerate(self.tasks)
        ]
        for number in self.order[done:].tolist():
            yield [SharedBatch(number, batch) for batch in next(sources[number])]

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Score every task's dev; ``kind`` has the metrics and tuned values by task."""
        found = {
            task.card.name: task.evaluate(model[number])  # type: ignore[index]
            for number, task in enumerate(self.tasks)
        }
        metrics = {
            f"{name}_{metric}": value
            for name, one in found.items()
            for metric, value in one.metrics.items()
        }
        mean = statistics.fmean(one.value for one in found.values())
        kind: dict[str, Any] = {
            name: {"metrics": one.metrics, "kind": one.kind} for name, one in found.items()
        }
        return Evaluation(value=mean, metrics={"mean": mean, **metrics}, kind=kind)

    def of_task(self, number: int, best: Best, outcome: Outcome) -> tuple[Best, Outcome]:
        """Return one task's part of the result: its steps, and as much of the time and pieces."""
        task = self.tasks[number]
        own = best.kind[task.card.name]
        value = own["metrics"][task.card.metrics[0]]
        at = self.own_steps(number, best.step)
        epoch = round(at / task.steps_per_epoch, 3)
        steps = self.own_steps(number, outcome.step)
        share = steps / max(1, outcome.step)
        ended = dataclasses.replace(
            outcome,
            step=steps,
            pieces=round(outcome.pieces * share),
            seconds=outcome.seconds * share,
        )
        return Best(value=value, step=at, epoch=epoch, state=best.state, **own), ended
