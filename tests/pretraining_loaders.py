"""A loader over shards, by the settings that a test cares about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from zhbert.config import MaskingSettings
from zhbert.data.examples import ShardLike, make_rows
from zhbert.data.loader import PretrainingLoader
from zhbert.data.masking import Masker
from zhbert.data.row_order import WholeCorpus


def loader_over(
    shards: Sequence[ShardLike],
    vocabulary: Sequence[str],
    *,
    builder: str = "pairs",
    sequence_length: int = 40,
    short_row_probability: float = 0.1,
    masking: MaskingSettings | None = None,
    seed: int = 5,
    **options: Any,
) -> PretrainingLoader:
    masker = Masker(masking or MaskingSettings(), vocabulary)
    rows = make_rows(
        builder,
        shards,
        cls_id=masker.vocabulary.cls_id,
        sep_id=masker.vocabulary.sep_id,
        sequence_length=sequence_length,
        short_row_probability=short_row_probability,
        seed=seed,
    )
    return PretrainingLoader(WholeCorpus(rows), masker, seed=seed, **options)
