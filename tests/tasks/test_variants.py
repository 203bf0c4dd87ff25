"""A kind of task of one's own: labels in an order, such as those of a review's stars.

Its card has a key of its own, its metric knows how far a mistake is off, and what is handed in are
ranks. This is the example of CONTRIBUTING.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from tests.small_tasks import QUICK, make_model, texts

from zhbert.errors import ZhbertError
from zhbert.finetuning.predict import predict
from zhbert.finetuning.run import finetune
from zhbert.schema import check_choice
from zhbert.tasks.cards import load_card
from zhbert.tasks.examples import Prediction, Value
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.kinds.classify import Classify, ClassifyData
from zhbert.tasks.learners.base import Learner, Prepared, softmax
from zhbert.tasks.learners.texts import ClassifyLearner
from zhbert.tasks.metrics import Floats, Metric, Resampled
from zhbert.tasks.prediction_rows import PredictionRow
from zhbert.tasks.scoring import score_files
from zhbert.tasks.writers import PredictionWriter


@dataclass(frozen=True, kw_only=True)
class OrdinalData(ClassifyData):
    """The labels stand in their order."""

    decide: str = "median"
    """``median``: the label in the middle of the probabilities; ``mode``: the likeliest label."""

    def check(self, where: str) -> None:
        super().check(where)
        check_choice(self.decide, ("median", "mode"), f"{where}: data.decide")


@dataclass(frozen=True)
class OrdinalLearner(ClassifyLearner):
    decide: str = "median"

    def decode(self, prepared: Prepared, scores: Floats) -> list[Prediction]:
        found = super().decode(prepared, scores)
        if self.decide == "mode":
            return found
        middle = (softmax(scores).cumsum(-1) < 0.5).sum(-1).tolist()
        labels = (self.labels[label] for label in middle)
        return [replace(one, value=label) for one, label in zip(found, labels, strict=True)]


def weighted_kappa(
    gold: Sequence[str], predicted: Sequence[str], labels: Sequence[str]
) -> Resampled:
    """Agreement beyond chance, with quadratic weights: https://doi.org/10.1037/h0026256."""
    ranks = {label: float(rank) for rank, label in enumerate(labels)}
    true, found = (np.array([ranks[label] for label in side]) for side in (gold, predicted))

    def score(weights: Floats) -> Floats:
        def mean(values: Floats) -> Floats:
            return np.asarray(weights @ values / weights.sum(axis=1))

        by_chance = mean(true**2) + mean(found**2) - 2 * mean(true) * mean(found)
        return 100 * (1 - mean((true - found) ** 2) / np.maximum(by_chance, 1e-12))

    return score


class Ordinal(Classify):
    name = "ordinal"
    data_class = OrdinalData
    metrics: ClassVar[Mapping[str, Metric]] = {
        **Classify.metrics,
        "weighted_kappa": weighted_kappa,
    }

    def learner(self, of: Any) -> Learner:
        return OrdinalLearner(
            of.tokenizer, of.labels, of.settings.sequence_length, of.card.data.decide
        )

    def submissions(self, card: Any, labels: Sequence[str]) -> dict[str, PredictionWriter]:
        def line(example: Any, prediction: Any) -> str:
            return f'"{example.id}": {labels.index(prediction.value)}'

        return {".json": PredictionWriter(line, "{", ", ", "}\n")}

    def predicted(self, row: PredictionRow, data: Any, where: str) -> Value:
        if isinstance(row.value, int):
            return str(data.labels[row.value])
        return super().predicted(row, data, where)


# -- the claims ------------------------------------------------------------------------------------

CARD = """
title = "Stars: how good is the hotel?"
kind = "ordinal"
metrics = ["weighted_kappa", "accuracy"]
[data]
format = "tsv"
train = "train.tsv"
dev = "dev.tsv"
text = "text"
label = "stars"
labels = ["一", "二", "三"]
decide = "median"
"""


@pytest.fixture
def card(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setitem(KINDS, "ordinal", Ordinal())
    for split, count in (("train", 16), ("dev", 9)):
        rows = [f"{text}\t{'一二三'[n % 3]}\n" for n, text in enumerate(texts(count, count))]
        (tmp_path / f"{split}.tsv").write_text("text\tstars\n" + "".join(rows), encoding="utf-8")
    path = tmp_path / "stars.toml"
    path.write_text(CARD, encoding="utf-8")
    return path


def test_it_is_learnt_predicted_handed_in_and_scored(card: Path, tmp_path: Path) -> None:
    model, run, dev = make_model(tmp_path / "model"), tmp_path / "run", tmp_path / "dev.tsv"
    finetune(card, model, None, run, [*QUICK, "epochs=1"])  # two steps
    seed = run / "seed-0"
    result = json.loads((seed / "result.json").read_text(encoding="utf-8"))

    handed_in = json.loads((seed / "submission.json").read_text(encoding="utf-8"))
    assert set(handed_in) == set(map(str, range(9)))
    assert set(handed_in.values()) <= {0, 1, 2}
    scores = score_files(card, dev, seed / "submission.json")["metrics"]
    assert scores == {name: result["metrics"][name] for name in ("weighted_kappa", "accuracy")}

    assert predict(seed / "final", dev, tmp_path / "out.jsonl") == 9
    assert score_files(card, dev, tmp_path / "out.jsonl")["metrics"] == scores


def test_its_own_key_is_checked(card: Path) -> None:
    card.write_text(CARD.replace('"median"', '"mean"'), encoding="utf-8")
    with pytest.raises(ZhbertError, match=r'stars\.toml: data\.decide = "mean": not a choice'):
        load_card(card)


def test_the_middle_of_the_probabilities_is_predicted() -> None:
    scores = np.log([[0.4, 0.25, 0.35], [0.1, 0.2, 0.7]])
    for decide, expected in (("median", ["二", "三"]), ("mode", ["一", "三"])):
        learner = OrdinalLearner(None, ("一", "二", "三"), 16, decide)  # type: ignore[arg-type]
        assert [one.value for one in learner.decode(None, scores)] == expected  # type: ignore[arg-type]


def test_the_metric_is_scikit_learns() -> None:
    from sklearn.metrics import cohen_kappa_score

    gold, found = list("112233123"), list("123231113")
    expected = 100 * cohen_kappa_score(gold, found, weights="quadratic")
    (score,) = weighted_kappa(gold, found, "123")(np.ones((1, len(gold))))
    assert score == pytest.approx(expected)
