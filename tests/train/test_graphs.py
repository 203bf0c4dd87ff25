"""Recorded steps, on a CPU: a recording is there the call itself, on the same fixed memory."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager
from types import SimpleNamespace
from unittest.mock import Mock, create_autospec

import pytest
import torch
from tests.train.test_loop import run
from tests.train.toys import RecordableObjective as Objective

from zhbert.runtime import make_deterministic
from zhbert.train import graphs


class Recordings(list):
    """A recorder that keeps what it was given."""

    def __call__(self, call):
        self.append(call)
        return call


def numbers_of(found):
    names = ("step", "loss", "masked_lm_loss", "learning_rate", "grad_norm", "pieces")
    return [tuple(line[name] for name in names) for line in found[1]]


@pytest.mark.parametrize("sizes", [(7,), (5, 1, 1)])
def test_recorded_steps_are_those_of_the_loop_and_recorded_once(sizes):
    record = Recordings()
    usual = run(sizes, objective=Objective())
    recorded = run(sizes, objective=Objective(), record=record)
    for a, b in zip(numbers_of(usual), numbers_of(recorded), strict=True):
        assert a == pytest.approx(b, rel=1e-6)
    torch.testing.assert_close(usual[3].weight, recorded[3].weight, rtol=1e-6, atol=1e-8)
    # One micro-batch's call, and the update's.
    assert len(record) == 2
    assert recorded[3].weight.grad is None


def test_graphs_are_kept_for_few_shapes(monkeypatch):
    monkeypatch.setattr(graphs, "_SHAPES_KEPT", 2)

    class Changing(Objective):
        def prepared(self, model, batch, seed):
            self.rows = 8 + int(batch.y.sum()) % 3
            return super().prepared(model, batch, seed)

    usual = run(last_step=12, objective=Objective())
    recorded = run(last_step=12, objective=Changing(), record=Recordings())
    torch.testing.assert_close(usual[3].weight, recorded[3].weight)


def test_a_signal_between_micro_batches_leaves_nothing_of_the_step():
    class Interrupting(Objective):
        calls = 0

        def __call__(self, model, batch, seed):
            self.calls += 1
            if self.calls == 5:  # the first micro-batch of step 3
                os.kill(os.getpid(), signal.SIGTERM)
            return super().__call__(model, batch, seed)

    outcome, _, saved, model = run(
        objective=Interrupting(), record=Recordings(), notice=lambda line: None
    )
    assert (outcome.step, [at.step for at in saved]) == (2, [2])
    assert torch.equal(model.weight, run(last_step=2, objective=Objective())[3].weight)


def test_what_cannot_be_recorded_is_made_operation_by_operation():
    record = Recordings()
    usual, plain = run(), run(record=record)  # the toy's objective prepares nothing
    assert numbers_of(usual) == numbers_of(plain)
    assert not record


class CudaWithoutGpu:
    """torch.cuda as far as recording needs it; calls whose name says so cannot be recorded."""

    def __init__(self, patch):
        self.seeds = SimpleNamespace(graphsafe_set_state=lambda state: None)
        for name, value in {
            "graph_pool_handle": lambda: (0, 1),
            "CUDAGraph": lambda: SimpleNamespace(replay=lambda: self.made.append("replay")),
            "graph": create_autospec(torch.cuda.graph, side_effect=self.recording),
            "current_stream": lambda: None,
            "current_device": lambda: 0,
            "synchronize": lambda: None,
            "default_generators": [self.seeds],
        }.items():
            patch.setattr(torch.cuda, name, value)
        patch.setattr(torch, "Generator", lambda device: Mock())
        self.made = []

    @contextmanager
    def recording(self, graph, **options):
        assert options["capture_error_mode"] == "thread_local"
        try:
            yield
        finally:
            if "failing" in self.made:
                raise RuntimeError("operation failed due to a previous error during capture")


def test_cuda_graphs_replay_and_what_fails_is_said_once(monkeypatch):
    cuda = CudaWithoutGpu(monkeypatch)
    said = []
    record = graphs.CudaGraphs(said.append)
    replay = record(lambda: cuda.made.append("recorded"))
    replay()
    assert cuda.made == ["recorded", "replay"]

    def failing():
        cuda.made.append("failing")
        raise RuntimeError("operation not permitted when stream is capturing\nCUDA kernel errors")

    assert record(failing) is failing
    assert record(failing) is failing
    [line] = said
    assert line.endswith("slower: operation not permitted when stream is capturing")
    # Earlier recordings are not replayed any more: their dropout would be the same in every step.
    replay()
    assert cuda.made == ["recorded", "replay", "failing", "recorded"]


def test_on_a_gpu_determinism_is_asked_for(monkeypatch):
    asked = []
    monkeypatch.setattr(torch, "use_deterministic_algorithms", asked.append)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    make_deterministic(torch.device("cpu"))
    assert not asked
    make_deterministic(torch.device("cuda"))
    assert asked == [True]
    assert os.environ["CUBLAS_WORKSPACE_CONFIG"]
