"""Another program's names beside Hugging Face's: one table, read in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

# A layer's number, which a table leaves open as ``*``.
_NUMBER = re.compile(r"(?:(?<=layer[._])|(?<=layers\.))\d+(?=[./])")
Renamed = tuple[str, bool]
"""A tensor's name in the other program, and True if its matrix is transposed there."""


class Renaming:
    """A table of names.

    Args:
        beginnings: abbreviations of a name's first word in the table: theirs, Hugging Face's.
        rows: their name, Hugging Face's, and True if a matrix is transposed. Of several names for
            one tensor, the first is written.

    >>> table = Renaming({"L": ("blocks/layer_*", "layer.*")}, [("L/kernel", "L.weight", True)])
    >>> table.to_hugging_face("blocks/layer_7/kernel")
    ('layer.7.weight', True)
    >>> table.from_hugging_face("layer.7.weight")
    ('blocks/layer_7/kernel', True)
    """

    def __init__(
        self, beginnings: Mapping[str, tuple[str, str]], rows: Iterable[tuple[str, str, bool]]
    ) -> None:
        self._theirs: dict[str, Renamed] = {}
        self._hugging_face: dict[str, Renamed] = {}

        def whole(name: str, side: int) -> str:
            return re.sub(r"^\w+", lambda word: beginnings.get(word[0], (word[0],) * 2)[side], name)

        for theirs, name, flip in rows:
            theirs, name = whole(theirs, 0), whole(name, 1)
            self._theirs[theirs] = name, flip
            self._hugging_face.setdefault(name, (theirs, flip))

    def to_hugging_face(self, theirs: str) -> Renamed | None:
        """Return Hugging Face's name of a tensor; None: it is not in the table."""
        return _look_up(self._theirs, theirs)

    def from_hugging_face(self, name: str) -> Renamed | None:
        """Do the inverse of ``to_hugging_face``."""
        return _look_up(self._hugging_face, name)


def _look_up(table: Mapping[str, Renamed], name: str) -> Renamed | None:
    number = _NUMBER.search(name)
    found = table.get(_NUMBER.sub("*", name, count=1))
    if found is None or number is None:
        return found
    return found[0].replace("*", number[0], 1), found[1]
