"""Fine-tuning settings: those of the card for the model's family, with overrides."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, fields

from zhbert.config import DistillSettings, check_distillation
from zhbert.errors import ZhbertError
from zhbert.runs.folder import changed_settings
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
from zhbert.tasks.card import TaskCard, TaskSettings
from zhbert.wording import show

# Models with fewer or narrower layers than BERT-base learn too slowly at its learning rates.
BASE_LAYERS, BASE_HIDDEN_SIZE = 12, 768
SMALL_LEARNING_RATE = 1e-4
SMALL_EPOCHS = 5
# In CMRC 2018, 1 % of the answers are longer than 90 characters and 5 % longer than 60. run_qa's
# limit, which is made for English words, would lose 20 %.
MAX_ANSWER_LENGTH = {"zh": 64, "en": 30}


DIMENSIONS: Range = (
    "whole numbers joined by +, as in 256+128+64",
    lambda value: not value or re.fullmatch(r"[1-9]\d*(\+[1-9]\d*)*", value, re.ASCII) is not None,
)


@dataclass(frozen=True, kw_only=True)
class AdamWSettings:
    """Settings of AdamW, whose learning rate rises linearly and then falls linearly to zero."""

    learning_rate: float = 3e-5
    """The peak learning rate."""
    warmup_share: float = 0.1
    """Share of the steps over which the learning rate rises."""
    weight_decay: float = 0.01
    """Weight decay of all parameters except biases and normalisation."""
    epsilon: float = 1e-8
    """Added to the square root of the gradient's mean square. With Google's 1e-6, which is as large
    as that root for rare pieces, these hardly learn: one epoch of LCQMC from random weights gave
    51.8 %, and 69.7 % with 1e-8, which is also transformers' value."""
    clip_norm: float = 1.0
    """The gradient's largest norm, to which it is scaled down; 0: no limit."""


@dataclass(frozen=True, kw_only=True)
class FineTuningSettings(TaskSettings):
    """The keys of ``zhbert finetune … key=value``."""

    max_answer_length: int = 30
    """Spans: the longest answer in pieces."""
    patience: int = 0
    """Evaluations without a better score after which training ends; 0: no early end."""
    evaluate_every: int = 0
    """Steps between evaluations on dev; 0: one epoch."""
    checkpoint_every: int = 0
    """Steps between checkpoints; 0: one at each evaluation."""
    micro_batch_size: int = 0
    """The most rows in one forward pass; 0: as many as memory allows."""
    precision: str = "auto"
    """auto, fp32 or bf16, for training; dev is always predicted in fp32."""
    compile: str = "auto"
    """torch.compile: auto, yes or no."""
    threads: int = 0
    """CPU threads; 0: PyTorch's choice."""
    optimizer: AdamWSettings = field(default_factory=AdamWSettings)
    """The settings of the optimiser."""
    distill: DistillSettings | None = None
    """What is learnt from a teacher, if there is one."""


CHOICES = {
    "precision": ("auto", "fp32", "bf16"),
    "compile": ("auto", "yes", "no"),
    "loss": (
        "auto", "cosent", "angle", "cosine", "contrastive", "multiple_negatives", "triplet",
        "simcse", "tsdae",
    ),
    "pooling": (
        "auto", "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken",
    ),
}  # fmt: skip
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
    "scale": ABOVE_0,
    "margin": NOT_BELOW_0,
    "matryoshka": DIMENSIONS,
    "hard_negatives": NOT_BELOW_0,
    "optimizer.learning_rate": ABOVE_0,
    "optimizer.warmup_share": SHARE,
    "optimizer.weight_decay": NOT_BELOW_0,
    "optimizer.clip_norm": NOT_BELOW_0,
    "optimizer.epsilon": ABOVE_0,
}

FREE_ON_RESUME = frozenset({"compile", "threads", "checkpoint_every", "distill.teachers"})
"""Keys that may change when a run is resumed, because they do not affect the result: of teachers,
it is their content that is compared."""


NOT_OF_TASKS = {
    "distill.teachers": "give --teacher RUN, once for each teacher",
    "distill.top_k": "for pretraining: a task's soft labels are over all of its labels",
    "distill.cache": "for pretraining: a task's teachers compute every row once anyway",
}
"""Keys of distillation that fine-tuning does not take, and why."""


def family_of(name: str, num_layers: int, hidden_size: int) -> str:
    """Return the family of a model, for which a card has settings: ernie, small or bert.

    Args:
        name: the model's name without its parent folders.

    >>> family_of("ernie-1.0", 12, 768), family_of("tiny", 2, 128), family_of("bernie", 12, 768)
    ('ernie', 'small', 'bert')
    """
    if re.search("(?<![a-z])ernie", name.lower()):
        return "ernie"
    small = num_layers < BASE_LAYERS or hidden_size < BASE_HIDDEN_SIZE
    return "small" if small else "bert"


def settings_for(card: TaskCard, family: str) -> FineTuningSettings:
    """Return the card's settings for a family of models.

    If the card has none for small models, the learning rate is at least 1e-4 and there are at least
    five epochs. Values set in a user's own card are kept, as they are meant for the user's model,
    whereas the cards in the package repeat values published for BERT-base.
    """
    values = card.settings_for(family)
    epochs, learning_rate = values.epochs, values.learning_rate
    if family == "small" and family not in card.families:
        meant = frozenset[str]() if card.ships else card.written
        if "epochs" not in meant:
            epochs = max(epochs, SMALL_EPOCHS)
        if "learning_rate" not in meant:
            learning_rate = max(learning_rate, SMALL_LEARNING_RATE)
    common = {one.name: getattr(values, one.name) for one in fields(TaskSettings)}
    return FineTuningSettings(
        **common | {"epochs": epochs},
        max_answer_length=MAX_ANSWER_LENGTH[card.language],
        optimizer=AdamWSettings(learning_rate=learning_rate, warmup_share=values.warmup_share),
    )


def usual_distillation(teachers: tuple[str, ...]) -> DistillSettings | None:
    """Return the settings for a task with these teachers; None if there are none.

    The gradient of soft labels shrinks with the square of the temperature, by which Hinton et al.
    multiply their loss (https://arxiv.org/abs/1503.02531). Without that, the labels of a task,
    which has few, outweigh them by far.
    """
    if not teachers:
        return None
    return DistillSettings(teachers=teachers, temperature=4.0, soft_weight=16.0)


def grid(overrides: Iterable[str]) -> list[tuple[str, ...]]:
    """Return every combination of the comma-separated values in the overrides.

    If a key is given twice, the last one counts.

    >>> grid(["epochs=2", "optimizer.learning_rate=1e-5,2e-5"])
    [('epochs=2', 'optimizer.learning_rate=1e-5'), ('epochs=2', 'optimizer.learning_rate=2e-5')]
    """
    lists: dict[str, list[str]] = {}
    for override in overrides:
        key, _, values = override.partition("=")
        # The commas of a list of tables, distill.matches, are its own.
        as_list = values.lstrip().startswith("[")
        several = [values] if as_list else [value.strip() for value in values.split(",")]
        if len(several) > 1 and not all(several):
            raise ZhbertError(f"{override}: an empty value between commas")
        if len(set(several)) < len(several):
            raise ZhbertError(f"{override}: a value stands there twice")
        if key.strip() == "matryoshka" and len(several) > 1 and all(map(str.isdigit, several)):
            raise ZhbertError(
                f"{override}: commas make a grid; for all of them in one model write "
                f"matryoshka={'+'.join(several)}"
            )
        one = [f"{key}={value}" for value in several] if len(several) > 1 else [override]
        lists[key.strip()] = one
    return list(itertools.product(*lists.values()))


def distinct_points(
    overrides: Iterable[str], distill: DistillSettings | None = None
) -> list[tuple[str, ...]]:
    """Return the grid's checked points; of points with equal values, the first.

    ``distill`` is what the overrides change of distillation; None: there is no teacher.

    >>> distinct_points(["optimizer.learning_rate=1e-4,0.0001"])
    [('optimizer.learning_rate=1e-4',)]
    """
    points: dict[FineTuningSettings, tuple[str, ...]] = {}
    for point in grid(overrides):
        points.setdefault(with_overrides(FineTuningSettings(distill=distill), point), point)
    return list(points.values())


def with_overrides(settings: FineTuningSettings, overrides: Iterable[str]) -> FineTuningSettings:
    """Return ``settings`` with ``key=value`` texts applied, checked."""
    for override in overrides:
        key = override.partition("=")[0].strip()
        if key.startswith("distill.") and settings.distill is None:
            raise ZhbertError(f"{override}: there is no teacher: give --teacher RUN as well")
        if key in NOT_OF_TASKS:
            raise ZhbertError(f"{override}: {NOT_OF_TASKS[key]}")
        settings = overridden(settings, override)
    check_settings(settings)
    return settings


def check_settings(settings: FineTuningSettings) -> None:
    """Refuse values out of range."""
    for key, value in flatten(settings).items():
        check_value(value, key, CHOICES.get(key), RANGES.get(key))
    if settings.distill is not None:
        check_distillation(settings.distill, "settings")


def differences(mine: FineTuningSettings, theirs: FineTuningSettings) -> list[str]:
    """Return the keys that affect the result and differ, as ``key = theirs, now mine``."""
    return [
        f"{key} = {show(before)}, now {show(value)}"
        for key, (value, before) in changed_settings(mine, theirs).items()
        if key not in FREE_ON_RESUME
    ]
