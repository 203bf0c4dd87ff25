"""The scripts under benchmarks/, as modules."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

FOLDER = Path(__file__).parent.parent.parent / "benchmarks"


def script(name: str) -> ModuleType:
    """A script without running it; the wheel is tested without the source tree, and skips."""
    path = FOLDER / f"{name}.py"
    if not path.exists():
        pytest.skip("no benchmarks here", allow_module_level=True)
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where dataclasses look their annotations up
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(FOLDER)  # a script may use its neighbour
        spec.loader.exec_module(module)
    return module
