"""Weights divided among processes: the numbers of one process, whatever the number of them is."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from safetensors.torch import load_file
from tests.pretraining import runs
from tests.ranks import free_port, launch
from tests.small_corpora import MUON, TINY

from zhbert.pretraining.run import pretrain

# Three processes divide no width of the model's matrices equally.
SIZES = ["steps=6", "evaluate_every=2", "checkpoint_every=2", "micro_batch_size=3"]
RUNS = {
    "adamw": ["rows.builder=pairs", "optimizer.clip_norm=0.5", "evaluation.keep_best=true"],
    "lamb": ["optimizer.name=lamb", "activation_checkpointing=true"],
    "muon": MUON,
    "distilled": [
        "model.hidden_size=12",
        'distill.teachers=["{root}/adamw-1/final"]',
        'distill.matches=[{{loss="hidden_mse"}}]',
    ],
}
TIMES = {"pieces_per_second", "data_wait", "step_seconds", "seconds"}


def launched(ranks, *given):
    """Run the same list of runs in so many processes."""
    given = json.dumps([(free_port(), *one) for one in given])
    for code, _, errors in launch(*ranks * [[sys.executable, runs.__file__, given]]):
        assert code == 0, errors


def overrides(name, root, *more):
    own = [each.format(root=root) for each in RUNS[name]]
    return [*TINY, *SIZES, "sharding=full", *own, *more]


@pytest.fixture(scope="module")
def folders(corpus, tmp_path_factory):
    """Each run by one process and by three; another is begun by one, and goes on by three and one.

    Processes take long to start, so there are three of them once.
    """
    root = tmp_path_factory.mktemp("divided")
    for name in RUNS:
        pretrain("tiny", corpus, root / f"{name}-1", overrides(name, root))
    whole = overrides("adamw", root, "optimizer.schedule=constant")
    pretrain("tiny", corpus, root / "unmoved", whole)
    moved = (str(corpus), str(root / "moved"))
    # The schedule must not end with the steps of each part.
    pretrain("tiny", *moved, [*whole, "steps=2"])
    divided = [(str(corpus), str(root / f"{name}-3"), overrides(name, root), {}) for name in RUNS]
    launched(3, *divided, (*moved, ["steps=4"], {"resume": True}))
    pretrain("tiny", *moved, ["steps=6", "sharding=none"], resume=True)
    return root


def lines_of(folder):
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in text.splitlines()]
    return [{key: line[key] for key in line.keys() - TIMES} for line in lines]


def assert_same_run(one, two):
    for mine, theirs in zip(lines_of(one), lines_of(two), strict=True):
        assert mine.keys() == theirs.keys()
        for key, value in mine.items():
            assert value == theirs[key] or value == pytest.approx(theirs[key], rel=1e-4), key
    mine, theirs = (load_file(run / "final" / "model.safetensors") for run in (one, two))
    assert mine.keys() == theirs.keys()
    for name, tensor in mine.items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", RUNS)
def test_three_processes_give_the_run_of_one(folders, name):
    assert_same_run(folders / f"{name}-1", folders / f"{name}-3")


def test_a_run_goes_on_with_another_number_of_processes(folders):
    assert_same_run(folders / "unmoved", folders / "moved")


def test_the_best_weights_are_those_of_one_process(folders):
    one, two = (next((folders / f"adamw-{n}" / "best").iterdir()) for n in (1, 3))
    assert one.name == two.name
    mine, theirs = (load_file(path / "model.safetensors") for path in (one, two))
    assert mine.keys() == theirs.keys()
