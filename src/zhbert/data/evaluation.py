"""Held-out rows with fixed masks, for the evaluation of masked language models.

All runs and models are measured with the same masks, however they were trained, so that they can be
compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from zhbert.config import EvaluationSettings, MaskingSettings
from zhbert.data.loader import MaskedBatch, PretrainingLoader
from zhbert.data.masking import Masker
from zhbert.data.row_windows import rows_of_split
from zhbert.data.shards import Corpus
from zhbert.errors import ZhbertError

SEED = 20190620
RATE = 0.15


@dataclass(frozen=True)
class MaskedRows:
    """Rows masked by one strategy."""

    strategy: str
    batches: list[MaskedBatch]
    baseline_accuracy: float | None
    """the accuracy of always guessing the corpus's most frequent piece; None: nothing is masked"""


def held_out_rows(
    corpus: Corpus,
    vocabulary: Sequence[str],
    settings: EvaluationSettings,
    *,
    builder: str = "full-sentences",
    sequence_length: int = 128,
    batch_size: int = 32,
) -> list[MaskedRows]:
    """Mask a corpus's held-out rows by each of ``settings.strategies``.

    The list is empty if nothing is held out, or if no rows or strategies are requested.

    The masks depend on ``builder`` and ``sequence_length`` but not on ``batch_size``.
    """
    if not settings.rows or not settings.strategies:
        return []
    predictions = max(1, round(RATE * sequence_length) + 1)
    masker = Masker(MaskingSettings(rate=RATE, max_predictions=predictions), vocabulary)
    try:
        rows = rows_of_split(
            builder,
            corpus.shards("held_out"),
            cls_id=masker.vocabulary.cls_id,
            sep_id=masker.vocabulary.sep_id,
            sequence_length=sequence_length,
            seed=SEED,
        )
        loader = PretrainingLoader(rows, masker, batch_size=batch_size, seed=SEED)
    except ZhbertError:
        return []
    guess = int(corpus.piece_counts.argmax())
    masked = []
    for strategy in settings.strategies:
        batches = loader.evaluation(settings.rows, strategy=strategy)
        labels = sum(len(batch.labels) for batch in batches)
        right = sum(int((batch.labels == guess).sum()) for batch in batches)
        masked.append(MaskedRows(strategy, batches, right / labels if labels else None))
    return masked
