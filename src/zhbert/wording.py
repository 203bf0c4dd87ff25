"""How messages are worded: numbers with their nouns, lists and texts of strangers cut to size."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable
from typing import Any

# Of another file than was meant, what is taken for names may be thousands of texts.
_NAMES = 8
_CHARACTERS = 40


def counted(count: int, noun: str) -> str:
    """A number and its noun.

    >>> counted(1, "step"), counted(1_000, "step")
    ('1 step', '1,000 steps')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def show(value: Any) -> str:
    """A value as the user wrote it, nearly: JSON, with Chinese readable."""
    return json.dumps(value, ensure_ascii=False, default=str)


def shortly(value: Any) -> str:
    """The same, cut to a length that an error can hold.

    >>> shortly("x" * 100)
    '"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'
    """
    return _cut(show(value))


def name(text: str) -> str:
    """An id or a column's name in an error: cut, and what would end the line escaped.

    >>> name("a\\nb")
    'a\\\\nb'
    """
    return _cut(show(text)[1:-1])


def listed(names: Iterable[Any]) -> str:
    """The first names, each cut, and how many there are.

    >>> listed("abc"), listed(range(5_000))
    ('a, b, c', '0, 1, 2, 3, 4, 5, 6, 7, … (5,000 in all)')
    """
    every = [str(one) for one in names]
    more = f", … ({len(every):,} in all)" if len(every) > _NAMES else ""
    return ", ".join(map(name, every[:_NAMES])) + more


def nearest(word: Any, known: Iterable[str], they_are: str = "known") -> str:
    """The end of an error about an unknown word: the near one, or the first that there are.

    >>> nearest("ratee", ["rate", "strategy"]), nearest("x", ["no", "yes"], "the card's labels")
    ("; did you mean 'rate'?", "; the card's labels: no, yes")
    """
    names = list(known)
    near = difflib.get_close_matches(str(word), names, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; {they_are}: {listed(names)}"


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else text[:_CHARACTERS] + "…"
