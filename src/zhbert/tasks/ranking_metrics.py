"""Metrics of similarities and of search, in per cent, for resamples of the examples.

As `zhbert.tasks.metrics` describes, each metric returns a function from weights of shape
``(resamples, examples)`` to scores. They equal those of sentence-transformers' evaluators
(https://sbert.net/docs/package_reference/sentence_transformer/evaluation.html) on one resample
that contains every example once.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np

from zhbert.tasks.metrics import Floats, Resampled, check_pairs, ratio, resampled_mean

SEARCHED = 100
"""The number of passages that are found for each question."""


# -- yes or no ---------------------------------------------------------------------------------


def resampled_best_accuracy(gold: Sequence[float], predicted: Sequence[float]) -> Resampled:
    """Return the accuracy at the threshold that is best for the resample.

    Args:
        gold: 1.0 for yes, 0.0 for no.
        predicted: similarities; from the threshold on, they mean yes.

    >>> from zhbert.tasks.metrics import of_all
    >>> of_all(resampled_best_accuracy([1, 1, 0, 1], [0.9, 0.8, 0.5, 0.1]), 4)
    75.0
    """
    counted = _counts_above(gold, predicted)

    def score(weights: Floats) -> Floats:
        yes, no = counted(weights)
        total = weights.sum(axis=1)
        # Without a similarity at or above the threshold, every no is right.
        right = np.maximum((yes - no).max(axis=1), 0) + no[:, -1]
        return np.asarray(100.0 * right / total)

    return score


def resampled_average_precision(gold: Sequence[float], predicted: Sequence[float]) -> Resampled:
    """Return the average precision over all thresholds, as scikit-learn computes it; 0 without yes.

    https://scikit-learn.org/stable/modules/generated/sklearn.metrics.average_precision_score.html

    >>> from zhbert.tasks.metrics import of_all
    >>> round(of_all(resampled_average_precision([1, 0, 1], [0.9, 0.8, 0.7]), 3), 2)
    83.33
    """
    counted = _counts_above(gold, predicted)

    def score(weights: Floats) -> Floats:
        yes, no = counted(weights)
        precision = ratio(yes, yes + no)
        gained = np.diff(yes, axis=1, prepend=0.0)
        return 100.0 * ratio((gained * precision).sum(axis=1), yes[:, -1])

    return score


def _counts_above(
    gold: Sequence[float], predicted: Sequence[float]
) -> Callable[[Floats], tuple[Floats, Floats]]:
    """Return a function to the numbers of yes and no at or above each distinct similarity.

    The similarities are in falling order; shapes: (resamples, examples) -> (resamples, distinct).
    """
    check_pairs(gold, predicted)
    found = np.asarray(predicted, np.float64)
    order = np.argsort(-found, kind="stable")
    lasts = np.append(np.flatnonzero(np.diff(found[order])), len(found) - 1)
    yes = np.asarray(gold, np.float64)[order]

    def counts(weights: Floats) -> tuple[Floats, Floats]:
        sorted_weights = weights.take(order, axis=1)
        all_above = np.cumsum(sorted_weights, axis=1)[:, lasts]
        yes_above = np.cumsum(sorted_weights * yes, axis=1)[:, lasts]
        return yes_above, all_above - yes_above

    return counts


# -- search ------------------------------------------------------------------------------------


def reciprocal_rank(relevant: Collection[str], found: Sequence[str]) -> float:
    """Return 1 / rank of the first right passage; 0 if there is none.

    >>> reciprocal_rank({"b"}, ["a", "b"]), reciprocal_rank({"b"}, ["a"])
    (0.5, 0.0)
    """
    return next((1 / rank for rank, one in enumerate(found, start=1) if one in relevant), 0.0)


def discounted_gain(relevant: Collection[str], found: Sequence[str], at: int = 10) -> float:
    """Return NDCG, of which a right passage at rank r gains 1 / log2(r + 1), others nothing.

    Järvelin and Kekäläinen 2002: https://doi.org/10.1145/582415.582418

    >>> discounted_gain({"a"}, ["a", "b"]), round(discounted_gain({"b"}, ["a", "b"]), 3)
    (1.0, 0.631)
    """
    gains = 1 / np.log2(np.arange(2, at + 2))
    marks = np.array([one in relevant for one in found[:at]], np.float64)
    return float(gains[: len(marks)] @ marks / gains[: len(relevant)].sum())


def recall(relevant: Collection[str], found: Sequence[str], at: int) -> float:
    """Return the share of the right passages that are found."""
    return sum(one in relevant for one in found[:at]) / len(relevant)


def mean_precision(relevant: Collection[str], found: Sequence[str]) -> float:
    """Return the mean of the precisions at the ranks of the right passages, of all that can be.

    >>> mean_precision({"a", "c"}, ["a", "b", "c"]) == (1 / 1 + 2 / 3) / 2
    True
    """
    ranks = [rank for rank, one in enumerate(found[:SEARCHED], start=1) if one in relevant]
    precisions = [count / rank for count, rank in enumerate(ranks, start=1)]
    return sum(precisions) / min(SEARCHED, len(relevant))


OF_SEARCH: Mapping[str, Callable[[Collection[str], Sequence[str]], float]] = {
    "mrr@10": lambda relevant, found: reciprocal_rank(relevant, found[:10]),
    "ndcg@10": discounted_gain,
    "recall@1": lambda relevant, found: recall(relevant, found, 1),
    "recall@10": lambda relevant, found: recall(relevant, found, 10),
    "map": mean_precision,
}
"""Metrics of one question, 0 to 1: the ids of the right passages, and those found, best first."""


def resampled_search(
    metric: str, gold: Sequence[Sequence[str]], predicted: Sequence[Sequence[str]]
) -> Resampled:
    """Return the mean over all questions of one of the metrics `OF_SEARCH`.

    >>> from zhbert.tasks.metrics import of_all
    >>> of_all(resampled_search("mrr@10", [["b"], ["a"]], [["a", "b"], ["a", "b"]]), 2)
    75.0
    """
    check_pairs(gold, predicted)
    of_one = OF_SEARCH[metric]
    pairs = zip(gold, predicted, strict=True)
    return resampled_mean([100.0 * of_one(frozenset(right), found) for right, found in pairs])
