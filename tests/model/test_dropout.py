"""Dropout by hash: the rate, independence, and nothing but the seed and the row's number."""

import hashlib
import math
from typing import Any

import pytest
import torch
from torch.fx.experimental.proxy_tensor import make_fx

from zhbert.model import encoder
from zhbert.model.config import BertConfig
from zhbert.model.dropout import DropoutKey, dropout, dropout_keys, dropout_table, keep_mask
from zhbert.model.pretrained import (
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)
from zhbert.packing import PackedBatch

SIDE = 512
COUNT = SIDE * SIDE


def _key(seed: int, site: int = 0, row: int = 0) -> DropoutKey:
    """Of one row of 512 pieces of 512 elements."""
    places = torch.zeros(SIDE, dtype=torch.long), torch.arange(SIDE)
    return dropout_keys(dropout_table(seed, site + 1, 1, row), *places, rows=1, width=SIDE)[site]


def _mask(seed: int, site: int = 0, row: int = 0, rate: float = 0.1) -> torch.Tensor:
    return keep_mask(SIDE, rate, _key(seed, site, row).of_pieces()).view(-1)


@pytest.mark.parametrize("rate", [0.05, 0.1, 0.5, 0.9])
def test_the_share_dropped_is_the_rate(rate: float) -> None:
    for seed in range(8):
        share = 1 - _mask(seed, rate=rate).double().mean().item()
        assert abs(share - rate) < 5 * math.sqrt(rate * (1 - rate) / COUNT)


@pytest.mark.parametrize("size", [64, 128, 768])
def test_every_row_and_every_column_drops_at_the_rate(size: int) -> None:
    grid = ~_mask(3)[: COUNT // size * size].view(-1, size)
    for share, count in ((grid.double().mean(0), len(grid)), (grid.double().mean(1), size)):
        deviations = (share - 0.1) / math.sqrt(0.09 / count)
        assert deviations.abs().max() < 6.5
        assert 0.8 < deviations.std() < 1.2  # as spread as independent draws, not more even


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ((0, 0), (1, 0)),
        ((7, 0), (7, 1)),
        ((7, 2), (8, 1)),
        ((0, 0), (1 << 32, 0)),
        ((5, 0, 0), (5, 0, 1)),
        ((5, 1, 0), (5, 0, 1)),
        ((5, 0, 3), (6, 0, 3)),
    ],
)
def test_seeds_sites_and_rows_are_independent(one: tuple[int, ...], other: tuple[int, ...]) -> None:
    both = ~_mask(*one) & ~_mask(*other)
    assert abs(both.double().mean().item() - 0.01) < 5 * math.sqrt(0.01 * 0.99 / COUNT)


@pytest.mark.parametrize("step", [1, 2, 64, 128, 768, 16384])
def test_neighbours_are_independent(step: int) -> None:
    dropped = ~_mask(11)
    both = dropped[step:] & dropped[:-step]
    assert abs(both.double().mean().item() - 0.01) < 5 * math.sqrt(0.01 * 0.99 / COUNT)


def test_what_two_sites_have_in_common_for_one_row_they_have_not_for_another() -> None:
    """Words of sites and rows are only added: their hash must not show it."""
    a, b, c, d = (_mask(3, site, row) for site in (0, 1) for row in (0, 1))
    odd = (a ^ b ^ c ^ d).double().mean().item()
    expected = (1 - 0.8**4) / 2
    assert abs(odd - expected) < 5 * math.sqrt(expected * (1 - expected) / COUNT)


@pytest.mark.parametrize("two", [(2, 0, 0), (1, 1, 0), (1, 0, 1)])
def test_two_seeds_sites_or_rows_are_no_shifted_copies(two: tuple[int, int, int]) -> None:
    one, other = (~_mask(1))[:4096].float() - 0.1, (~_mask(*two))[: 4096 * 4].float() - 0.1
    overlap = torch.nn.functional.conv1d(other.view(1, 1, -1), one.view(1, 1, -1)) / (0.09 * 4096)
    assert overlap.abs().max() < 0.12


def test_what_is_kept_is_scaled_so_that_the_mean_stays() -> None:
    x = torch.ones(SIDE, SIDE, requires_grad=True)
    y = dropout(x, 0.1, _key(5).of_pieces())
    assert y.unique().tolist() == pytest.approx([0.0, 1 / 0.9])
    assert y.mean().item() == pytest.approx(1, abs=0.005)
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_the_mask_depends_on_the_seed_alone() -> None:
    torch.manual_seed(1)
    first = _mask(9)
    torch.rand(7)
    assert torch.equal(first, _mask(9))
    assert not torch.equal(first, _mask(10))


def test_forwards_of_one_seed_differ_and_repeat(config: BertConfig, batch: dict) -> None:
    model = BertForPreTraining(config).train()

    def run(count: int) -> list[torch.Tensor]:
        model.set_dropout_seed(4)
        return [model(**batch).prediction_logits for _ in range(count)]

    first, second = run(2)
    assert not torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip((first, second), run(2), strict=True))
    model.eval()
    assert torch.equal(*[model(**batch).prediction_logits for _ in range(2)])


def test_a_table_drops_what_its_seed_drops(config: BertConfig, packed: dict[str, Any]) -> None:
    model = BertForPreTraining(config).train()
    model.set_dropout_seed(7, first_row=3)
    expected = model.pretraining_loss(**packed).masked_lm_loss_sum
    model.set_dropout_seed(8)
    model.set_dropout_table(dropout_table(7, model.dropout_sites, rows=4, first_row=3))
    for _ in range(2):  # as often as it is not replaced
        assert torch.equal(model.pretraining_loss(**packed).masked_lm_loss_sum, expected)
    model.set_dropout_seed(8)
    assert not torch.equal(model.pretraining_loss(**packed).masked_lm_loss_sum, expected)


def test_masks_are_what_they_have_always_been() -> None:
    masks = hashlib.sha256()
    for seed in range(64):
        key = _key(seed * 0x9E3779B97F4A7C15, seed % 5, seed % 7)
        for words in (key.of_pieces(), key.of_rows(), key.of_queries(2, 16)):
            masks.update(keep_mask(64, 0.1, words).numpy().tobytes())
    assert masks.hexdigest().startswith("5b663cb9659f6d8c")


def test_no_number_known_at_compile_time_leaves_32_bits() -> None:
    """What is made of indices and constants alone a compiler computes itself, in wider numbers."""
    known: dict[Any, int] = {}  # of such a node: the greatest magnitude

    def attention(*key: torch.Tensor) -> torch.Tensor:
        return keep_mask(4096, 0.1, DropoutKey(*key).of_queries(64, 512))

    key = _key(1)
    traced = make_fx(attention)(key.site, key.rows, key.pieces)
    for node in traced.graph.nodes:
        sizes = [abs(known.get(x, x)) for x in node.args if isinstance(x, int) or x in known]
        if node.op != "call_function" or len(sizes) < len(node.args):
            continue
        if "arange" in node.name:
            known[node] = node.args[0]
        elif "mul" in node.name or "add" in node.name:
            known[node] = math.prod(sizes) if "mul" in node.name else sum(sizes)
        else:
            known[node] = sizes[0]  # the same numbers in another shape
    assert len(known) > 5
    assert max(known.values()) < 1 << 31


# PyTorch's compiler warns of its own insides.
@pytest.mark.filterwarnings("ignore")
def test_one_compiled_function_serves_all_layers(
    shape: dict[str, Any], packed: dict[str, Any]
) -> None:
    torch.compiler.reset()
    compiled: list[Any] = []

    def backend(graph: Any, inputs: Any) -> Any:
        compiled.append(graph)
        return graph.forward

    model = BertForPreTraining(BertConfig(**{**shape, "num_hidden_layers": 5})).train()
    functions = [torch.compile(each, dynamic=True, backend=backend) for each in encoder.EAGER]
    model.encoder._compiled = encoder.Calls(*functions)
    for seed in range(2):
        model.set_dropout_seed(seed)
        model.pretraining_loss(**packed).masked_lm_loss_sum.backward()
    assert len(compiled) == 3  # the embeddings, a layer, the last layer


# -- a batch that is cut -------------------------------------------------------------------------

NAMES = ("input_ids", "token_type_ids", "position_ids")


def cut(packed: dict[str, Any], first: int, end: int) -> dict[str, Any]:
    """Some of the packed rows as a batch of their own, padded as they alone need it."""
    batch = packed["batch"]
    starts = batch.cu_seqlens[first : end + 1]
    begin, stop = int(starts[0]), int(starts[-1])
    predicted = packed["predicted_positions"]
    inside = (predicted >= begin) & (predicted < stop)
    return {
        "batch": PackedBatch(
            **{name: getattr(batch, name)[begin:stop] for name in NAMES},
            cu_seqlens=starts - begin,
            max_length=int(starts.diff().max()),
        ),
        "predicted_positions": predicted[inside] - begin,
        "labels": packed["labels"][inside],
        "next_sentence_labels": packed["next_sentence_labels"][first:end],
    }


@pytest.mark.parametrize("rows", [1, 2, 3])
def test_a_batch_drops_the_same_however_it_is_cut(
    config: BertConfig, packed: dict[str, Any], rows: int
) -> None:
    model = BertForPreTraining(config, seed=3).train()

    def gradients(size: int) -> tuple[list[float], list[torch.Tensor]]:
        model.zero_grad(set_to_none=True)
        sums = []
        for first in range(0, 4, size):
            model.set_dropout_seed(9, first)
            found = model.pretraining_loss(**cut(packed, first, min(first + size, 4)))
            sums.append([found.masked_lm_loss_sum, found.next_sentence_loss_sum])
            sum(sums[-1]).backward()
        return [sum(x).item() for x in zip(*sums, strict=True)], [
            p.grad for p in model.parameters()
        ]

    (whole, expected), (parts, found) = gradients(4), gradients(rows)
    assert parts == pytest.approx(whole, rel=1e-5)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    model.set_dropout_seed(9, 1)  # without the rows' numbers it does not
    assert model.pretraining_loss(**packed).masked_lm_loss_sum.item() != pytest.approx(whole[0])


@pytest.mark.parametrize(
    ("architecture", "call"),
    [
        (BertForSequenceClassification, "row_logits"),
        (BertForTokenClassification, "piece_logits"),
        (BertForQuestionAnswering, "piece_logits"),
    ],
)
def test_fine_tuned_models_drop_the_same_however_a_batch_is_cut(
    config: BertConfig, packed: dict[str, Any], architecture: Any, call: str
) -> None:
    model = architecture(config.with_labels(["a", "b", "c"]), seed=3).train()

    def logits(size: int) -> torch.Tensor:
        parts = []
        for first in range(0, 4, size):
            model.set_dropout_seed(9, first)
            batch = cut(packed, first, min(first + size, 4))["batch"]
            parts.append(getattr(model, call)(batch))
        return torch.cat(parts)

    for size in (1, 3):
        torch.testing.assert_close(logits(size), logits(4), rtol=1e-5, atol=1e-5)
