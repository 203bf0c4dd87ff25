"""Scores of labels, numbers and tags, in per cent, as GLUE's and seqeval's scorers count them.

Every metric is written once, for resamples of the examples: ``resampled_x(gold, predicted)`` gives
a function from weights of shape ``(resamples, examples)``, how often a resample holds each example,
to scores of shape ``(resamples,)``. The plain score is the resample that holds each example once;
the paired bootstrap draws thousands.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.tasks.schemes import TagScheme, entities, scheme_of

Floats = NDArray[np.float64]
Resampled = Callable[[Floats], Floats]
"""Weights (resamples, examples) -> scores (resamples,), in per cent."""

# -- labels ------------------------------------------------------------------------------------


def accuracy(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """The share of examples whose label is right.

    >>> accuracy(["0", "1", "1", "0"], ["0", "1", "0", "0"])
    75.0
    """
    return _once(resampled_accuracy(gold, predicted), gold)


def f1_binary(gold: Sequence[str], predicted: Sequence[str], positive: str = "1") -> float:
    """F1 of one class, as MRPC and QQP ask for; 0 where that class never occurs.

    >>> f1_binary(["1", "1", "0", "0"], ["1", "0", "1", "0"])
    50.0
    """
    return _once(resampled_f1_binary(gold, predicted, positive), gold)


def matthews(gold: Sequence[str], predicted: Sequence[str]) -> float:
    """Matthews' correlation of two classes or more; 0 where one side is constant.

    >>> matthews(["1", "1", "0", "0"], ["1", "1", "0", "0"])
    100.0
    """
    return _once(resampled_matthews(gold, predicted), gold)


def resampled_mean(values: Sequence[float] | Floats) -> Resampled:
    """The mean of per-example values, which are taken as they are: give per cent, get per cent."""
    values = np.asarray(values, dtype=np.float64)

    def score(weights: Floats) -> Floats:
        return np.asarray(weights @ values / weights.sum(axis=1))

    return score


def resampled_accuracy(gold: Sequence[str], predicted: Sequence[str]) -> Resampled:
    """Of `accuracy`."""
    _check(gold, predicted)
    return resampled_mean([100.0 * (a == b) for a, b in zip(gold, predicted, strict=True)])


def resampled_f1_binary(
    gold: Sequence[str], predicted: Sequence[str], positive: str = "1"
) -> Resampled:
    """Of `f1_binary`."""
    _check(gold, predicted)
    true = np.array([label == positive for label in gold])
    found = np.array([label == positive for label in predicted])
    return _resampled_f1(true & found, found, true)


def resampled_matthews(gold: Sequence[str], predicted: Sequence[str]) -> Resampled:
    """Of `matthews`."""
    _check(gold, predicted)
    labels = {label: index for index, label in enumerate(dict.fromkeys([*gold, *predicted]))}
    one_hot = np.eye(len(labels))
    true = one_hot[[labels[label] for label in gold]]
    found = one_hot[[labels[label] for label in predicted]]
    right = (true * found).sum(axis=1)

    def score(weights: Floats) -> Floats:
        # Gorodkin's form: for two classes it is the one of the four cells.
        trues, founds, total = weights @ true, weights @ found, weights.sum(axis=1)
        covariance = (weights @ right) * total - (trues * founds).sum(axis=1)
        spread = (total**2 - (trues**2).sum(axis=1)) * (total**2 - (founds**2).sum(axis=1))
        return 100.0 * _ratio(covariance, np.sqrt(spread))

    return score


# -- numbers -----------------------------------------------------------------------------------


def pearson(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Pearson's correlation; 0 where one side is constant, for which there is none.

    >>> round(pearson([0, 1, 2, 5], [0, 2, 4, 10]), 6)
    100.0
    """
    return _once(resampled_pearson(gold, predicted), gold)


def spearman(gold: Sequence[float], predicted: Sequence[float]) -> float:
    """Pearson's correlation of the ranks, equal values sharing their mean rank.

    >>> round(spearman([0, 1, 2, 5], [0, 1, 8, 9]), 6)
    100.0
    """
    return _once(resampled_spearman(gold, predicted), gold)


def resampled_pearson(gold: Sequence[float], predicted: Sequence[float]) -> Resampled:
    """Of `pearson`."""
    _check(gold, predicted)
    true = np.asarray(gold, dtype=np.float64)[None, :]
    found = np.asarray(predicted, dtype=np.float64)[None, :]
    return lambda weights: _correlation(true, found, weights)


def resampled_spearman(gold: Sequence[float], predicted: Sequence[float]) -> Resampled:
    """Of `spearman`: each resample has ranks of its own."""
    _check(gold, predicted)
    ranks_of_gold, ranks_of_predicted = _ranks(gold), _ranks(predicted)
    return lambda weights: _correlation(
        ranks_of_gold(weights), ranks_of_predicted(weights), weights
    )


def _ranks(values: Sequence[float]) -> Callable[[Floats], Floats]:
    """Mean ranks of the examples within each resample: (resamples, examples) from its weights."""
    distinct, which = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True)
    order = np.argsort(which, kind="stable")
    starts = np.searchsorted(which[order], np.arange(len(distinct)))

    def ranks(weights: Floats) -> Floats:
        sizes = np.add.reduceat(weights.take(order, axis=1), starts, axis=1)
        return (np.cumsum(sizes, axis=1) - (sizes - 1) / 2).take(which, axis=1)

    return ranks


def _correlation(x: Floats, y: Floats, weights: Floats) -> Floats:
    """Weighted correlation of rows; x and y are (1 or resamples, examples)."""
    total = weights.sum(axis=1)
    mean_x = np.einsum("rn,rn->r", weights, np.broadcast_to(x, weights.shape)) / total
    mean_y = np.einsum("rn,rn->r", weights, np.broadcast_to(y, weights.shape)) / total
    from_x, from_y = x - mean_x[:, None], y - mean_y[:, None]
    weighted_x = weights * from_x
    covariance = np.einsum("rn,rn->r", weighted_x, from_y)
    norm_x = np.sqrt(np.einsum("rn,rn->r", weighted_x, from_x))
    norm_y = np.sqrt(np.einsum("rn,rn,rn->r", weights, from_y, from_y))
    # Equal numbers leave a rest in the last bits, which must not be taken for a spread.
    constant = (norm_x <= 1e-13 * np.abs(mean_x)) | (norm_y <= 1e-13 * np.abs(mean_y))
    correlation = np.clip(_ratio(covariance, norm_x * norm_y), -1.0, 1.0)
    return np.where(constant, 0.0, 100.0 * correlation)


# -- tags --------------------------------------------------------------------------------------


def entity_f1(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    scheme: TagScheme | None = None,
) -> float:
    """F1 over entities, all types together (micro): one counts where type and ends are right.

    As seqeval's ``f1_score``: of BIO, and without a ``scheme``, in its default mode, else in its
    strict one; 0 where there are no entities at all.

    >>> entity_f1([["B-PER", "I-PER", "O", "B-LOC"]], [["B-PER", "I-PER", "O", "B-ORG"]])
    50.0
    """
    return _once(resampled_entity_f1(gold, predicted, scheme), gold)


def resampled_entity_f1(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    scheme: TagScheme | None = None,
) -> Resampled:
    """Of `entity_f1`; an example is a sentence."""
    counts = entity_counts(gold, predicted, scheme)
    return _resampled_f1(counts[:, 0], counts[:, 1], counts[:, 2])


def resampled_tag_accuracy(
    gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> Resampled:
    """The share of tokens whose tag is right; an example is a sentence."""
    _check_rows(gold, predicted)
    pairs = list(zip(gold, predicted, strict=True))
    right = np.array([sum(map(str.__eq__, true, found)) for true, found in pairs])
    tokens = np.array([len(true) for true in gold])
    return lambda weights: 100.0 * _ratio(weights @ right, weights @ tokens)


def entity_counts(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    scheme: TagScheme | None = None,
) -> Floats:
    """Entities of each sentence that are right, were predicted, are there: (sentences, 3)."""
    _check_rows(gold, predicted)
    counts = np.zeros((len(gold), 3))
    for index, (true, found) in enumerate(zip(gold, predicted, strict=True)):
        there, guessed = set(entities(true, scheme)), set(entities(found, scheme))
        counts[index] = len(there & guessed), len(guessed), len(there)
    return counts


# -- all of them -------------------------------------------------------------------------------

METRICS: Mapping[str, Mapping[str, Callable[..., Resampled]]] = {
    "classify": {
        "accuracy": resampled_accuracy,
        "f1": resampled_f1_binary,
        "matthews": resampled_matthews,
    },
    "regress": {"pearson": resampled_pearson, "spearman": resampled_spearman},
    "tag": {"f1": resampled_entity_f1, "accuracy": resampled_tag_accuracy},
}
"""The kind of a task -> a metric's name -> (gold, predicted) to its `Resampled`."""


def resampled_predictions(
    kind: str, name: str, lines: Sequence[Mapping[str, Any]], labels: Sequence[str]
) -> Resampled:
    """A metric of the lines of a seed's predictions.jsonl; ``labels`` are the task's."""
    if kind == "span":
        # Their scores stand in the lines; "score" is F1.
        key = "score" if name == "f1" else name
        return resampled_mean([100.0 * line[key] for line in lines])
    more: dict[tuple[str, str], tuple[Any, ...]] = {
        ("classify", "f1"): tuple(labels[1:2]),
        ("tag", "f1"): (scheme_of(labels),) if labels else (),
    }
    gold, found = ([line[key] for line in lines] for key in ("gold", "predicted"))
    return METRICS[kind][name](gold, found, *more.get((kind, name), ()))


def _resampled_f1(right: NDArray[Any], found: NDArray[Any], there: NDArray[Any]) -> Resampled:
    """F1 from each example's count of what is right, was found and is there."""
    counts = np.stack([right, found, there], axis=1).astype(np.float64)

    def score(weights: Floats) -> Floats:
        sums = weights @ counts
        return 100.0 * _ratio(2 * sums[:, 0], sums[:, 1] + sums[:, 2])

    return score


def _ratio(upper: Floats, lower: Floats) -> Floats:
    """A quotient that is 0 where the divisor is."""
    upper, lower = np.broadcast_arrays(upper, lower)
    return np.divide(upper, lower, out=np.zeros(upper.shape), where=lower != 0)


def _once(metric: Resampled, gold: Sequence[Any]) -> float:
    return float(metric(np.ones((1, len(gold))))[0])


def _check(gold: Sequence[Any], predicted: Sequence[Any]) -> None:
    if not len(gold):
        raise ZhbertError("no examples to score")
    if len(gold) != len(predicted):
        raise ZhbertError(f"{len(gold)} examples, but {len(predicted)} predictions")


def _check_rows(gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]) -> None:
    _check(gold, predicted)
    for index, (true, found) in enumerate(zip(gold, predicted, strict=True)):
        if len(true) != len(found):
            raise ZhbertError(f"sentence {index + 1}: {len(true)} tokens, but {len(found)} tags")
