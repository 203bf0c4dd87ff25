"""The similarities of pairs of texts, by a sentence model's own measure."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from zhbert.errors import ZhbertError
from zhbert.retrieval.texts import Text, read_texts
from zhbert.tasks.plain_texts import SUFFIXES
from zhbert.zoo import locate

# The number of pairs in memory at a time.
_PAIRS = 4096


class Pair(NamedTuple):
    """Two texts and their similarity."""

    a: str
    b: str
    similarity: float
    """By the model's own measure: cosine or inner product, or a negative distance."""


def similarities(
    model: str | os.PathLike[str],
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    *,
    field: str | None = None,
    encoding: str | None = None,
    precision: str = "fp32",
    quiet: bool = True,
) -> Iterator[Pair]:
    """Yield the similarity of two texts, or of each pair of two files.

    >>> [pair] = similarities("mini", "今天天气很好。", "今天天气不错。")
    >>> pair.similarity > 0.5
    True

    Args:
        model: what `SentenceEncoder.from_pretrained` opens.
        a: a text, or a file in a form that `read_texts` takes.
        b: another one, with as many texts.
        field, encoding: as for `read_texts`.
        precision: what the model computes in: ``fp32``, ``bf16`` or ``int8``.
        quiet: show no progress of a download, and no warning about a plain BERT.

    Raises:
        ZhbertError: a text is empty or looks like the name of a missing file, one is a file and
            the other is not, the files differ in length, or the model is unusable.
    """
    sides = os.fspath(a), os.fspath(b)
    texts_of = partial(read_texts, field=field, encoding=encoding)
    files = [side for side in sides if _is_file(side)]
    if len(files) == 1:
        (other,) = set(sides) - set(files)
        raise ZhbertError(f"{files[0]} is a file, and {other} is none; give two texts or two files")
    if not files:
        for name, text in zip("AB", sides, strict=True):
            if not text.strip():
                raise ZhbertError(f"{name} is empty; give a text")
            if _names_a_file(text):
                raise ZhbertError(f"{text}: no such file")
    else:
        counts = [sum(1 for _ in texts_of(Path(side))) for side in sides]
        if counts[0] != counts[1] or not counts[0]:
            raise ZhbertError(
                f"{sides[0]} has {counts[0]:,} texts and {sides[1]} {counts[1]:,}; give as many, "
                "of which those at the same place are a pair"
            )
    locate(os.fspath(model), quiet=quiet)
    from zhbert.sentences.encoder import SentenceEncoder

    encoder = SentenceEncoder.from_pretrained(os.fspath(model), precision=precision, quiet=quiet)
    left, right = (texts_of(Path(side)) if files else iter([Text("0", side)]) for side in sides)
    while some := [one.text for one in islice(left, _PAIRS)]:
        others = [one.text for one in islice(right, _PAIRS)]
        vectors = encoder.encode(some), encoder.encode(others)
        found = encoder.similarity_pairwise(*vectors).tolist()
        yield from map(Pair, some, others, found)


def _is_file(side: str) -> bool:
    try:
        return Path(side).is_file()
    except (OSError, ValueError):  # a text that is too long for a file's name
        return False


def _names_a_file(text: str) -> bool:
    # A mistyped name would get a similarity as any text does.
    return not any(map(str.isspace, text)) and text.lower().endswith((".txt", *SUFFIXES))
