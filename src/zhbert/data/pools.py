"""Where a corpus is worked on: in this process, or in several (`ray_pool`: on several machines)."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import wait
from multiprocessing.synchronize import Event
from typing import Any, Protocol, TypeVar

from zhbert.data.block_worker import BlockWorker, PreparationSettings
from zhbert.errors import ZhbertError

Item = TypeVar("Item")
"""What a method of BlockWorker works on: a block, for example."""


class Pool(Protocol):
    """One worker or several."""

    def map(self, method: str, items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        """Call this method of BlockWorker for each item; yield items and results in order."""

    def close(self) -> None:
        """Stop at once, also in the middle of the work."""


class InProcess:
    """One worker: this process."""

    def __init__(self, worker: BlockWorker) -> None:
        self._worker = worker

    def map(self, method: str, items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        """Yield each item with its result, which is computed only when it is asked for."""
        for item in items:
            yield item, getattr(self._worker, method)(item)

    def close(self) -> None:
        """Do nothing, as there are no processes to stop."""


def in_order(
    submit: Callable[[Item], Future[Any]],
    items: Iterable[Item],
    most: Callable[[], int],
    ahead: int = 1,
) -> Iterator[tuple[Item, Future[Any]]]:
    """Yield each item with its future, in order; at most ``most()`` run at a time.

    If one takes long, others go on, until ``ahead`` times as many have not been yielded.
    """
    running: set[Future[Any]] = set()
    waiting: deque[tuple[Item, Future[Any]]] = deque()
    for item in items:
        while len(running) >= most():
            running = futures.wait(running, return_when=futures.FIRST_COMPLETED).not_done
        future = submit(item)
        running.add(future)
        waiting.append((item, future))
        while waiting and (waiting[0][1].done() or len(waiting) >= ahead * most()):
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def check_may_start_processes() -> None:
    """Raise ZhbertError in a process that is only importing the script that started it.

    The script's call has to be under ``if __name__ == "__main__"``: otherwise each worker would
    make the same call again.
    """
    # The flag by which multiprocessing itself refuses to start a process at this time.
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise ZhbertError(
            'put the call of prepare under if __name__ == "__main__": (a worker imports the script '
            "that started it)"
        )


def check_can_be_sent(settings: PreparationSettings) -> None:
    """Raise ZhbertError if other processes cannot be given the segmenter."""
    try:
        pickle.dumps(settings)
    except Exception as error:
        raise ZhbertError(
            f"the segmenter cannot be pickled for other processes ({error}): add a class or "
            "function of a module to SEGMENTERS, or use --workers 1"
        ) from error


class Processes:
    """Several workers: processes that are started afresh.

    Raises ZhbertError if the segmenter cannot be sent to them.
    """

    def __init__(self, settings: PreparationSettings, workers: int) -> None:
        check_can_be_sent(settings)
        self._workers = workers
        # Never fork: the caller may hold threads and locks (torch does).
        context = multiprocessing.get_context("spawn")
        self._one_started = context.Event()
        self._executor = ProcessPoolExecutor(
            workers,
            mp_context=context,
            initializer=_start_worker,
            initargs=(settings, self._one_started),
        )

    def map(self, method: str, items: Iterable[Item]) -> Iterator[tuple[Item, Any]]:
        """Yield each item with its result, in order; only a few items wait at a time.

        Raises:
            ZhbertError: a process could not start, or has died.
        """

        def submit(item: Item) -> Future[Any]:
            return self._executor.submit(_call_worker, method, item)

        try:
            # Two more than there are workers, so that none of them waits.
            for item, future in in_order(submit, items, lambda: self._workers + 2):
                yield item, future.result()
        except BrokenProcessPool:
            if not self._one_started.is_set():
                raise ZhbertError(
                    "a worker process could not start: put the call, and only the call, under "
                    'if __name__ == "__main__": (a worker imports the script that started it; its '
                    "own error is above)"
                ) from None
            raise ZhbertError(
                "a worker process died (out of memory?): run the same command again with fewer "
                "--workers; finished shards are kept"
            ) from None

    def close(self) -> None:
        """Kill the processes: after an error or Ctrl-C, unfinished blocks are not needed."""
        for process in list((getattr(self._executor, "_processes", None) or {}).values()):
            process.kill()
        self._executor.shutdown(cancel_futures=True)


_worker: BlockWorker | None = None


def _start_worker(settings: PreparationSettings, started: Event) -> None:
    """Make this process a worker: it leaves signals to its parent, and ends when that ends."""
    global _worker
    started.set()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    # There is a process for each CPU: a neural segmenter's library would start as many threads in
    # each of them.
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    # The parent has opened the same vocabulary and said what is odd about it.
    warnings.simplefilter("ignore")
    _worker = BlockWorker(settings)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _call_worker(method: str, item: object) -> Any:
    assert _worker is not None
    return getattr(_worker, method)(item)
