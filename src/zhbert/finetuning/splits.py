"""The files of a run: those of its card, and of the cards that it trains or is scored on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.finetuning.request import Split
from zhbert.tasks.card import TaskCard
from zhbert.tasks.cards import load_card, with_encoding
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.read import data_file, find_file, read_examples, read_to_score

Remark = Callable[[str], None]


def read_splits(
    card: TaskCard, data: Path | None, remark: Remark, *, encoding: str | None = None
) -> tuple[dict[str, Split], dict[str, Split]]:
    """Read all examples; return the splits that are trained on, and those that are scored.

    The files of the cards in ``data.train_on`` and ``data.scored_on`` are looked for in the same
    folder as those of the card itself; of ``scored_on``, missing ones are remarked on.
    ``encoding`` is that of other cards' files; None: as they say.
    """
    train = dict(_to_train(card, data, encoding))
    scored = dict(_to_score(card, data, encoding, remark))
    own = train.get("train")
    if own and own.path == scored["dev"].path and not card.data.split_column:
        if data is not None and data.is_file():
            raise ZhbertError(f"--data {data}: one file for train and dev; give the folder of both")
        raise ZhbertError(
            f"{own.path}: one file for train and dev; name two in the card, or the column "
            "that tells them apart: split_column"
        )
    for files in (train, scored):
        _check_different(files)
    return (
        {name: one.read(remark) for name, one in train.items()},
        {name: one.read_to_score(remark) for name, one in scored.items()},
    )


@dataclass(frozen=True)
class _File:
    """A file that was found for a split of a card."""

    path: Path
    card: TaskCard
    split: str

    def read(self, remark: Remark) -> Split:
        found = read_examples(self.card, self.path, self.split, remark=remark)
        examples = KINDS[self.card.kind].to_train(self.card, found, str(self.path), remark)
        return Split(self.path, examples, self.card, self.split)

    def read_to_score(self, remark: Remark) -> Split:
        examples, haystack = read_to_score(self.card, self.path, self.split, remark=remark)
        return Split(self.path, examples, self.card, self.split, haystack)


def _to_train(
    card: TaskCard, data: Path | None, encoding: str | None
) -> Iterator[tuple[str, _File]]:
    if card.data.train or not card.data.train_on:
        yield "train", _File(data_file(card, data, "train"), card, "train")
    for other in _others(card, "train_on", encoding):
        yield f"train {other.name}", _File(data_file(other, data, "train"), other, "train")


def _to_score(
    card: TaskCard, data: Path | None, encoding: str | None, remark: Remark
) -> Iterator[tuple[str, _File]]:
    yield "dev", _File(data_file(card, data, "dev"), card, "dev")
    for split in card.data.scored_with_dev:
        if (path := find_file(card, data, split)) is not None:
            yield split, _File(path, card, split)
    for other in _others(card, "scored_on", encoding):
        if (path := find_file(other, data, "dev")) is None:
            remark(f"{other.name}: no dev file of it there: not scored")
        else:
            yield other.name, _File(path, other, "dev")


def _others(card: TaskCard, key: str, encoding: str | None) -> Iterator[TaskCard]:
    """Yield other cards, each given by the name of a shipped one or by a path from the card."""
    for name in getattr(card.data, key):
        where = f"{card.path.name}: data.{key}"
        beside = card.path.parent / name
        try:
            other = load_card(beside if beside.is_file() else name)
        except ZhbertError as error:
            raise ZhbertError(f"{where}: {error}") from None
        if other.kind != card.kind:
            raise ZhbertError(f"{where}: {name} is of the kind {other.kind}, not {card.kind}")
        if key == "train_on" and other.data.train_on:
            raise ZhbertError(f"{where}: {name} trains on other cards itself; name those")
        yield with_encoding(other, encoding)


def _check_different(files: dict[str, _File]) -> None:
    """Refuse one file for two cards: both have a train.tsv, and the folder is that of one."""
    names: dict[Path, str] = {}
    for name, one in files.items():
        former = names.setdefault(one.path, one.card.name)
        if former != one.card.name:
            raise ZhbertError(
                f"{one.path}: found for {former} and for {one.card.name} ({name}); give the folder "
                "that holds a folder of each card"
            )
