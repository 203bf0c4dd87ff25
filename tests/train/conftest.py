"""A model, an objective and data of no particular kind, for a loop that knows none."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class ToyBatch:
    x: Tensor
    y: Tensor


class ToyModel(nn.Module):
    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        rng = torch.Generator().manual_seed(seed)
        self.weight = nn.Parameter(torch.randn(6, 3, generator=rng))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


class ToyObjective:
    """Guess a class from numbers; predictions are counted per batch."""

    parts = ("masked_lm", "pairs")

    def counts(self, batch: ToyBatch) -> tuple[int, ...]:
        return len(batch.y), 0

    def pieces(self, batch: ToyBatch) -> int:
        return 10 * len(batch.y)

    def __call__(self, model: nn.Module, batch: ToyBatch, seed: int) -> tuple[Tensor, Tensor]:
        logits = model(batch.x)
        loss = nn.functional.cross_entropy(logits, batch.y, reduction="sum")
        right = (logits.argmax(-1) == batch.y).sum()
        return torch.stack([loss, loss.new_zeros(())]), torch.stack([right, right.new_zeros(())])


def toy_step(step: int, sizes: tuple[int, ...] = (5, 2)) -> list[ToyBatch]:
    """The micro-batches of a step: of these sizes, cut from the same rows whatever the sizes."""
    rng = torch.Generator().manual_seed(step)
    x = torch.randn(sum(sizes), 6, generator=rng)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return [ToyBatch(*pair) for pair in zip(x.split(sizes), y.split(sizes), strict=True)]


@pytest.fixture
def toy():
    """The toys, under one name."""

    class Toys:
        batch, model, objective = ToyBatch, ToyModel, ToyObjective
        step = staticmethod(toy_step)

    return Toys


@pytest.fixture(autouse=True)
def one_thread():
    """Toys gain nothing from threads, and lose much where other tests use the cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
