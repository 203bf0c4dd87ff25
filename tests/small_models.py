"""Tiny models with vocabularies, as transformers writes them: what the tests cut and extend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import transformers

from zhbert.text.tokenizer import Tokenizer

LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
PIECES = [
    "[PAD]",
    "[unused1]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"的一是在不了有和人这，。！",
    *LETTERS,
    *(f"##{letter}" for letter in LETTERS),
    "trans",
    "##form",
    "##er",
    "bert",
]
SHAPE: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    # Near-random weights hide a lost bias.
    "initializer_range": 0.3,
}


def make_model(
    folder: Path,
    *,
    kind: Any = None,
    pieces: list[str] = PIECES,
    spare: int = 0,
    dtype: torch.dtype = torch.float32,
    do_lower_case: bool = True,
    **config: Any,
) -> Path:
    """A model folder that transformers wrote, with ``spare`` rows beyond its pieces."""
    torch.manual_seed(7)
    values = SHAPE | {"vocab_size": len(pieces) + spare} | config
    model = (kind or transformers.BertForPreTraining)(transformers.BertConfig(**values))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn(parameter.shape) * 0.3)
    model.to(dtype).save_pretrained(folder)
    Tokenizer(pieces, do_lower_case=do_lower_case).save_pretrained(folder)
    return folder


def outputs(folder: Path, ids: Any, kind: Any = None) -> Any:
    """What transformers computes of (batch, length) ids, hidden states included."""
    kind = kind or transformers.BertForPreTraining
    model, told = kind.from_pretrained(folder, output_loading_info=True)
    assert not any(told[name] for name in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with torch.no_grad():
        return model.eval()(torch.as_tensor(ids), output_hidden_states=True)
