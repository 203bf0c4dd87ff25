"""The training of one seed of a fine-tuning run, with evaluation on dev and resumption.

A seed is finished when its folder contains ``result.json``. Before that, the process can be killed
at any time: the newest checkpoint contains the weights, the optimizer state, and the best weights
so far with their scores, so that a resumed run gives the same result to the bit.

All weights are trained for a few epochs, as in the BERT paper (https://arxiv.org/abs/1810.04805,
appendix A.3), with AdamW and the learning rate schedule of Google's code: a linear warmup over a
tenth of the steps by default, then a linear decay to zero:
https://github.com/google-research/bert/blob/master/optimization.py.
"""

from __future__ import annotations

import dataclasses
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.files import make_folder
from zhbert.finetuning.best import Best
from zhbert.finetuning.result import finished, write_result
from zhbert.finetuning.shared import SharedTasks
from zhbert.finetuning.training_task import TrainingTask
from zhbert.runtime import choose_dtype
from zhbert.tasks.batches import BatchLimits
from zhbert.train.checkpoint import Checkpoints, load_model_state, model_state
from zhbert.train.cost import compile_if_worth_it
from zhbert.train.distributed import Ranks
from zhbert.train.log import MetricsFile, ProgressLine, Sink
from zhbert.train.loop import (
    Judgement,
    LoopSettings,
    NotFiniteError,
    Outcome,
    Trainer,
    TrainState,
)
from zhbert.train.optim import AdamW
from zhbert.train.signals import write_notice


class Stopped(Exception):  # noqa: N818 - not an error: the run's state is saved
    """The exception raised when SIGINT, SIGTERM or SIGHUP has ended the run."""

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class DivergedError(ZhbertError):
    """The error of a seed whose loss is no longer finite; its last checkpoint is kept."""


def train_seed(task: TrainingTask, folder: Path, seed: int) -> tuple[dict[str, Any], int | None]:
    """Train one seed or resume it; if it is finished, read its result.

    Returns the content of result.json, and a signal that arrived after the last step, if any.

    Raises Stopped after a signal, DivergedError if the loss is not finite.
    """
    result, signal = finished(folder), None
    if result is None:
        run = SeedRun(task, folder, seed)
        best, outcome = run.go()
        result = write_result(folder, task, run.model, best, seed=seed, outcome=outcome)
        signal = outcome.late_signal
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    return result, signal


class SeedRun:
    """The training of one seed, for one task or for several."""

    def __init__(self, task: TrainingTask | SharedTasks, folder: Path, seed: int) -> None:
        self.task, self.folder, self.seed = task, folder, seed
        self.best: Best | None = None
        self.stale = 0
        """The number of evaluations since the best one."""
        self.enough = False
        """True if early stopping (the setting ``patience``) has ended the training."""
        settings = task.settings
        self.limits = task.limits
        """The size of a micro-batch."""
        self.dtype = choose_dtype(settings.precision, task.device)
        self.model = task.open_model(seed)
        self.checkpoints = Checkpoints(folder / "checkpoints", say=task.say)
        self.optimizer = AdamW(
            self.model.to(task.device).named_parameters(),
            weight_decay=settings.optimizer.weight_decay,
            epsilon=settings.optimizer.epsilon,
        )

    def go(self) -> tuple[Best, Outcome]:
        """Train to the end; return the best weights, which the model then has, too."""
        task = self.task
        start = self._resume()
        self._compile()
        outcome = self._train(start)
        if outcome.signal:
            raise Stopped(outcome.signal)
        if outcome.step < task.steps:
            task.say(
                f"seed {self.seed}: ends early, at step {outcome.step:,} of {task.steps:,}: "
                f"{self.stale} evaluations without a better score (patience)"
            )
        assert self.best is not None
        load_model_state(self.model, self.best.state, self.folder)
        return self.best, outcome

    def _resume(self) -> TrainState:
        """Load the newest checkpoint, or empty the folder if there is none."""
        checkpoint = self.checkpoints.newest() if self.folder.is_dir() else None
        if checkpoint is None:
            shutil.rmtree(self.folder, ignore_errors=True)
            make_folder(self.folder)
            return TrainState()
        self.checkpoints.forget_after(checkpoint.step)
        load_model_state(self.model, checkpoint.tensors("model"), checkpoint.path)
        self.optimizer.load_state_dict(checkpoint.tensors("optimizer"))
        info = checkpoint.info
        self.stale, self.enough = int(info["stale"]), bool(info["enough"])
        if cells := int(info.get("cells", 0)):
            # On another machine, too, the same micro-batches are taken: results are the same.
            self.limits = BatchLimits(cells, self.limits.max_rows, int(info.get("kept", 0)))
        self.best = Best.restored(checkpoint)
        self.task.say(f"seed {self.seed}: going on from step {checkpoint.step}")
        return TrainState(checkpoint.step, int(info["pieces"]), float(info["seconds"]))

    def _save(self, at: TrainState) -> None:
        groups: dict[str, Mapping[str, Tensor]] = {
            "model": model_state(self.model),
            "optimizer": self.optimizer.state_dict(),
        }
        info: dict[str, Any] = {**dataclasses.asdict(at), "stale": self.stale}
        info |= {"enough": self.enough, "cells": self.limits.max_padded_tokens}
        info["kept"] = self.limits.max_kept_tokens
        if self.best is not None:
            info["best"] = self.best.info
            if self.best.step != at.step:
                groups["best"] = self.best.state
        self.checkpoints.save(at.step, groups, info)

    def _compile(self) -> None:
        task = self.task
        compile_if_worth_it(
            self.model,
            task.settings.compile,
            steps=task.steps,
            operations=task.operations,
            on_cpu=task.device.type == "cpu",
            say=task.say,
        )

    def _train(self, start: TrainState) -> Outcome:
        task = self.task
        metrics = MetricsFile(self.folder / "metrics.jsonl", start.step, task.say)

        def save(at: TrainState) -> None:
            metrics.sync()
            self._save(at)

        sinks: list[Sink] = [metrics]
        if not task.quiet:
            sinks.append(ProgressLine(sys.stderr, start.step, task.steps, self._describe))
        objective: Any = task.objective
        try:
            trainer = Trainer(
                self.model,
                objective,
                source=lambda done: task.micro_batches(self.seed, done, self.limits),
                whole_step=objective.whole_step,
                weights=lambda done: objective.weights(done / task.steps),
                optimizer=self.optimizer,
                schedule=task.schedule,
                settings=self._loop_settings(start),
                save=save,
                sinks=sinks,
                judge=self._judge,
                ranks=Ranks(device=task.device),
                start=start,
                notice=write_notice,
            )
            return trainer.train()
        except NotFiniteError as error:
            raise self._diverged(error) from None
        finally:
            for sink in sinks:
                sink.close()

    def _loop_settings(self, start: TrainState) -> LoopSettings:
        settings = self.task.settings
        every = settings.evaluate_every or self.task.steps_per_epoch
        return LoopSettings(
            last_step=start.step if self.enough else self.task.steps,
            seed=self.seed,
            dtype=self.dtype,
            clip_norm=settings.optimizer.clip_norm,
            checkpoint_every=settings.checkpoint_every or every,
            evaluate_every=every,
        )

    def _judge(self, at: TrainState) -> Judgement:
        """Score dev, keep the weights if they are the best, and decide if training should stop."""
        found = self.task.evaluate(self.model)
        epoch = round(at.step / self.task.steps_per_epoch, 3)
        better = self.best is None or found.value > self.best.value
        if better:
            state = {name: one.detach().clone() for name, one in model_state(self.model).items()}
            self.best = Best(**vars(found), step=at.step, epoch=epoch, state=state)
        self.stale = 0 if better else self.stale + 1
        patience = self.task.settings.patience
        self.enough = bool(patience) and self.stale >= patience
        line = {
            "step": at.step,
            "epoch": epoch,
            "evaluation": "dev",
            **found.metrics,
            "best": better,
        }
        return Judgement([line], self.enough)

    def _describe(self, line: Mapping[str, Any]) -> str:
        values = ", ".join(f"{name} {line[name]:.2f}" for name in self.task.metrics)
        remark = "  best so far" if line["best"] else ""
        return f"epoch {line['epoch']:g}  dev: {values}{remark}"

    def _diverged(self, error: NotFiniteError) -> DivergedError:
        epoch = -(-error.step // self.task.steps_per_epoch)
        kept = self.checkpoints.steps()
        last = f"the checkpoint of step {kept[-1]} is kept" if kept else "nothing was saved yet"
        return DivergedError(
            f"{self.folder}: {error.what} at step {error.step} of {self.task.steps} (epoch {epoch},"
            f" learning rate {error.learning_rate:.3g}); {last}; try a lower "
            "optimizer.learning_rate in another --out"
        )
