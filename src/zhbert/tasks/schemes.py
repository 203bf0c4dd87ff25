"""Tag schemes: how the tags of a row of tokens mark where entities begin, continue and end.

A tag is a letter and a type, ``B-PER``. The letter is the token's place in its entity:

====== ================ ===============================================================
scheme letters          what is an entity
====== ================ ===============================================================
BIO    B I O            as CoNLL's script and seqeval's default mode count: an I without
                        its B, or of another type than the tag before, begins one, so that
                        files of IOB1 and IOB2 are read alike
BIOS   B I S O          a B with the I of its type that follow, or an S (CLUENER's code)
BIOES  B I E S O        B I* E of one type, or S (seqeval's strict mode of IOBES)
BMES   B M E S O        the same
BMEWO  B M E W O        the same
BILOU  B I L U O        the same
IO     a type alone, O  the longest run of tokens of one type
====== ================ ===============================================================

Small letters do as well, as do ``B_PER``, ``PER-B`` and a letter alone, whose type is ``_``.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

from zhbert.errors import ZhbertError
from zhbert.schema import suggest
from zhbert.wording import shortly, show

_LETTERS = {
    "BIO": "BIO",
    "BIOS": "BIOS",
    "BIOES": "BIOES",
    "BMES": "BMESO",
    "BMEWO": "BMEWO",
    "BILOU": "BILOU",
}
SCHEMES = (*_LETTERS, "IO")
# The meaning of each letter: the token begins, continues or ends an entity, or is all of it.
_PLACES = dict(zip("BIMELSWUO", "BIIEESSSO", strict=True))
_BEFORE = re.compile(r"([BIMELSWU])(?:[-_](.*))?|(O)", re.DOTALL | re.IGNORECASE)
_AFTER = re.compile(r"(.+)[-_]([BIMELSWU])|(O)", re.DOTALL | re.IGNORECASE)

Entity = tuple[str, int, int]
"""Type, begin and end (exclusive)."""


class SchemeError(ZhbertError):
    """An error about a label that does not belong to its scheme."""

    def __init__(self, message: str, label: str) -> None:
        super().__init__(message)
        self.label = label


@dataclass(frozen=True)
class TagScheme:
    """The meaning of each label of a task; `scheme_of` makes it."""

    name: str
    places: Mapping[str, tuple[str, str]]
    """A label -> B, I, E, S or O, and the type of the entity."""

    @property
    def outside(self) -> str | None:
        """The label of tokens outside of entities, or None."""
        return next((label for label, (place, _) in self.places.items() if place == "O"), None)

    @property
    def has_ends(self) -> bool:
        """True if the last token of an entity of several tokens has a tag of its own."""
        return any(_PLACES[letter] == "E" for letter in _LETTERS.get(self.name, ""))

    @property
    def strict(self) -> bool:
        """True if tokens whose tags break the scheme belong to no entity."""
        return self.name not in ("BIO", "IO")

    def entities(self, tags: Sequence[str]) -> list[Entity]:
        """Return the entities of a sequence of tags, in order.

        >>> scheme_of(["O", "B-A", "M-A", "E-A", "S-A"]).entities(["B-A", "E-A", "B-A", "S-A"])
        [('A', 0, 2), ('A', 3, 4)]
        """
        return _entities([self.places[tag] for tag in tags], self.strict, self.has_ends)

    def tags(self, length: int, found: Iterable[Entity]) -> list[str]:
        """Return the tags of ``length`` tokens, given their entities, which must not overlap.

        Raises ZhbertError if the task lacks a label for an entity.

        >>> scheme_of(["O", "B-A", "I-A"]).tags(4, [("A", 0, 2), ("A", 2, 3)])
        ['B-A', 'I-A', 'B-A', 'O']
        """
        labels = {place: label for label, place in reversed([*self.places.items()])}
        row = [labels.get(("O", ""), "")] * length
        if "" in row and sum(end - start for _, start, end in found) < length:
            raise ZhbertError("no label for a token in no entity: add O to the labels")
        for kind, start, end in found:
            for token in range(start, end):
                place = "B" if token == start else "I"
                if self.name != "BIO" and end - start == 1 and self.strict:
                    place = "S"
                elif self.has_ends and token == end - 1:
                    place = "E"
                label = labels.get(("I" if self.name == "IO" else place, kind))
                if label is None:
                    raise ZhbertError(self._no_label(kind, place))
                row[token] = label
        return row

    def _no_label(self, kind: str, place: str) -> str:
        types = tuple(dict.fromkeys(one for _, one in self.places.values() if one))
        if kind not in types:
            return f"the type {shortly(kind)} is not in the card{suggest(kind, types)}"
        letter = next(one for one in _LETTERS[self.name] if _PLACES[one] == place)
        return f"the card has no label {letter}-{kind}, which {self.name} needs here"

    def broken(self, tags: Sequence[str]) -> int:
        """Return the number of tokens that have an entity's tag but are in no valid entity.

        >>> scheme_of(["O", "B-A", "M-A", "E-A"]).broken(["B-A", "E-A", "M-A", "O", "B-A"])
        2
        """
        places = [self.places[tag] for tag in tags]
        inside = sum(place != "O" for place, _ in places)
        return inside - sum(end - start for _, start, end in self.entities(tags))


def scheme_of(labels: Sequence[str], name: str = "") -> TagScheme:
    """Return the named scheme of a task's labels, or the smallest scheme that fits them.

    Raises `SchemeError` for the first label that does not belong to the scheme.

    >>> scheme_of(["o", "b-per", "i-per"]).name, scheme_of(["B", "M", "E", "S"]).name
    ('BIO', 'BMES')
    >>> scheme_of(["O", "B-A", "E-A"], "BIO")
    Traceback (most recent call last):
    zhbert.tasks.schemes.SchemeError: "E-A": not of BIO; the labels are of BIOES: write \
scheme = "BIOES"
    """
    letters = _letters(labels)
    every = {letter for letter, _ in letters.values()}
    fits = next((one for one, known in _LETTERS.items() if every <= set(known)), None)
    plain = [label for label in labels if label not in letters]
    if name:
        wanted = scheme_name(name)
        if wanted is None:
            raise SchemeError(f"scheme = {show(name)}: not a choice{suggest(name, SCHEMES)}", name)
    else:
        wanted = fits or "BIO"
        if plain and len(plain) == len(labels) - 1 and "O" in map(str.upper, labels):
            wanted = "IO"
    if wanted == "IO":
        return TagScheme("IO", {one: ("O", "") if one in "Oo" else ("I", one) for one in labels})
    for label in labels:
        if label not in letters or letters[label][0] not in _LETTERS[wanted]:
            hint = f"; its tags are {', '.join(f'{one}-TYPE' for one in _LETTERS[wanted][:-1])}, O"
            if fits and not plain:
                hint = f'; the labels are of {fits}: write scheme = "{fits}"'
            raise SchemeError(f"{show(label)}: not of {wanted}{hint}", label)
    scheme = TagScheme(wanted, {one: (_PLACES[letters[one][0]], letters[one][1]) for one in labels})
    _check_complete(scheme)
    return scheme


def scheme_name(name: str) -> str | None:
    """Return this module's name for a scheme, given its letters in any order; else None.

    >>> scheme_name("IOBES"), scheme_name("iob2"), scheme_name("bmeso"), scheme_name("conll")
    ('BIOES', 'BIO', 'BMES', None)
    """
    wanted = set(name.upper().rstrip("12")) | {"O"}
    if wanted == set("IO"):
        return "IO"
    return next((one for one, letters in _LETTERS.items() if set(letters) == wanted), None)


def tags_of_types(types: Sequence[str], name: str = "") -> tuple[str, ...]:
    """Return the labels for types of entities; labels that are already tags are unchanged.

    >>> tags_of_types(["PER", "LOC"]), tags_of_types(["O", "B-PER"])
    (('O', 'B-PER', 'I-PER', 'B-LOC', 'I-LOC'), ('O', 'B-PER'))
    """
    if len(_letters(types)) == len(types) or any(label in "Oo" for label in types):
        return tuple(types)
    letters = _LETTERS.get(scheme_name(name or "BIO") or "", "")
    return ("O", *(f"{one}-{kind}" for kind in types for one in letters if one != "O"))


def _letters(labels: Sequence[str]) -> dict[str, tuple[str, str]]:
    """Return letter and type of the labels that have both, in either order."""
    found = {}
    for label in labels:
        if match := _BEFORE.fullmatch(label):
            letter, kind, outside = match.groups()
            found[label] = ("O", "") if outside else (letter.upper(), kind or "_")
    if len(found) == len(set(labels)):
        return found
    after = {label: match for label in labels if (match := _AFTER.fullmatch(label))}
    if len(after) == len(set(labels)):
        return {
            label: ("O", "") if match[3] else (match[2].upper(), match[1])
            for label, match in after.items()
        }
    return found


def _check_complete(scheme: TagScheme) -> None:
    """Refuse labels of an entity that no tag can end: it would never be recognised."""
    if not scheme.has_ends:
        return
    for label, (place, kind) in scheme.places.items():
        if place in "BI" and ("E", kind) not in scheme.places.values():
            end = next(one for one in _LETTERS[scheme.name] if _PLACES[one] == "E")
            raise SchemeError(
                f"{show(label)}: in {scheme.name} it needs a label {end}-{kind}", label
            )


@lru_cache
def scheme_of_model(labels: tuple[str, ...]) -> TagScheme | None:
    """Return the scheme of a model's labels; None if they do not mark entities.

    Labels of no known scheme are read as transformers' token classification pipeline aggregates
    them: ``B-`` begins an entity, and every other label except O continues one of its own name.
    """
    try:
        return scheme_of(labels)
    except SchemeError:
        if "O" not in labels:
            return None
    places = {}
    for label in labels:
        letter, kind = (label[0], label[2:]) if label[:2] in ("B-", "I-") else ("I", label)
        places[label] = ("O", "") if label == "O" else (letter, kind)
    return TagScheme("BIO", places)


def entities(tags: Sequence[str], scheme: TagScheme | None = None) -> list[Entity]:
    """Return the entities of a sequence of tags; without a scheme, in seqeval's default mode.

    Raises `SchemeError` for a text that is not a tag.

    >>> entities(["B-PER", "I-PER", "O", "I-LOC", "I-ORG"])
    [('PER', 0, 2), ('LOC', 3, 4), ('ORG', 4, 5)]
    """
    if scheme is not None:
        return scheme.entities(tags)
    letters = _letters(tags)
    for tag in tags:
        if tag not in letters:
            raise SchemeError(f"tag {show(tag)}: of no scheme; known: O, B-TYPE, I-TYPE", tag)
    return _entities([(_PLACES[letters[tag][0]], letters[tag][1]) for tag in tags], False, False)


def _entities(places: Iterable[tuple[str, str]], strict: bool, has_ends: bool) -> list[Entity]:
    found: list[Entity] = []
    open_kind: str | None = None
    start = token = -1
    for token, (place, kind) in enumerate(places):
        if open_kind is not None and (place in "BSO" or kind != open_kind):
            if not has_ends:
                found.append((open_kind, start, token))
            open_kind = None
        if open_kind is None and (place in "BS" or (place != "O" and not strict)):
            open_kind, start = kind, token
        if open_kind is not None and place in "ES":
            found.append((open_kind, start, token + 1))
            open_kind = None
    if open_kind is not None and not has_ends:
        found.append((open_kind, start, token + 1))
    return found
