"""The table of task kinds, which can be extended."""

from __future__ import annotations

import math
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.tasks.kinds.base import Kind
from zhbert.tasks.kinds.classify import Classify
from zhbert.tasks.kinds.embed import Embed
from zhbert.tasks.kinds.multi_label import MultiLabel
from zhbert.tasks.kinds.regress import Regress
from zhbert.tasks.kinds.span import Span
from zhbert.tasks.kinds.tag import Tag
from zhbert.wording import nearest, show

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (Classify(), MultiLabel(), Regress(), Tag(), Span(), Embed())
}
"""The kinds by their names in cards."""

__all__ = ["KINDS", "Kind", "kind_named"]


def kind_named(name: Any, where: str) -> Kind:
    """Return the kind called ``name``.

    Raises ZhbertError, which begins with ``where``, if there is none.
    """
    if name not in tuple(KINDS):
        of_ones_own = "one of your own? run the script that adds it to KINDS in place of zhbert"
        choices = nearest(name, KINDS, f"{of_ones_own}; known", math.inf)
        raise ZhbertError(f"{where}: kind = {show(name)}: not a choice{choices}")
    kind: Any = KINDS[name]
    if isinstance(kind, type):
        own = kind.__name__
        raise ZhbertError(f"KINDS[{show(name)}] is the class {own}; put an instance there, {own}()")
    assert isinstance(kind, Kind)
    return kind
