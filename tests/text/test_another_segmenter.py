"""A segmenter that is written outside of the package works everywhere by its name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from zhbert import Segmenter, cli, load_segmenter
from zhbert.data.shards import Corpus
from zhbert.errors import ZhbertError
from zhbert.text.segmenters import SEGMENTERS

TEXT = "语言模型\n"


class PairsSegmenter(Segmenter):
    """Every two characters are a word."""

    name = "pairs"
    version = "1"

    def __init__(
        self, *, user_words: Path | None, traditional: str, model: str | Path | None
    ) -> None:
        if model is not None:
            raise ZhbertError(f"segmenter pairs: {model}: no models")
        self.options = {"traditional": traditional}

    def segment(self, texts: Sequence[str]) -> list[np.ndarray]:
        return [np.array([*range(2, len(t), 2), len(t)][: len(t)], np.int32) for t in texts]


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SEGMENTERS, "pairs", PairsSegmenter)


def test_it_is_loaded_by_its_name_with_the_usual_options() -> None:
    segmenter = load_segmenter("pairs", traditional="none")
    assert segmenter.options == {"traditional": "none"}
    assert (segmenter.remarks, segmenter.unaligned) == ((), 0)
    with pytest.raises(ZhbertError, match="x: no models"):
        load_segmenter("pairs", model="x")


def test_the_command_line_takes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.txt"
    file.write_text(TEXT, encoding="utf-8")
    assert cli.main(["segment", str(file), "--segmenter", "pairs"]) == 0
    assert capsys.readouterr().out == "语言 模型\n"
    out = str(tmp_path / "corpus")
    arguments = [str(file), "--segmenter", "pairs", "--held-out", "0", "--workers", "1"]
    assert cli.main(["prepare", *arguments, "--out", out]) == 0
    corpus = Corpus.open(tmp_path / "corpus")
    assert corpus.info["segmenter"]["name"] == "pairs"
    assert corpus.shards("train")[0].word_starts().tolist() == [True, False] * 2
