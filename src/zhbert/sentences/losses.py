"""Losses of sentence embeddings: pure functions of the embeddings of a batch.

Every loss is a mean over the batch, and compares embeddings with each other, so it needs those of
the whole batch at once. What is compared with what is a `Scored`, a `Ranking` or a `Triplets`; the
table `LOSSES` names the losses. Shapes: R = texts of the batch, D = numbers of an embedding, B =
examples, C = candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

SCALE = 20.0
"""What cosines are multiplied by before a softmax: the inverse of a temperature of 0.05."""
CONTRASTIVE_MARGIN = 0.5
TRIPLET_MARGIN = 5.0


def cosent(left: Tensor, right: Tensor, values: Tensor, scale: float = SCALE) -> Tensor:
    """Return CoSENT's loss: every pair with a higher value should have a higher cosine.

    ``log(1 + sum(exp(scale * (cosine of pair j - cosine of pair i))))`` over all i and j of which
    pair i has the higher value: https://kexue.fm/archives/8847.

    >>> one, two = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    >>> round(float(cosent(one, two, torch.tensor([1.0, 0.0]))), 4)
    0.0
    >>> round(float(cosent(one, two, torch.tensor([0.0, 1.0]))), 4)
    20.0

    Args:
        left: (B, D), the embedding of the first text of each pair.
        right: (B, D), of the second text.
        values: (B,), how similar the texts are; only their order matters.
        scale: what cosines are multiplied by.
    """
    return _rank_by_value(functional.cosine_similarity(left, right), values, scale)


def angle(left: Tensor, right: Tensor, values: Tensor, scale: float = SCALE) -> Tensor:
    """Return AnglE's loss: `cosent` with angles in the complex plane in place of cosines.

    The halves of an embedding are the real and the imaginary parts of complex numbers. The gradient
    of their angle does not vanish where that of a cosine does, near 1 and -1:
    https://arxiv.org/abs/2309.12871. The arguments are those of `cosent`.
    """
    if left.shape[1] % 2:
        left, right = (functional.pad(one, (0, 1)) for one in (left, right))
    a, b = functional.normalize(left).chunk(2, dim=1)
    c, d = functional.normalize(right).chunk(2, dim=1)
    # The real and the imaginary part of (a + bi) times the conjugate of (c + di).
    real, imaginary = (a * c + b * d).sum(1), (b * c - a * d).sum(1)
    return _rank_by_value((real + imaginary).abs(), values, scale)


def _rank_by_value(similarities: Tensor, values: Tensor, scale: float) -> Tensor:
    scores = similarities * scale
    differences = scores[None, :] - scores[:, None]
    in_order = values[:, None] > values[None, :]
    differences = differences.masked_fill(~in_order, -torch.inf)
    return torch.cat((scores.new_zeros(1), differences.flatten())).logsumexp(0)


def cosine(left: Tensor, right: Tensor, values: Tensor) -> Tensor:
    """Return the mean squared difference of cosines and values.

    Sentence-BERT's regression: https://arxiv.org/abs/1908.10084. The arguments are those of
    `cosent`.
    """
    return functional.mse_loss(functional.cosine_similarity(left, right), values)


def contrastive(
    left: Tensor, right: Tensor, values: Tensor, margin: float = CONTRASTIVE_MARGIN
) -> Tensor:
    """Return the contrastive loss: similar texts come together, others part by ``margin``.

    Hadsell et al. 2006, https://doi.org/10.1109/CVPR.2006.100, with 1 - cosine as the distance.

    Args:
        left: (B, D), the embedding of the first text of each pair.
        right: (B, D), of the second text.
        values: (B,), 1 for similar texts, 0 for others.
        margin: the distance from which on a pair of other texts has no loss.
    """
    distances = 1 - functional.cosine_similarity(left, right)
    apart = functional.relu(margin - distances)
    return 0.5 * (values * distances.square() + (1 - values) * apart.square()).mean()


def multiple_negatives(
    anchors: Tensor,
    candidates: Tensor,
    positives: Tensor,
    masked: Tensor | None = None,
    scale: float = SCALE,
) -> Tensor:
    """Return the cross entropy of finding each anchor's positive among all candidates.

    The positives of other examples serve as negatives: https://arxiv.org/abs/1705.00652, section
    4.4, and https://arxiv.org/abs/1807.03748 (InfoNCE).

    Args:
        anchors: (B, D), embeddings.
        candidates: (C, D), embeddings of the positives and of any further negatives.
        positives: (B,) int64, the index of each anchor's positive among the candidates.
        masked: (B, C) bool, the candidates that are no negatives of an anchor; None: all are.
        scale: what cosines are multiplied by.
    """
    scores = functional.normalize(anchors) @ functional.normalize(candidates).T * scale
    if masked is not None:
        scores = scores.masked_fill(masked, -torch.inf)
    return functional.cross_entropy(scores, positives)


def triplet(
    anchors: Tensor, positives: Tensor, negatives: Tensor, margin: float = TRIPLET_MARGIN
) -> Tensor:
    """Return the triplet loss: a negative should be farther away by ``margin`` than a positive.

    Distances are Euclidean: https://arxiv.org/abs/1703.07737. Each argument is (B, D).
    """
    near = torch.linalg.vector_norm(anchors - positives, dim=1)
    far = torch.linalg.vector_norm(anchors - negatives, dim=1)
    return functional.relu(near - far + margin).mean()


def matryoshka(
    loss: Callable[[Tensor], Tensor], dimensions: Sequence[int]
) -> Callable[[Tensor], Tensor]:
    """Return the sum of a loss over embeddings cut to their first numbers.

    So that the first numbers of an embedding can be used without the others:
    https://arxiv.org/abs/2205.13147.

    Args:
        loss: a function of (R, D) embeddings.
        dimensions: how many of the first numbers to take, each at most D.
    """

    def summed(embeddings: Tensor) -> Tensor:
        cut = [functional.normalize(embeddings[:, :dimension]) for dimension in dimensions]
        return torch.stack([loss(one) for one in cut]).sum()

    return summed


# -- what is compared ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scored:
    """Pairs of texts with values."""

    left: Tensor
    """(B,) int64, the first text of each pair among the R texts."""
    right: Tensor
    """(B,) int64, the second text."""
    values: Tensor
    """(B,) float32, from 0 to 1."""

    def of(self, embeddings: Tensor) -> tuple[Tensor, ...]:
        """Return the arguments of the loss: (B, D), (B, D) and (B,)."""
        return embeddings[self.left], embeddings[self.right], self.values


@dataclass(frozen=True)
class Triplets:
    """Anchors, each with a positive and a negative."""

    anchors: Tensor
    """(B,) int64, indices of texts."""
    positives: Tensor
    """(B,) int64"""
    negatives: Tensor
    """(B,) int64"""

    def of(self, embeddings: Tensor) -> tuple[Tensor, ...]:
        """Return the arguments of the loss, each (B, D)."""
        return embeddings[self.anchors], embeddings[self.positives], embeddings[self.negatives]


@dataclass(frozen=True)
class Ranking:
    """Anchors, and the candidates among which each one's positive is to be found."""

    anchors: Tensor
    """(B,) int64, indices of texts."""
    candidates: Tensor
    """(C,) int64, indices of texts."""
    positives: Tensor
    """(B,) int64, indices of candidates."""
    masked: Tensor
    """(B, C) bool: the candidates that are no negatives of an anchor."""

    @classmethod
    def among(
        cls,
        anchors: NDArray[np.int64],
        positives: NDArray[np.int64],
        negatives: NDArray[np.int64],
        texts: NDArray[np.int64],
    ) -> Ranking:
        """Return the ranking of all positives and negatives of a batch for each anchor.

        A candidate is no negative of an anchor if it is the same text as the anchor or its
        positive, or a positive of the same anchor in another example.

        Args:
            anchors: (B,), indices of the R texts.
            positives: (B,), the same.
            negatives: (any number,), further candidates.
            texts: (R,), a number that equal texts share.
        """
        candidates = np.unique(np.concatenate((positives, negatives)))
        places = np.searchsorted(candidates, positives)
        said, answered = texts[anchors], texts[positives]
        found = texts[candidates]
        masked = (found == said[:, None]) | (found == answered[:, None])
        _, same = np.unique(said, return_inverse=True)
        known = np.zeros((same.max(initial=-1) + 1, len(candidates)), bool)
        known[same, places] = True
        masked |= known[same]
        masked[np.arange(len(anchors)), places] = False
        return cls(*map(torch.from_numpy, (anchors, candidates, places, masked)))

    def of(self, embeddings: Tensor) -> tuple[Tensor, ...]:
        """Return the arguments of the loss: (B, D), (C, D), (B,) and (B, C)."""
        anchors, candidates = embeddings[self.anchors], embeddings[self.candidates]
        return anchors, candidates, self.positives, self.masked


Comparison = Scored | Ranking | Triplets

# -- the table -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EmbeddingLoss:
    """A loss of the table."""

    function: Callable[..., Tensor] | None
    """Takes what ``compares`` selects from the embeddings, and the ``parameters`` by name."""
    compares: type[Comparison] | None
    """None: nothing is compared. The texts are restored, and the model computes the loss."""
    forms: tuple[str, ...]
    """The forms of examples that it can learn from: see `zhbert.tasks.examples.EmbedExample`."""
    parameters: Mapping[str, float]
    """The names of its parameters, with their usual values."""
    twice: bool = False
    """Compares a text with itself, encoded again with other dropout."""

    def __call__(
        self,
        embeddings: Tensor,
        compared: Comparison,
        dimensions: Sequence[int] = (),
        **parameters: float,
    ) -> Tensor:
        """Return the loss of (R, D) embeddings, or its sum over `matryoshka`'s ``dimensions``."""
        function = self.function
        assert function is not None

        def loss(these: Tensor) -> Tensor:
            return function(*compared.of(these), **parameters)

        return (matryoshka(loss, dimensions) if dimensions else loss)(embeddings)


FORMS = ("scored", "judged", "pairs", "triples", "texts")

LOSSES: dict[str, EmbeddingLoss] = {
    "cosent": EmbeddingLoss(cosent, Scored, ("scored", "judged"), {"scale": SCALE}),
    "angle": EmbeddingLoss(angle, Scored, ("scored", "judged"), {"scale": SCALE}),
    "cosine": EmbeddingLoss(cosine, Scored, ("scored", "judged"), {}),
    "contrastive": EmbeddingLoss(contrastive, Scored, ("judged",), {"margin": CONTRASTIVE_MARGIN}),
    "multiple_negatives": EmbeddingLoss(
        multiple_negatives, Ranking, ("pairs", "triples", "judged"), {"scale": SCALE}
    ),
    "triplet": EmbeddingLoss(triplet, Triplets, ("triples",), {"margin": TRIPLET_MARGIN}),
    # A text is its own positive: https://arxiv.org/abs/2104.08821.
    "simcse": EmbeddingLoss(multiple_negatives, Ranking, FORMS, {"scale": SCALE}, twice=True),
    # `zhbert.sentences.denoising.DenoisingModel.restoring_loss`
    "tsdae": EmbeddingLoss(None, None, FORMS, {}),
}
"""The losses by name."""
