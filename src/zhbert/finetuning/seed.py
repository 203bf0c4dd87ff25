"""One seed of a fine-tuning run: trained, judged on dev, resumed, and written whole.

A seed's folder is finished when ``result.json`` stands in it. Everything before that can be killed
at any moment: the newest checkpoint holds the weights, the optimiser, the best weights so far and
what was said of them, so that what follows is the same to the bit.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import atomic_folder, make_folder, read_json, to_json, write_json, write_text
from zhbert.finetuning.epochs import plan_epoch, steps_of
from zhbert.finetuning.fine_tuned import SECTION, section_of
from zhbert.finetuning.scores import metrics_of, prediction_lines
from zhbert.inference.rows import padding_share
from zhbert.inference.run_model import Array, run_model
from zhbert.model import pretrained
from zhbert.model.names import FINE_TUNED
from zhbert.runtime import choose_dtype
from zhbert.tasks.cards import TaskCard
from zhbert.tasks.kinds import FineTuning, Kind, Prepared
from zhbert.tasks.rows import LabelledBatch
from zhbert.tasks.scoring import report
from zhbert.tasks.settings import FineTuningSettings
from zhbert.tasks.write_predictions import write_predictions
from zhbert.train.checkpoint import Checkpoint, Checkpoints, load_model_state, model_state
from zhbert.train.cost import Hardware, Workload, compile_if_worth_it, max_padded_tokens
from zhbert.train.distributed import Ranks
from zhbert.train.log import MetricsFile, Progress, Sink
from zhbert.train.loop import Judgement, LoopSettings, NotFiniteError, Trainer, TrainState
from zhbert.train.optim import AdamW, schedule
from zhbert.train.signals import write_notice

RESULT = "result.json"
# What a summary takes from it.
RESULT_KEYS = {
    "seed", "metrics", "seconds", "examples_per_second", "pieces_per_second", "padding_share",
}  # fmt: skip


@dataclass(frozen=True)
class Task:
    """What all seeds of a run share."""

    card: TaskCard
    kind: Kind
    model: Path
    """The folder of the model to start from."""
    train: Prepared
    dev: Prepared
    also: Mapping[str, Prepared]
    """Further splits that are scored with dev, by name."""
    settings: FineTuningSettings
    device: torch.device
    say: Callable[[str], None]
    quiet: bool

    @property
    def steps_per_epoch(self) -> int:
        """Optimiser steps of an epoch."""
        return -(-len(self.train.rows) // self.settings.batch_size)

    @property
    def steps(self) -> int:
        """Optimiser steps of the run."""
        return self.settings.epochs * self.steps_per_epoch


class Stopped(Exception):  # noqa: N818 - no error: a signal ended the run, its state is saved
    """SIGINT, SIGTERM or SIGHUP ended the run."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class DivergedError(ZhbertError):
    """A seed whose loss is no longer a number; its last good checkpoint is kept."""


@dataclass
class Best:
    """The best model so far."""

    value: float
    """Of the main metric on dev."""
    step: int
    epoch: float
    metrics: dict[str, float]
    kind: dict[str, Any]
    """What was tuned on dev."""
    state: dict[str, Tensor]
    scores: Array | None = None
    """Of dev; None after a resumption."""


def finished(folder: Path) -> dict[str, Any] | None:
    """The result of a seed that is done, else None."""
    try:
        result = read_json(folder / RESULT, dict)
    except ZhbertError:
        return None
    return result if result.keys() >= RESULT_KEYS and (folder / "final").is_dir() else None


def train_seed(task: Task, folder: Path, seed: int) -> tuple[dict[str, Any], int | None]:
    """Train one seed, or go on with it, or read its result.

    Returns what result.json holds, and a signal that came when there was nothing left to stop.

    Raises Stopped after a signal, ZhbertError where the loss is no number.
    """
    result, signal = finished(folder), None
    if result is None:
        result, signal = _Seed(task, folder, seed).go()
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return result, signal


class _Seed:
    def __init__(self, task: Task, folder: Path, seed: int) -> None:
        self.task, self.folder, self.seed = task, folder, seed
        self.kind = task.kind
        self.best: Best | None = None
        self.stale = 0
        """Evaluations since the best one."""
        self.enough = False
        self.cells = 0
        settings = task.settings
        self.dtype = choose_dtype(settings.precision, task.device)
        self.model = open_model(task.model, self.kind, seed)
        self.checkpoints = Checkpoints(folder / "checkpoints", say=task.say)

    def go(self) -> tuple[dict[str, Any], int | None]:
        task, settings, folder = self.task, self.task.settings, self.folder
        optimizer = AdamW(
            self.model.to(task.device).named_parameters(),
            weight_decay=settings.optimizer.weight_decay,
            epsilon=settings.optimizer.epsilon,
        )
        start = self._resume(optimizer)
        per_epoch, steps = task.steps_per_epoch, task.steps
        self._compile(steps)
        # A run that goes on on another machine keeps its micro-batches: the same to the bit.
        hardware = Hardware.of(task.device, self.dtype)
        self.cells = self.cells or max_padded_tokens(self._work(), hardware)

        def source(step: int) -> Iterator[list[LabelledBatch]]:
            return steps_of(
                task.train.rows,
                batch_size=settings.batch_size,
                seed=self.seed,
                done=step,
                max_padded_tokens=self.cells,
                max_rows=settings.micro_batch_size,
            )

        metrics = MetricsFile(folder / "metrics.jsonl", start.step, task.say)

        def save(at: TrainState) -> None:
            metrics.sync()
            groups: dict[str, Mapping[str, Tensor]] = {
                "model": model_state(self.model),
                "optimizer": optimizer.state_dict(),
            }
            info: dict[str, Any] = {**dataclasses.asdict(at), "stale": self.stale}
            info |= {"enough": self.enough, "cells": self.cells}
            if self.best is not None:
                info["best"] = {
                    key: value
                    for key, value in vars(self.best).items()
                    if key not in ("state", "scores")
                }
                if self.best.step != at.step:
                    groups["best"] = self.best.state
            self.checkpoints.save(at.step, groups, info)

        sinks: list[Sink] = [metrics]
        if not task.quiet:
            sinks.append(Progress(sys.stderr, start.step, steps, describe=self._describe))
        every = settings.evaluate_every or per_epoch
        try:
            outcome = Trainer(
                self.model,
                FineTuning(self.kind),
                source=source,
                optimizer=optimizer,
                schedule=schedule(
                    "linear",
                    settings.optimizer.learning_rate,
                    round(settings.optimizer.warmup_share * steps),
                    steps,
                ),
                settings=LoopSettings(
                    last_step=start.step if self.enough else steps,
                    seed=self.seed,
                    dtype=self.dtype,
                    clip_norm=settings.optimizer.clip_norm,
                    checkpoint_every=settings.checkpoint_every or every,
                    evaluate_every=every,
                ),
                save=save,
                sinks=sinks,
                judge=self._judge,
                ranks=Ranks(device=task.device),
                start=start,
                notice=write_notice,
            ).train()
        except NotFiniteError as error:
            raise self._not_finite(error) from None
        finally:
            for sink in sinks:
                sink.close()
        if outcome.signal:
            raise Stopped(outcome.signal)
        if outcome.step < steps:
            task.say(
                f"seed {self.seed}: ends early, at step {outcome.step:,} of {steps:,}: "
                f"{self.stale} evaluations without a better score (patience)"
            )
        result = self._finish(outcome.step, outcome.pieces, outcome.seconds)
        return result, outcome.late_signal

    # -- before --------------------------------------------------------------------------------

    def _resume(self, optimizer: AdamW) -> TrainState:
        """Take over the newest checkpoint, or empty the folder."""
        checkpoint = self.checkpoints.newest() if self.folder.is_dir() else None
        if checkpoint is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            make_folder(self.folder)
            return TrainState()
        self.checkpoints.forget_after(checkpoint.step)
        load_model_state(self.model, checkpoint.tensors("model"), checkpoint.path)
        optimizer.load_state_dict(checkpoint.tensors("optimizer"))
        info = checkpoint.info
        self.stale, self.enough = int(info["stale"]), bool(info["enough"])
        self.cells = int(info.get("cells", 0))
        if "best" in info:
            self.best = Best(**info["best"], state=_best_state(checkpoint))
        self.task.say(f"seed {self.seed}: going on from step {checkpoint.step}")
        return TrainState(checkpoint.step, int(info["pieces"]), float(info["seconds"]))

    def _work(self) -> Workload:
        longest = int(self.task.train.rows.lengths.max(initial=1))
        config = cast(Any, self.model).config
        return Workload.of(config, vocabulary_size=0, sequence_length=longest)

    def _compile(self, steps: int) -> None:
        settings = self.task.settings
        pieces = int(self.task.train.rows.cu_seqlens[-1]) * settings.epochs
        compile_if_worth_it(
            self.model,
            settings.compile,
            steps=steps,
            operations=self._work().operations() * pieces,
            on_cpu=self.task.device.type == "cpu",
            say=self.task.say,
        )

    # -- meanwhile -----------------------------------------------------------------------------

    def _judge(self, at: TrainState) -> Judgement:
        """Score dev, keep the best, and say whether to stop."""
        card, dev = self.task.card, self.task.dev
        scores = run_model(self.model, dev.rows, self.kind.scores)
        tuned = self.kind.tuned(dev, scores)
        metrics = metrics_of(card, dev.examples, tuned.decode(dev, scores))
        value = metrics[card.metrics[0]]
        epoch = round(at.step / self.task.steps_per_epoch, 3)
        better = self.best is None or value > self.best.value
        if better:
            state = {name: one.detach().clone() for name, one in model_state(self.model).items()}
            self.best = Best(value, at.step, epoch, metrics, tuned.settings(), state, scores)
        self.stale = 0 if better else self.stale + 1
        patience = self.task.settings.patience
        self.enough = bool(patience) and self.stale >= patience
        line = {"step": at.step, "epoch": epoch, "evaluation": "dev", **metrics, "best": better}
        return Judgement([line], self.enough)

    def _describe(self, line: Mapping[str, Any]) -> str:
        names = self.task.card.metrics
        values = ", ".join(f"{name} {line[name]:.2f}" for name in names)
        remark = "  best so far" if line["best"] else ""
        return f"epoch {line['epoch']:g}  dev: {values}{remark}"

    def _not_finite(self, error: NotFiniteError) -> DivergedError:
        epoch = -(-error.step // self.task.steps_per_epoch)
        kept = self.checkpoints.steps()
        last = f"the checkpoint of step {kept[-1]} is kept" if kept else "nothing was saved yet"
        return DivergedError(
            f"{self.folder}: {error.what} at step {error.step} of {self.task.steps} (epoch {epoch},"
            f" learning rate {error.learning_rate:.3g}); {last}; try a lower "
            "optimizer.learning_rate in another --out"
        )

    # -- after ---------------------------------------------------------------------------------

    def _finish(self, steps: int, pieces: int, seconds: float) -> dict[str, Any]:
        """The best model, what it predicts, and last of all its result."""
        task, card, folder, best = self.task, self.task.card, self.folder, self.best
        assert best is not None
        load_model_state(self.model, best.state, folder)
        if "null_threshold" in best.kind:
            self.kind = replace(cast(Any, self.kind), null_threshold=best.kind["null_threshold"])
        metrics, classes = dict(best.metrics), {}
        also: dict[str, Prepared] = {"dev": task.dev, **task.also}
        for split, prepared in also.items():
            scores = best.scores if split == "dev" else None
            if scores is None:
                scores = run_model(self.model, prepared.rows, self.kind.scores)
            predictions = self.kind.decode(prepared, scores)
            values = [prediction.value for prediction in predictions]
            if split != "dev":
                suffix = split.removeprefix("dev_")
                found = metrics_of(card, prepared.examples, predictions)
                metrics |= {f"{name}_{suffix}": value for name, value in found.items()}
                write_predictions(card, prepared.examples, values, folder / f"submission-{split}")
                continue
            by_id = {one.id: value for one, value in zip(prepared.examples, values, strict=True)}
            classes = report(card, prepared.examples, by_id)
            lines = prediction_lines(self.kind, prepared.examples, predictions)
            text = "".join(to_json(line) + "\n" for line in lines)
            write_text(folder / "predictions.jsonl", text)
            write_predictions(card, prepared.examples, values, folder / "submission")
        self._write_model()
        lengths = task.train.rows.lengths
        plan = plan_epoch(lengths, task.settings.batch_size, self.seed, 0)
        examples = steps / task.steps_per_epoch * len(task.train.examples)
        result = {
            "seed": self.seed,
            "metrics": metrics,
            **classes,
            "best_step": best.step,
            "best_epoch": best.epoch,
            "steps": steps,
            "stopped_early": steps < task.steps,
            "seconds": seconds,
            "examples_per_second": examples / seconds if seconds else None,
            "pieces_per_second": pieces / seconds if seconds else None,
            "padding_share": padding_share(lengths, plan),
        }
        write_json(folder / RESULT, result)
        return result

    def _write_model(self) -> None:
        model, kind = cast(Any, self.model), self.kind
        kind.finish(model)
        other = model.config.other
        other[SECTION] = section_of(self.task.card, kind)
        other.pop("problem_type", None)
        if kind.problem_type is not None:
            other["problem_type"] = kind.problem_type
        with atomic_folder(self.folder / "final") as temporary:
            model.save_pretrained(temporary)
            length = self.task.settings.sequence_length
            self.task.kind.tokenizer.save_pretrained(temporary, model_max_length=length)


def open_model(folder: Path, kind: Kind, seed: int) -> torch.nn.Module:
    """The pretrained model with a new head, or with its own where that is of the same labels."""
    with warnings.catch_warnings():
        # A new head is what fine-tuning begins with; the rest was said when the run began.
        warnings.simplefilter("ignore", pretrained.UntrainedWeightsWarning)
        warnings.simplefilter("ignore", pretrained.UnusedWeightsWarning)
        model: torch.nn.Module = getattr(pretrained, kind.architecture).from_pretrained(
            folder, labels=kind.labels, seed=seed, quiet=True
        )
    if not any(name.startswith(FINE_TUNED) for name in cast(Any, model).loading.missing):
        kind.begin(model)
    return model


def _best_state(checkpoint: Checkpoint) -> dict[str, Tensor]:
    best = checkpoint.path / "best.safetensors"
    return checkpoint.tensors("best" if best.is_file() else "model")
