"""The newest transformers 4, in one process beside this one that all tests here share."""

from __future__ import annotations

import atexit
import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
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


@functools.cache
def _process() -> subprocess.Popen[str]:
    folder = Path(os.environ.get("ZHBERT_TRANSFORMERS4", ROOT / ".transformers4"))
    if not (folder / "transformers").is_dir():
        pytest.skip(f"{folder}: transformers 4 is not there; 'make test' installs it")
    # Pipelines look at every TensorFlow class where TensorFlow is installed, too.
    offline = {"HF_HUB_OFFLINE": "1", "USE_TF": "0"}
    process = subprocess.Popen(
        [sys.executable, "-c", _SERVER],
        env={**os.environ, **offline, "PYTHONPATH": str(folder)},
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    atexit.register(_end, process)
    return process


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def run_with_transformers4(program: str, *arguments: str) -> Any:
    """What a program, given ``arguments`` as ``sys.argv[1:]``, leaves as ``result``."""
    process = _process()
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps([program, *arguments]) + "\n")
    process.stdin.flush()
    answer = json.loads(process.stdout.readline())
    assert "error" not in answer, answer["error"]
    return answer["result"]
