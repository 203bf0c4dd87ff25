"""zhbert convert --to onnx: graphs that compute what transformers does, in everyone's layout."""

from __future__ import annotations

import importlib.util
import json
import re
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
from zhbert.export import ONNX_OPSETS
from zhbert.export import onnx as exporting
from zhbert.export.onnx import export_onnx
from zhbert.inference.onnx_model import OnnxModel
from zhbert.model.activations import ACTIVATIONS
from zhbert.model.config import BertConfig
from zhbert.model.onnx_files import GRAPHS, INPUTS, OUTPUTS, TASKS
from zhbert.model.pretrained import BertForMaskedLM
from zhbert.packing import PackedBatch
from zhbert.sentences.model import SentenceModel
from zhbert.sentences.modules import DenseConfig, NormalizeConfig, SentenceConfig
from zhbert.sentences.pooling import POOLING_MODES
from zhbert.text.tokenizer import Tokenizer

LONGEST = SHAPE["max_position_embeddings"]
# Weights so large that attention picks single pieces: a graph that is a little wrong is then very
# wrong. The exporter takes a second a layer, so that only some models have two.
LARGE = {"num_hidden_layers": 1, "initializer_range": 1.0}
KINDS: dict[str, dict[str, Any]] = {
    "encoder": {"hidden_act": "relu", "num_hidden_layers": 2},
    "fill": {"hidden_act": "gelu_new", "num_hidden_layers": 2},
    "classify": {"num_labels": 3, "num_hidden_layers": 2},
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
            make_model(folder / "model", kind=kind, **(LARGE | KINDS[task]))
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
    # Of the weights here, which are large, rounding makes 1.1e-4 in rare rows.
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=3e-4 * np.abs(theirs).max(initial=1e-9))


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


def test_no_path_of_this_machine_is_in_the_file(exports: Callable[[str], Exported]) -> None:
    written = (exports("fill").folder / "onnx" / "model.onnx").read_bytes()
    assert b".py" not in written


def test_the_check_of_onnx_passes(exports: Callable[[str], Exported]) -> None:
    import onnx

    onnx.checker.check_model(exports("fill").folder / "onnx" / "model.onnx", full_check=True)


@pytest.mark.parametrize("task", KINDS)
def test_optimum_opens_the_folder(exports: Callable[[str], Exported], task: str) -> None:
    exported, inputs = exports(task), rows([7, 40, 1])
    optimum = {"encoder": "FeatureExtraction", "fill": "MaskedLM", "tag": "TokenClassification"}
    optimum |= {"classify": "SequenceClassification", "span": "QuestionAnswering"}
    found = run_with_transformers4(
        "import json, sys, torch, optimum.onnxruntime as o\n"
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


# -- sentence models --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def sentences(tmp_path_factory: pytest.TempPathFactory) -> tuple[SentenceModel, Path]:
    """A sentence model with everything that such a model can have, and its export."""
    folder = tmp_path_factory.mktemp("sentences")
    make_model(folder / "bert", num_hidden_layers=1)
    model = SentenceModel.from_pretrained(folder / "bert")
    width = len(POOLING_MODES) * SHAPE["hidden_size"]
    dense = DenseConfig(in_features=width, out_features=24)
    again = DenseConfig(in_features=24, out_features=24, use_residual=True)
    projections = (dense, again, NormalizeConfig())
    model.set_sentence_config(SentenceConfig(pooling=tuple(POOLING_MODES), projections=projections))
    model.save_pretrained(folder / "model")
    Tokenizer(PIECES).save_pretrained(folder / "model")
    (folder / "model" / "README.md").write_text("a card")
    assert export_onnx(folder / "model", folder / "onnx")["task"] == "embed"
    return model, folder / "onnx"


@settings(max_examples=20, deadline=None)
@given(lengths=st.lists(st.integers(1, LONGEST), min_size=1, max_size=5))
def test_sentence_vectors_equal_the_models(
    sentences: tuple[SentenceModel, Path], lengths: list[int]
) -> None:
    model, folder = sentences
    inputs = rows(lengths)
    there = inputs["attention_mask"] != 0
    batch = PackedBatch(
        input_ids=torch.from_numpy(inputs["input_ids"][there]),
        token_type_ids=torch.from_numpy(inputs["token_type_ids"][there]),
        position_ids=torch.cat([torch.arange(length) for length in lengths]),
        cu_seqlens=torch.tensor([0, *np.cumsum(lengths)], dtype=torch.int32),
        max_length=max(lengths),
    )
    graph = OnnxModel(folder / "onnx" / "model.onnx", model.config)
    found = graph.run(inputs, ["sentence_embedding"])[0]
    with torch.inference_mode():
        assert_close(found, model.embed(batch).numpy())


def test_sentence_files_and_readme_stand_beside_the_graph(
    sentences: tuple[SentenceModel, Path],
) -> None:
    folder = sentences[1]
    modules = [one["path"] for one in json.loads((folder / "modules.json").read_text())]
    assert all((folder / path).exists() for path in modules[:-1])
    assert (folder / "2_Dense" / "model.safetensors").is_file()
    assert (folder / "README.md").read_text() == "a card"


# -- precisions -------------------------------------------------------------------------------


@pytest.fixture
def classifier(exports: Callable[[str], Exported], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model whose float32 graph is not made again."""
    import onnx_ir

    folder = exports("classify").folder
    monkeypatch.setattr(
        exporting,
        "export_graph",
        lambda padded, opset: onnx_ir.load(folder / "onnx" / "model.onnx"),
    )
    return folder.parent / "model"


def test_int8_says_how_many_labels_are_equal(classifier: Path, tmp_path: Path) -> None:
    report = export_onnx(classifier, tmp_path / "out", precision="int8")
    assert [path.name for path in (tmp_path / "out" / "onnx").iterdir()] == [GRAPHS["int8"]]
    logits = report["outputs"]["logits"]
    assert 0.001 < logits["noise"] < 0.5
    assert 0.7 < logits["equal_labels"] <= 1


def test_float16_answers_in_float32(exports: Callable[[str], Exported], tmp_path: Path) -> None:
    exact = exports("tag")
    report = export_onnx(exact.folder.parent / "model", tmp_path / "out", precision="float16")
    inputs = rows([5, 1, LONGEST])
    inputs["attention_mask"][1] = 0
    there = inputs["attention_mask"] != 0
    found = Exported(tmp_path / "out", None, report).run(inputs)["logits"]
    wanted = exact.run(inputs)["logits"][there]
    assert found.dtype == np.float32
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[there], wanted, rtol=0, atol=0.05 * np.abs(wanted).max())
    assert report["bytes"] < 0.8 * exact.report["bytes"]


def test_large_weights_lie_beside_the_graph(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "_MOST_BYTES_IN_GRAPH", 0)
    export_onnx(classifier, tmp_path / "exact")
    names = {path.name for path in (tmp_path / "exact" / "onnx").iterdir()}
    assert names == {"model.onnx", "model.onnx_data"}
    export_onnx(classifier, tmp_path / "int8", precision="int8")
    assert [path.name for path in (tmp_path / "int8" / "onnx").iterdir()] == [GRAPHS["int8"]]


def test_the_graph_says_what_it_is(exports: Callable[[str], Exported]) -> None:
    exported = exports("fill")
    said = exported.session.get_modelmeta().custom_metadata_map
    tokenizer = Tokenizer.from_pretrained(exported.folder)
    assert said["zhbert.vocabulary"] == tokenizer.fingerprint()
    assert (said["zhbert.task"], said["zhbert.precision"]) == ("fill", "float32")
    assert json.loads(said["zhbert.config"])["vocab_size"] == len(PIECES)


# -- which task -------------------------------------------------------------------------------


def test_an_untrained_head_fills_no_masks(tmp_path: Path) -> None:
    BertForMaskedLM(BertConfig(**SHAPE, vocab_size=len(PIECES))).save_pretrained(tmp_path / "m")
    with pytest.raises(ZhbertError, match="not trained for it; it can be exported for encoder"):
        export_onnx(tmp_path / "m", tmp_path / "out", task="fill")


def test_a_task_other_than_the_own_one(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(ZhbertError, match=r"--task tag: .* exported for classify, encoder, embed"):
        export_onnx(classifier, tmp_path / "out", task="tag")
    assert not (tmp_path / "out").exists()


# -- bad input --------------------------------------------------------------------------------


def test_a_graph_that_differs_is_not_kept(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoilt(padded: Any, opset: int, good: Any = exporting.export_graph) -> Any:
        import onnx_ir

        graph = good(padded, opset)
        bias = graph.graph.initializers["model.classifier.bias"]
        bias.const_value = onnx_ir.tensor(bias.const_value.numpy() + np.float32(0.01))
        return graph

    monkeypatch.setattr(exporting, "export_graph", spoilt)
    with pytest.raises(ZhbertError, match="nothing written, because the graph differs"):
        export_onnx(classifier, tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_an_operation_that_onnx_lacks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = make_model(tmp_path / "model", num_hidden_layers=1)
    monkeypatch.setitem(ACTIVATIONS, "gelu", torch.special.bessel_j0)
    with pytest.raises(ZhbertError, match=r"PyTorch cannot translate .*bessel_j0") as caught:
        export_onnx(source, tmp_path / "out", task="encoder")
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [source]


@pytest.mark.parametrize("library", ["onnx", "onnxruntime", "onnxscript"])
def test_a_library_that_is_missing(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, library: str
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: name != library or None)
    with pytest.raises(ZhbertError, match=f"--to onnx: {library} is not installed: pip install"):
        export_onnx(classifier, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--to onnx --opset 17", "--opset 17: must be from 18 to 23"),
        ("--to onnx --dtype float16", "--dtype: only for other formats than onnx"),
        ("--to onnx --max-shard-size 1GB", "--max-shard-size: only for other formats than onnx"),
        ("--to onnx --drop-untrained-heads", "--drop-untrained-heads: only for other formats"),
        ("--to pytorch --precision int8", "--precision: only for the format onnx"),
        ("--to pytorch --opset 18", "--opset: only for the format onnx"),
        ("--to pytorch --task tag", "--task: only for the format onnx"),
    ],
)
def test_options_that_do_not_go_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: str, said: str
) -> None:
    assert main(["convert", "mini", str(tmp_path / "out"), *options.split()]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_json_and_a_folder_that_exists(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["convert", str(classifier), str(tmp_path / "out"), "--to", "onnx"]
    assert main([*command, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["format"], report["rows"], report["opset"]) == ("onnx", 200, ONNX_OPSETS[0])
    assert main(command) == 2
    assert "--overwrite replaces it" in capsys.readouterr().err
    assert main([*command, "--overwrite"]) == 0
    assert "100.0 % equal labels" in capsys.readouterr().out


def test_the_example_of_the_page_runs(
    exports: Callable[[str], Exported], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = Path(__file__).parent.parent.parent / "docs" / "onnx.md"
    (example,) = re.findall(r"^```python\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)
    (tmp_path / "mini-onnx").symlink_to(exports("fill").folder)
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(example, names)
    assert names["logits"].shape == (1, 1, len(PIECES))
