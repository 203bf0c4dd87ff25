"""Sentence ends, and hashes of documents and lines, for a whole block of text at once.

Text is an array of code points. The loops over them are in C++ (``_segment.cpp``); each has a
Python version here, for machines without a compiler and for the tests, which compare the two.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

try:
    from zhbert.text import _segment
except ImportError:
    _segment = None  # type: ignore[assignment]

native = _segment
"""The loops over characters in C++; None if they were not built (no compiler)."""

Array = np.ndarray[Any, Any]

# Longer sentences (in characters) are cut, so that a segmenter's memory stays bounded.
LONGEST_SENTENCE = 10_000

# Flags of a sentence: it is the first of its line; it is the first of its document; it was cut
# because it was too long; its document's start was given, not found by a blank line.
STARTS_LINE, STARTS_DOCUMENT, CUT, GIVEN = 1, 2, 4, 8

_MARKS = "。｡！？…⋯!?"
_CLOSERS = "”’」』）)］]】》〉〕｝}〗〙〛｣﹂﹄»›"
_COMMAS = "，、；：,:;"
_MARK = re.compile(f'[{_MARKS}"]')


@dataclass(frozen=True)
class Sentences:
    """The sentences of a text, which cover it including line ends.

    Sentence s is ``text[ends[s - 1]:ends[s]]``. Blank lines belong to the sentence before them.
    """

    ends: Array  # (sentences,) int32, in characters; the last is the text's length
    flags: Array  # (sentences,) uint8: the flags above
    lines: int
    blank_lines: int


def codes_of(text: str) -> Array:
    """Return the code points of a text: (characters,) uint32."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32)


def text_of(codes: Array) -> str:
    """Return the text of some code points."""
    return codes.tobytes().decode("utf-32-le", "surrogatepass")


def split_text(
    codes: Array,
    document_starts: Array,
    *,
    blank_lines_separate: bool = False,
    longest: int = LONGEST_SENTENCE,
) -> Sentences:
    r"""Find the lines and sentences of a text whose lines end with ``\n``.

    A sentence ends after 。！？… and the closing quotes and brackets that follow, and with its
    line. An ASCII ! or ? ends one only next to Chinese text, a blank or the line's end. A line of
    blanks contains no sentence.

    Args:
        codes: the text's code points.
        document_starts: the starts of documents in characters: int64, increasing.
        blank_lines_separate: documents also start after blank lines.
        longest: longer sentences (in characters) are cut, if possible at a blank or a comma.

    >>> text = "他说：“好。”我……不知道！\n\n下一句"
    >>> found = split_text(codes_of(text), np.zeros(1, np.int64), blank_lines_separate=True)
    >>> [text[a:b] for a, b in zip([0, *found.ends], found.ends)]
    ['他说：“好。”', '我……', '不知道！\n\n', '下一句']
    >>> found.flags.tolist(), found.lines, found.blank_lines
    ([11, 0, 0, 3], 3, 1)
    """
    forced = np.ascontiguousarray(document_starts, np.int64)
    if native is None:
        return split_text_python(codes, forced, blank_lines_separate, longest)
    ends, flags, lines, blanks = native.sentence_ends(codes, forced, blank_lines_separate, longest)
    return Sentences(np.frombuffer(ends, np.int32), np.frombuffer(flags, np.uint8), lines, blanks)


def split_text_python(
    codes: Array, document_starts: Array, blank_lines_separate: bool, longest: int
) -> Sentences:
    """Do the same as `split_text` in plain Python, slowly."""
    text = text_of(codes)
    forced = document_starts.tolist()
    ends: list[int] = []
    flags: list[int] = []
    pending, next_forced, lines, blanks, at = STARTS_DOCUMENT, 0, 0, 0, 0
    for line in re.findall(r"[^\n]*\n|[^\n]+", text):
        after = at + len(line)
        lines += 1
        while next_forced < len(forced) and forced[next_forced] <= at:
            pending |= STARTS_DOCUMENT | GIVEN
            next_forced += 1
        if not line.strip():
            blanks += 1
            if blank_lines_separate:
                pending |= STARTS_DOCUMENT
            if ends:
                ends[-1] = after
            at = after
            continue
        pending |= STARTS_LINE
        body = line.removesuffix("\n")
        start = ends[-1] if ends else 0
        for end in _line_ends(body):
            for cut in _cuts(text, start, at + end, longest):
                ends.append(cut)
                flags.append(pending | (CUT if cut < at + end else 0))
                pending = 0
            start = at + end
        ends[-1] = after
        at = after
    return Sentences(np.array(ends, np.int32), np.array(flags, np.uint8), lines, blanks)


def _line_ends(line: str) -> list[int]:
    """Return the sentence ends in a line that is not blank and has no line end."""
    ends: list[int] = []
    quoted = False
    at = 0
    while found := _MARK.search(line, at):
        i = found.start()
        if line[i] == '"':
            quoted = not quoted
            at = i + 1
            continue
        j = i
        strong = False
        while j < len(line):
            if line[j] in _MARKS:
                strong |= line[j] >= "\x80"
            elif line[j] == '"' and quoted:
                quoted = False
            elif line[j] not in _CLOSERS:
                break
            j += 1
        strong = strong or j == len(line) or line[j] >= "\x80" or line[j].isspace()
        if strong or (i > 0 and line[i - 1] >= "\x80"):
            while j < len(line) and line[j].isspace():
                j += 1
            ends.append(j)
        at = j
    if not ends or ends[-1] < len(line):
        ends.append(len(line))
    return ends


def _cuts(text: str, start: int, end: int, longest: int) -> list[int]:
    """Cut text[start:end] into parts of at most ``longest`` characters; return their ends."""
    cuts = []
    while end - start > longest:
        places = range(start + longest, start + longest // 2, -1)
        blank = (k for k in places if text[k - 1].isspace())
        comma = (k for k in places if text[k - 1] in _COMMAS)
        other = (k for k in places if text[k - 1] >= "\u2e80" or text[k] >= "\u2e80")
        start = next(itertools.chain(blank, comma, other), start + longest)
        cuts.append(start)
    return [*cuts, end]


def hash_spans(codes: Array, starts: Array, ends: Array, seed: int = 0) -> Array:
    """Hash each span of a text, without the blanks around it, to 64 bits: (spans,) uint64.

    The last step is the finaliser of MurmurHash3 (https://github.com/aappleby/smhasher).
    """
    starts = np.ascontiguousarray(starts, np.int32)
    ends = np.ascontiguousarray(ends, np.int32)
    if native is None:
        return hash_spans_python(codes, starts, ends, seed)
    return np.frombuffer(native.hash_spans(codes, starts, ends, seed), np.uint64)


def hash_spans_python(codes: Array, starts: Array, ends: Array, seed: int) -> Array:
    """Do the same as `hash_spans` in plain Python, slowly."""
    text = text_of(codes)
    everything = (1 << 64) - 1
    hashes = []
    for a, b in zip(starts.tolist(), ends.tolist(), strict=True):
        span = text[a:b].strip()
        h = seed
        for character in span:
            h = ((h ^ ord(character)) * 0x9E3779B97F4A7C15) & everything
            h ^= h >> 32
        h = ((h ^ len(span)) * 0xFF51AFD7ED558CCD) & everything
        h ^= h >> 33
        h = (h * 0xC4CEB9FE1A85EC53) & everything
        hashes.append(h ^ (h >> 33))
    return np.array(hashes, np.uint64)
