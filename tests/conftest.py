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
def torch_as_it_was() -> Generator[None]:
    """Undo what a run sets in the process: its threads, and denormals, which hypothesis needs."""
    before = sys.modules.get("torch")
    threads = before.get_num_threads() if before else None
    yield
    if (torch := sys.modules.get("torch")) is not None:
        torch.set_flush_denormal(False)
        if threads and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


@pytest.fixture(scope="session", autouse=True)
def one_processor() -> Generator[None]:
    """Tests that want several workers say how many: starting them takes a second."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
        yield


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


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny corpus folder; read it only."""
    from tests.small_corpora import make_corpus

    return make_corpus(tmp_path_factory.mktemp("corpora") / "corpus")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory, corpus: Path) -> Path:
    """The run folder of twelve steps with four layers and sentence pairs; read it only."""
    from tests.small_corpora import TINY

    from zhbert.pretraining.run import pretrain

    folder = tmp_path_factory.mktemp("runs") / "finished"
    overrides = [*TINY, "steps=12", "checkpoint_every=5", "evaluate_every=6"]
    overrides += ["rows.builder=pairs", "model.num_hidden_layers=4"]
    pretrain("tiny", corpus, folder, overrides)
    return folder


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For every kind of task a folder with its card, its files and a finished run; read only."""
    from tests.small_tasks import CARDS, LEARNING, QUICK, make_model, make_task

    from zhbert.finetuning.run import finetune

    folder = tmp_path_factory.mktemp("tuned")
    model = make_model(folder / "model")
    for kind in CARDS:
        card = make_task(folder / kind, kind, train=320)
        finetune(card, model, None, folder / kind / "run", [*QUICK, *LEARNING])
    return folder


@pytest.fixture
def packaged_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny model in the place of zhbert-mini: the folder, in an otherwise empty package."""
    from tests.small_models import make_model

    from zhbert.zoo import packaged

    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "assets")
    folder = make_model(packaged.FOLDER / packaged.DEFAULT)
    packaged.write_checksums(folder)
    return folder


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Where the development data is, every test runs: a skipped one hides a missing part.

    Only what a machine cannot have may be missing; such reasons begin with "this machine".
    """
    report = yield
    excused = hasattr(report, "wasxfail") or "Skipped: this machine" in str(report.longrepr)
    if report.skipped and not excused and os.environ.get("ZHBERT_DATA"):
        report.outcome = "failed"
        report.longrepr = f"skipped although ZHBERT_DATA is set: {report.longrepr}"
    return report
