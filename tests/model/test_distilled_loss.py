"""Hard and soft labels from one product, against autograd and TextBrewer's losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.nn import functional

from zhbert.model import distilled_loss
from zhbert.model.config import BertConfig
from zhbert.model.distilled_loss import BestPieces, best_pieces, distilled_cross_entropy
from zhbert.model.heads import MaskedLMHead
from zhbert.model.loss import CandidateSampler, vocabulary_cross_entropy

POSITIONS, VOCABULARY, WIDTH = 37, 300, 16


@pytest.fixture(autouse=True)
def several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(distilled_loss._ROWS, "cpu", 8)
    monkeypatch.setattr(distilled_loss, "_COLUMNS", 16)


def case(positions: int = POSITIONS, dtype: torch.dtype = torch.float32) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(positions)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=dtype)

    hidden, weight, bias = normal(positions, WIDTH), normal(VOCABULARY, WIDTH), normal(VOCABULARY)
    labels = torch.randint(0, VOCABULARY, (positions,), generator=generator)
    best = functional.linear(hidden, weight, bias).argmax(1)
    labels[: positions // 2] = best[: positions // 2]
    return {
        **{"hidden": hidden, "weight": weight, "bias": bias, "labels": labels},
        "teacher": normal(positions, VOCABULARY) * 4,
    }


def leaves(values: dict[str, Any]) -> tuple[torch.Tensor, ...]:
    return tuple(values[name].requires_grad_() for name in ("hidden", "weight", "bias"))


def growing(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """A temperature that depends on both models' logits."""
    return 2 + student.softmax(1).amax(1) + teacher.softmax(1).amax(1)


TEMPERATURES: list[float | Callable[..., torch.Tensor]] = [1.0, 8.0, growing]


def slow_soft(
    student: torch.Tensor, teacher: torch.Tensor, kind: str, temperature: Any
) -> torch.Tensor:
    """The definition, position by position."""
    if callable(temperature):
        temperatures = temperature(student.detach(), teacher)
    else:
        temperatures = torch.full((len(student),), temperature, dtype=student.dtype)
    losses = []
    for z, t, degrees in zip(student, teacher, temperatures, strict=True):
        z, t = z / degrees, t / degrees
        if kind == "ce":
            losses.append(-(t.softmax(0) * z.log_softmax(0)).sum())
        else:
            losses.append(((z - t) ** 2).mean())
    return torch.stack(losses).sum()


def gradients(loss: torch.Tensor, of: tuple[torch.Tensor, ...]) -> list[torch.Tensor]:
    return [g.to_dense() for g in torch.autograd.grad(loss, of)]


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("kind", ["ce", "mse"])
@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-12)], ids=str
)
def test_losses_and_gradients_are_those_of_the_definition(
    kind: str, temperature: Any, reused: bool, dtype: torch.dtype, tolerance: float
) -> None:
    values = case(dtype=dtype)
    room = torch.full((POSITIONS * VOCABULARY + 5,), torch.nan, dtype=dtype)
    workspace = room if reused else None
    found = distilled_cross_entropy(
        **values, kind=kind, temperature=temperature, workspace=workspace
    )
    own = leaves(values)
    logits = functional.linear(*own)
    hard = functional.cross_entropy(logits, values["labels"], reduction="sum")
    soft = slow_soft(logits, values["teacher"], kind, temperature)
    torch.testing.assert_close(found[0], hard)
    torch.testing.assert_close(found[2], soft)
    assert found[1] == (logits.argmax(1) == values["labels"]).sum()

    found = distilled_cross_entropy(
        **values, kind=kind, temperature=temperature, workspace=workspace
    )
    for one, other in zip(
        gradients(found[0] / 3 + found[2] / 7, own),
        gradients(hard / 3 + soft / 7, own),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=10 * tolerance, atol=tolerance)


@pytest.mark.parametrize("temperature", TEMPERATURES)
@pytest.mark.parametrize("kind", ["ce", "mse"])
def test_over_best_pieces_both_distributions_are_renormalised(kind: str, temperature: Any) -> None:
    values = case()
    best = best_pieces(values["teacher"], 5)
    # A constant that is added to a row's logits changes nothing.
    shifted = BestPieces(best.pieces, best.logits - best.logits[:, :1])
    own = leaves(values)
    found = distilled_cross_entropy(
        **values | {"teacher": shifted}, kind=kind, temperature=temperature
    )
    logits = functional.linear(*own)
    student = logits.gather(1, best.pieces).log_softmax(1)
    hard = functional.cross_entropy(logits, values["labels"], reduction="sum")
    soft = slow_soft(student, best.logits.log_softmax(1), kind, temperature)
    torch.testing.assert_close(found[0], hard)
    torch.testing.assert_close(found[2], soft)
    for one, other in zip(
        gradients(found[0] / 3 + found[2] / 7, own),
        gradients(hard / 3 + soft / 7, own),
        strict=True,
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_best_pieces_go_with_a_sampled_softmax() -> None:
    values = case()
    best = best_pieces(values["teacher"], 5)
    candidates = CandidateSampler(torch.arange(VOCABULARY).numpy(), 40, 60).draw(seed=1)
    own = leaves(values)
    hard, _, soft = distilled_cross_entropy(
        **values | {"teacher": best}, temperature=2.0, candidates=candidates
    )
    expected, _ = vocabulary_cross_entropy(*own, values["labels"], None, candidates)
    assert torch.equal(hard, expected)
    exact = distilled_cross_entropy(**values | {"teacher": best}, temperature=2.0)
    assert torch.equal(soft, exact[2])
    assert all(g.isfinite().all() for g in gradients(hard + soft, own))


@pytest.mark.parametrize("of_best", [False, True])
@pytest.mark.parametrize("kind", ["ce", "mse"])
def test_half_precision_stays_near(kind: str, of_best: bool) -> None:
    values = case()
    values["teacher"] = values["teacher"].bfloat16()
    if of_best:
        values["teacher"] = best_pieces(values["teacher"], 5)
    own = leaves(values)
    again = dict(values)
    if not of_best:  # the gradient takes its place
        again["teacher"] = values["teacher"].clone()
    exact = distilled_cross_entropy(**again, kind=kind, temperature=4.0)
    expected = gradients(exact[0] + exact[2], own)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        near = distilled_cross_entropy(**values, kind=kind, temperature=4.0)
    assert near[0].dtype == near[2].dtype == torch.float32
    torch.testing.assert_close(near[0], exact[0], rtol=2e-3, atol=0)
    torch.testing.assert_close(near[2], exact[2], rtol=5e-3, atol=0)
    for one, other in zip(gradients(near[0] + near[2], own), expected, strict=True):
        assert (one - other).norm() < 0.02 * other.norm()


@pytest.mark.parametrize("of_best", [False, True])
def test_an_ignored_label_has_no_weight(of_best: bool) -> None:
    values = case()
    of = leaves(values)
    seen = torch.arange(POSITIONS) % 3 > 0

    def run(kept: torch.Tensor, labels: torch.Tensor) -> list[torch.Tensor]:
        teacher = values["teacher"][kept].clone()
        soft_labels = best_pieces(teacher, 9) if of_best else teacher
        found = distilled_cross_entropy(of[0][kept], *of[1:], labels, soft_labels)
        return [*found, *gradients(found[0] + 2 * found[2], of)]

    expected = run(seen, values["labels"][seen])
    everywhere = torch.ones_like(seen)
    for one, other in zip(
        run(everywhere, values["labels"].where(seen, -100)), expected, strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("of_best", [False, True])
def test_no_prediction_is_no_loss(half: bool, of_best: bool) -> None:
    values = case(0)
    if of_best:
        values["teacher"] = best_pieces(values["teacher"], 5)
    own = leaves(values)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
        hard, correct, soft = distilled_cross_entropy(**values)
    assert hard == soft == correct == 0
    assert all(not g.any() for g in gradients(hard + soft, own))


def test_a_gradient_after_the_next_forward_is_refused_not_wrong() -> None:
    values, workspace = case(), torch.empty(POSITIONS * VOCABULARY)
    leaves(values)
    first = distilled_cross_entropy(**values, workspace=workspace)
    distilled_cross_entropy(**values, workspace=workspace)
    with pytest.raises(RuntimeError, match="before the next forward"):
        first[0].backward()


def test_the_head_computes_the_loss_in_memory_that_it_keeps() -> None:
    config = BertConfig(vocab_size=VOCABULARY, hidden_size=WIDTH, num_attention_heads=2)
    head, values = MaskedLMHead(config), case()
    args = values["hidden"], values["weight"]
    teacher = head.scores(*args).clone() + 1
    assert torch.equal(head.scores(*args), head(*args).detach())
    assert head.scores(*args).data_ptr() == head.scores(*args).data_ptr()
    probabilities = (teacher / 2).softmax(1)
    best = head.best(*args, 5)
    assert torch.equal(best.pieces, head(*args).topk(5).indices)
    hard, _, soft = head.distilled_loss(*args, values["labels"], teacher, temperature=2.0)
    torch.testing.assert_close(hard, head.loss(*args, values["labels"])[0])
    # The entropy of its own distribution: the least that the loss of soft labels can be.
    torch.testing.assert_close(soft, -(probabilities * probabilities.log()).sum())


@pytest.mark.parametrize("k", [1, 3, 18, 19, 300])
@pytest.mark.parametrize("vocabulary", [300, 304])
def test_best_pieces_are_those_of_the_highest_logits(k: int, vocabulary: int) -> None:
    logits = torch.randn(50, vocabulary, generator=torch.Generator().manual_seed(k))
    found, expected = best_pieces(logits, k), logits.topk(k)
    assert torch.equal(found.pieces, expected.indices)
    assert torch.equal(found.logits, expected.values)


@pytest.mark.parametrize("of_best", [False, True])
@pytest.mark.parametrize("temperature", [1.0, 8.0, "flsw", "cwsm"])
@pytest.mark.parametrize("kind", ["ce", "mse"])
def test_soft_labels_equal_textbrewers(kind: str, temperature: Any, of_best: bool) -> None:
    reason = "this machine has no TextBrewer"
    losses = pytest.importorskip("textbrewer.losses", reason=reason)
    presets = pytest.importorskip("textbrewer.presets", reason=reason)
    arguments = {"flsw": ("flsw", 1, 2), "cwsm": ("cwsm", 1)}.get(temperature)
    degrees: Any = temperature
    if arguments:
        made = presets.TEMPERATURE_SCHEDULER[arguments]
        degrees = lambda student, teacher: made(student, teacher, 4.0)  # noqa: E731
    values = case()
    student = functional.linear(values["hidden"], values["weight"], values["bias"])
    teacher = values["teacher"]
    if of_best:
        best = values["teacher"] = best_pieces(teacher, 5)
        student = student.gather(1, best.pieces).log_softmax(1)
        teacher = best.logits.log_softmax(1)
    at = degrees(student, teacher) if callable(degrees) else degrees
    expected = getattr(losses, f"kd_{kind}_loss")(student, teacher, at)
    _, _, soft = distilled_cross_entropy(**values, kind=kind, temperature=degrees)
    torch.testing.assert_close(soft / POSITIONS, expected)
