"""The one exception that a user is meant to see."""


class ZhbertError(Exception):
    """A user's mistake or a trouble with their files: one line that says what, where, what to do.

    The command line prints it without a traceback and exits with code 2.
    """
