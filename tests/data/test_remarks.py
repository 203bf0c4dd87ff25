"""What a corpus cannot teach is told before training."""

from __future__ import annotations

from typing import Any

import pytest

from zhbert.data.remarks import on_rows, on_text


def info(documents: int, sentences: int) -> dict[str, Any]:
    halves = [(documents // 2, sentences // 2), (documents - documents // 2, -(-sentences // 2))]
    entries = [{"documents": d, "sentences": s} for d, s in halves]
    return {"shards": {"train": entries}}


@pytest.mark.parametrize(
    ("documents", "sentences", "builder", "rows", "remark"),
    [
        (1, 10, "pairs", 100, "sentence pairs of a single document"),
        (10, 10, "pairs", 100, "documents that are one sentence each"),
        (10, 50, "pairs", 7, "7 rows an epoch, but 8 a step"),
        (1, 10, "full-sentences", 1, "1 row an epoch, but 8 a step"),
    ],
)
def test_rows_that_teach_little_are_told(
    documents: int, sentences: int, builder: str, rows: int, remark: str
) -> None:
    (found,) = on_rows(info(documents, sentences), builder, rows, 8)
    assert remark in found


def test_nothing_is_told_of_rows_as_they_should_be() -> None:
    assert on_rows(info(10, 50), "pairs", 8, 8) == []
    assert on_rows(info(1, 1), "full-sentences", 8, 8) == []


@pytest.mark.parametrize(
    ("punctuation", "unknown", "told"), [(51, 0, 1), (50, 10, 0), (0, 11, 1), (60, 20, 2)]
)
def test_pieces_that_say_little_are_told(punctuation: int, unknown: int, told: int) -> None:
    alignment = {"pieces": 100, "unknown_pieces": unknown}
    assert len(on_text({"alignment": alignment, "read": {"punctuation": punctuation}})) == told


def test_a_corpus_of_an_earlier_version_is_not_judged() -> None:
    assert on_text({}) == []
