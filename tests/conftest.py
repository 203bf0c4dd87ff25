"""What every test may use: the development data, and quiet, bounded libraries."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# Started in the background, the tests and all that they start would not hear these.
for _signal in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_signal) is signal.SIG_IGN:
        default = signal.default_int_handler if _signal is signal.SIGINT else signal.SIG_DFL
        signal.signal(_signal, default)

settings.register_profile(
    "zhbert", deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("zhbert")


@pytest.fixture(autouse=True)
def denormals() -> Generator[None]:
    """Give denormal numbers back: computing has the CPU flush them, and hypothesis minds that."""
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_flush_denormal(False)


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


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where the development data is, every test runs: a skipped one hides a missing part."""
    report = yield
    if report.skipped and not hasattr(report, "wasxfail") and os.environ.get("ZHBERT_DATA"):
        report.outcome = "failed"
        report.longrepr = f"skipped although ZHBERT_DATA is set: {report.longrepr}"
    return report
