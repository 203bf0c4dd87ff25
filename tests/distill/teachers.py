"""Tiny teachers for the tests of distillation."""

from __future__ import annotations

from pathlib import Path

import torch
from tests.small_corpora import PIECES

from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining
from zhbert.text.tokenizer import Tokenizer


def make_teacher(folder: Path, *, pieces=PIECES, seed: int = 3, trained: bool = True, **config):
    """Write a model folder with near-random weights, so that no two logits are alike."""
    values = {
        "vocab_size": len(pieces),
        "hidden_size": 32,
        "num_hidden_layers": 4,
        "num_attention_heads": 2,
        "intermediate_size": 48,
        "max_position_embeddings": 64,
        "initializer_range": 0.3,
        **config,
    }
    model = BertForPreTraining(BertConfig(**values), seed=seed)
    if trained:
        generator = torch.Generator().manual_seed(seed)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.3)
    model.save_pretrained(folder)
    Tokenizer(pieces).save_pretrained(folder)
    return folder
