"""The paired bootstrap: exact where everything can be counted out, and honest about luck."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.tasks import bootstrap
from zhbert.tasks.bootstrap import PairedComparison, compare
from zhbert.tasks.metrics import resampled_f1_binary, resampled_mean, resampled_spearman


def compare_scores(first, second, **more) -> PairedComparison:
    """Compare by the mean of each example's scores: (seeds, examples) each."""
    models = [[resampled_mean(row) for row in model] for model in (first, second)]
    return compare(*models, num_examples=len(first[0]), **more)


def every_resample(first: np.ndarray, second: np.ndarray) -> Counter[float]:
    """The exact distribution of the difference, from all draws of examples and of both seeds."""
    examples = range(first.shape[1])
    found: Counter[float] = Counter()
    for drawn in itertools.product(examples, repeat=len(examples)):
        for seeds in itertools.product(range(len(first)), repeat=len(first)):
            for others in itertools.product(range(len(second)), repeat=len(second)):
                ours = np.mean([first[s, e] for s in seeds for e in drawn])
                theirs = np.mean([second[s, e] for s in others for e in drawn])
                found[round(float(ours - theirs), 6)] += 1
    return found


def test_resamples_follow_the_exact_distribution() -> None:
    first = np.array([[100.0, 0, 100, 40], [100.0, 100, 100, 0]])
    second = np.array([[0.0, 0, 100, 30], [100.0, 20, 0, 0], [0.0, 0, 90, 0]])
    exact = every_resample(first, second)
    values = np.repeat(list(exact), list(exact.values()))
    result = compare_scores(first, second, resamples=40_000)
    assert result.difference == pytest.approx(first.mean() - second.mean())
    assert result.flips == pytest.approx(np.mean(values <= 0), abs=0.008)
    low, high = np.quantile(values, [0.025, 0.975])
    assert result.low == pytest.approx(low, abs=2)
    assert result.high == pytest.approx(high, abs=2)


def test_half_the_confidence_gives_the_quartiles() -> None:
    first, second = np.array([[100.0, 0, 100, 40]]), np.array([[0.0, 50, 10, 30]])
    exact = every_resample(first, second)
    values = np.repeat(list(exact), list(exact.values()))
    result = compare_scores(first, second, confidence=0.5)
    assert (result.low, result.high) == pytest.approx(np.quantile(values, [0.25, 0.75]), abs=1)


scores = st.lists(st.sampled_from([0.0, 50.0, 100.0]), min_size=8, max_size=8)


@given(scores, st.integers(1, 3), st.integers(1, 3))
def test_without_a_difference_the_interval_holds_0(
    one: list[float], seeds: int, others: int
) -> None:
    result = compare_scores([one] * seeds, [one] * others, resamples=200)
    assert (result.difference, result.low, result.high) == (0, 0, 0)
    assert result.flips == 1
    assert not result.is_larger_than_noise


@given(st.lists(scores, min_size=1, max_size=3), st.lists(scores, min_size=1, max_size=3))
@settings(max_examples=50)
def test_the_other_way_round_the_difference_has_the_other_sign(
    first: list[list[float]], second: list[list[float]]
) -> None:
    one = compare_scores(first, second, resamples=4000)
    other = compare_scores(second, first, resamples=4000)
    assert one.difference == -other.difference
    # Other seeds are drawn, so that the ends agree but roughly.
    assert one.low == pytest.approx(-other.high, abs=8)
    assert one.low <= one.high
    assert 0 <= one.flips <= 1


@given(scores, st.floats(1, 50))
def test_an_equal_gain_on_every_example_is_certain(one: list[float], gain: float) -> None:
    result = compare_scores([[score + gain for score in one]], [one], resamples=200)
    assert (result.low, result.high) == pytest.approx((gain, gain))
    assert result.flips == 0
    assert result.is_larger_than_noise


def test_examples_are_paired() -> None:
    """Hard and easy examples are hard and easy for both: that spread is no noise."""
    rng = np.random.default_rng(0)
    hard = rng.normal(50, 30, size=500)
    together = compare_scores([hard + 2], [hard + rng.normal(0, 1, 500)])
    apart = compare_scores([hard + 2], [rng.permutation(hard)])
    assert together.is_larger_than_noise
    assert not apart.is_larger_than_noise


def test_seeds_that_differ_widen_the_interval() -> None:
    examples = np.random.default_rng(0).normal(50, 1, size=(5, 400))
    luck = np.array([-6.0, -3, 0, 3, 6])[:, None]
    steady = compare_scores(examples + 1, examples)
    lucky = compare_scores(examples + 1 + luck, examples + luck)
    assert steady.is_larger_than_noise
    assert not lucky.is_larger_than_noise
    assert lucky.difference == pytest.approx(steady.difference)


def test_nineteen_of_twenty_intervals_hold_the_true_difference() -> None:
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(300):
        both = rng.normal(0, 10, size=(1, 60))
        result = compare_scores(
            both + 3 + rng.normal(0, 5, size=(1, 60)), both + rng.normal(0, 5, size=(1, 60)),
            resamples=500,
        )  # fmt: skip
        held += result.low <= 3 <= result.high
    assert 0.91 <= held / 300 <= 0.98


def test_the_same_arguments_give_the_same_result_in_blocks_of_any_size(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rng = np.random.default_rng(1)
    first, second = rng.random((3, 50)), rng.random((4, 50))
    results = [compare_scores(first, second, resamples=1001, seed=7)]
    for block in (1, 333, 10**9):
        monkeypatch.setattr(bootstrap, "_WEIGHTS_AT_ONCE", block)
        results.append(compare_scores(first, second, resamples=1001, seed=7))
    assert len(set(results)) == 1
    assert compare_scores(first, second, resamples=1001, seed=8) != results[0]


def test_metrics_that_are_no_means_are_counted_anew_in_every_resample() -> None:
    gold, first, second = ["1", "0", "1", "1"], ["1", "0", "0", "1"], ["1", "1", "0", "1"]

    def f1(predicted: list[str], drawn: tuple[int, ...]) -> float:
        pairs = [(gold[i], predicted[i]) for i in drawn]
        right = sum(pair == ("1", "1") for pair in pairs)
        either = sum((a == "1") + (b == "1") for a, b in pairs)
        return 200 * right / either if either else 0.0

    exact = [f1(first, i) - f1(second, i) for i in itertools.product(range(4), repeat=4)]
    result = compare(
        [resampled_f1_binary(gold, first)], [resampled_f1_binary(gold, second)],
        num_examples=4, resamples=40_000,
    )  # fmt: skip
    assert result.flips == pytest.approx(np.mean(np.round(exact, 9) <= 0), abs=0.008)
    assert result.high == pytest.approx(np.quantile(exact, 0.975), abs=1)


def test_seeds_of_a_metric_that_is_no_mean_are_averaged() -> None:
    gold = [0.0, 1, 2, 3]
    right, wrong = resampled_spearman(gold, gold), resampled_spearman(gold, gold[::-1])
    result = compare([right, wrong], [right], num_examples=4, resamples=100)
    assert result.difference == pytest.approx(-100)


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(ZhbertError, match="needs a seed of each model"):
        compare([], [], num_examples=3)


def test_an_interval_that_touches_0_is_not_larger_than_noise() -> None:
    def of(low: float, high: float) -> bool:
        return PairedComparison(1, low, high, 0, 0.95, 10).is_larger_than_noise

    assert [of(0, 2), of(-1, 0), of(-1, 1), of(0.1, 2), of(-2, -0.1)] == [False] * 3 + [True] * 2
