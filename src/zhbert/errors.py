"""The exception for users' mistakes, and the exception by which a signal ends a verb."""

from __future__ import annotations

import signal

from zhbert.wording import printable, without_secrets

# What is kept of a longer line: its beginning says where the error is, its end what to do.
_FIRST, _LAST = 1_000, 400


class ZhbertError(Exception):
    """A user's mistake, or a problem with their files, explained in one line.

    The message says what is wrong, where, and what to do about it.

    Messages quote text from outside: names, labels, values, what a library said. Therefore control
    characters are escaped, passwords and keys in addresses are removed, and the length is bounded.
    The command line prints the message without a traceback and exits with code 2.

    >>> print(ZhbertError("https://me:secret@example.org/a.zip: no such label: " + chr(27)))
    https://example.org/a.zip: no such label: \\x1b
    """

    def __init__(self, message: object) -> None:
        line = printable(without_secrets(str(message).strip()))
        if len(line) > _FIRST + _LAST:
            line = f"{line[:_FIRST]} … {line[-_LAST:]}"
        super().__init__(line)


class Interrupted(KeyboardInterrupt):
    """The process was asked to end by the signal ``number``."""

    def __init__(self, number: int = signal.SIGINT) -> None:
        super().__init__(number)
        self.number = number
