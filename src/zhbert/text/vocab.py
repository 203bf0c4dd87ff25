"""vocab.txt, the file of a vocabulary: one piece per line; a piece's id is its line, from 0."""

from __future__ import annotations

import codecs
import re
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.files import read_text
from zhbert.text.added_tokens import WHITE_SPACE
from zhbert.text.wordpiece import CONTINUATION


class TokenizerWarning(UserWarning):
    """A warning about a vocabulary that is odd but can be used."""


def default_vocabulary() -> Path:
    """Return the folder with the vocab.txt that ships with the package."""
    return Path(__file__).resolve().parent.parent / "assets"


def read_vocabulary(path: str | Path) -> list[str]:
    """Read the pieces of a vocab.txt; white space at the end of a line is ignored.

    Blank lines at the end are dropped; other blank lines stay, as ids without a piece. A piece that
    consists of odd white space (Google's Chinese vocabulary has U+2028, alone and after ##) is
    kept: it never occurs in a text, but the file can be written again unchanged.

    Raises:
        ZhbertError: the file does not exist, is not UTF-8, has a byte order mark or has no piece.
    """
    pieces = read_rows(Path(path))
    while not pieces[-1]:
        pieces.pop()
    return pieces


def read_rows(path: Path) -> list[str]:
    """Read the lines of a vocab.txt as pieces, including blank ones at the end."""
    text = read_text(path, "a vocabulary")
    with path.open("rb") as file:
        if file.read(3) == codecs.BOM_UTF8:
            # transformers would read the mark as a part of the first piece.
            raise ZhbertError(
                f"{path}: starts with a byte order mark; save it as UTF-8 without one, for "
                "example: sed -i '1s/^\\xef\\xbb\\xbf//'"
            )
    pieces = [_piece(line) for line in text.removesuffix("\n").split("\n")]
    if not any(pieces):
        raise ZhbertError(f"{path}: the vocabulary is empty; it needs one piece a line")
    return pieces


def _piece(line: str) -> str:
    piece = line.rstrip(WHITE_SPACE)
    return line.strip("\t\v\f\r ") if piece in ("", CONTINUATION) else piece


def warn_of_repeated(vocabulary: Sequence[str], path: Path) -> None:
    """Warn with TokenizerWarning if a piece occurs twice in a vocabulary."""
    last = {piece: row for row, piece in enumerate(vocabulary) if piece}
    repeated = [piece for row, piece in enumerate(vocabulary) if piece and last[piece] != row]
    if repeated:
        first = vocabulary.index(repeated[0])
        more = f", and so do {len(set(repeated)) - 1:,} more" if len(set(repeated)) > 1 else ""
        warnings.warn(
            f"{path}: {repeated[0]!r} stands there twice, with the ids {first} and "
            f"{last[repeated[0]]}{more}; the last row counts, as for transformers",
            TokenizerWarning,
            stacklevel=2,
        )


def looks_cased(pieces: Iterable[str]) -> bool:
    """Return True if a vocabulary was made for text that keeps its capitals.

    That is the case if lower-casing would change at least 1 in 200 of its pieces with letters that
    have case: a lower-cased vocabulary may have a few capitals, in a user's symbols or letters
    without a lower-case form in older Unicode versions. [Bracketed] and <bracketed> tokens are
    ignored: Google's Chinese vocabulary is lower-cased and has [UNK], <S> and <T>.

    >>> looks_cased(["[UNK]", "<S>", "a", "##b", "的"]), looks_cased(["A", "b", "的"])
    (False, True)
    """
    words = [piece for piece in pieces if not re.fullmatch(r"\[.*\]|<.*>", piece)]
    with_case = sum(1 for word in words if word.lower() != word.upper())
    capitals = sum(1 for word in words if word.lower() != word)
    return capitals > 0 and 200 * capitals >= with_case
