"""From a TOML table to frozen dataclasses: every mistake is one line that names key and choices."""

from __future__ import annotations

import dataclasses
import difflib
import json
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from zhbert.errors import ZhbertError

_Settings = TypeVar("_Settings")

Hint = Callable[[str, str, list[str]], str]
"""What an unknown key's error ends with: of the key, its section's prefix, and the known keys."""


def build(
    kind: type[_Settings],
    table: Mapping[str, Any],
    prefix: str,
    where: str,
    hint: Hint | None = None,
) -> _Settings:
    """Fill the dataclass ``kind`` from ``table``; ``prefix`` ("model.") and ``where`` name it.

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
        if dataclasses.is_dataclass(hints[key]):
            if not isinstance(value, Mapping):
                raise ZhbertError(f"{label}: {key} = {show(value)}: must be a section, [{key}]")
            section = typing.cast(type[Any], hints[key])
            values[key] = build(section, value, f"{prefix}{key}.", where, hint)
        else:
            values[key] = typed(value, hints[key], f"{where}: {prefix}{key}")
    for item in dataclasses.fields(typing.cast(Any, kind)):
        required = item.default is item.default_factory is dataclasses.MISSING
        if required and item.name not in values:
            raise ZhbertError(f"{label}: '{item.name}' is missing")
    return kind(**values)


def typed(value: Any, hint: Any, label: str) -> Any:
    """``value`` as its field's type: a whole number is good for a float, nothing else bends."""
    if isinstance(hint, types.UnionType):
        hint = next(kind for kind in typing.get_args(hint) if kind is not type(None))
    if hint is float and type(value) is int:
        return float(value)
    if hint is int and type(value) is int:
        return value
    name = _NAMES.get(hint, "a list of texts")
    if typing.get_origin(hint) is tuple:
        item = typing.get_args(hint)[0]
        allowed = typing.get_args(item) or ((int, float) if item is float else (item,))
        if isinstance(value, list) and all(type(one) in allowed for one in value):
            return tuple(map(float, value)) if item is float else tuple(value)
        name = {float: "a list of numbers", str: name}.get(item, "a list of texts or numbers")
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
    """The end of an error about an unknown word: the near one, or all there are.

    >>> suggest("ratee", ["rate", "strategy"])
    "; did you mean 'rate'?"
    >>> suggest("x", ["rate", "strategy"])
    '; known: rate, strategy'
    """
    names = list(known)
    near = difflib.get_close_matches(str(word), names, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(names)}"


def show(value: Any) -> str:
    """A value as the user wrote it, nearly: JSON, with Chinese readable."""
    return json.dumps(value, ensure_ascii=False, default=str)
