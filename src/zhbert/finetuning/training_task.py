"""A task with its examples tokenized, shared by all seeds of a run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from zhbert.distill.matcher import Projections
from zhbert.distill.matching import MatchPlan, plan_matches
from zhbert.errors import ZhbertError
from zhbert.finetuning.best import Evaluation
from zhbert.finetuning.describe import describe_examples, describe_settings
from zhbert.finetuning.distilling import Distilling
from zhbert.finetuning.request import FineTuningRequest
from zhbert.finetuning.starting_model import StartingModel, open_with_head
from zhbert.finetuning.teachers import TaskTeacher, Teachers, describe_teachers
from zhbert.inference.rows import check_segments
from zhbert.inference.run_model import run_model
from zhbert.model.config import BertConfig
from zhbert.runtime import choose_dtype
from zhbert.tasks.batches import Batches, BatchLimits, planned_padding, steps_of
from zhbert.tasks.card import TaskCard
from zhbert.tasks.examples import Example
from zhbert.tasks.kinds import KINDS, Kind
from zhbert.tasks.learners.base import FineTuning, Learner, Prepared
from zhbert.tasks.rows import LabelledBatch
from zhbert.tasks.scoring import metrics_of
from zhbert.tasks.settings import FineTuningSettings
from zhbert.train.cost import Hardware, Workload, max_kept_tokens, max_padded_tokens
from zhbert.train.optim import Schedule, schedule
from zhbert.wording import counted

NO_MATCHES = MatchPlan()
PREVIEWED = 3
# The number of pieces of a row that the preview shows.
PREVIEWED_PIECES = 32


@dataclass(frozen=True)
class ScoredSplit:
    """A tokenized split, and the card by which it is scored."""

    card: TaskCard
    name: str
    """The split's name in that card."""
    prepared: Prepared


@dataclass(frozen=True)
class TrainingTask:
    """The tokenized task and the settings that all seeds of a run share."""

    card: TaskCard
    learner: Learner
    model: Path
    """The folder of the model to start from."""
    config: BertConfig
    """Its configuration."""
    train: Prepared
    dev: Prepared
    also: Mapping[str, ScoredSplit]
    """Further splits, and other cards' dev, that are scored together with dev."""
    settings: FineTuningSettings
    device: torch.device
    say: Callable[[str], None]
    quiet: bool
    """Show no progress on stderr."""
    teachers: tuple[TaskTeacher, ...] = ()
    """The models that are learnt from beside the labels."""
    plan: MatchPlan = NO_MATCHES
    """Which of their layers are compared with which of the student's."""

    @property
    def kind(self) -> Kind:
        """The kind of the task."""
        return KINDS[self.card.kind]

    @property
    def metrics(self) -> tuple[str, ...]:
        """The metrics on dev, the main one first."""
        return self.card.metrics

    def open_model(self, seed: int) -> nn.Module:
        """Open the model to train, with a new head of this seed."""
        model = open_with_head(self.model, self.kind, self.learner, seed)
        if self.plan.matches:
            cast(Any, model).add_matching(Projections(self.plan, seed))
        return model

    @property
    def objective(self) -> FineTuning:
        """The loss of a micro-batch."""
        settings, models = self.settings.distill, [one.model for one in self.teachers]
        if settings is None:
            return FineTuning(self.card.kind, self.learner)
        return Distilling(self.card.kind, self.learner, settings, self.plan, models)

    @cached_property
    def batches(self) -> Batches:
        """The batches of the training set."""
        return self.learner.batches(self.train)

    @property
    def workload(self) -> Workload:
        """The sizes of the longest row to train on."""
        longest = int(self.train.rows.lengths.max(initial=1))
        return Workload.of(self.config, vocabulary_size=0, sequence_length=longest)

    @property
    def limits(self) -> BatchLimits:
        """The size of a micro-batch on this machine."""
        dtype = choose_dtype(self.settings.precision, self.device)
        work, hardware = self.workload, Hardware.of(self.device, dtype)
        return BatchLimits(
            max_padded_tokens(work, hardware),
            self.settings.micro_batch_size,
            # Layers are matched in one forward pass at a time.
            0 if self.plan.matches else max_kept_tokens(work, hardware),
        )

    @property
    def operations(self) -> float:
        """The floating-point operations of the run."""
        pieces = int(self.train.rows.cu_seqlens[-1]) * self.settings.epochs
        return self.workload.operations() * pieces

    @property
    def schedule(self) -> Schedule:
        """The learning rate of each step."""
        return self.schedule_of(self.steps)

    def schedule_of(self, steps: int) -> Schedule:
        """Return the learning rates of a run of so many steps."""
        optimizing = self.settings.optimizer
        warmup = round(optimizing.warmup_share * steps)
        return schedule("linear", optimizing.learning_rate, warmup, steps)

    def micro_batches(
        self, seed: int, done: int, limits: BatchLimits
    ) -> Iterator[Sequence[LabelledBatch]]:
        """Yield the micro-batches of each step after the first ``done`` steps, without end."""
        return steps_of(
            self.batches,
            batch_size=self.settings.batch_size,
            seed=seed,
            done=done,
            limits=limits,
        )

    def evaluate(self, model: nn.Module) -> Evaluation:
        """Score dev."""
        scores = run_model(model, self.dev.rows, self.learner.scores)
        tuned = self.learner.tuned(self.dev, scores)
        metrics = metrics_of(self.card, self.dev.examples, tuned.decode(self.dev, scores))
        return Evaluation(
            value=metrics[self.card.metrics[0]],
            metrics=metrics,
            kind=tuned.saved(),
            scores=scores,
        )

    def padding_share(self, seed: int) -> float:
        """Return the share of padding if each part of an epoch were padded to its longest row."""
        lengths, size = self.train.rows.lengths, self.settings.batch_size
        return planned_padding(self.batches, lengths, size, seed, self.limits)

    @property
    def steps_per_epoch(self) -> int:
        """The number of optimizer steps in an epoch."""
        return self.batches.per_epoch(self.settings.batch_size)

    @property
    def steps(self) -> int:
        """The number of optimizer steps in the run."""
        return self.settings.epochs * self.steps_per_epoch


def prepare_task(
    request: FineTuningRequest,
    start: StartingModel,
    learner: Learner,
    settings: FineTuningSettings,
    device: torch.device,
    teachers: Teachers,
) -> TrainingTask:
    """Tokenize all splits, and let the teachers compute the training examples.

    Raises ZhbertError if there is no example to learn from, if the rows are pairs of texts and
    the model has only one segment, or if a teacher does not suit the task or the student.
    """
    examples = [one for split in request.train.values() for one in split.examples]
    kind = KINDS[request.card.kind]
    completed, remarks = learner.completed(
        examples, lambda: open_with_head(start.folder, kind, learner, 0).to(device)
    )
    train = learner.prepare(completed, training=True)
    train = replace(train, remarks=(*remarks, *train.remarks))
    check_segments(train.rows, start.config.type_vocab_size)
    if not len(train.rows):
        path = next(iter(request.train.values())).path
        raise ZhbertError(f"{path}: no example that can be learnt from")
    opened: tuple[TaskTeacher, ...] = ()
    plan = NO_MATCHES
    if settings.distill is not None:
        soft_labels = settings.distill.soft_labels != "none"
        if soft_labels:
            learner.describe_soft_labels(settings.distill)  # or raise an error
        plan = plan_matches(settings.distill, start.config, [one.config for one in teachers.starts])
        teachers.check(train.rows, start.config)
        opened = teachers.opened(train.rows, learner, settings.distill)
        if soft_labels:
            soft = teachers.soft_targets(train.rows, learner)
            train = replace(train, rows=replace(train.rows, soft=soft))
    scored = {
        name: ScoredSplit(split.card, split.name, learner.prepare(split.examples))
        for name, split in request.scored.items()
    }
    return TrainingTask(
        card=request.card,
        learner=learner,
        model=start.folder,
        config=start.config,
        train=train,
        dev=scored.pop("dev").prepared,
        also=scored,
        settings=settings,
        device=device,
        say=request.say,
        quiet=request.quiet,
        teachers=opened,
        plan=plan,
    )


def describe_data(request: FineTuningRequest, learner: Learner) -> Iterator[str]:
    """Yield lines on the task, its files, and a few examples as the model sees them."""
    yield f"task: {request.card.title}"
    for name, split in request.splits.items():
        what = describe_examples(split.card, split.examples)
        yield f"{name}: {split.path}: {what}"
    for split in request.train.values():
        for example in split.examples[: -(-PREVIEWED // len(request.train))]:
            what = KINDS[split.card.kind].describe(split.card, example)
            yield from _preview(learner, example, what)


def _preview(learner: Learner, example: Example, what: str) -> Iterator[str]:
    pieces = learner.preview(example).tolist()
    if not pieces:
        return
    text = learner.tokenizer.decode(pieces[:PREVIEWED_PIECES])
    more = f" … ({len(pieces)} pieces)" if len(pieces) > PREVIEWED_PIECES else ""
    yield f"  {text}{more}\n    -> {what}"


def describe_task(task: TrainingTask, start: StartingModel, threads: int) -> Iterator[str]:
    """Yield lines on cut examples, the model, the rows, the settings and the steps."""
    yield from dict.fromkeys((*task.train.remarks, *task.dev.remarks))
    settings, config = task.settings, start.config
    dtype = str(choose_dtype(settings.precision, task.device)).removeprefix("torch.")
    yield (
        f"model: {start.name}, {counted(config.num_hidden_layers, 'layer')} x "
        f"{config.hidden_size}; {task.device}, {dtype}"
        + (f", {counted(threads, 'thread')}" if task.device.type == "cpu" else "")
    )
    yield from describe_teachers(task.teachers, task.learner, settings.distill)
    yield from task.plan.describe()
    yield _describe_rows(task)
    yield from describe_settings(settings, task.kind)
    yield f"{counted(task.steps, 'step')}, {task.steps_per_epoch:,} an epoch"


def _describe_rows(task: TrainingTask) -> str:
    train, lengths = task.train, task.train.rows.lengths
    rows = len(train.rows)
    of_rows = f" in {counted(rows, 'row')}" if rows != len(train.examples) else ""
    return (
        f"data: {counted(len(train.examples), 'example')} to train on{of_rows}, "
        f"{len(task.dev.examples):,} in dev; {lengths.mean():.0f} pieces a row, "
        f"{task.padding_share(0):.1%} padding"
    )
