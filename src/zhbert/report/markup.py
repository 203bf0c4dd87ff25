"""HTML and SVG elements; all text except `Markup` is escaped."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

# Characters that HTML forbids (control characters, lone surrogates and noncharacters), and marks
# that change the direction of text, which would affect the rest of the page.
_FORBIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)


class Markup(str):
    """A string of markup, which is not escaped again."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def element(name: str, /, *children: Child, **attributes: str | int | float | None) -> Markup:
    """Return an element. None is left out; ``class_`` becomes class, other ``_`` a hyphen.

    >>> element("p", "a < b ", element("b", "c"), class_="x y", aria_label='"')
    '<p class="x y" aria-label="&quot;">a &lt; b <b>c</b></p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Concatenate children as markup."""
    parts: list[str] = []
    for child in children:
        if isinstance(child, Markup):
            parts.append(child)
        elif isinstance(child, str | int | float):
            parts.append(escape(child))
        elif child is not None:
            parts.append(join(child))
    return Markup("".join(parts))


def escape(value: str | int | float) -> str:
    """Escape a text or a number for the content of an element or an attribute."""
    return html.escape(clean(str(value)), quote=True)


def clean(text: str) -> str:
    """Replace the characters that a page must not contain, and normalise line ends.

    >>> clean("a\\x00b\\r\\nc")
    'a\ufffdb\\nc'
    """
    return _FORBIDDEN.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
