"""Reading of texts from WikiExtractor's and SogouCS' files of articles."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator

from zhbert.data.read_options import Problem, ReadOptions
from zhbert.data.record_lines import ESCAPED_BYTE, NumberedText, text_lines
from zhbert.data.sources import Stream

WIKI, NEWS = "wiki", "news"

_BEGIN = re.compile(r'<doc\s+id=.*?(?:\stitle="(?P<title>.*)")?[^"]*>\s*')
_END = "</doc>"
# A longer line cannot begin an article; matching takes time quadratic in the length.
_LONGEST_BEGIN = 2_000


def articles(stream: Stream, form: str, reading: ReadOptions) -> Iterator[NumberedText]:
    """Yield the text between <doc ...> and </doc>, without the title if the text begins with it."""
    first, title, size, inside = 1, "", 0, False
    body: list[str] = []

    def article() -> Iterator[NumberedText]:
        nonlocal size
        # Blank lines outside <doc> are ignored; inside, they are an article without text.
        if inside or any(map(str.strip, body)):
            yield first, "\n".join(body)
        body.clear()
        size = 0

    lines = text_lines(stream, reading)
    for number, line in _without_marks(lines) if form == NEWS else lines:
        if len(line) <= _LONGEST_BEGIN and (begins := _BEGIN.fullmatch(line)):
            yield from article()
            first, inside = number, True
            title = html.unescape(begins["title"] or "").strip()
            continue
        if ESCAPED_BYTE.search(line):
            yield number, Problem("broken_line", reading.broken.reason)
            continue
        ends = inside and line.rstrip().endswith(_END)
        if ends:
            line = line.rstrip().removesuffix(_END)
        if title and html.unescape(line).strip() not in ("", title):
            title = ""
        if not title:
            if size > reading.document_bytes:
                yield from article()
                yield number, Problem("split", "a document too long was split here", error=False)
                first = number
            body.append(line)
            size += len(line.encode())
        if ends:
            yield from article()
            first, inside, title = number + 1, False, ""
    yield from article()


# The parts of a SogouCS article that are not text.
_MARKS = re.compile(r"<(url|docno)>[^<]*</\1>|</?content(?:title)?>")


def _without_marks(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
    """Yield SogouCS' lines with WikiExtractor's tags; title and text are on separate lines."""
    for number, line in lines:
        for part in _MARKS.sub("\n", line.replace("<doc>", '<doc id="">\n')).split("\n"):
            if part.strip():
                yield number, part
