"""The matches of two models: recorded, projected, summed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from zhbert.config import DistillSettings, Match
from zhbert.distill.losses import MATCH_LOSSES, Features
from zhbert.distill.matcher import Projections, match_counts, match_sums
from zhbert.distill.matching import MatchPlan, plan_matches
from zhbert.model.attention import RowLayout
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertModel
from zhbert.model.recording import Recording, recording
from zhbert.packing import PackedBatch, pack_rows

STUDENT = BertConfig(
    vocab_size=50, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, initializer_range=0.3
)
TEACHERS = [
    BertConfig(
        vocab_size=50, hidden_size=width, num_hidden_layers=4, num_attention_heads=2,
        initializer_range=0.3,
    )
    for width in (12, 8)
]  # fmt: skip
MATCHES = (
    Match(loss="hidden_mse", projection="tanh"),
    Match(loss="hidden_mse", student=(0,), of_teacher=2),
    Match(loss="fsp"),
    Match(loss="attention_mse"),
    Match(loss="relations", heads=4),
)
LENGTHS = [5, 2, 9]


@pytest.fixture(scope="module")
def student() -> BertModel:
    return BertModel(STUDENT, seed=1).eval()


@pytest.fixture(scope="module")
def teachers() -> list[BertModel]:
    return [BertModel(config, seed=2 + n).eval() for n, config in enumerate(TEACHERS)]


@pytest.fixture(scope="module")
def plan() -> MatchPlan:
    return plan_matches(DistillSettings(matches=MATCHES), STUDENT, TEACHERS)


def batch_of(lengths: list[int], seed: int = 0) -> PackedBatch:
    pieces = np.random.default_rng(seed).integers(0, 50, sum(LENGTHS))
    return pack_rows(pieces[: sum(lengths)], np.array(lengths))


def record(
    plan: MatchPlan, student: BertModel, teachers: list[BertModel], batch: PackedBatch
) -> tuple[Recording, list[Recording]]:
    with recording(student.encoder, *plan.student) as own:
        student.encoder(batch)
    theirs = []
    for number, teacher in enumerate(teachers):
        with torch.no_grad(), recording(teacher.encoder, *plan.teacher(number)) as kept:
            teacher.encoder(batch)
        theirs.append(kept)
    return own, theirs


def sums(
    plan: MatchPlan,
    projections: Projections,
    student: BertModel,
    teachers: list[BertModel],
    batch: PackedBatch,
) -> Tensor:
    own, theirs = record(plan, student, teachers, batch)
    return match_sums(plan, projections, own, theirs, RowLayout.of_batch(batch))


def test_each_match_is_the_sum_of_its_layers_losses(
    plan: MatchPlan, student: BertModel, teachers: list[BertModel]
) -> None:
    batch, projections = batch_of(LENGTHS), Projections(plan, seed=3)
    own, theirs = record(plan, student, teachers, batch)
    layout = RowLayout.of_batch(batch)
    found = match_sums(plan, projections, own, theirs, layout)
    mapped = [
        torch.tanh(one(own.states[layer]))
        for one, layer in zip(projections.maps["hidden_mse"], (1, 2), strict=True)
    ]
    squares = [
        MATCH_LOSSES["hidden_mse"].sum(Features((x,)), Features((theirs[0].states[layer],)), layout)
        for x, layer in zip(mapped, (2, 4), strict=True)
    ]
    torch.testing.assert_close(found[0], squares[0] + squares[1])
    torch.testing.assert_close(found[1], (own.states[0] - theirs[1].states[0]).pow(2).mean(1).sum())
    pair = tuple(projections.maps["fsp"][0](own.states[layer]) for layer in (0, 2))
    target = tuple(theirs[0].states[layer] for layer in (0, 4))
    torch.testing.assert_close(
        found[2], MATCH_LOSSES["fsp"].sum(Features(pair), Features(target), layout)
    )
    relations = [Features(one.chunk(3, 1), 4) for one in (own.qkv[2], theirs[0].qkv[4])]
    torch.testing.assert_close(found[4], MATCH_LOSSES["relations"].sum(*relations, layout))


def test_student_and_projections_learn_and_teachers_do_not(
    plan: MatchPlan, student: BertModel, teachers: list[BertModel]
) -> None:
    projections = Projections(plan, seed=3)
    for number in range(len(MATCHES)):
        loss = sums(plan, projections, student, teachers, batch_of(LENGTHS))[number]
        words = student.encoder.embeddings.words.weight
        (gradient,) = torch.autograd.grad(loss, words)
        assert gradient.abs().sum() > 0
    sums(plan, projections, student, teachers, batch_of(LENGTHS)).sum().backward()
    assert all(x.grad is not None and x.grad.abs().sum() > 0 for x in projections.parameters())
    assert all(x.grad is None for teacher in teachers for x in teacher.parameters())


def test_sums_and_counts_of_micro_batches_add_up(
    plan: MatchPlan, student: BertModel, teachers: list[BertModel]
) -> None:
    projections, whole = Projections(plan, seed=3), batch_of(LENGTHS)
    pieces = whole.input_ids.numpy()
    parts = [
        pack_rows(pieces[: sum(LENGTHS[:2])], np.array(LENGTHS[:2])),
        pack_rows(pieces[sum(LENGTHS[:2]) :], np.array(LENGTHS[2:])),
    ]
    found = [sums(plan, projections, student, teachers, part) for part in parts]
    torch.testing.assert_close(
        found[0] + found[1], sums(plan, projections, student, teachers, whole)
    )
    counts = zip(*(match_counts(plan, part) for part in parts), strict=True)
    assert tuple(map(sum, counts)) == match_counts(plan, whole) == (16, 16, 3, 25 + 4 + 81, 16)


def test_projections_are_drawn_from_a_seed(plan: MatchPlan) -> None:
    found, other = Projections(plan, seed=3), Projections(plan, seed=4)
    assert {name: tuple(x.shape) for name, x in found.named_parameters()} == {
        "maps.hidden_mse.0.weight": (12, 8),
        "maps.hidden_mse.0.bias": (12,),
        "maps.hidden_mse.1.weight": (12, 8),
        "maps.hidden_mse.1.bias": (12,),
        "maps.fsp.0.weight": (12, 8),
        "maps.fsp.0.bias": (12,),
    }
    again = Projections(plan, seed=3).state_dict()
    assert all(torch.equal(x, again[name]) for name, x in found.state_dict().items())
    assert not torch.equal(found.maps["fsp"][0].weight, other.maps["fsp"][0].weight)
    assert not any(x.any() for name, x in found.named_parameters() if name.endswith("bias"))


def test_projections_are_as_small_as_textbrewers() -> None:
    wide = [BertConfig(hidden_size=width, num_attention_heads=4) for width in (256, 512)]
    plan = plan_matches(DistillSettings(matches=(Match(student=(1,)),)), wide[0], wide[1:])
    weight = Projections(plan, seed=0).maps["hidden_mse"][0].weight
    assert abs(weight.std().item() - 0.02) < 0.0005
    assert abs(weight.mean().item()) < 0.0005


def test_no_match_is_an_empty_sum(student: BertModel) -> None:
    plan, batch = MatchPlan(), batch_of(LENGTHS)
    assert sums(plan, Projections(plan, seed=0), student, [], batch).shape == (0,)
    assert match_counts(plan, batch) == ()


@pytest.mark.parametrize("loss", MATCH_LOSSES)
def test_every_loss_is_computed_under_autocast(loss: str, student: BertModel) -> None:
    plan = plan_matches(DistillSettings(matches=(Match(loss=loss),)), STUDENT, TEACHERS[:1])
    projections, teacher = Projections(plan, seed=3), BertModel(TEACHERS[0], seed=2).eval()
    exact = sums(plan, projections, student, [teacher], batch_of(LENGTHS))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sums(plan, projections, student, [teacher], batch_of(LENGTHS))
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, exact, rtol=0.1, atol=0)
