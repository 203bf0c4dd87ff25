"""The native parts equal slow references, and models are the same with them and without."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.model.conftest import SHAPE, enlarge
from torch import Tensor, nn
from torch.nn import functional

from zhbert.model import native
from zhbert.model.activations import ACTIVATIONS
from zhbert.model.attention import Attention, QuerySubset, RowLayout
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import (
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from zhbert.packing import PackedBatch

DTYPES = [
    pytest.param(
        dtype,
        marks=pytest.mark.skipif(
            not native.SUPPORTED[dtype],
            reason=f"this machine, or this build, lacks the instructions for {dtype}",
        ),
    )
    for dtype in (torch.float32, torch.bfloat16)
]
of_each_dtype = pytest.mark.parametrize("dtype", DTYPES)
# A share of what is summed: a float's rounding, and half of bfloat16's last place, made twice
# (the weights are rounded, and the result).
TOLERANCE = {torch.float32: 2e-6, torch.bfloat16: 2**-7}

# Around the 16 keys of a vector, the 6 queries and the 64 keys of a tile, and beyond.
EDGES = [0, 1, 2, 3, 5, 6, 7, 15, 16, 17, 31, 33, 47, 63, 64, 65, 127]
lengths = st.one_of(st.sampled_from(EDGES), st.integers(0, 130))
query_counts = st.one_of(st.sampled_from([0, 1, 2, 5, 6, 7, 13]), st.none())


@pytest.fixture(autouse=True)
def threads_as_before() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def rows_of(
    shape: list[tuple[int, int | None]], width: int, dtype: torch.dtype, seed: int = 0
) -> dict[str, Tensor]:
    """Random arguments for rows of (pieces, queries); None: a query for each piece."""
    generator = torch.Generator().manual_seed(seed)
    keys = [length for length, _ in shape]
    # A row without pieces has nobody who asks.
    queries = [n if count is None else min(count, 20 * n) for n, count in shape]

    def random(count: int) -> Tensor:
        return torch.randn(count, width, generator=generator).to(dtype)

    return {
        "query": random(sum(queries)),
        "keys": random(sum(keys)),
        "values": random(sum(keys)),
        "query_cu_seqlens": torch.tensor([0, *itertools.accumulate(queries)]),
        "cu_seqlens": torch.tensor([0, *itertools.accumulate(keys)]),
    }


def slowly(
    query: Tensor,
    keys: Tensor,
    values: Tensor,
    query_cu_seqlens: Tensor,
    cu_seqlens: Tensor,
    heads: int,
) -> Tensor:
    """Row by row and head by head in float64, as the formula says it."""
    out = torch.zeros(query.shape, dtype=torch.float64)
    size = query.shape[1] // heads
    places = zip(itertools.pairwise(query_cu_seqlens), itertools.pairwise(cu_seqlens), strict=True)
    for (first, last), (begin, end) in places:
        for head in range(heads):
            own = slice(head * size, (head + 1) * size)
            scores = query[first:last, own].double() @ keys[begin:end, own].double().T
            weights = torch.softmax(scores / size**0.5, dim=1)
            out[first:last, own] = weights @ values[begin:end, own].double()
    return out


def assert_equals_the_formula(arguments: dict[str, Tensor], heads: int) -> None:
    found = native.packed_attention(**arguments, heads=heads)
    dtype = arguments["query"].dtype
    assert found.dtype == dtype
    assert found.shape == arguments["query"].shape
    largest = max(float(arguments["values"].abs().max()), 1.0) if found.numel() else 1.0
    torch.testing.assert_close(
        found.double(), slowly(**arguments, heads=heads), rtol=0, atol=TOLERANCE[dtype] * largest
    )


# -- attention -------------------------------------------------------------------------------------


@of_each_dtype
@settings(max_examples=60)
@given(
    shape=st.lists(st.tuples(lengths, query_counts), min_size=1, max_size=5),
    size=st.sampled_from([16, 32, 48, 64, 128, 256]),
    heads=st.integers(1, 12),
    seed=st.integers(0, 99),
)
def test_attention_equals_the_formula(
    dtype: torch.dtype,
    shape: list[tuple[int, int | None]],
    size: int,
    heads: int,
    seed: int,
) -> None:
    heads = max(1, min(heads, 768 // size))
    assert_equals_the_formula(rows_of(shape, heads * size, dtype, seed), heads)


@of_each_dtype
@pytest.mark.parametrize(("length", "queries"), [(600, 1), (511, 7), (512, None), (257, 300)])
def test_long_rows(dtype: torch.dtype, length: int, queries: int | None) -> None:
    assert_equals_the_formula(rows_of([(length, queries), (3, 1)], 128, dtype), 2)


@of_each_dtype
def test_every_length_up_to_two_vectors_and_every_number_of_queries(dtype: torch.dtype) -> None:
    shape = [(length, queries) for length in range(1, 34) for queries in (1, 2, 3, 4, 5, 6, 7)]
    assert_equals_the_formula(rows_of(shape, 32, dtype), 2)


@of_each_dtype
def test_columns_of_one_wider_tensor_will_do(dtype: torch.dtype) -> None:
    arguments = rows_of([(17, None), (5, None)], 64, dtype)
    wide = torch.full((22, 256), torch.nan, dtype=dtype)
    for number, name in enumerate(("values", "query", "keys")):
        place = slice(32 + 64 * number, 96 + 64 * number)
        wide[:, place] = arguments[name]
    expected = native.packed_attention(**arguments, heads=4)
    for number, name in enumerate(("values", "query", "keys")):
        arguments[name] = wide[:, 32 + 64 * number : 96 + 64 * number]
    assert torch.equal(native.packed_attention(**arguments, heads=4), expected)


@of_each_dtype
@settings(max_examples=20)
@given(
    shape=st.lists(st.tuples(lengths, query_counts), min_size=2, max_size=6), data=st.data()
)  # fmt: skip
def test_neither_threads_nor_other_rows_change_a_bit(
    dtype: torch.dtype, shape: list[tuple[int, int | None]], data: st.DataObject
) -> None:
    arguments = rows_of(shape, 96, dtype)
    results = []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        results.append(native.packed_attention(**arguments, heads=3))
    assert all(torch.equal(results[0], other) for other in results[1:])

    row = data.draw(st.integers(0, len(shape) - 1))
    asked = slice(*arguments["query_cu_seqlens"][row : row + 2].tolist())
    there = slice(*arguments["cu_seqlens"][row : row + 2].tolist())
    alone = native.packed_attention(
        arguments["query"][asked],
        arguments["keys"][there],
        arguments["values"][there],
        torch.tensor([0, asked.stop - asked.start]),
        torch.tensor([0, there.stop - there.start]),
        heads=3,
    )
    assert torch.equal(alone, results[0][asked])


@of_each_dtype
@pytest.mark.parametrize("lengths", [[700], [0, 300, 5, 411, 1, 260]])
def test_long_rows_are_shared_by_threads_to_the_same_bits(
    dtype: torch.dtype, lengths: list[int]
) -> None:
    # Enough work for each of the threads; fewer rows than threads, too: their heads are shared.
    arguments = rows_of([(length, None) for length in lengths], 96, dtype)
    results = []
    for threads in (1, 2, 4):
        torch.set_num_threads(threads)
        results.append(native.packed_attention(**arguments, heads=3))
    assert all(torch.equal(results[0], other) for other in results[1:])
    assert_equals_the_formula(arguments, 3)


@of_each_dtype
@pytest.mark.parametrize("exponent", [-30, -10, 2, 5, 8, 12, 18])
def test_scores_of_any_size_give_shares_that_add_up_to_1(dtype: torch.dtype, exponent: int) -> None:
    arguments = rows_of([(37, None), (16, None), (1, None)], 64, dtype)
    # Each key is another one: two that were equally high would share.
    arguments["query"] = arguments["query"] * 10.0**exponent
    arguments["keys"] = arguments["keys"] * 10.0 ** max(exponent, 0)
    assert_equals_the_formula(arguments, 2)
    ones = torch.ones_like(arguments["values"])
    found = native.packed_attention(**{**arguments, "values": ones}, heads=2)
    torch.testing.assert_close(found, torch.ones_like(found), rtol=TOLERANCE[dtype], atol=0)


@of_each_dtype
def test_the_highest_score_takes_all_where_the_others_are_far_below(dtype: torch.dtype) -> None:
    arguments = rows_of([(19, 1)], 16, dtype)
    arguments["query"] = torch.full((1, 16), 1e19, dtype=dtype)
    # Scores of 1.9e38 and -1.9e38: even their difference is beyond float32.
    arguments["keys"] = torch.full((19, 16), -1.2e18, dtype=dtype)
    arguments["keys"][18] = 1.2e18
    assert torch.equal(native.packed_attention(**arguments, heads=1), arguments["values"][18:])


@of_each_dtype
@pytest.mark.parametrize("place", [0, 3, 8, 15, 16])
def test_nan_is_not_lost_and_stays_in_its_row(dtype: torch.dtype, place: int) -> None:
    arguments = rows_of([(17, None), (17, None)], 32, dtype)
    arguments["keys"][place] = torch.nan
    found = native.packed_attention(**arguments, heads=1)
    assert found[:17].isnan().all()
    assert found[17:].isfinite().all()


@of_each_dtype
def test_no_rows_and_rows_of_nothing(dtype: torch.dtype) -> None:
    none = torch.empty(0, 32, dtype=dtype)
    for starts in (torch.tensor([0]), torch.tensor([0, 0, 0])):
        assert native.packed_attention(none, none, none, starts, starts, 2).shape == (0, 32)
    # As padded attention does it: without keys nothing is taken, and that is no NaN.
    one, starts = torch.ones(1, 32, dtype=dtype), torch.tensor([0, 1])
    found = native.packed_attention(one, none, none, starts, torch.tensor([0, 0]), 2)
    assert torch.equal(found, torch.zeros(1, 32, dtype=dtype))


def odd_distance(x: Tensor) -> Tensor:
    return torch.zeros(x.shape[0], x.shape[1] + 1, dtype=x.dtype)[:, :-1]


def odd_place(x: Tensor) -> Tensor:
    return torch.zeros(x.shape[0], x.shape[1] + 2, dtype=x.dtype)[:, 1:-1]


@of_each_dtype
@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("query", lambda x: x[:-1]),
        ("query", lambda x: x[:, :-16]),
        ("keys", lambda x: x[:, :32]),
        ("keys", lambda x: x[1:]),
        ("values", lambda x: x[1:]),
        ("values", lambda x: x.T.contiguous().T),
        ("values", lambda x: x[None]),
        ("values", lambda x: x[0]),
        ("keys", lambda x: x.double()),
        ("cu_seqlens", lambda x: x.int()),
        ("cu_seqlens", lambda x: x[:-1]),
        ("cu_seqlens", lambda x: x[:0]),
        ("cu_seqlens", lambda x: x + 1),
        ("cu_seqlens", lambda x: torch.tensor([0, 40, 20])),
        ("cu_seqlens", lambda x: torch.tensor([0, -1, 20])),
        ("query_cu_seqlens", lambda x: torch.tensor([0, 2**62, 20])),
        ("query_cu_seqlens", lambda x: x[None]),
        ("heads", lambda x: 0),
        ("heads", lambda x: -1),
        ("heads", lambda x: 3),
        ("heads", lambda x: 8),
        ("heads", lambda x: 2**60),
        ("heads", lambda x: 2**63 - 1),
    ],
)
def test_what_does_not_fit_is_refused(dtype: torch.dtype, name: str, change: Any) -> None:
    arguments: dict[str, Any] = rows_of([(17, None), (3, None)], 64, dtype) | {"heads": 2}
    native.packed_attention(**arguments)
    arguments[name] = change(arguments[name])
    with pytest.raises((ValueError, TypeError)):
        native.packed_attention(**arguments)


@pytest.mark.parametrize("change", [odd_distance, odd_place])
@pytest.mark.parametrize("name", ["query", "keys"])
@pytest.mark.parametrize("dtype", DTYPES[1:])
def test_pairs_of_bfloat16_must_be_words(dtype: torch.dtype, name: str, change: Any) -> None:
    arguments = rows_of([(17, None)], 32, dtype)
    arguments[name] = change(arguments[name])
    with pytest.raises(ValueError, match="multiples of two"):
        native.packed_attention(**arguments, heads=1)
    # Values are read one by one.
    arguments = rows_of([(17, None)], 32, dtype)
    values = change(arguments["values"])
    values.copy_(arguments["values"])
    assert_equals_the_formula({**arguments, "values": values}, 1)


@pytest.mark.skipif(not native.SUPPORTED[torch.float32], reason="this machine has no AVX-512")
def test_keys_beyond_the_reach_of_a_gather_are_refused() -> None:
    x, starts = np.zeros((2, 16), np.float32), np.array([0, 2])
    far = np.lib.stride_tricks.as_strided(x, x.shape, (4 << 27, 4))
    with pytest.raises(ValueError, match="too far apart"):
        native._attention.attention(x, far, x, starts, starts, 1, x.copy(), 32, 1)


# -- linear ----------------------------------------------------------------------------------------


@of_each_dtype
@pytest.mark.parametrize("count", [0, 1, 7, 33])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_linear_is_the_layer_then_the_activation(
    dtype: torch.dtype, count: int, activation: str | None
) -> None:
    torch.manual_seed(1)
    layer, x = nn.Linear(48, 80).to(dtype), 3 * torch.randn(count, 48).to(dtype)
    exact = layer.double()(x.double())
    expected = exact if activation is None else ACTIVATIONS[activation](exact)
    layer.to(dtype)
    with torch.no_grad():
        found = native.linear(layer, x, activation=activation)
    assert found.dtype == dtype
    rounding = 1e-5 if dtype == torch.float32 else 2**-7
    torch.testing.assert_close(found.double(), expected, rtol=rounding, atol=rounding)


@of_each_dtype
@pytest.mark.parametrize("count", [0, 1, 33])
def test_linear_adds_to_a_tensor_and_leaves_it_as_it_is(dtype: torch.dtype, count: int) -> None:
    torch.manual_seed(1)
    layer = nn.Linear(48, 80).to(dtype)
    x, added_to = torch.randn(count, 48).to(dtype), torch.randn(count, 80).to(dtype)
    before = added_to.clone()
    with torch.no_grad():
        found = native.linear(layer, x, added_to=added_to)
        expected = before.double() + layer.double()(x.double())
    assert torch.equal(added_to, before)
    rounding = 1e-5 if dtype == torch.float32 else 2**-6
    torch.testing.assert_close(found.double(), expected, rtol=rounding, atol=rounding)


def test_a_replaced_layer_is_called_and_not_read() -> None:
    class Adapted(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + 1

    layer, x = Adapted(16, 16), torch.randn(5, 16)
    with torch.no_grad():
        torch.testing.assert_close(native.linear(layer, x), layer(x))


def test_a_layer_with_hooks_or_a_wrapper_is_called() -> None:
    seen: list[str] = []
    hooked, hooked_before, wrapped = (nn.Linear(16, 16) for _ in range(3))
    hooked.register_forward_hook(lambda *_: seen.append("after"))
    watched = nn.Linear(16, 16)
    watched.register_full_backward_hook(lambda *_: None)
    assert not native.is_plain(watched)
    hooked_before.register_forward_pre_hook(lambda *_: seen.append("before"))
    forward = wrapped.forward
    wrapped.forward = lambda x: forward(x) + 1  # type: ignore[method-assign]
    x = torch.randn(5, 16)
    with torch.no_grad():
        native.linear(hooked, x)
        native.linear(hooked_before, x)
        torch.testing.assert_close(native.linear(wrapped, x), forward(x) + 1)
    assert seen == ["after", "before"]


@pytest.mark.filterwarnings("ignore:.*torch.jit.trace:DeprecationWarning")
def test_a_traced_model_keeps_no_result_as_a_constant() -> None:
    layer = nn.Linear(16, 16).requires_grad_(False)
    with torch.no_grad():
        traced = torch.jit.trace(lambda x: native.linear(layer, x), torch.randn(5, 16))
        x = torch.randn(9, 16)
        torch.testing.assert_close(traced(x), layer(x))


# -- weights of 8 bits -----------------------------------------------------------------------------

of_each_int8_dtype = pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(
            dtype, marks=pytest.mark.skipif(not there, reason="this machine has no AVX512_VNNI")
        )
        for dtype, there in native._INT8_SUPPORTED.items()
    ],
)


def rounded_to_8_bits(layer: nn.Linear, x: Tensor) -> Tensor:
    """What the map is with rounded weights and inputs, in double precision but for the codes."""
    x, weight = x.float(), layer.weight.detach()
    scales = weight.abs().amax(1, keepdim=True) / 127
    span = x.amax(1, keepdim=True).clamp(min=0) - x.amin(1, keepdim=True).clamp(max=0)
    per_unit = torch.tensor(255.0) / span  # 255 / span is span.reciprocal() * 255, rounded twice
    zero = (-x.amin(1, keepdim=True).clamp(max=0) * per_unit + 0.5).trunc()
    codes = ((x * per_unit).round() + zero).clamp(0, 255)
    inputs = (codes - zero).double() * span.double() / 255
    bias = 0 if layer.bias is None else layer.bias.detach().double()
    return inputs @ ((weight / scales).round().double() * scales.double()).t() + bias


@of_each_int8_dtype
@settings(max_examples=60, deadline=None)
@given(
    rows=st.one_of(st.sampled_from([0, 1, 5, 6, 7, 12]), st.integers(0, 300)),
    inputs=st.sampled_from([16, 48, 128, 2048]),
    outputs=st.sampled_from([16, 48, 64, 80, 128]),
    threads=st.sampled_from([1, 3]),
    bias=st.booleans(),
)
def test_maps_of_8_bits_equal_their_formula(
    dtype: torch.dtype, rows: int, inputs: int, outputs: int, threads: int, bias: bool
) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(inputs)
    layer = nn.Linear(inputs, outputs, bias=bias)
    x, added = 3 * torch.randn(rows, inputs) + 1, torch.randn(rows, outputs)
    x, added = x.to(dtype), added.to(dtype)
    weight = native.Int8Weight.of(layer)
    exact = rounded_to_8_bits(layer, x)
    # The activation is a polynomial, to 2e-4.
    tolerance = {"rtol": 2**-8 if dtype == torch.bfloat16 else 1e-5, "atol": 3e-4}
    for gelu, residual, expected in [
        (False, None, exact),
        (True, None, functional.gelu(exact)),
        (False, added, exact + added),
    ]:
        found = weight.linear(x, gelu=gelu, added_to=residual)
        assert found.dtype == dtype
        torch.testing.assert_close(found.double(), expected, **tolerance)


@of_each_int8_dtype
def test_in_8_bits_a_row_does_not_depend_on_the_others(dtype: torch.dtype) -> None:
    weight = native.Int8Weight.of(nn.Linear(64, 64))
    x = torch.randn(40, 64, generator=torch.Generator().manual_seed(1)).to(dtype)
    together = weight.linear(x, gelu=False, added_to=None)
    alone = weight.linear(x[17:18], gelu=False, added_to=None)
    assert torch.equal(together[17:18], alone)


@of_each_int8_dtype
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_not_finite_stays_so_in_8_bits(dtype: torch.dtype, bad: float) -> None:
    layer = nn.Linear(32, 16)
    x = torch.zeros(3, 32, dtype=dtype)
    x[1, 5] = bad
    found = native.Int8Weight.of(layer).linear(x, gelu=False, added_to=None)
    assert found.isfinite().all(dim=1).tolist() == [True, False, True]
    with torch.no_grad():
        layer.weight[2, 3] = bad
    found = native.Int8Weight.of(layer).linear(torch.ones_like(x), gelu=False, added_to=None)
    assert not bool(found[:, 2].isfinite().any())


@of_each_int8_dtype
@pytest.mark.parametrize("place", range(7))
def test_buffers_of_another_size_are_refused(dtype: torch.dtype, place: int) -> None:
    weight = native.Int8Weight.of(nn.Linear(32, 16))
    x, out = (torch.zeros(3, width, dtype=dtype) for width in (32, 16))
    buffers: list[Any] = [native._buffer(x), *weight, native._buffer(out), native._buffer(out)]
    rest = (3, 32, 16, False, 8 * x.element_size(), 1)
    native._int8.linear(*buffers, *rest)
    buffers[place] = buffers[place].reshape(-1)[:-1]
    with pytest.raises(ValueError, match="do not fit"):
        native._int8.linear(*buffers, *rest)


# -- layers and models, with and without -----------------------------------------------------------

WITHOUT: dict[torch.dtype, bool] = {}
# 16 dimensions a head, as the native attention needs; the shape of the other tests has fewer.
CONFIG = BertConfig(**{**SHAPE, "hidden_size": 64})
MODELS = [
    (BertForSequenceClassification, ["差", "好"]),
    (BertForTokenClassification, ["O", "B"]),
    (BertForQuestionAnswering, ["a", "b"]),
]
models = pytest.mark.parametrize(("architecture", "labels"), MODELS)


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The heads of each call of the native attention."""
    found = []
    real = native.packed_attention

    def packed_attention(*arguments: Any, **named: Any) -> Tensor:
        found.append(named.get("heads") or arguments[5])
        return real(*arguments, **named)

    monkeypatch.setattr(native, "packed_attention", packed_attention)
    return found


@of_each_dtype
@pytest.mark.parametrize("some", [False, True])
def test_few_queries_look_at_the_pieces_themselves(
    dtype: torch.dtype, some: bool, calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    attention = enlarge(Attention(CONFIG)).to(dtype).eval()
    starts = torch.tensor([0, 30, 31, 64, 101])
    packed = RowLayout.of(starts, 37, 101)
    predicted = torch.tensor([4, 29, 70, 71, 100] if some else [], dtype=torch.int64)
    wanted = QuerySubset.of(packed, predicted, with_first=True)
    x = torch.randn(101, 64, generator=torch.Generator().manual_seed(2)).to(dtype)
    with torch.no_grad():
        found = attention(x[wanted.positions], x, packed, wanted)
        assert calls == [1]
        monkeypatch.setattr(native, "SUPPORTED", WITHOUT)
        attention, x = attention.double(), x.double()
        expected = attention(x[wanted.positions], x, packed, wanted)
    assert calls == [1]
    # A query in bfloat16 is rounded twice more on its way to the pieces.
    rounding = 1e-5 if dtype == torch.float32 else 0.05
    torch.testing.assert_close(found.double(), expected, rtol=rounding, atol=rounding)


@pytest.mark.parametrize("gradients", [False, True])
def test_the_last_layer_calls_a_changed_map_of_queries_keys_and_values(gradients: bool) -> None:
    class Adapted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.linspace(0, 2, 3 * 64)

    attention = enlarge(Attention(CONFIG)).eval()
    adapted = Adapted(64, 3 * 64)
    adapted.load_state_dict(attention.qkv.state_dict())
    attention.qkv = adapted
    starts = torch.tensor([0, 30, 31, 64])
    packed = RowLayout.of(starts, 33, 64)
    wanted = QuerySubset.of(packed, torch.tensor([], dtype=torch.int64), with_first=True)
    x = torch.randn(64, 64, generator=torch.Generator().manual_seed(2))
    with torch.set_grad_enabled(gradients):
        found = attention(x[wanted.positions], x, packed, wanted)
        torch.testing.assert_close(found, attention(x, x, packed)[wanted.positions])


def row_batch(lengths: list[int]) -> PackedBatch:
    generator = torch.Generator().manual_seed(6)
    total = sum(lengths)
    return PackedBatch(
        input_ids=torch.randint(0, 97, (total,), generator=generator),
        token_type_ids=torch.randint(0, 2, (total,), generator=generator),
        position_ids=torch.cat([torch.arange(n) for n in lengths]),
        cu_seqlens=torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32),
        max_length=max(lengths),
    )


def logits_of(model: Any, batch: dict[str, Tensor]) -> list[Tensor]:
    """Of padded rows and of packed ones of two makes."""
    packed = model.row_logits if hasattr(model, "row_logits") else model.piece_logits
    there = batch["attention_mask"].bool()
    output = model(**batch)
    names = ("logits", "start_logits", "end_logits")
    padded = [x for name in names if (x := getattr(output, name, None)) is not None]
    padded = [x[there] if x.shape[:2] == there.shape else x for x in padded]
    return [*padded, packed(row_batch([17, 3, 40, 1])), packed(row_batch([16, 16]))]


@models
@of_each_dtype
@pytest.mark.parametrize("activation", list(ACTIVATIONS))
def test_models_are_the_same_without_the_native_parts(
    dtype: torch.dtype,
    activation: str,
    architecture: Any,
    labels: list[str],
    batch: dict[str, Tensor],
    calls: list[int],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = BertConfig(**{**SHAPE, "hidden_size": 64, "hidden_act": activation})
    model = enlarge(architecture(config.with_labels(labels))).to(dtype).eval()
    with torch.no_grad():
        native_logits = logits_of(model, batch)
        assert len(calls) == 3 * 3
        monkeypatch.setattr(native, "SUPPORTED", WITHOUT)
        plain_logits = logits_of(model, batch)
    assert len(calls) == 3 * 3
    for found, expected in zip(native_logits, plain_logits, strict=True):
        rounding = 1e-5 if dtype == torch.float32 else 0.1
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found, expected, rtol=0, atol=rounding * scale)


@models
def test_gradients_take_the_plain_path(
    architecture: Any, labels: list[str], batch: dict[str, Tensor], calls: list[int]
) -> None:
    model = enlarge(architecture(CONFIG.with_labels(labels))).eval()
    with_gradients = logits_of(model, batch)
    assert not calls
    sum(x.sum() for x in with_gradients).backward()  # type: ignore[union-attr]
    assert model.encoder.layers[0].attention.qkv.weight.grad.abs().sum() > 0
    with torch.inference_mode():
        without = logits_of(model, batch)
    assert bool(calls) == native.SUPPORTED[torch.float32]
    for found, expected in zip(without, with_gradients, strict=True):
        torch.testing.assert_close(found, expected.detach(), rtol=1e-5, atol=1e-5)


@models
def test_autocast_is_close(
    architecture: Any, labels: list[str], batch: dict[str, Tensor], calls: list[int]
) -> None:
    model = architecture(CONFIG.with_labels(labels)).eval()
    with torch.no_grad():
        exact = logits_of(model, batch)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = logits_of(model, batch)
    for found, expected in zip(rounded, exact, strict=True):
        assert found.dtype == torch.bfloat16
        scale = max(1.0, float(expected.abs().max()))
        torch.testing.assert_close(found.float(), expected, rtol=0, atol=0.1 * scale)


def test_without_the_module_or_the_size_the_plain_path_serves(
    monkeypatch: pytest.MonkeyPatch, calls: list[int]
) -> None:
    model = enlarge(BertForTokenClassification(CONFIG.with_labels(["a", "b"]))).eval()
    small = enlarge(BertForTokenClassification(BertConfig(**SHAPE).with_labels(["a"]))).eval()
    with torch.no_grad():
        small.piece_logits(row_batch([5, 20]))
        assert not calls  # 8 dimensions a head
        expected = model.piece_logits(row_batch([5, 20]))
        monkeypatch.setattr(native, "_attention", None)
        monkeypatch.setattr(native, "SUPPORTED", dict.fromkeys(native.SUPPORTED, False))
        monkeypatch.setattr(native, "_HAS_ONEDNN", False)
        found = model.piece_logits(row_batch([5, 20]))
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_training_mode_without_gradients_drops_out(calls: list[int]) -> None:
    model = BertForTokenClassification(CONFIG.with_labels(["a", "b"])).train()
    with torch.no_grad():
        model.set_dropout_seed(1)
        one = model.piece_logits(row_batch([5, 20]))
        model.set_dropout_seed(2)
        assert not torch.equal(one, model.piece_logits(row_batch([5, 20])))
    assert not calls
