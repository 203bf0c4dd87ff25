"""Signals that end a run: the first is recorded, so that the run is saved; the second aborts."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

from zhbert.errors import Interrupted


class StopSignals:
    """A context that records the first SIGINT, SIGTERM or SIGHUP; a second raises Interrupted.

    Args:
        notice: called with a line in the signal handler when the first signal arrives.
        alone: this is the run's only process. Otherwise a second signal counts only if it is
            SIGINT, since torchrun sends an additional SIGTERM on Ctrl-C.
    """

    def __init__(self, notice: Callable[[str], None], alone: bool = True) -> None:
        self.received: int | None = None
        """The first signal's number."""
        self._notice = notice
        self._alone = alone
        self._former: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        # Python delivers signals to the main thread only.
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                if signal.getsignal(number) != signal.SIG_IGN:  # nohup ignores SIGHUP
                    self._former[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.received is not None:
            if self._alone or number == signal.SIGINT:
                raise Interrupted(number)
            return
        self.received = number
        again = "; Ctrl-C again stops at once" if number == signal.SIGINT else ""
        # torchrun also sends SIGTERM when another process has failed: then nothing can be saved.
        others = "" if self._alone else ", if its other processes still answer"
        self._notice(f"stopping: the run is saved first{others}{again}")


def write_notice(line: str) -> None:
    """Write a line to stderr inside a signal handler."""
    try:
        # sys.stderr may be in the middle of a write, and is not reentrant.
        os.write(2, f"\n{line}\n".encode())
    except OSError:
        # The terminal is closed: further output must not end the run before it is saved.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
