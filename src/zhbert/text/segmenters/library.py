"""The segmenter around another library: clean sentences go in, word ends of the text come out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.files import sha256_of
from zhbert.text.segmenters.alignment import align, clean_table, fold
from zhbert.text.segmenters.loading import name_of_error
from zhbert.text.segmenters.protocol import Segmenter
from zhbert.text.segmenters.user_words import describe_not_kept, read_user_words
from zhbert.text.sentences import Array, codes_of, split_text, text_of
from zhbert.text.simplify import Simplifier

Cut = Callable[[str], list[str]]
"""Cuts a sentence of clean text into its words, in order."""

# Characters of the longest sentence that a library is given. The neural models see 510 pieces; to
# the others a megabyte in one sentence would be quadratic time or an overrun of a fixed array.
LONGEST = 500
# How many of the user's words are tried when they are loaded: a neural model takes 10 ms for each.
_TRIED = 200
# A sentence that every usable model returns whole, in whatever words.
_KNOWN = "使用语言模型来预测下一个词。"


class LibrarySegmenter(Segmenter):
    """Gives a library one sentence at a time and finds its words in the text again.

    One at a time, so that the words depend on nothing beside the sentence: the rounding of a
    neural model changes with what is computed in the same batch. (Batches of 32 sentences of one
    length would be 1.5 times as fast on a CPU.) A word never holds a blank and something else.

    ``unaligned`` counts the sentences whose words were not found in the text; in these each
    character is a word, which claims nothing about words. So one odd line does not stop the
    preparation of a large corpus. A model that garbles every sentence is refused at once.
    """

    def __init__(
        self,
        name: str,
        version: str,
        cut: Cut,
        *,
        simplify: Simplifier,
        options: dict[str, Any],
        user_words: Path | None = None,
    ) -> None:
        self.name = name
        self.version = version
        self.options: dict[str, Any] = simplify.options | options
        self.remarks: list[str] = []
        self._cut = cut
        self._simplify = simplify
        if align(_KNOWN, self._words(_KNOWN)) is None:
            raise ZhbertError(
                f"segmenter {name}: the words of '{_KNOWN}' come out as "
                f"{' '.join(self._words(_KNOWN))[:40]!r}: this model or version cannot be used"
            )
        if user_words is not None:
            self._try_user_words(user_words)

    def _try_user_words(self, file: Path) -> None:
        self.options["user_words"] = sha256_of(file)
        words = read_user_words(file, self.name)
        cut = [one.word for one in words if one.has_blank]
        tried = [one.word for one in words if not one.has_blank][:_TRIED]
        cut += [word for word in tried if len(self.segment([word])[0]) > 1]
        if cut:
            why = f" (only {_TRIED:,} were tried)" if len(tried) == _TRIED else ""
            self.remarks.append(describe_not_kept(file, self.name, cut, len(words), why))

    def _words(self, sentence: str) -> list[str]:
        try:
            return self._cut(sentence)
        except Exception as error:
            # Not counted as unaligned: it may be the memory's end rather than an odd sentence.
            raise ZhbertError(
                f"segmenter {self.name}: stopped at '{sentence[:20]}…': {name_of_error(error)}"
            ) from error

    def segment(self, texts: Sequence[str]) -> list[Array]:
        """See `Segmenter.segment`."""
        return [self._ends(text) for text in texts]

    def _ends(self, text: str) -> Array:
        if not text:
            return np.zeros(0, np.int32)
        codes = codes_of(text)
        clean_codes = clean_table()[codes]
        clean = self._simplify(text_of(clean_codes))
        ends = np.zeros(len(text) + 1, bool)
        blank = clean_codes == 0x20
        # Both ends of each run of blanks.
        ends[1:-1] = blank[1:] != blank[:-1]
        ends[-1] = True
        start = 0
        for end in split_text(codes, np.zeros(1, np.int64), longest=LONGEST).ends.tolist():
            ends[end] = True
            sentence = clean[start:end].rstrip(" ")
            begin = start + len(sentence) - len(sentence.lstrip(" "))
            sentence = sentence.lstrip(" ")
            start = end
            # A neural model has no piece for what is invisible; some fail without any piece.
            if any(map(fold, sentence)):
                found = align(sentence, self._words(sentence))
                if found is None:
                    self.unaligned += 1
                    found = list(range(1, len(sentence) + 1))
                ends[[begin + place for place in found]] = True
        ends[0] = False
        return np.flatnonzero(ends).astype(np.int32)
