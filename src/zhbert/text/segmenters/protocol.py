"""What a segmenter is, and what those that load one may ask of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.text.sentences import Array
from zhbert.wording import counted


@runtime_checkable
class Segmenter(Protocol):
    """Finds words: says where they end, in characters of the text that it was given.

    To write one, derive from this class, set ``name``, ``version`` and ``options``, and write
    ``segment``; all else has a default.

    >>> class Characters(Segmenter):
    ...     name, version, options = "characters", "1", {}
    ...
    ...     def segment(self, texts):
    ...         return [np.arange(1, len(text) + 1, dtype=np.int32) for text in texts]
    >>> Characters().segment(["语言", ""])
    [array([1, 2], dtype=int32), array([], dtype=int32)]
    """

    name: str
    version: str
    options: dict[str, Any]
    """All settings that change the words, as values of JSON: corpus.json records them."""
    remarks: Sequence[str] = ()
    """What the user should know about this segmenter before it is used, a line each."""
    unaligned: int = 0
    """How many sentences so far have a word for each character, for want of better ones."""

    @abstractmethod
    def segment(self, texts: Sequence[str]) -> list[Array]:
        """For each text the ends of its words, in characters: int32, increasing.

        The last end is the text's length; an empty text has none. The words of a text must not
        depend on the texts beside it.
        """

    def segment_run(self, text: str, codes: Array, text_ends: Array, apart: Array) -> Array:
        """The word ends of many texts that stand in ``text`` one after another: int32, increasing.

        For segmenters that are faster on long text. Text t is
        ``text[text_ends[t - 1]:text_ends[t]]``; texts are sentences and end with a line or an end
        mark, except those marked in ``apart`` (bool), which were cut inside a run of letters.
        ``codes`` are the code points of ``text``. A text's end may be missing in the result: it
        ends a word in any case.
        """
        starts = [0, *text_ends[:-1].tolist()]
        parts = self.segment([text[a:b] for a, b in zip(starts, text_ends, strict=True)])
        shifted = [part + start for part, start in zip(parts, starts, strict=True)]
        return np.concatenate(shifted).astype(np.int32) if shifted else np.zeros(0, np.int32)


class LoadSegmenter(Protocol):
    """Makes a segmenter; raises ZhbertError for an option that it does not take."""

    def __call__(
        self, *, user_words: Path | None, traditional: str, model: str | Path | None
    ) -> Segmenter:
        """The options are those of ``zhbert.load_segmenter``."""


def words_of(segmenter: Segmenter, texts: Sequence[str]) -> list[list[str]]:
    """Each text's words, without the blanks around them."""
    found = []
    for text, ends in zip(texts, segmenter.segment(texts), strict=True):
        words = (text[a:b].strip() for a, b in pairwise([0, *ends.tolist()]))
        found.append([word for word in words if word])
    return found


def describe_segmenter(segmenter: Segmenter) -> dict[str, Any]:
    """A segmenter for JSON: its name, version and options, on which its words depend."""
    return {
        "name": segmenter.name,
        "version": segmenter.version,
        "options": segmenter.options,
    }


def refuse_model(name: str, model: str | Path | None) -> None:
    """Raise ZhbertError if a model is given to a segmenter that has no models."""
    if model is not None:
        raise ZhbertError(f"--segmenter-model {model}: the {name} segmenter has no model to choose")


def describe_unaligned(segmenter: str, sentences: int) -> str:
    """A remark on the sentences that ``Segmenter.unaligned`` counts."""
    return (
        f"{counted(sentences, 'sentence', 'has/have')} a word for each character: what "
        f"{segmenter} made of it was not found in the text"
    )
