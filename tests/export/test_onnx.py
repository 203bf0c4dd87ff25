"""zhbert convert --to onnx: graphs that compute what transformers does, in everyone's layout."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.small_models import PIECES, SHAPE, make_model
from tests.transformers4 import run_with_transformers4

from zhbert.cli import main
from zhbert.errors import ZhbertError
from zhbert.export import ONNX_OPSETS, onnx_graph
from zhbert.export import onnx as exporting
from zhbert.export.onnx import export_onnx
from zhbert.model.config import BertConfig
from zhbert.model.onnx_files import GRAPHS, INPUTS, OUTPUTS, TASKS
from zhbert.sentences.model import SentenceModel
from zhbert.sentences.modules import DenseConfig, NormalizeConfig, SentenceConfig
from zhbert.sentences.pooling import POOLING_MODES
from zhbert.text.tokenizer import Tokenizer

LONGEST = SHAPE["max_position_embeddings"]
# Each task with another activation. Weights so large that attention picks single pieces: a graph
# that is a little wrong is then very wrong.
LARGE = {"num_hidden_layers": 2, "initializer_range": 1.0}
KINDS: dict[str, dict[str, Any]] = {
    "encoder": {"hidden_act": "relu"},
    "fill": {"hidden_act": "gelu_new"},
    "classify": {"num_labels": 3},
    "tag": {"num_labels": 5},
    "span": {"num_labels": 2},
}


class Exported:
    """A model of transformers, and its graph as ONNX Runtime runs it."""

    def __init__(self, folder: Path, model: Any, report: dict[str, Any]) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        self.folder, self.model, self.report = folder, model, report
        self.session = onnxruntime.InferenceSession(folder / report["file"], options)

    def run(self, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        names = [one.name for one in self.session.get_outputs()]
        return dict(zip(names, self.session.run(names, inputs), strict=True))

    def theirs(self, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        tensors = {name: torch.from_numpy(values) for name, values in inputs.items()}
        with torch.inference_mode():
            output = self.model(**tensors)
        return {name: value.numpy() for name, value in output.items()}


@pytest.fixture(scope="module")
def exports(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Exported]:
    """Exports of each task, made when first asked for."""
    import transformers

    made: dict[str, Exported] = {}

    def export(task: str) -> Exported:
        if task not in made:
            folder = tmp_path_factory.mktemp(task)
            kind = getattr(transformers, TASKS[task])
            make_model(folder / "model", kind=kind, **LARGE, **KINDS[task])
            report = export_onnx(folder / "model", folder / "onnx")
            made[task] = Exported(
                folder / "onnx", kind.from_pretrained(folder / "model").eval(), report
            )
        return made[task]

    return export


def rows(lengths: list[int], seed: int = 0) -> dict[str, np.ndarray]:
    """Rows of random pieces with two segments, padded with pieces that must not count."""
    rng = np.random.default_rng(seed)
    shape = len(lengths), max(lengths)
    there = np.arange(shape[1]) < np.array(lengths)[:, None]
    values = rng.integers(0, len(PIECES), shape), there, rng.integers(0, 2, shape)
    return dict(zip(INPUTS, (value.astype(np.int64) for value in values), strict=True))


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max(initial=1e-9))


@pytest.mark.parametrize("task", KINDS)
def test_a_graph_computes_what_transformers_does(
    exports: Callable[[str], Exported], task: str
) -> None:
    exported = exports(task)
    assert (exported.report["task"], exported.report["architecture"]) == (task, TASKS[task])

    @settings(max_examples=20, deadline=None)
    @given(lengths=st.lists(st.integers(1, LONGEST), min_size=1, max_size=5))
    def holds(lengths: list[int]) -> None:
        inputs = rows(lengths)
        there = inputs["attention_mask"] != 0
        theirs = exported.theirs(inputs)
        for name, values in exported.run(inputs).items():
            per_piece = values.shape[:2] == there.shape and task != "classify"
            pieces = there if per_piece and name != "pooler_output" else slice(None)
            assert_close(values[pieces], theirs[name][pieces])

    holds()


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=4), count=st.integers(1, 5))
def test_logits_at_asked_positions_alone(
    exports: Callable[[str], Exported], lengths: list[int], count: int
) -> None:
    exported, inputs = exports("fill"), rows(lengths)
    every = exported.run(inputs)["logits"]
    asked = np.random.default_rng(count).integers(0, max(lengths), (len(lengths), count))
    found = exported.run({**inputs, "positions": asked})["logits"]
    assert found.shape == (len(lengths), count, len(PIECES))
    assert_close(found, np.take_along_axis(every, asked[:, :, None], 1))


def test_positions_are_no_input_that_other_programs_see(
    exports: Callable[[str], Exported],
) -> None:
    session = exports("fill").session
    assert [one.name for one in session.get_inputs()] == [*INPUTS]
    assert [one.name for one in session.get_overridable_initializers()] == ["positions"]


@pytest.mark.parametrize("task", KINDS)
def test_a_row_of_padding_alone_is_no_nan(exports: Callable[[str], Exported], task: str) -> None:
    inputs = rows([3, 4])
    inputs["attention_mask"][0] = 0
    assert all(np.isfinite(values).all() for values in exports(task).run(inputs).values())


def test_the_tied_matrix_is_stored_once(exports: Callable[[str], Exported]) -> None:
    import onnx

    graph = onnx.load(exports("fill").folder / "onnx" / "model.onnx").graph
    both = {len(PIECES), SHAPE["hidden_size"]}
    assert len([one for one in graph.initializer if set(one.dims) == both]) == 1


def test_the_check_of_onnx_passes(exports: Callable[[str], Exported]) -> None:
    import onnx

    onnx.checker.check_model(exports("fill").folder / "onnx" / "model.onnx", full_check=True)


@pytest.mark.parametrize("task", KINDS)
def test_optimum_opens_the_folder(exports: Callable[[str], Exported], task: str) -> None:
    exported, inputs = exports(task), rows([7, 40, 1])
    optimum = {"encoder": "FeatureExtraction", "fill": "MaskedLM", "tag": "TokenClassification"}
    optimum |= {"classify": "SequenceClassification", "span": "QuestionAnswering"}
    found = run_with_transformers4(
        """
        """.strip()
        + "import json, sys, torch, optimum.onnxruntime as o\n"
        "model = getattr(o, 'ORTModelFor' + sys.argv[1]).from_pretrained(sys.argv[2])\n"
        "inputs = {k: torch.tensor(v) for k, v in json.loads(sys.argv[3]).items()}\n"
        "result = {k: v.tolist() for k, v in model(**inputs).items()}\n",
        optimum[task],
        str(exported.folder),
        json.dumps({name: values.tolist() for name, values in inputs.items()}),
    )
    for name, values in exported.run(inputs).items():
        if name in found:
            assert_close(np.float32(found[name]), values)
    assert set(found) & set(OUTPUTS[task])
