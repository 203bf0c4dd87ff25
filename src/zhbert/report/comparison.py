"""Two runs of one task, by a paired bootstrap: is the difference larger than the noise?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zhbert.errors import ZhbertError
from zhbert.report.mistakes import predictions_of
from zhbert.report.runs import FineTuningRun
from zhbert.report.scores import Row
from zhbert.tasks.bootstrap import Comparison, compare
from zhbert.tasks.metrics import Resampled, resampled_predictions


@dataclass(frozen=True)
class Difference:
    """A model's mean score less the base's."""

    task: str
    metric: str
    model: str
    base: str
    result: Comparison | None
    why_not: str = ""
    """Where there is no result."""


def differences(rows: Sequence[Row], base: Row) -> list[Difference]:
    """Each model's runs against the base's, task by task, in the order of the base's runs."""
    result = []
    for theirs in base.runs:
        for row in rows:
            for run in row.runs:
                if row is not base and run.task == theirs.task:
                    result.append(_difference(run, theirs))
    return result


def _difference(run: FineTuningRun, base: FineTuningRun) -> Difference:
    def answer(comparison: Comparison | None, why_not: str = "") -> Difference:
        return Difference(run.task, base.main_metric, run.model, base.model, comparison, why_not)

    if run.dev_sha256 != base.dev_sha256:
        return answer(None, "scored on other examples")
    if run.main_metric != base.main_metric:
        return answer(None, "scored by other metrics")
    try:
        sides = [_resampled(one) for one in (run, base)]
    except (KeyError, TypeError, ValueError, ZhbertError) as error:
        return answer(None, f"predictions.jsonl cannot be read ({error})")
    sizes = {size for _, size in sides}
    if len(sizes) > 1 or sizes == {0}:
        return answer(None, "predictions.jsonl is missing or cut short")
    return answer(compare(sides[0][0], sides[1][0], num_examples=sizes.pop()))


def _resampled(run: FineTuningRun) -> tuple[list[Resampled], int]:
    """The main metric of resampled examples, one for each seed; and the number of examples."""
    seeds = [predictions_of(run, seed) for seed in run.seeds]
    sizes = {len(lines) for lines in seeds}
    if len(sizes) != 1 or sizes == {0}:
        return [], 0
    labels = run.card.data.labels if run.card is not None else ()
    metrics = [resampled_predictions(run.kind, run.main_metric, lines, labels) for lines in seeds]
    return metrics, sizes.pop()
