"""The losses between layers against slow versions written row by row, and against TextBrewer."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from zhbert.config import MATCH_NAMES
from zhbert.distill import losses
from zhbert.distill.losses import MATCH_LOSSES, Features, MatchLoss
from zhbert.distill.matching import NEEDS
from zhbert.model.attention import RowLayout

LENGTHS = [3, 6, 1, 4]
rows_of_any_length = st.lists(st.integers(1, 7), min_size=1, max_size=5)


class Shape(NamedTuple):
    """How many tensors a loss gets of each model, and their widths and heads."""

    tensors: int
    widths: tuple[int, int]
    heads: tuple[int, int] = (1, 1)


SHAPES = {
    "hidden_mse": Shape(1, (6, 6)),
    "cos": Shape(1, (6, 6)),
    "pkd": Shape(1, (6, 6)),
    "fsp": Shape(2, (6, 6)),
    "nst": Shape(2, (4, 6)),
    "attention_mse": Shape(3, (4, 6), (2, 2)),
    "attention_mse_sum": Shape(3, (4, 6), (2, 3)),
    "attention_ce": Shape(3, (4, 6), (2, 2)),
    "attention_ce_mean": Shape(3, (4, 6), (2, 3)),
    "relations": Shape(3, (8, 12), (4, 4)),
}


def layout_of(lengths: list[int]) -> RowLayout:
    starts = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32)
    return RowLayout.of(starts, max(lengths), sum(lengths))


def features(
    shape: Shape, lengths: list[int], seed: int = 1, dtype: torch.dtype = torch.float64
) -> tuple[Features, Features]:
    """Random features of student and teacher; the student's have gradients."""
    rng = np.random.default_rng(seed)
    student, teacher = (
        Features(
            tuple(
                torch.from_numpy(rng.normal(size=(sum(lengths), width))).to(dtype)
                for _ in range(shape.tensors)
            ),
            heads,
        )
        for width, heads in zip(shape.widths, shape.heads, strict=True)
    )
    for tensor in student.tensors:
        tensor.requires_grad_()
    return student, teacher


# The slow versions: of one row, whose tensors are (length, width).


def by_head(x: Tensor, heads: int) -> list[Tensor]:
    return list(x.chunk(heads, dim=1))


def scores(one: Features) -> Tensor:
    """(heads, length, length)"""
    queries, keys = (by_head(x, one.heads) for x in one.tensors[:2])
    size = queries[0].shape[1]
    return torch.stack([q @ k.T / math.sqrt(size) for q, k in zip(queries, keys, strict=True)])


def cross_entropy(own: Tensor, theirs: Tensor) -> Tensor:
    return -(theirs.softmax(-1) * own.softmax(-1).log()).sum(-1)


def slow_relations(s: Features, t: Features) -> Tensor:
    total = torch.zeros((), dtype=torch.float64)
    for own, theirs in zip(s.tensors, t.tensors, strict=True):
        for x, y in zip(by_head(own, s.heads), by_head(theirs, t.heads), strict=True):
            for piece in range(len(x)):
                p = (y[piece] @ y.T / math.sqrt(y.shape[1])).softmax(-1)
                q = (x[piece] @ x.T / math.sqrt(x.shape[1])).softmax(-1)
                total = total + (p * (p / q).log()).sum() / s.heads
    return total


def slow_pkd(s: Features, t: Features) -> Tensor:
    own, theirs = s.tensors[0][0], t.tensors[0][0]
    return (own / own.norm() - theirs / theirs.norm()).pow(2).sum()


def slow_cos(s: Features, t: Features) -> Tensor:
    own, theirs = s.tensors[0], t.tensors[0]
    return (1 - (own * theirs).sum(1) / own.norm(dim=1) / theirs.norm(dim=1)).sum()


def gram(one: Features) -> Tensor:
    return one.tensors[0].T @ one.tensors[1] / len(one.tensors[0])


def similarities(one: Features) -> Tensor:
    return one.tensors[0] @ one.tensors[1].T / one.tensors[0].shape[1]


SLOW: dict[str, Callable[[Features, Features], Tensor]] = {
    "hidden_mse": lambda s, t: (s.tensors[0] - t.tensors[0]).pow(2).mean(1).sum(),
    "cos": slow_cos,
    "pkd": slow_pkd,
    "fsp": lambda s, t: (gram(s) - gram(t)).pow(2).mean(),
    "nst": lambda s, t: (similarities(s) - similarities(t)).pow(2).sum(),
    "attention_mse": lambda s, t: (scores(s) - scores(t)).pow(2).mean(0).sum(),
    "attention_mse_sum": lambda s, t: (scores(s).sum(0) - scores(t).sum(0)).pow(2).sum(),
    "attention_ce": lambda s, t: cross_entropy(scores(s), scores(t)).mean(0).sum(),
    "attention_ce_mean": lambda s, t: cross_entropy(scores(s).mean(0), scores(t).mean(0)).sum(),
    "relations": slow_relations,
}


def rows_of(one: Features, lengths: list[int]) -> list[Features]:
    split = zip(*(tensor.split(lengths) for tensor in one.tensors), strict=True)
    return [Features(tensors, one.heads) for tensors in split]


def slowly(name: str, student: Features, teacher: Features, lengths: list[int]) -> Tensor:
    pairs = zip(rows_of(student, lengths), rows_of(teacher, lengths), strict=True)
    return torch.stack([SLOW[name](own, theirs) for own, theirs in pairs]).sum()


def gradients(loss: Tensor, student: Features) -> list[Tensor]:
    found = torch.autograd.grad(loss, student.tensors, allow_unused=True)
    return [
        torch.zeros_like(x) if gradient is None else gradient
        for x, gradient in zip(student.tensors, found, strict=True)
    ]


def test_every_loss_has_a_plan_a_name_and_a_slow_version() -> None:
    assert set(MATCH_LOSSES) == set(NEEDS) == set(MATCH_NAMES) == set(SLOW) == set(SHAPES)


@pytest.mark.parametrize("name", MATCH_LOSSES)
@given(
    lengths=rows_of_any_length,
    seed=st.integers(0, 1000),
    at_once=st.sampled_from([1, 300, 1 << 16]),
)
def test_the_sum_and_its_gradients_equal_the_slow_ones(
    name: str, lengths: list[int], seed: int, at_once: int
) -> None:
    student, teacher = features(SHAPES[name], lengths, seed)
    with mock.patch.dict(losses._AT_ONCE, cpu=at_once):
        found = MATCH_LOSSES[name].sum(student, teacher, layout_of(lengths))
    expected = slowly(name, student, teacher, lengths)
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)
    # Three times, as a weight of the loss would have it.
    gradient_pairs = zip(
        gradients(3 * found, student), gradients(3 * expected, student), strict=True
    )
    for one, other in gradient_pairs:
        torch.testing.assert_close(one, other, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize("name", MATCH_LOSSES)
def test_the_sum_is_the_same_without_gradients(name: str) -> None:
    student, teacher = features(SHAPES[name], LENGTHS)
    found = MATCH_LOSSES[name].sum(student, teacher, layout_of(LENGTHS))
    with torch.no_grad():
        other = MATCH_LOSSES[name].sum(student, teacher, layout_of(LENGTHS))
    assert not other.requires_grad
    torch.testing.assert_close(other, found.detach())


@pytest.mark.parametrize("name", MATCH_LOSSES)
def test_sums_and_counts_of_micro_batches_add_up(name: str) -> None:
    loss, (student, teacher) = MATCH_LOSSES[name], features(SHAPES[name], LENGTHS)
    whole = loss.sum(student, teacher, layout_of(LENGTHS))
    parts, start = [], 0
    for lengths in (LENGTHS[:1], LENGTHS[1:]):
        here = slice(start, start + sum(lengths))
        start = here.stop
        own, theirs = (
            one._replace(tensors=tuple(x[here] for x in one.tensors)) for one in (student, teacher)
        )
        parts.append(loss.sum(own, theirs, layout_of(lengths)))
    torch.testing.assert_close(parts[0] + parts[1], whole)
    counts = [loss.count(np.array(lengths)) for lengths in (LENGTHS[:1], LENGTHS[1:], LENGTHS)]
    assert counts[0] + counts[1] == counts[2]


@pytest.mark.parametrize("name", MATCH_LOSSES)
def test_a_student_that_equals_its_teacher_learns_nothing(name: str) -> None:
    shape = SHAPES[name]._replace(widths=(12, 12), heads=(2, 2))
    student, _ = features(shape, LENGTHS)
    teacher = student._replace(tensors=tuple(x.detach() for x in student.tensors))
    loss = MATCH_LOSSES[name].sum(student, teacher, layout_of(LENGTHS))
    assert all(float(x.abs().max()) < 1e-12 for x in gradients(loss, student))
    # What is left of a cross entropy is the entropy of the teacher's attention.
    assert "_ce" in name or abs(loss.item()) < 1e-12


@pytest.mark.parametrize("name", MATCH_LOSSES)
@pytest.mark.parametrize("autocast", [False, True])
def test_half_precision_stays_near_and_sums_in_float32(name: str, autocast: bool) -> None:
    lengths = [5, 40, 33, 64]
    shape = SHAPES[name]._replace(widths=tuple(16 * width for width in SHAPES[name].widths))
    student, teacher = features(shape, lengths, dtype=torch.bfloat16)
    exact = [
        one._replace(tensors=tuple(x.detach().double() for x in one.tensors))
        for one in (student, teacher)
    ]
    expected = slowly(name, *exact, lengths)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        found = MATCH_LOSSES[name].sum(student, teacher, layout_of(lengths))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found.double(), expected, rtol=0.01, atol=0)
    assert all(x.isfinite().all() for x in gradients(found, student))


# TextBrewer's functions get padded rows with a mask.


def padded(x: Tensor, lengths: list[int]) -> Tensor:
    return torch.nn.utils.rnn.pad_sequence(x.split(lengths), batch_first=True)


def padded_scores(one: Features, mask: Tensor, lengths: list[int]) -> Tensor:
    """The scores before the softmax as a model with a mask has them: very low at padding."""
    queries, keys = (
        padded(x, lengths).unflatten(2, (one.heads, -1)).transpose(1, 2) for x in one.tensors[:2]
    )
    products = queries @ keys.transpose(2, 3) / math.sqrt(queries.shape[-1])
    return products - 1e4 * (1 - mask[:, None, None, :])


def as_textbrewer(name: str, one: Features, mask: Tensor, lengths: list[int]) -> Any:
    if name.startswith("attention"):
        return padded_scores(one, mask, lengths)
    states = [padded(x, lengths) for x in one.tensors]
    return states if len(states) == 2 else states[0]


@pytest.mark.parametrize("name", [name for name in MATCH_LOSSES if name != "relations"])
def test_the_mean_and_its_gradients_equal_textbrewers(name: str, textbrewer: Any) -> None:
    shape, loss = SHAPES[name], MATCH_LOSSES[name]
    if name == "nst":
        # With a mask it divides by the padded length in place of the width: here both are 6.
        shape = shape._replace(widths=(6, 6))
    student, teacher = features(shape, LENGTHS)
    mask = padded(torch.ones(sum(LENGTHS), dtype=torch.float64), LENGTHS)
    own, theirs = (as_textbrewer(name, one, mask, LENGTHS) for one in (student, teacher))
    expected = textbrewer.presets.MATCH_LOSS_MAP[name](own, theirs, mask=mask)
    found = loss.sum(student, teacher, layout_of(LENGTHS)) / loss.count(np.array(LENGTHS))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    for one, other in zip(gradients(found, student), gradients(expected, student), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_nst_equals_textbrewers_of_other_widths_without_a_mask(textbrewer: Any) -> None:
    loss: MatchLoss = MATCH_LOSSES["nst"]
    student, teacher = features(SHAPES["nst"], [5, 5])
    own, theirs = ([padded(x, [5, 5]) for x in one.tensors] for one in (student, teacher))
    expected = textbrewer.losses.mmd_loss(own, theirs)
    found = loss.sum(student, teacher, layout_of([5, 5])) / loss.count(np.array([5, 5]))
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
