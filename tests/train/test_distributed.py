"""Two processes as one, on a toy; the jobs' tests do it with torchrun and a model."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys

import pytest
import torch
from tests.train import toys

from zhbert.errors import ZhbertError
from zhbert.train.distributed import Ranks, process_group

TOYS = str(toys.__file__)


def launch(mode="run"):
    """Two ranks without torchrun, so that nobody but the ranks themselves sees one fail."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    ranks = [
        subprocess.Popen(
            [sys.executable, TOYS, mode],
            env={**os.environ, **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        outputs = [rank.communicate(timeout=60) for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    return [(rank.returncode, *output) for rank, output in zip(ranks, outputs, strict=True)]


def test_two_ranks_with_unequal_counts_give_one_ranks_losses(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = toys.run_rank()
    results = launch()
    for code, output, errors in results:
        assert code == 0, errors
        both = json.loads(output)
        assert len(both) == len(alone) == 5
        for one, two in zip(alone, both, strict=True):
            assert one.keys() == two.keys()
            for key in {"masked_lm_loss", "grad_norm", "masked_lm_accuracy", "pieces"} & one.keys():
                assert one[key] == pytest.approx(two[key], rel=1e-5)


def test_a_rank_that_fails_ends_the_others():
    (first, _, _), (second, _, accident) = launch("fail")
    assert second == 1
    assert "rank 1 has an accident" in accident
    assert first != 0


def test_alone_every_exchange_is_free(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group(lambda rank: torch.device("cpu")) as ranks:
        assert ranks == Ranks(device=torch.device("cpu"))
        assert ranks.sum([1, 2.5]) == [1, 2.5]
        module = torch.nn.Linear(2, 2)
        assert ranks.wrap(module) is module
        assert ranks.on_first(lambda: 7) == 7

        def refuse():
            raise ZhbertError("no")

        with pytest.raises(ZhbertError, match="no"):
            ranks.on_first(refuse)
