"""A run of one encoder for several tasks: each has a folder as if it were trained alone."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.files import advising, json_lines, make_folder, read_toml, to_json, write_text
from zhbert.finetuning.grid import GridRun
from zhbert.finetuning.points import seeds_of
from zhbert.finetuning.request import FineTuningRequest, FineTuningResult
from zhbert.finetuning.result import finished, write_result
from zhbert.finetuning.seed import SeedRun, Stopped
from zhbert.finetuning.shared import SharedTasks
from zhbert.finetuning.training_task import TrainingTask
from zhbert.runs.folder import RunFolder
from zhbert.runs.provenance import provenance
from zhbert.runtime import choose_dtype
from zhbert.schema import table_to_toml
from zhbert.tasks.kinds.embed import Embed
from zhbert.wording import counted


class SeveralRun:
    """A fine-tuning run of several tasks.

    RUN/TASK is a run folder of each task; RUN/seed-K has the log of all tasks and, until the seed
    is finished, its checkpoints.
    """

    def __init__(self, folder: RunFolder, requests: Sequence[FineTuningRequest]) -> None:
        for request in requests:
            if request.card.kind == Embed.name:
                raise ZhbertError(
                    f"{request.card.name}: a task of vectors (embed) is trained alone, not "
                    "together with others"
                )
        self.say = requests[0].say
        once = _once(self.say)
        self.runs = [GridRun(dataclasses.replace(request, say=once)) for request in requests]
        needed = {
            f"{run.request.card.name}'s {name}": path
            for run in self.runs
            for name, path in run.request.run_folder.needed.items()
        }
        self.folder = dataclasses.replace(folder, needed=needed)

    def go(self) -> FineTuningResult:
        """Train every seed that is not finished yet; write each task's results and summary.

        Nothing is written or overwritten before the model is opened and the data are tokenized.
        """
        folder, path = self.folder, self.folder.path
        folder.check()
        self._check_former()
        tasks = [run.prepare() for run in self.runs]
        self._describe(SharedTasks(tasks, 0))
        try:
            with folder.held(), ExitStack() as held:
                self._begin(tasks[0], held)
                without = " without --overwrite" if folder.overwrite else ""
                with advising(f"run the same command again{without}"):
                    return FineTuningResult(path, {"tasks": self._train(tasks)})
        except Stopped as stopped:
            return FineTuningResult(path, {}, stopped.signal)

    def _check_former(self) -> None:
        """Raise ZhbertError if the run to resume is of other tasks, or in another order."""
        path, names = self.folder.path, [run.request.card.name for run in self.runs]
        if self.folder.continued and read_toml(path / "tasks.toml") != {"tasks": names}:
            raise ZhbertError(
                f"{path}: a run of other tasks, or in another order, is there already; --overwrite "
                "replaces it, or choose another --out"
            )

    def _describe(self, together: SharedTasks) -> None:
        self.say(
            f"{counted(len(self.runs), 'task')} with one encoder: "
            f"{counted(together.steps, 'step')}, each of one task"
        )
        self.say(f"kept are the weights with the best mean of {', '.join(together.metrics[1:])}")

    def _begin(self, first: TrainingTask, held: ExitStack) -> None:
        """Write what identifies the run, and lock and begin each task's folder."""
        self._check_former()
        names = [run.request.card.name for run in self.runs]
        dtype = choose_dtype(first.settings.precision, first.device)
        self.folder.begin(table_to_toml({"tasks": names}), provenance(first.device, dtype))
        for run in self.runs:
            held.enter_context(run.request.run_folder.held())
            run.begin()
            run.points[0].begin()

    def _train(self, tasks: Sequence[TrainingTask]) -> dict[str, Any]:
        """Train all seeds; write the summaries after each, and return them by task."""
        path, asked = self.folder.path, self.runs[0].request.seeds
        seeds = seeds_of([run.points[0] for run in self.runs], asked)
        results: list[list[dict[str, Any]]] = [[] for _ in self.runs]
        summaries: dict[str, Any] = {}
        for place, seed in enumerate(seeds, start=1):
            if len(seeds) > 1:
                self.say(f"seed {seed} ({place} of {len(seeds)})")
            found, signal = train_together(tasks, path, seed)
            for run, task, own, result in zip(self.runs, tasks, results, found, strict=True):
                own.append(result)
                summaries[task.card.name] = run.write_summary(run.points[0], task, own)
            if signal and seed != seeds[-1]:
                raise Stopped(signal)
        return summaries


def _once(say: Callable[[str], None]) -> Callable[[str], None]:
    """Say what concerns the starting model for the first task only."""
    said = set()

    def remark(line: str) -> None:
        if line not in said:
            say(line)
        if line.startswith(("warning:", "note:")):
            said.add(line)

    return remark


def train_together(
    tasks: Sequence[TrainingTask], path: Path, seed: int
) -> tuple[list[dict[str, Any]], int | None]:
    """Train one seed of the run ``path`` or resume it; if it is finished, read its results.

    Returns the content of each task's result.json, and a signal that arrived after the last step.

    Raises Stopped after a signal, DivergedError if the loss is not finite.
    """
    shared = path / f"seed-{seed}"
    folders = [path / task.card.name / f"seed-{seed}" for task in tasks]
    results = [one for folder in folders if (one := finished(folder)) is not None]
    signal = None
    if len(results) < len(tasks):
        together = SharedTasks(tasks, seed)
        run = SeedRun(together, shared, seed)
        best, outcome = run.go()
        signal, results = outcome.late_signal, []
        for number, (task, folder) in enumerate(zip(tasks, folders, strict=True)):
            shutil.rmtree(folder, ignore_errors=True)
            make_folder(folder)
            _write_log(shared / "metrics.jsonl", folder / "metrics.jsonl", task)
            own, ended = together.of_task(number, best, outcome)
            model = run.model[number]  # type: ignore[index]
            results.append(write_result(folder, task, model, own, seed=seed, outcome=ended))
    shutil.rmtree(shared / "checkpoints", ignore_errors=True)
    return results, signal


def _write_log(shared: Path, own: Path, task: TrainingTask) -> None:
    """Write the log of all tasks with the metrics of one under their usual names."""
    prefix = f"{task.card.name}_"
    lines = []
    for line in filter(None, (line for _, line in json_lines(shared))):
        if "evaluation" in line:
            line |= {name: line[prefix + name] for name in task.metrics}
        lines.append(to_json(line) + "\n")
    write_text(own, "".join(lines))
