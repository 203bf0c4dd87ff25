"""Prefetching of steps in a thread; batches in pinned memory and on the device."""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, cast

import torch
from torch import Tensor

from zhbert.errors import ZhbertError

Batch = TypeVar("Batch")
Item = TypeVar("Item")


class Prefetcher(Generic[Item]):
    """A thread that makes the next steps' data while the model computes.

    Args:
        source: yields each step's data; it is advanced in the thread.
        depth: how many steps to make ahead.
    """

    def __init__(self, source: Iterator[Item], depth: int = 2) -> None:
        self._source = source
        self._queue: queue.Queue[Item | BaseException | None] = queue.Queue(depth)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._fill, name="prefetch", daemon=True)

    def __enter__(self) -> Prefetcher[Item]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        self._thread.join(timeout=10)

    def take(self) -> tuple[Item, float]:
        """Return the next step's data, and the seconds spent waiting for them.

        Raise the source's exception, or ZhbertError if the source has ended.
        """
        begun = time.perf_counter()
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        if item is None:
            raise ZhbertError("the training data ended before the last step")
        return item, time.perf_counter() - begun

    def _fill(self) -> None:
        try:
            for item in self._source:
                if not self._put(item):
                    return
            self._put(None)
        except BaseException as error:  # take() raises it in the caller's thread
            self._put(error)

    def _put(self, item: Item | BaseException | None) -> bool:
        while not self._closed.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False


def pinned(batch: Batch, device: torch.device) -> Batch:
    """Copy ``batch`` to memory from which a GPU reads by itself; for the CPU it is unchanged."""
    return map_tensors(batch, lambda t: t.pin_memory()) if device.type == "cuda" else batch


def to_device(batch: Batch, device: torch.device) -> Batch:
    """Move ``batch``, a dataclass of tensors, such dataclasses and tuples of them, to ``device``.

    For the CPU it is returned unchanged.
    """
    if device.type == "cpu":
        return batch
    return map_tensors(batch, lambda tensor: tensor.to(device, non_blocking=True))


def map_tensors(batch: Batch, change: Callable[[Tensor], Tensor]) -> Batch:
    """Return the same batch with each of its tensors changed."""
    changes: dict[str, Any] = {}
    for item in dataclasses.fields(cast(Any, batch)):
        value = getattr(batch, item.name)
        if isinstance(value, Tensor):
            changes[item.name] = change(value)
        elif dataclasses.is_dataclass(value):
            changes[item.name] = map_tensors(value, change)
        elif isinstance(value, tuple):
            changes[item.name] = tuple(map_tensors(one, change) for one in value)
    return cast(Batch, dataclasses.replace(cast(Any, batch), **changes))
