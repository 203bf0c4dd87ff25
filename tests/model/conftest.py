"""Small models with large weights: near-random ones hide a wrong activation or a lost bias."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch

from zhbert.model.config import BertConfig
from zhbert.packing import PackedBatch

SHAPE: dict[str, Any] = {
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "max_position_embeddings": 40,
    "initializer_range": 0.2,
}


@pytest.fixture
def shape() -> dict[str, Any]:
    return dict(SHAPE)


@pytest.fixture
def config() -> BertConfig:
    return BertConfig(**SHAPE)


def enlarge(model: torch.nn.Module, seed: int = 1) -> torch.nn.Module:
    """Give biases and norms random values that matter."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim == 1:
                noise = torch.randn(parameter.shape, generator=generator) * 0.3
                unit = 1.0 if "norm" in name.lower() and name.endswith("weight") else 0.0
                parameter.copy_(noise + unit)
    return model


@pytest.fixture
def large() -> Callable[[torch.nn.Module], Any]:
    return enlarge


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Five rows of 17 pieces, three of them padded, with two segments."""
    generator = torch.Generator().manual_seed(5)
    mask = torch.ones(5, 17, dtype=torch.long)
    mask[1, 9:] = 0
    mask[3, 2:] = 0
    mask[4, 16:] = 0
    return {
        "input_ids": torch.randint(0, 97, (5, 17), generator=generator),
        "attention_mask": mask,
        "token_type_ids": torch.randint(0, 2, (5, 17), generator=generator),
    }


@pytest.fixture
def packed() -> dict[str, Any]:
    """Four rows of unequal length, packed, with predictions (none in the last row)."""
    generator = torch.Generator().manual_seed(6)
    starts = [0, 11, 15, 32, 37]
    positions = [torch.arange(b - a) for a, b in itertools.pairwise(starts)]
    return {
        "batch": PackedBatch(
            input_ids=torch.randint(0, 97, (37,), generator=generator),
            token_type_ids=torch.randint(0, 2, (37,), generator=generator),
            position_ids=torch.cat(positions),
            cu_seqlens=torch.tensor(starts, dtype=torch.int32),
            max_length=17,
        ),
        "predicted_positions": torch.tensor([2, 3, 7, 12, 18, 20, 30, 31]),
        "labels": torch.randint(0, 97, (8,), generator=generator),
        "next_sentence_labels": torch.tensor([0, 1, 1, 0]),
    }
