"""A masking strategy of one's own: a class with ``choose``, and a name in the table."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from tests.data.reference_rows import CLS, SEP, MemoryShard
from tests.pretraining_loaders import loader_over

from zhbert.config import parse_recipe
from zhbert.masking_strategies import STRATEGIES, Word


class OneSpanMasking:
    """Predicts neighbouring words: a single span of the row, from a random word on."""

    def choose(self, words: Sequence[Word], limit: int, rng: np.random.Generator) -> list[Word]:
        first = int(rng.integers(len(words)))
        ends = np.cumsum([word.length for word in words[first:]])
        return list(words[first : first + int(np.searchsorted(ends, limit, "right"))])


@pytest.fixture
def one_span(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(STRATEGIES, "one-span", OneSpanMasking())


@pytest.mark.usefixtures("one_span")
def test_a_strategy_is_named_in_a_recipe_and_masks_the_loader_s_rows() -> None:
    recipe = parse_recipe({"masking": {"strategy": "one-span", "rate": 0.3}})
    pieces = [f"p{number}" for number in range(40)]
    vocabulary = ["[CLS]", "[SEP]", "[MASK]", "[PAD]", *pieces]
    sentence = [[number] for number in range(4, 44)]  # forty words of one piece each

    loader = loader_over(
        [MemoryShard([[[sentence]]])], vocabulary, builder="lines", masking=recipe.masking,
        sequence_length=42, batch_size=1,
    )  # fmt: skip
    for step in range(20):
        (batch,) = loader.step(step)
        positions = batch.predicted_positions.tolist()
        assert 1 <= len(positions) <= 13  # 0.3 of 42 pieces
        assert positions == list(range(positions[0], positions[-1] + 1))
        assert not {CLS, SEP} & set(batch.labels.tolist())
