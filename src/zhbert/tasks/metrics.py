"""Metrics of labels, numbers and tags, in per cent, as GLUE's and seqeval's scorers define them.

GLUE: https://arxiv.org/abs/1804.07461. seqeval: https://github.com/chakki-works/seqeval.

Every metric is written once, for resamples of the examples: ``resampled_x(gold, predicted)``
returns a function from weights of shape ``(resamples, examples)``, which count each example in each
resample, to scores of shape ``(resamples,)``. The plain score is that of the one resample that
contains every example once; the paired bootstrap draws thousands.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.tasks.schemes import TagScheme, entities, scheme_of

Floats = NDArray[np.float64]
Resampled = Callable[[Floats], Floats]
"""Weights (resamples, examples) -> scores (resamples,), in per cent."""

Labels = str | Sequence[str]
"""The gold or predicted value of an example: one label, or several."""
Rows = Sequence[Sequence[str]]
"""One sequence of tags for each sentence."""


def of_all(metric: Resampled, num_examples: int) -> float:
    """Return the plain score, in which every example counts once.

    >>> of_all(resampled_accuracy(["0", "1", "1", "0"], ["0", "1", "0", "0"]), 4)
    75.0
    """
    return float(metric(np.ones((1, num_examples)))[0])


# -- labels ------------------------------------------------------------------------------------


def resampled_mean(values: Sequence[float] | Floats) -> Resampled:
    """Return the mean of per-example values, in the unit of the values."""
    values = np.asarray(values, dtype=np.float64)

    def score(weights: Floats) -> Floats:
        return np.asarray(weights @ values / weights.sum(axis=1))

    return score


def resampled_accuracy(gold: Sequence[object], predicted: Sequence[object]) -> Resampled:
    """Return the share of examples whose label is right."""
    check_pairs(gold, predicted)
    return resampled_mean([100.0 * (a == b) for a, b in zip(gold, predicted, strict=True)])


def resampled_exact_match(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> Resampled:
    """Return the share of examples whose set of labels is entirely right."""
    return resampled_accuracy(
        [frozenset(row) for row in gold], [frozenset(row) for row in predicted]
    )


def resampled_f1_binary(
    gold: Sequence[str], predicted: Sequence[str], positive: str = "1"
) -> Resampled:
    """Return the F1 of one class, as for MRPC and QQP; 0 if the class never occurs.

    >>> of_all(resampled_f1_binary(["1", "1", "0", "0"], ["1", "0", "1", "0"]), 4)
    50.0
    """
    check_pairs(gold, predicted)
    true = np.array([label == positive for label in gold])
    found = np.array([label == positive for label in predicted])
    return _resampled_f1(true & found, found, true)


def resampled_matthews(gold: Sequence[str], predicted: Sequence[str]) -> Resampled:
    """Return Matthews' correlation of two or more classes; 0 if gold or predictions are constant.

    For more than two classes it is Gorodkin's generalisation:
    https://doi.org/10.1016/j.compbiolchem.2004.09.006.
    """
    check_pairs(gold, predicted)
    labels = {label: index for index, label in enumerate(dict.fromkeys([*gold, *predicted]))}
    one_hot = np.eye(len(labels))
    true = one_hot[[labels[label] for label in gold]]
    found = one_hot[[labels[label] for label in predicted]]
    right = (true * found).sum(axis=1)

    def score(weights: Floats) -> Floats:
        trues, founds, total = weights @ true, weights @ found, weights.sum(axis=1)
        covariance = (weights @ right) * total - (trues * founds).sum(axis=1)
        spread = (total**2 - (trues**2).sum(axis=1)) * (total**2 - (founds**2).sum(axis=1))
        return 100.0 * ratio(covariance, np.sqrt(spread))

    return score


# -- classes -----------------------------------------------------------------------------------

AVERAGES = ("micro", "macro", "weighted")


@dataclass(frozen=True)
class ClassCounts:
    """The correct, predicted and gold labels of each class: (3, ..., classes)."""

    counts: Floats
    absent: bool = False
    """True if a class without predictions and gold labels counts as 0 in the macro average."""

    def scores(self) -> tuple[Floats, Floats, Floats]:
        """Return precision, recall and F1 of each class, in [0, 1]."""
        right, found, there = self.counts
        return ratio(right, found), ratio(right, there), ratio(2 * right, found + there)

    def averaged(self, average: str) -> tuple[Floats, Floats, Floats]:
        """Return an average (see AVERAGES) of precision, recall and F1 over the classes: (...)."""
        if average == "micro":
            return ClassCounts(self.counts.sum(-1, keepdims=True), True).averaged("macro")
        _, found, there = self.counts
        counted = np.ones(there.shape)
        if average == "weighted":
            counted = there
        elif not self.absent:
            counted = (found + there > 0).astype(np.float64)
        precision, recall, f1 = (
            ratio((one * counted).sum(-1), counted.sum(-1)) for one in self.scores()
        )
        return precision, recall, f1


def resampled_averaged_f1(
    gold: Sequence[Labels], predicted: Sequence[Labels], labels: Sequence[str] = (), *, average: str
) -> Resampled:
    """Return the ``micro``, ``macro`` or ``weighted`` average of the classes' F1.

    As scikit-learn's ``f1_score(average=...)`` computes it: micro sums the counts of all classes,
    macro is the mean of the classes' F1, and weighted is their mean by the number of gold labels.
    If examples have one label each, the classes are those that occur in the resample; if they have
    several, the classes are all ``labels``.

    >>> of_all(resampled_averaged_f1("aabc", "aabb", average="micro"), 4)
    75.0
    >>> gold, found = [("a", "b"), ()], [("a",), ("b",)]
    >>> of_all(resampled_averaged_f1(gold, found, ["a", "b"], average="macro"), 2)
    50.0
    """
    classes = _classes(gold, predicted, labels)
    marks = _marks(gold, predicted, classes)
    absent = not isinstance(gold[0], str)
    return lambda weights: 100.0 * ClassCounts(weights @ marks, absent).averaged(average)[2]


def class_report(
    gold: Sequence[Labels], predicted: Sequence[Labels], labels: Sequence[str] = ()
) -> dict[str, Any]:
    """Return precision, recall, F1 (in per cent) and support of each class, and their averages.

    The result is plain data, with the numbers of scikit-learn's ``classification_report``. If
    examples have one label each, ``confusion`` counts each predicted class for each gold class,
    without zeros.

    >>> report = class_report(["a", "a", "b"], ["a", "b", "b"], ["a", "b"])
    >>> {name: round(value, 2) for name, value in report["classes"]["a"].items()}
    {'precision': 100.0, 'recall': 50.0, 'f1': 66.67, 'support': 2}
    >>> round(report["averages"]["micro"]["f1"], 2), report["confusion"]
    (66.67, {'a': {'a': 1, 'b': 1}, 'b': {'b': 1}})
    """
    classes = _classes(gold, predicted, labels)
    several = not isinstance(gold[0], str)
    counts = _marks(gold, predicted, classes).sum(axis=1)
    report = _report(classes, ClassCounts(counts, absent=several))
    if not several:
        pairs = Counter(zip(gold, predicted, strict=True))
        report["confusion"] = {
            true: {found: pairs[true, found] for found in classes if pairs[true, found]}
            for true in classes
        }
    return report


def entity_report(gold: Rows, predicted: Rows, labels: Sequence[str]) -> dict[str, Any]:
    """Return the report for types of entities, as seqeval's ``classification_report``."""
    scheme = scheme_of(labels)
    _check_rows(gold, predicted)
    right: Counter[str] = Counter()
    found: Counter[str] = Counter()
    there: Counter[str] = Counter()
    for row in zip(gold, predicted, strict=True):
        true, guessed = (set(entities(tags, scheme)) for tags in row)
        for counter, those in ((right, true & guessed), (found, guessed), (there, true)):
            counter.update(kind for kind, *_ in those)
    classes = sorted(found | there)
    counts = [[one[kind] for kind in classes] for one in (right, found, there)]
    return _report(classes, ClassCounts(np.array(counts, np.float64)))


def _report(classes: Sequence[str], counts: ClassCounts) -> dict[str, Any]:
    def row(scores: Sequence[float], support: float) -> dict[str, float]:
        named = zip(("precision", "recall", "f1"), scores, strict=True)
        return {**{name: 100.0 * float(one) for name, one in named}, "support": int(support)}

    there = counts.counts[2]
    each = zip(zip(*counts.scores(), strict=True), there, strict=True)
    return {
        "classes": {
            name: row(scores, support)
            for name, (scores, support) in zip(classes, each, strict=True)
        },
        "averages": {
            average: row([float(one) for one in counts.averaged(average)], there.sum())
            for average in AVERAGES
        },
    }


def _classes(
    gold: Sequence[Labels], predicted: Sequence[Labels], labels: Sequence[str]
) -> list[str]:
    """Return the classes in the order of ``labels``: all for several labels, else those seen."""
    check_pairs(gold, predicted)
    if not isinstance(gold[0], str):
        return list(labels)
    seen = {*map(str, gold), *map(str, predicted)}
    return [label for label in labels if label in seen] + sorted(seen - set(labels))


def _marks(gold: Sequence[Labels], predicted: Sequence[Labels], classes: Sequence[str]) -> Floats:
    """Return 1 if a class is correct, predicted, gold, else 0: (3, examples, classes)."""
    place = {label: number for number, label in enumerate(classes)}
    marks = np.zeros((3, len(gold), len(classes)))
    for which, side in ((1, predicted), (2, gold)):
        for number, given in enumerate(side):
            for label in (given,) if isinstance(given, str) else given:
                marks[which, number, place[label]] = 1
    marks[0] = marks[1] * marks[2]
    return marks


# -- numbers -----------------------------------------------------------------------------------


def resampled_pearson(gold: Sequence[float], predicted: Sequence[float]) -> Resampled:
    """Return Pearson's correlation; 0 if one side is constant, as it is then undefined.

    >>> round(of_all(resampled_pearson([0, 1, 2, 5], [0, 2, 4, 10]), 4), 6)
    100.0
    """
    check_pairs(gold, predicted)
    true = np.asarray(gold, dtype=np.float64)[None, :]
    found = np.asarray(predicted, dtype=np.float64)[None, :]
    return lambda weights: _correlation(true, found, weights)


def resampled_spearman(gold: Sequence[float], predicted: Sequence[float]) -> Resampled:
    """Return Spearman's correlation: Pearson's of the ranks; equal values share their mean rank.

    The ranks are computed within each resample.
    """
    check_pairs(gold, predicted)
    ranks_of_gold, ranks_of_predicted = ranks_of(gold), ranks_of(predicted)
    return lambda weights: _correlation(
        ranks_of_gold(weights), ranks_of_predicted(weights), weights
    )


def ranks_of(values: Sequence[float]) -> Callable[[Floats], Floats]:
    """Return a function from weights to mean ranks in each resample: (resamples, examples)."""
    distinct, which = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True)
    order = np.argsort(which, kind="stable")
    starts = np.searchsorted(which[order], np.arange(len(distinct)))

    def ranks(weights: Floats) -> Floats:
        sizes = np.add.reduceat(weights.take(order, axis=1), starts, axis=1)
        return (np.cumsum(sizes, axis=1) - (sizes - 1) / 2).take(which, axis=1)

    return ranks


def _correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Return the weighted correlation of rows; x and y are (1 or resamples, examples)."""
    total = weights.sum(axis=1)
    mean_x = np.einsum("rn,rn->r", weights, np.broadcast_to(x, weights.shape)) / total
    mean_y = np.einsum("rn,rn->r", weights, np.broadcast_to(y, weights.shape)) / total
    from_x, from_y = x - mean_x[:, None], y - mean_y[:, None]
    weighted_x = weights * from_x
    covariance = np.einsum("rn,rn->r", weighted_x, from_y)
    norm_x = np.sqrt(np.einsum("rn,rn->r", weighted_x, from_x))
    norm_y = np.sqrt(np.einsum("rn,rn,rn->r", weights, from_y, from_y))
    # The mean of equal numbers may differ from them in the last bits, which is no variance.
    constant = (norm_x <= 1e-13 * np.abs(mean_x)) | (norm_y <= 1e-13 * np.abs(mean_y))
    correlation = np.clip(ratio(covariance, norm_x * norm_y), -1.0, 1.0)
    return np.where(constant, 0.0, 100.0 * correlation)


# -- tags --------------------------------------------------------------------------------------


def resampled_entity_f1(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    scheme: TagScheme | None = None,
) -> Resampled:
    """Return micro F1 over all entities; an entity is correct if its type and both ends are.

    As seqeval's ``f1_score``: in its default mode for BIO and without a ``scheme``, otherwise in
    its strict mode; 0 if there are no entities. An example is a sentence.

    >>> gold, found = [["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "B-ORG"]]
    >>> of_all(resampled_entity_f1(gold, found), 1)
    50.0
    """
    counts = entity_counts(gold, predicted, scheme)
    return _resampled_f1(counts[:, 0], counts[:, 1], counts[:, 2])


def resampled_tag_accuracy(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> Resampled:
    """Return the share of tokens whose tag is right; an example is a sentence."""
    _check_rows(gold, predicted)
    pairs = list(zip(gold, predicted, strict=True))
    right = np.array([sum(map(str.__eq__, true, found)) for true, found in pairs])
    tokens = np.array([len(true) for true in gold])
    return lambda weights: 100.0 * ratio(weights @ right, weights @ tokens)


def entity_counts(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    scheme: TagScheme | None = None,
) -> Floats:
    """Correct, predicted and gold entities of each sentence: (sentences, 3)."""
    _check_rows(gold, predicted)
    counts = np.zeros((len(gold), 3))
    for index, (true, found) in enumerate(zip(gold, predicted, strict=True)):
        there, guessed = set(entities(true, scheme)), set(entities(found, scheme))
        counts[index] = len(there & guessed), len(guessed), len(there)
    return counts


# -- all metrics -----------------------------------------------------------------------------------

Metric = Callable[[Any, Any, Sequence[str]], Resampled]
"""A metric, called with the gold values, the predictions (a list of (examples,) each, in the same
order) and the task's labels. It does not return a number but a `Resampled`: a function from weights
of shape (resamples, examples) to scores of shape (resamples,), in per cent.

`resampled_mean` makes one from per-example values, and `of_pairs` makes a metric that needs no
labels. Before training, each metric is tried with dev's gold values as predictions.
"""


def of_pairs(metric: Callable[[Any, Any], Resampled]) -> Metric:
    """Return a metric that ignores the labels."""
    return lambda gold, predicted, labels: metric(gold, predicted)


AVERAGED_F1: Mapping[str, Metric] = {
    f"f1_{average}": partial(resampled_averaged_f1, average=average) for average in AVERAGES
}


@dataclass(frozen=True)
class Scores:
    """The scores of one set of predictions."""

    metrics: Mapping[str, float]
    """The metrics in per cent, by the card's names and in its order."""
    resampled: Mapping[str, Resampled]
    """The same metrics as functions of resamples, which `bootstrap.compare` takes."""
    num_examples: int
    parts: Mapping[str, float] = field(default_factory=dict)
    """The metrics of parts of the examples, such as the questions without an answer."""
    further: Mapping[str, float] = field(default_factory=dict)
    """Other figures that the benchmark's scorer prints."""
    missing: tuple[str, ...] = ()
    """The ids of questions without a prediction, which count 0."""
    unknown: tuple[str, ...] = ()
    """The ids of predictions without an example, which are ignored."""


def _resampled_f1(right: NDArray[Any], found: NDArray[Any], there: NDArray[Any]) -> Resampled:
    """Return F1 from each example's counts of correct, predicted and gold items."""
    counts = np.stack([right, found, there], axis=1).astype(np.float64)

    def score(weights: Floats) -> Floats:
        sums = weights @ counts
        return 100.0 * ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2])

    return score


def ratio(upper: Floats, lower: Floats) -> Floats:
    """Return the quotient, or 0 if the divisor is 0."""
    upper, lower = np.broadcast_arrays(upper, lower)
    return np.divide(upper, lower, out=np.zeros(upper.shape), where=lower != 0)


def check_pairs(gold: Sequence[Any], predicted: Sequence[Any]) -> None:
    """Require at least one example, and as many predictions as examples."""
    if not len(gold):
        raise ZhbertError("no examples to score")
    if len(gold) != len(predicted):
        raise ZhbertError(f"{len(gold)} examples, but {len(predicted)} predictions")


def _check_rows(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> None:
    check_pairs(gold, predicted)
    for index, (true, found) in enumerate(zip(gold, predicted, strict=True)):
        if len(true) != len(found):
            raise ZhbertError(f"sentence {index + 1}: {len(true)} tokens, but {len(found)} tags")
