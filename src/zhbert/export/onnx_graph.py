"""A model as an ONNX graph, written by PyTorch's exporter (``torch.onnx``, the one over dynamo).

Our models compute on rows without padding, whose number of pieces only the data tell. A graph for
other programs takes padded rows, so the same weights are given to plain functions over these.
Shapes: B = rows, L = pieces in the longest row, P = asked positions of a row, A = pieces whose last
state is computed (L, P or 1), H = hidden size, D = dimension of the sentence vectors.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from zhbert.errors import ZhbertError
from zhbert.model.activations import activation_named
from zhbert.model.onnx_files import INPUTS, OUTPUTS, POSITIONS

if TYPE_CHECKING:
    import onnx_ir as ir

Models = Any  # the classes of `zhbert.model.pretrained`, whose heads have no common type
# Added to the scores of padding. Finite, so that a row of nothing else does not give NaN.
_MASKED = -1e30

# -- the model over padded rows ---------------------------------------------------------------


def has_pooler(model: Models) -> bool:
    """Return whether the checkpoint of a model has the pooler's weights."""
    return not any(name.startswith("bert.pooler.") for name in model.loading.missing)


def output_names(model: Models, task: str) -> list[str]:
    """Return the names of the outputs of a graph: of the pooler only if the model has one."""
    without = () if has_pooler(model) else ("pooler_output",)
    return [name for name in OUTPUTS[task] if name not in without]


class PaddedModel(nn.Module):
    """A model of ours over padded rows, in operations that a graph can contain.

    The last layer is computed only for the pieces that the outputs need: each row's first one to
    classify, the asked ones to fill masks.
    """

    def __init__(self, model: Models, task: str) -> None:
        super().__init__()
        self.model = model
        self.task = task
        self.output_names = output_names(model, task)

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor,
        positions: Tensor | None = None,
    ) -> tuple[Tensor, ...]:
        """Compute the outputs ``output_names``, float32, of (B, L) ids."""
        asked = None
        if self.task == "classify":
            asked = torch.zeros_like(input_ids[:, :1])
        elif positions is not None:
            asked = positions
        hidden = _encoded(self.model, input_ids, attention_mask, token_type_ids, asked)
        outputs = _HEADS[self.task](self, hidden, attention_mask)
        return tuple(outputs[name].float() for name in self.output_names)


def _encoded(
    model: Models, input_ids: Tensor, mask: Tensor, token_type_ids: Tensor, asked: Tensor | None
) -> Tensor:
    """Encode (B, L) ids -> (B, A, H), the states of the positions ``asked`` (B, A); None: all."""
    table = model.encoder.embeddings
    total = (
        table.words(input_ids)
        + table.positions.weight[: input_ids.shape[1]]
        + table.token_types(token_type_ids)
    )
    x: Tensor = table.norm(total)
    there = mask[:, None, None, :] != 0
    bias = torch.zeros(there.shape).masked_fill(~there, _MASKED)
    *former, last = model.encoder.layers
    for block in former:
        x = _block(block, x, x, bias)
    if asked is None:
        return _block(last, x, x, bias)
    own = x.gather(1, asked[:, :, None].expand(-1, -1, x.shape[2]))
    return _block(last, own, x, bias)


def _block(block: Models, own: Tensor, x: Tensor, bias: Tensor) -> Tensor:
    """Compute the new states of ``own`` (B, A, H), which attend to ``x`` (B, L, H)."""
    attention, feed_forward = block.attention, block.feed_forward
    if own is x:
        query, keys, values = attention.qkv(x).chunk(3, dim=-1)
    else:
        weight, bias_of_maps, hidden = attention.qkv.weight, attention.qkv.bias, x.shape[2]
        query = functional.linear(own, weight[:hidden], bias_of_maps[:hidden])
        both = functional.linear(x, weight[hidden:], bias_of_maps[hidden:])
        keys, values = both.chunk(2, dim=-1)

    def by_head(states: Tensor) -> Tensor:
        return states.view(*states.shape[:2], attention.heads, attention.size).transpose(1, 2)

    scores = (by_head(query) * attention.size**-0.5) @ by_head(keys).transpose(-1, -2)
    # In float32 even if the weights are float16, which has no room for the bias.
    shares = torch.softmax(scores.float() + bias, dim=-1).to(x.dtype)
    context = (shares @ by_head(values)).transpose(1, 2).flatten(2)
    own = block.attention_norm(own + attention.output(context))
    inner = activation_named(feed_forward.activation)(feed_forward.inner(own))
    new: Tensor = block.feed_forward_norm(own + feed_forward.outer(inner))
    return new


def _encoder(padded: PaddedModel, hidden: Tensor, mask: Tensor) -> dict[str, Tensor]:
    outputs = {"last_hidden_state": hidden}
    if "pooler_output" in padded.output_names:
        outputs["pooler_output"] = padded.model.pooler(hidden[:, 0])
    return outputs


def _fill(padded: PaddedModel, hidden: Tensor, mask: Tensor) -> dict[str, Tensor]:
    model = padded.model
    # One matrix product of all pieces, because it takes the embeddings as they are. Batched, it
    # would need them transposed: a second copy in the file.
    flat = model.mlm_head(hidden.flatten(0, 1), model.encoder.embeddings.words.weight)
    return {"logits": flat.view(*hidden.shape[:2], -1)}


def _classify(padded: PaddedModel, hidden: Tensor, mask: Tensor) -> dict[str, Tensor]:
    model = padded.model
    return {"logits": model.classifier(model.pooler(hidden[:, 0]))}


def _tag(padded: PaddedModel, hidden: Tensor, mask: Tensor) -> dict[str, Tensor]:
    return {"logits": padded.model.classifier(hidden)}


def _span(padded: PaddedModel, hidden: Tensor, mask: Tensor) -> dict[str, Tensor]:
    start, end = padded.model.qa_outputs(hidden).unbind(-1)
    return {"start_logits": start, "end_logits": end}


def _embed(padded: PaddedModel, hidden: Tensor, mask: Tensor) -> dict[str, Tensor]:
    model, exact, there = padded.model, hidden.float(), (mask != 0)[:, :, None]
    pooled = [_POOLING[mode](exact, there) for mode in model.sentence.pooling]
    vectors = model.project(torch.cat(pooled, dim=-1))
    return {"last_hidden_state": hidden, "sentence_embedding": vectors}


_HEADS: Mapping[str, Callable[[PaddedModel, Tensor, Tensor], dict[str, Tensor]]] = {
    "encoder": _encoder,
    "fill": _fill,
    "classify": _classify,
    "tag": _tag,
    "span": _span,
    "embed": _embed,
}


def _sum(x: Tensor, weights: Tensor) -> Tensor:
    return (x * weights).sum(1)


def _mean(x: Tensor, there: Tensor, power: float = 1.0) -> Tensor:
    counts = there.sum(1).to(x.dtype).clamp(min=1e-9)
    return _sum(x, there) / counts**power


def _weighted_mean(x: Tensor, there: Tensor) -> Tensor:
    weights = there * torch.arange(1, x.shape[1] + 1, dtype=x.dtype)[:, None]
    return _sum(x, weights) / weights.sum(1).clamp(min=1e-9)


def _last(x: Tensor, there: Tensor) -> Tensor:
    places = there * torch.arange(x.shape[1])[:, None]
    is_last = there & (places == places.amax(1, keepdim=True))
    return _sum(x, is_last)


# (B, L, H) states and (B, L, 1) bool, which are pieces -> (B, H); the names and the results of
# `zhbert.sentences.pooling.POOLING_MODES`.
_POOLING: Mapping[str, Callable[[Tensor, Tensor], Tensor]] = {
    "cls": lambda x, there: x[:, 0],
    "max": lambda x, there: x.masked_fill(~there, _MASKED).amax(1),
    "mean": _mean,
    "mean_sqrt_len_tokens": lambda x, there: _mean(x, there, 0.5),
    "weightedmean": _weighted_mean,
    "lasttoken": _last,
}

# -- the graph --------------------------------------------------------------------------------


def export_graph(padded: PaddedModel, opset: int) -> ir.Model:
    """Translate a model to ONNX, with any number of rows, pieces and positions.

    Raises:
        ZhbertError: the exporter cannot translate a part of the model.
    """
    import onnx

    names = [*INPUTS, POSITIONS] if padded.task == "fill" else [*INPUTS]
    # Each size differs, and is neither 0 nor 1, so that the exporter confuses none with another.
    # The inputs are different tensors, since it takes the same one for the same input.
    shapes = [(2, 5)] * len(INPUTS) + [(2, 3)] * (len(names) - len(INPUTS))
    inputs = tuple(torch.ones(shape, dtype=torch.int64) for shape in shapes)
    axes = [{0: "batch", 1: POSITIONS if name == POSITIONS else "sequence"} for name in names]
    dims = {name: torch.export.Dim(name, min=1) for axis in axes for name in axis.values()}
    try:
        with _silence(), torch.no_grad():
            program: Any = torch.onnx.export(
                padded.eval(),
                inputs,
                dynamo=True,
                opset_version=opset,
                input_names=names,
                output_names=list(padded.output_names),
                dynamic_shapes=[{place: dims[axis[place]] for place in axis} for axis in axes],
                verbose=False,
            )
    except Exception as error:
        while error.__cause__ is not None:  # the outer ones only say at which step it happened
            error = error.__cause__  # type: ignore[assignment]
        line = str(error).strip().split("\n")[0]
        raise ZhbertError(f"PyTorch cannot translate the model to ONNX: {line}") from None
    model: ir.Model = program.model
    # The oldest form that has the operations: what newer programs write, older ones refuse.
    model.ir_version = onnx.helper.find_min_ir_version_for([onnx.helper.make_opsetid("", opset)])
    for node in model.graph:
        node.metadata_props.clear()  # where this machine keeps the code that the node comes from
    if padded.task == "fill":
        _make_optional(model)
    return model


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress the exporter's warnings and log lines, which concern its own parts."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _make_optional(model: ir.Model) -> None:
    """Give the input ``positions`` a default, which stands for all positions.

    The default has the shape (1, 0). In its place the graph computes::

        count = L if P == 0 else 0
        index = Concat(Expand(positions, (B, P)), Expand(Range(0, count), (B, count)), axis=1)
    """
    import numpy as np
    import onnx_ir as ir

    graph = model.graph
    ids, positions = graph.inputs[0], graph.inputs[-1]
    nodes: list[ir.Node] = []

    def constant(value: Any) -> ir.Value:
        return node("Constant", value=ir.tensor(np.array(value, np.int64)))

    def node(operation: str, *inputs: ir.Value, **attributes: Any) -> ir.Value:
        nodes.append(ir.node(operation, inputs, attributes))
        return nodes[-1].outputs[0]

    used_by = list(positions.uses())
    batch, length = node("Shape", ids, start=0, end=1), node("Shape", ids, start=1, end=2)
    asked = node("Shape", positions, start=1, end=2)
    nothing = node("Cast", node("Equal", asked, constant([0])), to=ir.DataType.INT64)
    count = node("Mul", length, nothing)
    every = node("Range", constant(0), node("Squeeze", count), constant(1))
    index = node(
        "Concat",
        node("Expand", positions, node("Concat", batch, asked, axis=0)),
        node("Expand", every, node("Concat", batch, count, axis=0)),
        axis=1,
    )
    for number, value in enumerate(v for n in nodes for v in n.outputs):
        value.name = f"{POSITIONS}_{number}"
    for user, place in used_by:
        user.replace_input_with(place, index)
    graph.insert_before(graph[0], nodes)
    positions.const_value = ir.tensor(np.zeros((1, 0), np.int64), name=POSITIONS)
    graph.initializers.add(positions)
