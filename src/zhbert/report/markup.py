"""HTML and SVG elements. All text is escaped, unless it is `Markup`."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable

# What an HTML page may not contain: control characters, lone surrogates and noncharacters. And the
# marks that change the direction of text, which would also affect the page's own words.
_FORBIDDEN = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
_VOID = frozenset({"meta", "br"})


class Markup(str):
    """Finished markup, which is not escaped again."""

    __slots__ = ()


Child = str | int | float | None | Iterable["Child"]


def element(name: str, /, *children: Child, **attributes: str | int | float | None) -> Markup:
    """One element. None is left out; ``class_`` becomes class, and ``_`` in a name a hyphen.

    >>> element("p", "a < b ", element("b", "c"), class_="x y", aria_label='"')
    '<p class="x y" aria-label="&quot;">a &lt; b <b>c</b></p>'
    """
    written = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    if name in _VOID:
        return Markup(f"<{name}{written}>")
    return Markup(f"<{name}{written}>{join(children)}</{name}>")


def join(children: Iterable[Child]) -> Markup:
    """Children one after the other, as markup."""
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
    """A text or a number as it can be put between tags and into an attribute."""
    return html.escape(clean(str(value)), quote=True)


def clean(text: str) -> str:
    """``text`` without the characters that no page may contain.

    >>> clean("a\\x00b\\r\\nc")
    'a\ufffdb\\nc'
    """
    return _FORBIDDEN.sub("\ufffd", text.replace("\r\n", "\n").replace("\r", "\n"))
