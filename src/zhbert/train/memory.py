"""Estimates of what a training step needs, from the shape alone; no torch here."""

from __future__ import annotations

from dataclasses import dataclass

# Single-precision weights, gradients and the optimiser's two running means.
BYTES_PER_PARAMETER = 16
PREDICTED_SHARE = 0.15


@dataclass(frozen=True, kw_only=True)
class Workload:
    """The sizes that decide a step's memory and operations."""

    hidden_size: int
    num_hidden_layers: int
    num_attention_heads: int
    intermediate_size: int
    vocabulary_size: int
    sequence_length: int

    def activation_bytes(self, bytes_per_number: int = 4, stored_attention: bool = True) -> int:
        """Bytes that one piece leaves behind for the backward pass.

        ``stored_attention``: the attention weights are kept, as on a CPU; flash attention on a GPU
        recomputes them.
        """
        layer = 14 * self.hidden_size + 3 * self.intermediate_size
        if stored_attention:
            layer += 3 * self.num_attention_heads * self.sequence_length
        logits = PREDICTED_SHARE * self.vocabulary_size * 4 * 2
        return int(self.num_hidden_layers * layer * bytes_per_number + logits)

    def operations(self) -> float:
        """Floating-point operations of one piece, forward and backward (three times forward)."""
        layer = 8 * self.hidden_size**2 + 4 * self.hidden_size * self.intermediate_size
        layer += 4 * self.sequence_length * self.hidden_size
        head = PREDICTED_SHARE * 2 * (self.hidden_size**2 + self.hidden_size * self.vocabulary_size)
        return 3.0 * (self.num_hidden_layers * layer + head)


def micro_batch_rows(rows: int, sequence_length: int, bytes_per_piece: int, budget: int) -> int:
    """Rows of one micro-batch: as few micro-batches as fit the budget, all about equally large.

    >>> micro_batch_rows(32, 128, 64_000, 2**31), micro_batch_rows(384, 512, 500_000, 2**31)
    (32, 8)
    """
    most = max(1, budget // (bytes_per_piece * sequence_length))
    parts = -(-rows // most)
    return -(-rows // parts)
