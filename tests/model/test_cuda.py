"""A GPU computes what the CPU computes; without a GPU nothing here runs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from zhbert.model.config import BertConfig
from zhbert.model.dropout import dropout_table
from zhbert.model.pretrained import BertForPreTraining
from zhbert.packing import PackedBatch

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no GPU"),
    # PyTorch's compiler warns of its own insides.
    pytest.mark.filterwarnings("ignore"),
]

# Heads of 64, and weights small enough for bfloat16's gradients to be near.
SIZES: dict[str, Any] = {
    "hidden_size": 128,
    "num_attention_heads": 2,
    "intermediate_size": 256,
    "initializer_range": 0.05,
}


def _moved(value: Any, device: str) -> Any:
    if isinstance(value, PackedBatch):
        names = ("input_ids", "token_type_ids", "position_ids", "cu_seqlens")
        return replace(value, **{name: getattr(value, name).to(device) for name in names})
    return value.to(device)


def _loss_and_gradient(
    config: BertConfig, packed: dict[str, Any], device: str, *, half: bool, compiled: bool
) -> tuple[float, torch.Tensor]:
    model = BertForPreTraining(config, seed=3).to(device).train()
    if compiled:
        model.compile_layers()
    model.set_dropout_table(dropout_table(7, model.dropout_sites, 4).to(device))
    moved = {name: _moved(value, device) for name, value in packed.items()}
    with torch.autocast(device, dtype=torch.bfloat16, enabled=half):
        found = model.pretraining_loss(**moved)
    loss = found.masked_lm_loss_sum + found.next_sentence_loss_sum
    loss.backward()
    return loss.item(), torch.cat([p.grad.float().cpu().view(-1) for p in model.parameters()])


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_loss_and_gradient_are_the_cpus(
    shape: dict[str, Any], packed: dict[str, Any], rate: float, half: bool, compiled: bool
) -> None:
    # Attention's own dropout is drawn from another generator on a GPU.
    rates = {"hidden_dropout_prob": rate, "attention_probs_dropout_prob": 0.0}
    config = BertConfig(**{**shape, **SIZES, **rates})
    packed["labels"][3], packed["next_sentence_labels"][3] = -100, -100
    expected, gradient = _loss_and_gradient(config, packed, "cpu", half=False, compiled=False)
    found, other = _loss_and_gradient(config, packed, "cuda", half=half, compiled=compiled)
    assert found == pytest.approx(expected, rel=0.01 if half else 1e-5)
    assert (other - gradient).norm() < (0.05 if half else 1e-3) * gradient.norm()


def test_nothing_waits_for_the_gpu(shape: dict[str, Any], packed: dict[str, Any]) -> None:
    model = BertForPreTraining(BertConfig(**{**shape, **SIZES})).cuda().train()
    moved = {name: _moved(value, "cuda") for name, value in packed.items()}
    for mode in ("default", "error"):  # the first step prepares libraries
        torch.cuda.set_sync_debug_mode(mode)
        try:
            with torch.autocast("cuda", dtype=torch.bfloat16):
                model.pretraining_loss(**moved).masked_lm_loss_sum.backward()
        finally:
            torch.cuda.set_sync_debug_mode("default")
