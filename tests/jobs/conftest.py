"""A tiny corpus made by code, and a finished run on it, for all tests of the jobs."""

from __future__ import annotations

import pytest
import torch
from tests.jobs.corpora import TINY, make_corpus


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A corpus folder; read it only."""
    return make_corpus(tmp_path_factory.mktemp("corpora") / "corpus")


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory, corpus):
    """The run folder of twelve steps with four layers and sentence pairs; read it only."""
    from zhbert.jobs.pretrain import pretrain

    folder = tmp_path_factory.mktemp("runs") / "finished"
    overrides = [*TINY, "steps=12", "checkpoint_every=5", "evaluate_every=6"]
    overrides += ["rows.builder=pairs", "model.num_hidden_layers=4"]
    pretrain("tiny", corpus, folder, overrides)
    return folder


@pytest.fixture
def packaged_model(tmp_path, monkeypatch):
    """A tiny model in the place of zhbert-mini: the folder, in an otherwise empty package."""
    from tests.jobs.small_models import make_model

    from zhbert.zoo import packaged

    monkeypatch.setattr(packaged, "FOLDER", tmp_path / "assets")
    folder = make_model(packaged.FOLDER / packaged.DEFAULT)
    packaged.write_checksums(folder)
    return folder


@pytest.fixture(autouse=True)
def as_it_was():
    """Give PyTorch's threads back to other tests."""
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
