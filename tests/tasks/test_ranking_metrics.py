"""Scores of similarities and of search: those of sentence-transformers and of scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.tasks.metrics import of_all
from zhbert.tasks.ranking_metrics import (
    OF_SEARCH,
    resampled_average_precision,
    resampled_best_accuracy,
    resampled_search,
)


@pytest.fixture(scope="module")
def evaluation():
    pytest.importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import evaluation

    return evaluation


def judged(rng: np.random.Generator, count: int, *, ties: bool = False):
    """Gold values, and similarities that know a little of them."""
    gold = rng.integers(2, size=count).astype(float)
    found = gold + rng.normal(0, 1.5, count)
    return gold, np.round(found) if ties else found


def resamples(metric, weights):
    """The metric on examples that are repeated as often as the weights say."""
    return lambda *sides: [
        of_all(metric(*(np.repeat(side, row) for side in sides)), row.sum())
        for row in weights.astype(int)
    ]


@pytest.mark.parametrize("seed", range(5))
def test_accuracy_is_that_at_the_best_threshold(evaluation, seed):
    gold, found = judged(np.random.default_rng(seed), 60)
    theirs, _ = evaluation.BinaryClassificationEvaluator.find_best_acc_and_threshold(
        found, gold, True
    )
    assert of_all(resampled_best_accuracy(gold, found), 60) == pytest.approx(100 * theirs)


def test_without_any_yes_no_threshold_is_best():
    assert of_all(resampled_best_accuracy([0, 0], [0.1, 0.9]), 2) == 100
    assert of_all(resampled_average_precision([0, 0], [0.1, 0.9]), 2) == 0


def test_equal_similarities_are_on_one_side_of_the_threshold():
    assert of_all(resampled_best_accuracy([1, 0, 1, 0], [0.5] * 4), 4) == 50


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learns_on_every_resample(ties):
    from sklearn.metrics import average_precision_score

    rng = np.random.default_rng(0)
    gold, found = judged(rng, 50, ties=ties)
    weights = rng.integers(3, size=(4, 50)).astype(float)
    ours = resampled_average_precision(gold, found)(weights)
    theirs = [100 * average_precision_score(gold, found, sample_weight=row) for row in weights]
    assert ours.tolist() == pytest.approx(theirs)


@pytest.mark.parametrize("metric", [resampled_best_accuracy, resampled_average_precision])
@given(st.integers(0, 2**32 - 1), st.booleans())
@settings(max_examples=25)
def test_a_resample_is_scored_as_its_examples_are(metric, seed, ties):
    rng = np.random.default_rng(seed)
    gold, found = judged(rng, 12, ties=ties)
    weights = np.stack([np.bincount(rng.integers(12, size=12), minlength=12) for _ in range(3)])
    ours = metric(gold, found)(weights.astype(float))
    assert ours.tolist() == pytest.approx(resamples(metric, weights)(gold, found))


def searched(rng: np.random.Generator, questions: int):
    """The right passages of each question, and those found: the best 20 of 30, in order."""
    ids = [f"p{number:02}" for number in range(30)]
    right = [rng.choice(ids, rng.integers(1, 4), replace=False).tolist() for _ in range(questions)]
    return right, [rng.permutation(ids)[:20].tolist() for _ in right]


@pytest.mark.parametrize("seed", range(3))
def test_search_is_scored_as_sentence_transformers_scores_it(evaluation, seed):
    right, found = searched(np.random.default_rng(seed), 15)
    numbers = list(map(str, range(15)))
    evaluator = evaluation.InformationRetrievalEvaluator(
        dict.fromkeys(numbers, "q"), {f"p{n:02}": "t" for n in range(30)},
        dict(zip(numbers, map(set, right), strict=True)),
    )  # fmt: skip
    hits = [[{"corpus_id": id_, "score": -rank} for rank, id_ in enumerate(best)] for best in found]
    theirs = evaluator.compute_metrics(hits)
    recalls = theirs["recall@k"]
    expected = {
        "mrr@10": theirs["mrr@k"][10], "ndcg@10": theirs["ndcg@k"][10], "recall@1": recalls[1],
        "recall@10": recalls[10], "map": theirs["map@k"][100],
    }  # fmt: skip
    ours = {name: of_all(resampled_search(name, right, found), 15) / 100 for name in OF_SEARCH}
    assert ours == pytest.approx(expected)


@pytest.mark.parametrize("metric", OF_SEARCH)
def test_what_is_found_first_is_perfect_and_what_is_not_found_is_nothing(metric):
    right = [["a", "b"], ["c"]]
    assert of_all(resampled_search(metric, right[1:], right[1:]), 1) == 100
    assert of_all(resampled_search(metric, right, [["x"], []]), 2) == 0


def test_only_the_first_ten_and_the_first_hundred_count():
    late = [f"x{n}" for n in range(10)] + ["a"]
    assert of_all(resampled_search("mrr@10", [["a"]], [late]), 1) == 0
    assert of_all(resampled_search("map", [["a"]], [late]), 1) == pytest.approx(100 / 11)
    later = [f"x{n}" for n in range(100)] + ["a"]
    assert of_all(resampled_search("map", [["a"]], [later]), 1) == 0


def test_nothing_to_score_is_refused():
    with pytest.raises(ZhbertError, match="no examples to score"):
        resampled_search("map", [], [])
