"""The loss over packed rows: right, the same in any packing, reproducible to the bit."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from zhbert.model.attention import RowLayout, pad, padded_attention, unpad
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining, PretrainingLoss
from zhbert.packing import PackedBatch
from zhbert.runtime import missing_to_compile

Large = Callable[[torch.nn.Module], Any]


def _padded(packed: dict[str, Any]) -> dict[str, torch.Tensor]:
    """The packed rows as a padded batch with labels, as transformers wants them."""
    batch: PackedBatch = packed["batch"]
    starts = batch.cu_seqlens.tolist()
    rows, length = batch.num_rows, batch.max_length
    ids, segments, mask = (torch.zeros(rows, length, dtype=torch.long) for _ in range(3))
    labels = torch.full((rows, length), -100)
    flat = torch.full((starts[-1],), -100)
    flat[packed["predicted_positions"]] = packed["labels"]
    for row, (start, stop) in enumerate(itertools.pairwise(starts)):
        ids[row, : stop - start] = batch.input_ids[start:stop]
        segments[row, : stop - start] = batch.token_type_ids[start:stop]
        mask[row, : stop - start] = 1
        labels[row, : stop - start] = flat[start:stop]
    return {
        "input_ids": ids,
        "attention_mask": mask,
        "token_type_ids": segments,
        "labels": labels,
        "next_sentence_label": packed["next_sentence_labels"],
    }


@pytest.mark.parametrize("pairs", [True, False])
def test_the_packed_loss_and_its_gradients_are_those_of_the_padded_forward(
    config: BertConfig, packed: dict[str, Any], large: Large, pairs: bool
) -> None:
    model = large(BertForPreTraining(config)).eval()
    padded = _padded(packed)
    if not pairs:
        packed["next_sentence_labels"] = padded["next_sentence_label"] = None
    expected = model(**padded).loss
    expected.backward()
    gradients = {name: p.grad for name, p in model.named_parameters()}
    model.zero_grad(set_to_none=True)
    found = model.pretraining_loss(**packed)
    total = found.masked_lm_loss_sum / 8
    if pairs:
        total = total + found.next_sentence_loss_sum / 4
    total.backward()
    torch.testing.assert_close(total, expected, rtol=1e-5, atol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], rtol=1e-3, atol=2e-5)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("pairs", [True, False])
def test_rows_without_a_prediction_leave_a_gradient_of_zero(
    config: BertConfig, packed: dict[str, Any], precision: torch.dtype, pairs: bool
) -> None:
    model = BertForPreTraining(config)
    none = packed["labels"][:0]
    packed |= {"predicted_positions": none, "labels": none}
    if not pairs:
        packed["next_sentence_labels"] = None
    with torch.autocast("cpu", precision, enabled=precision != torch.float32):
        found = model.pretraining_loss(**packed)
    found.masked_lm_loss_sum.backward()
    assert found.masked_lm_loss_sum == found.masked_lm_correct == 0
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    assert "encoder.embeddings.words.weight" in gradients
    assert not any(gradient.any() for gradient in gradients.values())


def test_losses_equal_those_of_transformers(
    config: BertConfig, packed: dict[str, Any], large: Large, tmp_path: Any
) -> None:
    import transformers

    model = large(BertForPreTraining(config)).eval()
    model.save_pretrained(tmp_path)
    theirs = transformers.BertForPreTraining.from_pretrained(tmp_path)
    with torch.no_grad():
        found = model.pretraining_loss(**packed)
        total = found.masked_lm_loss_sum / 8 + found.next_sentence_loss_sum / 4
        torch.testing.assert_close(total, theirs(**_padded(packed)).loss, rtol=1e-5, atol=1e-5)


def test_a_row_is_the_same_alone_and_in_any_batch(
    config: BertConfig, packed: dict[str, Any], large: Large
) -> None:
    model = large(BertForPreTraining(config)).eval()
    batch = packed["batch"]
    starts = batch.cu_seqlens
    ids = (batch.input_ids, batch.token_type_ids, batch.position_ids)

    def encode(order: list[int]) -> list[torch.Tensor]:
        parts = [[x[starts[r] : starts[r + 1]] for r in order] for x in ids]
        lengths = torch.tensor([len(x) for x in parts[0]])
        cuts = torch.cat((lengths.new_zeros(1), lengths.cumsum(0)))
        rows = PackedBatch(*(torch.cat(p) for p in parts), cuts, int(lengths.max()))
        return model.encoder(rows).split(lengths.tolist())

    with torch.no_grad():
        alone = [encode([row])[0] for row in range(4)]
        for order in ([0, 1, 2, 3], [3, 1], [2, 2, 0], [1, 3, 0, 2, 1]):
            for row, found in zip(order, encode(order), strict=True):
                torch.testing.assert_close(found, alone[row], rtol=0, atol=1e-5)


@pytest.mark.parametrize("length", [9, 300])
def test_attention_in_half_precision_stays_near_with_its_gradients(length: int) -> None:
    """Short rows, whose products are written out, and long ones; the last row is half padding."""
    generator = torch.Generator().manual_seed(0)
    exact = [torch.randn(3, length, 16, generator=generator).requires_grad_() for _ in range(3)]
    half = [x.detach().bfloat16().requires_grad_() for x in exact]
    bias = torch.zeros(3, 1, 1, length)
    bias[2, ..., length // 2 :] = -torch.inf
    upstream = torch.randn(3, length, 16, generator=generator)
    expected = padded_attention(*exact, bias, 2, 0.0, None)
    found = padded_attention(*half, bias, 2, 0.0, None)
    expected.backward(upstream)
    found.backward(upstream.bfloat16())
    assert found.dtype == torch.bfloat16
    assert (found - expected).norm() < 0.01 * expected.norm()
    for one, other in zip(half, exact, strict=True):
        assert (one.grad - other.grad).norm() < 0.02 * other.grad.norm()
    assert not half[1].grad[2, length // 2 :].any()


def test_a_batch_of_equal_rows_takes_the_shorter_way_to_the_same_numbers() -> None:
    generator = torch.Generator().manual_seed(3)
    rows = RowLayout.of(torch.tensor([0, 6, 12]), 6, 12)
    assert rows.grid.equal
    x = torch.randn(12, 8, generator=generator)
    slow = replace(rows, _grid=replace(rows.grid, equal=False))
    assert torch.equal(pad(x, rows), pad(x, slow))
    assert torch.equal(unpad(pad(x, rows), slow), x)


def _five_steps(config: BertConfig, packed: dict[str, Any], compiled: bool) -> list[torch.Tensor]:
    model = BertForPreTraining(config, seed=3).train()
    if compiled:
        model.compile_layers()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    torch.rand(3)  # nothing of torch's own random state enters
    losses = []
    for step in range(5):
        model.set_dropout_seed(step)
        found: PretrainingLoss = model.pretraining_loss(**packed)
        (found.masked_lm_loss_sum + found.next_sentence_loss_sum).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(found.masked_lm_loss_sum.detach())
    return [*losses, *(p.detach() for p in model.parameters())]


def test_two_runs_are_equal_to_the_bit(config: BertConfig, packed: dict[str, Any]) -> None:
    one, other = (_five_steps(config, packed, compiled=False) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


# PyTorch's compiler warns of its own insides.
@pytest.mark.filterwarnings("ignore")
@pytest.mark.skipif(
    bool(missing_to_compile(on_cpu=True)),
    reason=f"this machine has no {missing_to_compile(on_cpu=True)}",
)
def test_compiled_runs_are_equal_to_the_bit_and_near_the_eager_one(
    config: BertConfig, packed: dict[str, Any]
) -> None:
    one, other = (_five_steps(config, packed, compiled=True) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))
    # The same elements are dropped, compiled or not: the losses differ by rounding alone.
    eager = _five_steps(config, packed, compiled=False)
    for a, b in zip(one[:5], eager[:5], strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4)


def test_half_precision_trains_towards_the_same_loss(
    config: BertConfig, packed: dict[str, Any]
) -> None:
    model = BertForPreTraining(config, seed=3).train()

    def loss(narrow: bool) -> torch.Tensor:
        model.set_dropout_seed(1)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=narrow):
            found = model.pretraining_loss(**packed)
        return found.masked_lm_loss_sum + found.next_sentence_loss_sum

    exact, near = loss(False), loss(True)
    assert near.dtype == torch.float32
    assert near.item() == pytest.approx(exact.item(), rel=0.02)
    near.backward()
    assert all(p.grad.dtype == torch.float32 for p in model.parameters())


def test_without_sentence_pairs_the_pooler_is_not_computed(
    config: BertConfig, packed: dict[str, Any]
) -> None:
    model = BertForPreTraining(config).train()
    del packed["next_sentence_labels"]
    found = model.pretraining_loss(**packed)
    assert found.next_sentence_loss_sum is None
    found.masked_lm_loss_sum.backward()
    assert model.pooler.dense.weight.grad is None
