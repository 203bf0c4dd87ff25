"""What every test may use: the development data, and quiet, bounded libraries."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

settings.register_profile(
    "zhbert", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("zhbert")


@pytest.fixture(scope="session")
def data() -> Path:
    """The development data that ZHBERT_DATA names: never part of the project."""
    folder = os.environ.get("ZHBERT_DATA")
    if not folder:
        pytest.skip("ZHBERT_DATA is not set: the development data is not here")
    path = Path(folder).resolve()
    if not (path / "corpus").is_dir():
        pytest.fail(f"ZHBERT_DATA={folder}: no corpus/ folder there")
    return path
