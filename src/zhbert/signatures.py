"""What a file is, by its first bytes: a name may lie, and many files have none worth the word."""

from __future__ import annotations

import re

HEAD = 4096
"""Bytes of a file's beginning that are enough for every function here."""

COMPRESSIONS = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zstd": b"\x28\xb5\x2f\xfd",
}
"""The compressions that text may come in, and what their files begin with."""

# First bytes -> what such a file is and the way out.
_BINARY = (
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: git lfs pull fetches it"),
    (b"%PDF-", "a PDF: extract its text first, for example with pdftotext"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file (.doc, .xls): save it as text"),
    (b"{\\rtf", "a rich text file: save it as plain text"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (Keras weights of TensorFlow 2, usually)"),
    (b"PAR1", "a parquet file"),
    (b"ARROW1", "an Arrow file: save it as parquet or JSON lines"),
    (b"\x93NUMPY", "a NumPy array"),
    (b"SQLite format 3", "an SQLite data base: export its text as JSON lines"),
    (b"7z\xbc\xaf\x27\x1c", "a 7-Zip archive: unpack it first"),
    (b"Rar!\x1a\x07", "a RAR archive: unpack it first"),
    (b"\x89PNG\r\n", "a picture"),
    (b"\xff\xd8\xff", "a picture"),
    (b"GIF8", "a picture"),
    (b"GGUF", "a GGUF model"),
)
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
# A zip's first members tell which program wrote it.
_ZIPPED = (
    (b"xl/", "an Excel workbook: save it as CSV, encoded in UTF-8"),
    (b"word/", "a Word document: save it as plain text, encoded in UTF-8"),
    (b"mimetypeapplication/epub+zip", "an EPUB book: convert it to plain text first"),
    (b"mimetypeapplication/vnd.oasis", "an OpenDocument file: save it as plain text or CSV"),
    (b"[Content_Types].xml", "an Office file: save it as plain text or CSV"),
    (b"/data.pkl", "a PyTorch file (torch.save)"),
)


def looks_like_a_page(head: bytes) -> bool:
    """Whether a file with these first bytes is a web page or XML.

    >>> looks_like_a_page(b"<!DOCTYPE html><html>"), looks_like_a_page(b"PK..")
    (True, False)
    """
    return (
        re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|!--|mediawiki)", head, re.I)
        is not None
    )


def compression_of(head: bytes) -> str | None:
    """The compression of a file with these first bytes, one of COMPRESSIONS; None for none.

    >>> compression_of(b"BZh91AY&SY"), compression_of(b"text")
    ('bzip2', None)
    """
    return next((name for name, magic in COMPRESSIONS.items() if head.startswith(magic)), None)


def utf_16_or_32(head: bytes) -> str | None:
    """UTF-16 or UTF-32 under the name that Python and iconv know, by its mark or its NULs.

    >>> utf_16_or_32("今天".encode("utf-16")), utf_16_or_32("a b".encode("utf-16-be"))
    ('UTF-16', 'UTF-16BE')
    >>> utf_16_or_32("今天".encode())
    """
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    # Without a mark: every other byte of line ends, blanks, digits and Latin letters is a NUL.
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if head and max(even, odd) * 20 >= len(head) and min(even, odd) * 20 <= max(even, odd):
        return "UTF-16BE" if even > odd else "UTF-16LE"
    return None


def no_text(head: bytes) -> str | None:
    """What a file that begins so is, and the way out, where it is neither text nor compressed.

    None for text (in whatever encoding) and for what cannot be told.

    >>> no_text(b"%PDF-1.4")
    'a PDF: extract its text first, for example with pdftotext'
    >>> no_text(b"PK\\x03\\x04....a.txt")
    'a zip archive: unpack it first'
    >>> no_text("今天".encode("gbk"))
    """
    for magic, what in _BINARY:
        if head.startswith(magic):
            return what
    if (zipped := _zipped(head)) is not None:
        return zipped
    if (archive := archive_of(head)) is not None:
        return f"a {archive} archive: unpack it first"
    if looks_like_a_page(head):
        return "a web page or XML, not plain text: extract its text first"
    if re.match(rb"\x80[\x02-\x05]", head):
        return "a Python pickle"
    if re.match(rb"......\0\0\{\s*\"", head, re.DOTALL):
        return "a safetensors file"
    return None


def archive_of(head: bytes) -> str | None:
    """``zip`` or ``tar``; None for what is no archive, and for other formats that are zips inside.

    >>> archive_of(b"PK\x05\x06"), archive_of(b"PK\x03\x04....model/data.pkl")
    ('zip', None)
    """
    if head.startswith(_ZIP):
        return None if _zipped(head) else "zip"
    return "tar" if head[257:262] == b"ustar" else None


def _zipped(head: bytes) -> str | None:
    """What a zip is that is no archive to its user."""
    if not head.startswith(_ZIP):
        return None
    return next((what for mark, what in _ZIPPED if mark in head), None)


def how_to_convert(head: bytes) -> str:
    """What to do with a file that begins so and is not UTF-8.

    >>> how_to_convert("好".encode("utf-16"))
    'convert the file, for example: iconv -f UTF-16 -t UTF-8'
    >>> how_to_convert(b"PK\\x03\\x04....a.txt")
    'it is a zip archive: unpack it first'
    """
    if (what := no_text(head)) is not None:
        return f"it is {what}"
    if (packed := compression_of(head)) is not None:
        return f"it is compressed ({packed}): unpack it first"
    return f"convert the file, for example: iconv -f {utf_16_or_32(head) or 'GB18030'} -t UTF-8"
