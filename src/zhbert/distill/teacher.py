"""Teachers: trained models that are only read."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from zhbert.distill.teacher_folder import TeacherFolder
from zhbert.distill.vocabulary import give_vocabulary
from zhbert.model import native
from zhbert.model.config import BertConfig
from zhbert.model.loading import UntrainedWeightsWarning, UnusedWeightsWarning
from zhbert.train.cost import MAX_PADDED_TOKENS

Model = TypeVar("Model", bound=nn.Module)


@dataclass(frozen=True)
class Teacher(Generic[Model]):
    """A model in evaluation mode, without gradients, laid out for prediction."""

    name: str
    """As the user named it."""
    folder: Path
    config: BertConfig
    model: Model


def open_teacher(
    found: TeacherFolder,
    model_class: type[Model],
    *,
    device: torch.device,
    dtype: torch.dtype,
    rows: int | None = None,
) -> Teacher[Model]:
    """Open a teacher to be run on a device.

    Args:
        found: the teacher. If its vocabulary was compared, it is given the student's.
        model_class: its class, one of `zhbert.model.pretrained`.
        device: the student's device.
        dtype: the number format of all its weights and states.
        rows: rows of the student's word embeddings, at least as many as pieces; None: as many.
    """
    with warnings.catch_warnings():
        # Only some of the heads are read.
        warnings.simplefilter("ignore", UntrainedWeightsWarning)
        warnings.simplefilter("ignore", UnusedWeightsWarning)
        opener: Any = model_class
        model = opener.from_pretrained(found.folder, quiet=True)
    if found.vocabulary is not None:
        give_vocabulary(model, found.vocabulary, rows=rows or len(found.vocabulary.rows))
    model.requires_grad_(False).to(device=device, dtype=dtype)
    if device.type == "cpu":
        native.pack(model.encoder, MAX_PADDED_TOKENS)
    return Teacher(found.name, found.folder, model.config, model)
