"""Options for reading the input: the unit of a document, the text's field, and the encoding."""

from __future__ import annotations

from dataclasses import dataclass

from zhbert.data.sources import check_encoding, way_out
from zhbert.errors import ZhbertError

DOCUMENTS = ("blank", "line", "file")
ON_ERROR = ("skip", "fail")
BLOCK_BYTES = 16 << 20
# A block ends with a document if one ends at most this many bytes after BLOCK_BYTES; otherwise the
# document is split. Longer records are skipped.
DOCUMENT_BYTES = 16 << 20


@dataclass(frozen=True)
class Problem:
    """A reason why a record or a line has no text, or another event to count while reading."""

    what: str
    """its name in the counts"""
    reason: str
    """its description for people"""
    error: bool = True
    """False: nothing is lost"""


@dataclass(frozen=True)
class ReadOptions:
    """Options for reading the input.

    Raises:
        ZhbertError: the encoding is unknown, or nothing would fit into a block.
    """

    documents: str = "blank"
    """a document in plain text: "blank" (the text up to a blank line), "line" or "file" """
    field: str | None = None
    """the field or column of a record that contains the text; None: "text". If it is given, stdin
    whose form is not recognised is read as JSON lines"""
    block_bytes: int = BLOCK_BYTES
    document_bytes: int = DOCUMENT_BYTES
    encoding: str | None = None
    """the encoding of files without a byte order mark; None: UTF-8"""

    def __post_init__(self) -> None:
        check_encoding(self.encoding)
        for name in ("block_bytes", "document_bytes"):
            if getattr(self, name) < 1:
                raise ZhbertError(f"{name} = {getattr(self, name)}: must be 1 or more")

    @property
    def broken(self) -> Problem:
        """The problem of a line or record that cannot be decoded."""
        return Problem("broken_utf8", f"not {(self.encoding or 'UTF-8').upper()}")

    @property
    def too_long(self) -> Problem:
        """The problem of a record that is too large for a block."""
        return Problem("too_long", f"a record longer than {self.longest} was skipped")

    @property
    def longest(self) -> str:
        """The maximum size of a record, as a phrase: "16 MB"."""
        return f"{self.document_bytes >> 20} MB"

    @property
    def way_out(self) -> str:
        """Advice for the user about text that cannot be decoded."""
        return way_out(self.encoding)
