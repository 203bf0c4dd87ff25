"""The passages that questions are searched in: distinct, each with an id."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from zhbert.errors import ZhbertError
from zhbert.tasks.examples import EmbedExample, Passages
from zhbert.wording import show


def with_passages(
    examples: Sequence[EmbedExample], further: Mapping[str, Iterable[EmbedExample]] | None = None
) -> list[EmbedExample]:
    """Return examples to be searched for, with the passages and the ids of the right ones.

    The passages are all positives and negatives of the examples, and of the examples of ``further``
    splits, by name. Equal passages are one. The id of a passage is that of the first example with
    it; of a negative, with its number (``7#1``); of a further split, after its name (``train:7``).
    All passages of examples with the same anchor are right for each of them. Raises ZhbertError if
    two passages would have the same id.

    >>> texts = {"1": ("几月开学？", "三月。"), "2": ("何时？", "三月。")}
    >>> dev = [EmbedExample(id_, pair, "pairs") for id_, pair in texts.items()]
    >>> train = [EmbedExample("1", ("谁？", "李白。"), "pairs")]
    >>> found = with_passages(dev, {"train": train})
    >>> found[1].relevant, found[1].passages
    (('1',), Passages(ids=('1', 'train:1'), texts=('三月。', '李白。')))
    """
    ids: dict[str, str] = {}
    right: dict[str, dict[str, None]] = {}
    for example in examples:
        _add(ids, example, example.id)
        right.setdefault(example.texts[0], {})[ids[example.texts[1]]] = None
    for name, others in (further or {}).items():
        for example in others:
            _add(ids, example, f"{name}:{example.id}")
    if twice := [id_ for id_, count in Counter(ids.values()).items() if count > 1]:
        raise ZhbertError(f"the id {show(twice[0])} would be that of two passages: rename it")
    passages = Passages(tuple(ids.values()), tuple(ids))
    return [
        replace(one, relevant=tuple(right[one.texts[0]]), passages=passages) for one in examples
    ]


def _add(ids: dict[str, str], example: EmbedExample, name: str) -> None:
    for number, text in enumerate(example.texts[1:]):
        ids.setdefault(text, f"{name}#{number}" if number else name)
