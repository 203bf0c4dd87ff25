"""The one exception that a user is meant to see, and the one by which a signal ends a verb."""

from __future__ import annotations

import signal

from zhbert.wording import printable, without_secrets

# The first and the last characters of a longer line: where, and what to do.
_FIRST, _LAST = 1_000, 400


class ZhbertError(Exception):
    """A user's mistake or a trouble with their files: one line that says what, where, what to do.

    Much of such a line is a stranger's: names, labels, values, what a library says of a file.
    Whatever it is, it is one line of bounded length that no terminal obeys, and that holds no
    password of an address. The command line prints it without a traceback and exits with code 2.

    >>> print(ZhbertError("https://me:secret@example.org/a.zip: no such label: " + chr(27)))
    https://example.org/a.zip: no such label: \\x1b
    """

    def __init__(self, message: object) -> None:
        line = printable(without_secrets(str(message).strip()))
        if len(line) > _FIRST + _LAST:
            line = f"{line[:_FIRST]} … {line[-_LAST:]}"
        super().__init__(line)


class Interrupted(KeyboardInterrupt):
    """A signal asks the process to end; ``number`` is the signal's."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number
