"""Comparison of two models: their outputs for the same batches, layer by layer.

Shapes: B = rows, L = pieces in a row, H = hidden size, V = vocabulary size.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from zhbert.errors import ZhbertError
from zhbert.export.agreement import BATCH, Difference, PaddedBatch, batches
from zhbert.files import read_text
from zhbert.inference.onnx_model import OnnxModel
from zhbert.model.checkpoint import Checkpoint, open_checkpoint
from zhbert.model.config import BertConfig
from zhbert.model.folder import tokenizer_beside
from zhbert.model.head_states import HEADS
from zhbert.model.onnx_files import GRAPHS, TASKS, find_graph
from zhbert.model.pretrained import BertForPreTraining
from zhbert.sentences.model import SentenceModel
from zhbert.sentences.pooling import pool
from zhbert.text.tokenizer import Tokenizer
from zhbert.zoo import locate
from zhbert.zoo.layout import find_model, sentence_folder

# Differences, as shares of an output's largest number (or of 1), that float32 rounding can cause.
# Between this package and transformers at most 3.4e-6 was measured, with 12 layers of size 768 and
# 512 pieces. Within one library equal weights give equal numbers. Real faults cause larger
# differences: in models of hidden size 32, an approximated gelu or a missing query bias causes 4e-6
# and more. (A missing key bias changes nothing, since softmax cancels it.) Storage in float16
# causes 4e-4.
TWO_PROGRAMS = 2e-5
ONE_PROGRAM = 2e-6
# Between PyTorch and ONNX Runtime, by the file of the graph.
ONNX_TOLERANCES = {GRAPHS["float32"]: 1e-4, GRAPHS["float16"]: 2e-2, GRAPHS["int8"]: 0.25}
_ROWS = 12


class Runner(Protocol):
    """A function that runs a model on a batch and returns named outputs.

    The outputs are "embeddings" and "layer 1", "layer 2", ... (B, L, H), "pooler" (B, H),
    "masked words" (B, L, V) and "sentence pair" (B, 2), if the model has these heads. Values at
    padding are not compared.
    """

    def __call__(self, batch: PaddedBatch) -> Mapping[str, Tensor]:
        """Compute the outputs of one batch."""
        ...


# ---------------------------------------------------------------- runners


def zhbert_runner(name: str | Path) -> Runner:
    """Return a runner that uses this package; heads that the model's file lacks are left out."""
    model, checkpoint = _opened(name)
    vectors = None
    if sentence_folder(locate(name)) is not None:
        vectors = SentenceModel.from_pretrained(name, quiet=True)
    heads = heads_of(checkpoint)
    # The head of the same name classifies either texts or their pieces.
    tags = TASKS["tag"] in (model.config.other.get("architectures") or ())
    of_texts = "classifier" in heads and "pooler" in heads and not tags
    linear = {
        head: (checkpoint.entries[HEADS[head].weight], checkpoint.entries[HEADS[head].bias])
        for head in ("classifier", "question_answering")
        if head in heads
    }

    @torch.inference_mode()
    def run(batch: PaddedBatch) -> dict[str, Tensor]:
        output = model(**batch._asdict(), output_hidden_states=True)
        assert output.hidden_states is not None
        last = output.hidden_states[-1]
        named = _states(output.hidden_states)
        if "pooler" in heads:
            named["pooler"] = model.pooler(last[:, 0])
        if "masked_words" in heads:
            named["masked words"] = output.prediction_logits
        if "sentence_pair" in heads and "pooler" in heads:
            named["sentence pair"] = output.seq_relationship_logits
        if vectors is not None:
            named["sentence vector"] = vectors_of(vectors, last, batch.attention_mask)
        for head, (weight, bias) in linear.items():
            maps = weight.read().float(), bias.read().float()
            if head == "classifier" and of_texts:
                named["text classifier"] = functional.linear(named["pooler"], *maps)
            else:
                named[head.replace("_", " ")] = functional.linear(last, *maps)
        return named

    return run


def vectors_of(model: SentenceModel, states: Tensor, attention_mask: Tensor) -> Tensor:
    """Return the sentence vectors (B, D) of last hidden states (B, L, H)."""
    there = attention_mask != 0
    offsets = functional.pad(there.sum(1).cumsum(0), (1, 0))
    return model.project(pool(states[there], offsets, model.sentence.pooling))


def _opened(name: str | Path) -> tuple[BertForPreTraining, Checkpoint]:
    with warnings.catch_warnings():
        # Missing heads are left out of the comparison.
        warnings.simplefilter("ignore", UserWarning)
        model = BertForPreTraining.from_pretrained(name, quiet=True)
    return model, open_checkpoint(locate(name))


def heads_of(checkpoint: Checkpoint) -> set[str]:
    """Return the heads whose tensors are all in the checkpoint."""
    return {
        name for name, head in HEADS.items() if all(n in checkpoint.entries for n in head.names)
    }


def transformers_runner(name: str | Path) -> Runner:
    """Return a runner that opens a Hugging Face folder with the transformers library.

    Raises:
        ZhbertError: transformers is not installed, or cannot open the folder.
    """
    model, heads = _opened_by_transformers(name)

    @torch.inference_mode()
    def run(batch: PaddedBatch) -> dict[str, Tensor]:
        inner = model.bert(**batch._asdict(), output_hidden_states=True)
        named = _states(inner.hidden_states)
        if "pooler" in heads:
            named["pooler"] = inner.pooler_output
        if "masked_words" in heads:
            named["masked words"] = model.cls.predictions(inner.last_hidden_state)
        if "sentence_pair" in heads and "pooler" in heads:
            named["sentence pair"] = model.cls.seq_relationship(inner.pooler_output)
        return named

    return run


def onnx_runner(name: str | Path) -> Runner:
    """Return a runner that opens an ONNX folder with ONNX Runtime.

    Raises:
        ZhbertError: as `OnnxModel.from_pretrained`.
    """
    model = OnnxModel.from_pretrained(locate(name))
    ours = {
        "last_hidden_state": f"layer {model.config.num_hidden_layers}",
        "token_embeddings": f"layer {model.config.num_hidden_layers}",
        "pooler_output": "pooler",
        "logits": _LOGITS.get(model.architecture, "logits"),
        "sentence_embedding": "sentence vector",
    }

    def run(batch: PaddedBatch) -> dict[str, Tensor]:
        inputs = {input: value.numpy() for input, value in batch._asdict().items()}
        arrays = map(torch.from_numpy, model.run(inputs, model.outputs))
        found = dict(zip(model.outputs, arrays, strict=True))
        named = {ours[output]: value for output, value in found.items() if output in ours}
        if "start_logits" in found:
            both = found["start_logits"], found["end_logits"]
            named["question answering"] = torch.stack(both, dim=-1)
        return named

    return run


_LOGITS = {
    "BertForMaskedLM": "masked words",
    "BertForSequenceClassification": "text classifier",
    "BertForTokenClassification": "classifier",
}


def _opened_by_transformers(name: str | Path) -> tuple[Any, set[str]]:
    """Open transformers' BertForPreTraining; return it and the heads that the file has."""
    try:
        import transformers
    except ImportError:
        raise ZhbertError(
            "--with transformers: the library is not installed: pip install transformers"
        ) from None
    files = find_model(locate(name))
    if files.format == "tensorflow" or files.config is None or files.config.name != "config.json":
        raise ZhbertError(
            f"{files.folder}: transformers opens Hugging Face folders (config.json and "
            f"model.safetensors or pytorch_model.bin), this one is {files.format}: convert it first"
        )
    with _quiet(transformers):
        try:
            model = transformers.BertForPreTraining.from_pretrained(
                files.folder, dtype=torch.float32, attn_implementation="eager"
            )
        except Exception as error:
            line = str(error).strip().split("\n")[0]
            raise ZhbertError(f"{files.folder}: transformers cannot open it: {line}") from None
    model.train(False)
    return model, heads_of(open_checkpoint(files.folder))


@contextmanager
def _quiet(transformers: Any) -> Iterator[None]:
    """Suppress the library's messages and progress bars."""
    log = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def _states(states: Sequence[Tensor]) -> dict[str, Tensor]:
    """Return the outputs of the embeddings and of each layer by name."""
    return {f"layer {n}" if n else "embeddings": state for n, state in enumerate(states)}


# ---------------------------------------------------------------- comparing


def rows_of_texts(
    config: BertConfig, tokenizer: Tokenizer, texts: Iterable[str]
) -> Iterator[PaddedBatch]:
    """Yield texts, one a row, truncated to the model's maximum length."""
    longest = config.max_position_embeddings
    ends = np.array([tokenizer.cls_id]), np.array([tokenizer.sep_id])
    rows = (np.concatenate([ends[0], tokenizer.encode(text).ids])[: longest - 1] for text in texts)
    while group := [np.concatenate([row, ends[1]]) for row in islice(rows, BATCH)]:
        yield PaddedBatch.of(group, [np.zeros_like(row) for row in group], config.pad_token_id)


@dataclass(frozen=True)
class Parity:
    """The differences between the outputs of two models."""

    differences: dict[str, Difference]  # by output, in the order of computation
    only_first: tuple[str, ...]  # outputs that the second model lacks
    only_second: tuple[str, ...]

    @property
    def largest_difference(self) -> float:
        """The largest absolute difference of all outputs."""
        return float(np.max([d.largest for d in self.differences.values()], initial=0.0))

    def same(self, tolerance: float = TWO_PROGRAMS) -> bool:
        """Return True if every output is within the tolerance."""
        return all(d.within(tolerance) for d in self.differences.values())


def compare(one: Runner, other: Runner, inputs: Iterable[PaddedBatch]) -> Parity:
    """Compute the largest difference over all batches for each output that both models have."""
    found: dict[str, Difference] = {}
    only: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())
    for batch in inputs:
        there = batch.attention_mask.bool()
        first, second = one(batch), other(batch)
        only = (
            tuple(n for n in first if n not in second),
            tuple(n for n in second if n not in first),
        )
        for name in (n for n in first if n in second):
            a, b = first[name], second[name]
            if a.ndim == 3:
                a, b = a[there], b[there]
            found.setdefault(name, Difference()).add(a.numpy(), b.numpy())
    return Parity(found, *only)


_SHAPE = ("num_hidden_layers", "hidden_size", "intermediate_size", "vocab_size",
          "max_position_embeddings", "type_vocab_size")  # fmt: skip


def check_shapes(one: BertConfig, other: BertConfig) -> None:
    """Raise ZhbertError if two models have different shapes."""
    different = [
        f"{name} {getattr(one, name):,} and {getattr(other, name):,}"
        for name in _SHAPE
        if getattr(one, name) != getattr(other, name)
    ]
    if different:
        raise ZhbertError(f"two models of different shapes: {'; '.join(different)}")


def config_differences(one: BertConfig, other: BertConfig) -> list[str]:
    """Return the fields that differ, with both values."""
    return _differences(one, other, [f.name for f in fields(one) if f.name != "other"])


def _differences(one: object, other: object, names: Iterable[str]) -> list[str]:
    values = [(name, getattr(one, name), getattr(other, name)) for name in names]
    return [f"{name}: {a!r} and {b!r}" for name, a, b in values if a != b]


def same_pieces(one: Tokenizer | None, other: Tokenizer | None) -> bool:
    """Return True if equal ids stand for equal pieces, or if a vocabulary is missing."""
    return one is None or other is None or one.vocabulary == other.vocabulary


def vocabulary_differences(one: Tokenizer | None, other: Tokenizer | None) -> list[str]:
    """Return the differences between two vocabularies and their tokenizer options."""
    if one is None or other is None:
        return [] if one is other else [f"only the {'second' if one is None else 'first'} has one"]
    found = []
    if len(one) != len(other):
        found.append(f"{len(one):,} and {len(other):,} pieces")
    places = [
        n for n, (a, b) in enumerate(zip(one.vocabulary, other.vocabulary, strict=False)) if a != b
    ]
    if places:
        a, b = one.vocabulary[places[0]], other.vocabulary[places[0]]
        found.append(f"other pieces at {len(places):,} places, first {places[0]}: {a!r} and {b!r}")
    names = [f.name for f in fields(one.options)]
    return found + _differences(one.options, other.options, names)


# The runner of the second model, and the default tolerance; zhbert_runner runs the first model.
RUNNERS: Mapping[str, tuple[Callable[[str | Path], Runner], float]] = {
    "zhbert": (zhbert_runner, ONE_PROGRAM),
    "transformers": (transformers_runner, TWO_PROGRAMS),
    "onnxruntime": (onnx_runner, ONNX_TOLERANCES[GRAPHS["float32"]]),
}


@dataclass(frozen=True)
class ModelComparison:
    """The result of comparing two models, including configuration and vocabulary."""

    parity: Parity
    config: list[str]
    """The fields of the configurations that differ, with both values."""
    vocabulary: list[str]
    """The differences between the vocabularies and the tokenizer options."""
    same_pieces: bool
    """True if equal ids stand for equal pieces, or if a model has no vocabulary."""
    tolerance: float

    @property
    def same(self) -> bool:
        """True if the outputs agree within the tolerance and equal ids stand for equal pieces."""
        return self.parity.same(self.tolerance) and self.same_pieces


def compare_models(
    one: str | Path,
    other: str | Path,
    *,
    runner: str | None = None,
    texts: str | Path | None = None,
    tolerance: float | None = None,
    quiet: bool = True,
) -> ModelComparison:
    """Compare two models, each given as anything that ``zhbert.zoo.locate`` accepts.

    Args:
        runner: the runner of ``other``, one of ``RUNNERS``; None: onnxruntime for a folder with
            nothing but an ONNX graph, else zhbert.
        texts: a file of lines to compare on; None: a built-in text and random pieces.
        tolerance: the largest accepted difference, as a share of an output's largest number or of
            1, whichever is larger; None: the default of the runner, and of the graph's precision.

    Raises:
        ZhbertError: a model cannot be opened, or the shapes differ.
    """
    if tolerance is not None and not tolerance >= 0:
        raise ZhbertError(f"--tolerance {tolerance}: must be 0 or more")
    lines = None if texts is None else _lines(texts)
    # Downloaded here, with progress; the runners then find the folders in the cache.
    one, other = locate(one, quiet=quiet), locate(other, quiet=quiet)
    if find_model(one).format == "onnx":
        raise ZhbertError(f"{one}: an ONNX graph alone: give it as the second, after its model")
    if runner is None:
        runner = "onnxruntime" if find_model(other).format == "onnx" else "zhbert"
    open_other, usual = RUNNERS[runner]
    if runner == "onnxruntime":
        usual = ONNX_TOLERANCES.get(find_graph(other).name, usual)
    configs = BertConfig.from_pretrained(one), BertConfig.from_pretrained(other)
    check_shapes(*configs)
    tokenizers = tokenizer_beside(find_model(one)), tokenizer_beside(find_model(other))
    if lines is None:
        inputs = batches(configs[0], tokenizers[0], _ROWS)
    elif tokenizers[0] is not None:
        inputs = rows_of_texts(configs[0], tokenizers[0], lines)
    else:
        raise ZhbertError("--texts: the first model has no vocabulary to read them with")
    return ModelComparison(
        compare(zhbert_runner(one), open_other(other), inputs),
        config_differences(*configs),
        vocabulary_differences(*tokenizers),
        same_pieces(*tokenizers),
        usual if tolerance is None else tolerance,
    )


def _lines(path: str | Path) -> list[str]:
    lines = [line for line in read_text(path).split("\n") if line.strip()]
    if not lines:
        raise ZhbertError(f"{path}: no text; give one text a line")
    return lines
