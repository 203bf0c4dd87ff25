"""Two processes as one, by a real torchrun, on a toy; the jobs' tests do it with a model."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from zhbert.errors import ZhbertError
from zhbert.train.distributed import Ranks, process_group

# The rows of a step are cut unequally: rank 0 gets 5 + 1 rows, rank 1 gets 3. The global mean is
# over all 9, which neither the mean of the ranks' means nor the mean of micro-batches' is.
SCRIPT = """
import itertools, json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
from conftest import ToyModel, ToyObjective, toy_step
from zhbert.train.distributed import process_group
from zhbert.train.loop import Evaluation, LoopSettings, train
from zhbert.train.optim import AdamW

class File:
    def write(self, line):
        print(json.dumps(line), flush=True)

torch.set_num_threads(1)
with process_group(lambda rank: torch.device("cpu")) as ranks:
    model = ToyModel(seed=ranks.rank)  # DDP gives all the first one's weights
    alone = ranks.world_size == 1
    def source(step):
        for number in itertools.count(step):
            if sys.argv[2] == "fail" and ranks.rank == 1 and number == 2:
                raise SystemExit("rank 1 has an accident")
            batches = toy_step(number, (5, 1, 3))
            yield batches if alone else batches[:2] if ranks.first else batches[2:]
    train(
        model, ToyObjective(), source=source, optimizer=AdamW(model.named_parameters()),
        schedule=lambda done: 0.01, settings=LoopSettings(last_step=4), save=lambda at: None,
        sinks=[File()] if ranks.first else [], ranks=ranks,
        evaluations=[Evaluation("fixed", toy_step(9, (4, 2, 5)))],
    )
"""


def launch(tmp_path, processes, mode="run"):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT, encoding="utf-8")
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command += [str(script), str(Path(__file__).parent), mode]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_two_ranks_with_unequal_counts_give_one_ranks_losses(tmp_path):
    curves = []
    for processes in (1, 2):
        done = launch(tmp_path, processes)
        assert done.returncode == 0, done.stderr
        curves.append([json.loads(line) for line in done.stdout.splitlines()])
    assert len(curves[0]) == len(curves[1]) == 5
    for one, two in zip(*curves, strict=True):
        assert one.keys() == two.keys()
        for key in {"masked_lm_loss", "grad_norm", "masked_lm_accuracy", "pieces"} & one.keys():
            assert one[key] == pytest.approx(two[key], rel=1e-5)


def test_a_rank_that_fails_ends_the_others(tmp_path):
    done = launch(tmp_path, 2, "fail")
    assert done.returncode != 0
    assert "rank 1 has an accident" in done.stderr
    assert len(done.stdout.splitlines()) <= 2


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
