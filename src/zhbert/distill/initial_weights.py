"""The first weights of a student that is narrower than its teacher."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zhbert.distill.vocabulary import NO_LOGIT
from zhbert.errors import ZhbertError


@torch.no_grad()
def take_embeddings(student: Any, teacher: Any, counts: NDArray[np.int64]) -> float:
    """Give a student the principal components of the teacher's embeddings, as many as it is wide.

    What a small model must learn most of is its word embeddings, which are also the matrix of its
    masked-word head. The axes are those that keep most of the frequent pieces' vectors. Positions
    and segments are mapped to the same axes, and the bias of each piece's logit is the teacher's.

    Args:
        student, teacher: models with a masked-word head, the teacher as wide or wider.
        counts: (V,) how often each piece occurs in the text.

    Returns:
        the share of the embeddings' squared length that is kept, of the pieces as they occur.

    Raises:
        ZhbertError: the teacher is narrower than the student.
    """
    own, theirs = student.encoder.embeddings, teacher.encoder.embeddings
    width, wide = own.words.weight.shape[1], theirs.words.weight.shape[1]
    if wide < width:
        raise ZhbertError(
            f"initial_weights = teacher: the teacher is {wide} wide and the student {width}: it "
            "must be as wide or wider (initial_weights=scaled begins at random)"
        )
    words = theirs.words.weight.double().cpu()
    # Frequencies are tempered, so that a few particles do not take all axes.
    weights = torch.from_numpy(counts + 1.0).sqrt()[:, None]
    lengths, axes = torch.linalg.eigh(words.t() @ (weights * words))
    axes = axes[:, -width:].flip(1)

    def mapped(table: Tensor, rows: int) -> Tensor:
        projected: Tensor = table.double().cpu()[:rows] @ axes
        return projected.float()

    own.words.weight.copy_(mapped(words, len(words)))
    positions = min(len(own.positions.weight), len(theirs.positions.weight))
    own.positions.weight[:positions] = mapped(theirs.positions.weight, positions)
    segments = min(len(own.token_types.weight), len(theirs.token_types.weight))
    own.token_types.weight[:segments] = mapped(theirs.token_types.weight, segments)
    # A teacher of another vocabulary has no bias for some pieces: they keep their own.
    bias = teacher.mlm_head.bias.float().cpu()
    student.mlm_head.bias.copy_(bias.where(bias > NO_LOGIT / 2, student.mlm_head.bias))
    return float(lengths[-width:].sum() / lengths.sum())
