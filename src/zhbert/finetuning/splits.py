"""The files of a run: those of its card, and of the cards that it trains or is scored on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.finetuning.request import Split
from zhbert.tasks.card import TaskCard
from zhbert.tasks.cards import load_card
from zhbert.tasks.read import data_file, find_file, read_examples, read_to_score

Remark = Callable[[str], None]


def read_splits(
    card: TaskCard, data: Path | None, remark: Remark
) -> tuple[dict[str, Split], dict[str, Split]]:
    """Read all examples; return the splits that are trained on, and those that are scored.

    The files of the cards in ``data.train_on`` and ``data.scored_on`` are looked for in the same
    folder as those of the card itself; of ``scored_on``, missing ones are remarked on.
    """
    train = dict(_train(card, data, remark))
    scored = dict(_scored(card, data, remark))
    own = train.get("train")
    if own and own.path == scored["dev"].path and not card.data.split_column:
        if data is not None and data.is_file():
            raise ZhbertError(f"--data {data}: one file for train and dev; give the folder of both")
        raise ZhbertError(
            f"{own.path}: one file for train and dev; name two in the card, or the column "
            "that tells them apart: split_column"
        )
    for splits in (train, scored):
        _check_different(splits)
    return train, scored


def _train(card: TaskCard, data: Path | None, remark: Remark) -> Iterator[tuple[str, Split]]:
    parts = {} if card.data.train_on and not card.data.train else {"train": card}
    for other in _others(card, card.data.train_on, "train_on"):
        parts[f"train {other.name}"] = other
    for name, one in parts.items():
        path = data_file(one, data, "train")
        yield name, Split(path, read_examples(one, path, "train", remark=remark), one, "train")


def _scored(card: TaskCard, data: Path | None, remark: Remark) -> Iterator[tuple[str, Split]]:
    yield "dev", _to_score(card, data_file(card, data, "dev"), "dev", remark)
    for split in card.data.scored_with_dev:
        if (path := find_file(card, data, split)) is not None:
            yield split, _to_score(card, path, split, remark)
    for other in _others(card, card.data.scored_on, "scored_on"):
        if (path := find_file(other, data, "dev")) is None:
            remark(f"{other.name}: no dev file of it there: not scored")
        else:
            yield other.name, _to_score(other, path, "dev", remark)


def _to_score(card: TaskCard, path: Path, split: str, remark: Remark) -> Split:
    examples, haystack = read_to_score(card, path, split, remark=remark)
    return Split(path, examples, card, split, haystack)


def _others(card: TaskCard, names: Iterable[str], key: str) -> Iterator[TaskCard]:
    """Yield other cards, each given by the name of a shipped one or by a path from the card."""
    for name in names:
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
        yield other


def _check_different(splits: dict[str, Split]) -> None:
    """Refuse one file for two cards: both have a train.tsv, and the folder is that of one."""
    names: dict[Path, str] = {}
    for name, split in splits.items():
        former = names.setdefault(split.path, split.card.name)
        if former != split.card.name:
            raise ZhbertError(
                f"{split.path}: found for {former} and for {split.card.name} ({name}); give a "
                f"folder that has a folder of each card: {former}/, {split.card.name}/"
            )
