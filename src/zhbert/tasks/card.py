"""The contents of a task's card; `zhbert.tasks.cards` reads and checks it."""

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
"""A column's possible names, tried in order; a number counts columns from 0.

In a card, a single name or number stands for a list of one.
"""


@dataclass(frozen=True, kw_only=True)
class Data:
    """Where the examples are: the keys of [data] that every kind of task has.

    A kind adds the keys of its own in a subclass, with their checks. In a card, a single text
    stands for a list of one in ``train``, ``dev``, ``test`` and the splits of ``more``; in a
    subclass, also in every key of the type `Column`.
    """

    format: str
    """tsv, csv, jsonl or parquet; squad (its JSON and CMRC's, DRCD's, CJRC's); bio: a character
    and its tag a line, a blank line between sentences. To tag, jsonl: spans of texts, as CLUENER,
    Doccano and Label Studio write them."""
    encoding: str = ""
    """What the files are encoded in, where it is not UTF-8: gb18030, big5, utf-16, …"""
    train: tuple[str, ...] = ()
    """Names of the training file, tried in order inside the folder of the data."""
    dev: tuple[str, ...] = ()
    """Names of the file that decides between checkpoints and settings."""
    test: tuple[str, ...] = ()
    """Names of the file to score once, at the end, with ``zhbert evaluate``: training leaves it
    alone."""
    more: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Further splits by name, for example CMRC 2018's challenge set."""
    scored_with_dev: tuple[str, ...] = ()
    """Splits of ``more`` that are scored whenever dev is, where their files are there."""
    folder: str = ""
    """The name of the task's own folder in a collection of tasks, beside the card's name."""

    @property
    def splits(self) -> dict[str, tuple[str, ...]]:
        """Every split's file names: train, dev, test and ``more``, where the card names them."""
        named = {split: getattr(self, split) for split in SPLITS}
        return {split: names for split, names in {**named, **self.more}.items() if names}

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels in the order of their ids; none where a kind has no labels."""
        return ()

    @property
    def shown_labels(self) -> dict[str, str]:
        """What people call each label."""
        return {}

    @property
    def pairs(self) -> bool:
        """Whether an example is a pair of texts."""
        return False

    @property
    def split_column(self) -> str:
        """The column that says of which split a row is, where one file holds all splits."""
        return ""

    def could_be(self, text: str) -> bool:
        """Whether a text can be a prediction."""
        return False

    def is_gold(self, text: str) -> bool:
        """Whether a text may stand where a file of examples says what is right."""
        return self.could_be(text)

    def completed(self, folder: Path, where: str) -> Self:
        """These values, completed from each other or from other files; `check` comes afterwards.

        Labels may be listed in a file in ``folder``, the card's. A kind of texts whose card names
        its columns by keys of its own returns them here under the keys that `TextKind` reads::

            return dataclasses.replace(self, text=self.first, text_pair=self.second)

        A model folder holds the completed values: completing them again must change nothing.
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
        # Scores are named by their splits, those of dev_hard and of hard alike.
        short = [split.removeprefix("dev_") for split in self.scored_with_dev]
        if twice := next((name for name in short if short.count(name) > 1), None):
            raise ZhbertError(
                f"{where}: data.scored_with_dev: the scores of two splits would be named {twice}"
            )


@dataclass(frozen=True, kw_only=True)
class CardSettings:
    """How the task is fine-tuned unless ``key=value`` says otherwise."""

    epochs: int = 3
    """Passes over the training examples."""
    sequence_length: int = 128
    """The longest row in pieces, [CLS] and [SEP] included."""
    batch_size: int = 32
    """Rows in one optimiser step."""
    learning_rate: float = 3e-5
    """The peak, reached at the end of the warm-up."""
    warmup_share: float = 0.1
    """Share of the steps over which the learning rate rises."""
    doc_stride: int = 128
    """Spans: pieces that neighbouring windows of a long text share."""
    source: str = ""
    """Who published these values, or why they were chosen."""


@dataclass(frozen=True, kw_only=True)
class Published:
    """One figure that somebody printed."""

    source: str
    """Where it stands: the project that printed it."""
    model: str
    """The model's name there."""
    split: str
    """The split that was scored, by the card's names."""
    metric: str
    """The metric by our names, or ``unstated``."""
    max: float
    """The best of the seeds, or the only figure there is, in per cent."""
    mean: float | None = None
    """The mean of the seeds, in per cent; unset: not printed."""
    note: str = ""
    """What is presumed or differs."""


@dataclass(frozen=True, kw_only=True)
class TaskCard:
    """A task: everything about it except the examples."""

    title: str
    """One line: the data set and its question."""
    kind: str
    """A name in `zhbert.tasks.kinds.KINDS`: classify, multi_label, regress, tag, span, or one that
    was added."""
    metrics: tuple[str, ...]
    """The first decides which checkpoint and which setting is best."""
    data: Any
    """Where the examples are: the ``data_class`` of the card's kind."""
    language: str = "zh"
    """zh or en."""
    licence: str = ""
    """As its owner states it; unset: none stated."""
    note: str = ""
    """What differs from the papers' protocol, what to know."""
    settings: CardSettings = field(default_factory=CardSettings)
    """The settings for models of every family that ``families`` does not name."""
    families: dict[str, CardSettings] = field(default_factory=dict)
    """Other settings for a family of models, for example ``ernie``."""
    official: dict[str, int] = field(default_factory=dict)
    """Examples in each split of the official distribution, for those that are known."""
    published: tuple[Published, ...] = ()
    """Results that were printed, as they were printed."""
    written: frozenset[str] = frozenset()
    """The keys that its [settings] states; the others have their defaults."""
    name: str = ""
    """The stem of the card's file."""
    path: Path = Path()
    """The card's file."""

    @property
    def ships(self) -> bool:
        """Whether this is one of the package's own cards."""
        return self.path.parent == CARDS_FOLDER

    def settings_for(self, family: str | None = None) -> CardSettings:
        """The settings for a family of models ("ernie"), else the card's."""
        return self.families.get(family or "", self.settings)

    def files_of(self, split: str) -> tuple[str, ...] | None:
        """The possible names of a split's file, tried in order; None without such a split."""
        data: Data = self.data
        return data.splits.get(split)

    def with_data(self, **values: Any) -> TaskCard:
        """This card with other values in [data]."""
        return dataclasses.replace(self, data=dataclasses.replace(self.data, **values))


def finite_number(text: str) -> float | None:
    """The number that a text spells; None where it spells none, or an infinite one."""
    try:
        number = float(text)
    except ValueError:
        return None
    return number if math.isfinite(number) else None
