"""Sentences with tags: one token per line, one sentence per line, or spans in JSON.

The sentence form is ``李/B-PER 白/I-PER``. The first line determines the form, whatever the card
says.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from zhbert.errors import ZhbertError
from zhbert.tasks.card import TaskCard
from zhbert.tasks.entity_spans import SpanReader, tags_of
from zhbert.tasks.schemes import scheme_of
from zhbert.tasks.sources import (
    Source,
    first_line,
    holds_json,
    json_records,
    numbered_lines,
    scalar,
)
from zhbert.wording import show

# A token and its tag joined, as in 李/B-PER.
_JOINED = re.compile(r"(.+)/([^/ \t]+)", re.DOTALL)
COLUMNS_APART = re.compile("[ \t]+")
"""Not str.split(): U+3000 and similar spaces are tokens, not separators."""


@dataclass(frozen=True)
class Sentence:
    """Tokens, with their tags if all of them are the card's."""

    id: str | None
    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None
    where: str


def sentences(
    card: TaskCard, path: Source, counts: Counter[str], *, labelled: bool = True
) -> Iterator[Sentence]:
    """Yield the sentences of a file; unless ``labelled``, tags may be missing or unknown.

    Raises ZhbertError with file and line for a tag that is not in the card, and so on.
    """
    if holds_json(path):
        found = _of_records(card, path, counts, labelled)
    elif is_joined(card, path):
        found = _of_joined_lines(card, path, labelled)
    else:
        found = _of_lines(card, path, counts, labelled)
    scheme = scheme_of(card.data.labels)
    for one in found:
        if labelled and one.tags is not None and (broken := scheme.broken(one.tags)):
            counts[f"tags that do not keep to {scheme.name}, of no entity"] += broken
        yield one


def token_and_tag(text: str, where: str, card: TaskCard) -> tuple[str, str]:
    """Return a line's token and tag, separated by spaces or a tab; without a tag: ''.

    The card's ``text`` and ``label`` choose among several columns, by number.
    """
    text = text.rstrip(" \t")
    if card.data.label:
        fields = text.split("\t") if "\t" in text else COLUMNS_APART.split(text)
        first, second = (int(key[0]) for key in (card.data.text or (0,), card.data.label))
        if len(fields) > max(first, second):
            return fields[first] or " ", fields[second]
        raise ZhbertError(
            f"{where}: {len(fields)} columns; the card names column {max(first, second)}"
        )
    cut = max(text.rfind(" "), text.rfind("\t"))
    if cut < 0:
        return text, ""
    # Only space precedes the tag: the token is a space.
    token = text[:cut].strip(" \t") or " "
    if len(token) > 1 and (" " in token or "\t" in token):
        raise ZhbertError(
            f"{where}: more than two columns; write a character and its tag a line, or name the "
            "columns in the card, for example: text = 0, label = 3"
        )
    return token, text[cut + 1 :]


def _of_lines(
    card: TaskCard, path: Source, counts: Counter[str], labelled: bool
) -> Iterator[Sentence]:
    for lines in sentence_lines(path, counts):
        pairs = []
        for line, text in lines:
            token, tag = token_and_tag(text, f"{path}:{line}", card)
            tag = _known(token, tag, card, f"{path}:{line}", labelled)
            pairs.append((without_place(token, card), tag))
        yield _sentence(card, pairs, f"{path}:{lines[0][0]}")


def sentence_lines(path: Source, counts: Counter[str]) -> Iterator[list[tuple[int, str]]]:
    """Yield the numbered lines of each sentence; blank lines separate sentences."""
    found: list[tuple[int, str]] = []
    for line, text in numbered_lines(path):
        if text.startswith("-DOCSTART-"):
            counts["-DOCSTART- lines, of no sentence"] += 1
        # Other white space is no separator: an ideographic space is a token that may have a tag.
        elif text.strip(" \t"):
            found.append((line, text))
            continue
        if found:
            yield found
            found = []
    # The end of the file also ends a sentence.
    if found:
        yield found


def is_joined(card: TaskCard, path: Source) -> bool:
    """Return whether each token of the first line ends with a slash and a tag of the card."""
    fields = first_line(path).split()
    matches = [_JOINED.fullmatch(field) for field in fields]
    return bool(fields) and all(m is not None and m[2] in card.data.labels for m in matches)


def _of_joined_lines(card: TaskCard, path: Source, labelled: bool) -> Iterator[Sentence]:
    for line, text in numbered_lines(path):
        where = f"{path}:{line}"
        pairs = []
        for field in COLUMNS_APART.split(text.strip(" \t")):
            if field:
                match = _JOINED.fullmatch(field)
                token, tag = match.groups() if match else (field, "")
                pairs.append((token, _known(token, tag, card, where, labelled)))
        if pairs:
            yield _sentence(card, pairs, where)


def _of_records(
    card: TaskCard, path: Source, counts: Counter[str], labelled: bool
) -> Iterator[Sentence]:
    scheme = scheme_of(card.data.labels)
    reader = SpanReader(card.language, card.data.labels, counts)
    for line, table in json_records(path):
        where = f"{path}:{line}"
        given = table.get("id")
        identity = None if given is None else scalar(given, f"{where}: id")
        record = reader.read(table, where, labelled=labelled)
        if record is not None:
            yield Sentence(identity, record.tokens, tags_of(record, scheme, where), where)


def _known(token: str, tag: str, card: TaskCard, where: str, labelled: bool) -> str:
    if labelled and tag not in card.data.labels:
        what = card.data.not_a_label(tag) if tag else f"{show(token)} has no tag"
        raise ZhbertError(f"{where}: {what}")
    return tag


def without_place(token: str, card: TaskCard) -> str:
    """Return a token without its index in its word, if the files have one (``科0``)."""
    return token[0] if card.data.drop_word_places and token[1:].isdigit() else token


def _sentence(card: TaskCard, pairs: list[tuple[str, str]], where: str) -> Sentence:
    tokens, tags = zip(*pairs, strict=True)
    return Sentence(None, tokens, tags if set(tags) <= set(card.data.labels) else None, where)
