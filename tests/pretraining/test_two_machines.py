"""Two machines, as two network namespaces with a cable between them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator

import pytest
from tests.pretraining.test_pretrain_processes import command, losses, wait_for_lines
from tests.ranks import launch

ADDRESSES = ("10.213.57.1", "10.213.57.2")
# As docs/clusters.md has it. Here the machines have no names, and what is dead is given up sooner.
ENVIRONMENT = {
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",
    "GLOO_SOCKET_IFNAME": "eth0",
    "OMP_NUM_THREADS": "1",
}


def ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True).stdout


def kill_all_on(machine: str) -> None:
    for pid in ip("netns", "pids", machine).split():
        os.kill(int(pid), signal.SIGKILL)


@pytest.fixture
def machines() -> Iterator[tuple[str, str]]:
    """The names of two network namespaces."""
    names = (f"zhbert-{os.getpid()}-0", f"zhbert-{os.getpid()}-1")
    if not shutil.which("ip"):
        pytest.skip("this machine has no ip (Debian: iproute2)")
    try:
        for name in names:
            ip("netns", "add", name)
        ends = ["eth0", "netns", names[0], "type", "veth", "peer", "eth0", "netns", names[1]]
        ip("link", "add", *ends)
        for name, address in zip(names, ADDRESSES, strict=True):
            ip("-n", name, "address", "add", f"{address}/30", "dev", "eth0")
            for link in ("lo", "eth0"):
                ip("-n", name, "link", "set", link, "up")
    except subprocess.CalledProcessError as error:
        remove(names)
        pytest.skip(f"this machine allows no network namespaces: {error.stderr.strip()}")
    yield names
    for name in names:
        kill_all_on(name)
    remove(names)


def remove(names: tuple[str, str]) -> None:
    for name in names:
        subprocess.run(["ip", "netns", "delete", name], capture_output=True, check=False)


def test_a_machine_is_killed_and_started_again(machines, corpus, tmp_path):
    """The losses are those of an undisturbed run, though the second machine lacks the folder."""
    settings = ["steps=80", "checkpoint_every=20"]

    def start(number):
        torchrun = [
            *("-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1"),
            *("--max-restarts=2", "--rdzv-backend=c10d", f"--rdzv-endpoint={ADDRESSES[0]}:29500"),
            f"--local-addr={ADDRESSES[number]}",
            f"--rdzv-conf=is_host={1 - number},keep_alive_interval=1,keep_alive_max_attempt=2",
        ]
        more = (*settings, "--resume-if-there")
        words = command(corpus, tmp_path / str(number), *more, launcher=torchrun)
        return subprocess.Popen(
            ["ip", "netns", "exec", machines[number], *words],
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    first, second = start(0), start(1)
    wait_for_lines(first, tmp_path / "0", 30)
    kill_all_on(machines[1])
    second.communicate()
    assert second.returncode == -signal.SIGKILL
    again = start(1)
    whole = command(corpus, tmp_path / "whole", *settings)
    assert [code for code, _, _ in launch(whole, whole)] == [0, 0]
    for process in (first, again):
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    assert losses(tmp_path / "0") == losses(tmp_path / "whole")
    assert not (tmp_path / "1").exists()
