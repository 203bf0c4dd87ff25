"""Soft labels and their temperatures against slow versions and TextBrewer; weights by step."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from zhbert.config import CHOICES, DistillSettings, Match
from zhbert.distill.matching import plan_matches
from zhbert.distill.schedules import SCHEDULES, part_weights
from zhbert.distill.soft_labels import SOFT_LABELS, soft_label_sum, squared_error_sum
from zhbert.distill.temperature import TEMPERATURES, temperatures
from zhbert.model.config import BertConfig

SCHEDULED = [
    DistillSettings(temperature=4.0),
    DistillSettings(temperature=4.0, temperature_schedule="flsw", temperature_beta=2.0),
    DistillSettings(temperature_schedule="flsw", temperature_beta=0.5, temperature_gamma=3.0),
    DistillSettings(temperature=4.0, temperature_schedule="cwsm"),
    DistillSettings(temperature=6.0, temperature_schedule="cwsm", temperature_beta=0.5),
]


def with_loss(settings: DistillSettings, loss: str) -> DistillSettings:
    return DistillSettings(**{**vars(settings), "soft_labels": loss})


def logits(examples: int = 7, labels: int = 5, seed: int = 1) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (torch.randn(examples, labels, generator=generator) * 3 for _ in range(2))
    return student.requires_grad_(), teacher


def slow_temperatures(student: Tensor, teacher: Tensor, settings: DistillSettings) -> list[float]:
    """The formulas of https://arxiv.org/abs/1911.07471 example by example."""
    weights = []
    for own, theirs in zip(student.tolist(), teacher.tolist(), strict=True):
        if settings.temperature_schedule == "flsw":
            norms = [math.sqrt(sum(x * x for x in one)) + 1e-4 for one in (own, theirs)]
            cosine = sum(x * y for x, y in zip(own, theirs, strict=True)) / norms[0] / norms[1]
            weights.append((1 - cosine) ** settings.temperature_gamma)
        elif settings.temperature_schedule == "cwsm":
            highest = max(math.exp(x) for x in own) / sum(math.exp(x) for x in own)
            weights.append(1 / (highest + 1e-3))
        else:
            weights.append(0.0)
    mean = sum(weights) / len(weights)
    return [settings.temperature + (mean - x) * settings.temperature_beta for x in weights]


def slow_sum(
    student: Tensor, teacher: Tensor, settings: DistillSettings, *, binary: bool
) -> Tensor:
    total = torch.zeros(())
    found = slow_temperatures(student, teacher, settings)
    for own, theirs, temperature in zip(student, teacher, found, strict=True):
        x, y = own / temperature, theirs / temperature
        if settings.soft_labels == "mse":
            total = total + (x - y).pow(2).mean()
        elif binary:
            p = y.sigmoid()
            total = total - (p * x.sigmoid().log() + (1 - p) * (-x).sigmoid().log()).mean()
        else:
            total = total - (y.softmax(0) * x.softmax(0).log()).sum()
    return total


@pytest.mark.parametrize("settings", SCHEDULED)
@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("loss", SOFT_LABELS)
def test_the_sum_and_its_gradient_equal_the_slow_ones(
    loss: str, binary: bool, settings: DistillSettings
) -> None:
    settings = with_loss(settings, loss)
    student, teacher = logits()
    found = soft_label_sum(student, teacher, settings, binary=binary)
    expected = slow_sum(student, teacher, settings, binary=binary)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, student)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])


@pytest.mark.parametrize("settings", SCHEDULED)
@pytest.mark.parametrize("loss", SOFT_LABELS)
def test_the_mean_and_its_gradient_equal_textbrewers(
    loss: str, settings: DistillSettings, textbrewer: Any
) -> None:
    student, teacher = logits()
    schedule = {
        "constant": ["constant"],
        "flsw": ["flsw", settings.temperature_beta, settings.temperature_gamma],
        "cwsm": ["cwsm", settings.temperature_beta],
    }[settings.temperature_schedule]
    scheduler = textbrewer.presets.TEMPERATURE_SCHEDULER[schedule[0]]
    if len(schedule) > 1:
        scheduler = textbrewer.presets.TEMPERATURE_SCHEDULER[schedule]
    temperature = scheduler(student, teacher, settings.temperature)
    expected = textbrewer.presets.KD_LOSS_MAP[loss](student, teacher, temperature)
    found = soft_label_sum(student, teacher, with_loss(settings, loss)) / len(student)
    torch.testing.assert_close(found, expected)
    (gradient,) = torch.autograd.grad(found, student)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, student)[0])


def test_the_names_are_those_of_the_settings() -> None:
    assert {*SOFT_LABELS, "none"} == set(CHOICES["distill.soft_labels"])
    assert set(TEMPERATURES) == set(CHOICES["distill.temperature_schedule"])
    assert set(SCHEDULES) == set(CHOICES["distill.soft_schedule"])
    assert set(SCHEDULES) == set(CHOICES["distill.hard_schedule"])


@pytest.mark.parametrize("schedule", ["flsw", "cwsm"])
def test_no_temperature_is_0_or_below(schedule: str) -> None:
    student, teacher = logits()
    wild = DistillSettings(temperature=0.5, temperature_schedule=schedule, temperature_beta=100.0)
    assert (temperatures(student, teacher, wild) > 0).all()


@pytest.mark.parametrize("schedule", TEMPERATURES)
def test_no_example_is_no_loss(schedule: str) -> None:
    student, teacher = logits(examples=0)
    settings = DistillSettings(temperature_schedule=schedule)
    loss = soft_label_sum(student, teacher, settings)
    assert loss == 0
    assert torch.autograd.grad(loss, student)[0].shape == (0, 5)


@pytest.mark.parametrize("loss", SOFT_LABELS)
def test_half_precision_is_summed_in_float32(loss: str) -> None:
    student, teacher = logits(examples=300)
    settings = DistillSettings(soft_labels=loss)
    found = soft_label_sum(student.bfloat16(), teacher.bfloat16(), settings)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, soft_label_sum(student, teacher, settings), rtol=0.01, atol=0)


def test_scores_are_compared_by_their_squared_error() -> None:
    student, teacher = torch.tensor([[1.0], [4.0]]), torch.tensor([[3.0], [3.0]])
    assert squared_error_sum(student, teacher) == 5


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [("constant", [1, 1, 1]), ("growth", [0, 0.25, 1]), ("decay", [1, 0.75, 0])],
)
def test_weights_rise_and_fall_over_the_run(schedule: str, factors: list[float]) -> None:
    config = BertConfig(num_hidden_layers=2)
    settings = DistillSettings(
        soft_weight=2.0,
        soft_schedule=schedule,
        hard_weight=0.5,
        hard_schedule=schedule,
        matches=(Match(loss="cos", weight=3.0),),
    )
    plan = plan_matches(settings, config, [config])
    found = [part_weights(settings, plan, progress, hard_parts=2) for progress in (0.0, 0.25, 1.5)]
    assert found == [(0.5 * x, 0.5 * x, 2 * x, 3.0) for x in factors]


def test_without_soft_labels_there_is_no_weight_for_them() -> None:
    config = BertConfig(num_hidden_layers=2)
    settings = DistillSettings(soft_labels="none", matches=(Match(loss="cos", weight=3.0),))
    assert part_weights(settings, plan_matches(settings, config, [config]), 0.5) == (1.0, 3.0)
