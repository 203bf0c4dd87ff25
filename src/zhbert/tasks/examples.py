"""Examples of each kind of task, and predictions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Remark = Callable[[str], None]
"""Takes one line about what was left out or repaired."""

Value = str | float | Sequence[str]
"""A label, a number, several labels, the tags of a sentence, or an answer."""


class Example(Protocol):
    """What every kind of example has."""

    @property
    def id(self) -> str:
        """Its id in the file, or its number there, from 0."""

    @property
    def gold(self) -> Any:
        """What is to be predicted, as it is scored; None where the file does not say."""

    @property
    def size(self) -> int:
        """About how many characters it has, by which memory is estimated."""

    @property
    def shown(self) -> dict[str, Any]:
        """The id and the texts, by their keys in JSON; they are written with a prediction."""


@dataclass(frozen=True)
class Prediction:
    """A model's prediction of one example."""

    value: Value
    details: Mapping[str, Any] = field(default_factory=dict)
    """How sure it is, and more; plain data."""


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair of texts, with its label."""

    id: str
    text: str
    text_pair: str | None = None
    label: str | None = None
    """To regress: the number as it stands in the file; None where the file has no labels."""
    value: float | None = None
    """To regress: the number."""
    labels: tuple[str, ...] | None = None
    """Of several labels: those that the text has, in the card's order."""

    @property
    def gold(self) -> str | float | tuple[str, ...] | None:
        """What is to be predicted, as it is scored; None where the file does not say."""
        if self.labels is not None:
            return self.labels
        return self.label if self.value is None else self.value

    @property
    def size(self) -> int:
        """The characters of both texts."""
        return len(self.text) + len(self.text_pair or "")

    @property
    def shown(self) -> dict[str, Any]:
        """The id, the text and, of a pair, the second text."""
        pair = {} if self.text_pair is None else {"text_pair": self.text_pair}
        return {"id": self.id, "text": self.text, **pair}


@dataclass(frozen=True)
class TagExample:
    """A sentence of tokens (characters, in Chinese) with a tag for each."""

    id: str
    tokens: tuple[str, ...]
    tags: tuple[str, ...] | None = None

    @property
    def gold(self) -> tuple[str, ...] | None:
        """The tags."""
        return self.tags

    @property
    def size(self) -> int:
        """The number of tokens."""
        return len(self.tokens)

    @property
    def shown(self) -> dict[str, Any]:
        """The id and the tokens."""
        return {"id": self.id, "tokens": self.tokens}


@dataclass(frozen=True)
class SpanExample:
    """A question about a text, with every answer that counts as right."""

    id: str
    question: str
    context: str
    answers: tuple[str, ...] = ()
    """As they are scored; '' means that there is no answer, YES and NO are judgements."""
    starts: tuple[int, ...] = ()
    """Where each answer begins in ``context``, in characters; -1: it does not stand there."""
    kind: str | None = None
    """span, yes, no or none, as most answers say; None where the file has no answers."""
    domain: str | None = None
    """CJRC: civil or criminal."""

    @property
    def gold(self) -> tuple[str, ...]:
        """The answers."""
        return self.answers

    @property
    def size(self) -> int:
        """The characters of the context, of which the question is a small part."""
        return len(self.context)

    @property
    def shown(self) -> dict[str, Any]:
        """The id and the question."""
        return {"id": self.id, "question": self.question}

    @property
    def training_span(self) -> tuple[int, int] | None:
        """Begin and end, in characters, of the first answer that stands in the text.

        >>> SpanExample("1", "几个？", "有三个。", ("3个", "三个"), (-1, 1), "span").training_span
        (1, 3)
        """
        if self.kind == "span":
            for answer, start in zip(self.answers, self.starts, strict=True):
                if start >= 0:
                    return start, start + len(answer)
        return None
