"""Entities and their scores by seqeval's documented rules, slowly, as an oracle.

``default_entities`` follows the two tests of CoNLL's script, conlleval, which seqeval's default
mode took over: does an entity end before this tag, does one begin with it?
``strict_entities`` follows the patterns of seqeval's schemes IOB2, IOBES and BILOU
(https://github.com/chakki-works/seqeval, ``seqeval/scheme.py``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Entity = tuple[str, int, int]


def _cut(tag: str) -> tuple[str, str]:
    return tag[0], tag[1:].replace("_", "-", 1).split("-", maxsplit=1)[-1] or "_"


def default_entities(tags: Sequence[str]) -> list[Entity]:
    found = []
    begin = 0
    before, kind_before = "O", ""
    for place, tag in enumerate([*tags, "O"]):
        now, kind = _cut(tag)
        if _ends(before, now, kind_before, kind):
            found.append((kind_before, begin, place))
        if _begins(before, now, kind_before, kind):
            begin = place
        before, kind_before = now, kind
    return found


def _ends(before: str, now: str, kind_before: str, kind: str) -> bool:
    if before in "ES":
        return True
    if before in "BI" and now in "BSO":
        return True
    return before != "O" and kind_before != kind


def _begins(before: str, now: str, kind_before: str, kind: str) -> bool:
    if now in "BS":
        return True
    if before in "ESO" and now in "EI":
        return True
    return now != "O" and kind_before != kind


# What may begin an entity whatever stands before it; what goes on, of the same type; what may end
# one whatever comes after it. Of IOB2 anything ends an entity.
STRICT = {
    "BIO": ("B", {"BI", "II"}, "BI"),
    "BIOS": ("BS", {"BI", "II"}, "BIS"),
    "BIOES": ("BS", {"BI", "BE", "II", "IE"}, "ES"),
    "BMES": ("BS", {"BM", "BE", "MM", "ME"}, "ES"),
    "BMEWO": ("BW", {"BM", "BE", "MM", "ME"}, "EW"),
    "BILOU": ("BU", {"BI", "BL", "II", "IL"}, "LU"),
}


def strict_entities(tags: Sequence[str], scheme: str) -> list[Entity]:
    starts, inside, ends = STRICT[scheme]
    found = []
    place = 0
    while place < len(tags):
        letter, kind = _cut(tags[place])
        end = place + 1
        if letter in starts:
            while end < len(tags) and _cut(tags[end])[1] == kind and (
                tags[end - 1][0] + tags[end][0] in inside
            ):  # fmt: skip
                end += 1
            if tags[end - 1][0] in ends:
                found.append((kind, place, end))
        place = end
    return found


def f1(
    gold: Sequence[Sequence[str]],
    predicted: Sequence[Sequence[str]],
    entities: Callable[[Sequence[str]], list[Entity]] = default_entities,
) -> float:
    """Micro F1, in per cent."""
    there, found = (
        {(row, *one) for row, tags in enumerate(rows) for one in entities(tags)}
        for rows in (gold, predicted)
    )
    return 200 * len(there & found) / (len(there) + len(found)) if there or found else 0.0
