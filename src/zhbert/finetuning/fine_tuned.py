"""A fine-tuned model as one thing: opened from its folder with all that it needs to predict."""

from __future__ import annotations

import dataclasses
import json
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from zhbert.errors import ZhbertError
from zhbert.finetuning.locate import locate_fine_tuned
from zhbert.inference.run_model import run_model
from zhbert.model import pretrained
from zhbert.model.config import BertConfig
from zhbert.model.folder import check_vocabulary
from zhbert.runtime import choose_device, prepare_threads
from zhbert.schema import build
from zhbert.tasks.cards import TaskCard, parse_card
from zhbert.tasks.classify import Classify, MultiLabel
from zhbert.tasks.kinds import Kind, Prediction
from zhbert.tasks.read import Example, TagExample, TextExample
from zhbert.tasks.regress import Regress
from zhbert.tasks.settings import FineTuningSettings, check_settings
from zhbert.tasks.span import Span
from zhbert.tasks.tag import Tag
from zhbert.text.tokenizer import Tokenizer
from zhbert.wording import counted, show
from zhbert.zoo.layout import find_model

SECTION = "zhbert"
"""The key of config.json under which a model keeps its task."""

# For a model that another program fine-tuned: config.json does not say how long its rows were.
USUAL_LENGTH = 512

WINDOW_EXAMPLES, WINDOW_CHARACTERS = 4096, 2_000_000


def _classify(card: TaskCard, tokenizer: Tokenizer, settings: FineTuningSettings) -> Kind:
    return Classify(tokenizer, card.data.labels, settings.sequence_length)


def _multi_label(card: TaskCard, tokenizer: Tokenizer, settings: FineTuningSettings) -> Kind:
    data = card.data
    return MultiLabel(tokenizer, data.labels, settings.sequence_length, data.threshold)


def _regress(card: TaskCard, tokenizer: Tokenizer, settings: FineTuningSettings) -> Kind:
    low, high = card.data.label_range
    return Regress(tokenizer, low, high, settings.sequence_length)


def _tag(card: TaskCard, tokenizer: Tokenizer, settings: FineTuningSettings) -> Kind:
    return Tag(tokenizer, card.data.labels, settings.sequence_length)


def _span(card: TaskCard, tokenizer: Tokenizer, settings: FineTuningSettings) -> Kind:
    return Span(
        tokenizer,
        settings.sequence_length,
        settings.doc_stride,
        settings.max_answer_length,
        scorer=card.data.scorer,
        language=card.language,
        yes_no=card.data.yes_no,
        no_answer=card.data.no_answer,
        metric=card.metrics[0],
    )


KINDS: Mapping[str, Callable[[TaskCard, Tokenizer, FineTuningSettings], Kind]] = {
    "classify": _classify,
    "multi_label": _multi_label,
    "regress": _regress,
    "tag": _tag,
    "span": _span,
}


@dataclass(frozen=True)
class FineTuned:
    """A model, what it was fine-tuned for, and how its rows are made."""

    folder: Path
    model: nn.Module
    kind: Kind
    card: TaskCard | None
    """The task; None where another program fine-tuned the model."""

    def predict(
        self, examples: Sequence[Example], *, dtype: torch.dtype = torch.float32
    ) -> list[Prediction]:
        """A prediction for each example, in their order."""
        return [prediction for _, prediction in self.stream(examples, dtype=dtype)]

    def stream(
        self, examples: Iterable[Example], *, dtype: torch.dtype = torch.float32
    ) -> Iterator[tuple[Example, Prediction]]:
        """Examples and their predictions, in order; some thousands are held at once.

        What an example is predicted beside changes its scores by rounding only (see `run_model`).
        """
        for window in _windows(examples):
            yield from zip(window, self._predict(window, dtype), strict=True)

    def _predict(self, examples: Sequence[Example], dtype: torch.dtype) -> list[Prediction]:
        prepared = self.kind.prepare(examples)
        scores = run_model(self.model, prepared.rows, self.kind.scores, dtype=dtype)
        return self.kind.decode(prepared, scores)


def _windows(examples: Iterable[Example]) -> Iterator[list[Example]]:
    """Runs of examples: enough that rows of like length are found, few enough for any memory."""
    window: list[Example] = []
    characters = 0
    for example in examples:
        window.append(example)
        characters += _size(example)
        if len(window) >= WINDOW_EXAMPLES or characters >= WINDOW_CHARACTERS:
            yield window
            window, characters = [], 0
    if window:
        yield window


def _size(example: Example) -> int:
    if isinstance(example, TagExample):
        return len(example.tokens)
    if isinstance(example, TextExample):
        return len(example.text) + len(example.text_pair or "")
    return len(example.context)


def open_fine_tuned(name: str | Path, *, quiet: bool = True) -> FineTuned:
    """Open a fine-tuned model by anything that `locate_fine_tuned` understands.

    Models that transformers fine-tuned are opened, too, with the labels of their config.json.

    Raises:
        ZhbertError: not fine-tuned, no vocabulary, another architecture.
    """
    return _open_folder(locate_fine_tuned(name, quiet=quiet))


def open_to_predict(folder: Path) -> FineTuned:
    """A fine-tuned model on the GPU, if there is one, or on all cores.

    Raises ZhbertError where it is not fine-tuned, or its vocabulary is another model's.
    """
    opened = _open_folder(folder)
    config: BertConfig = cast(Any, opened.model).config
    check_vocabulary(folder, opened.kind.tokenizer, config.vocab_size)
    prepare_threads(0)
    opened.model.to(choose_device())
    return opened


def dtype_of(precision: str) -> torch.dtype:
    """The number format that is called ``fp32`` or ``bf16``."""
    return torch.bfloat16 if precision == "bf16" else torch.float32


def _open_folder(folder: Path) -> FineTuned:
    tokenizer = open_tokenizer(folder)
    config = BertConfig.from_pretrained(folder)
    names = config.other.get("architectures")
    architecture = str(names[0]) if names else "no architecture in config.json"
    table = config.other.get(SECTION)
    if table is not None:
        card, kind = _from_section(table, tokenizer, config, folder)
    else:
        card, kind = None, _from_architecture(architecture, tokenizer, config, folder)
    if architecture != kind.architecture:
        raise ZhbertError(f"{folder}: {architecture}, but config.json says {kind.name}")
    _check_problem_type(config, kind, folder)
    with warnings.catch_warnings(record=True):
        warnings.simplefilter("always")
        model = getattr(pretrained, kind.architecture).from_pretrained(folder, quiet=True)
    if model.loading.missing:
        raise ZhbertError(
            f"{folder}: {model.loading.missing[0]} is missing: not a fine-tuned model"
        )
    return FineTuned(folder, model, kind, card)


def open_tokenizer(folder: Path) -> Tokenizer:
    """The tokenizer of a model folder; raises ZhbertError where there is no vocabulary."""
    files = find_model(folder)
    if files.vocabulary is None and not (files.folder / "tokenizer.json").is_file():
        raise ZhbertError(
            f"{files.folder}: no vocab.txt in it, without which no text can be read; put the "
            "model's own there"
        )
    return Tokenizer.from_pretrained(files.folder)


def section_of(card: TaskCard, kind: Kind) -> dict[str, Any]:
    """What config.json keeps of a task, so that the folder alone is enough to predict."""
    table = card_table(card)
    kept = {key: table[key] for key in ("title", "kind", "language", "metrics", "data")}
    return {"task": card.name, "kind": kind.name, **kind.settings(), "card": kept}


def _from_section(
    table: Mapping[str, Any], tokenizer: Tokenizer, config: BertConfig, folder: Path
) -> tuple[TaskCard, Kind]:
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
        kind = KINDS[card.kind](card, tokenizer, settings)
        if isinstance(kind, Span):
            kind = replace(kind, null_threshold=float(table["null_threshold"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ZhbertError(f"{where}: damaged ({type(error).__name__}: {error})") from None
    if isinstance(kind, Classify | MultiLabel | Tag):
        kind = replace(kind, labels=tuple(config.labels))
    if isinstance(kind, Regress):
        # The scale is in the head.
        kind = replace(kind, low=0.0, high=1.0)
    return card, kind


def _from_architecture(
    architecture: str, tokenizer: Tokenizer, config: BertConfig, folder: Path
) -> Kind:
    length = min(USUAL_LENGTH, config.max_position_embeddings)
    labels = tuple(config.labels)
    if architecture == Tag.architecture:
        return Tag(tokenizer, labels, length)
    if architecture == Span.architecture:
        return Span(tokenizer, length)
    if architecture != Classify.architecture:
        raise ZhbertError(
            f"{folder}: {architecture}: not fine-tuned for a task (known: "
            f"{Classify.architecture}, {Tag.architecture}, {Span.architecture}); 'zhbert finetune "
            f"TASK --model {folder}' does that"
        )
    if config.problem_type == MultiLabel.problem_type:
        return MultiLabel(tokenizer, labels, length)
    if config.problem_type == Regress.problem_type or len(labels) == 1:
        return Regress(tokenizer, 0.0, 1.0, length)
    return Classify(tokenizer, labels, length)


def _check_problem_type(config: BertConfig, kind: Kind, folder: Path) -> None:
    """Refuse a config.json that contradicts itself: what is then predicted would be a guess."""
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


# -- cards as plain data ---------------------------------------------------------------------------


def card_table(card: TaskCard) -> dict[str, Any]:
    """A card as the table that ``parse_card`` reads back; what is at its default is left out."""
    table = _changed(card)
    for key in ("name", "path", "families", "written"):
        table.pop(key, None)
    # Read already, and gone with the card's folder.
    table.get("data", {}).pop("labels_file", None)
    table["language"] = card.language
    table["settings"] = {
        **{k: v for k, v in dataclasses.asdict(card.settings).items() if k in card.written},
        **{family: dataclasses.asdict(values) for family, values in card.families.items()},
    }
    return table


def _changed(values: Any) -> dict[str, Any]:
    table: dict[str, Any] = {}
    for item in dataclasses.fields(values):
        value = getattr(values, item.name)
        default = item.default
        if item.default_factory is not dataclasses.MISSING:
            default = item.default_factory()
        if value is None or value == default:
            continue
        table[item.name] = _plain(value)
    return table


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return _changed(value)
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def table_to_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Nested tables as TOML: values first, then sections, then lists of sections.

    >>> print(table_to_toml({"a": 1, "b": {"c": ["x"], "d": {"e": 0.5}}}), end="")
    a = 1
    <BLANKLINE>
    [b]
    c = ["x"]
    <BLANKLINE>
    [b.d]
    e = 0.5
    """
    sections = {key: value for key, value in table.items() if isinstance(value, Mapping)}
    lists = {
        key: value
        for key, value in table.items()
        if isinstance(value, list) and value and isinstance(value[0], Mapping)
    }
    text = "".join(
        f"{_key(key)} = {_value(value)}\n"
        for key, value in table.items()
        if key not in sections and key not in lists
    )
    for key, value in sections.items():
        text += f"\n[{prefix}{_key(key)}]\n" + table_to_toml(value, f"{prefix}{_key(key)}.")
    for key, values in lists.items():
        for value in values:
            text += f"\n[[{prefix}{_key(key)}]]\n" + table_to_toml(value, f"{prefix}{_key(key)}.")
    return text


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _value(key)


def _value(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
