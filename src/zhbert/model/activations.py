"""The activations of the feed-forward layers and of the masked-word head, by name."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from torch import Tensor
from torch.nn import functional

from zhbert.errors import ZhbertError
from zhbert.wording import listed

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": partial(functional.gelu, approximate="tanh"),
    "relu": functional.relu,
}
"""The choices of ``BertConfig.hidden_act``. Add a function of one tensor to use it in a model."""


def activation_named(name: str) -> Callable[[Tensor], Tensor]:
    """Return the activation function of that name.

    Raises:
        ZhbertError: the name is not in the table.
    """
    if name not in ACTIVATIONS:
        raise ZhbertError(f"hidden_act = {name!r} is not known; known: {listed(ACTIVATIONS)}")
    return ACTIVATIONS[name]
