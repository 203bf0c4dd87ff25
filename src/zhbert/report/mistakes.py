"""A model's mistakes: confusion matrices and the examples with the worst predictions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from zhbert.report.runs import FineTuningRun, read_lines
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.kinds.base import Line, Mistake

MOST_LABELS = 24
"""The limit of labels in a confusion matrix; the rarest are merged."""
OTHERS = "…"
SHOWN_CHARACTERS = 240


@dataclass(frozen=True)
class Confusion:
    """A confusion matrix over all seeds."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """(labels, labels): rows are correct labels, columns are predicted ones."""
    class_name: str = "label"
    """The word for a class: label or entity."""

    def share(self, right: int, predicted: int) -> float:
        """Return a cell's share of its row, from 0 to 1."""
        total = sum(self.counts[right])
        return self.counts[right][predicted] / total if total else 0.0


def predictions_of(run: FineTuningRun, seed: int) -> list[Line]:
    """Read a seed's predictions on dev; return an empty list if there are none."""
    return list(read_lines(run.folder / f"seed-{seed}" / "predictions.jsonl"))


def best_seed(run: FineTuningRun) -> int | None:
    """Return the seed with the highest score, the first one if several have it."""
    spread = run.scores.get(run.main_metric)
    if spread is None or len(spread.values) != len(run.seeds):
        return None
    return run.seeds[spread.values.index(spread.max)]


# -- which for which -------------------------------------------------------------------------------


def confusion(run: FineTuningRun, predictions: Iterable[Sequence[Line]]) -> Confusion | None:
    """Count correct and predicted labels or entity types; return None if the kind has none."""
    kind, labels = KINDS.get(run.kind), labels_of(run)
    if kind is None:
        return None
    pairs = Counter(
        pair for lines in predictions for line in lines for pair in kind.confused(line, labels)
    )
    if not pairs:
        return None
    seen: Counter[str] = Counter()
    for pair, count in pairs.items():
        for label in pair:
            seen[label] += count
    shown = kind.classes(labels, seen)
    if len(shown) > MOST_LABELS:
        frequent = {label for label, _ in seen.most_common(MOST_LABELS - 1)}
        shown = [*(label for label in shown if label in frequent), OTHERS]
    place = {label: index for index, label in enumerate(shown)}
    counts = [[0] * len(shown) for _ in shown]
    for (right, predicted), count in pairs.items():
        counts[place.get(right, len(shown) - 1)][place.get(predicted, len(shown) - 1)] += count
    names = _names(run)
    return Confusion(
        tuple(names.get(label, label) for label in shown),
        tuple(map(tuple, counts)),
        kind.class_name,
    )


def labels_of(run: FineTuningRun) -> tuple[str, ...]:
    """Return the labels of a run's task; empty if its card cannot be read."""
    return tuple(run.card.data.labels) if run.card else ()


def _names(run: FineTuningRun) -> dict[str, str]:
    return dict(run.card.data.shown_labels) if run.card else {}


# -- the worst -------------------------------------------------------------------------------------


def worst_mistakes(run: FineTuningRun, lines: Sequence[Line], most: int = 8) -> list[Mistake]:
    """Return one seed's worst mistakes, the worst first, by the measure of the task's kind."""
    kind, labels, names = KINDS.get(run.kind), labels_of(run), _names(run)
    if kind is None:
        return []
    found = [one for line in lines if (one := kind.mistake(line, labels, names)) is not None]
    found.sort(key=lambda one: one.badness, reverse=True)
    return [_shortened(one) for one in found[:most]]


def _shortened(mistake: Mistake) -> Mistake:
    return replace(
        mistake,
        texts=tuple(map(_short, mistake.texts)),
        right=_short(mistake.right) or "(none)",
        predicted=_short(mistake.predicted) or "(none)",
    )


def _short(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
