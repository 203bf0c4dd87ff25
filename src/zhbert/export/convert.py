"""Conversion of models to the forms of Hugging Face, PyTorch, Google's TensorFlow and Paddle."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from zhbert.errors import ZhbertError
from zhbert.export.paddle import paddle_classes, write_paddle
from zhbert.export.tensorflow import write_tensorflow
from zhbert.files import atomic_folder
from zhbert.model.checkpoint import Checkpoint, open_checkpoint
from zhbert.model.config import BertConfig
from zhbert.model.entry import Entry, converted, is_finite
from zhbert.model.folder import architecture_of, check_out, tokenizer_of
from zhbert.model.formats.pickle import write_pickle
from zhbert.model.formats.safetensors import write_safetensors
from zhbert.model.head_states import HEADS, head_states
from zhbert.model.loading import check_architecture, check_tensors
from zhbert.model.names import PER_PIECE, to_hugging_face
from zhbert.model.pretrained import BertForPreTraining
from zhbert.model.sentence_files import copy_sentence_files
from zhbert.runs.model_card import Opening, copy_card
from zhbert.text.tokenizer import Tokenizer
from zhbert.zoo import locate
from zhbert.zoo.layout import find_model

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}
# Classes whose tensors have the same names as those of BertForSequenceClassification.
_CLASSIFIERS = ("BertForTokenClassification", "BertForMultipleChoice")


@dataclass(frozen=True)
class Conversion:
    """What a writer is given: the model as it is to be written."""

    entries: Mapping[str, Entry]
    """the tensors by Hugging Face's names, checked for NaN when they are read"""
    config: BertConfig
    tokenizer: Tokenizer | None
    max_shard_bytes: int | None


def convert(
    source: str | Path,
    out: str | Path,
    to: str,
    *,
    dtype: str | None = None,
    drop_untrained_heads: bool = False,
    max_shard_size: str | int | None = None,
    overwrite: bool = False,
    progress: Callable[[int, int], object] = lambda done, total: None,
    quiet: bool = True,
) -> dict[str, Any]:
    """Write the model ``source`` into the folder ``out`` in the format ``to``.

    Tensors are read and written one at a time, so that memory does not grow with the model.

    Args:
        source: a model, given as anything that ``zhbert.zoo.locate`` accepts.
        to: one of ``zhbert.export.FORMATS``.
        dtype: one of ``zhbert.export.DTYPES``; None: each tensor keeps its dtype.
        drop_untrained_heads: leave out heads that still have random initial weights.
        max_shard_size: for safetensors and paddle: the limit of a file, in bytes or as "500MB".
        progress: called with the number of bytes read so far and the total.

    Returns:
        ``folder``, ``format``, ``architecture``, ``dtype``, ``tensors`` (their number), ``bytes``,
        ``skipped`` (entries of the source that are not weights), ``unknown`` (tensors that are
        kept but not part of BERT), ``dropped`` (tensors of untrained heads), ``vocabulary`` (size).

    Raises:
        ZhbertError: the model is not a BERT, its vocabulary or configuration does not match, it
            contains NaN, a file is damaged, or ``out`` is in use. Nothing is written then.
    """
    out = Path(out)
    if max_shard_size is not None and to not in ("safetensors", "paddle"):
        raise ZhbertError("--max-shard-size: only safetensors are cut by size; leave it out")
    max_shard_bytes = None if max_shard_size is None else _bytes(str(max_shard_size))
    check_out(out, source, overwrite=overwrite, option="DST")
    folder = locate(source, quiet=quiet)
    config = BertConfig.from_pretrained(folder)
    checkpoint = open_checkpoint(folder)
    check_architecture(checkpoint, config)
    unknown = _check_shapes(checkpoint, config)
    tokenizer = tokenizer_of(find_model(folder), config.vocab_size)
    dropped = _of_untrained_heads(checkpoint, config) if drop_untrained_heads else []
    kept = {name: entry for name, entry in checkpoint.entries.items() if name not in dropped}
    entries = _converted(replace(checkpoint, entries=kept), dtype, progress)
    stored = str(entries[PER_PIECE[0]].dtype).removeprefix("torch.")
    # Weights may be stored in 16 bits for a model that is to be opened, and trained, in float32.
    exact = dtype is None and config.other.get("dtype") == "float32"
    config = _described(config, entries, "float32" if exact else stored)
    with atomic_folder(out, replace=overwrite) as temporary:
        WRITERS[to](temporary, Conversion(entries, config, tokenizer, max_shard_bytes))
        copy_sentence_files(folder, temporary, config.max_position_embeddings)
        opening = _opened_by_paddle(config) if to == "paddle" else None
        copy_card(folder, temporary, opening)
    return {
        "folder": str(out),
        "format": to,
        "architecture": config.other["architectures"][0],
        "dtype": stored,
        "tensors": len(entries),
        "bytes": sum(entry.size for entry in entries.values()),
        "skipped": list(checkpoint.skipped),
        "unknown": unknown,
        "dropped": dropped,
        "vocabulary": None if tokenizer is None else len(tokenizer),
    }


def _write_safetensors(out: Path, model: Conversion) -> None:
    write_safetensors(out, model.entries, max_shard_bytes=model.max_shard_bytes)
    model.config.save_pretrained(out)
    _write_tokenizer(out, model)


def _write_pytorch(out: Path, model: Conversion) -> None:
    write_pickle(out, model.entries)
    model.config.save_pretrained(out)
    _write_tokenizer(out, model)


def _write_tokenizer(out: Path, model: Conversion) -> None:
    if model.tokenizer is not None:
        model.tokenizer.save_pretrained(out, model_max_length=model.config.max_position_embeddings)


def _write_tensorflow(out: Path, model: Conversion) -> None:
    tokenizer = model.tokenizer
    vocabulary = None if tokenizer is None else tokenizer.vocabulary
    write_tensorflow(out, model.entries, model.config, vocabulary)
    # Google's layout has no tokenizer options. If vocab.txt alone would be read with other options,
    # Hugging Face's tokenizer files are written as well.
    if tokenizer is not None:
        alone = Tokenizer.from_pretrained(out)
        if alone.fingerprint() != tokenizer.fingerprint():
            tokenizer.save_pretrained(out)


def _write_paddle(out: Path, model: Conversion) -> None:
    write_paddle(out, model.entries, model.config, max_shard_bytes=model.max_shard_bytes)
    _write_tokenizer(out, model)


def _opened_by_paddle(config: BertConfig) -> Opening:
    name = paddle_classes(config)[0]
    return Opening(
        "paddlenlp",
        f"from paddlenlp.transformers import {name}, BertTokenizer\n\n"
        'tokenizer = BertTokenizer.from_pretrained("MODEL")\n'
        f'model = {name}.from_pretrained("MODEL")',
    )


WRITERS: Mapping[str, Callable[[Path, Conversion], None]] = {
    "tensorflow": _write_tensorflow,
    "safetensors": _write_safetensors,
    "pytorch": _write_pytorch,
    "paddle": _write_paddle,
}
"""By format (``zhbert.export.FORMATS``): what fills the new folder."""


def _check_shapes(checkpoint: Checkpoint, config: BertConfig) -> list[str]:
    """Check BERT's tensors against the configuration; return the names of other tensors."""
    with torch.device("meta"):
        model = BertForPreTraining(config)
    wanted = to_hugging_face(dict(model.named_parameters()))
    check_tensors(checkpoint, wanted)
    heads = ("classifier.weight", "classifier.bias", "qa_outputs.weight", "qa_outputs.bias")
    return [name for name in checkpoint.entries if name not in wanted and name not in heads]


def _of_untrained_heads(checkpoint: Checkpoint, config: BertConfig) -> list[str]:
    """Return the names of the tensors of heads that still have random initial weights."""
    states = head_states(checkpoint.entries, config.initializer_range)
    return [
        name
        for head, state in states.items()
        if state.word == "random"
        for name in HEADS[head].names
    ]


def _described(config: BertConfig, entries: Mapping[str, Entry], dtype: str) -> BertConfig:
    """Return the configuration with ``dtype``, and the class and labels that match the tensors."""
    # In the output the decoder always shares the word embeddings.
    former_keys = ("torch_dtype", "tie_word_embeddings")
    other = {name: value for name, value in config.other.items() if name not in former_keys}
    name = architecture_of(entries)
    former = other.get("architectures") or [""]
    if name == "BertForSequenceClassification" and former[0] in _CLASSIFIERS:
        name = former[0]
    other["architectures"] = [name]
    other["dtype"] = dtype
    if "classifier.weight" in entries and "id2label" not in other:
        # transformers derives the number of classes from the number of label names.
        count = entries["classifier.weight"].shape[0]
        return replace(config, other=other).with_labels([f"LABEL_{n}" for n in range(count)])
    return replace(config, other=other)


def _converted(
    checkpoint: Checkpoint, dtype: str | None, progress: Callable[[int, int], object]
) -> dict[str, Entry]:
    """Return entries of the new dtype that, when read, are checked and call ``progress``."""
    source = checkpoint.checked()
    entries = converted(source, None if dtype is None else getattr(torch, dtype))
    total = sum(entry.size for entry in source.values())
    done = 0

    def read(name: str) -> Tensor:
        nonlocal done
        _give_back_memory()
        tensor = entries[name].read()
        if dtype is not None and not is_finite(tensor):
            raise ZhbertError(
                f"{checkpoint.file}: {name} holds numbers above those of {entries[name].dtype};"
                " use --dtype bfloat16"
            )
        done += source[name].size
        progress(done, total)
        return tensor

    return {name: replace(entry, read=partial(read, name)) for name, entry in entries.items()}


def _give_back_memory() -> None:
    """Return freed memory to the system.

    glibc keeps most of it if large and small blocks alternate: 1 GB when converting a 2 GB model.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _bytes(text: str) -> int:
    """Parse a size with a unit into bytes.

    >>> _bytes("500MB"), _bytes("2g")
    (500000000, 2000000000)
    """
    match = re.fullmatch(r"(\d+)\s*([kmg]?)b?", text.strip().lower())
    if match is None or not int(match[1]):
        raise ZhbertError(f"--max-shard-size {text}: not a size; write 500MB or 2GB")
    return int(match[1]) * _UNITS[match[2]]
