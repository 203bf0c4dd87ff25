"""Models run by ONNX Runtime answer as they do by PyTorch, and other graphs are refused."""

from __future__ import annotations

import io
import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.small_models import make_model
from tests.transformers4 import run_with_transformers4

from zhbert import SentenceEncoder
from zhbert.cli import main
from zhbert.errors import ZhbertError
from zhbert.export.onnx import export_onnx
from zhbert.finetuning.fine_tuned import open_to_predict
from zhbert.inference.fill import fill, open_mask_filler
from zhbert.inference.onnx_model import OnnxModel
from zhbert.inference.rows import PieceRows
from zhbert.inference.run_model import run_model
from zhbert.model import pretrained
from zhbert.model.checkpoint import open_checkpoint
from zhbert.model.onnx_files import TASKS
from zhbert.packing import PackedBatch
from zhbert.text.tokenizer import Tokenizer

Folders = tuple[Path, Path]
"""A model's folder, and that of its graph."""

TEXTS = ["的一是[MASK]在。", "bert", "和[MASK]人，这[MASK]！" * 3, "trans[MASK]er"]
LABELS = {"id2label": {0: "坏", 1: "中", 2: "好"}}


@pytest.fixture(scope="module")
def exported(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Folders]:
    """Small models with the corpus's vocabulary, and their graphs, by task; read them only."""
    import transformers

    made: dict[str, Folders] = {}
    pieces = list(Tokenizer.from_pretrained(corpus).vocabulary)

    def make(task: str) -> Folders:
        if task not in made:
            folder = tmp_path_factory.mktemp(task)
            more = LABELS if task in ("classify", "tag") else {}
            kind = getattr(transformers, TASKS[task])
            sizes = {"pieces": pieces, "num_hidden_layers": 2, **more}
            model = make_model(folder / "model", kind=kind, **sizes)
            if task == "embed":
                SentenceEncoder.from_pretrained(model, quiet=True).save_pretrained(model)
            export_onnx(model, folder / "graph", task=task)
            made[task] = model, folder / "graph"
        return made[task]

    return make


@pytest.fixture
def copied(exported: Callable[[str], Folders], tmp_path: Path) -> Path:
    """The folder of a graph that fills masks, which a test may change."""
    shutil.copytree(exported("fill")[1], tmp_path / "copy")
    return tmp_path / "copy"


def rows_of(folder: Path) -> PieceRows:
    tokenizer = Tokenizer.from_pretrained(folder)
    pieces = [tokenizer.encode(text).ids for text in TEXTS * 9]
    pairs = [(ids, ids[:2]) if n % 2 else (ids,) for n, ids in enumerate(pieces)]
    return PieceRows.of_segments(tokenizer, pairs)


def change(graph: Path, **metadata: str) -> None:
    import onnx

    model = onnx.load(graph)
    for entry in model.metadata_props:
        entry.value = metadata.get(entry.key.rpartition(".")[2], entry.value)
    onnx.save(model, graph)


# -- the same answers ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "method"),
    [("classify", "row_logits"), ("tag", "piece_logits"), ("span", "piece_logits")],
)
def test_scores_of_rows_of_any_length_are_those_of_the_model(
    task: str, method: str, exported: Callable[[str], Folders]
) -> None:
    model, graph = exported(task)
    found = [
        run_model(opened, rows_of(model), lambda one, batch: getattr(one, method)(batch))
        for opened in (
            getattr(pretrained, TASKS[task]).from_pretrained(model),
            OnnxModel.from_pretrained(graph, TASKS[task]),
        )
    ]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def with_positions(folder: Path) -> Path:
    return folder


def without_positions(folder: Path) -> Path:
    """Take the input away, as in other programs' graphs: all positions are computed."""
    import onnx

    graph = onnx.load(folder / "onnx" / "model.onnx")
    (optional,) = (one for one in graph.graph.input if one.name == "positions")
    graph.graph.input.remove(optional)
    onnx.save(graph, folder / "onnx" / "model.onnx")
    return folder


@pytest.mark.parametrize("changed", [with_positions, without_positions])
def test_masks_are_filled_as_by_the_model(
    changed: Callable[[Path], Path], exported: Callable[[str], Folders], copied: Path
) -> None:
    model, tokenizer = open_mask_filler(exported("fill")[0])
    texts = [text for text in TEXTS if "[MASK]" in text]
    wanted = fill(model, tokenizer, texts, top_k=3)
    found = fill(open_mask_filler(changed(copied))[0], tokenizer, texts, top_k=3)
    assert [one.filled for one in found] == [one.filled for one in wanted]
    for one, other in zip(found, wanted, strict=True):
        for mask, same in zip(one.masks, other.masks, strict=True):
            values = [[each.probability for each in m.candidates] for m in (mask, same)]
            np.testing.assert_allclose(*values, rtol=1e-4)


def test_logits_are_computed_at_the_positions_that_are_asked_for(
    exported: Callable[[str], Folders],
) -> None:
    model, graph = exported("fill")
    batch, _ = rows_of(model).pack(np.arange(7))
    # In any order, and of two rows none.
    starts = batch.cu_seqlens[:-1].long()[[6, 3, 0, 3, 1, 5]]
    positions = starts + torch.tensor([0, 1, 2, 0, 1, 2])
    found = OnnxModel.from_pretrained(graph, "BertForMaskedLM").masked_logits(batch, positions)
    own = pretrained.BertForMaskedLM.from_pretrained(model)
    with torch.no_grad():
        torch.testing.assert_close(found, own.masked_logits(batch, positions), rtol=1e-4, atol=1e-4)


def test_no_logits_are_computed_where_nothing_is_asked_for(
    exported: Callable[[str], Folders], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, tokenizer = open_mask_filler(exported("fill")[1])
    shapes: list[Any] = []
    run = OnnxModel.run

    def recorded(self: OnnxModel, inputs: Any, outputs: Any) -> Any:
        found = run(self, inputs, outputs)
        shapes.append(found[0].shape)
        return found

    monkeypatch.setattr(OnnxModel, "run", recorded)
    fill(model, tokenizer, ["和[MASK]人，这[MASK]！", "的一是[MASK]在。"])
    assert shapes == [(2, 2, model.config.vocab_size)]


@pytest.mark.parametrize("prompt", ["", "问"])
def test_vectors_are_those_of_the_model(prompt: str, exported: Callable[[str], Folders]) -> None:
    found = []
    for folder in exported("embed"):
        encoder = SentenceEncoder.from_pretrained(folder, quiet=True)
        encoder.model.sentence = replace(encoder.sentence, include_prompt=False)
        found.append(encoder.encode(TEXTS, prompt=prompt))
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-5)


def test_a_graph_has_no_weights_to_save(exported: Callable[[str], Folders], tmp_path: Path) -> None:
    encoder = SentenceEncoder.from_pretrained(exported("embed")[1], quiet=True)
    with pytest.raises(ZhbertError, match="the model is an ONNX graph"):
        encoder.save_pretrained(tmp_path / "out")
    assert not (tmp_path / "out").exists()


# -- other programs' graphs ---------------------------------------------------------------------

OPTIMUM = """
import sys
from optimum.onnxruntime import ORTModelForMaskedLM
ORTModelForMaskedLM.from_pretrained(sys.argv[1], export=True).save_pretrained(sys.argv[2])
result = None
"""


def test_what_optimum_exports_opens(exported: Callable[[str], Folders], tmp_path: Path) -> None:
    model, tokenizer = open_mask_filler(exported("fill")[0])
    run_with_transformers4(OPTIMUM, str(exported("fill")[0]), str(tmp_path / "theirs"))
    tokenizer.save_pretrained(tmp_path / "theirs")
    theirs, _ = open_mask_filler(tmp_path / "theirs")
    wanted, found = fill(model, tokenizer, TEXTS[:1]), fill(theirs, tokenizer, TEXTS[:1])
    assert found[0].filled == wanted[0].filled


# -- verbs --------------------------------------------------------------------------------------


def test_fill_and_its_engine(
    exported: Callable[[str], Folders], capsys: pytest.CaptureFixture[str]
) -> None:
    model, graph = exported("fill")
    answers = []
    for arguments in ([str(model)], [str(graph)], ["--engine", "onnx", str(graph)]):
        assert main(["fill", "--quiet", *arguments, TEXTS[0]]) == 0
        answers.append(capsys.readouterr().out)
    assert len({*answers}) == 1


def test_predict_takes_a_graph(
    exported: Callable[[str], Folders],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    answers = []
    for folder, engine in zip(exported("classify"), ("", "run by ONNX Runtime"), strict=True):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("的一是\n人bert".encode())))
        assert main(["predict", str(folder), "-"]) == 0
        shown = capsys.readouterr()
        assert (": model.onnx, float32, run by ONNX Runtime" in shown.err) == bool(engine)
        lines = shown.out.splitlines()
        answers.append([json.loads(line)["prediction"] for line in lines])
    assert answers[0] == answers[1]
    assert len(answers[0]) == 2


def test_embed_writes_a_graphs_vectors(exported: Callable[[str], Folders], tmp_path: Path) -> None:
    texts = tmp_path / "texts.txt"
    texts.write_text("的一是\n人bert\n", encoding="utf-8")
    for number, folder in enumerate(exported("embed")):
        out = str(tmp_path / f"{number}.npy")
        assert main(["embed", "--quiet", str(folder), str(texts), "--out", out]) == 0
    vectors = [np.load(tmp_path / f"{number}.npy") for number in (0, 1)]
    np.testing.assert_allclose(*vectors, rtol=1e-4, atol=1e-5)


def test_masked_accuracy_of_a_graph(
    exported: Callable[[str], Folders], corpus: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = []
    for folder in exported("fill"):
        command = ["evaluate", "--json", str(folder), "--corpus", str(corpus)]
        assert main(command) == 0
        found.append(json.loads(capsys.readouterr().out))
    for one, other in zip(*found, strict=True):
        assert one.pop("evaluation") == other.pop("evaluation")
        assert one == pytest.approx(other, rel=1e-4)


@pytest.mark.parametrize("task", ["fill", "classify", "tag", "span", "embed"])
def test_verify_compares_a_graph_with_its_model(
    task: str, exported: Callable[[str], Folders], capsys: pytest.CaptureFixture[str]
) -> None:
    model, graph = exported(task)
    assert main(["verify", "--json", str(model), str(graph)]) == 0
    found = json.loads(capsys.readouterr().out)
    compared = {
        "fill": ["masked words"],
        "classify": ["text classifier"],
        "tag": ["classifier"],
        "span": ["question answering"],
        "embed": ["layer 2", "sentence vector"],
    }
    assert list(found["differences"]) == compared[task]
    assert not any("classifier" in output for output in found["left_out"]["only in A"])
    assert found["tolerance"] == 1e-4


def test_verify_finds_another_models_graph(
    exported: Callable[[str], Folders], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, graph = exported("fill")
    shutil.copytree(model, tmp_path / "other")
    with torch.no_grad():
        changed = pretrained.BertForMaskedLM.from_pretrained(model)
        changed.encoder.layers[1].attention.output.weight.mul_(1.01)
        changed.save_pretrained(tmp_path / "other")
    assert main(["verify", str(tmp_path / "other"), str(graph)]) == 1
    assert "beginning at masked words" in capsys.readouterr().out


# -- one line for each mistake ------------------------------------------------------------------


def refused(folder: Path, architecture: str = "BertForMaskedLM") -> str:
    with pytest.raises(ZhbertError) as caught:
        OnnxModel.from_pretrained(folder, architecture)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_damaged_graph(copied: Path) -> None:
    graph = copied / "onnx" / "model.onnx"
    graph.write_bytes(graph.read_bytes()[:1000])
    assert f"{graph}: damaged, or not an ONNX graph" in refused(copied)


def test_no_graph(exported: Callable[[str], Folders]) -> None:
    assert "no ONNX graph in it" in refused(exported("fill")[0])


def test_no_onnxruntime(copied: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    assert "ONNX Runtime is not installed: pip install" in refused(copied)


def test_a_graph_of_another_task(exported: Callable[[str], Folders]) -> None:
    graph = exported("classify")[1]
    assert "a graph of BertForSequenceClassification" in refused(graph)
    assert "not of BertForTokenClassification" in refused(graph, "BertForTokenClassification")


@pytest.mark.parametrize("stated", [True, False])
@pytest.mark.parametrize("more", [2, -2])
def test_a_graph_of_another_model(stated: bool, more: int, copied: Path) -> None:
    if not stated:
        change(copied / "onnx" / "model.onnx", config="{}")
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    config["vocab_size"] += more
    (copied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "another model's graph" in refused(copied)


def test_a_graph_with_fewer_positions(copied: Path) -> None:
    config = json.loads((copied / "config.json").read_text(encoding="utf-8"))
    config["max_position_embeddings"] *= 2
    (copied / "config.json").write_text(json.dumps(config), encoding="utf-8")
    assert "another model's graph: max_position_embeddings" in refused(copied)


def test_a_graph_of_another_training(exported: Callable[[str], Folders], copied: Path) -> None:
    entries = open_checkpoint(exported("fill")[0]).entries
    tensors = {name: entry.read().clone() for name, entry in entries.items()}
    # The same weights in another format are the same model.
    torch.save(tensors, copied / "pytorch_model.bin")
    OnnxModel.from_pretrained(copied)
    tensors["bert.encoder.layer.1.output.dense.bias"] += 0.01
    torch.save(tensors, copied / "pytorch_model.bin")
    assert "it was not made from pytorch_model.bin beside it" in refused(copied)


def test_a_graph_with_another_vocabulary(copied: Path) -> None:
    pieces = Tokenizer.from_pretrained(copied).vocabulary
    Tokenizer([*pieces[:-1], "robot"]).save_pretrained(copied)
    assert "another vocabulary" in refused(copied)


def test_a_text_longer_than_the_positions(copied: Path) -> None:
    model, tokenizer = open_mask_filler(copied)
    with pytest.raises(ZhbertError, match="this model takes 38"):
        fill(model, tokenizer, ["一" * 49 + "[MASK]"])
    ids = np.full(50, 7)
    row = PackedBatch(*map(torch.from_numpy, (ids, ids * 0, np.arange(50), np.array([0, 50]))), 50)
    with pytest.raises(ZhbertError, match="ONNX Runtime: ") as caught:
        model.masked_logits(row, torch.tensor([1]))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "arguments",
    [
        ("inspect",),
        ("fill", "--engine", "torch", TEXTS[0]),
        ("verify", "mini"),
        ("convert", "--to", "pytorch", "out"),
    ],
)
def test_what_needs_weights_says_that_there_are_none(
    arguments: tuple[str, ...], copied: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    verb, *rest = arguments
    assert main([verb, str(copied), *rest]) == 2
    assert "ONNX graph" in capsys.readouterr().err
    assert not Path("out").exists()


def test_bf16_is_no_precision_of_graphs(exported: Callable[[str], Folders]) -> None:
    with pytest.raises(ZhbertError, match=r"no graph for the precision bf16, only model\.onnx"):
        open_to_predict(exported("tag")[1], precision="bf16")
