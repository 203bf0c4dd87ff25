"""The contents of a report, read from run folders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zhbert.report.comparison import (
    Distillation,
    ScoreDifference,
    differences,
    distillations,
)
from zhbert.report.runs import FineTuningRun, PretrainingRun, Run, read_runs
from zhbert.report.scores import (
    ModelRow,
    RelativeTable,
    ScoreTable,
    choose_base,
    relative_table,
    score_table,
)


@dataclass(frozen=True)
class Report:
    """The contents of a report except the mistakes, which are read when the page is written."""

    runs: tuple[Run, ...]
    table: ScoreTable
    base: ModelRow | None
    relative: RelativeTable | None
    """None if there is nothing to compare."""
    differences: tuple[ScoreDifference, ...]
    """The differences of the other models from the base; empty if no base was named."""
    distillations: tuple[Distillation, ...]
    """The distilled runs, each beside its teacher and the student alone."""

    @property
    def fine_tuning(self) -> list[FineTuningRun]:
        """Runs of 'zhbert finetune', finished or not."""
        return [run for run in self.runs if isinstance(run, FineTuningRun)]

    @property
    def pretraining(self) -> list[PretrainingRun]:
        """Runs of 'zhbert pretrain'."""
        return [run for run in self.runs if isinstance(run, PretrainingRun)]

    @property
    def tasks(self) -> dict[str, list[FineTuningRun]]:
        """Runs by task, in the given order."""
        tasks: dict[str, list[FineTuningRun]] = {}
        for run in self.fine_tuning:
            tasks.setdefault(run.task, []).append(run)
        return tasks

    @property
    def styles(self) -> dict[str, int]:
        """A number for each model that selects its colour, dashes and marker in all charts."""
        names = [run.model for run in self.fine_tuning] + [run.name for run in self.pretraining]
        return {name: place for place, name in enumerate(dict.fromkeys(names))}

    def scored_elsewhere(self, task: str) -> set[str]:
        """Return the models that were scored on other examples of a task than its reference run."""
        return {
            row.model
            for row in self.table.ours
            for column, score in row.scores.items()
            if column.task == task and score.elsewhere
        }


def gather(folders: Sequence[str | Path], base: str | None = None) -> Report:
    """Read runs and compare them.

    Args:
        folders: runs of 'zhbert finetune' and 'zhbert pretrain', finished or not.
        base: the model to compare the others with, one of the runs' or a published one. If it is
            given, the differences from it are computed as well, with a paired bootstrap.

    Raises ZhbertError if a folder is not a run or ``base`` is not found.
    """
    runs = tuple(read_runs(folders))
    fine_tuning = [run for run in runs if isinstance(run, FineTuningRun)]
    table = score_table(fine_tuning)
    row = choose_base(table, base)
    if row is not None and row.runs:
        # If the runs of a task were scored on different examples, the base's examples are used.
        table = score_table(fine_tuning, first=row.model)
        row = table.find(row.name)
    relative = relative_table(table, row) if row is not None else None
    if relative is not None and len(relative.rows) < 2:
        relative = None
    named = row is not None and base is not None
    return Report(
        runs=runs,
        table=table,
        base=row,
        relative=relative,
        differences=tuple(differences(table.ours, row)) if named and row else (),
        distillations=tuple(distillations(fine_tuning)),
    )
