"""A segmenter that is written outside of the package works everywhere by its name."""

from __future__ import annotations

import importlib
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from zhbert import cli, load_segmenter
from zhbert.data.prepare import prepare
from zhbert.data.shards import Corpus
from zhbert.errors import ZhbertError
from zhbert.text.segmenters import SEGMENTERS, Segmenter
from zhbert.text.segmenters.protocol import check_run_ends, word_ends_of

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
    with pytest.raises(ZhbertError, match="the segmenter cannot be pickled for other processes"):
        prepare([file], tmp_path / "corpus", segmenter="pairs", workers=2)
    assert not (tmp_path / "corpus").exists()


# ---------------------------------------------------------------- mistakes in a segmenter

TEXTS = ["", "语言", "语言模型语言模型语言"]
RIGHT = [[], [2], [2, 4, 6, 8, 10]]
LONG = "text 3 of 3, '语言模型语言模型…' (10 characters): "


class Returns(Segmenter):
    """Finds what it was told to."""

    name = "pairs"
    version = "1"

    def __init__(self, result: Any) -> None:
        self.options: dict[str, Any] = {}
        self.result = result

    def segment(self, texts: Any) -> Any:
        return self.result


def arrays(*ends: list[int]) -> list[Any]:
    return [np.array(one, np.int64) for one in ends]


def test_right_word_ends_come_as_int32() -> None:
    found = word_ends_of(Returns(arrays(*RIGHT)), TEXTS)
    assert [ends.tolist() for ends in found] == RIGHT
    assert {ends.dtype for ends in found} == {np.dtype(np.int32)}
    assert word_ends_of(Returns([]), []) == []


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "a list of arrays is expected; got NoneType"),
        (arrays([], [2]), "an array for each of 3 texts is expected; got 2"),
        (RIGHT, "text 1 of 3, '' (0 characters): an array of integers is expected; got list"),
        ([*arrays([], [2]), np.array([10.0])], "integers is expected; got float64, shape (1,)"),
        (arrays([], [2], [2, 2, 2, 2, 2]), "got 2, 2, 2, … (ends are positions, not lengths)"),
        (arrays([], [2], [2, 4, 8, 6, 10]), LONG + "ends must increase and end at 10; got …, 8, 6"),
        (arrays([], [2], [2, 4, 6, 8]), "end at 10; got …, 4, 6, 8"),
        (arrays([], [2], [2, 4, 12]), "end at 10; got 2, 4, 12"),
        (arrays([], [2], [0, 10]), "end at 10; got 0, 10"),
        (
            arrays([], [], [10]),
            "text 2 of 3, '语言' (2 characters): ends must increase and end at 2; got none",
        ),
        (arrays([0], [2], [10]), "an empty text has no words; got 0"),
    ],
)
def test_wrong_word_ends_are_one_line_that_names_the_segmenter(result: Any, message: str) -> None:
    with pytest.raises(ZhbertError) as error:
        word_ends_of(Returns(result), TEXTS)
    assert str(error.value).startswith("segmenter pairs: segment(): ")
    assert message in str(error.value)


@pytest.mark.parametrize("verb", ["segment", "mask", "prepare"])
def test_no_verb_takes_lengths_for_ends(
    verb: str, file: Path, tmp_path: Path, module: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    SEGMENTERS["pairs"] = lambda **options: Returns([np.array([2, 2], np.int32)])
    arguments = {
        "segment": [str(file)],
        "mask": ["语言模型"],
        "prepare": [str(file), "--out", str(tmp_path / "corpus")],
    }[verb]
    assert cli.main([verb, *arguments, "--segmenter", "pairs"]) == 2
    shown = capsys.readouterr()
    assert "segmenter pairs: segment(): text 1 of 1" in shown.err
    assert "Traceback" not in shown.err


@pytest.mark.parametrize("ends", [[0, 4], [2, 2], [4, 2], [5]])
def test_a_segment_run_of_ones_own_is_checked_too(ends: list[int]) -> None:
    with pytest.raises(ZhbertError, match=r"pairs: segment_run\(\): ends must increase .* 1 to 4"):
        check_run_ends(Returns(None), np.array(ends), 4)
    assert check_run_ends(Returns(None), np.array([2, 3]), 4).tolist() == [2, 3]


def test_an_incomplete_segmenter_is_one_line(file: Path, tmp_path: Path) -> None:
    class Nameless(Segmenter):
        version = "1"
        options: dict[str, Any] = {}  # noqa: RUF012

        def segment(self, texts: Any) -> Any:
            return []

    for entry, message in (
        (lambda **options: Nameless(), "segmenter Nameless: has no name; derive it"),
        (lambda **options: Nameless, "segmenter Nameless: a class; an instance"),
        (lambda **options: None, "segmenter NoneType: has no name, version, options"),
        (Returns(None), "pairs: SEGMENTERS takes a class or a function .* an instance of Returns"),
    ):
        SEGMENTERS["pairs"] = entry  # type: ignore[assignment]
        with pytest.raises(ZhbertError, match=message):
            load_segmenter("pairs")
        with pytest.raises(ZhbertError, match=message):
            prepare([file], tmp_path / "corpus", segmenter="pairs")
    with pytest.raises(ZhbertError, match="has no name"):
        prepare([file], tmp_path / "corpus", segmenter=Nameless())


def test_an_unknown_name_says_how_a_segmenter_becomes_known() -> None:
    with pytest.raises(ZhbertError, match=r"hanlp, pairs; one of your own\? run the script"):
        load_segmenter("piars")


def test_workers_of_a_script_without_a_guard_say_what_is_missing(
    file: Path, tmp_path: Path
) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from zhbert.data.prepare import prepare\n"
        f"prepare([{str(file)!r}], {str(tmp_path / 'corpus')!r}, workers=2)\n",
        encoding="utf-8",
    )
    process = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert process.returncode == 1
    assert "a worker process could not start: put the call" in process.stderr.splitlines()[-1]
    assert 'under if __name__ == "__main__":' in process.stderr.splitlines()[-1]
    assert "another process is at work" not in process.stderr
    assert "out of memory" not in process.stderr
