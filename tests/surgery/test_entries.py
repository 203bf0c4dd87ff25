"""Layers and rows: what is kept is kept bit for bit, what is new is the mean it claims to be."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from zhbert.errors import ZhbertError
from zhbert.model.config import BertConfig, count_parameters_by_part
from zhbert.model.entry import Entry, entries_of
from zhbert.model.names import POSITIONS, to_hugging_face
from zhbert.model.pretrained import BertForPreTraining
from zhbert.surgery.entries import (
    extend_rows,
    keep_layers,
    parameters_by_part,
    resize_positions,
    select_rows,
)

PIECES, LAYERS = 23, 5
# Said here once more: a name forgotten there must not be forgotten here.
PER_PIECE = ("bert.embeddings.word_embeddings.weight", "cls.predictions.bias")
CONFIG = BertConfig(
    vocab_size=PIECES, hidden_size=8, num_hidden_layers=LAYERS, num_attention_heads=2
)


def tensors(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    model = BertForPreTraining(CONFIG, seed=3)
    generator = torch.Generator().manual_seed(4)
    found = to_hugging_face({n: p.detach() for n, p in model.named_parameters()})
    found["classifier.weight"] = torch.ones(2, 8)
    return {n: torch.randn(t.shape, generator=generator).to(dtype) for n, t in found.items()}


TENSORS = tensors()


def same(one: Any, other: Any) -> bool:
    return one.dtype == other.dtype and torch.equal(one, other)


@given(st.permutations(range(LAYERS)), st.integers(1, LAYERS))
def test_kept_layers_are_numbered_in_the_order_given(order: list[int], count: int) -> None:
    layers = order[:count]
    kept = keep_layers(entries_of(TENSORS), layers)
    parts = [name.partition("layer.0.")[2] for name in TENSORS if "layer.0." in name]
    expected = {
        f"bert.encoder.layer.{new}.{part}": TENSORS[f"bert.encoder.layer.{old}.{part}"]
        for new, old in enumerate(layers)
        for part in parts
    }
    expected |= {name: tensor for name, tensor in TENSORS.items() if ".layer." not in name}
    assert set(kept) == set(expected)
    assert all(same(kept[name].read(), tensor) for name, tensor in expected.items())


@pytest.mark.parametrize(
    ("layers", "said"), [([], "no layer"), ([5], "layers 0 to 4"), ([1, 1], "named twice")]
)
def test_layers_that_cannot_be_kept_are_refused(layers: list[int], said: str) -> None:
    with pytest.raises(ZhbertError, match=said):
        keep_layers(entries_of(TENSORS), layers)


@given(st.lists(st.integers(0, PIECES - 1), min_size=1, unique=True))
def test_selected_rows_are_the_rows_and_nothing_else_changes(rows: list[int]) -> None:
    selected = select_rows(entries_of(TENSORS), rows)
    assert list(selected) == list(TENSORS)
    for name, tensor in TENSORS.items():
        expected = tensor[rows] if name in PER_PIECE else tensor
        assert selected[name].shape == tuple(expected.shape)
        assert same(selected[name].read(), expected)


sources = st.lists(
    st.lists(st.integers(0, PIECES - 1), min_size=1, max_size=6), min_size=1, max_size=12
)


@given(sources, st.integers(0, 5), st.sampled_from([torch.float32, torch.float16, torch.bfloat16]))
def test_new_rows_are_means_and_trained_rows_stay(
    rows: list[list[int]], spare: int, dtype: torch.dtype
) -> None:
    mine = tensors(dtype)
    first = PIECES - spare
    grown = extend_rows(entries_of(mine), rows, first=first)
    for name, tensor in mine.items():
        result = grown[name].read()
        assert grown[name].shape == tuple(result.shape)
        if name not in PER_PIECE:
            assert same(result, tensor)
            continue
        assert len(result) == max(PIECES, first + len(rows))
        assert same(result[:first], tensor[:first])
        # Spare rows that no new piece took stay as well.
        assert same(result[first + len(rows) :], tensor[first + len(rows) :])
        wide = tensor.float().numpy()
        for row, ids in enumerate(rows, first):
            mean = np.mean([wide[i] for i in ids], axis=0, dtype=np.float32)
            expected = torch.from_numpy(np.asarray(mean)).to(dtype)
            # One rounding apart: numpy and torch need not add in the same order.
            torch.testing.assert_close(
                result[row], expected, rtol=2 * torch.finfo(dtype).eps, atol=1e-6
            )
            if len(set(ids)) == 1 and len(ids) in (1, 2, 4):
                assert same(result[row], tensor[ids[0]])


def test_means_are_computed_in_float32() -> None:
    # 1024 + 1 + 1 + 1 in bfloat16, or added in float16 beyond 2048, would lose the ones.
    bias = torch.tensor([2048.0, 1.0, 1.0, 1.0], dtype=torch.float16)
    grown = extend_rows(entries_of({PER_PIECE[1]: bias}), [[0, 1, 2, 3]], first=4)
    assert grown[PER_PIECE[1]].read()[4] == torch.tensor(2051.0 / 4).half()


def test_nothing_is_read_before_it_is_asked_for() -> None:
    def forbidden() -> torch.Tensor:
        raise AssertionError("read")

    lazy = {n: Entry(tuple(t.shape), t.dtype, forbidden) for n, t in TENSORS.items()}
    smaller = select_rows(keep_layers(lazy, [0]), [1, 2])
    larger = extend_rows(smaller, [[0]], first=2)
    assert larger[PER_PIECE[0]].shape == (3, 8)
    assert sum(parameters_by_part(larger).values()) < sum(t.numel() for t in TENSORS.values())


def test_parameters_are_counted_as_from_the_shape() -> None:
    found = parameters_by_part(entries_of(TENSORS))
    assert found.pop("other heads") == 16
    assert found == count_parameters_by_part(CONFIG)


# --- positions ----------------------------------------------------------------------------------

NEW_ROWS = ("hierarchical", "repeat")


def positions(rows: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(rows, 8, generator=torch.Generator().manual_seed(rows)).to(dtype)


def resized(table: torch.Tensor, length: int, by: str) -> torch.Tensor:
    others = {name: tensor for name, tensor in TENSORS.items() if name != POSITIONS}
    made = resize_positions(entries_of({**others, POSITIONS: table}), length, by)
    assert all(same(made[name].read(), tensor) for name, tensor in others.items())
    assert made[POSITIONS].shape == (length, 8)
    return made[POSITIONS].read()


@given(
    st.integers(2, 9),
    st.integers(1, 81),
    st.sampled_from(NEW_ROWS),
    st.sampled_from([torch.float32, torch.float16, torch.bfloat16]),
)
def test_trained_positions_stay_bit_for_bit(
    trained: int, length: int, by: str, dtype: torch.dtype
) -> None:
    table = positions(trained, dtype)
    if by == "hierarchical" and length > trained**2:
        with pytest.raises(ZhbertError, match=f"at most {trained**2} are made hierarchical"):
            resized(table, length, by)
        return
    made = resized(table, length, by)
    assert same(made[:trained], table[:length])
    assert made.dtype == dtype
    assert bool(made.isfinite().all())


def test_new_positions_are_repeated_or_sus_mixtures() -> None:
    table = positions(4)
    assert torch.equal(resized(table, 10, "repeat"), torch.cat([table, table, table[:2]]))
    # The formula of https://kexue.fm/archives/7947, one row at a time and in double precision.
    u = [(row - 0.4 * table[0].double()) / 0.6 for row in table.double()]
    expected = torch.stack([0.4 * u[n // 4] + 0.6 * u[n % 4] for n in range(16)])
    made = resized(table, 16, "hierarchical")
    torch.testing.assert_close(made.double(), expected, rtol=0, atol=1e-5)
    assert len({tuple(row.tolist()) for row in made}) == 16
