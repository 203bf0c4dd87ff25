"""prepare on a Ray cluster of two nodes: the same bytes, whatever becomes of the nodes."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.data.test_prepare import articles, fingerprint

from zhbert.data import prepare as job
from zhbert.data import ray_pool
from zhbert.data.prepare import prepare
from zhbert.data.read_options import ReadOptions
from zhbert.errors import ZhbertError

OPTIONS: dict[str, Any] = {
    "held_out": 0.1,
    "deduplicate": True,
    "scatter": True,
    "segmenter": "whitespace",  # starts in no time
}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Two nodes on this machine, of one CPU each."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        from ray.cluster_utils import Cluster

        size = {"num_cpus": 1, "object_store_memory": 80 << 20}
        cluster = Cluster(initialize_head=True, head_node_args=size | {"include_dashboard": False})
        cluster.add_node(**size)
        yield cluster
        cluster.shutdown()


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("text") / "a.txt"
    file.write_text(articles(150), encoding="utf-8")
    return file


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "ReadOptions", functools.partial(ReadOptions, block_bytes=2000))


@pytest.fixture
def on_cluster(cluster: Any, text: Path, tmp_path: Path) -> Callable[..., dict[str, Any]]:
    return functools.partial(
        prepare, [text], tmp_path / "ray", engine="ray", address=cluster.address, **OPTIONS
    )


def test_a_node_that_cannot_take_part_is_named_and_why(
    cluster: Any, on_cluster: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    import ray

    # A connection of the caller's is used, and kept.
    ray.init(cluster.address, log_to_driver=False, logging_level="ERROR")
    for place, name, instead, message in (
        (Path, "touch", lambda _: None, f"does not see {tmp_path}/ray: the folder must be shared"),
        (ray_pool, "_versions", lambda *_: {"zhbert": "99"}, "has another version of zhbert"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(place, name, instead)
            with pytest.raises(ZhbertError, match=rf"^node [\d.]+ {message}"):
                on_cluster()
    assert ray.is_initialized()
    ray.shutdown()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"engine": "ray", "address": "127.0.0.1:9"}, "127.0.0.1:9: no Ray cluster answers there"),
        ({"address": "127.0.0.1:9"}, "add --engine ray"),
        ({"engine": "spark"}, "--engine spark: unknown; known: local, ray"),
    ],
)
def test_a_mistake_is_one_line(
    text: Path, tmp_path: Path, options: dict[str, str], message: str
) -> None:
    with pytest.raises(ZhbertError, match=message):
        prepare([text], tmp_path / "corpus", **options)
    assert not (tmp_path / "corpus").exists()


def test_a_cluster_that_was_killed_is_not_waited_for(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "ray").mkdir()
    (tmp_path / "ray" / "ray_current_cluster").write_text("127.0.0.1:9")
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(ZhbertError, match=r"127.0.0.1:9: no Ray cluster .*--address local"):
        prepare([text], tmp_path / "corpus", engine="ray")


def test_an_address_of_the_environment_is_named_so(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    with pytest.raises(ZhbertError, match=r"^RAY_ADDRESS 127.0.0.1:9: no Ray cluster"):
        prepare([text], tmp_path / "corpus", engine="ray")


def test_without_ray_a_line_says_how_to_install_it(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ZhbertError, match="--engine ray: ray is not installed: pip install"):
        prepare([text], tmp_path / "corpus", engine="ray")


# The last test, because the node is gone then.
def test_the_bytes_are_those_of_local_work_after_ctrl_c_and_with_a_node_lost(
    cluster: Any, on_cluster: Callable[..., dict[str, Any]], text: Path, tmp_path: Path
) -> None:
    def lose(stage: str, read: int, total: int) -> None:
        if stage == "words and pieces" and read > 16000 and len(cluster.worker_nodes):
            cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)

    def stop(stage: str, read: int, total: int) -> None:
        if stage == "words and pieces" and read > 8000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        on_cluster(progress=stop)
    assert on_cluster(progress=lose)["reused_blocks"] > 2
    assert not cluster.worker_nodes
    prepare([text], tmp_path / "local", **OPTIONS)
    assert fingerprint(tmp_path / "ray") == fingerprint(tmp_path / "local")
