"""Losses of embeddings: the same values and gradients as sentence-transformers' classes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from zhbert.sentences import losses
from zhbert.sentences.losses import LOSSES, Ranking, Scored, Triplets

SIZES = [(2, 4), (7, 33), (32, 64)]


class Fake:
    """What sentence-transformers' losses ask of a model, and no more."""

    def __init__(self, width):
        self.width = width

    def get_embedding_dimension(self):
        return self.width


@pytest.fixture(scope="module")
def theirs():
    from sentence_transformers.sentence_transformer import losses as module

    return {
        "cosent": module.CoSENTLoss,
        "angle": module.AnglELoss,
        "cosine": module.CosineSimilarityLoss,
        "contrastive": module.ContrastiveLoss,
        "multiple_negatives": module.MultipleNegativesRankingLoss,
        "triplet": module.TripletLoss,
    }


def leaves(count, size, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count * size, width, generator=generator, requires_grad=True)


def compare(ours, theirs, ours_from, theirs_from):
    """Assert that two losses, and their gradients, are equal."""
    torch.testing.assert_close(ours, theirs)
    mine, yours = torch.autograd.grad(ours, ours_from), torch.autograd.grad(theirs, theirs_from)
    torch.testing.assert_close(mine, yours)


@pytest.mark.parametrize(("size", "width"), SIZES)
@pytest.mark.parametrize("name", ["cosent", "angle", "cosine", "contrastive"])
def test_losses_of_pairs_equal_sentence_transformers(name, size, width, theirs):
    embeddings, same = leaves(2, size, width), leaves(2, size, width)
    values = torch.from_numpy(np.random.default_rng(1).random(size, np.float32))
    if name in ("contrastive", "cosent"):
        values = values.round()  # equal values are no pair in order
    left, right = torch.arange(2 * size).view(2, size)
    ours = LOSSES[name](embeddings, Scored(left, right, values))
    oracle = theirs[name](Fake(width)).compute_loss_from_embeddings([*same.chunk(2)], values)
    compare(ours, oracle, embeddings, same)


@pytest.mark.parametrize(("size", "width"), SIZES)
@pytest.mark.parametrize("negatives", [0, 1, 3])
def test_multiple_negatives_equal_sentence_transformers(negatives, size, width, theirs):
    embeddings, same = leaves(2 + negatives, size, width), leaves(2 + negatives, size, width)
    numbers = np.arange(len(embeddings))
    anchors, positives, others = numbers[:size], numbers[size : 2 * size], numbers[2 * size :]
    ranking = Ranking.among(anchors, positives, others, texts=numbers)
    ours = LOSSES["multiple_negatives"](embeddings, ranking)
    oracle = theirs["multiple_negatives"](Fake(width)).compute_loss_from_embeddings(
        [*same.chunk(2 + negatives)], None
    )
    compare(ours, oracle, embeddings, same)


@pytest.mark.parametrize(("size", "width"), SIZES)
def test_triplets_equal_sentence_transformers(size, width, theirs):
    embeddings, same = leaves(3, size, width), leaves(3, size, width)
    ours = LOSSES["triplet"](embeddings, Triplets(*torch.arange(3 * size).view(3, size)))
    oracle = theirs["triplet"](Fake(width)).compute_loss_from_embeddings([*same.chunk(3)], None)
    compare(ours, oracle, embeddings, same)


@pytest.mark.parametrize("name", ["cosent", "contrastive"])
def test_matryoshka_equals_sentence_transformers(name, theirs):
    from sentence_transformers.sentence_transformer.losses import MatryoshkaLoss

    class Model(Fake):
        def forward(self, features):
            return {"sentence_embedding": features["embeddings"]}

    size, width = 8, 32
    embeddings, same = leaves(2, size, width), leaves(2, size, width)
    values = torch.tensor([0.0, 1.0] * (size // 2))
    left, right = torch.arange(2 * size).view(2, size)
    ours = LOSSES[name](embeddings, Scored(left, right, values), dimensions=(32, 16, 8))
    model = Model(width)
    model.__class__.__call__ = lambda self, features: self.forward(features)
    oracle = MatryoshkaLoss(model, theirs[name](model), [32, 16, 8])
    columns = [{"embeddings": one, "input_ids": None} for one in same.chunk(2)]
    compare(ours, oracle(columns, values), embeddings, same)


def test_a_larger_scale_and_another_margin_reach_the_loss(theirs):
    embeddings, same = leaves(2, 7, 8), leaves(2, 7, 8)
    values = torch.tensor([0.0, 1, 0, 1, 1, 0, 1])
    pairs = Scored(*torch.arange(14).view(2, 7), values)
    for name, key in (("cosent", "scale"), ("angle", "scale"), ("contrastive", "margin")):
        oracle = theirs[name](Fake(8), **{key: 0.8}).compute_loss_from_embeddings(
            [*same.chunk(2)], values
        )
        compare(LOSSES[name](embeddings, pairs, **{key: 0.8}), oracle, embeddings, same)


def test_equal_values_have_no_loss_and_no_gradient():
    embeddings = leaves(2, 4, 8)
    loss = LOSSES["cosent"](embeddings, Scored(*torch.arange(8).view(2, 4), torch.ones(4)))
    (gradient,) = torch.autograd.grad(loss, embeddings)
    assert loss.item() == 0.0
    assert not gradient.any()


def test_the_distance_of_two_equal_embeddings_has_a_gradient():
    embeddings = torch.ones(3, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(
        LOSSES["triplet"](embeddings, Triplets(*torch.arange(3).view(3, 1))), embeddings
    )
    assert gradient.isfinite().all()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 5)] * 3), min_size=1, max_size=8))
def test_a_text_is_never_its_own_negative_nor_a_known_positive(triples):
    """Against the definition, for texts that occur often."""
    anchors, positives, negatives = np.array(triples, np.int64).T
    ranking = Ranking.among(anchors, positives, negatives, np.arange(6))
    candidates = ranking.candidates.tolist()
    assert candidates == sorted({*positives.tolist(), *negatives.tolist()})
    for number, (anchor, positive, _) in enumerate(triples):
        own = {anchor, *(p for a, p, _ in triples if a == anchor)} - {positive}
        wanted = [candidate in own for candidate in candidates]
        assert ranking.masked[number].tolist() == wanted
        assert candidates[int(ranking.positives[number])] == positive


def test_the_same_text_twice_is_no_negative_in_simcse():
    rows = np.arange(6)
    ranking = Ranking.among(rows[:3], rows[3:], rows[:0], texts=np.array([0, 1, 0, 0, 1, 0]))
    assert ranking.masked.tolist() == [[False, False, True], [False] * 3, [True, False, False]]


def test_a_masked_candidate_changes_neither_loss_nor_gradient():
    embeddings = leaves(3, 2, 4)
    anchors, candidates = embeddings[:2], embeddings[2:]
    masked = torch.zeros(2, 4, dtype=torch.bool)
    masked[:, 3] = True
    whole = losses.multiple_negatives(anchors, candidates, torch.arange(2), masked)
    without = losses.multiple_negatives(anchors, candidates[:3], torch.arange(2))
    compare(whole, without, embeddings, embeddings)
