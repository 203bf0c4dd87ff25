"""TextBrewer, the oracle of distillation, where it is importable."""

from __future__ import annotations

import warnings
from typing import Any

import pytest


@pytest.fixture(scope="session")
def textbrewer() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it compares strings by identity
        return pytest.importorskip(
            "textbrewer", reason="this machine has no TextBrewer: put its folder on PYTHONPATH"
        )
