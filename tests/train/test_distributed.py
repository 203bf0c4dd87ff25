"""Two processes as one, on a toy; the jobs' tests do it with torchrun and a model."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from tests.ranks import launch
from tests.train import toys

from zhbert.errors import ZhbertError
from zhbert.train.distributed import Ranks, process_group

TOYS = str(toys.__file__)


def launch_toys(mode="run"):
    return launch(*2 * [[sys.executable, TOYS, mode]])


@pytest.mark.parametrize("mode", ["run", "recorded"])
def test_two_ranks_with_unequal_counts_give_one_ranks_losses(monkeypatch, mode):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    alone = toys.run_rank()
    results = launch_toys(mode)
    for code, output, errors in results:
        assert code == 0, errors
        both = json.loads(output)
        assert len(both) == len(alone) == 5
        for one, two in zip(alone, both, strict=True):
            assert one.keys() == two.keys()
            for key in {"masked_lm_loss", "grad_norm", "masked_lm_accuracy", "pieces"} & one.keys():
                assert one[key] == pytest.approx(two[key], rel=1e-5)


def test_a_rank_that_fails_ends_the_others():
    (first, _, told), (second, _, accident) = launch_toys("fail")
    assert second == 1
    assert accident == "rank 1 has an accident\n"
    assert first == 1
    assert told.count("\n") == 1
    assert "another process of this run has gone" in told


def try_exchanges(ranks):
    assert ranks.first
    assert ranks.sum([1, 2.5]) == [1, 2.5]
    assert ranks.sum_tensor(torch.tensor([3.0])).tolist() == [3.0]
    one = torch.tensor([4.0])
    ranks.broadcast([one])
    assert one.tolist() == [4.0]
    assert ranks.on_first(lambda: 7) == 7

    def refuse():
        raise ZhbertError("no")

    with pytest.raises(ZhbertError, match="no"):
        ranks.on_first(refuse)


def test_alone_every_exchange_is_free(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    with process_group(lambda rank: torch.device("cpu")) as ranks:
        assert ranks == Ranks(device=torch.device("cpu"))
        try_exchanges(ranks)
        module = torch.nn.Linear(2, 2)
        assert ranks.wrap(module) is module


def set_environment(monkeypatch, **more):
    for name, value in {"RANK": "0", "WORLD_SIZE": "1", "MASTER_PORT": "0", **more}.items():
        monkeypatch.setenv(name, value)


def test_one_process_of_torchrun_is_a_group(monkeypatch):
    """The exchanges of many GPUs can so be tried on one."""
    set_environment(monkeypatch, MASTER_ADDR="127.0.0.1")
    with process_group(lambda rank: torch.device("cpu")) as ranks:
        assert ranks.connected
        assert torch.distributed.get_world_size() == 1
        try_exchanges(ranks)
    assert not torch.distributed.is_initialized()


def test_a_group_that_cannot_be_joined_is_one_line(monkeypatch):
    set_environment(monkeypatch)
    monkeypatch.delenv("MASTER_ADDR", raising=False)
    with (
        pytest.raises(ZhbertError, match=r"connecting .* processes: .*MASTER_ADDR expected"),
        process_group(lambda rank: torch.device("cpu")),
    ):
        pass


def test_more_processes_than_gpus_are_refused(monkeypatch):
    """NCCL would say that it was used in an invalid way."""
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with (
        pytest.raises(ZhbertError, match="--nproc-per-node 3: more than this machine's GPUs, 2"),
        process_group(lambda rank: torch.device("cuda", rank)),
    ):
        pass


def test_several_machines_need_a_new_store_for_restarts(monkeypatch):
    more = {"TORCHELASTIC_USE_AGENT_STORE": "True", "GROUP_WORLD_SIZE": "2"}
    set_environment(monkeypatch, TORCHELASTIC_MAX_RESTARTS="1", **more)
    with (
        pytest.raises(ZhbertError, match=r"^--max-restarts: .*SHARE_RDZV_TCP_STORE=1 is set"),
        process_group(lambda rank: torch.device("cpu")),
    ):
        pass
