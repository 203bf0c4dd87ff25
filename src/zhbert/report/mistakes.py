"""What a model gets wrong: which label for which, and the examples that it is most wrong about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from zhbert.report.runs import FineTuningRun, read_lines
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.kinds.base import Line, Mistake

MOST_LABELS = 24
"""More than these are no picture: the rarest become one."""
OTHERS = "…"
SHOWN_CHARACTERS = 240


@dataclass(frozen=True)
class Confusion:
    """How often each label was taken for each, over all seeds."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """(labels, labels): what is right in rows, what was predicted in columns."""
    class_name: str = "label"
    """What a class is called: label or entity."""

    def share(self, right: int, predicted: int) -> float:
        """A cell's share of its row, 0 to 1."""
        total = sum(self.counts[right])
        return self.counts[right][predicted] / total if total else 0.0


def predictions_of(run: FineTuningRun, seed: int) -> list[Line]:
    """What a seed said of each example of dev; nothing where the file is not there."""
    return list(read_lines(run.folder / f"seed-{seed}" / "predictions.jsonl"))


def best_seed(run: FineTuningRun) -> int | None:
    """The seed with the highest score, the first of equals."""
    spread = run.scores.get(run.main_metric)
    if spread is None or len(spread.values) != len(run.seeds):
        return None
    return run.seeds[spread.values.index(spread.max)]


# -- which for which -------------------------------------------------------------------------------


def confusion(run: FineTuningRun, predictions: Iterable[Sequence[Line]]) -> Confusion | None:
    """Labels, or types of entities, right and predicted; None where the kind has none."""
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
    """The labels of a run's task; none where its card cannot be read."""
    return tuple(run.card.data.labels) if run.card else ()


def _names(run: FineTuningRun) -> dict[str, str]:
    return dict(run.card.data.shown_labels) if run.card else {}


# -- the worst -------------------------------------------------------------------------------------


def worst_mistakes(run: FineTuningRun, lines: Sequence[Line], most: int = 8) -> list[Mistake]:
    """The examples that one seed got most wrong, the worst first, by the measure of their kind."""
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
