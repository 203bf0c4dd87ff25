"""Cross entropy of a large vocabulary, in pieces that stay in the processor's cache."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional


def vocabulary_cross_entropy(
    hidden: Tensor, weight: Tensor, bias: Tensor, labels: Tensor
) -> tuple[Tensor, Tensor]:
    """Summed cross entropy of ``hidden @ weight.T + bias`` and the count of right guesses.

    Args:
        hidden: (P, H), one row for each predicted position.
        weight: (V, H).
        bias: (V,).
        labels: (P,) int64.
    """
    logits = functional.linear(hidden, weight, bias).float()
    loss = functional.cross_entropy(logits, labels, reduction="sum")
    return loss, (logits.argmax(-1) == labels).sum()
