"""A graph of an ONNX folder, run by ONNX Runtime, which answers as our models do.

Shapes: R = rows, L = pieces in the longest row, T = pieces of all rows together, P = predicted
pieces, H = hidden size.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from zhbert.errors import ZhbertError
from zhbert.model.checkpoint import open_checkpoint
from zhbert.model.config import BertConfig
from zhbert.model.folder import tokenizer_beside
from zhbert.model.loading import LoadingReport
from zhbert.model.onnx_files import INPUTS, METADATA, POSITIONS, TASKS, find_graph, stated_sizes
from zhbert.packing import PackedBatch
from zhbert.schema import check_choice
from zhbert.wording import how_to_install, listed, shortly
from zhbert.zoo.layout import ModelFiles, find_model

Array = NDArray[Any]

ENGINES = ("torch", "onnx")
"""What computes: PyTorch with a folder's weights, or ONNX Runtime with its graph."""

# The pieces' vectors; for sentence models, optimum has a name of its own.
_VECTORS = ("last_hidden_state", "token_embeddings")
# The number of pieces in whose place a graph without the input `positions` computes logits at once:
# a third of a gigabyte, with a vocabulary of 21,128.
_MOST_LOGITS = 4096


def runs_by_onnx(folder: Path, engine: str | None) -> bool:
    """Return True if a model folder is to be opened as an `OnnxModel`.

    Args:
        folder: what `zhbert.zoo.locate` has found.
        engine: one of `ENGINES`; None: torch, unless the folder has nothing but a graph.

    Raises:
        ZhbertError: there is no such engine.
    """
    if engine is not None:
        check_choice(engine, ENGINES, "engine")
    return engine == "onnx" or (engine is None and find_model(folder).format == "onnx")


def remark_on_graph(folder: str | Path, model: nn.Module, remark: Callable[[str], None]) -> None:
    """Name the graph that computes a model's answers, if one does.

    If it is a folder's only one, its precision may be another than what was asked for.
    """
    for part in model.modules():
        if isinstance(part, OnnxModel):
            remark(f"{folder}: {part.loading.summary}")


class OnnxModel(nn.Module):
    """The model of an ONNX folder, with the methods of the models in `zhbert.model.pretrained`.

    It has no parameters, computes on the CPU, and cannot be trained. Calls of several threads at a
    time are allowed.
    """

    def __init__(self, graph: Path, config: BertConfig) -> None:
        """Open a graph without further checks; see `from_pretrained`."""
        super().__init__()
        self.graph = graph
        self.config = config
        self._session = _session_of(graph)
        self.metadata: Mapping[str, str] = self._session.get_modelmeta().custom_metadata_map
        self.outputs: tuple[str, ...] = tuple(one.name for one in self._session.get_outputs())
        self._inputs = {one.name for one in self._session.get_inputs()}
        # An initializer that may be overridden is not among the inputs.
        more = {one.name for one in self._session.get_overridable_initializers()}
        self._takes = self._inputs | ({POSITIONS} & more)
        summary = f"{graph.name}, {self.precision}, run by ONNX Runtime"
        self.loading = LoadingReport(summary=summary)

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, architecture: str | None = None, *, precision: str = "fp32"
    ) -> Self:
        """Open the graph of a folder.

        Args:
            folder: a folder with config.json, a tokenizer's files and a graph in ``onnx``, as
                'zhbert convert --to onnx' and optimum write it.
            architecture: the class whose answers are wanted, a value of `TASKS`; None: what the
                graph is.
            precision: ``fp32`` for the only graph, or the one without a suffix; ``int8`` for
                ``model_quantized.onnx``.

        Raises:
            ZhbertError: ONNX Runtime is not installed, or the graph is missing, damaged, of another
                model than the config.json and the vocabulary, or of another class.
        """
        folder = Path(folder)
        graph, config = find_graph(folder, precision), BertConfig.from_pretrained(folder)
        model = cls(graph, config)
        model._check_class(architecture)
        model._check_metadata(find_model(folder))
        model._check_outputs()
        return model

    @property
    def architecture(self) -> str:
        """The class whose answers the graph gives, by its metadata or by config.json; else ""."""
        task = self.metadata.get(METADATA["task"], "")
        names = self.config.other.get("architectures") or [""]
        found: str = TASKS.get(task, names[0])
        # Other programs export the masked words of such a model alone.
        return "BertForMaskedLM" if found == "BertForPreTraining" else found

    @property
    def precision(self) -> str:
        """What the weights are stored in: ``float32``, ``float16`` or ``int8``, if it says so."""
        return self.metadata.get(METADATA["precision"], "float32")

    # -- answers -----------------------------------------------------------------------------

    @torch.no_grad()
    def forward(self, batch: PackedBatch, *_: Any, subset: Any = None) -> Tensor:
        """Compute the last hidden states of T pieces, (T, H), or of those in ``subset``.

        So an `OnnxModel` may stand in the place of an `Encoder`.
        """
        hidden = self.piece_vectors(batch)
        return hidden if subset is None else hidden[subset.positions]

    def row_logits(self, batch: PackedBatch) -> Tensor:
        """Compute logits (R, labels) of R rows."""
        return self._tensor(self._run_packed(batch, "logits")[0], batch)

    def piece_logits(self, batch: PackedBatch) -> Tensor:
        """Compute logits (T, labels) of T pieces, or the scores (T, 2) of a start and an end."""
        found = self._run_packed(batch, *_needed(self.architecture))
        scores = found[0] if len(found) == 1 else np.stack(found, axis=-1)
        return self._tensor(scores[_places(batch)], batch)

    def piece_vectors(self, batch: PackedBatch) -> Tensor:
        """Compute the last hidden states (T, H) of T pieces."""
        name = next(name for name in _VECTORS if name in self.outputs)
        return self._tensor(self._run_packed(batch, name)[0][_places(batch)], batch)

    def masked_logits(self, batch: PackedBatch, positions: Tensor) -> Tensor:
        """Compute logits (P, vocabulary size) at ``positions``, (P,) int64 into the T pieces."""
        starts, chosen = batch.cu_seqlens.cpu().numpy(), positions.cpu().numpy()
        rows = np.searchsorted(starts, chosen, side="right") - 1
        places = chosen - starts[rows]
        if POSITIONS in self._takes:
            # The number of each position among those of its row, which may come in any order.
            order = np.argsort(rows, kind="stable")
            firsts = np.searchsorted(rows[order], np.arange(batch.num_rows))
            numbers = np.empty(len(rows), np.int64)
            numbers[order] = np.arange(len(rows)) - firsts[rows[order]]
            wanted = np.zeros((batch.num_rows, int(numbers.max(initial=-1)) + 1), np.int64)
            wanted[rows, numbers] = places
            found = self._run_packed(batch, "logits", **{POSITIONS: wanted})[0]
            return self._tensor(found[rows, numbers], batch)
        logits = np.empty((len(rows), self.config.vocab_size), np.float32)
        step = max(_MOST_LOGITS // max(batch.max_length, 1), 1)
        inputs = _padded(batch)
        for first in range(0, batch.num_rows, step):
            some = {name: array[first : first + step] for name, array in inputs.items()}
            mine = (first <= rows) & (rows < first + step)
            logits[mine] = self.run(some, ("logits",))[0][rows[mine] - first, places[mine]]
        return self._tensor(logits, batch)

    def run(self, inputs: Mapping[str, Array], outputs: Sequence[str]) -> list[Array]:
        """Run the graph on arrays by name, and return the ``outputs`` as float32.

        Raises:
            ZhbertError: ONNX Runtime reports an error.
        """
        known = {name: array for name, array in inputs.items() if name in self._takes}
        try:
            found = self._session.run(list(outputs), known)
        except Exception as error:  # it has a class of its own for each kind
            raise ZhbertError(f"{self.graph}: ONNX Runtime: {_one_line(error)}") from None
        return [np.asarray(one, np.float32) for one in found]

    def _run_packed(self, batch: PackedBatch, *outputs: str, **more: Array) -> list[Array]:
        return self.run({**_padded(batch), **more}, outputs)

    def _tensor(self, array: Array, batch: PackedBatch) -> Tensor:
        """Return an array as a tensor on the batch's device."""
        return torch.from_numpy(np.ascontiguousarray(array)).to(batch.input_ids.device)

    # -- checks ------------------------------------------------------------------------------

    def _check_class(self, wanted: str | None) -> None:
        """Raise ZhbertError if the graph is not one of the class whose answers are wanted."""
        own = self.architecture
        wanted = wanted or own
        has = set(self.outputs) | ({_VECTORS[0]} if _VECTORS[1] in self.outputs else set())
        if own == wanted and wanted in TASKS.values() and has.issuperset(_needed(wanted)):
            return
        raise ZhbertError(
            f"{self.graph}: a graph of {own or 'an unknown class'}, with the outputs "
            f"{listed(self.outputs)}, and not of {wanted or listed(dict.fromkeys(TASKS.values()))}"
            ": export the model for this task with 'zhbert convert'"
        )

    def _check_metadata(self, files: ModelFiles) -> None:
        """Raise ZhbertError if the graph says that it belongs to other files."""
        unknown = self._inputs - {*INPUTS, POSITIONS}
        if unknown or INPUTS[0] not in self._inputs:
            raise ZhbertError(
                f"{self.graph}: takes {listed(sorted(self._inputs))}: not the graph of a BERT, "
                f"which takes {listed(INPUTS)}"
            )
        if stated := self.metadata.get(METADATA["config"]):
            own = stated_sizes(self.config)
            for name, value in json.loads(stated).items():
                if name in own and value != own[name]:
                    raise self._of_another_model(
                        f"{name} = {shortly(value)}, and its config.json says {shortly(own[name])}"
                    )
        stated, tokenizer = self.metadata.get(METADATA["vocabulary"]), tokenizer_beside(files)
        if stated and tokenizer is not None and stated != tokenizer.fingerprint():
            raise self._of_another_model("it was exported with another vocabulary")
        stated = self.metadata.get(METADATA["weights"])
        beside = open_checkpoint(files.folder) if stated and files.format != "onnx" else None
        if beside is not None and stated != beside.fingerprint():
            raise self._of_another_model(f"it was not made from {beside.file.name} beside it")

    def _check_outputs(self) -> None:
        """Raise ZhbertError if the graph does not run, or its outputs have other sizes.

        A graph by another program does not state its sizes, so the last piece is tried.
        """
        row = np.array([[0, self.config.vocab_size - 1]])
        inputs = dict(zip(INPUTS, (row, np.ones_like(row), np.zeros_like(row)), strict=True))
        name = next((name for name in _VECTORS if name in self.outputs), self.outputs[0])
        try:
            (found,) = self.run(inputs, (name,))
        except ZhbertError as error:
            raise self._of_another_model(f"it cannot read its last piece ({error})") from None
        labels = len(self.config.labels)
        expected = {
            "BertModel": (1, 2, self.config.hidden_size),
            "BertForMaskedLM": (1, 2, self.config.vocab_size),
            "BertForSequenceClassification": (1, labels),
            "BertForTokenClassification": (1, 2, labels),
            "BertForQuestionAnswering": (1, 2),
        }[self.architecture]
        if found.shape != expected:
            raise self._of_another_model(
                f"{name} of two pieces has the shape {found.shape}, and by its config.json it "
                f"is {expected}"
            )

    def _of_another_model(self, why: str) -> ZhbertError:
        return ZhbertError(f"{self.graph}: another model's graph: {why}; export the model again")


def _needed(architecture: str) -> tuple[str, ...]:
    """Return the outputs that the graph of a class must have."""
    if architecture == "BertModel":
        return _VECTORS[:1]
    spans = architecture == "BertForQuestionAnswering"
    return ("start_logits", "end_logits") if spans else ("logits",)


def _session_of(graph: Path) -> Any:
    """Open a graph with as many threads as PyTorch has."""
    try:
        import onnxruntime
    except ImportError:
        raise ZhbertError(
            f"{graph}: ONNX Runtime is not installed: {how_to_install('onnx')}"
        ) from None
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    # Threads that spin while they wait take the cores from the batches beside theirs.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3  # errors, and no warnings about the graph
    try:
        return onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # it has a class of its own for each kind
        raise ZhbertError(
            f"{graph}: damaged, or not an ONNX graph: {_one_line(error)}; export the model again"
        ) from None


def _one_line(error: Exception) -> str:
    """Return what ONNX Runtime says, without its codes.

    >>> _one_line(RuntimeError("[ONNXRuntimeError] : 7 : INVALID_PROTOBUF : Load failed: no graph"))
    'Load failed: no graph'
    """
    return " ".join(str(error).rpartition("[ONNXRuntimeError]")[2].split()).split(" : ")[-1][:300]


def _places(batch: PackedBatch) -> Array:
    """Return where the padded batch has pieces: (R, L) bool."""
    lengths = np.diff(batch.cu_seqlens.cpu().numpy())
    found: Array = np.arange(batch.max_length) < lengths[:, None]
    return found


def _padded(batch: PackedBatch) -> dict[str, Array]:
    """Return the three inputs of a graph, each (R, L) int64."""
    there = _places(batch)
    arrays = {name: np.zeros(there.shape, np.int64) for name in INPUTS}
    arrays["input_ids"][there] = batch.input_ids.cpu().numpy()
    arrays["attention_mask"][there] = 1
    arrays["token_type_ids"][there] = batch.token_type_ids.cpu().numpy()
    return arrays
