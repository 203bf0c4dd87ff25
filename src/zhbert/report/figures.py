"""The charts of a report: training curves, and scores by size."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.report.chart import Axis, Series, chart
from zhbert.report.markup import Markup
from zhbert.report.runs import FineTuningRun, HeldOutEvaluation, Losses, Points, PretrainingRun
from zhbert.report.scores import Column, ModelRow, ScoreTable

# The number of points in a training curve; more cannot be distinguished.
CURVE_POINTS = 120


def binned(steps: NDArray[Any], losses: NDArray[Any], points: int = CURVE_POINTS) -> Points:
    """Return losses as points, each the mean of equally many consecutive steps."""
    count = len(steps)
    groups = np.array_split(np.arange(count), min(points, count)) if count else []
    return tuple((float(steps[group].mean()), float(losses[group].mean())) for group in groups)


def loss_chart(name: str, losses: Losses, numbers: Iterator[int]) -> Markup | None:
    """Draw the parts of a run's loss by step; return None if the loss has one part only."""
    if len(losses.keys() - {"loss"}) < 2:
        return None
    series = [
        Series("weighted sum" if part == "loss" else part, binned(*points.T), place)
        for place, (part, points) in enumerate(losses.items())
    ]
    return chart(
        f"{name}: parts of the loss 各项损失",
        Axis("steps", whole=True),
        # The parts have units of their own, and differ by powers of ten.
        Axis("mean loss", logarithmic=True),
        series,
        next(numbers),
    )


def pretraining_charts(
    runs: Sequence[PretrainingRun], styles: Mapping[str, int], numbers: Iterator[int]
) -> list[Markup]:
    """Draw the training loss and, for each masking strategy, the evaluations on held-out text."""
    steps = Axis("steps", whole=True)
    longest = max((len(run.steps) for run in runs), default=0)
    title = "Training loss 训练损失"
    if longest > CURVE_POINTS:
        title += f", means of up to {-(-longest // CURVE_POINTS)} steps"
    series = [Series(run.name, binned(run.steps, run.losses), styles[run.name]) for run in runs]
    charts = [chart(title, steps, Axis("loss, nats a masked piece"), series, next(numbers))]
    charts += [one for run in runs if (one := loss_chart(run.name, run.parts, numbers))]
    strategies = dict.fromkeys(name for run in runs for name in run.evaluations)
    pictures: list[tuple[str, str, Callable[[HeldOutEvaluation], float | None]]] = [
        ("masked accuracy 准确率", "accuracy, %", lambda one: _per_cent(one.accuracy)),
        ("loss 损失", "loss, nats a masked piece", lambda one: one.loss),
        ("sentence pairs 句对", "accuracy, %", lambda one: _per_cent(one.pair_accuracy)),
    ]
    for what, label, value in pictures:
        for strategy in strategies:
            series = [
                Series(
                    run.name, _points(run.evaluations.get(strategy, ()), value), styles[run.name]
                )
                for run in runs
            ]
            if what.startswith("masked"):
                every = (run.evaluations.get(strategy, ()) for run in runs)
                baseline = max(
                    (_points(one, lambda e: _per_cent(e.baseline)) for one in every), key=len
                )
                series.append(Series("commonest piece", baseline, reference=True))
            if any(one.points for one in series):
                title = f"Held out, {strategy} masks: {what}"
                charts.append(chart(title, steps, Axis(label), series, next(numbers)))
    return charts


def _points(
    evaluations: Sequence[HeldOutEvaluation], value: Callable[[HeldOutEvaluation], float | None]
) -> Points:
    found = ((float(one.step), value(one)) for one in evaluations)
    return tuple((step, number) for step, number in found if number is not None)


def _per_cent(share: float | None) -> float | None:
    return None if share is None else 100 * share


def mean_curve(curves: Mapping[int, Points]) -> Points:
    """Return the mean of the seeds at each epoch that all of them reached."""
    if not curves:
        return ()
    tables = [dict(curve) for curve in curves.values()]
    shared = set.intersection(*(set(table) for table in tables))
    return tuple(
        (epoch, statistics.fmean(table[epoch] for table in tables)) for epoch in sorted(shared)
    )


def fine_tuning_chart(
    runs: Sequence[FineTuningRun],
    styles: Mapping[str, int],
    elsewhere: Collection[str],
    numbers: Iterator[int],
) -> Markup:
    """Draw the main metric on dev by epoch: thin lines for seeds, a thick one for their mean.

    ``elsewhere``: models to mark because they were scored on other examples.
    """
    series = []
    for run in runs:
        if len(run.curves) > 1:
            series += [
                Series(f"{run.model}, seed {seed}", curve, styles[run.model], faint=True)
                for seed, curve in run.curves.items()
            ]
        mark = " †" if run.model in elsewhere else ""
        series.append(Series(run.model + mark, mean_curve(run.curves), styles[run.model]))
    metric = runs[0].main_metric
    return chart(
        f"{runs[0].task}: dev by epoch 各轮成绩",
        Axis("epochs", whole=True),
        Axis(f"{metric}, %"),
        series,
        next(numbers),
    )


def size_chart(
    table: ScoreTable, base: ModelRow, styles: Mapping[str, int], numbers: Iterator[int]
) -> Markup | None:
    """Draw the mean score by the number of parameters, for models with all of the base's scores.

    Return None if there are fewer than two such models.
    """
    columns = comparable(base)
    points = {
        row.model: (size, mean_score(row, columns))
        for row in table.ours
        if columns and columns <= comparable(row) and (size := _size(row))
    }
    if len(points) < 2:
        return None
    first, *others = columns
    what = f"Mean of {len(columns)} figures" if others else f"{first.task} {first.key}"
    series = [Series(name, [point], styles[name]) for name, point in points.items()]
    return chart(
        f"{what} against parameters 参数量与成绩",
        Axis("parameters", logarithmic=True),
        Axis("mean score, %"),
        series,
        next(numbers),
        lines=False,
    )


def comparable(row: ModelRow) -> set[Column]:
    """Return the columns in which a model was scored on the same examples as the others."""
    return {column for column, score in row.scores.items() if not score.elsewhere}


def mean_score(row: ModelRow, columns: Collection[Column]) -> float:
    """Return the mean over ``columns`` of the seeds' mean scores."""
    scores = [row.scores[column] for column in columns]
    return statistics.fmean(one.max if one.mean is None else one.mean for one in scores)


def _size(row: ModelRow) -> float | None:
    sizes = [size for run in row.runs if (size := run.number("parameters"))]
    return statistics.median(sizes) if sizes else None
