"""The layout of an ONNX folder: its files, the graph's inputs and outputs, what it says of itself.

The names of files, inputs and outputs are those of optimum and transformers.js. Shapes: B = rows,
L = pieces in the longest row, P = predicted pieces of each row, H = hidden size, D = dimension of
the sentence vectors.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig
from zhbert.wording import listed
from zhbert.zoo.layout import onnx_graphs

GRAPHS: Mapping[str, str] = {
    "float32": "model.onnx",
    "float16": "model_fp16.onnx",
    "int8": "model_quantized.onnx",
}
"""The graph's file in the folder ``onnx``, by precision."""

INPUTS = ("input_ids", "attention_mask", "token_type_ids")
"""The inputs, each (B, L) int64."""

POSITIONS = "positions"
"""The optional input of a graph that fills masks, (B, P) int64: where logits are wanted.

It is an initializer of the shape (1, 0) that may be overridden; without it, all positions are
computed."""

TASKS: Mapping[str, str] = {
    "encoder": "BertModel",
    "fill": "BertForMaskedLM",
    "classify": "BertForSequenceClassification",
    "tag": "BertForTokenClassification",
    "span": "BertForQuestionAnswering",
    "embed": "BertModel",
}
"""What a graph computes, and the class of transformers that computes the same."""

OUTPUTS: Mapping[str, tuple[str, ...]] = {
    "encoder": ("last_hidden_state", "pooler_output"),
    "fill": ("logits",),
    "classify": ("logits",),
    "tag": ("logits",),
    "span": ("start_logits", "end_logits"),
    "embed": ("last_hidden_state", "sentence_embedding"),
}
"""The outputs, all float32: last_hidden_state (B, L, H), pooler_output (B, H) if there is a pooler,
logits (B, L or P, vocabulary size) of fill, (B, labels) of classify, (B, L, labels) of tag,
start_logits and end_logits (B, L), sentence_embedding (B, D)."""

METADATA: Mapping[str, str] = {
    "task": "zhbert.task",
    "precision": "zhbert.precision",
    "config": "zhbert.config",
    "vocabulary": "zhbert.vocabulary",
    "weights": "zhbert.weights",
}
"""The keys of what a graph says of itself: a key of `TASKS`, one of `GRAPHS`, `stated_sizes` as
JSON, and the fingerprints of the tokenizer and of the checkpoint."""

_SIZES = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "max_position_embeddings",
)


def stated_sizes(config: BertConfig) -> dict[str, Any]:
    """Return what a graph says of its model, so that another model's graph is noticed.

    >>> stated_sizes(BertConfig())["hidden_size"]
    768
    """
    return {**{name: getattr(config, name) for name in _SIZES}, "labels": config.labels}


def find_graph(folder: Path, precision: str = "fp32") -> Path:
    """Return the graph of a model folder.

    Args:
        folder: the folder with config.json.
        precision: ``fp32``: the only graph, whatever its precision, or else model.onnx;
            ``int8``: model_quantized.onnx.

    Raises:
        ZhbertError: there is no such graph.
    """
    graphs = onnx_graphs(folder)
    if not graphs:
        raise ZhbertError(
            f"{folder}: no ONNX graph in it (onnx/model.onnx): 'zhbert convert {folder} OUT --to "
            "onnx' makes a folder with one"
        )
    if precision == "fp32" and len(graphs) == 1:
        return graphs[0]
    wanted = {"fp32": GRAPHS["float32"], "int8": GRAPHS["int8"]}.get(precision)
    found = [path for path in graphs if path.name == wanted]
    if not found:
        names = listed(path.name for path in graphs)
        raise ZhbertError(
            f"{graphs[0].parent}: no graph for the precision {precision}, only {names}"
        )
    return found[0]
