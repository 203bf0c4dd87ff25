"""Segmenters by name: one file each, and the table that all callers look them up in.

A segmenter from outside of this package needs one entry:
``SEGMENTERS["mine"] = load`` (see `LoadSegmenter`).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.text.segmenters.hanlp import load_hanlp
from zhbert.text.segmenters.jieba import JiebaSegmenter
from zhbert.text.segmenters.ltp import load_ltp
from zhbert.text.segmenters.pkuseg import load_pkuseg
from zhbert.text.segmenters.protocol import LoadSegmenter, Segmenter, check_segmenter
from zhbert.text.segmenters.thulac import load_thulac
from zhbert.text.segmenters.whitespace import WhitespaceSegmenter

__all__ = ["SEGMENTERS", "LoadSegmenter", "Segmenter", "load_segmenter", "segmenter_loader"]

SEGMENTERS: dict[str, LoadSegmenter] = {
    "jieba": JiebaSegmenter,
    "whitespace": WhitespaceSegmenter,
    "ltp": load_ltp,
    "pkuseg": load_pkuseg,
    "thulac": load_thulac,
    "hanlp": load_hanlp,
}


def load_segmenter(
    name: str = "jieba",
    *,
    user_words: Path | None = None,
    traditional: str = "characters",
    model: str | Path | None = None,
) -> Segmenter:
    """Load the segmenter called ``name`` in SEGMENTERS, and import its library.

    Args:
        name: jieba, whitespace (text whose words are separated by blanks), ltp, pkuseg, thulac,
            hanlp, or a name that was added to SEGMENTERS.
        user_words: a user dictionary, a word a line (see ``read_user_words``).
        traditional: how traditional text is simplified before words are looked for: "characters"
            (by a table), "opencc" (OpenCC's phrases), "none". The word ends are those of the text
            as it was.
        model: for ltp, pkuseg, thulac and hanlp a file or folder, or a name that the library
            knows; None is the library's default.

    Raises:
        ZhbertError: an unknown name, a library that is not installed, a missing or damaged model.

    >>> load_segmenter("jieba").segment(["使用語言模型"])[0].tolist()
    [2, 4, 6]
    """
    return segmenter_loader(name, user_words=user_words, traditional=traditional, model=model)()


def segmenter_loader(
    name: str, *, user_words: Path | None, traditional: str, model: str | Path | None
) -> Callable[[], Segmenter]:
    """`load_segmenter` as a function that another process can call.

    It holds the table's entry and not its name: what this process has added to SEGMENTERS is not
    there in others.

    Raises:
        ZhbertError: an unknown name, or an entry that cannot be called.
    """
    if name not in SEGMENTERS:
        raise ZhbertError(
            f"unknown segmenter '{name}'; known: {', '.join(SEGMENTERS)}; one of your own? run the "
            "script that adds it to SEGMENTERS in place of zhbert"
        )
    load = SEGMENTERS[name]
    if not callable(load):
        raise ZhbertError(
            f"segmenter {name}: SEGMENTERS takes a class or a function that makes one, not an "
            f"instance of {type(load).__name__}"
        )
    return partial(_load, load, user_words=user_words, traditional=traditional, model=model)


def _load(load: LoadSegmenter, **options: Any) -> Segmenter:
    segmenter = check_segmenter(load(**options))
    segmenter.loader = partial(_load, load, **options)
    return segmenter
