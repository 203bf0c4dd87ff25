"""Task cards: TOML files that describe a task's data, metrics and published results.

A card is named by the stem of a file that ships with the package (``lcqmc``) or by a path.
"""

from __future__ import annotations

import dataclasses
import os
import typing
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from zhbert.config import named_file
from zhbert.data.sources import check_encoding
from zhbert.errors import ZhbertError
from zhbert.files import read_toml
from zhbert.schema import build, check_choice, check_value, suggest
from zhbert.tasks.card import (
    CARDS_FOLDER,
    SPLITS,
    CardSettings,
    Column,
    Data,
    Published,
    TaskCard,
)
from zhbert.tasks.kinds import KINDS, Kind, kind_named
from zhbert.tasks.settings import CHOICES, RANGES
from zhbert.wording import counted, show

FAMILIES = ("bert", "ernie", "small")
# Fields of TaskCard that are not keys of its file.
_NO_KEYS = ("name", "path", "families", "written")


def card_names() -> list[str]:
    """Return the names of the cards that ship with the package."""
    return sorted(path.name.removesuffix(".toml") for path in CARDS_FOLDER.glob("*.toml"))


def card_path(name: str | os.PathLike[str]) -> Path:
    """Return the file of a card, given its stem (``lcqmc``) or a path (``my/task.toml``).

    Raises ZhbertError, which lists the available cards, if there is none.
    """
    text = os.fspath(name)
    # The name of a card is matched in any case; a path is used as it is.
    own = text.lower() if text.lower() in card_names() else text
    path = named_file(own, CARDS_FOLDER, "task")
    if path is None:
        names = suggest(text.lower(), card_names())
        raise ZhbertError(f"no task '{text}'; a card of your own ends in .toml{names}")
    return path


def load_card(name: str | os.PathLike[str]) -> TaskCard:
    """Read and check a card; raises ZhbertError in one line that names key, value and choices.

    >>> card = load_card("lcqmc")
    >>> card.kind, card.metrics, card.data.labels, card.settings_for("ernie").learning_rate
    ('classify', ('accuracy',), ('0', '1'), 3e-05)
    """
    path = card_path(name)
    return parse_card(read_toml(path, "a task's card"), path)


def parse_card(table: Mapping[str, Any], path: Path) -> TaskCard:
    """Turn a TOML table into a checked TaskCard; ``path`` names it and its files.

    >>> parse_card({"title": "t", "kind": "clasify", "metrics": [], "data": {}}, Path("my.toml"))
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: my.toml: kind = "clasify": not a choice; did you mean 'classify'?
    """
    where = path.name
    table = dict(table)
    for key in _NO_KEYS:
        if key in table:
            raise ZhbertError(f"{where}: unknown key '{key}'; the card's name is its file's")
    # The kind is checked first: it decides which other keys are required.
    kind = kind_named(table["kind"], where) if "kind" in table else None
    if kind is not None:
        _check_places(kind, table, where)
    section = table.pop("settings", {})
    settings, families = _settings(section, where)
    published = table.pop("published", [])
    if not isinstance(published, list) or not all(isinstance(one, Mapping) for one in published):
        raise ZhbertError(f"{where}: published must be sections, [[published]]")
    if kind is not None and "data" in table:
        table["data"] = _data(kind, table["data"], where)
    card = build(
        TaskCard,
        table,
        "",
        where,
        hint=lambda key, _, known: suggest(key, [one for one in known if one not in _NO_KEYS]),
    )
    card = dataclasses.replace(
        card,
        name=where.removesuffix(".toml"),
        path=path,
        data=card.data.completed(path.parent, where),
        settings=settings,
        families=families,
        written=frozenset(k for k, v in section.items() if not isinstance(v, Mapping)),
        published=tuple(
            build(Published, one, f"published[{place}].", where)
            for place, one in enumerate(published)
        ),
    )
    check_card(card)
    return card


def _check_places(kind: Kind, table: Mapping[str, Any], where: str) -> None:
    """Refuse keys of [data] that are outside of it."""
    own = {item.name for item in dataclasses.fields(TaskCard)}
    for key in table:
        if key in _keys(kind) - own:
            raise ZhbertError(f"{where}: '{key}' belongs in [data]")


def _data(kind: Kind, table: Any, where: str) -> Data:
    """Return the section [data] of a kind; refuse keys of other kinds or formats."""
    if not isinstance(table, Mapping):
        raise ZhbertError(f"{where}: data = {show(table)}: must be a section, [data]")
    for key in table.keys() - _keys(kind):
        of = [other.name for other in KINDS.values() if key in _keys(other)]
        if of:
            raise ZhbertError(
                f"{where}: data.{key}: is for {' and '.join(of)}, not for kind {kind.name}"
            )
    hints = typing.get_type_hints(kind.data_class)
    lists = {*SPLITS, *(key for key, hint in hints.items() if hint == Column)}
    values = {key: _listed(value, key, lists) for key, value in table.items()}
    data: Data = build(kind.data_class, values, "data.", where)
    check_choice(data.format, kind.formats, f"{where}: data.format")
    for key in table:
        if key in kind.keys_in and data.format not in kind.keys_in[key]:
            formats = " and ".join(kind.keys_in[key])
            raise ZhbertError(
                f"{where}: data.{key}: is for {formats}, not for format {data.format}"
            )
    return data


def _keys(kind: Kind) -> set[str]:
    return {item.name for item in dataclasses.fields(kind.data_class)}


def _listed(value: Any, key: str, lists: Collection[str]) -> Any:
    """Return the value, as a list if it is a single column or file name."""
    if key in lists:
        return [value] if type(value) in (str, int) else value
    if key == "more" and isinstance(value, Mapping):
        return {name: [one] if isinstance(one, str) else one for name, one in value.items()}
    return value


def check_card(card: TaskCard) -> None:
    """Refuse values out of range, and values that contradict each other."""
    where, data, kind = card.path.name, card.data, KINDS[card.kind]
    if not card.metrics:
        known = ", ".join(kind.metric_names)
        raise ZhbertError(f"{where}: metrics = []: name one or more of {known}")
    for metric in card.metrics:
        check_choice(metric, kind.metric_names, f"{where}: metrics")
    check_choice(card.language, ("zh", "en"), f"{where}: language")
    if data.encoding:
        check_encoding(data.encoding, f"{where}: data.encoding =")
    data.check(where)
    kind.check(card)
    for family, settings in {"": card.settings, **card.families}.items():
        _check_settings(settings, f"{where}: settings." + (f"{family}." if family else ""))
    for one in card.published:
        label = f"{where}: published: {one.model}"
        check_choice(one.metric, (*kind.metric_names, "unstated"), f"{label}: metric")
        check_choice(one.split, tuple(data.splits), f"{label}: split")
    for split in card.official:
        check_choice(split, tuple(data.splits), f"{where}: official")


def with_encoding(card: TaskCard, encoding: str | None) -> TaskCard:
    """Return a card with another encoding (--encoding), or unchanged if ``encoding`` is None."""
    if encoding is None:
        return card
    if encoding:
        check_encoding(encoding)
    return card.with_data(encoding=encoding)


def is_official_split(card: TaskCard, split: str, examples: int) -> bool | None:
    """Return whether a split of this size can be the official one; None if that is unknown.

    One example in a thousand may be missing, as distributions drop different broken rows.

    >>> is_official_split(load_card("lcqmc"), "dev", 8802)
    True
    >>> is_official_split(load_card("lcqmc"), "dev", 1000)
    False
    """
    official = card.official.get(split)
    return None if official is None else abs(examples - official) <= official / 1000


def split_of(card: TaskCard, path: Path, named: str | None = None) -> str:
    """Return the named split, or else the one whose file has this name, or else dev.

    Raises ZhbertError where the card has no split of that name.
    """
    splits = card.data.splits
    if named is not None and named not in splits:
        raise ZhbertError(f"--split {named}: not in {card.name}{suggest(named, splits)}")
    # The card's file names may contain folders.
    theirs = [
        split
        for split, names in splits.items()
        if any(path.parts[-len(Path(name).parts) :] == Path(name).parts for name in names)
    ]
    return named or (theirs[0] if theirs and "dev" not in theirs else "dev")


def split_remark(card: TaskCard, split: str, examples: int) -> str:
    """Return a remark if a split is smaller than the official one; otherwise ""."""
    if is_official_split(card, split, examples) is not False:
        return ""
    return (
        f"{card.name}: {split} has {counted(examples, 'example')} here, the official {split} "
        f"{card.official[split]:,}: scores on it are not the papers' protocol"
    )


def _settings(table: Any, where: str) -> tuple[CardSettings, dict[str, CardSettings]]:
    """Split [settings] into the values for all models and one section for each family."""
    if not isinstance(table, Mapping):
        raise ZhbertError(f"{where}: settings = {show(table)}: must be a section, [settings]")
    common = {key: value for key, value in table.items() if not isinstance(value, Mapping)}
    for family, values in table.items():
        if isinstance(values, Mapping):
            check_choice(family.lower(), FAMILIES, f"{where}: a section of settings")
    families = {
        family.lower(): build(CardSettings, {**common, **values}, f"settings.{family}.", where)
        for family, values in table.items()
        if isinstance(values, Mapping)
    }
    return build(CardSettings, common, "settings.", where), families


def _check_settings(settings: CardSettings, label: str) -> None:
    for key, value in dataclasses.asdict(settings).items():
        within = RANGES.get(key) or RANGES.get(f"optimizer.{key}")
        check_value(value, f"{label}{key}", CHOICES.get(key), within)


# -- cards as plain data ---------------------------------------------------------------------------


def card_table(card: TaskCard) -> dict[str, Any]:
    """Return a card as a table that ``parse_card`` reads back; default values are left out."""
    table = _changed(card)
    for key in _NO_KEYS:
        table.pop(key, None)
    # The labels were read already, and the card's folder may no longer exist.
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
