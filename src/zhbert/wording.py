"""Wording of messages: numbers with nouns, lists, and text from outside made safe to show."""

from __future__ import annotations

import difflib
import json
import re
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any

# Limits of a list of names and of one name: if a wrong file is given, whole texts may be taken for
# names, by the thousand.
_NAMES = 8
_CHARACTERS = 40


def counted(count: int, noun: str, verb: str = "") -> str:
    """Return a number with its noun and, from ``"has/have"``, the form of the verb that agrees.

    >>> counted(1, "step"), counted(1_000, "step"), counted(1, "text", "has/have")
    ('1 step', '1,000 steps', '1 text has')
    """
    one, _, more = verb.partition("/")
    return f"{count:,} {noun}{'' if count == 1 else 's'} {one if count == 1 else more}".rstrip()


def show(value: Any) -> str:
    """Return a value as JSON with Chinese unescaped: nearly as the user wrote it."""
    return json.dumps(value, ensure_ascii=False, default=str)


def shortly(value: Any) -> str:
    """Return the same as `show`, cut to 40 characters.

    >>> shortly("x" * 100)
    '"xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…'
    """
    return _cut(show(value))


def name(text: str) -> str:
    """Return an id or a column's name for a message: cut to 40 characters, line breaks escaped.

    >>> name("a\\nb")
    'a\\\\nb'
    """
    return _cut(show(text)[1:-1])


def listed(names: Iterable[Any], most: float = _NAMES) -> str:
    """Join the first ``most`` names; if there are more, say how many in all.

    >>> listed("abc"), listed(range(5_000))
    ('a, b, c', '0, 1, 2, 3, 4, 5, 6, 7, … (5,000 in all)')
    """
    every = [str(one) for one in names]
    if len(every) <= most:
        return ", ".join(map(name, every))
    return ", ".join(map(name, every[: int(most)])) + f", … ({len(every):,} in all)"


def how_to_install(extra: str) -> str:
    """Return the pip command that installs the requirements of one of the package's extras.

    The requirements are listed one by one, because the package itself is not on an index; if the
    installed metadata are older than the extra, the folder of the source has them.

    >>> how_to_install("tensorboard").startswith("pip install 'tensorboard")
    True
    """
    from importlib import metadata

    try:
        wanted = [line.partition(";") for line in metadata.requires("zhbert") or ()]
    except metadata.PackageNotFoundError:  # the source tree, not installed
        wanted = []
    own = [name.strip() for name, _, marker in wanted if f"'{extra}'" in marker.replace('"', "'")]
    if not own:
        return f"pip install '.[{extra}]' (in zhbert's folder)"
    return "pip install " + " ".join(f"'{name}'" for name in own)


def nearest(word: Any, known: Iterable[str], they_are: str = "known", most: float = _NAMES) -> str:
    """Return the end of an error about an unknown word: a similar known word, or the known words.

    >>> nearest("ratee", ["rate", "strategy"]), nearest("x", ["no", "yes"], "the card's labels")
    ("; did you mean 'rate'?", "; the card's labels: no, yes")
    """
    names = list(known)
    near = difflib.get_close_matches(str(word), names, n=1)
    return f"; did you mean '{near[0]}'?" if near else f"; {they_are}: {listed(names, most)}"


# Unicode categories that control a terminal or end a line: controls, unpaired surrogates, line and
# paragraph separators. Of the invisible format characters only the marks of text direction.
_OBEYED = ("Cc", "Cs", "Zl", "Zp")
_TURNING = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def printable(text: str) -> str:
    """Return ``text`` as one line, with control characters and line breaks escaped.

    >>> print(printable(chr(27) + "[31m红" + chr(10) + chr(0x202E)))
    \\x1b[31m红\\n\\u202e
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(
        one.encode("unicode_escape").decode("ascii")
        if unicodedata.category(one) in _OBEYED or one in _TURNING
        else one
        for one in text
    )


def differences(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield where two values of JSON differ, by name.

    >>> list(differences({"rate": 0.1, "of": {"seed": 1}}, {"rate": 0.1, "of": {"seed": 2}}))
    ['of.seed was 1, is 2']
    """
    if isinstance(before, dict) and isinstance(now, dict):
        for key in dict.fromkeys([*before, *now]):
            inner = f"{name}.{key}" if name else key
            yield from differences(before.get(key), now.get(key), inner)
    elif before != now:
        long = isinstance(now, str) and len(now) > 20
        yield f"{name} differs" if long else f"{name} was {before}, is {now}"


# A user name and password before a host: everything up to the last @ that can belong to them. A
# password may contain / ? or #, although a correct address would have them as %2F, %3F and %23.
_USER = re.compile(r"(?<=://)[^\s/?#]*@|(?<=://)[^\s/?#@:\[]+:(?!\d+(?:[/?#]|$))\S{0,200}@")
# Parameters of a query that give access: known by their names, or because they look like a key.
_KEY = re.compile(
    r"([?&;][^=&;\s]{0,60}(?:token|sig|secret|pass|pwd|key|auth|cred|session|policy|ticket|jwt)"
    r"[^=&;\s]{0,60}=)[^&;#\s]*[^&;#\s:]"
    r"|([?&;][^=&;\s]{1,60}=)(?=[^&;#\s]*\d)(?=[^&;#\s]*[A-Za-z])[\w+/=%~-]{24,}",
    re.IGNORECASE | re.ASCII,
)


def without_secrets(text: str) -> str:
    """Remove passwords and access keys from the addresses in a text.

    >>> without_secrets("initial_model=https://me:secret@example.org/model.zip?token=abc&v=2")
    'initial_model=https://example.org/model.zip?token=…&v=2'
    """
    if "://" not in text:
        return text
    return _KEY.sub(lambda found: f"{found[1] or found[2]}…", _USER.sub("", text))


def _cut(text: str) -> str:
    return text if len(text) <= _CHARACTERS else text[:_CHARACTERS] + "…"
