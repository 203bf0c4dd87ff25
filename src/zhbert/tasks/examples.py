"""Examples and predictions of each kind of task."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Remark = Callable[[str], None]
"""Called with one line about what was left out or repaired."""

Value = str | float | Sequence[str]
"""A label, a number, several labels, the tags of a sentence, or an answer."""


class Example(Protocol):
    """The members that examples of every kind have."""

    @property
    def id(self) -> str:
        """The example's id in the file, or its number from 0."""

    @property
    def gold(self) -> Any:
        """The value to be predicted, in the form that is scored; None if the file has none."""

    @property
    def size(self) -> int:
        """The approximate number of characters, used to estimate memory."""

    @property
    def shown(self) -> dict[str, Any]:
        """The id and the texts, under their JSON keys in files of predictions."""


@dataclass(frozen=True)
class Prediction:
    """A model's prediction of one example."""

    value: Value
    details: Mapping[str, Any] = field(default_factory=dict)
    """Plain data about the prediction, such as its probability."""


@dataclass(frozen=True)
class TextExample:
    """A text, or a pair of texts, with its label."""

    id: str
    text: str
    text_pair: str | None = None
    label: str | None = None
    """For regression: the number as it is spelled in the file. None if the file has no labels."""
    value: float | None = None
    """For regression: the number."""
    labels: tuple[str, ...] | None = None
    """For several labels: those that the text has, in the card's order."""

    @property
    def gold(self) -> str | float | tuple[str, ...] | None:
        """The value to be predicted, in the form that is scored; None if the file has none."""
        if self.labels is not None:
            return self.labels
        return self.label if self.value is None else self.value

    @property
    def size(self) -> int:
        """The number of characters in both texts."""
        return len(self.text) + len(self.text_pair or "")

    @property
    def shown(self) -> dict[str, Any]:
        """The id, the text and, for a pair, the second text."""
        pair = {} if self.text_pair is None else {"text_pair": self.text_pair}
        return {"id": self.id, "text": self.text, **pair}


@dataclass(frozen=True)
class TagExample:
    """A sentence of tokens (in Chinese, characters) with one tag each."""

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
    """A question about a text, with every answer that is accepted."""

    id: str
    question: str
    context: str
    answers: tuple[str, ...] = ()
    """The answers in the form that is scored; '' means no answer, YES and NO are judgements."""
    starts: tuple[int, ...] = ()
    """Where each answer begins in ``context``, in characters; -1: it does not occur there."""
    kind: str | None = None
    """span, yes, no or none, as most answers are; None if the file has no answers."""
    domain: str | None = None
    """For CJRC: civil or criminal."""

    @property
    def gold(self) -> tuple[str, ...]:
        """The answers."""
        return self.answers

    @property
    def size(self) -> int:
        """The number of characters in the context; the question is short in comparison."""
        return len(self.context)

    @property
    def shown(self) -> dict[str, Any]:
        """The id and the question."""
        return {"id": self.id, "question": self.question}

    @property
    def training_span(self) -> tuple[int, int] | None:
        """Begin and end, in characters, of the first answer that occurs in the text.

        >>> SpanExample("1", "几个？", "有三个。", ("3个", "三个"), (-1, 1), "span").training_span
        (1, 3)
        """
        if self.kind == "span":
            for answer, start in zip(self.answers, self.starts, strict=True):
                if start >= 0:
                    return start, start + len(answer)
        return None


@dataclass(frozen=True)
class Passages:
    """The distinct passages among which questions are searched."""

    ids: tuple[str, ...]
    texts: tuple[str, ...]


@dataclass(frozen=True)
class EmbedExample:
    """Texts whose vectors shall be near to each other, or far apart."""

    id: str
    texts: tuple[str, ...]
    """As ``form`` says."""
    form: str
    """``scored``: two texts and how similar they are; ``judged``: two texts and whether they mean
    the same; ``pairs``: an anchor and its positive (paraphrases, or a question and its passage);
    ``triples``: these and one or more negatives; ``texts``: one text."""
    value: float | None = None
    """For ``scored``: the similarity, scaled to 0 to 1; for ``judged``: 1.0 (yes) or 0.0 (no). None
    if the file has none."""
    source: str = ""
    """The name of the card that the example was read by."""
    relevant: tuple[str, ...] = ()
    """For ``pairs`` and ``triples``: the ids of all right passages, which include the positive."""
    passages: Passages | None = field(default=None, repr=False, compare=False)
    """For ``pairs`` and ``triples`` that are scored: where the right passages are searched, which
    is the same object for all examples of a split."""

    @property
    def gold(self) -> float | tuple[str, ...] | None:
        """The value to be predicted: a similarity, or the ids of the right passages."""
        return self.relevant or self.value

    @property
    def size(self) -> int:
        """The number of characters in all texts."""
        return sum(map(len, self.texts))

    @property
    def shown(self) -> dict[str, Any]:
        """The id, the text and, except for ``texts``, the second text."""
        return {"id": self.id, **dict(zip(("text", "text_pair"), self.texts, strict=False))}
