"""The blocked cross entropy against PyTorch's own."""

import pytest
import torch
from torch.nn import functional

from zhbert.model import loss as loss_module
from zhbert.model.loss import vocabulary_cross_entropy


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


def test_no_prediction_is_no_loss() -> None:
    hidden, weight, bias, labels = _case(2, 9, 1.0)
    loss, correct = vocabulary_cross_entropy(hidden[:0], weight, bias, labels[:0])
    loss.backward()
    assert loss == 0
    assert correct == 0
    assert torch.equal(weight.grad, torch.zeros_like(weight))


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
