"""The contents of a task card; `zhbert.tasks.cards` reads and checks it."""

from __future__ import annotations

import dataclasses
import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from zhbert.errors import ZhbertError
from zhbert.schema import check_choice
from zhbert.wording import show

CARDS_FOLDER = Path(__file__).with_name("cards")
SPLITS = ("train", "dev", "test")

Column = tuple[str | int, ...]
"""A column's possible names, tried in order; a number is the column's index, from 0.

In a card, a single name or number may replace a list of one.
"""


@dataclass(frozen=True, kw_only=True)
class Data:
    """The location and format of the examples: the keys of [data] that every kind of task has.

    A kind adds keys, with their checks, in a subclass. In a card, a single string may replace a
    list of one in ``train``, ``dev``, ``test``, the splits of ``more`` and, in a subclass, every
    key of the type `Column`.
    """

    format: str
    """tsv, csv, jsonl or parquet; squad (the JSON of SQuAD, CMRC, DRCD and CJRC); bio: one
    character and its tag per line, with a blank line between sentences. For tagging, jsonl contains
    spans of texts, as CLUENER, Doccano and Label Studio write them."""
    encoding: str = ""
    """The files' encoding if it is not UTF-8: gb18030, big5, utf-16, …"""
    train: tuple[str, ...] = ()
    """Possible names of the training file, tried in order, in the data folder."""
    dev: tuple[str, ...] = ()
    """Possible names of the file that checkpoints and settings are chosen on."""
    test: tuple[str, ...] = ()
    """Possible names of the file that ``zhbert evaluate`` scores once, at the end. Training does
    not read it."""
    more: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Further splits by name, for example CMRC 2018's challenge set."""
    scored_with_dev: tuple[str, ...] = ()
    """Splits of ``more`` that are scored whenever dev is, if their files exist."""
    folder: str = ""
    """Another name of the task's folder in a collection of tasks, besides the card's."""

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """The possible file names of every split in the card: train, dev, test and ``more``."""
        named = {split: getattr(self, split) for split in SPLITS}
        return {split: names for split, names in {**named, **self.more}.items() if names}

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of their ids; empty if the kind has no labels."""
        return ()

    @property
    def shown_labels(self) -> dict[str, str]:
        """Each label with the name that is shown to people."""
        return {}

    @property
    def pairs(self) -> bool:
        """True if an example is a pair of texts."""
        return False

    @property
    def split_column(self) -> str:
        """The column that contains each row's split, if one file contains all splits."""
        return ""

    @property
    def train_on(self) -> tuple[str, ...]:
        """Other cards, by name or path, whose training files are also trained on."""
        return ()

    @property
    def scored_on(self) -> tuple[str, ...]:
        """Other cards, by name or path, whose dev files are also scored at the end."""
        return ()

    @property
    def haystack(self) -> tuple[str, ...]:
        """Further splits that the scores of a split depend on."""
        return ()

    def could_be(self, text: str) -> bool:
        """Return whether a text can be a prediction."""
        return False

    def is_gold(self, text: str) -> bool:
        """Return whether a text is valid as the gold value in a file of examples."""
        return self.could_be(text)

    def completed(self, folder: Path, where: str) -> Self:
        """Return a copy with values derived from each other or from other files, before `check`.

        Labels may be listed in a file in ``folder``, the card's folder. A kind of texts whose card
        names its columns by other keys returns them here under the keys that `TextKind` reads::

            return dataclasses.replace(self, text=self.first, text_pair=self.second)

        A model folder contains the completed values, so completing them again must change nothing.
        Raises ZhbertError, which begins with ``where``, the card's file.
        """
        return self

    def check(self, where: str) -> None:
        """Refuse values out of range, and values that contradict each other.

        Raises ZhbertError, which begins with ``where``, the card's file.
        """
        if not self.train and not self.dev:
            raise ZhbertError(f"{where}: data: neither train nor dev names a file")
        for split in self.scored_with_dev:
            check_choice(split, tuple(self.more), f"{where}: data.scored_with_dev")
        for split in self.more:
            if split in SPLITS:
                raise ZhbertError(f"{where}: data.more.{split}: {split} is a key of [data] itself")
            if not re.fullmatch("[A-Za-z0-9_-]+", split):
                raise ZhbertError(
                    f"{where}: data.more: {show(split)}: a split's name is made of letters, "
                    "digits, '_' and '-'"
                )
        # Scores are named by their splits: both dev_hard and hard would give the same names.
        short = [split.removeprefix("dev_") for split in self.scored_with_dev]
        if twice := next((name for name in short if short.count(name) > 1), None):
            raise ZhbertError(
                f"{where}: data.scored_with_dev: the scores of two splits would be named {twice}"
            )


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """Settings for fine-tuning that a card may have, and that ``key=value`` overrides."""

    epochs: int = 3
    """Passes over the training examples."""
    sequence_length: int = 128
    """The longest row in pieces, [CLS] and [SEP] included."""
    batch_size: int = 32
    """Examples (for spans: rows) in one optimiser step."""
    doc_stride: int = 128
    """Spans: pieces that neighbouring windows of a long text share."""
    loss: str = "auto"
    """Embedding: cosent, angle or cosine (pairs with values), contrastive (yes or no),
    multiple_negatives (pairs, triples), triplet, simcse or tsdae (texts), where examples fit it;
    auto: cosent, multiple_negatives or simcse."""
    pooling: str = "auto"
    """Embedding: how the pieces' vectors become the text's: mean, cls, max, mean_sqrt_len_tokens,
    weightedmean or lasttoken; auto: as the model does, mean for a plain BERT."""
    scale: float = 20.0
    """Embedding: the number by which cosines are multiplied (1 / temperature)."""
    margin: float = 0.0
    """Embedding: the margin of contrastive and triplet; 0: their usual one, 0.5 and 5."""
    matryoshka: str = ""
    """Embedding: dimensions that shall be good by themselves, as in 256+128+64."""
    hard_negatives: int = 0
    """Embedding: for pairs, the number of negatives that are found with the model at first."""


@dataclass(frozen=True, kw_only=True)
class CardSettings(TaskSettings):
    """The settings in a card."""

    learning_rate: float = 3e-5
    """The peak learning rate, reached at the end of the warm-up."""
    warmup_share: float = 0.1
    """Share of the steps over which the learning rate rises."""
    source: str = ""
    """Who published these values, or why they were chosen."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One published result."""

    source: str
    """The paper or project that published it."""
    model: str
    """The model's name in the source."""
    split: str
    """The split that was scored, as the card names it."""
    metric: str
    """The metric as zhbert names it, or ``unstated``."""
    max: float
    """The best of the seeds, or the only figure published, in per cent."""
    mean: float | None = None
    """The mean of the seeds, in per cent; unset: not published."""
    note: str = ""
    """Assumptions and differences from this card."""


@dataclass(frozen=True, kw_only=True)
class TaskCard:
    """A task: everything about it except the examples."""

    title: str
    """The data set and its question, in one line."""
    kind: str
    """A name in `zhbert.tasks.kinds.KINDS`: classify, multi_label, regress, tag, span, embed,
    or one that was added."""
    metrics: tuple[str, ...]
    """The metrics; the first one decides which checkpoint and which setting is best."""
    data: Any
    """The location of the examples: the ``data_class`` of the card's kind."""
    language: str = "zh"
    """zh or en."""
    licence: str = ""
    """The licence, as the owner states it; unset: none stated."""
    note: str = ""
    """Differences from the papers' protocol, and other remarks."""
    settings: CardSettings = field(default_factory=CardSettings)
    """The settings for all models whose family is not in ``families``."""
    families: dict[str, CardSettings] = field(default_factory=dict)
    """Other settings for a family of models, for example ``ernie``."""
    official: dict[str, int] = field(default_factory=dict)
    """The number of examples in each split of the official distribution, if known."""
    published: tuple[Published, ...] = ()
    """Published results, unchanged."""
    written: frozenset[str] = frozenset()
    """The keys that [settings] sets; the others have their defaults."""
    name: str = ""
    """The stem of the card's file."""
    path: Path = Path()
    """The card's file."""

    @property
    def ships(self) -> bool:
        """True if this card is part of the package."""
        return self.path.parent == CARDS_FOLDER

    def settings_for(self, family: str | None = None) -> CardSettings:
        """Return the settings for a family of models (such as "ernie"), or else the card's."""
        return self.families.get(family or "", self.settings)

    def files_of(self, split: str) -> tuple[str, ...] | None:
        """Return the possible names of a split's file, in order; None if there is no such split."""
        data: Data = self.data
        return data.splits.get(split)

    def with_data(self, **values: Any) -> TaskCard:
        """Return this card with changed values in [data]."""
        return dataclasses.replace(self, data=dataclasses.replace(self.data, **values))


def finite_number(text: str) -> float | None:
    """Return the finite number that a text contains, or None."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
