"""Fine-tuned models, opened from their folders together with everything needed to predict."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from zhbert.errors import ZhbertError
from zhbert.finetuning.locate import locate_fine_tuned
from zhbert.inference.onnx_model import OnnxModel, runs_by_onnx
from zhbert.inference.run_model import run_model
from zhbert.model.config import SECTION, BertConfig
from zhbert.model.folder import check_vocabulary
from zhbert.runtime import choose_device, choose_dtype, prepare_threads
from zhbert.schema import build
from zhbert.sentences.model import SentenceModel
from zhbert.sentences.modules import read_sentence_config
from zhbert.tasks.card import TaskCard
from zhbert.tasks.cards import card_table, parse_card
from zhbert.tasks.examples import Example, Prediction
from zhbert.tasks.kinds import KINDS, Kind
from zhbert.tasks.kinds.base import Learning
from zhbert.tasks.kinds.classify import Classify
from zhbert.tasks.kinds.embed import Embed
from zhbert.tasks.kinds.multi_label import MultiLabel
from zhbert.tasks.kinds.regress import Regress
from zhbert.tasks.learners.base import Learner
from zhbert.tasks.settings import FineTuningSettings, check_settings
from zhbert.text.tokenizer import Tokenizer
from zhbert.wording import counted, show
from zhbert.zoo.layout import find_model, sentence_folder

# The row length for models fine-tuned by other programs: their config.json does not give it.
USUAL_LENGTH = 512

# Limits of a window of examples that are predicted together.
WINDOW_EXAMPLES, WINDOW_CHARACTERS = 4096, 2_000_000


@dataclass(frozen=True)
class FineTuned:
    """A fine-tuned model, its task, and the learner that turns examples into rows."""

    folder: Path
    model: nn.Module
    kind: Kind
    learner: Learner
    """Turns examples into rows, and scores into predictions."""
    card: TaskCard | None
    """The task; None if another program fine-tuned the model."""
    dtype: torch.dtype = torch.float32
    """What the encoder computes in, as for `run_model`."""

    def predict(
        self, examples: Sequence[Example], *, remark: Callable[[str], None] = lambda line: None
    ) -> list[Prediction]:
        """Return a prediction for each example, in the same order; ``remark`` as for `stream`."""
        windows = (
            [examples] if self.kind.predicted_together else _windows(examples, WINDOW_EXAMPLES)
        )
        return [prediction for _, prediction in self._stream(windows, remark)]

    def stream(
        self,
        examples: Iterable[Example],
        *,
        window: int | None = None,
        remark: Callable[[str], None] = lambda line: None,
    ) -> Iterator[tuple[Example, Prediction]]:
        """Yield each example with its prediction, in order, at most ``window`` (4,096) in memory.

        Predicting other examples together changes scores by rounding only (see `run_model`). After
        the last one, ``remark`` is called with a line on the texts that were cut, if any were.
        """
        yield from self._stream(_windows(examples, window or WINDOW_EXAMPLES), remark)

    def _stream(
        self, windows: Iterable[Sequence[Example]], remark: Callable[[str], None]
    ) -> Iterator[tuple[Example, Prediction]]:
        cut = texts = 0
        for some in windows:
            prepared = self.learner.prepare(some)
            scores = run_model(self.model, prepared.rows, self.learner.scores, dtype=self.dtype)
            yield from zip(some, self.learner.decode(prepared, scores), strict=True)
            cut, texts = cut + prepared.cut[0], texts + prepared.cut[1]
        if cut:
            remark(self.learner.describe_cut(cut, texts))


def _windows(examples: Iterable[Example], most: int) -> Iterator[list[Example]]:
    """Yield windows of examples, large enough for batches of similar length and small in memory."""
    window: list[Example] = []
    characters = 0
    for example in examples:
        window.append(example)
        characters += example.size
        if len(window) >= most or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def open_fine_tuned(name: str | Path, *, pooled: bool = False, quiet: bool = True) -> FineTuned:
    """Open a fine-tuned model, given as anything that `locate_fine_tuned` accepts.

    Models that were fine-tuned with transformers open too, with the labels of their config.json.
    If ``pooled``, a model that was not fine-tuned is opened as one of vectors, the means of its
    pieces.

    Raises:
        ZhbertError: the model is not fine-tuned, has no vocabulary, or has an architecture that
            does not match its task.
    """
    return _open_folder(locate_fine_tuned(name, quiet=quiet), pooled=pooled)


def open_to_predict(
    folder: Path, *, pooled: bool = False, engine: str | None = None, precision: str = "fp32"
) -> FineTuned:
    """Open a fine-tuned model on the GPU if there is one, else on all CPU cores.

    Args:
        folder: the model's folder.
        pooled: open a model that was not fine-tuned as one of vectors, the means of its pieces.
        engine: ``torch``, or ``onnx`` for the folder's ONNX graph, on the CPU; None: torch, unless
            the folder has nothing but a graph.
        precision: ``fp32``, ``bf16`` or ``int8``: what the encoder computes in, or which graph is
            opened (``fp32`` or ``int8``).

    Raises:
        ZhbertError: the model is not fine-tuned or its vocabulary belongs to another.
    """
    prepare_threads(0)
    by_onnx = runs_by_onnx(folder, engine)
    opened = _open_folder(folder, pooled=pooled, graph=precision if by_onnx else None)
    config: BertConfig = cast(Any, opened.model).config
    check_vocabulary(folder, opened.learner.tokenizer, config.vocab_size)
    device = choose_device()
    opened.model.to(device)
    return dataclasses.replace(opened, dtype=choose_dtype(precision, device))


def _open_folder(folder: Path, *, pooled: bool = False, graph: str | None = None) -> FineTuned:
    """Open a folder's weights, or its ONNX graph of the precision ``graph``."""
    tokenizer = open_tokenizer(folder)
    config = BertConfig.from_pretrained(folder)
    names = config.other.get("architectures")
    architecture = str(names[0]) if names else "no architecture in config.json"
    table = config.other.get(SECTION)
    if table is not None:
        card, learner = _from_section(table, tokenizer, config, folder)
        kind = KINDS[card.kind]
    else:
        card, kind = None, _kind_of(architecture, config, folder, pooled=pooled)
        settings = FineTuningSettings(sequence_length=_usual_length(config, folder))
        learner = kind.restored(Learning(None, tokenizer, settings, tuple(config.labels)), {})
    if table is not None and architecture != kind.architecture:
        raise ZhbertError(f"{folder}: {architecture}, but config.json says {kind.name}")
    _check_problem_type(config, kind, folder)
    if graph is not None:
        return FineTuned(folder, _open_graph(folder, kind, graph), kind, learner, card)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        model = kind.model_class().from_pretrained(folder, quiet=True)
    if model.missing_parts:
        raise ZhbertError(f"{folder}: {model.missing_parts[0]} is missing: not a fine-tuned model")
    return FineTuned(folder, model, kind, learner, card)


def _open_graph(folder: Path, kind: Kind, precision: str) -> nn.Module:
    if kind.architecture == Embed.architecture:
        return SentenceModel.from_onnx(folder, precision=precision)
    return OnnxModel.from_pretrained(folder, kind.architecture, precision=precision)


def open_tokenizer(folder: Path) -> Tokenizer:
    """Open the tokenizer of a model folder; raise ZhbertError if it has no vocabulary."""
    files = find_model(folder)
    if files.vocabulary is None and not (files.folder / "tokenizer.json").is_file():
        raise ZhbertError(
            f"{files.folder}: no vocab.txt in it, without which no text can be read; put the "
            "model's own there"
        )
    return Tokenizer.from_pretrained(files.folder)


def section_of(card: TaskCard, learner: Learner) -> dict[str, Any]:
    """Return the task section of config.json, which makes the folder sufficient to predict."""
    table = card_table(card)
    kept = {key: table[key] for key in ("title", "kind", "language", "metrics", "data")}
    kept["data"] = {key: _without_folders(value) for key, value in table["data"].items()}
    return {"task": card.name, "kind": card.kind, **learner.saved(), "card": kept}


def _without_folders(value: Any) -> Any:
    """Return a value of [data] in which an absolute path is its last part: a model is published."""
    if isinstance(value, list):
        return [_without_folders(one) for one in value]
    absolute = isinstance(value, str) and len(value) > 1 and Path(value).is_absolute()
    return Path(value).name if absolute else value


def _from_section(
    table: Mapping[str, Any], tokenizer: Tokenizer, config: BertConfig, folder: Path
) -> tuple[TaskCard, Learner]:
    where = f"{folder / 'config.json'}: {SECTION}"
    try:
        card = parse_card(table["card"], Path(f"{table['task']}.toml"))
        known = {item.name for item in dataclasses.fields(FineTuningSettings)}
        own = {key: value for key, value in table.items() if key in known}
        settings = build(FineTuningSettings, own, "", where)
        try:
            check_settings(settings)
        except ZhbertError as error:
            raise ZhbertError(f"{where}: {error}") from None
        if settings.sequence_length > config.max_position_embeddings:
            raise ZhbertError(
                f"{where}: sequence_length = {settings.sequence_length}: the model reads rows of "
                f"{config.max_position_embeddings} pieces at most"
            )
        of = Learning(card, tokenizer, settings, tuple(config.labels))
        learner = KINDS[card.kind].restored(of, table)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ZhbertError(f"{where}: damaged ({type(error).__name__}: {error})") from None
    return card, learner


def _usual_length(config: BertConfig, folder: Path) -> int:
    """Return the row length of a model that another program fine-tuned."""
    sentence = read_sentence_config(folder, config.hidden_size)
    own = sentence.max_seq_length if sentence is not None else None
    return min(own or USUAL_LENGTH, config.max_position_embeddings)


def _kind_of(architecture: str, config: BertConfig, folder: Path, *, pooled: bool) -> Kind:
    """Return the task kind of a model that another program fine-tuned, or none if ``pooled``."""
    heads = [kind for kind in KINDS.values() if kind.architecture != Embed.architecture]
    known = [kind for kind in heads if kind.architecture == architecture]
    if sentence_folder(folder) is not None or (pooled and not known):
        known = [KINDS[Embed.name]]
    if not known:
        names = ", ".join(dict.fromkeys(kind.architecture for kind in heads))
        raise ZhbertError(
            f"{folder}: {architecture}: not fine-tuned for a task (known: {names}); 'zhbert "
            f"finetune TASK --model {folder}' does that"
        )
    problem = config.problem_type
    if len(config.labels) == 1 and problem != MultiLabel.problem_type:
        # The default of transformers if config.json has no problem_type.
        problem = Regress.problem_type
    return next((kind for kind in known if kind.problem_type == problem), known[0])


def _check_problem_type(config: BertConfig, kind: Kind, folder: Path) -> None:
    """Raise ZhbertError if config.json contradicts itself: predictions would be guesses."""
    stated, count = config.problem_type, len(config.labels)
    if kind.problem_type is None or stated is None:
        return
    where = f"{folder / 'config.json'}: problem_type = {show(stated)}"
    if stated == Classify.problem_type and count == 1:
        raise ZhbertError(f"{where}: there is one label only, which every text would have")
    if stated != kind.problem_type:
        raise ZhbertError(f"{where}: contradicts the task that it was fine-tuned for, {kind.name}")
    if stated == Regress.problem_type and count != 1:
        raise ZhbertError(
            f"{where}: {counted(count, 'number')} a text; only one is supported: set problem_type "
            f"to {Classify.problem_type} or {MultiLabel.problem_type} if these are labels"
        )
