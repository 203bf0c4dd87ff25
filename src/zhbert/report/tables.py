"""The tables of a report as plain text cells, for Markdown and for the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from zhbert.report.build import Report
from zhbert.report.comparison import Distillation, ScoreDifference, share_closed
from zhbert.report.numbers import (
    MISSING,
    count_text,
    duration_text,
    score_text,
    share_text,
    spread_text,
)
from zhbert.report.runs import FineTuningRun, PretrainingRun, value_of
from zhbert.report.scores import Column, RelativeTable, ScoreTable
from zhbert.wording import counted


@dataclass(frozen=True)
class Cell:
    """The text of a cell, and a smaller text below it."""

    text: str
    below: str = ""


@dataclass(frozen=True)
class Line:
    """A row of a table."""

    name: str
    cells: tuple[Cell, ...]
    base: bool = False
    """True for the row that the others are compared with."""


@dataclass(frozen=True)
class Table:
    """A table with headings and groups of rows."""

    caption: str
    headings: tuple[Cell, ...]
    """The headings; the first is that of the rows' names."""
    groups: Mapping[str, Sequence[Line]]
    """The rows of each group, by its title, or ""."""
    texts: frozenset[int] = frozenset()
    """The columns with words instead of numbers; 0 is the first after the names."""


SCORES = "Scores 成绩"
COSTS = "Sizes and times 规模与用时"
PRETRAINING = "Pretraining 预训练"


def sections(report: Report) -> dict[str, Table]:
    """Return the tables of a report that have rows, by their titles."""
    found = {}
    if report.table.rows:
        found[SCORES] = scores(report.table)
    if report.relative is not None:
        found["Relative scores 相对成绩"] = relative(report.relative)
    if report.differences and report.base is not None:
        found["Differences 差异"] = compared(report.differences, report.base.name)
    if report.distillations:
        found["Distillation 蒸馏"] = distillation(report.distillations)
    if finished := [run for run in report.fine_tuning if run.finished]:
        found[COSTS] = costs(finished)
    if report.pretraining:
        found[PRETRAINING] = pretraining(report.pretraining)
    return found


def scores(table: ScoreTable) -> Table:
    """Return the table of all models' scores, as maximum (mean)."""
    counts = {score.seeds for row in table.ours for score in row.scores.values()}
    each = counts.pop() if len(counts) == 1 else None
    groups: dict[str, list[Line]] = {}
    for row in table.rows:
        found = [row.scores.get(column) for column in table.columns]
        cells = (Cell(score_text(one), spread_text(one, seeds=each is None)) for one in found)
        name = f"published by {row.source}, as printed" if row.source else ""
        groups.setdefault(name, []).append(Line(row.model, tuple(cells)))
    return Table(
        "Per cent: the best of the seeds (their mean) ± standard deviation"
        + (f"; {counted(each, 'seed')} each." if each else "."),
        (Cell("model"), *map(heading, table.columns)),
        groups,
    )


def heading(column: Column) -> Cell:
    """Return the heading of a column of scores."""
    return Cell(column.task, f"{column.metric}, {column.split}")


def relative(table: RelativeTable) -> Table:
    """Return the table of all models' scores as shares of the base's."""
    classification = [column for column in table.columns if column.kind == "classify"]
    # If all tasks are classification, or none, the two means would be the same.
    both = 0 < len(classification) < len(table.columns)
    lines = [
        Line(
            row.row.name,
            (
                Cell(share_text(row.mean)),
                *([Cell(share_text(row.mean_of_classification))] if both else []),
                *(Cell(share_text(row.shares.get(column))) for column in table.columns),
            ),
            base=row.row is table.base,
        )
        for row in table.rows
    ]
    return Table(
        f"Per cent of {table.base.name}'s score: means of the seeds, or the only figures printed. "
        "A mean is over all figures and is left out where one is missing.",
        (
            Cell("model"),
            Cell("mean", "all tasks"),
            *([Cell("mean", "classification")] if both else []),
            *map(heading, table.columns),
        ),
        {"": lines},
    )


def compared(differences: Sequence[ScoreDifference], base: str) -> Table:
    """Return the table of differences from the base, and whether they are larger than noise."""
    groups: dict[str, list[Line]] = {}
    for one in differences:
        line = Line(one.model, _difference_cells(one))
        groups.setdefault(f"{one.task}, {one.metric}", []).append(line)
    return Table(
        f"Points of a per cent, the model's mean less {base}'s. Interval: 95 % of resamples of "
        "examples and seeds (paired bootstrap). Of twenty such intervals one leaves out 0 by "
        "chance. It is about these models: others, pretrained in the same ways with other seeds, "
        "may differ by more.",
        tuple(map(Cell, ("model", "difference", "interval", "verdict"))),
        groups,
        frozenset({2}),
    )


def _difference_cells(one: ScoreDifference) -> tuple[Cell, ...]:
    result = one.result
    if result is None:
        return Cell(MISSING), Cell(MISSING), Cell(one.why_not)
    return (
        Cell(f"{result.difference:+.2f}"),
        Cell(f"{result.low:+.2f} to {result.high:+.2f}"),
        Cell("larger than noise" if result.is_larger_than_noise else "within noise"),
    )


def distillation(found: Sequence[Distillation]) -> Table:
    """Return the table of distilled students, their teachers, and the same students alone."""
    not_here = (Cell(MISSING), Cell(MISSING), Cell("no run of the student alone here"))
    groups: dict[str, list[Line]] = {}
    for one in found:
        cells = (
            Cell(MISSING if one.taught is None else f"{one.taught:.2f}", one.teacher),
            _mean_cell(one.student),
            Cell(MISSING) if one.alone is None else _mean_cell(one.alone),
            *(_difference_cells(one.difference) if one.difference else not_here),
            Cell(MISSING if one.closed is None else f"{one.closed:.0f} %"),
        )
        run = one.student
        groups.setdefault(f"{run.task}, {run.main_metric}", []).append(Line(run.model, cells))
    for name, gaps in _gaps_by_model(found).items():
        if len(gaps) > 1:
            together = Cell(f"{share_closed(gaps):.0f} %", counted(len(gaps), "task"))
            line = Line(name, (*[Cell("")] * 6, together))
            groups.setdefault("all tasks together", []).append(line)
    names = ("student", "teacher", "distilled", "alone", "difference", "interval", "verdict")
    return Table(
        "Per cent: means of the seeds ± standard deviation, for the teacher the seed that taught. "
        "Difference: distilled less alone; interval: 95 % of resamples of examples and seeds "
        "(paired bootstrap). Gap closed: the difference as a share of what the teacher is better "
        "than the student alone; of all tasks together: of the sums of both.",
        tuple(map(Cell, (*names, "gap closed"))),
        groups,
        frozenset({5}),
    )


def _gaps_by_model(found: Sequence[Distillation]) -> dict[str, list[tuple[float, float]]]:
    gaps: dict[str, list[tuple[float, float]]] = {}
    for one in found:
        if one.gain_and_gap is not None:
            gaps.setdefault(one.student.model, []).append(one.gain_and_gap)
    return gaps


def _mean_cell(run: FineTuningRun) -> Cell:
    spread = run.scores[run.main_metric]
    parts = [] if spread.std is None else [f"± {spread.std:.2f}"]
    return Cell(f"{spread.mean:.2f}", ", ".join([*parts, counted(len(spread.values), "seed")]))


def costs(runs: Sequence[FineTuningRun]) -> Table:
    """Return the table of sizes, times and speeds of fine-tuning, by model."""
    groups: dict[str, list[Line]] = {}
    for run in runs:
        layers, hidden = run.number("layers"), run.number("hidden_size")
        shape = f", {layers:.0f} layers x {hidden:.0f}" if layers and hidden else ""
        padding = run.number("padding_share")
        where = ", ".join(str(run.facts[key]) for key in _WHERE if key in run.facts)
        cells = (
            count_text(run.number("parameters")),
            count_text(run.number("train_examples")),
            duration_text(run.number("seconds")),
            count_text(run.number("examples_per_second")),
            count_text(run.number("pieces_per_second")),
            MISSING if padding is None else f"{padding:.1%}",
            where or MISSING,
        )
        line = Line(run.task, tuple(map(Cell, cells)))
        groups.setdefault(f"{run.model}{shape}", []).append(line)
    names = ("parameters", "examples", "time", "examples/s", "pieces/s", "padding", "on")
    return Table(
        "Training: the time of one seed, a mean; padding is the share of the attention's cells "
        "without a piece; nothing else is padded.",
        tuple(map(Cell, ("task", *names))),
        groups,
        frozenset({len(names) - 1}),
    )


_WHERE = ("device", "precision")


def pretraining(runs: Sequence[PretrainingRun]) -> Table:
    """Return the table of pretraining runs: progress and accuracy on held-out text."""
    strategies = list(dict.fromkeys(name for run in runs for name in run.evaluations))
    names = ("run", "masks", "layers x hidden", "steps", "loss")
    speeds = ("pieces", "time", "pieces/s", "on")
    return Table(
        "Pretraining. Loss: the mean of the last 100 steps; accuracy: of masked words in held-out "
        "text.",
        (
            *map(Cell, names),
            *(Cell("accuracy", f"{name} masks") for name in strategies),
            *map(Cell, speeds),
        ),
        {"": [Line(run.name, tuple(_pretraining_cells(run, strategies))) for run in runs]},
        frozenset({0, len(names) + len(strategies) + 2}),
    )


def _pretraining_cells(run: PretrainingRun, strategies: Iterable[str]) -> Iterator[Cell]:
    model, masking = (value_of(run.recipe, key, dict) for key in ("model", "masking"))
    layers, hidden = model.get("num_hidden_layers"), model.get("hidden_size")
    yield Cell(str(masking.get("strategy", MISSING)))
    taught = f"from {', '.join(run.teachers)}" if run.teachers else ""
    yield Cell(f"{layers} x {hidden}" if layers and hidden else MISSING, taught)
    planned = run.planned_steps
    yield Cell(f"{run.last_step:,}", "" if run.finished or planned is None else f"of {planned:,}")
    loss = run.last_loss
    yield Cell(MISSING if loss is None else f"{loss:.3f}")
    for name in strategies:
        last = run.evaluations.get(name, ())[-1:]
        share = last[0].accuracy if last else None
        at = f"step {last[0].step:,}" if last else ""
        yield Cell(MISSING if share is None else f"{share:.2%}", at)
    yield Cell(count_text(run.pieces or None))
    yield Cell(duration_text(run.seconds or None))
    yield Cell(count_text(run.pieces / run.seconds if run.seconds else None))
    yield Cell(", ".join(str(run.origin[key]) for key in _WHERE if key in run.origin) or MISSING)


def grid(run: FineTuningRun) -> Table | None:
    """Return a run's grid points, the best mean on dev first; None if there is no grid."""
    points = run.facts.get("grid")
    lines = []
    for point in points if isinstance(points, list) else ():
        try:
            overrides = " ".join(map(str, point["overrides"]))
            mean, figures = -math.inf, "failed"
            if "failed" not in point:
                spread = point["metrics"][run.main_metric]
                mean, figures = spread["mean"], f"{spread['max']:.2f} ({spread['mean']:.2f})"
            chosen = "chosen" if point["overrides"] == run.facts.get("best") else ""
        except (KeyError, TypeError, ValueError):
            continue
        lines.append((mean, Line(overrides, (Cell(figures, chosen),))))
    if not lines:
        return None
    lines.sort(key=lambda pair: -pair[0])
    return Table(
        f"{run.model}: the grid, chosen by the mean of {run.main_metric} on dev.",
        (Cell("settings"), Cell(run.main_metric)),
        {"": [line for _, line in lines]},
    )
