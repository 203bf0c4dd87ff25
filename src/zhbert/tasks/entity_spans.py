"""Entities as spans of a text: CLUENER's lines, Doccano's and Label Studio's exports.

CLUENER: https://github.com/CLUEbenchmark/CLUENER2020.

============ ==================================================================================
CLUENER      ``{"text": "李白", "label": {"name": {"李白": [[0, 1]]}}}``: ends are included
Doccano      ``{"text": "李白", "label": [[0, 2, "name"]]}`` (or ``labels``, ``entities``), or
             objects with start_offset, end_offset and label: ends are not included
Label Studio a list of ``{"data": {"text": …}, "annotations": [{"result": [{"value": {"start",
             "end", "text", "labels"}}]}]}``, or its JSON_MIN, in which spans stand in ``label``
tokens       ``{"tokens": ["李", "白"], "ner_tags": ["B-name", "I-name"]}``: as the datasets
             library keeps them; tags may be the numbers of the card's labels
============ ==================================================================================
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.tasks.offsets import Offsets, whole_number
from zhbert.tasks.schemes import Entity, TagScheme
from zhbert.tasks.sources import first_of
from zhbert.wording import listed, shortly

_TEXT = ("text", "sentence", "content", "data")
_TOKENS, _TAGS = ("tokens", "words"), ("ner_tags", "tags", "labels", "label")
_SPANS = ("label", "labels", "entities", "spans", "annotations")
_START, _END = ("start_offset", "start", "begin"), ("end_offset", "end")
_TYPE, _SURFACE = ("label", "labels", "type", "entity_type", "tag"), ("text", "entity")


@dataclass(frozen=True)
class EntitySpan:
    """An entity as it was read from a file."""

    kind: str
    start: int
    end: int
    """Exclusive."""
    surface: str | None = None
    """The entity's text, if the file repeats it."""


@dataclass(frozen=True)
class SpanRecord:
    """A sentence as it was read, with spans or tags; with neither, it is unlabelled."""

    tokens: tuple[str, ...]
    spans: tuple[EntitySpan, ...] | None = None
    tags: tuple[str, ...] | None = None


class SpanReader:
    """Reads the objects of one file; ``counts`` counts what is left out or repaired."""

    def __init__(self, language: str, labels: Sequence[str], counts: Counter[str]) -> None:
        self._language, self._labels, self._counts = language, labels, counts
        self._offsets = Offsets(counts, "spans")

    def read(
        self, table: Mapping[Any, Any], where: str, *, labelled: bool = True
    ) -> SpanRecord | None:
        """Return the sentence in one object; None if it is left out.

        Raises ZhbertError, which begins with ``where``, if it has none of the known forms.
        """
        tokens = first_of(table, _TOKENS)
        if isinstance(tokens, list):
            if not all(isinstance(token, str) for token in tokens):
                raise ZhbertError(f"{where}: tokens must be a list of texts")
            tags = None
            if labelled:
                tags = _tags(first_of(table, _TAGS), len(tokens), self._labels, where)
            return SpanRecord(tuple(tokens), tags=tags)
        text, given = first_of(table, _TEXT), first_of(table, _SPANS)
        if isinstance(text, Mapping):
            text = _text_of_task(text, where)
            given = _annotation(table, where, self._counts) if labelled else None
            if labelled and given is None:
                return None
        if not isinstance(text, str):
            there = listed(table) or "nothing"
            raise ZhbertError(f"{where}: no 'tokens' and no 'text'; there: {there}")
        characters = tuple(tokens_of(text, self._language))
        if not labelled:
            return SpanRecord(characters)
        if given is None:
            raise ZhbertError(f"{where}: no 'label' with the spans; there: {listed(table)}")
        found = [self._found(*span, text, where) for span in _spans(given, where, self._counts)]
        kept = list(_apart(found, self._counts))
        if self._language != "zh":
            kept = list(_in_words(kept, text, self._counts))
        return SpanRecord(characters, tuple(kept))

    def _found(self, span: EntitySpan, included: bool, text: str, where: str) -> EntitySpan:
        """Return the span in code points; if the file repeats its text, at that text's position."""
        start, end, surface = span.start, span.end, span.surface
        inside = 0 <= start < end <= len(text)
        if surface is None:
            if not inside:
                raise ZhbertError(
                    f"{where}: the span {start} to {end} ({shortly(span.kind)}) is not in its text "
                    f"of {len(text)} characters; are these bytes, or UTF-16 units?"
                )
            return span
        if not surface or surface not in text:
            raise ZhbertError(f"{where}: {shortly(surface)} does not stand in its text")
        if start >= 0 and text.startswith(surface, start) and end != start + len(surface):
            what = "are not" if included else "are"
            self._counts[f"spans whose ends {what} included, told from their texts"] += 1
        else:
            start = self._offsets.place(text, surface, start)
        return EntitySpan(span.kind, start, start + len(surface), surface)


def tokens_of(text: str, language: str) -> list[str]:
    """Return the tokens: characters in Chinese, so that indices are offsets; otherwise words."""
    return list(text) if language == "zh" else text.split()


def joint_of(tokens: Sequence[str]) -> str:
    """Return the separator of tokens: "" between characters, otherwise a space."""
    return "" if all(len(token) == 1 for token in tokens) else " "


def tags_of(record: SpanRecord, scheme: TagScheme, where: str) -> tuple[str, ...] | None:
    """Return a tag for each token; None if the record is not labelled."""
    if record.spans is None:
        return record.tags
    try:
        row = scheme.tags(len(record.tokens), [(s.kind, s.start, s.end) for s in record.spans])
    except ZhbertError as error:
        raise ZhbertError(f"{where}: {error}") from None
    return tuple(row)


def cluener_label(
    tokens: Sequence[str], found: Iterable[Entity]
) -> dict[str, dict[str, list[list[int]]]]:
    """Return entities in the form of CLUENER's ``label``: type, text, first and last character.

    >>> cluener_label("李白到成都", [("name", 0, 2), ("address", 3, 5)])
    {'name': {'李白': [[0, 1]]}, 'address': {'成都': [[3, 4]]}}
    """
    joint = joint_of(tokens)
    label: dict[str, dict[str, list[list[int]]]] = {}
    for kind, start, end in found:
        before = len(joint.join(tokens[:start])) + (len(joint) if start else 0)
        surface = joint.join(tokens[start:end])
        places = label.setdefault(kind, {}).setdefault(surface, [])
        places.append([before, before + len(surface) - 1])
    return label


# -- contents of a record --------------------------------------------------------------------------


def _tags(tags: Any, count: int, labels: Sequence[str], where: str) -> tuple[str, ...]:
    if not isinstance(tags, list) or len(tags) != count:
        there = f"{len(tags)} tags" if isinstance(tags, list) else "no list of tags"
        raise ZhbertError(f"{where}: {there} for {count} tokens")
    row = []
    for tag in tags:
        if isinstance(tag, int) and not isinstance(tag, bool) and 0 <= tag < len(labels):
            tag = labels[tag]
        if tag not in labels:
            raise ZhbertError(f"{where}: the tag {shortly(tag)} is not in the card")
        row.append(tag)
    return tuple(row)


def _text_of_task(data: Mapping[Any, Any], where: str) -> Any:
    """Return the text of a Label Studio task: under the usual key, or the only text there is."""
    text = first_of(data, _TEXT)
    if text is None:
        texts = [value for value in data.values() if isinstance(value, str)]
        if len(texts) != 1:
            raise ZhbertError(f"{where}: no 'text' in data; there: {listed(data) or 'nothing'}")
        text = texts[0]
    return text


def _annotation(task: Mapping[Any, Any], where: str, counts: Counter[str]) -> list[Any] | None:
    """Return the spans of Label Studio's first annotation that was not cancelled."""
    every = _list(task.get("annotations", task.get("completions")), "annotations", where)
    done = [one for one in every if isinstance(one, Mapping) and not one.get("was_cancelled")]
    if cancelled := len(every) - len(done):
        counts["cancelled annotations, not read"] += cancelled
    if not done:
        counts["tasks without an annotation, left out"] += 1
        return None
    if len(done) > 1:
        counts["further annotations of a task, of which the first is read"] += len(done) - 1
    results = _list(done[0].get("result"), "result", where)
    values = [one.get("value") for one in results if isinstance(one, Mapping)]
    spans = [one for one in values if isinstance(one, Mapping) and "start" in one]
    if len(spans) < len(values):
        counts["results that are no spans, not read"] += len(values) - len(spans)
    return spans


def _list(value: Any, key: str, where: str) -> list[Any]:
    """Return the list under a key, or an empty list if the key is missing."""
    if value is not None and not isinstance(value, list):
        raise ZhbertError(f"{where}: {key} = {shortly(value)}: must be a list")
    return value or []


def _spans(given: Any, where: str, counts: Counter[str]) -> Iterator[tuple[EntitySpan, bool]]:
    """Yield the spans, and whether their ends are inclusive."""
    if isinstance(given, Mapping):
        for kind, surfaces in given.items():
            if not isinstance(surfaces, Mapping):
                raise ZhbertError(f"{where}: {shortly(kind)}: must be {{entity: [[first, last]]}}")
            for surface, places in surfaces.items():
                for place in places if isinstance(places, list) else [places]:
                    if not isinstance(place, list) or len(place) != 2:
                        raise ZhbertError(f"{where}: {shortly(place)}: must be [first, last]")
                    start, last = (_offset(value, where) for value in place)
                    yield EntitySpan(str(kind), start, last + 1, str(surface)), True
        return
    if not isinstance(given, list):
        raise ZhbertError(
            f"{where}: {shortly(given)}: must be a list of spans, or CLUENER's object"
        )
    for one in given:
        if isinstance(one, list) and len(one) == 3:
            surface = None
            start, end, kind = one
        elif isinstance(one, Mapping):
            start, end, kind, surface = (
                first_of(one, names) for names in (_START, _END, _TYPE, _SURFACE)
            )
        else:
            raise ZhbertError(f"{where}: {shortly(one)}: must be [start, end, type]")
        if isinstance(kind, list):
            if len(kind) > 1:
                counts["spans of several types, of which the first is read"] += 1
            kind = kind[0] if kind else None
        if not isinstance(kind, str):
            raise ZhbertError(
                f"{where}: {shortly(one)}: a span must have a start, an end and a type"
            )
        surface = surface if isinstance(surface, str) else None
        yield EntitySpan(kind, _offset(start, where), _offset(end, where), surface), False


def _offset(value: Any, where: str) -> int:
    number = whole_number(value)
    if number is None:
        raise ZhbertError(f"{where}: {shortly(value)}: a span's ends must be whole numbers")
    return number


# -- positions -------------------------------------------------------------------------------------


def _apart(spans: Iterable[EntitySpan], counts: Counter[str]) -> Iterator[EntitySpan]:
    """Yield the spans in order, without those that overlap: a token has only one tag."""
    end = 0
    for span in sorted(dict.fromkeys(spans), key=lambda one: (one.start, -one.end)):
        if span.start < end:
            counts["spans that lie inside or across another, left out"] += 1
        else:
            yield span
            end = span.end


def _in_words(spans: Sequence[EntitySpan], text: str, counts: Counter[str]) -> Iterator[EntitySpan]:
    """Yield the spans with offsets in words, separated by white space, not in characters."""
    words = [match.span() for match in re.finditer(r"\S+", text)]
    free = 0
    for span in spans:
        inside = [
            n for n, (start, end) in enumerate(words) if start < span.end and end > span.start
        ]
        if not inside or inside[0] < free:
            counts["spans without a word of their own, left out"] += 1
            continue
        if (words[inside[0]][0], words[inside[-1]][1]) != (span.start, span.end):
            counts["spans that begin or end inside a word, widened to it"] += 1
        free = inside[-1] + 1
        yield EntitySpan(span.kind, inside[0], free, span.surface)
