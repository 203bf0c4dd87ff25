"""The blocked cross entropy against PyTorch's own."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional

from zhbert.model import loss as loss_module
from zhbert.model.loss import Candidates, CandidateSampler, vocabulary_cross_entropy, walk_block


def _case(positions: int, vocabulary: int, scale: float) -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(positions)
    hidden = torch.randn(positions, 16, generator=generator)
    weight = torch.randn(vocabulary, 16, generator=generator) * scale
    bias = torch.randn(vocabulary, generator=generator)
    labels = torch.randint(0, vocabulary, (positions,), generator=generator)
    best = functional.linear(hidden, weight, bias).argmax(1)
    labels[: positions // 2] = best[: positions // 2]
    leaves = (hidden, weight, bias)
    return (*(x.requires_grad_() for x in leaves), labels)


@pytest.mark.parametrize("scale", [0.02, 1.0, 30.0])
@pytest.mark.parametrize(("positions", "vocabulary"), [(1, 7), (13, 64), (20, 1000)])
@pytest.mark.parametrize("workspace", [None, 20 * 1000])
def test_loss_and_gradients_equal_pytorchs(
    monkeypatch: pytest.MonkeyPatch,
    positions: int,
    vocabulary: int,
    scale: float,
    workspace: int | None,
) -> None:
    monkeypatch.setitem(loss_module._COLUMNS, "cpu", 64)
    *leaves, labels = _case(positions, vocabulary, scale)
    logits = functional.linear(*leaves)
    expected = functional.cross_entropy(logits, labels, reduction="sum")
    (expected / 3).backward()
    gradients = [x.grad for x in leaves]
    for x in leaves:
        x.grad = None
    room = None if workspace is None else torch.empty(workspace)
    found, correct = vocabulary_cross_entropy(*leaves, labels, room)
    (found / 3).backward()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
    assert correct == (logits.argmax(1) == labels).sum()
    for x, gradient in zip(leaves, gradients, strict=True):
        torch.testing.assert_close(x.grad, gradient, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("half", [False, True])
def test_no_prediction_is_no_loss(half: bool) -> None:
    hidden, weight, bias, labels = _case(2, 9, 1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        states = functional.linear(hidden, torch.eye(16))  # in bfloat16 under autocast
        loss, correct = vocabulary_cross_entropy(states[:0], weight, bias, labels[:0])
    loss.backward()
    assert loss.dtype == torch.float32
    assert loss == 0
    assert correct == 0
    assert all(torch.equal(x.grad, torch.zeros_like(x)) for x in (hidden, weight, bias))


def test_without_gradients_the_loss_is_the_same() -> None:
    hidden, weight, bias, labels = _case(20, 1000, 1.0)
    with torch.no_grad():
        assert (
            vocabulary_cross_entropy(hidden, weight, bias, labels)[0]
            == (vocabulary_cross_entropy(hidden, weight, bias, labels)[0])
        )


def test_half_precision_stays_near() -> None:
    *leaves, labels = _case(64, 1000, 0.3)
    exact, _ = vocabulary_cross_entropy(*leaves, labels)
    exact.backward()
    gradients = [x.grad for x in leaves]
    for x in leaves:
        x.grad = None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near, _ = vocabulary_cross_entropy(*leaves, labels)
    near.backward()
    assert near.item() == pytest.approx(exact.item(), rel=2e-3)
    for x, gradient in zip(leaves, gradients, strict=True):
        assert (x.grad - gradient).norm() < 0.02 * gradient.norm()


# --- Over candidates


# PyTorch's compiler warns of its own insides.
@pytest.mark.filterwarnings("ignore")
def test_compiled_blocks_give_the_same_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(loss_module._COLUMNS, "cpu", 64)
    *leaves, labels = _case(20, 300, 1.0)
    compiled = torch.compile(walk_block, dynamic=True, fullgraph=True, backend="aot_eager")
    found = []
    for walk in (walk_block, compiled):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss, correct = vocabulary_cross_entropy(*leaves, labels, walk=walk)
        found.append([loss, correct, *torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(*found, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampled", [False, True])
def test_an_ignored_label_has_no_weight(sampled: bool) -> None:
    *leaves, labels = _case(20, 300, 1.0)
    candidates = _candidates(300, 40, 150) if sampled else None
    seen = torch.arange(20) % 3 > 0

    def run(hidden: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
        found = vocabulary_cross_entropy(hidden, *leaves[1:], labels, candidates=candidates)
        return [*found, *(g.to_dense() for g in torch.autograd.grad(found[0], leaves))]

    expected = run(leaves[0][seen], labels[seen])
    for one, other in zip(run(leaves[0], labels.where(seen, -100)), expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def _candidates(vocabulary: int, frequent: int, sampled: int, seed: int = 3) -> Candidates:
    counts = np.random.default_rng(vocabulary).permutation(vocabulary)
    return CandidateSampler(counts, frequent, sampled).draw(seed)


def _plain(
    hidden: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    labels: torch.Tensor,
    candidates: Candidates,
) -> torch.Tensor:
    """The definition, position by position: own exponential, and weighted ones of the others."""
    losses = []
    for vector, label in zip(hidden, labels.tolist(), strict=True):
        logits = weight @ vector + bias
        denominator = logits[label].exp()
        weights = candidates.log_weights.exp().tolist()
        for piece, times in zip(candidates.pieces.tolist(), weights, strict=True):
            if piece != label:
                denominator = denominator + times * logits[piece].exp()
        losses.append(denominator.log() - logits[label])
    return torch.stack(losses).sum()


def _labels_of_all_kinds(candidates: Candidates, vocabulary: int, count: int) -> torch.Tensor:
    """Frequent, sampled and other pieces, and each of them more than once."""
    pieces = candidates.pieces.tolist()
    others = sorted(set(range(vocabulary)) - set(pieces))
    kinds = [pieces[0], pieces[-1], others[0], others[-1], pieces[0], pieces[-1], others[0]]
    return torch.tensor((kinds * count)[:count])


@pytest.mark.parametrize(("half", "tolerance"), [(False, 1e-5), (True, 0.02)])
@pytest.mark.parametrize(("vocabulary", "frequent", "sampled"), [(64, 9, 20), (300, 40, 150)])
@pytest.mark.parametrize("workspace", [None, 20 * 300])
def test_over_candidates_loss_and_gradients_are_those_of_the_definition(
    monkeypatch: pytest.MonkeyPatch,
    vocabulary: int,
    frequent: int,
    sampled: int,
    half: bool,
    tolerance: float,
    workspace: int | None,
) -> None:
    monkeypatch.setitem(loss_module._COLUMNS, "cpu", 64)
    *leaves, _ = _case(14, vocabulary, 0.3)
    candidates = _candidates(vocabulary, frequent, sampled)
    labels = _labels_of_all_kinds(candidates, vocabulary, 14)
    exact = [x.detach().double().requires_grad_() for x in leaves]
    expected = _plain(*exact, labels, candidates)
    (expected / 3).backward()
    dtype = torch.bfloat16 if half else torch.float32
    room = None if workspace is None else torch.empty(workspace, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        found, _ = vocabulary_cross_entropy(*leaves, labels, room, candidates)
    (found / 3).backward()
    assert found.item() == pytest.approx(expected.item(), rel=tolerance / 5)
    for x, true in zip(leaves, exact, strict=True):
        gradient = x.grad.to_dense().double()
        assert (gradient - true.grad).norm() < tolerance * true.grad.norm()


@pytest.mark.parametrize(("frequent", "sampled"), [(6, 1), (1, 6), (3, 100), (7, 1), (90, 5)])
def test_with_all_pieces_as_candidates_the_softmax_is_the_exact_one(
    frequent: int, sampled: int
) -> None:
    *leaves, labels = _case(12, 7, 1.0)
    candidates = _candidates(7, frequent, sampled)
    assert sorted(candidates.pieces.tolist()) == list(range(7))
    expected = functional.cross_entropy(functional.linear(*leaves), labels, reduction="sum")
    gradients = torch.autograd.grad(expected, leaves)
    found, _ = vocabulary_cross_entropy(*leaves, labels, None, candidates)
    found.backward()
    torch.testing.assert_close(found, expected)
    for x, gradient in zip(leaves, gradients, strict=True):
        torch.testing.assert_close(x.grad.to_dense(), gradient, rtol=1e-4, atol=1e-5)


def test_one_candidate_that_is_every_label_leaves_no_loss() -> None:
    hidden, weight, bias, _ = _case(3, 9, 1.0)
    candidates = Candidates(torch.tensor([4]), torch.zeros(1))
    loss, _ = vocabulary_cross_entropy(hidden, weight, bias, torch.full((3,), 4), None, candidates)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert hidden.grad.abs().max() < 1e-6


def test_without_predictions_candidates_leave_a_gradient_of_zero_everywhere() -> None:
    hidden, weight, bias, labels = _case(2, 9, 1.0)
    candidates = _candidates(9, 2, 3)
    loss, _ = vocabulary_cross_entropy(hidden[:0], weight, bias, labels[:0], None, candidates)
    loss.backward()
    assert loss == 0
    assert all(torch.equal(x.grad, torch.zeros_like(x)) for x in (hidden, weight, bias))


def test_the_estimate_of_the_normaliser_is_right_on_average() -> None:
    """For a label among the frequent pieces, and for one among the others."""
    hidden, weight, bias, _ = (x.detach() for x in _case(1, 200, 0.5))
    counts = np.arange(200)[::-1]
    sampler = CandidateSampler(counts, 20, 45)
    logits = functional.linear(hidden, weight, bias)[0]
    for label in (3, 150):
        estimates = []
        for seed in range(1500):
            loss, _ = vocabulary_cross_entropy(
                hidden, weight, bias, torch.tensor([label]), None, sampler.draw(seed)
            )
            estimates.append((loss + logits[label]).exp().item())
        error = np.std(estimates) / np.sqrt(len(estimates))
        assert error > 0
        assert abs(np.mean(estimates) - logits.exp().sum().item()) < 4 * error


@given(
    vocabulary=st.integers(1, 60),
    frequent=st.integers(1, 70),
    sampled=st.integers(1, 70),
    seed=st.integers(0, 2**63 - 1),
)
def test_candidates_are_the_frequent_pieces_and_different_others_that_stand_for_the_rest(
    vocabulary: int, frequent: int, sampled: int, seed: int
) -> None:
    counts = np.random.default_rng(vocabulary).integers(0, 9, vocabulary)
    sampler = CandidateSampler(counts, frequent, sampled)
    drawn = sampler.draw(seed)
    pieces, weights = drawn.pieces.tolist(), drawn.log_weights.exp()
    assert len(set(pieces)) == len(pieces) == min(vocabulary, frequent + sampled)
    always, others = pieces[:frequent], pieces[frequent:]
    assert min(counts[always]) >= max(
        counts[sorted(set(range(vocabulary)) - set(always))], default=0
    )
    assert torch.equal(weights[:frequent], torch.ones(len(always)))
    # All weights together count every piece once.
    assert weights.sum().item() == pytest.approx(vocabulary, rel=1e-5)
    assert bool(others) == (frequent < vocabulary)
    sampler.draw(seed // 2)
    again = CandidateSampler(counts, frequent, sampled).draw(seed)
    assert torch.equal(again.pieces, sampler.draw(seed).pieces)
    assert torch.equal(again.log_weights, drawn.log_weights)


def test_every_other_piece_is_drawn_equally_often() -> None:
    sampler = CandidateSampler(np.arange(50)[::-1], 10, 8)
    drawn = np.concatenate([sampler.draw(seed).pieces[10:].numpy() for seed in range(2000)])
    times = np.bincount(drawn, minlength=50)
    assert not times[:10].any()
    # 400 each; a piece five standard deviations off would be no chance.
    assert np.abs(times[10:] - 400).max() < 5 * np.sqrt(400 * 0.8)
