"""What a segmenter is, and what those that load one may ask of it."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.text.sentences import Array
from zhbert.wording import counted, listed


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
    loader: Callable[[], Segmenter] | None = None
    """What `zhbert.load_segmenter` has made this one with: so other processes make it again."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> str | tuple[Any, ...]:
        # Libraries' dictionaries and models cannot be pickled, their files' names can.
        return (self.loader, ()) if self.loader else super().__reduce_ex__(protocol)

    @abstractmethod
    def segment(self, texts: Sequence[str]) -> list[Array]:
        """For each text the ends of its words, in characters: int32, increasing.

        The last end is the text's length; an empty text has none. The words of a text must not
        depend on the texts beside it.
        """

    def segment_run(self, text: str, codes: Array, text_ends: Array, apart: Array) -> Array:
        """Return the word ends of many texts, concatenated in ``text``: int32, increasing.

        For segmenters that are faster on long text. Text t is
        ``text[text_ends[t - 1]:text_ends[t]]``; texts are sentences and end with a line or an end
        mark, except those marked in ``apart`` (bool), which were cut inside a run of letters.
        ``codes`` are the code points of ``text``. A text's end may be missing in the result: it
        ends a word in any case.
        """
        starts = [0, *text_ends[:-1].tolist()]
        parts = word_ends_of(self, [text[a:b] for a, b in zip(starts, text_ends, strict=True)])
        shifted = [part + start for part, start in zip(parts, starts, strict=True)]
        return np.concatenate(shifted).astype(np.int32) if shifted else np.zeros(0, np.int32)


class LoadSegmenter(Protocol):
    """Makes a segmenter; raises ZhbertError for an option that it does not take."""

    def __call__(
        self, *, user_words: Path | None, traditional: str, model: str | Path | None
    ) -> Segmenter:
        """Make a segmenter; the options are those of ``zhbert.load_segmenter``."""


def check_segmenter(segmenter: Any) -> Segmenter:
    """Return ``segmenter``; raise ZhbertError if it is none, or lacks a member that must be set."""
    if isinstance(segmenter, type):
        raise ZhbertError(f"segmenter {segmenter.__name__}: a class; an instance of it is needed")
    members = ("name", "version", "options", "remarks", "unaligned", "segment", "segment_run")
    missing = [member for member in members if not hasattr(segmenter, member)]
    if missing:
        raise ZhbertError(
            f"segmenter {type(segmenter).__name__}: has no {listed(missing)}; derive it from "
            "zhbert.Segmenter, and set name, version and options"
        )
    found: Segmenter = segmenter
    return found


def word_ends_of(segmenter: Segmenter, texts: Sequence[str]) -> list[Array]:
    """Return the checked result of ``segmenter.segment(texts)``, as int32.

    Raises:
        ZhbertError: it is not what `Segmenter.segment` promises.
    """
    found: Any = segmenter.segment(texts)
    problem = ""
    if not isinstance(found, list):
        problem = f"a list of arrays is expected; got {type(found).__name__}"
    elif len(found) != len(texts):
        problem = (
            f"an array for each of {counted(len(texts), 'text')} is expected; got {len(found)}"
        )
    elif not _are_word_ends(found, texts):
        number, wrong = next(
            (number, wrong)
            for number, (ends, text) in enumerate(zip(found, texts, strict=True))
            if (wrong := _describe_wrong_ends(ends, text))
        )
        text = texts[number]
        shown = text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
        problem = (
            f"text {number + 1:,} of {len(texts):,}, '{shown}' "
            f"({counted(len(text), 'character')}): {wrong}"
        )
    if problem:
        raise ZhbertError(f"segmenter {segmenter.name}: segment(): {problem}")
    return [ends.astype(np.int32, copy=False) for ends in found]


def check_run_ends(segmenter: Segmenter, ends: Any, length: int) -> Array:
    """Return what `Segmenter.segment_run` found in ``length`` characters, as int32.

    Raises:
        ZhbertError: these are no word ends.
    """
    wrong = _describe_type(ends)
    if (
        not wrong
        and len(ends)
        and (ends[0] < 1 or ends[-1] > length or (ends[1:] <= ends[:-1]).any())
    ):
        wrong = f"ends must increase from 1 to {length}"
    if wrong:
        raise ZhbertError(f"segmenter {segmenter.name}: segment_run(): {wrong}")
    checked: Array = ends.astype(np.int32, copy=False)
    return checked


# Characters of a text that a message shows.
_SHOWN = 8


def _are_word_ends(found: list[Any], texts: Sequence[str]) -> bool:
    """Return whether all of these are the word ends of their texts. Fast for many short texts."""
    if not all(isinstance(ends, np.ndarray) and _is_integers(ends) for ends in found):
        return False
    if not found:
        return True
    sizes = np.fromiter(map(len, found), np.int64, len(found))
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    text_ends = np.cumsum(lengths)
    # As if the texts stood one after another.
    ends = np.concatenate(found, dtype=np.int64, casting="unsafe")
    ends += np.repeat(text_ends - lengths, sizes)
    filled = sizes > 0
    return bool(
        np.array_equal(filled, lengths > 0)
        and (np.diff(ends, prepend=0) > 0).all()
        and np.array_equal(ends[np.cumsum(sizes)[filled] - 1], text_ends[filled])
    )


def _is_integers(array: Array) -> bool:
    return array.ndim == 1 and array.dtype.kind in "iu"


def _describe_type(ends: Any) -> str:
    """What is wrong with ``ends`` if they are no array of integers; "" if they are one."""
    if not isinstance(ends, np.ndarray):
        return f"an array of integers is expected; got {type(ends).__name__}"
    if not _is_integers(ends):
        return f"an array of integers is expected; got {ends.dtype}, shape {ends.shape}"
    return ""


def _describe_wrong_ends(ends: Any, text: str) -> str:
    """What is wrong with the word ends of a text; "" if nothing is.

    >>> _describe_wrong_ends(np.array([2, 2, 1]), "使用语言词")
    'ends must increase and end at 5; got 2, 2, 1 (ends are positions, not lengths)'
    >>> _describe_wrong_ends(np.array([1, 2, 3, 4]), "使用语言词")
    'ends must increase and end at 5; got …, 2, 3, 4'
    """
    wrong = _describe_type(ends)
    if wrong:
        return wrong
    places = ends.tolist()
    if not text:
        return f"an empty text has no words; got {listed(places)}" if places else ""
    at = next((k for k, (a, b) in enumerate(pairwise([0, *places])) if b <= a), None)
    if at is None:
        if places and places[-1] == len(text):
            return ""
        at = len(places) - 1
    # The first end that is wrong, and its neighbours.
    first, last = max(0, min(at - 1, len(places) - 3)), min(len(places), max(at + 2, 3))
    got = ", ".join(["…"] * (first > 0) + list(map(str, places[first:last])))
    got += ", …" if last < len(places) else ""
    hint = " (ends are positions, not lengths)" if sum(places) == len(text) else ""
    return f"ends must increase and end at {len(text)}; got {got or 'none'}{hint}"


def words_of(segmenter: Segmenter, texts: Sequence[str]) -> list[list[str]]:
    """Return each text's words, without the blanks around them."""
    found = []
    for text, ends in zip(texts, word_ends_of(segmenter, texts), strict=True):
        words = (text[a:b].strip() for a, b in pairwise([0, *ends.tolist()]))
        found.append([word for word in words if word])
    return found


def describe_segmenter(segmenter: Segmenter) -> dict[str, Any]:
    """Return a segmenter for JSON: its name, version and options, on which its words depend."""
    return {name: getattr(segmenter, name) for name in ("name", "version", "options")}


def refuse_model(name: str, model: str | Path | None) -> None:
    """Raise ZhbertError if a model is given to a segmenter that has no models."""
    if model is not None:
        raise ZhbertError(f"--segmenter-model {model}: the {name} segmenter has no model to choose")


def describe_unaligned(segmenter: str, sentences: int) -> str:
    """Return a remark on the sentences that ``Segmenter.unaligned`` counts."""
    return (
        f"{counted(sentences, 'sentence', 'has/have')} a word for each character: what "
        f"{segmenter} made of it was not found in the text"
    )
