"""A segmenter that is written outside of the package works everywhere by its name."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import pytest

from zhbert import cli, load_segmenter
from zhbert.data.prepare import prepare
from zhbert.data.shards import Corpus
from zhbert.errors import ZhbertError
from zhbert.text.segmenters import SEGMENTERS

SOURCE = """
import numpy as np
from zhbert import Segmenter
from zhbert.errors import ZhbertError


class PairsSegmenter(Segmenter):
    "Every two characters are a word."

    name = "pairs"
    version = "1"

    def __init__(self, *, user_words, traditional, model):
        if user_words or model:
            raise ZhbertError("segmenter pairs: it takes no user words and no model")
        self.options = {}  # whatever is simplified, the words end at the same places

    def segment(self, texts):
        return [np.unique([*range(2, len(t), 2), len(t)])[: len(t)].astype(np.int32) for t in texts]
"""


@pytest.fixture(autouse=True)
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A user's module, which other processes find too."""
    folder = tmp_path / "code"
    folder.mkdir()
    (folder / "pairs_segmenter.py").write_text(SOURCE, encoding="utf-8")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.delitem(sys.modules, "pairs_segmenter", raising=False)
    module = importlib.import_module("pairs_segmenter")
    monkeypatch.setitem(SEGMENTERS, "pairs", module.PairsSegmenter)
    return module


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "a.txt"
    path.write_text("语言模型\n", encoding="utf-8")
    return path


def test_it_is_loaded_by_its_name_with_the_usual_options() -> None:
    segmenter = load_segmenter("pairs", traditional="none")
    assert segmenter.options == {}
    assert (segmenter.remarks, segmenter.unaligned) == ((), 0)
    with pytest.raises(ZhbertError, match="no user words and no model"):
        load_segmenter("pairs", model="x")


def test_the_command_line_takes_it(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["segment", str(file), "--segmenter", "pairs"]) == 0
    assert capsys.readouterr().out == "语言 模型\n"


@pytest.mark.parametrize("workers", [1, 2])
def test_corpora_are_prepared_with_it(file: Path, tmp_path: Path, workers: int) -> None:
    out = str(tmp_path / "corpus")
    options = ["--segmenter", "pairs", "--held-out", "0", "--workers", str(workers)]
    assert cli.main(["prepare", str(file), "--out", out, *options]) == 0
    corpus = Corpus.open(out)
    assert corpus.info["segmenter"] == {
        "name": "pairs",
        "version": "1",
        "options": {},
    }
    assert corpus.shards("train")[0].word_starts().tolist() == [True, False] * 2


def test_prepare_takes_an_instance(file: Path, tmp_path: Path, module: ModuleType) -> None:
    segmenter = module.PairsSegmenter(user_words=None, traditional="none", model=None)
    report = prepare([file], tmp_path / "corpus", segmenter=segmenter, held_out=0)
    assert report["segmenter"]["name"] == "pairs"
    with pytest.raises(ZhbertError, match="pairs: is loaded already"):
        prepare([file], tmp_path / "b", segmenter=segmenter, segmenter_model="x")


def test_what_other_processes_cannot_get_is_one_clear_line(
    file: Path, tmp_path: Path, module: ModuleType
) -> None:
    SEGMENTERS["pairs"] = lambda **options: module.PairsSegmenter(**options)
    with pytest.raises(ZhbertError, match="--workers 2: the segmenter cannot be pickled"):
        prepare([file], tmp_path / "corpus", segmenter="pairs", workers=2)
    assert not (tmp_path / "corpus").exists()
