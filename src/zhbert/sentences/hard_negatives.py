"""Hard negatives: texts that a sentence model finds near an anchor, though they are not its match.

Trained against them, a model learns more than against the other texts of a batch, most of which
are easy to tell apart. The candidates and the margins are those of
``sentence_transformers.util.mine_hard_negatives``. A margin relative to the positive leaves out
candidates that may be unmarked positives (NV-Retriever, https://arxiv.org/abs/2407.15831, which
recommends 0.05).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from zhbert.errors import ZhbertError
from zhbert.sentences.nearest import nearest

Floats = npt.NDArray[np.float32]

_TEXTS = 4096  # encoded between two reports of progress


class TextEncoder(Protocol):
    """What mining needs of a model; a ``SentenceEncoder`` is one."""

    def encode_query(self, sentences: list[str], *, normalize_embeddings: bool) -> Any:
        """Return normalized vectors of anchors, (texts, D)."""

    def encode_document(self, sentences: list[str], *, normalize_embeddings: bool) -> Any:
        """Return normalized vectors of positives and of the corpus, (texts, D)."""


@dataclass(frozen=True, kw_only=True)
class Mining:
    """Which of the texts near an anchor become its negatives.

    The nearest texts are candidates, without the anchor and its positives. Those that the margins
    and limits leave are ranked; ranks from ``range_min`` (from 0) to ``range_max`` are allowed, and
    the first ``num_negatives`` of them are taken. Scores are cosines.

    Raises ZhbertError for values that leave no negatives.
    """

    num_negatives: int = 3
    range_min: int = 0
    range_max: int | None = None
    """None: large enough for ``num_negatives``; ten times as many candidates if some are left out
    by a margin or limit."""
    absolute_margin: float | None = None
    """A negative's score is at least this much below that of the anchor's least near positive."""
    relative_margin: float | None = None
    """The same, as a share of the positive's score: 0.05 means at most 95 % of it."""
    max_score: float | None = None
    min_score: float | None = None

    def __post_init__(self) -> None:
        if self.num_negatives < 1:
            raise ZhbertError(f"num_negatives = {self.num_negatives}: must be 1 or more")
        if self.range_min < 0:
            raise ZhbertError(f"range_min = {self.range_min}: must be 0 or more")
        if self.range_max is not None and self.range_max < self.range_min + self.num_negatives:
            raise ZhbertError(
                f"range_max = {self.range_max}: must be at least range_min + num_negatives, "
                f"{self.range_min + self.num_negatives}"
            )

    def candidates(self, most_positives: int) -> int:
        """Return how many candidates are ranked if an anchor has up to ``most_positives``."""
        if self.range_max is not None:
            return self.range_max
        some_are_left_out = (self.absolute_margin, self.relative_margin, self.max_score)
        factor = 1 if some_are_left_out == (None, None, None) else 10
        return self.range_min + factor * self.num_negatives + most_positives

    def allowed(self, scores: Floats, positive: float) -> npt.NDArray[np.bool_]:
        """Return which candidates the margins and limits leave, given the positive's score."""
        kept = np.ones(len(scores), np.bool_)
        if self.absolute_margin is not None:
            kept &= scores + self.absolute_margin <= positive
        if self.relative_margin is not None:
            # Not positive * (1 - margin), which would be above a positive's score below zero.
            kept &= scores <= positive - abs(positive) * self.relative_margin
        if self.max_score is not None:
            kept &= scores <= self.max_score
        if self.min_score is not None:
            kept &= scores >= self.min_score
        return kept


def mine_hard_negatives(
    encoder: TextEncoder,
    pairs: Sequence[tuple[str, str]],
    corpus: Sequence[str] = (),
    mining: Mining | None = None,
    progress: Callable[[str, int, int], None] = lambda doing, done, total: None,
) -> list[tuple[str, ...]]:
    """Return the hard negatives of each pair, the nearest first; fewer where too few are found.

    Pairs with the same anchor have several positives, none of which becomes a negative, and get
    the same negatives. A text that stands twice in the corpus is one candidate.

    >>> from zhbert import SentenceEncoder
    >>> pairs = [("怎么申请离婚？", "离婚须双方申请。"), ("几岁成年？", "十八岁为成年人。")]
    >>> encoder = SentenceEncoder.from_pretrained("mini", quiet=True)
    >>> mine_hard_negatives(encoder, pairs, mining=Mining(num_negatives=1))
    [('十八岁为成年人。',), ('离婚须双方申请。',)]

    Args:
        encoder: the model; anchors are encoded as queries, the other texts as documents.
        pairs: anchors and their positives.
        corpus: further texts that may be negatives, besides the positives.
        mining: which candidates are taken; None: the three nearest.
        progress: called with what is encoded, how many texts of it are done, and of how many.

    Raises:
        ZhbertError: there are no pairs.
    """
    if not pairs:
        raise ZhbertError("no pairs, so there is nothing to find negatives for")
    mining = mining or Mining()
    texts = list(dict.fromkeys([*corpus, *(positive for _, positive in pairs)]))
    places = {text: place for place, text in enumerate(texts)}
    positives: dict[str, dict[int, None]] = {}
    for anchor, positive in pairs:
        positives.setdefault(anchor, {})[places[positive]] = None

    def encoded(encode: Callable[..., Any], what: str, those: Sequence[str]) -> Floats:
        parts = []
        for first in range(0, len(those), _TEXTS):
            progress(f"encoding {what}:", first, len(those))
            parts.append(encode(those[first : first + _TEXTS], normalize_embeddings=True))
        progress(f"encoding {what}:", len(those), len(those))
        return np.concatenate(parts)

    vectors = encoded(encoder.encode_document, "candidates", texts)
    asked = encoded(encoder.encode_query, "anchors", list(positives))
    found = _negatives(asked, vectors, list(positives.items()), places, mining)
    return [tuple(texts[place] for place in found[anchor]) for anchor, _ in pairs]


def _negatives(
    asked: Floats,
    vectors: Floats,
    anchors: Sequence[tuple[str, Mapping[int, None]]],
    places: Mapping[str, int],
    mining: Mining,
) -> dict[str, list[int]]:
    """Return the places of the negatives of each anchor; ``anchors`` have those of positives."""
    most = max(len(right) for _, right in anchors)
    count = mining.candidates(most)
    # One more, because the anchor itself may be a text of the corpus.
    scores, indices = nearest(asked, vectors, count + most + 1)
    negatives = {}
    for (anchor, right), vector, score, near in zip(anchors, asked, scores, indices, strict=True):
        others = (near != places.get(anchor)).nonzero()[0][: count + most]
        score, near = score[others], near[others]
        least = (vectors[list(right)] @ vector).min()
        kept = ~np.isin(near, list(right)) & mining.allowed(score, least)
        ranked = near[kept][mining.range_min : count]
        negatives[anchor] = ranked[: mining.num_negatives].tolist()
    return negatives
