"""The optimisers against slow and plain ones, and their state."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch

from zhbert.errors import ZhbertError
from zhbert.train.optim import AdamW, Lamb, Muon, global_norm, orthogonalized, schedule

KINDS = [AdamW, Lamb, partial(Muon, matrices={"dense.weight": 1})]

SHAPES = {
    "embedding.weight": (50, 8),
    "dense.weight": (8, 8),
    "dense.bias": (8,),
    "LayerNorm.weight": (8,),
}


def parameters(seed=0):
    rng = torch.Generator().manual_seed(seed)
    return {k: torch.nn.Parameter(torch.randn(v, generator=rng) * 0.1) for k, v in SHAPES.items()}


def gradients(step):
    rng = torch.Generator().manual_seed(100 + step)
    return {k: torch.randn(v, generator=rng) for k, v in SHAPES.items()}


def run(kind, steps, named, optimizer=None, start=0, divisor=None):
    optimizer = optimizer or kind(named.items(), weight_decay=0.1)
    for step in range(start, steps):
        for name, gradient in gradients(step).items():
            named[name].grad = gradient
        optimizer.step(0.01 * (step + 1), divisor)
    return optimizer


def plain_adamw(p, m, v, g, lr, decay, step):
    for i in range(len(p)):
        m[i] = 0.9 * m[i] + 0.1 * g[i]
        v[i] = 0.999 * v[i] + 0.001 * g[i] ** 2
        p[i] -= lr * (m[i] / (math.sqrt(v[i]) + 1e-6) + decay * p[i])


def plain_lamb(p, m, v, g, lr, decay, step):
    update = []
    for i in range(len(p)):
        m[i] = 0.9 * m[i] + 0.1 * g[i]
        v[i] = 0.999 * v[i] + 0.001 * g[i] ** 2
        m_hat, v_hat = m[i] / (1 - 0.9**step), v[i] / (1 - 0.999**step)
        update.append(m_hat / (math.sqrt(v_hat) + 1e-6) + decay * p[i])
    ratio = math.hypot(*p) / math.hypot(*update) if decay else 1.0
    for i in range(len(p)):
        p[i] -= lr * ratio * update[i]


@pytest.mark.parametrize(("kind", "plain"), [(AdamW, plain_adamw), (Lamb, plain_lamb)])
def test_five_steps_equal_a_plain_reference_in_double_precision(kind, plain):
    named = parameters()
    values = {k: p.detach().double().flatten().tolist() for k, p in named.items()}
    moments = {k: ([0.0] * len(v), [0.0] * len(v)) for k, v in values.items()}
    run(kind, 5, named, divisor=torch.tensor(2.0))
    for step in range(5):
        for name, gradient in gradients(step).items():
            decay = 0.1 if gradient.ndim > 1 else 0.0
            flat = (gradient / 2).flatten().tolist()
            plain(values[name], *moments[name], flat, 0.01 * (step + 1), decay, step + 1)
    for name, parameter in named.items():
        expected = torch.tensor(values[name]).view_as(parameter)
        torch.testing.assert_close(parameter.detach(), expected, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_saved_state_goes_on_exactly_in_any_order_of_parameters(kind):
    whole = parameters()
    run(kind, 6, whole)
    first = parameters()
    state = {k: v.clone() for k, v in run(kind, 3, first).state_dict().items()}
    second = {k: torch.nn.Parameter(first[k].detach().clone()) for k in reversed(SHAPES)}
    optimizer = kind(second.items(), weight_decay=0.1)
    optimizer.load_state_dict(state)
    run(kind, 6, second, optimizer, start=3)
    for name in SHAPES:
        assert torch.equal(whole[name], second[name])


@pytest.mark.parametrize("parts", [1, 3])
def test_muon_moves_matrices_as_pytorchs_own_does_each_part_apart(parts):
    rng = torch.Generator().manual_seed(0)
    fused = torch.nn.Parameter(torch.randn(parts * 8, 16, generator=rng))
    theirs = [torch.nn.Parameter(one.detach().clone()) for one in fused.chunk(parts)]
    other = torch.optim.Muon(
        theirs, lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"
    )
    optimizer = Muon([("fused", fused)], matrices={"fused": parts}, weight_decay=0.1)
    for _ in range(4):
        fused.grad = torch.randn(fused.shape, generator=rng)
        for one, gradient in zip(theirs, fused.grad.chunk(parts), strict=True):
            one.grad = gradient.clone()
        optimizer.step(0.01)
        other.step()
    torch.testing.assert_close(fused.detach(), torch.cat(theirs).detach(), rtol=0, atol=2e-4)


@pytest.mark.parametrize("shape", [(2, 16, 64), (2, 64, 16), (1, 32, 32)])
def test_orthogonalized_matrices_have_singular_values_of_about_one(shape):
    matrices = torch.randn(shape, generator=torch.Generator().manual_seed(0)) * 1e-3
    values = torch.linalg.svdvals(orthogonalized(matrices, torch.float32))
    assert float(values.min()) > 0.5
    assert float(values.max()) < 1.3


def test_state_of_another_shape_is_refused_by_name():
    named = parameters()
    state = AdamW(named.items()).state_dict()
    state["dense.bias.mean"] = torch.zeros(9)
    with pytest.raises(ZhbertError, match=r"\(9,\) for 'dense.bias.mean', the model \(8,\)"):
        AdamW(named.items()).load_state_dict(state)
    del state["dense.bias.mean"]
    with pytest.raises(ZhbertError, match=r"lacks 'dense.bias.mean'"):
        AdamW(named.items()).load_state_dict(state)


def test_a_parameter_without_gradient_is_left_alone():
    named = parameters()
    before = named["dense.weight"].detach().clone()
    optimizer = AdamW(named.items())
    named["dense.bias"].grad = torch.ones(8)
    optimizer.step(0.1)
    assert torch.equal(named["dense.weight"], before)


def test_global_norm_is_over_all_gradients():
    named = parameters()
    for name, gradient in gradients(0).items():
        named[name].grad = gradient
    everything = torch.cat([p.grad.flatten() for p in named.values()])
    torch.testing.assert_close(global_norm(named.values()), everything.norm())


def test_schedules_rise_to_the_peak_and_end_near_zero():
    for name, last in (
        ("linear", 0.1),
        ("cosine", (1 + math.cos(math.pi * 0.9)) / 2),
        ("constant", 1.0),
    ):
        rate = schedule(name, 2.0, warmup_steps=10, total_steps=20)
        assert rate(0) == pytest.approx(0.2)
        assert rate(9) == rate(10) == 2.0
        assert rate(19) == pytest.approx(2.0 * last)
    assert schedule("linear", 1.0, 100, 10)(9) == pytest.approx(0.1)


@pytest.mark.parametrize("kind", KINDS)
def test_an_update_by_tensors_is_that_by_numbers(kind):
    """So a GPU repeats a recorded update with other numbers."""
    usual, recorded = parameters(), parameters()
    run(kind, 3, usual, divisor=torch.tensor(2.0))
    optimizer = kind(recorded.items(), weight_decay=0.1)
    for step in range(3):
        for name, gradient in gradients(step).items():
            recorded[name].grad = gradient
        numbers = torch.tensor(optimizer.advance(0.01 * (step + 1)))
        optimizer.update(numbers.unbind(), torch.tensor(2.0))
    for name, parameter in usual.items():
        torch.testing.assert_close(recorded[name], parameter, rtol=1e-5, atol=1e-7)
