"""What is taken for what, and the worst mistakes first."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.report.run_folders import fine_tuning_run

from zhbert.report.mistakes import (
    MOST_LABELS,
    OTHERS,
    best_seed,
    confusion,
    predictions_of,
    worst_mistakes,
)
from zhbert.report.runs import FineTuningRun, read_runs
from zhbert.tasks.kinds.tag import NOT_FOUND


def run(folder: Path, task: str, **more: Any) -> FineTuningRun:
    (found,) = read_runs([fine_tuning_run(folder, task, **more)])
    assert isinstance(found, FineTuningRun)
    return found


def test_right_labels_are_rows_and_predicted_ones_columns(tmp_path: Path) -> None:
    of = run(tmp_path / "a", "chnsenticorp")
    lines = [{"gold": "0", "predicted": "1"}] * 3 + [{"gold": "1", "predicted": "1"}]
    matrix = confusion(of, [lines])
    assert matrix is not None
    assert matrix.labels == ("0 negative", "1 positive")
    assert matrix.counts == ((0, 3), (0, 1))
    assert matrix.share(0, 1) == 1.0


def test_a_matrix_is_sklearns_over_all_seeds(tmp_path: Path) -> None:
    from sklearn.metrics import confusion_matrix

    of = run(tmp_path / "a", "ocnli", right=[0.5, 0.7], examples=90)
    seeds = [predictions_of(of, seed) for seed in of.seeds]
    matrix = confusion(of, seeds)
    assert matrix is not None
    lines = [line for seed in seeds for line in seed]
    gold, predicted = ([line[key] for line in lines] for key in ("gold", "predicted"))
    expected = confusion_matrix(gold, predicted, labels=of.card.data.labels if of.card else None)
    assert [list(row) for row in matrix.counts] == expected.tolist()


def test_entities_are_missed_made_up_or_taken_for_others(tmp_path: Path) -> None:
    of = run(tmp_path / "a", "ner_peopledaily")
    line = {
        "gold": ["B-PER", "I-PER", "O", "B-LOC", "O", "O"],
        "predicted": ["B-ORG", "I-ORG", "O", "O", "O", "B-PER"],
    }
    matrix = confusion(of, [[line]])
    assert matrix is not None
    assert matrix.labels == ("LOC", "ORG", "PER", NOT_FOUND)
    assert matrix.counts == ((0, 0, 0, 1), (0, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0))


def test_many_labels_are_folded_without_losing_a_count(tmp_path: Path) -> None:
    of = dataclasses.replace(run(tmp_path / "a", "chnsenticorp"), card=None)
    lines = [{"gold": f"L{n}", "predicted": f"L{n // 2}"} for n in range(90) for _ in range(n + 1)]
    matrix = confusion(of, [lines])
    assert matrix is not None
    assert len(matrix.labels) == MOST_LABELS
    assert matrix.labels[-1] == OTHERS
    assert sum(map(sum, matrix.counts)) == len(lines)


def test_answers_and_numbers_have_no_matrix(tmp_path: Path) -> None:
    for task in ("cmrc2018", "stsb_zh"):
        of = run(tmp_path / task, task)
        assert confusion(of, [predictions_of(of, 0)]) is None


def test_the_surest_wrong_label_comes_first(tmp_path: Path) -> None:
    of = run(tmp_path / "a", "chnsenticorp")
    lines = [
        {"text": "a", "gold": "0", "predicted": "1", "score": 0.0, "probabilities": {"1": 0.6}},
        {"text": "b", "gold": "1", "predicted": "1", "score": 1.0, "probabilities": {"1": 0.99}},
        {"text": "c", "gold": "0", "predicted": "1", "score": 0.0, "probabilities": {"1": 0.9}},
    ]
    found = worst_mistakes(of, lines)
    assert [(one.texts, one.right, one.predicted, one.how_wrong) for one in found] == [
        (("c",), "0 negative", "1 positive", "p 0.900"),
        (("a",), "0 negative", "1 positive", "p 0.600"),
    ]


def test_the_furthest_number_comes_first(tmp_path: Path) -> None:
    of = run(tmp_path / "a", "stsb_zh")
    lines = [
        {"text": "a", "text_pair": "b", "gold": 5.0, "predicted": 4.0, "score": 0.8},
        {"text": "c", "text_pair": "d", "gold": 4.0, "predicted": 0.5, "score": 0.3},
    ]
    found = worst_mistakes(of, lines)
    assert [(one.texts, one.predicted, one.how_wrong) for one in found] == [
        (("c", "d"), "0.50", "-3.50"),
        (("a", "b"), "4.00", "-1.00"),
    ]


def test_the_passage_that_is_furthest_down_comes_first(tmp_path: Path) -> None:
    of = run(tmp_path / "a", "cmrc2018_embed")
    line = {"text": "谁？", "text_pair": "李白……", "gold": ["7"], "best": "杜甫……"}
    lines = [
        {**line, "predicted": ["7", "1"], "score": 1.0},
        {**line, "predicted": ["1", "7"], "score": 0.5},
        {**line, "predicted": ["1", "2"], "score": 0.0},
    ]
    found = worst_mistakes(of, lines)
    assert [one.how_wrong for one in found] == ["not among the first 2", "rank 2"]
    assert (found[0].texts, found[0].right, found[0].predicted) == (("谁？",), "李白……", "杜甫……")


def test_the_worst_answer_comes_first(tmp_path: Path) -> None:
    of = run(tmp_path / "a", "cmrc2018")
    line = {"question": "谁？", "context": "……", "gold": ["张三", "张三"], "em": 0.0}
    lines = [
        {**line, "predicted": "张", "score": 0.5, "probability": 0.9},
        {**line, "predicted": "", "score": 0.0, "probability": 0.2},
        {**line, "predicted": "李四", "score": 0.0, "probability": 0.7},
    ]
    found = worst_mistakes(of, lines)
    assert [one.predicted for one in found] == ["李四", "(none)", "张"]
    assert (found[0].right, found[0].how_wrong) == ("张三", "F1 0 %, p 0.70")


def test_the_worst_sentence_shows_its_entities(tmp_path: Path) -> None:
    of = run(tmp_path / "a", "ner_peopledaily")
    lines = [
        {"tokens": list("张三在北京"), "gold": ["B-PER", "I-PER", "O", "B-LOC", "I-LOC"],
         "predicted": ["B-PER", "I-PER", "O", "O", "O"], "score": 2 / 3},
        {"tokens": list("李四来"), "gold": ["B-PER", "I-PER", "O"],
         "predicted": ["B-PER", "O", "O"], "score": 0.0},
    ]  # fmt: skip
    found = worst_mistakes(of, lines)
    assert [(one.texts[0], one.right, one.predicted) for one in found] == [
        ("李四来", "李四 PER", "李 PER"),
        ("张三在北京", "张三 PER, 北京 LOC", "张三 PER"),
    ]


def test_the_best_seed_is_the_one_that_is_shown(tmp_path: Path) -> None:
    of = run(tmp_path / "a", "lcqmc", right=[0.2, 0.9, 0.5])
    assert best_seed(of) == 1


@pytest.mark.parametrize("length", [239, 240, 241, 100_000])
def test_a_long_text_is_cut(tmp_path: Path, length: int) -> None:
    of = run(tmp_path / "a", "chnsenticorp")
    line = {"text": "字" * length, "gold": "0", "predicted": "1", "score": 0.0}
    (mistake,) = worst_mistakes(of, [line])
    assert mistake.texts[0] == "字" * length if length <= 240 else "字" * 239 + "…"
