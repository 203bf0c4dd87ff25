"""Libraries of another environment, in one process beside this one that all tests share."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
from collections.abc import Mapping
from typing import Any

# Each line names a program and its arguments; the answer is the program's ``result``.
_SERVER = """
import json, os, sys, traceback, warnings
warnings.simplefilter("ignore")
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # what a library prints is no answer
for line in sys.stdin:
    program, *sys.argv[1:] = json.loads(line)
    names = {}
    try:
        exec(program, names)
        answer = {"result": names["result"]}
    except Exception:
        answer = {"error": traceback.format_exc()}
    print(json.dumps(answer), file=answers, flush=True)
"""


class AnotherPython:
    """A process of ``python`` in which programs run one after the other."""

    def __init__(self, python: str, variables: Mapping[str, str], *, first: str = "") -> None:
        """Start it with these variables added; ``first`` runs before all programs."""
        self._process = subprocess.Popen(
            [python, "-c", first + _SERVER], env={**os.environ, **variables},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        atexit.register(self._end)

    def _end(self) -> None:
        self._process.kill()
        self._process.communicate()

    def run(self, program: str, *arguments: str) -> Any:
        """Return what a program, given ``arguments`` as ``sys.argv[1:]``, leaves as ``result``."""
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps([program, *arguments]) + "\n")
        process.stdin.flush()
        answer = json.loads(process.stdout.readline())
        assert "error" not in answer, answer["error"]
        return answer["result"]
