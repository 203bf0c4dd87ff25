"""A whole fine-tuning run: every point of a grid with every seed, and the summary."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from zhbert.files import advising, write_json
from zhbert.finetuning.identity import check_identity, identity_of
from zhbert.finetuning.model_card import card_of_seed
from zhbert.finetuning.points import GridPoint, points_of, seeds_of
from zhbert.finetuning.request import FineTuningRequest, FineTuningResult
from zhbert.finetuning.seed import DivergedError, Stopped, train_seed
from zhbert.finetuning.starting_model import StartingModel
from zhbert.finetuning.summary import summary_of, summary_of_teachers, take_best
from zhbert.finetuning.teachers import Teachers
from zhbert.finetuning.training_task import (
    TrainingTask,
    describe_data,
    describe_task,
    prepare_task,
)
from zhbert.runs.provenance import provenance
from zhbert.runtime import choose_device, choose_dtype, prepare_threads
from zhbert.schema import table_to_toml
from zhbert.tasks.cards import card_table
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.kinds.base import Learning
from zhbert.tasks.learners.base import Learner


class GridRun:
    """A fine-tuning run of one or more grid points; without a grid there is one point."""

    def __init__(self, request: FineTuningRequest) -> None:
        card, folder = request.card, request.run_folder.path
        self.start = StartingModel.open(request.model_name, request.model)
        self.device = choose_device()
        settings = [
            self.start.settings(card, point, request.say, request.distill)
            for point in request.points
        ]
        self.teachers = Teachers(
            [StartingModel.open(name, folder) for name, folder in request.teachers.items()],
            card,
            self.device,
            request.say,
        )
        self.points = points_of(folder, request.points, settings)
        needed = {f"{name} file": path for name, path in request.files.items()}
        needed |= {"model": self.start.folder, "card": card.path}
        needed |= {f"teacher {name}": path for name, path in request.teachers.items()}
        run_folder = dataclasses.replace(request.run_folder, needed=needed)
        self.request = dataclasses.replace(request, run_folder=run_folder)

    def go(self) -> FineTuningResult:
        """Train every seed that is not finished yet and write the summary.

        Nothing is written or overwritten before the model is opened and the data are tokenized.
        """
        folder = self.request.run_folder
        task = self.prepare()
        try:
            with folder.held():
                self.begin()
                without = " without --overwrite" if folder.overwrite else ""
                with advising(f"run the same command again{without}"):
                    return FineTuningResult(folder.path, self._train_points(task))
        except Stopped as stopped:
            return FineTuningResult(folder.path, {}, stopped.signal)

    def prepare(self) -> TrainingTask:
        """Check everything and tokenize the data of the first point; nothing is written."""
        first, request = self.points[0], self.request
        self.threads = prepare_threads(first.settings.threads)
        request.run_folder.check()
        learner = self._learner(first)
        self.start.check(KINDS[request.card.kind], learner, request.say, self.teachers.starts)
        self.identity = identity_of(request, self.start, self.teachers.starts)
        self._check_former()
        return self._task(first, describe_data(request, learner))

    def begin(self) -> None:
        """Write task.toml and provenance.json into the folder, which is locked."""
        self._check_former()
        card = table_to_toml(card_table(self.request.card))
        self.request.run_folder.begin(card, self._origin())

    def _check_former(self) -> None:
        """Raise ZhbertError if the run to resume has another task, model, data or settings."""
        if self.request.run_folder.continued:
            check_identity(self.request, self.identity)
        if not self.request.run_folder.overwrite:
            for point in self.points:
                point.check_same_settings()

    def _origin(self) -> dict[str, Any]:
        dtype = choose_dtype(self.points[0].settings.precision, self.device)
        files = {name: str(path.resolve()) for name, path in self.request.files.items()}
        return {
            **provenance(self.device, dtype),
            "model": self.start.name,
            "model_folder": str(self.start.folder.resolve()),
            **summary_of_teachers(self.teachers.starts),
            "data": files,
            "identity": self.identity,
        }

    def _learner(self, point: GridPoint) -> Learner:
        card = self.request.card
        return KINDS[card.kind].learner(
            Learning(card, self.start.tokenizer, point.settings, card.data.labels)
        )

    def _task(self, point: GridPoint, lines_before: Iterable[str] = ()) -> TrainingTask:
        """Tokenize all splits, once for all seeds, and describe the task."""
        request = self.request
        learner = self._learner(point)
        task = prepare_task(
            request, self.start, learner, point.settings, self.device, self.teachers
        )
        for line in (*lines_before, *describe_task(task, self.start, self.threads)):
            request.say(line)
        return task

    def _train_points(self, first: TrainingTask) -> dict[str, Any]:
        """Train all points; return the best one's summary. ``first`` is the first point's task."""
        request, several = self.request, len(self.points) > 1
        seeds = seeds_of(self.points, request.seeds)
        if len(seeds) > request.seeds:
            request.say(f"seeds {', '.join(map(str, seeds))} are there: the summary is of all")
        summaries: list[dict[str, Any] | DivergedError] = []
        for number, point in enumerate(self.points):
            task = self._task(point) if number else first
            try:
                summaries.append(self._train_point(point, task, seeds))
            except DivergedError as error:
                # Finding settings that diverge is one purpose of a grid.
                if not several:
                    raise
                request.say(f"left out of the grid: {error}")
                summaries.append(error)
        if several:
            metric = request.card.metrics[0]
            return take_best(request.run_folder.path, metric, self.points, summaries)
        (summary,) = summaries
        assert isinstance(summary, dict)
        return summary

    def _train_point(
        self, point: GridPoint, task: TrainingTask, seeds: Sequence[int]
    ) -> dict[str, Any]:
        """Train all seeds with the same settings; write their summary after each and return it."""
        say, folder = self.request.say, point.folder
        if point.varied:
            say(f"\n{' '.join(point.varied)}")
        point.begin()
        summary: dict[str, Any] = {}
        results: list[dict[str, Any]] = []
        for place, seed in enumerate(seeds, start=1):
            if len(seeds) > 1:
                say(f"seed {seed} ({place} of {len(seeds)})")
            result, signal = train_seed(task, folder / f"seed-{seed}", seed)
            results.append(result)
            summary = self.write_summary(point, task, results)
            if signal and (point, seed) != (self.points[-1], seeds[-1]):
                raise Stopped(signal)
        return summary

    def write_summary(
        self, point: GridPoint, task: TrainingTask, results: Sequence[dict[str, Any]]
    ) -> dict[str, Any]:
        """Write the summary of a point's finished seeds, and their cards; return the summary."""
        summary = summary_of(task, self.start, self.request.scored["dev"].path, results)
        if self.request.together:
            summary["together"] = list(self.request.together)
        write_json(point.folder / "summary.json", summary)
        for result in results:
            card = card_of_seed(self.request, task, result, summary)
            card.write(point.folder / f"seed-{result['seed']}" / "final")
        return summary
