"""The newest transformers 4, in one process beside this one that all tests here share."""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.another_python import AnotherPython

ROOT = Path(__file__).parent.parent


@functools.cache
def _process() -> AnotherPython:
    folder = Path(os.environ.get("ZHBERT_TRANSFORMERS4", ROOT / ".transformers4"))
    if not (folder / "transformers").is_dir():
        pytest.skip(f"{folder}: transformers 4 is not there; 'make test' installs it")
    # Pipelines look at every TensorFlow class where TensorFlow is installed, too.
    offline = {"HF_HUB_OFFLINE": "1", "USE_TF": "0"}
    return AnotherPython(sys.executable, {**offline, "PYTHONPATH": str(folder)})


def run_with_transformers4(program: str, *arguments: str) -> Any:
    """What a program, given ``arguments`` as ``sys.argv[1:]``, leaves as ``result``."""
    return _process().run(program, *arguments)
