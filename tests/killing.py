"""Kills at the n-th operation on files, in a child, and disks that are full, by the system."""

from __future__ import annotations

import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import pytest

# Python tells of these before it does them. A write is none of them: see ``killed_at_size``.
OPERATIONS = {
    "ctypes.dlsym",  # comes before the exchange of two names
    "fcntl.flock",
    "open",
    "os.link",
    "os.mkdir",
    "os.remove",
    "os.rename",
    "os.rmdir",
    "os.scandir",
    "os.truncate",
}


def killed(work: Callable[[], object], prepare: Callable[[], object]) -> bool:
    """Run ``prepare`` and ``work`` in a child; was it killed?"""
    child = os.fork()
    if not child:
        code = 1
        try:
            prepare()
            work()
            code = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
        finally:
            os._exit(code)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) in (signal.SIGKILL, signal.SIGXFSZ)
        return True
    assert os.WEXITSTATUS(status) == 0, "the child failed by itself"
    return False


def kill_before(number: int) -> None:
    """Kill this process before its ``number``-th operation on files from now on."""
    left = number

    def count(event: str, arguments: object) -> None:
        nonlocal left
        if event in OPERATIONS:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


def kill_at_size(size: int) -> None:
    """Kill this process as soon as a file of its grows beyond ``size`` bytes."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)


def every_kill(
    work: Callable[[], object], sizes: tuple[int, ...] = (), *, step: int = 1
) -> Iterator[str]:
    """Run ``work`` again and again, killed before each of its operations (each ``step``-th), until
    it is not killed; then killed in the middle of files of these ``sizes``. Between them the caller
    looks at what is left, and puts everything back.
    """
    number = 1
    while killed(work, partial(kill_before, number)):
        yield f"before operation {number}"
        number += step
    assert number > 5, "operations are counted"
    yield "not at all"
    for size in sizes:
        if killed(work, partial(kill_at_size, size)):
            yield f"at {size} bytes"


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes: the system's own error, also in others' code."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def one_line(capsys: pytest.CaptureFixture[str], out: str) -> str:
    """The one line that a verb ended with: an error that names what is in ``out``."""
    said = capsys.readouterr().err
    assert said.startswith("zhbert: error: ")
    assert said.count("\n") == 1
    assert f" {out}" in said, said
    assert "zhbert-" not in said, "no temporary names"
    return said
