"""The settings of fine-tuning: the card's, for the model's family, with the user's overrides."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from zhbert.errors import ZhbertError
from zhbert.schema import (
    ABOVE_0,
    NOT_BELOW_0,
    ROW_LENGTH,
    SHARE,
    Range,
    check_value,
    flatten,
    overridden,
)
from zhbert.tasks.card import TaskCard
from zhbert.wording import show

# Models with fewer layers than BERT-base, or narrower ones, learn too slowly at its learning rates.
BASE_LAYERS, BASE_HIDDEN_SIZE = 12, 768
SMALL_LEARNING_RATE = 1e-4
SMALL_EPOCHS = 5
# Answers of one in a hundred questions of CMRC 2018 are longer than 90 characters, and of one in
# twenty longer than 60; run_qa's limit, made for English words, would lose one in five.
MAX_ANSWER_LENGTH = {"zh": 64, "en": 30}


@dataclass(frozen=True, kw_only=True)
class AdamWSettings:
    """AdamW, with a linear rise of the learning rate and a linear fall to zero."""

    learning_rate: float = 3e-5
    """The peak."""
    warmup_share: float = 0.1
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = 0.01
    """Of all parameters except biases and normalisation."""
    epsilon: float = 1e-8
    """Added to the root of the gradient's mean square. Google's 1e-6 is as large as that root for
    rarely seen pieces, which then hardly learn: one epoch of LCQMC from random weights gave 51.8 %
    with it and 69.7 % with 1e-8, which is also transformers' value."""
    clip_norm: float = 1.0
    """The gradient is scaled down to at most this norm; 0: never."""


@dataclass(frozen=True, kw_only=True)
class FineTuningSettings:
    """Every key of ``zhbert finetune … key=value``."""

    epochs: int = 3
    """Passes over the training examples."""
    sequence_length: int = 128
    """The longest row in pieces, [CLS] and [SEP] included."""
    batch_size: int = 32
    """Examples in one optimiser step; spans: rows."""
    doc_stride: int = 128
    """Spans: pieces that neighbouring windows of a long text share."""
    max_answer_length: int = 30
    """Spans: the longest answer in pieces."""
    patience: int = 0
    """Evaluations without a better score after which training ends; 0: it never ends early."""
    evaluate_every: int = 0
    """Steps between evaluations on dev; 0: an epoch."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: one at each evaluation."""
    micro_batch_size: int = 0
    """At most so many rows are computed at once; 0: as many as memory allows."""
    precision: str = "auto"
    """auto, fp32 or bf16, for training; dev is always predicted in fp32."""
    compile: str = "auto"
    """auto, yes or no: torch.compile."""
    threads: int = 0
    """Of the CPU; 0: PyTorch's choice."""
    optimizer: AdamWSettings = field(default_factory=AdamWSettings)
    """How the weights are changed."""


CHOICES = {"precision": ("auto", "fp32", "bf16"), "compile": ("auto", "yes", "no")}
RANGES: dict[str, Range] = {
    "epochs": ABOVE_0,
    "sequence_length": ROW_LENGTH,
    "batch_size": ABOVE_0,
    "doc_stride": ABOVE_0,
    "max_answer_length": ABOVE_0,
    "patience": NOT_BELOW_0,
    "evaluate_every": NOT_BELOW_0,
    "checkpoint_every": NOT_BELOW_0,
    "micro_batch_size": NOT_BELOW_0,
    "threads": NOT_BELOW_0,
    "optimizer.learning_rate": ABOVE_0,
    "optimizer.warmup_share": SHARE,
    "optimizer.weight_decay": NOT_BELOW_0,
    "optimizer.clip_norm": NOT_BELOW_0,
    "optimizer.epsilon": ABOVE_0,
}

FREE_ON_RESUME = frozenset({"compile", "threads", "checkpoint_every"})
"""Keys that may change between a run and its continuation: they do not decide what is learnt."""


def family_of(name: str, num_layers: int, hidden_size: int) -> str:
    """The family of a model, by which a card chooses its settings: ernie, small or bert.

    Args:
        name: the model's own, without the folders that it lies in.

    >>> family_of("ernie-1.0", 12, 768), family_of("tiny", 2, 128), family_of("bernie", 12, 768)
    ('ernie', 'small', 'bert')
    """
    if re.search("(?<![a-z])ernie", name.lower()):
        return "ernie"
    small = num_layers < BASE_LAYERS or hidden_size < BASE_HIDDEN_SIZE
    return "small" if small else "bert"


def settings_for(card: TaskCard, family: str) -> FineTuningSettings:
    """The card's settings for a family of models.

    If the card has none for small models, the learning rate is at least 1e-4 and there are at least
    five epochs. But what a user's own card states is kept: it is meant for the user's own model,
    whereas the cards that ship repeat what was published for BERT-base.
    """
    values = card.settings_for(family)
    epochs, learning_rate = values.epochs, values.learning_rate
    if family == "small" and family not in card.families:
        meant = frozenset[str]() if card.ships else card.written
        if "epochs" not in meant:
            epochs = max(epochs, SMALL_EPOCHS)
        if "learning_rate" not in meant:
            learning_rate = max(learning_rate, SMALL_LEARNING_RATE)
    return FineTuningSettings(
        epochs=epochs,
        sequence_length=values.sequence_length,
        batch_size=values.batch_size,
        doc_stride=values.doc_stride,
        max_answer_length=MAX_ANSWER_LENGTH[card.language],
        optimizer=AdamWSettings(learning_rate=learning_rate, warmup_share=values.warmup_share),
    )


def grid(overrides: Iterable[str]) -> list[tuple[str, ...]]:
    """The points of a grid: every combination of the values that overrides list with commas.

    If a key is given twice, the last one counts.

    >>> grid(["epochs=2", "optimizer.learning_rate=1e-5,2e-5"])
    [('epochs=2', 'optimizer.learning_rate=1e-5'), ('epochs=2', 'optimizer.learning_rate=2e-5')]
    """
    lists: dict[str, list[str]] = {}
    for override in overrides:
        key, _, values = override.partition("=")
        several = [value.strip() for value in values.split(",")]
        if len(several) > 1 and not all(several):
            raise ZhbertError(f"{override}: an empty value between commas")
        if len(set(several)) < len(several):
            raise ZhbertError(f"{override}: a value stands there twice")
        one = [f"{key}={value}" for value in several] if len(several) > 1 else [override]
        lists[key.strip()] = one
    return list(itertools.product(*lists.values()))


def distinct_points(overrides: Iterable[str]) -> list[tuple[str, ...]]:
    """The grid's points, checked; of points with equal values, the first.

    >>> distinct_points(["optimizer.learning_rate=1e-4,0.0001"])
    [('optimizer.learning_rate=1e-4',)]
    """
    points: dict[FineTuningSettings, tuple[str, ...]] = {}
    for point in grid(overrides):
        points.setdefault(with_overrides(FineTuningSettings(), point), point)
    return list(points.values())


def with_overrides(settings: FineTuningSettings, overrides: Iterable[str]) -> FineTuningSettings:
    """``settings`` with ``key=value`` texts applied, checked."""
    for override in overrides:
        settings = overridden(settings, override)
    check_settings(settings)
    return settings


def check_settings(settings: FineTuningSettings) -> None:
    """Refuse values out of range."""
    for key, value in flatten(settings).items():
        check_value(value, key, CHOICES.get(key), RANGES.get(key))


def differences(mine: FineTuningSettings, theirs: FineTuningSettings) -> list[str]:
    """Keys that decide what is learnt and differ, as ``key = theirs, now mine``."""
    before = flatten(theirs)
    return [
        f"{key} = {show(before[key])}, now {show(value)}"
        for key, value in flatten(mine).items()
        if key not in FREE_ON_RESUME and before[key] != value
    ]


__all__ = [
    "AdamWSettings",
    "FineTuningSettings",
    "check_settings",
    "differences",
    "distinct_points",
    "family_of",
    "grid",
    "settings_for",
    "with_overrides",
]
