"""A model, an objective and data of no particular kind; as a script: one rank of two.

Rows are cut unequally: rank 0 gets 5 + 1, rank 1 gets 3. The global mean is over all 9, which is
neither the mean of the ranks' means nor the mean of the micro-batches' means.
"""

from __future__ import annotations

import itertools
import json
import sys
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zhbert.cli import leave
from zhbert.errors import ZhbertError
from zhbert.train.distributed import process_group
from zhbert.train.loop import EvaluationSet, LoopSettings, Trainer
from zhbert.train.optim import AdamW


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
    """Guess a class from numbers; a second part never predicts anything."""

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


class RecordableObjective(ToyObjective):
    """The toy's, for batches of any size in one shape: rows without a label are appended."""

    rows = 8

    def prepared(self, model, batch, seed):
        missing = self.rows - len(batch.y)
        x = nn.functional.pad(batch.x, (0, 0, 0, missing))
        return ToyBatch(x, nn.functional.pad(batch.y, (0, missing), value=-100))


def toy_step(step: int, sizes: tuple[int, ...] = (5, 2)) -> list[ToyBatch]:
    """The micro-batches of a step: of these sizes, cut from the same rows whatever the sizes."""
    rng = torch.Generator().manual_seed(step)
    x = torch.randn(sum(sizes), 6, generator=rng)
    y = (x[:, 0] > 0).long() + (x[:, 1] > 0).long()
    return [ToyBatch(*pair) for pair in zip(x.split(sizes), y.split(sizes), strict=True)]


class Lines(list):
    def write(self, line):
        self.append(dict(line))

    def close(self):
        pass


def run_rank(mode: str = "run") -> Lines:
    """Train as the rank that the environment names; the lines that the first rank would log."""
    lines = Lines()
    with process_group(lambda rank: torch.device("cpu")) as ranks:
        model = ToyModel(seed=ranks.rank)  # DDP gives all the first one's weights

        def source(step):
            for number in itertools.count(step):
                if mode == "fail" and ranks.rank == 1 and number == 2:
                    raise ZhbertError("rank 1 has an accident")
                batches = toy_step(number, (5, 1, 3))
                if ranks.world_size > 1:
                    batches = batches[:2] if ranks.first else batches[2:]
                yield batches

        Trainer(
            model,
            RecordableObjective(),
            source=source,
            optimizer=AdamW(model.named_parameters()),
            schedule=lambda done: 0.01,
            settings=LoopSettings(last_step=4),
            save=lambda at: None,
            sinks=[lines],
            ranks=ranks,
            record=(lambda call: call) if mode == "recorded" else None,
            evaluations=[EvaluationSet("fixed", toy_step(9, (4, 2, 5)))],
        ).train()
    return lines


if __name__ == "__main__":
    torch.set_num_threads(1)
    try:
        lines = run_rank(*sys.argv[1:])
    except ZhbertError as error:
        sys.stderr.write(f"{error}\n")
        leave(1, at_once=True)
    sys.stdout.write(json.dumps(lines))
    leave(0, at_once=True)
