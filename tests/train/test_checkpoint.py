"""Checkpoints: whole or not there, newest first, the older ones safe."""

from __future__ import annotations

import errno
import itertools
import threading

import pytest
import torch
from tests.train import toys

from zhbert.errors import ZhbertError
from zhbert.files import advising
from zhbert.train import checkpoint
from zhbert.train.checkpoint import (
    Checkpoints,
    KeepBest,
    Saver,
    _complete,
    load_model_state,
    model_state,
)
from zhbert.train.distributed import ALONE
from zhbert.train.loop import LoopSettings, Trainer
from zhbert.train.optim import AdamW


def save(checkpoints, step):
    tensors = {"a": torch.full((4, 3), float(step)), "b": torch.tensor(step)}
    return checkpoints.save(step, {"model": tensors}, {"pieces": step * 10})


@pytest.fixture
def said():
    return []


@pytest.fixture
def checkpoints(tmp_path, said):
    return Checkpoints(tmp_path / "checkpoints", keep=2, say=said.append)


def test_the_newest_is_read_back_exactly_and_only_the_newest_are_kept(checkpoints):
    assert checkpoints.newest() is None
    for step in (1, 2, 10):
        save(checkpoints, step)
    assert checkpoints.steps() == [2, 10]
    newest = checkpoints.newest()
    assert newest.path.name == "step-000010"
    assert (newest.step, newest.info["pieces"]) == (10, 100)
    assert torch.equal(newest.tensors("model")["a"], torch.full((4, 3), 10.0))
    assert newest.tensors("model")["b"] == 10


@pytest.mark.parametrize("damage", ["cut", "flip", "missing", "no json", "bad json", "empty"])
def test_a_damaged_checkpoint_is_skipped_and_said(checkpoints, said, damage):
    save(checkpoints, 1)
    path = save(checkpoints, 2)
    file, description = path / "model.safetensors", path / "checkpoint.json"
    if damage == "cut":
        file.write_bytes(file.read_bytes()[:-5])
    elif damage == "flip":
        file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    elif damage == "missing":
        file.unlink()
    elif damage == "no json":
        description.unlink()
    elif damage == "bad json":
        description.write_text("{}", encoding="utf-8")
    else:
        description.write_text("", encoding="utf-8")
    assert checkpoints.newest().step == 1
    assert len(said) == 1
    assert "step-000002" in said[0]
    assert "skipped" in said[0]
    checkpoints.forget_after(1)
    assert checkpoints.steps() == [1]


def test_temporary_folders_of_a_killed_run_are_no_checkpoints_and_go(checkpoints):
    save(checkpoints, 1)
    rest = checkpoints.folder / ".step-000002.zhbert-0123abcd.tmp"
    rest.mkdir()
    assert checkpoints.newest().step == 1
    save(checkpoints, 3)
    assert not rest.exists()


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        checkpoint.SafetensorError("I/O error: No space left on device (os error 28)"),
    ],
)
def test_a_full_disk_leaves_the_older_checkpoint(checkpoints, monkeypatch, error):
    save(checkpoints, 1)

    def full(tensors, path):
        path.write_bytes(b"half")
        raise error

    monkeypatch.setattr(checkpoint, "save_file", full)
    with pytest.raises(ZhbertError, match=r"disk is full.*the checkpoint of step 1 is as it was"):
        save(checkpoints, 2)
    assert checkpoints.newest().step == 1
    assert [path.name for path in checkpoints.folder.iterdir()] == ["step-000001"]


@pytest.fixture
def saver(checkpoints):
    return Saver(checkpoints, ALONE)


@pytest.fixture
def slow(monkeypatch):
    """A disk that writes nothing before the event."""
    event = threading.Event()
    save_file = checkpoint.save_file

    def slowly(tensors, path):
        assert event.wait(30)
        save_file(tensors, path)

    monkeypatch.setattr(checkpoint, "save_file", slowly)
    return event


def test_training_goes_on_while_a_checkpoint_is_written(saver, checkpoints, slow):
    model = toys.ToyModel()
    states, lines = {}, toys.Lines()

    def save(at):
        states[at.step] = model.weight.detach().clone()
        saver.save(at.step, {"model": model_state(model)}, {})

    class SecondStep:
        def write(self, line):
            if line["step"] == 2:
                assert checkpoints.steps() == []
                slow.set()

    Trainer(
        model,
        toys.ToyObjective(),
        source=lambda step: map(toys.toy_step, itertools.count(step)),
        optimizer=AdamW(model.named_parameters()),
        schedule=lambda done: 0.01,
        settings=LoopSettings(last_step=3, checkpoint_every=1, evaluate_every=9),
        save=lambda at: save(at) if at.step != 2 else None,
        sinks=[lines, saver, SecondStep()],
    ).train()
    saver.finish()
    assert checkpoints.steps() == [1, 3]
    for step in (1, 3):
        found = _complete(checkpoints.path(step)).tensors("model")["weight"]
        assert torch.equal(found, states[step])


def test_an_error_while_writing_is_raised_by_what_comes_next(saver, checkpoints, monkeypatch):
    def full(tensors, path):
        raise OSError(errno.ENOSPC, "No space left on device")

    save(checkpoints, 1)
    monkeypatch.setattr(checkpoint, "save_file", full)
    with advising("go on with --resume"):
        saver.save(2, {"model": {"a": torch.ones(2)}}, {})
    saver.wait()
    wanted = "disk is full; free some space and go on with --resume; the checkpoint of step 1 is as"
    for next_call in (saver.finish, lambda: saver.write({}), lambda: saver.save(3, {}, {})):
        with pytest.raises(ZhbertError, match=wanted):
            next_call()
    assert checkpoints.steps() == [1]


def test_without_memory_for_a_copy_training_waits(saver, checkpoints, monkeypatch):
    monkeypatch.setattr(checkpoint, "free_memory", lambda: 15)
    weight = torch.ones(2)
    saver.save(1, {"model": {"a": weight}}, {})
    assert checkpoints.steps() == [1]


def test_a_state_of_another_shape_is_refused(tmp_path):
    small, large = torch.nn.Linear(2, 3), torch.nn.Linear(2, 4)
    with pytest.raises(ZhbertError, match=r"'weight' is \(3, 2\), the model's is \(4, 2\)"):
        load_model_state(large, model_state(small), tmp_path)
    with pytest.raises(ZhbertError, match="has no 'bias'"):
        load_model_state(small, {"weight": small.weight}, tmp_path)
    with pytest.raises(ZhbertError, match="holds 'more'"):
        load_model_state(small, {**model_state(small), "more": small.bias}, tmp_path)


def evaluation(step, char, wwm):
    losses = {"char": char, "wwm": wwm}
    return [
        {"step": step, "evaluation": name, "masked_lm_loss": loss} for name, loss in losses.items()
    ]


@pytest.fixture
def kept(tmp_path):
    """What is kept of evaluations by step, each of a model whose weights are the step's number."""

    def keep(evaluations, after=0):
        model = torch.nn.Linear(1, 1)
        sink = KeepBest(tmp_path / "best", model, 2, after)
        for step, losses in evaluations.items():
            torch.nn.init.constant_(model.weight, step)
            sink.write({"step": step, "loss": 0.0})
            for line in evaluation(step, *losses):
                sink.write(line)
        best = sink.best()
        assert best is None or best.tensors("model")["weight"].item() == best.step
        return best

    return keep


def test_the_weights_of_the_lowest_mean_loss_are_kept_with_its_lines(kept):
    best = kept({0: (5, 5), 10: (4, 4), 20: (2, 3), 30: (1, 4), 40: (3, 3)})
    assert best.step == 20
    assert best.info["evaluations"] == evaluation(20, 2, 3)


def test_an_evaluation_without_predictions_is_never_the_best(kept):
    assert kept({0: (None, None)}) is None


def test_a_run_that_goes_on_knows_its_best_and_forgets_what_comes_again(kept):
    kept({0: (5, 5), 10: (1, 1), 20: (2, 2)})
    assert kept({30: (3, 3)}, after=20).step == 10
    assert kept({10: (4, 4), 20: (6, 6)}, after=5).step == 10
