"""Blocks worked on by all machines of a Ray cluster, which share a folder (``--engine ray``).

Tasks rather than actors: a task runs wherever a processor is free, on machines that join later,
too, and those of a machine that is lost run on others. Each worker process keeps its BlockWorker
from task to task. What a task writes is written whole, and the same whoever does it: so it may be
done twice.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import signal
import socket
import warnings
from collections.abc import Iterable, Iterator, Mapping
from concurrent import futures
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from zhbert import __version__
from zhbert.data.block_worker import BlockWorker, PreparationSettings
from zhbert.data.blocks import TextBlock
from zhbert.data.pools import Item, check_can_be_sent, in_order
from zhbert.errors import ZhbertError
from zhbert.text.segmenters.protocol import describe_segmenter
from zhbert.wording import how_to_install

# Seconds to wait for a cluster to answer.
_PATIENCE = 10


@dataclass(frozen=True)
class _Job:
    """What a worker process must know to join the work."""

    token: str
    """the name of a file in the shared folder"""
    settings: list[Any]
    """a reference to the PreparationSettings; in a list, so that Ray does not resolve it"""
    folder: Path
    """the current one, to which relative names refer"""
    versions: Mapping[str, str]
    """of all that the corpus depends on"""


class RayTasks:
    """Several workers: processes of a Ray cluster.

    Args:
        settings: what they need to know.
        described: the segmenter and the tokenizer of this process.
        address: the cluster's; None: what Ray finds, else one is started on this machine.
        workers: the number of tasks at a time; None: one per CPU, however many there come to be.

    Raises:
        ZhbertError: Ray is not installed, or no cluster answers.
    """

    def __init__(
        self,
        settings: PreparationSettings,
        described: Mapping[str, Any],
        address: str | None,
        workers: int | None,
    ) -> None:
        check_can_be_sent(settings)
        self._owns_connection = _connect(address)
        import ray

        self._ray: Any = ray
        self._workers = workers
        self._running: set[Future[Any]] = set()
        token = f"ray-{secrets.token_hex(8)}"
        self._token = settings.paths.partial / token
        paths = replace(settings.paths, out=settings.paths.out.absolute())
        self._job = _Job(
            token=token,
            settings=[ray.put(replace(settings, paths=paths))],
            folder=Path.cwd(),
            versions=_versions(described["segmenter"], described["tokenizer"]["fingerprint"]),
        )
        # Python's and Ray's versions are compared by Ray.
        self._task = ray.remote(num_cpus=1, max_retries=3)(_work)

    def map(self, method: str, items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        """Yield each item with its result, in order; a bounded number is under way at a time.

        Raises:
            ZhbertError: a machine lacks the folder or a file, or another version works there.
        """
        self._token.touch()

        def submit(item: Item) -> Future[Any]:
            # Futures rather than Ray's own functions: these turn every signal into Ctrl-C.
            future: Future[Any] = self._task.remote(self._job, method, item).future()
            self._running.add(future)
            future.add_done_callback(self._running.discard)
            if isinstance(item, TextBlock):
                item.segments.clear()  # Ray has its own copy
            return future

        exceptions = self._ray.exceptions
        try:
            for item, future in in_order(submit, items, self._most_at_a_time, ahead=2):
                yield item, future.result()
        except exceptions.RayTaskError as error:
            raise _cause(error) from None
        except exceptions.RayError as error:
            raise ZhbertError(
                f"a worker process died several times over the same work ({_first_line(error)}): "
                "out of memory? Run the same command again with fewer --workers; finished shards "
                "are kept"
            ) from None

    def _most_at_a_time(self) -> int:
        """Return the number of workers, or that of the cluster's CPUs and a few more."""
        # The few are at hand when a worker has finished.
        resources: Mapping[str, float] = self._ray.cluster_resources()
        return self._workers or int(resources.get("CPU", 0)) + 2

    def close(self) -> None:
        """Stop the tasks, and leave the cluster, unless the caller had joined it."""
        running = list(self._running)
        for future in running:
            self._ray.cancel(future.object_ref, force=True)  # type: ignore[attr-defined]
        # They no longer write when the folder is given free.
        futures.wait(running, _PATIENCE)
        self._token.unlink(missing_ok=True)
        if self._owns_connection:
            self._ray.shutdown()


def _connect(address: str | None) -> bool:
    """Join a cluster, or start one on this machine; return False if the caller has done it."""
    try:
        import ray
    except ImportError as error:
        raise ZhbertError(
            f"--engine ray: {error.name} is not installed: {how_to_install('ray')}"
        ) from None
    if ray.is_initialized():
        return False
    variable = os.environ.get("RAY_ADDRESS")
    where = "--address" if address else "RAY_ADDRESS" if variable else "the last cluster,"
    _check_answers(address or variable or _last_cluster(), where)
    for name, value in (
        ("RAY_USAGE_STATS_ENABLED", "0"),
        # A task without GPUs is not to hide them; said here, Ray does not warn about it.
        ("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0"),
    ):
        os.environ.setdefault(name, value)
    # Ray handles this signal in its own way, unlike the command.
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except (ConnectionError, RuntimeError, ValueError) as error:
        # RuntimeError: the versions of Python or Ray differ.
        raise ZhbertError(f"--engine ray: {' '.join(str(error).split())}") from None
    finally:
        with suppress(ValueError):  # not the main thread
            signal.signal(signal.SIGTERM, handler)
    return True


def _check_answers(address: str, where: str) -> None:
    """Raise ZhbertError if nothing listens at an address, for which Ray waits minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if not colon or not port.isdecimal():
        return  # auto, local
    try:
        socket.create_connection((host, int(port)), _PATIENCE).close()
    except OSError as error:
        raise ZhbertError(
            f"{where} {address}: no Ray cluster answers there ({error.strerror or error}): start "
            "one by 'ray start --head', or --address local works on this machine alone"
        ) from None


def _last_cluster() -> str:
    """Return the address of the cluster that this machine has joined last: Ray tries that, too."""
    # It stays there if the cluster's processes were killed.
    with suppress(OSError):
        folder = os.environ.get("RAY_TMPDIR", "/tmp")
        return Path(folder, "ray", "ray_current_cluster").read_text(encoding="utf-8").strip()
    return "auto"


def _cause(error: Any) -> Exception:
    """Return what went wrong in a task."""
    cause: Exception = getattr(error, "cause", error)
    if isinstance(cause, (ZhbertError, OSError)):
        return cause
    if isinstance(cause, ImportError) or "failed to import" in str(cause):
        return ZhbertError(
            f"--engine ray: a node lacks zhbert or what it needs ({_first_line(cause)}): install "
            f"zhbert {__version__} on every node"
        )
    return cause


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _versions(segmenter: Mapping[str, Any], tokenizer: str) -> dict[str, str]:
    """Return the versions of what the corpus depends on, as text, by name."""
    return {"zhbert": __version__, "the segmenter": str(segmenter), "the vocabulary": tokenizer}


# ---------------------------------------------------------------- in the cluster's processes

_worker: tuple[str, BlockWorker] | None = None


def _work(job: _Job, method: str, item: Any) -> Any:
    """Call a method of this process's BlockWorker.

    Raises:
        ZhbertError: this machine does not see a file, or has another version of something.
    """
    global _worker
    from ray.util import get_node_ip_address

    node = f"node {get_node_ip_address()}"  # type: ignore[no-untyped-call]
    try:
        if _worker is None or _worker[0] != job.token:
            _worker = job.token, _start(job, node)
        return getattr(_worker[1], method)(item)
    except FileNotFoundError as error:
        raise ZhbertError(
            f"{node} does not see {error.filename}: the folder must be shared, under the same name"
        ) from None


def _start(job: _Job, node: str) -> BlockWorker:
    import ray

    # The driver has opened the same vocabulary and said what is odd about it.
    warnings.simplefilter("ignore")
    with suppress(OSError):
        os.chdir(job.folder)
    settings: PreparationSettings = ray.get(job.settings[0])
    if not (settings.paths.partial / job.token).exists():
        raise FileNotFoundError(errno.ENOENT, "not shared", str(settings.paths.out))
    try:
        worker = BlockWorker(settings)
    except ZhbertError as error:
        raise ZhbertError(f"{node}: {error}") from None
    own = _versions(describe_segmenter(worker.segmenter), worker.tokenizer.fingerprint())
    for name, version in job.versions.items():
        if own[name] != version:
            raise ZhbertError(
                f"{node} has another version of {name} ({own[name]}) than this machine "
                f"({version}): install the same everywhere"
            )
    return worker
