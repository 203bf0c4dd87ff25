"""Checkpoints: whole or not there, newest first, the older ones safe."""

from __future__ import annotations

import errno

import pytest
import torch

from zhbert.errors import ZhbertError
from zhbert.train import checkpoint
from zhbert.train.checkpoint import Checkpoints, load_model_state, model_state


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


def test_a_state_of_another_shape_is_refused(tmp_path):
    small, large = torch.nn.Linear(2, 3), torch.nn.Linear(2, 4)
    with pytest.raises(ZhbertError, match=r"'weight' is \(3, 2\), the model's is \(4, 2\)"):
        load_model_state(large, model_state(small), tmp_path)
    with pytest.raises(ZhbertError, match="has no 'bias'"):
        load_model_state(small, {"weight": small.weight}, tmp_path)
    with pytest.raises(ZhbertError, match="holds 'more'"):
        load_model_state(small, {**model_state(small), "more": small.bias}, tmp_path)
