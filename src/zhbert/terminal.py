"""Output on a terminal: control characters are escaped, and long work shows its progress.

Texts, labels, file names, settings and servers' answers all reach the screen. Control characters in
them could hide an error, rename the window or overwrite earlier output.
"""

from __future__ import annotations

import re
import sys
import time
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

# C0 controls except tab and line feed, DEL, C1 controls, and Unicode's marks of text direction.
_CONTROLS = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
# How often progress is reported as a line of text, where there is no terminal for a bar.
_PLAIN_SECONDS = 15.0


def escape_controls(text: str) -> str:
    r"""Escape control characters as JSON does, so that the meaning of JSON lines does not change.

    Line feeds are kept; `zhbert.wording.printable` escapes those, too.

    >>> escape_controls("a\x1b[31mb\tc\r\n")
    'a\\u001b[31mb\tc\n'
    """
    return _CONTROLS.sub(lambda found: f"\\u{ord(found[0]):04x}", text.replace("\r\n", "\n"))


class EscapingStream:
    """A text stream that escapes control characters."""

    def __init__(self, stream: TextIO) -> None:
        self.unescaped = stream

    def write(self, text: str) -> int:
        """Write ``text`` with its control characters escaped."""
        self.unescaped.write(escape_controls(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.unescaped, name)


def escaping(stream: TextIO) -> TextIO:
    """Return ``stream`` wrapped so that control characters are escaped."""
    return cast(TextIO, EscapingStream(stream))


def unescaped(stream: TextIO) -> TextIO:
    """Return the stream behind an escaping one: for data in a pipe and for rich's own controls."""
    return stream.unescaped if isinstance(stream, EscapingStream) else stream


def console(stream: TextIO) -> Console:
    """Return a rich console that prints texts literally: no markup, no emoji codes, no escapes.

    On a terminal it uses colours and wraps lines between words; a pipe gets unwrapped lines.
    """
    from rich.console import Console
    from rich.segment import Segment

    class PlainTexts(Console):
        def render_str(self, text: str, **options: Any) -> Any:
            return super().render_str(escape_controls(text), **options)

        def render(self, *arguments: Any, **options: Any) -> Any:
            for segment in super().render(*arguments, **options):
                own = segment.control or segment.text == escape_controls(segment.text)
                yield segment if own else Segment(escape_controls(segment.text), segment.style)

    stream = unescaped(stream)
    return PlainTexts(
        file=stream, markup=False, emoji=False, highlight=False, soft_wrap=not stream.isatty()
    )


def say(line: str) -> None:
    """Print a remark on stderr, wrapped between words on a terminal."""
    console(sys.stderr).print(line)


def say_nothing(line: str) -> None:
    """Take a remark where nobody wants to read it."""


def progress(stream: TextIO, quiet: bool, *columns: Any, **options: Any) -> Progress:
    """Return a progress display; if ``stream`` is not a terminal, it prints a line now and then."""
    from rich.progress import Progress

    on = console(stream)

    class Plain(Progress):
        said = time.monotonic()

        def update(self, task_id: Any, **changes: Any) -> None:
            super().update(task_id, **changes)
            if quiet or time.monotonic() - self.said < _PLAIN_SECONDS:
                return
            self.said = time.monotonic()
            task = self.tasks[task_id]
            done = f"{task.completed:,.0f}" if task.total is None else f"{task.percentage:.0f} %"
            left = task.time_remaining
            rest = "" if left is None else f", {left / 60:.0f} min left"
            on.print(f"{task.description}: {done}{rest}")

    kind = Progress if on.is_terminal else Plain
    return kind(*columns, console=on, disable=quiet or not on.is_terminal, **options)
