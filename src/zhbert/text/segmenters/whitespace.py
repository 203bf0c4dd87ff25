"""Text that is segmented already: its words are separated by blanks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.text.segmenters.protocol import Segmenter, refuse_model
from zhbert.text.sentences import Array, codes_of

_BLANKS = np.zeros(0x110000, bool)
_BLANKS[[code for code in range(0x3001) if chr(code).isspace()]] = True


class WhitespaceSegmenter(Segmenter):
    """Words are what stands between blanks; the blanks after a word belong to it.

    >>> [ends.tolist() for ends in WhitespaceSegmenter().segment(["使用 语言  模型", ""])]
    [[3, 7, 9], []]
    """

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

    def segment(self, texts: Sequence[str]) -> list[Array]:
        """See `Segmenter.segment`."""
        return [
            np.append(_starts_after_blanks(codes_of(text)), len(text)).astype(np.int32)
            if text
            else np.zeros(0, np.int32)
            for text in texts
        ]

    def segment_run(self, text: str, codes: Array, text_ends: Array, apart: Array) -> Array:
        """See `Segmenter.segment_run`."""
        return _starts_after_blanks(codes)


def _starts_after_blanks(codes: Array) -> Array:
    """Return where words start, the first one apart."""
    blank = _BLANKS[codes]
    starts = np.flatnonzero(blank[:-1] & ~blank[1:]) + 1
    # Blanks at the text's start belong to the first word.
    if len(blank) and blank[0]:
        starts = starts[1:]
    return starts.astype(np.int32)
