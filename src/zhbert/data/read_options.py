"""How the input is to be read: what a document is, where its text stands, how it is encoded."""

from __future__ import annotations

from dataclasses import dataclass

from zhbert.data.sources import check_encoding, way_out
from zhbert.errors import ZhbertError

DOCUMENTS = ("blank", "line", "file")
BLOCK_BYTES = 16 << 20
# How far beyond a block's end the end of its last document is looked for; also the longest record.
# A block is therefore at most twice as large as BLOCK_BYTES.
DOCUMENT_BYTES = 16 << 20


@dataclass(frozen=True)
class Problem:
    """Why a record or a line holds no text, or what else is to be counted of it."""

    what: str
    reason: str
    error: bool = True  # False: nothing is lost


@dataclass(frozen=True)
class ReadOptions:
    """How the input is to be read.

    ``documents``: what separates documents in txt: a "blank" line, each "line" is one, each "file"
    is one. ``field``: which field or column of a record holds the text (None: "text"; stdin that
    does not say what it is is read as jsonl where a field is given). ``encoding``: of files without
    a byte order mark; None is UTF-8.

    Raises:
        ZhbertError: no such encoding, or nothing would fit into a block.
    """

    documents: str = "blank"
    field: str | None = None
    block_bytes: int = BLOCK_BYTES
    document_bytes: int = DOCUMENT_BYTES
    encoding: str | None = None

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
        """How long a record may be, in words."""
        return f"{self.document_bytes >> 20} MB"

    @property
    def way_out(self) -> str:
        """What to do about what cannot be decoded, where that is much."""
        return way_out(self.encoding)
