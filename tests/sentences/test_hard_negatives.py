"""Hard negatives: those that sentence-transformers mines."""

from __future__ import annotations

import sys
from collections import Counter
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.sentences.hard_negatives import Mining, mine_hard_negatives

PAIRS = [(f"anchor {i % 25}", f"positive {i % 28}") for i in range(40)]
CORPUS = [f"text {i % 50}" for i in range(60)]


class RandomVectors:
    """A model whose vectors of texts are random, but near each other."""

    device = "cpu"

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)
        self._vectors: dict[str, NDArray[np.float32]] = {}

    def encode(self, sentences: list[str], **options: Any) -> NDArray[np.float32]:
        for text in sentences:
            if text not in self._vectors:
                vector = self._rng.standard_normal(8, np.float32) + 0.5
                self._vectors[text] = vector / np.linalg.norm(vector)
        return np.stack([self._vectors[text] for text in sentences])

    encode_query = encode_document = encode


class Columns(dict[str, list[Any]]):
    """The little of a datasets.Dataset that mining uses; neither it nor pandas is installed."""

    from_dict = classmethod(lambda cls, columns: cls(columns))
    column_names = property(list)

    def __len__(self) -> int:
        return len(next(iter(self.values())))

    def to_pandas(self) -> Any:
        counts = SimpleNamespace(to_dict=lambda: {"positive": Counter(self["anchor"])})
        return SimpleNamespace(groupby=lambda column: SimpleNamespace(count=lambda: counts))


@pytest.fixture
def theirs(monkeypatch: pytest.MonkeyPatch) -> Any:
    from sentence_transformers.util import cos_sim, hard_negatives, pairwise_cos_sim

    datasets = ModuleType("datasets")
    datasets.Dataset = Columns  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", datasets)
    monkeypatch.setattr(hard_negatives, "is_datasets_available", lambda: True)
    model = RandomVectors()
    model.similarity, model.similarity_pairwise = cos_sim, pairwise_cos_sim  # type: ignore[attr-defined]

    def mine(**options: Any) -> set[tuple[str, str, str]]:
        pairs = dict(zip(("anchor", "positive"), map(list, zip(*PAIRS, strict=True)), strict=True))
        found = hard_negatives.mine_hard_negatives(
            Columns(pairs), model, corpus=CORPUS, verbose=False, **options
        )
        return set(zip(found["anchor"], found["positive"], found["negative"], strict=True))

    return SimpleNamespace(model=model, mine=mine)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"num_negatives": 7, "range_min": 4},
        {"range_min": 2, "range_max": 20, "absolute_margin": 0.1},
        {"range_max": 10, "relative_margin": 0.05},
        {"relative_margin": 0.2, "min_score": 0.1},
        {"max_score": 0.6},
    ],
    ids=str,
)
def test_the_triples_are_those_of_sentence_transformers(
    theirs: Any, options: dict[str, Any]
) -> None:
    mined = mine_hard_negatives(theirs.model, PAIRS, CORPUS, Mining(**options))
    triples = {(*pair, text) for pair, texts in zip(PAIRS, mined, strict=True) for text in texts}
    assert triples == theirs.mine(**options)


def test_neither_the_anchor_nor_its_positives_become_negatives() -> None:
    texts = ["a", "b", "c"]
    pairs = [("a", "b"), ("a", "c"), ("b", "a"), ("d", "e")]
    mined = mine_hard_negatives(RandomVectors(), pairs, texts, Mining(num_negatives=9))
    assert [set(found) for found in mined] == [{"e"}, {"e"}, {"c", "e"}, {"a", "b", "c"}]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_negatives": 0}, "num_negatives = 0: must be 1 or more"),
        ({"range_min": -1}, "range_min = -1: must be 0 or more"),
        ({"range_min": 2, "range_max": 4}, "range_max = 4: must be at least"),
    ],
)
def test_options_that_leave_no_negatives_are_refused(options: dict[str, int], words: str) -> None:
    with pytest.raises(ZhbertError, match=words):
        Mining(**options)  # type: ignore[arg-type]


def test_no_pairs_is_one_line() -> None:
    with pytest.raises(ZhbertError, match="no pairs"):
        mine_hard_negatives(RandomVectors(), [])
