"""Predictor: what a model predicts for values of Python, in one line."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import chain
from pathlib import Path
from typing import Any, Self, cast

import numpy as np
import torch

from zhbert.errors import ZhbertError
from zhbert.finetuning.fine_tuned import (
    WINDOW_EXAMPLES,
    FineTuned,
    open_to_predict,
)
from zhbert.finetuning.locate import locate_fine_tuned
from zhbert.inference.fill import BATCH, fill_stream, open_mask_filler
from zhbert.model.folder import is_fine_tuned
from zhbert.model.loading import UntrainedWeightsWarning
from zhbert.runtime import device_named
from zhbert.schema import check_choice
from zhbert.sentences.encoder import SentenceEncoder
from zhbert.sentences.model import SentenceModel
from zhbert.sentences.modules import is_static
from zhbert.tasks.kinds.embed import Embed
from zhbert.tasks.writers import shown_prediction
from zhbert.wording import shortly
from zhbert.zoo.layout import sentence_folder
from zhbert.zoo.upload import push_to_hub

FILL = "fill"

Inputs = Iterator[tuple[str, Any]]
"""Values, each after its place for errors."""
Results = Callable[[Inputs, int], Iterator[Any]]
"""Turns inputs to results, in order, with at most a number of them in memory."""


class Predictor:
    """A model of any kind with everything that it needs to predict.

    What goes in and what comes out, kind by kind, is in docs/predicting.md.

    >>> predictor = Predictor.from_pretrained("mini")
    >>> predictor.task, predictor("根据《中华人民[MASK]和国宪法》的规定，制定本法。").filled
    ('fill', '根据《中华人民共和国宪法》的规定，制定本法。')
    """

    def __init__(self, folder: Path, task: str, results: Results) -> None:
        self.folder = folder
        """The model's folder."""
        self.task = task
        """``fill``, or the name of a kind of task."""
        self._results = results

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        *,
        precision: str = "fp32",
        engine: str | None = None,
        device: str | torch.device | None = None,
        top_k: int = 5,
        quiet: bool = True,
    ) -> Self:
        """Open a model for what it was trained for: its task, vectors of texts, or filling masks.

        Args:
            name: a run folder of ``zhbert finetune`` (its best seed on dev), a model folder, an
                archive, a name of the catalogue (``zhbert models``) or a hub id. Models that
                transformers or sentence-transformers have fine-tuned open, too.
            precision: ``fp32``, ``bf16`` or ``int8`` (weights of 8 bits, on some CPUs); masks are
                filled in ``fp32``.
            engine: ``torch``, or ``onnx`` for the folder's ONNX graph, on the CPU; None: torch,
                unless the folder has nothing but a graph.
            device: where to compute; None: a GPU if there is one.
            top_k: the number of candidates for each mask.
            quiet: show no progress of a download.

        Raises:
            ZhbertError: there is no such model, or it was trained for nothing of this.
        """
        check_choice(precision, ("fp32", "bf16", "int8"), "precision")
        folder = locate_fine_tuned(name, quiet=quiet)
        device = device_named(device)
        if is_static(folder):
            encoder = SentenceEncoder.from_pretrained(folder, device=device)
            return cls(folder, Embed.name, _vectors(encoder, None))
        if not is_fine_tuned(folder) and sentence_folder(folder) is None:
            if precision != "fp32":
                raise ZhbertError(f"precision = {precision}: masks are filled in fp32")
            return cls(folder, FILL, _filling(folder, engine, device, top_k))
        opened = open_to_predict(folder, engine=engine, precision=precision)
        opened.model.to(device)
        results = _predictions(opened)
        if opened.kind.name == Embed.name:
            encoder = SentenceEncoder(cast(SentenceModel, opened.model), opened.learner.tokenizer)
            encoder.dtype = opened.dtype
            results = _vectors(encoder, results)
        return cls(folder, opened.kind.name, results)

    def __call__(self, inputs: Any) -> Any:
        """Return the result for one input, or a list of results for several.

        One input is a text, a dict or a tuple; every other iterable holds several. Several texts
        give a sentence model's vectors as one array, (N, D) float32.

        Raises:
            ZhbertError: the model predicts nothing for an input; names its place, as ``inputs[3]``.
        """
        if isinstance(inputs, str | tuple | Mapping) or not isinstance(inputs, Iterable):
            [found] = self.stream([inputs])  # to its end, where what was cut is said
            return found
        found = list(self.stream(inputs))
        return np.stack(found) if found and isinstance(found[0], np.ndarray) else found

    def stream(self, inputs: Iterable[Any], *, batch_size: int | None = None) -> Iterator[Any]:
        """Yield the result of each input, in order; inputs are read as they are needed.

        Args:
            inputs: any number of inputs.
            batch_size: how many inputs are read before their results come; None: up to 4,096. How
                many rows are computed at once depends on their lengths, and not on this.

        Raises:
            ZhbertError: as for a call.
        """
        if batch_size is not None and batch_size < 1:
            raise ZhbertError(f"batch_size = {batch_size}: must be 1 or more")
        placed = ((f"inputs[{number}]", value) for number, value in enumerate(inputs))
        return self._results(placed, batch_size or WINDOW_EXAMPLES)

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload the model as `zhbert.zoo.upload.push_to_hub` does, with its ``options``."""
        return push_to_hub(self.folder, repo_id, **options)


def _predictions(opened: FineTuned) -> Results:
    """Return the dicts that ``zhbert predict`` writes as JSON lines."""

    def results(inputs: Inputs, most: int) -> Iterator[Any]:
        examples = (
            opened.kind.example_of(opened.card, value, str(number), where)
            for number, (where, value) in enumerate(inputs)
        )
        for example, prediction in opened.stream(examples, window=most, remark=_warn):
            yield shown_prediction(example, prediction)

    return results


def _warn(line: str) -> None:
    warnings.warn(line, stacklevel=6)  # the caller of Predictor, above the generators


def _vectors(encoder: SentenceEncoder, pairs: Results | None) -> Results:
    """Return vectors, (D,) float32, of texts; ``pairs`` of texts if the first input is one."""

    def results(inputs: Inputs, most: int) -> Iterator[Any]:
        first = next(inputs, None)
        if first is None:
            return
        inputs = chain([first], inputs)
        if pairs is not None and not isinstance(first[1], str):
            yield from pairs(inputs, most)
            return
        for some in encoder.encode_stream((_text(*one) for one in inputs), window=most):
            yield from some

    return results


def _filling(folder: Path, engine: str | None, device: torch.device, top_k: int) -> Results:
    """Return texts with their masks filled, as `zhbert.inference.fill.Filled`."""
    if top_k < 1:
        raise ZhbertError(f"top_k = {top_k}: must be 1 or more")
    with warnings.catch_warnings():
        warnings.simplefilter("error", UntrainedWeightsWarning)
        try:
            model, tokenizer = open_mask_filler(folder, engine=engine)
        except UntrainedWeightsWarning:
            raise ZhbertError(
                f"{folder}: not fine-tuned for a task ('zhbert finetune' does that), and without "
                "a trained head that fills masks"
            ) from None
    model.to(device)

    def results(inputs: Inputs, most: int) -> Iterator[Any]:
        texts = ((f"{where}: ", _text(where, value)) for where, value in inputs)
        return fill_stream(model, tokenizer, texts, top_k=top_k, batch_size=min(most, BATCH))

    return results


def _text(where: str, value: Any) -> str:
    if not isinstance(value, str):
        raise ZhbertError(f"{where} is {shortly(value)}: must be a text")
    return value
