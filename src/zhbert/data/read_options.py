"""How the input is to be read: what a document is, where its text stands, how it is encoded."""

from __future__ import annotations

from dataclasses import dataclass

from zhbert.data.sources import check_encoding, way_out
from zhbert.errors import ZhbertError

DOCUMENTS = ("blank", "line", "file")
BLOCK_BYTES = 16 << 20
# A block ends with a document, if one ends within so many bytes after BLOCK_BYTES; otherwise a
# document is split. Longer records are skipped.
DOCUMENT_BYTES = 16 << 20


@dataclass(frozen=True)
class Problem:
    """Why a record or a line holds no text, or something else to count in reading."""

    what: str
    """the name under which it is counted"""
    reason: str
    """the same for people"""
    error: bool = True
    """False: nothing is lost"""


@dataclass(frozen=True)
class ReadOptions:
    """How the input is to be read.

    Raises:
        ZhbertError: no such encoding, or nothing would fit into a block.
    """

    documents: str = "blank"
    """what a document is in plain text: "blank" (the text up to a blank line), "line" or "file" """
    field: str | None = None
    """the field or column of a record that holds the text; None: "text". Where it is given, stdin
    that does not show what it holds is read as JSON lines"""
    block_bytes: int = BLOCK_BYTES
    document_bytes: int = DOCUMENT_BYTES
    encoding: str | None = None
    """of files without a byte order mark; None: UTF-8"""

    def __post_init__(self) -> None:
        check_encoding(self.encoding)
        for name in ("block_bytes", "document_bytes"):
            if getattr(self, name) < 1:
                raise ZhbertError(f"{name} = {getattr(self, name)}: must be 1 or more")

    @property
    def broken(self) -> Problem:
        """A line or record that cannot be decoded."""
        return Problem("broken_utf8", f"not {(self.encoding or 'UTF-8').upper()}")

    @property
    def too_long(self) -> Problem:
        """A record that no block can hold."""
        return Problem("too_long", f"a record longer than {self.longest} was skipped")

    @property
    def longest(self) -> str:
        """How long a record may be, as a phrase: "16 MB"."""
        return f"{self.document_bytes >> 20} MB"

    @property
    def way_out(self) -> str:
        """What the user can do about text that cannot be decoded."""
        return way_out(self.encoding)
