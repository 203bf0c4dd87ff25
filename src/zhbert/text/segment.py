"""Words: the Segmenter protocol, jieba (through rjieba) and text that is segmented already.

The other libraries stand in segmenters.py, which is imported when one of them is asked for.
A segmenter says where words end, in characters of the text it was given; nothing it does to the
text on the way (traditional to simplified, say) reaches the pieces.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Callable, Sequence
from importlib import metadata, resources
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.files import read_text, sha256_of
from zhbert.text.sentences import Array, codes_of, text_of
from zhbert.wording import counted, how_to_install

try:
    from zhbert.text import _segment
except ImportError:
    _segment = None  # type: ignore[assignment]

# Characters a call of the segmenter. Words come back as a list of strings: a few thousand of them
# stay in the processor's cache until their lengths are taken (measured: 4,000 characters a call
# cost 0.88 of a call a line, 64,000 cost 1.1).
_CALL = 4096

TRADITIONAL = ("characters", "opencc", "none")


@runtime_checkable
class Segmenter(Protocol):
    """Finds words. ``options``: all that changes its results; corpus.json records the three."""

    name: str
    version: str
    options: dict[str, Any]

    def segment(self, texts: Sequence[str]) -> list[Array]:
        """For each text the ends of its words, in characters: int32, increasing.

        The last end is the text's length; an empty text has none. What a text gives does not
        depend on the texts beside it.
        """


def word_ends(
    segmenter: Segmenter, text: str, codes: Array, text_ends: Array, apart: Array
) -> Array:
    """The word ends of many texts that stand in ``text`` one after another: int32, increasing.

    Text t is ``text[text_ends[t-1]:text_ends[t]]``: sentences, each after a line's end or an end
    mark, but for those marked in ``apart`` (bool), after which the text was cut inside a run of
    letters. A text's end need not be among the result: it is a word's end in any case.
    """
    at_once = getattr(segmenter, "segment_run", None)
    if at_once is not None:
        ends: Array = at_once(text, codes, text_ends, apart)
        return ends
    starts = [0, *text_ends[:-1].tolist()]
    parts = segmenter.segment([text[a:b] for a, b in zip(starts, text_ends, strict=True)])
    shifted = [part + start for part, start in zip(parts, starts, strict=True)]
    return np.concatenate(shifted).astype(np.int32) if shifted else np.zeros(0, np.int32)


def describe_unaligned(segmenter: str, sentences: int) -> str:
    """What became of sentences in which a library's words were not found (``unaligned``)."""
    return (
        f"{counted(sentences, 'sentence', 'has/have')} a word for each character: what "
        f"{segmenter} made of it was not found in the text"
    )


# ---------------------------------------------------------------- traditional -> simplified


@functools.cache
def _table() -> tuple[Array, str]:
    """(0x110000,) uint32: each code point's simplified form; and the hash of the asset."""
    raw = (resources.files("zhbert") / "assets" / "traditional.txt").read_bytes()
    table = np.arange(0x110000, dtype=np.uint32)
    pairs = [line for line in raw.decode().split("\n") if line and not line.startswith("#")]
    table[[ord(pair[0]) for pair in pairs]] = [ord(pair[1]) for pair in pairs]
    return table, hashlib.sha256(raw).hexdigest()


def _simplify_codes(codes: Array) -> tuple[Array, Array] | None:
    """The simplified code points and where they differ; None where nothing changes."""
    table = _table()[0]
    if _segment is not None:
        replaced = _segment.replace(codes, table)
        if replaced is None:
            return None
        return np.frombuffer(replaced[0], np.uint32), np.frombuffer(replaced[1], np.int32)
    simplified = table[codes]
    places = np.flatnonzero(simplified != codes)
    return (simplified, places) if len(places) else None


def simplify(text: str) -> str:
    """Replace each traditional character by its simplified form; the length stays.

    For segmenting only. 乾 stays: simplified text writes 乾隆 and 乾坤 too.

    >>> simplify("語言模型與乾隆")
    '语言模型与乾隆'
    """
    found = _simplify_codes(codes_of(text))
    return text if found is None else text_of(found[0])


class _OpenCC:
    """OpenCC's phrases where they keep a line's length, single characters where they do not."""

    def __init__(self) -> None:
        try:
            import opencc
        except ImportError as error:
            raise ZhbertError(
                f"--traditional opencc: OpenCC is not installed; {how_to_install('opencc')}, "
                "or use --traditional characters"
            ) from error
        self._convert = opencc.OpenCC("t2s").convert

    def __call__(self, text: str) -> str:
        simplified: str = self._convert(text)
        if len(simplified) == len(text):
            return simplified
        lines = text.split("\n")
        if len(lines) == 1:
            return simplify(text)
        return "\n".join(self(line) for line in lines)


class Traditional:
    """How a segmenter's traditional text becomes simplified: a table, OpenCC's phrases or not.

    ``options`` is what corpus.json records of it. Calling it gives a text of the same length.

    >>> Traditional("characters")("語言"), Traditional("none")("語言")
    ('语言', '語言')
    """

    def __init__(self, how: str) -> None:
        if how not in TRADITIONAL:
            raise ZhbertError(
                f"traditional: unknown value '{how}'; known: {', '.join(TRADITIONAL)}"
            )
        self.how = how
        self.options: dict[str, Any] = {"traditional": how}
        self._convert: Callable[[str], str] = str
        if how == "characters":
            self._convert = simplify
            self.options["traditional_table"] = _table()[1]
        if how == "opencc":
            self._convert = _OpenCC()
            self.options["opencc"] = metadata.version("opencc")

    def __call__(self, text: str) -> str:
        """The text as the segmenter is to see it."""
        return self._convert(text)


# ---------------------------------------------------------------- jieba


def _append_word_ends(words: list[str], base: int, out: Array, at: int) -> int:
    """Write ``base`` + the running sum of the words' lengths to out[at:]; the next free place."""
    lengths = np.fromiter(map(len, words), np.int32, len(words))
    np.cumsum(lengths, out=out[at : at + len(words)])
    out[at : at + len(words)] += base
    return at + len(words)


class JiebaSegmenter:
    """jieba's words, by rjieba: its dictionary, HMM for unknown words, and the user's words."""

    name = "jieba"

    def __init__(
        self,
        *,
        user_words: Path | None = None,
        traditional: str = "characters",
        model: str | Path | None = None,
    ) -> None:
        try:
            import rjieba
        except ImportError as error:
            raise ZhbertError(
                "segmenter jieba: rjieba is not installed; pip install rjieba"
            ) from error
        refuse_model(self.name, model)
        self.version = metadata.version("rjieba")
        self._traditional = Traditional(traditional)
        self.options: dict[str, Any] = dict(self._traditional.options)
        self.remarks: list[str] = []
        self._cut: Callable[[str], list[str]] = rjieba.cut
        if user_words is not None:
            # An instance of its own: rjieba's module-wide one is the rest of the program's too.
            jieba = rjieba.Jieba()
            self._cut = jieba.cut
            self._add_user_words(jieba, user_words)

    def _add_user_words(self, jieba: Any, file: Path) -> None:
        simplified, words = self._traditional, read_user_words(file)
        for word, frequency, tag in words:
            jieba.add_word(simplified(word), frequency, tag)
        apart = [word for word, _, _ in words if len(self._cut(simplified(word))) > 1]
        if apart:
            why = " (characters it always cuts at, or a low frequency)"
            self.remarks.append(not_kept_whole(file, self.name, apart, len(words), why))
        odd = [f"{one.word} {one.tag}" for one in words if one.tag and not _TAG.fullmatch(one.tag)]
        if odd:
            self.remarks.append(
                f"{file}: in {len(odd):,} of {counted(len(words), 'line')} jieba takes the small "
                f"letters at the end for a tag; where they belong to the word, write a "
                f"frequency behind it: {', '.join(odd[:5])}"
            )
        self.options["user_words"] = sha256_of(file)

    def segment(self, texts: Sequence[str]) -> list[Array]:
        """For each text the ends of its words, in characters (see Segmenter)."""
        if not texts:
            return []
        # A line's end is always a word of its own for jieba, so the texts do not touch; only a
        # text that ends in \r would join it to \r\n, which the clipping below undoes.
        text = "\n".join(texts)
        stops = np.cumsum([len(one) + 1 for one in texts])
        starts, stops = np.concatenate(([0], stops[:-1])), stops - 1
        apart = np.zeros(len(texts), bool)
        ends = self.segment_run(text, codes_of(text), np.append(starts[1:], len(text)), apart)
        low = np.searchsorted(ends, starts, "right")
        high = np.searchsorted(ends, stops, "left")
        return [
            np.append(ends[a:b] - start, stop - start).astype(np.int32)
            if stop > start
            else np.zeros(0, np.int32)
            for a, b, start, stop in zip(low, high, starts, stops, strict=True)
        ]

    def segment_run(self, text: str, codes: Array, text_ends: Array, apart: Array) -> Array:
        """``word_ends`` of this module: many texts at once."""
        how = self._traditional.how
        found = _simplify_codes(codes) if how == "characters" else None
        append = _append_word_ends if _segment is None else _segment.append_word_ends
        out = np.empty(len(text), np.int32)
        at = 0
        calls = _calls(text_ends, apart)
        if found is not None:
            simplified, places = found
            # Most calls hold no traditional character: they take the text as it is.
            changes = np.diff(np.searchsorted(places, [0, *(end for _, end in calls)])).tolist()
        for number, (start, end) in enumerate(calls):
            if found is not None and changes[number]:
                part = text_of(simplified[start:end])
            else:
                part = text[start:end]
            if how == "opencc":
                part = self._traditional(part)
            at = append(self._cut(part), start, out, at)
        return out[:at]


def _calls(text_ends: Array, apart: Array) -> list[tuple[int, int]]:
    """Whole texts, one after another, in calls of about _CALL characters."""
    if not len(text_ends):
        return []
    number = text_ends // _CALL
    last = np.ones(len(text_ends), bool)
    last[:-1] = (number[1:] != number[:-1]) | apart[:-1]
    return list(pairwise([0, *text_ends[last].tolist()]))


def not_kept_whole(
    file: Path, segmenter: str, apart: Sequence[str], words: int, why: str = ""
) -> str:
    """The remark on words of a user dictionary that the segmenter cuts all the same."""
    return (
        f"{file}: {segmenter} does not keep {len(apart):,} of {counted(words, 'word')} whole{why}: "
        + ", ".join(apart[:5])
    )


class UserWord(NamedTuple):
    """One line of a user dictionary."""

    word: str
    frequency: int | None
    tag: str | None


# jieba's own pattern (its load_userdict): a word, which may hold spaces, a frequency, a tag.
_JIEBA_LINE = re.compile("(?P<word>.+?)( (?P<frequency>[0-9]+))?( (?P<tag>[a-z]+))?")
# The other tools' dictionaries are words alone, a line each, but jieba's are given to them too: a
# frequency, which a tag may follow, or one of jieba's tags.
_TAG = re.compile(
    "a[dgn]?|b|c|d[fg]?|e(ng)?|f|g|h|i|j|k|l|m[gq]?|n[gstz]?|nr(fg|t)?|o|p|q|r[grz]?|s|tg?|"
    "u[dgjlvz]?|v[dginq]?|x|yg?|zg?"
)
_OTHER_LINE = re.compile(
    rf"(?P<word>.+?)( (?P<frequency>[0-9]+)( (?P<tag>[a-z]+))?| (?P<known>{_TAG.pattern}))?"
)
_LARGEST_FREQUENCY = 12  # digits


def read_user_words(path: Path, segmenter: str = "jieba") -> list[UserWord]:
    """A user dictionary as the segmenter itself defines it, a word a line; no line is a comment.

    jieba: the word, which may hold spaces, perhaps a frequency, perhaps a tag of small letters.
    The others: the word, with spaces or without; what jieba's dictionaries have behind it is told
    apart. Behind a tab, as in pkuseg's, stands what is not the word, for all of them.
    """
    pattern = _JIEBA_LINE if segmenter == "jieba" else _OTHER_LINE
    words = []
    for number, line in enumerate(re.split("\r\n|\r|\n", read_text(path, "a user dictionary")), 1):
        word, *behind = (part.strip() for part in line.strip().split("\t"))
        if not word:
            continue
        if behind:
            frequency = next((part for part in behind if re.fullmatch("[0-9]+", part)), None)
            tag = next((part for part in behind if part and part != frequency), None)
        else:
            found = pattern.fullmatch(word)
            assert found is not None
            word, frequency = found["word"], found["frequency"]
            tag = found["tag"] or found.groupdict().get("known")
        if frequency is not None and len(frequency.lstrip("0")) > _LARGEST_FREQUENCY:
            raise ZhbertError(
                f"{path}:{number}: a frequency of more than {_LARGEST_FREQUENCY} digits: "
                f"{frequency[:20]}…"
            )
        words.append(UserWord(word, None if frequency is None else int(frequency), tag))
    return words


# ---------------------------------------------------------------- segmented already

_BLANKS = np.zeros(0x110000, bool)
_BLANKS[[code for code in range(0x3001) if chr(code).isspace()]] = True


class WhitespaceSegmenter:
    """Text whose words are separated by blanks; a word's end includes the blanks after it."""

    name = "whitespace"
    version = "1"

    def __init__(
        self,
        *,
        user_words: Path | None = None,
        traditional: str = "characters",
        model: str | Path | None = None,
    ) -> None:
        if user_words is not None:
            raise ZhbertError("--user-words: the whitespace segmenter takes no words of yours")
        refuse_model(self.name, model)
        self.options: dict[str, Any] = {}
        self.remarks: list[str] = []

    def segment(self, texts: Sequence[str]) -> list[Array]:
        """For each text the ends of its words, in characters (see Segmenter).

        >>> [ends.tolist() for ends in WhitespaceSegmenter().segment(["使用 语言  模型", ""])]
        [[3, 7, 9], []]
        """
        return [
            np.append(_starts_after_blanks(codes_of(text)), len(text)).astype(np.int32)
            if text
            else np.zeros(0, np.int32)
            for text in texts
        ]

    def segment_run(self, text: str, codes: Array, text_ends: Array, apart: Array) -> Array:
        """``word_ends`` of this module: many texts at once."""
        return _starts_after_blanks(codes)


def _starts_after_blanks(codes: Array) -> Array:
    blank = _BLANKS[codes]
    starts = np.flatnonzero(blank[:-1] & ~blank[1:]) + 1
    # Blanks at the text's start are no word.
    if len(blank) and blank[0]:
        starts = starts[1:]
    return starts.astype(np.int32)


def refuse_model(name: str, model: str | Path | None) -> None:
    """Raise ZhbertError where a model is given to a segmenter that has none to choose."""
    if model is not None:
        raise ZhbertError(f"--segmenter-model {model}: the {name} segmenter has no model to choose")


def _of_library(name: str) -> Callable[..., Segmenter]:
    """What makes the segmenter ``name`` of segmenters.py: imported when it is called."""

    def make(**options: Any) -> Segmenter:
        from zhbert.text import segmenters

        made: Segmenter = getattr(segmenters, f"load_{name}")(**options)
        return made

    return make


SEGMENTERS: dict[str, Callable[..., Segmenter]] = {
    "jieba": JiebaSegmenter,
    "whitespace": WhitespaceSegmenter,
    **{name: _of_library(name) for name in ("ltp", "pkuseg", "thulac", "hanlp")},
}


def load_segmenter(
    name: str = "jieba",
    *,
    user_words: Path | None = None,
    traditional: str = "characters",
    model: str | Path | None = None,
) -> Segmenter:
    """The segmenter called ``name``; its library is imported now.

    ``user_words``: a user dictionary (see ``read_user_words``). ``traditional``:
    how traditional text becomes simplified, for segmenting only: "characters" (a table), "opencc"
    (OpenCC's phrases), "none". ``model``: for ltp, pkuseg, thulac and hanlp a file or folder, or
    a name that the library knows; its default otherwise. Raises ZhbertError on an unknown name, a
    missing library or a missing model.

    >>> text = "使用語言模型"
    >>> load_segmenter("jieba").segment([text])[0].tolist()
    [2, 4, 6]
    """
    if name not in SEGMENTERS:
        raise ZhbertError(f"unknown segmenter '{name}'; known: {', '.join(SEGMENTERS)}")
    return SEGMENTERS[name](user_words=user_words, traditional=traditional, model=model)
