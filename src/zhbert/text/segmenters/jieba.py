"""jieba's words, found by rjieba (jieba's algorithm and dictionary in Rust)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import metadata
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.files import sha256_of
from zhbert.text.segmenters.protocol import Segmenter, refuse_model
from zhbert.text.segmenters.user_words import describe_not_kept, read_user_words
from zhbert.text.sentences import Array, codes_of, native, text_of
from zhbert.text.simplify import Simplifier, simplify_codes
from zhbert.wording import counted

# About how many characters jieba is given at once. Words come back as a list of strings: a few
# thousand of them stay in the processor's cache until their lengths are taken. Measured against
# one call a line, 4,000 characters a call take 0.88 of the time, 64,000 take 1.1.
_CHARACTERS_PER_CALL = 4096


class JiebaSegmenter(Segmenter):
    """jieba's dictionary, its hidden Markov model for unknown words, and the user's words."""

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
        self._simplify = Simplifier(traditional)
        self.options: dict[str, Any] = dict(self._simplify.options)
        self.remarks: list[str] = []
        self._cut: Callable[[str], list[str]] = rjieba.cut
        if user_words is not None:
            # A dictionary of its own: rjieba's functions share one with the rest of the program.
            jieba = rjieba.Jieba()
            self._cut = jieba.cut
            self._add_user_words(jieba, user_words)

    def _add_user_words(self, jieba: Any, file: Path) -> None:
        words = read_user_words(file)
        for word, frequency, tag in words:
            jieba.add_word(self._simplify(word), frequency, tag)
        cut = [word for word, _, _ in words if len(self._cut(self._simplify(word))) > 1]
        if cut:
            why = " (characters it always cuts at, or a low frequency)"
            self.remarks.append(describe_not_kept(file, self.name, cut, len(words), why))
        odd = [f"{one.word} {one.tag}" for one in words if one.has_odd_tag]
        if odd:
            self.remarks.append(
                f"{file}: in {len(odd):,} of {counted(len(words), 'line')} jieba takes the small "
                f"letters at the end for a tag; where they belong to the word, write a "
                f"frequency behind it: {', '.join(odd[:5])}"
            )
        self.options["user_words"] = sha256_of(file)

    def segment(self, texts: Sequence[str]) -> list[Array]:
        """See `Segmenter.segment`."""
        if not texts:
            return []
        # For jieba a line's end is always a word of its own, so no word reaches from one text to
        # the next. Only \r at a text's end becomes a word \r\n, which the slices below undo.
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
        """See `Segmenter.segment_run`."""
        how = self._simplify.how
        found = simplify_codes(codes) if how == "characters" else None
        append = _append_word_ends if native is None else native.append_word_ends
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
                part = self._simplify(part)
            at = append(self._cut(part), start, out, at)
        return out[:at]


def _append_word_ends(words: list[str], base: int, out: Array, at: int) -> int:
    """Write ``base`` + the running sum of the words' lengths to out[at:]; the next free place."""
    lengths = np.fromiter(map(len, words), np.int32, len(words))
    np.cumsum(lengths, out=out[at : at + len(words)])
    out[at : at + len(words)] += base
    return at + len(words)


def _calls(text_ends: Array, apart: Array) -> list[tuple[int, int]]:
    """Return the parts of the run for each call: whole texts, up to about 4,096 characters."""
    if not len(text_ends):
        return []
    number = text_ends // _CHARACTERS_PER_CALL
    last = np.ones(len(text_ends), bool)
    last[:-1] = (number[1:] != number[:-1]) | apart[:-1]
    return list(pairwise([0, *text_ends[last].tolist()]))
