"""What a model gets wrong: which label for which, and the examples that it is most wrong about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.report.runs import FineTuningRun, as_number, read_lines
from zhbert.tasks.entity_spans import joint_of
from zhbert.tasks.schemes import Entity, TagScheme, entities, scheme_of_model

Line = Mapping[str, Any]
"""An object of predictions.jsonl."""

MOST_LABELS = 24
"""More than these are no picture: the rarest become one."""
OTHERS = "…"
NOT_FOUND = "—"
"""No entity: what was missed, and what was found where there is none."""
SHOWN_CHARACTERS = 240


@dataclass(frozen=True)
class Confusion:
    """How often each label was taken for each, over all seeds."""

    labels: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    """(labels, labels): what is right in rows, what was predicted in columns."""
    of_entities: bool = False

    def share(self, right: int, predicted: int) -> float:
        """A cell's share of its row, 0 to 1."""
        total = sum(self.counts[right])
        return self.counts[right][predicted] / total if total else 0.0


@dataclass(frozen=True)
class Mistake:
    """An example that was got wrong."""

    texts: tuple[str, ...]
    """The text, or both of a pair; question and context."""
    right: str
    predicted: str
    how_wrong: str
    """Why it is among the worst."""


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
    """Labels, or types of entities, right and predicted; None where the kind has none.

    An entity is taken for another where the ends are the same; else it is missed, or made up.
    """
    if run.kind not in ("classify", "tag"):
        return None
    pairs: Counter[tuple[str, str]] = Counter()
    for lines in predictions:
        for line in lines:
            pairs.update(
                _entity_pairs(line, _scheme(run)) if run.kind == "tag" else _label_pair(line)
            )
    if not pairs:
        return None
    known = run.card.data.labels if run.card and run.kind == "classify" else ()
    seen = Counter(label for pair, count in pairs.items() for label in pair for _ in range(count))
    if run.kind == "tag":
        known = (*sorted(seen.keys() - {NOT_FOUND}), NOT_FOUND)
    labels = [*known, *sorted(seen.keys() - set(known))]
    if len(labels) > MOST_LABELS:
        frequent = {label for label, _ in seen.most_common(MOST_LABELS - 1)}
        labels = [*(label for label in labels if label in frequent), OTHERS]
    place = {label: index for index, label in enumerate(labels)}
    counts = [[0] * len(labels) for _ in labels]
    for (right, predicted), count in pairs.items():
        counts[place.get(right, len(labels) - 1)][place.get(predicted, len(labels) - 1)] += count
    names = _names(run)
    return Confusion(
        tuple(names.get(label, label) for label in labels),
        tuple(map(tuple, counts)),
        run.kind == "tag",
    )


def _names(run: FineTuningRun) -> dict[str, str]:
    return run.card.data.shown_labels if run.card else {}


def _label_pair(line: Line) -> list[tuple[str, str]]:
    right, predicted = line.get("gold"), line.get("predicted")
    return [] if right is None or predicted is None else [(str(right), str(predicted))]


def _entity_pairs(line: Line, scheme: TagScheme | None) -> list[tuple[str, str]]:
    sides = [_entities(line.get(key), scheme) for key in ("gold", "predicted")]
    there, found = ({(start, end): kind for kind, start, end in side} for side in sides)
    pairs = [(kind, found.get(ends, NOT_FOUND)) for ends, kind in there.items()]
    return pairs + [(NOT_FOUND, kind) for ends, kind in found.items() if ends not in there]


def _scheme(run: FineTuningRun) -> TagScheme | None:
    return scheme_of_model(run.card.data.labels) if run.card else None


def _entities(tags: Any, scheme: TagScheme | None) -> list[Entity]:
    try:
        return entities(tags if isinstance(tags, list) else (), scheme)
    except (ZhbertError, TypeError, KeyError):
        # No tags, or of another card than the run's.
        return []


# -- the worst -------------------------------------------------------------------------------------


def worst_mistakes(run: FineTuningRun, lines: Sequence[Line], most: int = 8) -> list[Mistake]:
    """The examples that one seed got most wrong, the worst first.

    Labels: the wrong one's probability; numbers: the distance; answers and tags: the lowest F1, and
    of equals the one that was the surest, or the one with the most entities.
    """
    judged = []
    for line in lines:
        if (badness := _badness(run, line)) is not None:
            judged.append((badness, line))
    judged.sort(key=lambda pair: pair[0], reverse=True)
    return [_mistake(run, line) for _, line in judged[:most]]


def _badness(run: FineTuningRun, line: Line) -> tuple[float, float] | None:
    """The greater, the worse; None where the example is right."""
    if run.kind == "regress":
        right, predicted = as_number(line.get("gold")), as_number(line.get("predicted"))
        if right is None or predicted is None or right == predicted:
            return None
        return abs(right - predicted), 0.0
    score = as_number(line.get("score"))
    if score is None or score >= 1:
        return None
    if run.kind == "classify":
        return _probability(line) or 0.0, 0.0
    if run.kind == "tag":
        sides = [_entities(line.get(key), _scheme(run)) for key in ("gold", "predicted")]
        return 1 - score, sum(map(len, sides))
    return 1 - score, as_number(line.get("probability")) or 0.0


def _probability(line: Line) -> float | None:
    probabilities = line.get("probabilities")
    if not isinstance(probabilities, dict):
        return None
    return as_number(probabilities.get(str(line.get("predicted"))))


def _mistake(run: FineTuningRun, line: Line) -> Mistake:
    names = _names(run)
    right, predicted = line.get("gold"), line.get("predicted")
    score = as_number(line.get("score")) or 0.0
    if run.kind == "tag":
        tokens, scheme = line.get("tokens"), _scheme(run)
        tokens = [str(token) for token in tokens] if isinstance(tokens, list) else []
        texts = [_joined(tokens)]
        right, predicted = (
            ", ".join(f"{_joined(tokens[a:b])} {kind}" for kind, a, b in _entities(tags, scheme))
            for tags in (right, predicted)
        )
        how = f"F1 {100 * score:.0f} %"
    elif run.kind == "span":
        texts = [str(line.get(key) or "") for key in ("question", "context")]
        right = " / ".join(dict.fromkeys(map(str, right if isinstance(right, list) else [right])))
        probability = as_number(line.get("probability"))
        how = f"F1 {100 * score:.0f} %" + (f", p {probability:.2f}" if probability else "")
    else:
        texts = [str(line[key]) for key in ("text", "text_pair") if line.get(key) is not None]
        if run.kind == "regress":
            how = f"{(as_number(predicted) or 0.0) - (as_number(right) or 0.0):+.2f}"
            predicted = f"{as_number(predicted) or 0.0:.2f}"
        else:
            right, predicted = (_named(one, names) for one in (right, predicted))
            probability = _probability(line)
            how = "" if probability is None else f"p {probability:.3f}"
    return Mistake(
        tuple(_shortened(text) for text in texts),
        _shortened(str(right)) or "(none)",
        _shortened(str(predicted)) or "(none)",
        how,
    )


def _named(labels: Any, names: Mapping[str, str]) -> str:
    """A label, or several, as people call them."""
    several = labels if isinstance(labels, list) else [labels]
    return ", ".join(names.get(str(label), str(label)) for label in several)


def _joined(tokens: Sequence[str]) -> str:
    return joint_of(tokens).join(tokens)


def _shortened(text: str) -> str:
    return text if len(text) <= SHOWN_CHARACTERS else text[: SHOWN_CHARACTERS - 1] + "…"
