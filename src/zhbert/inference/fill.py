"""Mask filling: the most likely pieces for each [MASK] of a text."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from zhbert.errors import ZhbertError
from zhbert.model.folder import check_vocabulary
from zhbert.text.tokenizer import Encoding, Tokenizer
from zhbert.zoo import locate

if TYPE_CHECKING:
    from torch import Tensor

    from zhbert.inference.onnx_model import OnnxModel
    from zhbert.model.pretrained import BertForMaskedLM, BertForPreTraining

    MaskFiller = BertForMaskedLM | BertForPreTraining | OnnxModel


BATCH = 32
"""The number of texts that `fill_stream` fills together."""


@dataclass(frozen=True)
class Candidate:
    """A piece proposed for a mask, and its probability from 0 to 1."""

    piece: str
    id: int
    probability: float


@dataclass(frozen=True)
class Mask:
    """One [MASK]: its position in the text, in characters, and its candidates, best first."""

    position: int
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Filled:
    """A text, its copy with each mask replaced by the best piece, and all candidates."""

    text: str
    filled: str
    masks: tuple[Mask, ...]


def open_mask_filler(
    name: str | Path, *, engine: str | None = None, quiet: bool = True
) -> tuple[MaskFiller, Tokenizer]:
    """Open a masked language model, given as a folder, an archive or a name, and its tokenizer.

    Args:
        name: what `zhbert.zoo.locate` accepts.
        engine: ``torch``, or ``onnx`` for the folder's ONNX graph; None: torch, unless the folder
            has nothing but a graph.
        quiet: show no progress of a download.

    Raises:
        ZhbertError: no model is found, or its vocabulary belongs to another model.
    """
    folder = locate(name, quiet=quiet)

    # Importing torch takes seconds, so a wrong name is reported first.
    from zhbert.inference.onnx_model import OnnxModel, runs_by_onnx
    from zhbert.model.pretrained import BertForMaskedLM

    model: MaskFiller
    if runs_by_onnx(folder, engine):
        model = OnnxModel.from_pretrained(folder, "BertForMaskedLM")
    else:
        model = BertForMaskedLM.from_pretrained(folder, quiet=quiet)
    tokenizer = Tokenizer.from_pretrained(folder)
    check_vocabulary(folder, tokenizer, model.config.vocab_size)
    return model, tokenizer


def fill(
    model: MaskFiller,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    top_k: int = 5,
    places: Sequence[str] | None = None,
) -> list[Filled]:
    """Fill the masks of ``texts``, each mask independently of the others.

    Probabilities are over the whole vocabulary; logits are computed at the masks only.

    >>> model, tokenizer = open_mask_filler("mini")
    >>> fill(model, tokenizer, ["根据《中华人民[MASK]和国宪法》的规定，制定本法。"])[0].filled
    '根据《中华人民共和国宪法》的规定，制定本法。'

    Args:
        model: in evaluation mode.
        tokenizer: the model's tokenizer.
        texts: texts with masks; all of them form one batch, without padding.
        top_k: the number of candidates for each mask.
        places: a prefix for errors about each text, such as ``"stdin, line 3: "``.

    Raises:
        ZhbertError: a text has no mask or is longer than the model's maximum, or the scores are
            not finite.
    """
    import numpy as np
    import torch

    from zhbert.inference.run_model import device_of
    from zhbert.packing import pack_rows
    from zhbert.train.prefetch import to_device

    if not texts:
        return []
    longest = model.config.max_position_embeddings
    encodings = [
        _encode(tokenizer, text, longest, place)
        for text, place in zip(texts, places or [""] * len(texts), strict=True)
    ]
    rows = [np.array([tokenizer.cls_id, *e.ids, tokenizer.sep_id]) for e in encodings]
    batch = pack_rows(np.concatenate(rows), np.array([len(row) for row in rows]))
    batch = to_device(batch, device_of(model))
    with torch.inference_mode():
        masks = (batch.input_ids == tokenizer.mask_id).nonzero()[:, 0]
        logits = model.masked_logits(batch, masks)
        ranked = _likeliest(logits, tokenizer, top_k)
    return [
        _filled(text, encoding.offsets[encoding.ids == tokenizer.mask_id].tolist(), ranked)
        for text, encoding in zip(texts, encodings, strict=True)
    ]


def fill_stream(
    model: MaskFiller,
    tokenizer: Tokenizer,
    texts: Iterable[tuple[str, str]],
    *,
    top_k: int = 5,
    batch_size: int = BATCH,
) -> Iterator[Filled]:
    """Yield the results of `fill` for any number of texts, each after its place for errors."""
    texts = iter(texts)
    while group := list(islice(texts, batch_size)):
        places, some = zip(*group, strict=True)
        yield from fill(model, tokenizer, some, top_k=top_k, places=places)


def no_mask(text: str, mask: str = "[MASK]", place: str = "") -> ZhbertError:
    """Return the error for a text without a mask."""
    shown = text if len(text) <= 30 else text[:30] + "..."
    return ZhbertError(
        f"{place}no {mask} in the text '{shown}'; write {mask}, in capitals, where a piece is "
        "missing"
    )


def _encode(tokenizer: Tokenizer, text: str, longest: int, place: str) -> Encoding:
    encoding = tokenizer.encode(text)
    if not (encoding.ids == tokenizer.mask_id).any():
        raise no_mask(text, tokenizer.special_tokens["mask_token"], place)
    if len(encoding) + 2 > longest:
        raise ZhbertError(
            f"{place}the text is {len(encoding):,} pieces long; this model takes {longest - 2:,} "
            "(and its [CLS] and [SEP]): cut the text"
        )
    return encoding


def _likeliest(logits: Tensor, tokenizer: Tokenizer, top_k: int) -> Iterator[tuple[Candidate, ...]]:
    """Yield the best candidates for each row of ``logits``, (masks, vocabulary size)."""
    # A model may have more rows than the vocabulary has pieces; those have no name to show.
    probabilities = logits.float().softmax(-1)[:, : len(tokenizer)]
    if not bool(probabilities.isfinite().all()):
        raise ZhbertError(
            "the model's scores are not finite numbers (NaN or infinity), so no mask can be "
            "filled: its weights are damaged or diverged"
        )
    best = probabilities.topk(min(top_k, len(tokenizer)))
    for values, ids in zip(best.values.tolist(), best.indices.tolist(), strict=True):
        yield tuple(
            Candidate(tokenizer.vocabulary[number], number, probability)
            for probability, number in zip(values, ids, strict=True)
        )


def _filled(
    text: str, spans: Sequence[Sequence[int]], ranked: Iterator[tuple[Candidate, ...]]
) -> Filled:
    """Fill the masks at ``spans``, (start, end) in characters, with the best of ``ranked``."""
    masks, parts, done = [], [], 0
    for start, end in spans:
        candidates = next(ranked)
        masks.append(Mask(start, candidates))
        parts += [text[done:start], candidates[0].piece.removeprefix("##")]
        done = end
    return Filled(text, "".join([*parts, text[done:]]), tuple(masks))
