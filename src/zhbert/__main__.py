"""``python -m zhbert`` is ``zhbert``."""

from zhbert.cli import entry

entry()
