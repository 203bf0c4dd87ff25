"""Whether an ONNX graph computes what its model does: both run on the same 200 rows.

Shapes: B = rows, L = pieces in the longest row, P = asked positions of a row.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from zhbert.export.agreement import BATCH, Arrays, Difference, PaddedBatch, batches
from zhbert.export.onnx_graph import output_names
from zhbert.export.parity import vectors_of
from zhbert.inference.onnx_model import OnnxModel
from zhbert.model.config import BertConfig
from zhbert.model.onnx_files import INPUTS, POSITIONS
from zhbert.text.tokenizer import Tokenizer

ROWS = 200
# Of all but every fourth batch, a graph that fills masks computes three positions of each row.
_FULL, _ASKED = 4, 3


@dataclass
class OutputAgreement(Difference):
    """How far one output of a graph is from the model's, by more measures."""

    labels: int = 0
    """the number of decisions: for each row or piece the best label, for spans the best piece"""
    equal: int = 0
    """the number of equal decisions"""
    _count: int = 0
    _sum: float = 0.0
    _squares: float = 0.0
    _error_squares: float = 0.0

    @property
    def noise(self) -> float:
        """The root mean square of the differences, as a share of the standard deviation of the
        model's output."""
        spread = self._squares - self._sum**2 / max(self._count, 1)
        return float(np.sqrt(self._error_squares / max(spread, 1e-30)))

    @property
    def equal_labels(self) -> float | None:
        """The share of equal decisions; None: the output is no decision."""
        return self.equal / self.labels if self.labels else None

    def add(self, wanted: Arrays, found: Arrays) -> None:
        """Count the values of a batch in."""
        super().add(wanted, found)
        self._count += wanted.size
        exact = wanted.astype(np.float64)
        self._sum += float(exact.sum())
        self._squares += float((exact**2).sum())
        self._error_squares += float(((wanted - found).astype(np.float64) ** 2).sum())

    def add_labels(self, wanted: Arrays, found: Arrays) -> None:
        """Count the decisions of a batch in."""
        self.labels += wanted.size
        self.equal += int((wanted == found).sum())


def compare_graph(
    file: Path,
    model: Any,
    task: str,
    tokenizer: Tokenizer | None,
    progress: Callable[[int, int], object] = lambda done, total: None,
) -> dict[str, OutputAgreement]:
    """Run a graph by ONNX Runtime, and the model, on 200 rows; return how each output agrees.

    Args:
        file: the graph.
        model: the model of ``zhbert.model.pretrained`` that it was made from.
        task: what the graph computes, of `zhbert.model.onnx_files.TASKS`.
        tokenizer: the model's, to read a text; None: all rows have random pieces.
        progress: called with the number of rows done and the total.

    Raises:
        ZhbertError: ONNX Runtime cannot open or run the graph.
    """
    graph = OnnxModel(file, model.config)
    found: dict[str, OutputAgreement] = {}
    for number, batch in enumerate(batches(model.config, tokenizer, ROWS)):
        inputs = {name: value.numpy() for name, value in zip(INPUTS, batch, strict=True)}
        there = inputs["attention_mask"] != 0
        wanted = _model_outputs(model, task, batch)
        if task == "fill" and number % _FULL:
            asked = np.random.default_rng(number).integers(0, there.shape[1], (len(there), _ASKED))
            inputs[POSITIONS] = asked
            there = np.take_along_axis(there, asked, 1)
            wanted = {k: np.take_along_axis(v, asked[:, :, None], 1) for k, v in wanted.items()}
        for name, values in zip(wanted, graph.run(inputs, list(wanted)), strict=True):
            one = found.setdefault(name, OutputAgreement())
            _add(one, name, model.config, wanted[name], values, there)
        progress(min(ROWS, (number + 1) * BATCH), ROWS)
    return found


def _add(
    one: OutputAgreement,
    name: str,
    config: BertConfig,
    wanted: Arrays,
    found: Arrays,
    there: Arrays,
) -> None:
    """Count an output of a batch in: (B, L, n), (B, L) of spans, or (B, n)."""
    per_piece = wanted.shape[:2] == there.shape and (wanted.ndim == 3 or name != "logits")
    pieces = there if per_piece else slice(None)
    one.add(wanted[pieces], found[pieces])
    if not name.endswith("logits"):
        return
    if config.problem_type == "multi_label_classification":
        one.add_labels(wanted > 0, found > 0)
    elif wanted.ndim == 2 and per_piece:
        best = [np.where(there, values, -np.inf).argmax(-1) for values in (wanted, found)]
        one.add_labels(*best)
    elif wanted.shape[-1] > 1:
        one.add_labels(wanted[pieces].argmax(-1), found[pieces].argmax(-1))


@torch.inference_mode()
def _model_outputs(model: Any, task: str, batch: PaddedBatch) -> dict[str, Arrays]:
    output = model(**batch._asdict())
    named = {name: getattr(output, name, None) for name in output_names(model, task)}
    if task == "embed":
        states = output.last_hidden_state
        named["sentence_embedding"] = vectors_of(model, states, batch.attention_mask)
    return {name: x.numpy() for name, x in named.items() if x is not None}
