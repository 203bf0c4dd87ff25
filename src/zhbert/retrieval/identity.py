"""What vectors depend on besides the texts: the model, and how it was asked."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import TYPE_CHECKING, Any

from zhbert.files import sha256_of
from zhbert.inference.onnx_model import OnnxModel
from zhbert.sentences.model import SentenceModel

if TYPE_CHECKING:
    from zhbert.sentences.encoder import SentenceEncoder


def identity_of(encoder: SentenceEncoder) -> dict[str, Any]:
    """Return JSON data that two encoders share only if they compute the same vectors.

    It contains a hash of the weights, so a folder may be moved, or have its README changed.
    """
    digest = hashlib.sha256()
    for name, parameter in sorted(encoder.model.named_parameters()):
        if name.startswith("pooler."):  # sentence vectors do not depend on it
            continue
        digest.update(f"{name} {tuple(parameter.shape)}".encode())
        digest.update(parameter.detach().float().cpu().contiguous().numpy().tobytes())
    configuration: dict[str, Any] = {}
    if isinstance(encoder.model, SentenceModel):  # static vectors have no settings
        if isinstance(encoder.model.encoder, OnnxModel):  # without parameters
            digest.update(sha256_of(encoder.model.encoder.graph).encode())
        configuration = dataclasses.asdict(encoder.model.config)
        del configuration["other"]
    return {
        "model": digest.hexdigest(),
        "configuration": configuration,
        "sentence_configuration": dataclasses.asdict(encoder.sentence),
        "vocabulary": encoder.tokenizer.fingerprint(),
        "precision": str(encoder.dtype).removeprefix("torch."),
    }
