"""Rows: transformers' pieces, and batches of them with their targets."""

from __future__ import annotations

import numpy as np
import pytest
import transformers
from hypothesis import given
from hypothesis import strategies as st

from zhbert.tasks.rows import LabelledRows, gather, text_rows
from zhbert.text.model_inputs import longest_first
from zhbert.text.tokenizer import Tokenizer

texts = st.text(alphabet="今天气很好的cat s1，。", max_size=30)


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    folder = tmp_path_factory.mktemp("vocabulary")
    Tokenizer.default().save_pretrained(folder)
    return Tokenizer.default(), transformers.BertTokenizer.from_pretrained(folder)


@given(st.lists(st.tuples(texts, texts), min_size=1, max_size=8), st.integers(8, 40))
def test_rows_of_pairs_are_those_of_transformers(tokenizers, pairs, length):
    ours, theirs = tokenizers
    first, second = [a for a, _ in pairs], [b for _, b in pairs]
    rows = text_rows(ours, first, second, length)
    expected = theirs(first, second, truncation="longest_first", max_length=length)
    for number in range(len(pairs)):
        row = rows.row(number)
        assert row.tolist() == expected["input_ids"][number]
        segments = (np.arange(len(row)) >= rows.second[number]).astype(int)
        assert segments.tolist() == expected["token_type_ids"][number]
    assert rows.cut == sum(len(ids) > length for ids in theirs(first, second)["input_ids"])


@given(st.lists(texts, min_size=1, max_size=8), st.integers(8, 40))
def test_rows_of_single_texts_are_those_of_transformers(tokenizers, several, length):
    ours, theirs = tokenizers
    rows = text_rows(ours, several, [None] * len(several), length)
    expected = theirs(several, truncation=True, max_length=length)
    assert [rows.row(n).tolist() for n in range(len(rows))] == expected["input_ids"]
    assert rows.cut == sum(len(ids) > length for ids in theirs(several)["input_ids"])


@given(st.integers(0, 40), st.integers(0, 40), st.integers(2, 40))
def test_the_longer_text_is_cut_first(m, n, room):
    (a, b), total = longest_first(np.array([[m], [n]]), room)[:, 0], min(m + n, room)
    assert a + b == total
    assert a <= m
    assert b <= n
    # Nothing is cut from a text while the other one is longer by more than the odd piece.
    assert a == m or a >= b - 1
    assert b == n or b >= a - 1


def some_rows(lengths, targets=None, of_pieces=False):
    lengths = np.array(lengths)
    starts = np.concatenate(([0], lengths.cumsum()))
    ids = np.arange(starts[-1], dtype=np.int32)
    return LabelledRows(ids, starts, (lengths // 2).astype(np.int32), targets, of_pieces)


def test_a_batch_holds_the_rows_one_after_another():
    rows = some_rows([3, 2, 4], np.array([7, 8, 9]))
    batch = gather(rows, np.array([2, 0]))
    assert batch.packed.input_ids.tolist() == [5, 6, 7, 8, 0, 1, 2]
    assert batch.packed.position_ids.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert batch.packed.token_type_ids.tolist() == [0, 0, 1, 1, 0, 1, 1]
    assert batch.packed.cu_seqlens.tolist() == [0, 4, 7]
    assert (batch.packed.max_length, batch.predictions) == (4, 2)
    assert batch.targets is not None
    assert batch.targets.tolist() == [9, 7]


def test_targets_of_pieces_go_with_their_pieces():
    rows = some_rows([3, 2], np.array([-100, 1, -100, -100, 2]), of_pieces=True)
    batch = gather(rows, np.array([1, 0]))
    assert batch.targets is not None
    assert batch.targets.tolist() == [-100, 2, -100, 1, -100]
    assert batch.predictions == 2
