"""Paired bootstrap: is one model better than another, or do examples and seeds explain it?

As in Koehn 2004 (https://aclanthology.org/W04-3250/), a resample draws examples with replacement,
the same ones for both models. In addition, it draws the seeds of each model. Seeds are not paired:
seed 3 of one model is unrelated to seed 3 of another, and their numbers may differ.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.tasks.metrics import Floats, Resampled

# Weights in memory at a time: 16 MB of float64, however many examples there are.
_WEIGHTS_AT_ONCE = 1 << 21


@dataclass(frozen=True)
class PairedComparison:
    """The difference between two models' mean scores (first minus second) and its certainty."""

    difference: float
    """In percentage points, the unit of the scores."""
    low: float
    """The ends of the confidence interval, percentiles of the resamples' differences."""
    high: float
    flips: float
    """The share of resamples, 0 to 1, whose difference is 0 or has the other sign."""
    confidence: float
    resamples: int

    @property
    def is_larger_than_noise(self) -> bool:
        """True if the interval excludes 0."""
        return self.low > 0 or self.high < 0


def compare(
    first: Sequence[Resampled],
    second: Sequence[Resampled],
    *,
    num_examples: int,
    resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedComparison:
    """Compare two models by any metric, given one `Resampled` for each of their seeds.

    >>> from zhbert.tasks.metrics import resampled_matthews
    >>> gold = ["0", "1"] * 50
    >>> right, guessed = resampled_matthews(gold, gold), resampled_matthews(gold, ["1", "1"] * 50)
    >>> result = compare([right], [guessed], num_examples=100)
    >>> result.difference, result.low, result.high, result.flips
    (100.0, 100.0, 100.0, 0.0)
    """
    if not first or not second or num_examples < 1:
        raise ZhbertError("compare: needs a seed of each model, and an example")
    rng, rng_first, rng_second = np.random.default_rng(seed).spawn(3)
    whole = np.ones((1, num_examples))
    means = (_by_seed(model, whole).mean(axis=1)[0] for model in (first, second))
    difference = float(operator.sub(*means))
    drawn = np.empty(resamples)
    step = max(1, _WEIGHTS_AT_ONCE // num_examples)
    for start in range(0, resamples, step):
        part = drawn[start : start + step]
        examples = _draw(rng, len(part), num_examples)
        part[:] = _differences(
            _by_seed(first, examples),
            _by_seed(second, examples),
            _draw(rng_first, len(part), len(first)),
            _draw(rng_second, len(part), len(second)),
        )
    # Equal scores may differ in their last bits if they were summed in another order.
    drawn, difference = drawn.round(9), round(difference, 9)
    low, high = np.quantile(drawn, [(1 - confidence) / 2, (1 + confidence) / 2])
    return PairedComparison(
        difference=difference,
        low=float(low),
        high=float(high),
        flips=float(np.mean(drawn * np.sign(difference) <= 0)),
        confidence=confidence,
        resamples=resamples,
    )


def _by_seed(model: Sequence[Resampled], weights: Floats) -> Floats:
    """Return the score of each seed on each resample of examples: (resamples, seeds)."""
    return np.stack([score(weights) for score in model], axis=1)


def _differences(first: Floats, second: Floats, in_first: Floats, in_second: Floats) -> Floats:
    """Return differences of the mean scores, with each seed weighted by how often it was drawn."""
    return np.asarray(
        (first * in_first).sum(axis=1) / in_first.sum(axis=1)
        - (second * in_second).sum(axis=1) / in_second.sum(axis=1)
    )


def _draw(rng: np.random.Generator, count: int, size: int) -> Floats:
    """Return how often each of ``size`` items is drawn in ``size`` draws: (count, size)."""
    drawn: NDArray[np.int64] = rng.integers(size, size=(count, size))
    drawn += np.arange(count)[:, None] * size
    return np.bincount(drawn.ravel(), minlength=count * size).reshape(count, size).astype(float)
