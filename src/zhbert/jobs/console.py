"""What the verbs print with: tables and progress through rich, JSON for machines."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, TextIO

from zhbert.errors import ZhbertError

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def out() -> Console:
    """A console on stdout: results. No colour when stdout is not a terminal."""
    from rich.console import Console

    return Console(file=sys.stdout, highlight=False, soft_wrap=not sys.stdout.isatty())


def err() -> Console:
    """A console on stderr: progress and remarks."""
    from rich.console import Console

    return Console(file=sys.stderr, highlight=False, soft_wrap=not sys.stderr.isatty())


def say(line: str) -> None:
    """A remark on stderr, as it stands; in a terminal its lines are broken between words."""
    # Texts of users are shown: neither [b] nor :heart: means anything in them.
    err().print(line, markup=False, emoji=False)


def progress(quiet: bool, *columns: Any) -> Progress:
    """A progress display on stderr; silent when ``quiet`` or when stderr is not a terminal."""
    from rich.progress import Progress

    console = err()
    return Progress(*columns, console=console, disable=quiet or not console.is_terminal)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def numbered_lines(stdin: TextIO) -> Iterator[tuple[str, str]]:
    """Lines that are not blank, with where they stand."""
    found = False
    try:
        for number, line in enumerate(stdin, start=1):
            if line.strip():
                found = True
                yield f"stdin, line {number}: ", line.rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ZhbertError(f"stdin: not UTF-8 ({error.reason}); convert it first") from None
    if not found:
        raise ZhbertError("stdin: no text; give one text a line")
