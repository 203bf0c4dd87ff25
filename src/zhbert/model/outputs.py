"""What ``forward`` returns, and its options, as transformers' users know them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict

import torch
from torch import Tensor
from torch.utils import _pytree

from zhbert.model.arguments import refuse
from zhbert.model.config import BertConfig


class ModelOutput(dict[str, Any]):
    """The result of ``forward``: a dictionary that can be indexed like a tuple.

    It contains what was computed, in transformers' order; other attributes are None.

    >>> output = ModelOutput(loss=None, logits=torch.ones(1, 2), hidden_states=())
    >>> list(output), output[0].shape, output.loss
    (['logits', 'hidden_states'], torch.Size([1, 2]), None)
    """

    loss: Tensor | None
    last_hidden_state: Tensor | None  # (batch, length, hidden), BertModel
    pooler_output: Tensor | None  # (batch, hidden), BertModel
    logits: Tensor | None  # (batch, length, vocabulary), BertForMaskedLM; (..., labels)
    prediction_logits: Tensor | None  # (batch, length, vocabulary), BertForPreTraining
    seq_relationship_logits: Tensor | None  # (batch, 2), BertForPreTraining
    start_logits: Tensor | None  # (batch, length), BertForQuestionAnswering
    end_logits: Tensor | None  # (batch, length), BertForQuestionAnswering
    hidden_states: tuple[Tensor, ...] | None  # embeddings and each layer, (batch, length, hidden)
    attentions: tuple[Tensor, ...] | None  # of each layer, (batch, heads, length, length)

    def __init__(
        self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), **named: Any
    ) -> None:
        given = dict(values, **named)
        super().__init__({name: value for name, value in given.items() if value is not None})

    def __getitem__(self, key: Any) -> Any:
        """Return a value by its name, a value by its place, or a slice of all values."""
        return super().__getitem__(key) if isinstance(key, str) else self.to_tuple()[key]

    def __getattr__(self, name: str) -> Any:
        if name not in ModelOutput.__annotations__:
            raise AttributeError(f"ModelOutput has no attribute {name!r}")
        return self.get(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def to_tuple(self) -> tuple[Any, ...]:
        """Return all values in their order."""
        return tuple(self.values())


# Distributed training looks for the tensors of an output.
_pytree.register_pytree_node(
    ModelOutput,
    lambda output: (list(output.values()), list(output)),
    lambda values, names: ModelOutput(zip(names, values, strict=True)),
    serialized_type_name="zhbert.ModelOutput",
)


class ForwardOptions(TypedDict, total=False):
    """The options of every ``forward``; None stands for what the configuration says."""

    output_attentions: bool | None
    """Return the weights of attention, before their dropout; zeros at padding."""
    output_hidden_states: bool | None
    """Return the output of the embeddings and of every layer; zeros at padding."""
    return_dict: bool | None
    """False: return a plain tuple."""
    num_items_in_batch: Tensor | int | None
    """Divide the summed loss by this number of labels, instead of by those of this batch."""


def check_options(options: Mapping[str, Any]) -> None:
    """Raise a ZhbertError if ``forward`` was called with an option that it does not have."""
    known = ForwardOptions.__annotations__
    refuse("forward", {name: value for name, value in options.items() if name not in known})


def option(options: ForwardOptions, name: str, config: BertConfig) -> bool:
    """Return an option, or what the configuration says of it."""
    value = options.get(name)
    return bool(getattr(config, name) if value is None else value)


def mean_loss(
    loss: Callable[..., Tensor], logits: Tensor, labels: Tensor, options: ForwardOptions
) -> Tensor:
    """Average a loss of ``torch.nn.functional``, over ``num_items_in_batch`` if it is given."""
    items = options.get("num_items_in_batch")
    if items is None:
        return loss(logits.float(), labels)
    return loss(logits.float(), labels, reduction="sum") / torch.as_tensor(items).to(logits.device)
