"""The kinds of task: a table, to which anybody may add one of their own."""

from __future__ import annotations

from zhbert.tasks.kinds.base import Kind
from zhbert.tasks.kinds.classify import Classify
from zhbert.tasks.kinds.multi_label import MultiLabel
from zhbert.tasks.kinds.regress import Regress
from zhbert.tasks.kinds.span import Span
from zhbert.tasks.kinds.tag import Tag

KINDS: dict[str, Kind] = {
    kind.name: kind for kind in (Classify(), MultiLabel(), Regress(), Tag(), Span())
}
"""Each kind by the name that cards call it."""

__all__ = ["KINDS", "Kind"]
