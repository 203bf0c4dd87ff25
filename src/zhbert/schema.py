"""Settings as frozen dataclasses, read from TOML tables and ``key=value``, and written as TOML.

Every mistake is reported in one line that names the key and the choices.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import re
import tomllib
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from zhbert.errors import ZhbertError
from zhbert.wording import nearest, show

_Settings = TypeVar("_Settings")

Hint = Callable[[str, str, list[str]], str]
"""Makes the end of the error about an unknown key, from the key, its section's prefix ("model.")
and the known keys."""


def build(
    kind: type[_Settings],
    table: Mapping[str, Any],
    prefix: str,
    where: str,
    hint: Hint | None = None,
) -> _Settings:
    """Build the dataclass ``kind`` from ``table``, and nested dataclasses from its sections.

    Args:
        kind: a dataclass whose fields are typed.
        table: keys and values, as tomllib reads them.
        prefix: the section that the table is, for messages: "" or "model.".
        where: the file, for messages.
        hint: how the message about an unknown key ends (default: similar or all known keys).

    Raises:
        ZhbertError: an unknown or missing key, or a value of another type.

    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Pair:
    ...     rate: float
    >>> build(Pair, {"rate": 1}, "", "x.toml").rate
    1.0
    >>> build(Pair, {}, "", "x.toml")
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: x.toml: 'rate' is missing
    """
    hints = typing.get_type_hints(kind)
    label = f"{where}: {prefix[:-1]}" if prefix else where
    hint = hint or (lambda key, _, known: suggest(key, known))
    for key in table:
        if key not in hints:
            raise ZhbertError(f"{label}: unknown key '{key}'{hint(key, prefix, list(hints))}")
    values: dict[str, Any] = {}
    for key, value in table.items():
        if section := section_of(hints[key]):
            if not isinstance(value, Mapping):
                raise ZhbertError(f"{label}: {key} = {show(value)}: must be a section, [{key}]")
            values[key] = build(section, value, f"{prefix}{key}.", where, hint)
        else:
            values[key] = typed(value, hints[key], f"{where}: {prefix}{key}")
    for item in dataclasses.fields(typing.cast(Any, kind)):
        required = item.default is item.default_factory is dataclasses.MISSING
        if required and item.name not in values:
            raise ZhbertError(f"{label}: '{item.name}' is missing")
    return kind(**values)


def section_of(hint: Any) -> type[Any] | None:
    """Return the dataclass of a section's type, which may be optional; None for a value's type.

    >>> section_of(int | None) is None
    True
    """
    kinds = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    found = (kind for kind in kinds if dataclasses.is_dataclass(kind))
    return typing.cast(type[Any] | None, next(found, None))


def typed(value: Any, hint: Any, label: str) -> Any:
    """Return ``value`` as the type ``hint``, or raise a ZhbertError that begins with ``label``.

    Integers are accepted for floats, and a single number for a list of numbers. There is no other
    coercion. Tables in a list become dataclasses.
    """
    if hint is Any:
        return value
    if isinstance(hint, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if hint is float and type(value) is int:
        return float(value)
    if hint is int and type(value) is int:
        return value
    name = _NAMES.get(hint, "a list of texts")
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        if section := section_of(item):
            if isinstance(value, list) and all(isinstance(one, Mapping) for one in value):
                return tuple(build(section, one, "", label) for one in value)
            example = next(iter(dataclasses.fields(section))).name
            raise ZhbertError(
                f"{label} = {show(value)}: must be a list of tables, [{{{example}=...}}]"
            )
        allowed = typing.get_args(item) or ((int, float) if item is float else (item,))
        if item in (int, float) and type(value) in allowed:
            value = [value]
        if isinstance(value, list) and all(type(one) in allowed for one in value):
            return tuple(map(float, value)) if item is float else tuple(value)
        name = {float: "a list of numbers", int: "a list of whole numbers", str: name}.get(
            item, "a list of texts or numbers"
        )
    elif typing.get_origin(hint) is dict:
        item = typing.get_args(hint)[1]
        if isinstance(value, Mapping):
            return {key: typed(one, item, f"{label}.{key}") for key, one in value.items()}
        name = "a section"
    elif type(value) is hint:
        return value
    raise ZhbertError(f"{label} = {show(value)}: must be {name}")


_NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def suggest(word: Any, known: Iterable[str]) -> str:
    """Return the end of an error about an unknown word: a similar known word, or all known words.

    >>> suggest("ratee", ["rate", "strategy"])
    "; did you mean 'rate'?"
    >>> suggest("x", ["rate", "strategy"])
    '; known: rate, strategy'
    """
    return nearest(word, known, most=math.inf)


Range = tuple[str, Callable[[Any], bool]]
"""A condition on a value: its words for the message ("must be ..."), and its test."""

ABOVE_0: Range = ("above 0", lambda value: value > 0)
NOT_BELOW_0: Range = ("0 or more", lambda value: value >= 0)
SHARE: Range = ("from 0 to 1", lambda value: 0 <= value <= 1)
ROW_LENGTH: Range = ("8 or more", lambda value: value >= 8)
"""The shortest row that can hold a pair: [CLS] a [SEP] b [SEP] with a few pieces of each."""


def check_choice(
    value: Any, choices: Iterable[str], label: str, *, extensible: bool = False
) -> None:
    """Raise a ZhbertError if ``value`` is not among ``choices``; it suggests a similar one.

    If the choices are ``extensible``, it also says how a script's own entries become known.

    >>> check_choice("tagg", ("classify", "tag"), "mine.toml: kind")
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: mine.toml: kind = "tagg": not a choice; did you mean 'tag'?
    """
    if value not in choices:
        hint = suggest(value, choices)
        if extensible:
            hint += " " if hint.endswith("?") else "; "
            hint += "one of your own? run the script that adds it in place of zhbert"
        raise ZhbertError(f"{label} = {show(value)}: not a choice{hint}")


def check_value(
    value: Any,
    label: str,
    choices: Iterable[str] | None = None,
    within: Range | None = None,
    *,
    extensible: bool = False,
) -> None:
    """Raise a ZhbertError if a value is not finite, not a choice, or not ``within`` a range.

    Of a tuple, every member is checked. None means that the key is unset, and is accepted.
    ``extensible`` is that of `check_choice`.

    >>> check_value(0, "epochs", within=ABOVE_0)
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: epochs = 0: must be above 0
    """
    if value is None:
        return
    for one in value if isinstance(value, tuple) else (value,):
        if isinstance(one, float) and not math.isfinite(one):
            raise ZhbertError(f"{label} = {show(one)}: must be a finite number")
        if choices is not None:
            check_choice(one, choices, label, extensible=extensible)
        if within is not None and not within[1](one):
            raise ZhbertError(f"{label} = {show(one)}: must be {within[0]}")


def flatten(settings: Any, prefix: str = "") -> dict[str, Any]:
    """Return a settings object as a dict of dotted keys, in the order of its fields.

    An optional section that is not there is one key, with the value None.
    """
    flat: dict[str, Any] = {}
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            flat.update(flatten(value, f"{prefix}{item.name}."))
        else:
            flat[prefix + item.name] = value
    return flat


def to_toml(settings: Any) -> str:
    """Return settings as TOML that ``build`` reads back identically; unset keys are left out."""
    return table_to_toml(_set_values(settings))


def _set_values(settings: Any) -> dict[str, Any]:
    """Return the keys that are set as nested tables, without empty sections."""
    table: dict[str, Any] = {}
    for item in dataclasses.fields(settings):
        value = getattr(settings, item.name)
        if dataclasses.is_dataclass(value):
            value = _set_values(value) or None
        elif isinstance(value, tuple) and value and dataclasses.is_dataclass(value[0]):
            value = [_set_values(one) for one in value]
        if value is not None:
            table[item.name] = value
    return table


def table_to_toml(table: Mapping[str, Any], prefix: str = "") -> str:
    """Return nested tables as TOML: values first, then sections, then lists of sections.

    >>> print(table_to_toml({"a": 1, "b": {"c": ["x"], "d": {"e": 0.5}}}), end="")
    a = 1
    <BLANKLINE>
    [b]
    c = ["x"]
    <BLANKLINE>
    [b.d]
    e = 0.5
    """
    values, sections = "", ""
    lists: list[tuple[str, Any]] = []
    for key, value in table.items():
        name = _toml_key(key)
        if isinstance(value, Mapping):
            sections += f"\n[{prefix}{name}]\n" + table_to_toml(value, f"{prefix}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            lists.append((name, value))
        else:
            values += f"{name} = {_toml(value)}\n"
    for name, tables in lists:
        for one in tables:
            sections += f"\n[[{prefix}{name}]]\n" + table_to_toml(one, f"{prefix}{name}.")
    return values + sections


def overridden(settings: _Settings, override: str) -> _Settings:
    """Return ``settings`` with one ``key=value`` applied; keys in sections are dotted (``a.b=1``).

    >>> @dataclasses.dataclass(frozen=True, kw_only=True)
    ... class Pair:
    ...     rate: float = 0.5
    >>> overridden(Pair(), "rate=1").rate
    1.0
    >>> overridden(Pair(), "ratee=1")
    Traceback (most recent call last):
    zhbert.errors.ZhbertError: ratee=1: unknown key 'ratee'; did you mean 'rate'?
    """
    key, equals, text = override.partition("=")
    key, text = key.strip(), text.strip()
    if not equals:
        key, value = next((k, v) for k, v in flatten(settings).items() if isinstance(v, int))
        raise ZhbertError(f"'{override}': an override is key=value, for example {key}={value}")
    hint = hint_in(settings)
    path = key.split(".")
    current: Any = settings
    parents: list[tuple[Any, str]] = []
    for position, name in enumerate(path):
        hints = typing.get_type_hints(type(current))
        prefix = "".join(f"{part}." for part in path[:position])
        if name not in hints:
            known = hint(name, prefix, list(hints))
            raise ZhbertError(
                f"{override}: {prefix[:-1] + ': ' if prefix else ''}unknown key '{name}'{known}"
            )
        if section := section_of(hints[name]):
            if position == len(path) - 1:
                inner = ", ".join(f"{key}.{item.name}" for item in dataclasses.fields(section))
                raise ZhbertError(f"{override}: '{key}' is a section; its keys: {inner}")
            parents.append((current, name))
            current = getattr(current, name)
            # An optional section begins with its usual values.
            current = section() if current is None else current
        else:
            if position < len(path) - 1:
                raise ZhbertError(f"{override}: '{prefix}{name}' is a key, not a section")
            value = _override_value(text, hints[name], override)
            current = dataclasses.replace(current, **{name: value})
    for parent, name in reversed(parents):
        current = dataclasses.replace(parent, **{name: current})
    return typing.cast(_Settings, current)


def _override_value(text: str, hint: Any, override: str) -> Any:
    """Parse an override's value: TOML, or bare text for a text; empty unsets an optional key."""
    optional = isinstance(hint, types.UnionType)
    if optional and not text:
        return None
    kinds = typing.get_args(hint) if optional else (hint,)
    try:
        value: Any = tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):  # not TOML, or a number with thousands of digits
        value = text
    if str in kinds and not isinstance(value, str):
        value = text
    if typing.get_origin(hint) is tuple and isinstance(value, str):
        value = [item.strip() for item in value.split(",") if item.strip()]
    # The message of `typed` begins with "label = value", which would repeat the override.
    try:
        return typed(value, hint, "")
    except ZhbertError as error:
        raise ZhbertError(f"{override}: {str(error).rpartition(': ')[2]}") from None


def hint_in(settings: Any) -> Hint:
    """Return a Hint that suggests a similar key, the same key of another section, or all keys."""

    def hint(key: str, prefix: str, known: list[str]) -> str:
        if not difflib.get_close_matches(key, known, n=1):
            for full in flatten(settings):
                if full.rpartition(".")[2] == key:
                    return f"; did you mean '{full}'?"
        return suggest(key, known)

    return hint


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml(key)


def _toml(value: Any) -> str:
    # JSON's strings, numbers, lists and booleans are valid TOML, except for one control character.
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
