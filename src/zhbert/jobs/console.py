"""What the verbs print with: tables and progress through rich, JSON for machines."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, TextIO

from zhbert import terminal
from zhbert.files import to_json

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress


def out() -> Console:
    """A console on stdout: results."""
    return terminal.console(sys.stdout)


def err() -> Console:
    """A console on stderr: progress and remarks."""
    return terminal.console(sys.stderr)


def data() -> TextIO:
    """Where data goes: as it is into a pipe, for another program; made printable on a terminal."""
    return sys.stdout if sys.stdout.isatty() else terminal.unescaped(sys.stdout)


def say(line: str) -> None:
    """A remark on stderr; in a terminal its lines are broken between words."""
    err().print(line)


def progress(quiet: bool, *columns: Any) -> Progress:
    """A progress display on stderr; silent when ``quiet``."""
    return terminal.progress(sys.stderr, quiet, *columns)


def print_json(value: Any) -> None:
    """One JSON document on stdout."""
    sys.stdout.write(to_json(value, indent=2) + "\n")
