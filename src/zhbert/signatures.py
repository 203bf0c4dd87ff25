"""What type a file is, told by its first bytes, because a file's name may be wrong or missing."""

from __future__ import annotations

import codecs
import re

HEAD = 4096
"""The number of bytes from a file's beginning that all functions here need."""

COMPRESSIONS = {
    "gzip": b"\x1f\x8b",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zstd": b"\x28\xb5\x2f\xfd",
}
"""Supported compressions of text files, and the bytes that such files begin with."""

# First bytes -> the type of the file and what to do with it.
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
# The first members of a zip tell which program wrote it.
_ZIPPED = (
    (b"xl/", "an Excel workbook: save it as CSV, encoded in UTF-8"),
    (b"word/", "a Word document: save it as plain text, encoded in UTF-8"),
    (b"mimetypeapplication/epub+zip", "an EPUB book: convert it to plain text first"),
    (b"mimetypeapplication/vnd.oasis", "an OpenDocument file: save it as plain text or CSV"),
    (b"[Content_Types].xml", "an Office file: save it as plain text or CSV"),
)


# Model files of other programs that zhbert does not open: suffix, pattern of the first bytes, and
# what the file is with what to do. A match of either the suffix or the bytes is enough.
_MODELS = (
    (
        ".h5",
        rb"\x89HDF\r\n\x1a\n",
        "Keras weights (HDF5): transformers 4 with TensorFlow converts them, "
        "BertForPreTraining.from_pretrained(FOLDER, from_tf=True).save_pretrained(NEW)",
    ),
    (
        ".msgpack",
        rb"[\x81-\x8f][\xa1-\xbf]\w",
        "Flax weights: transformers 4 with Flax converts them, "
        "BertForPreTraining.from_pretrained(FOLDER, from_flax=True).save_pretrained(NEW)",
    ),
    (
        ".pkl",
        rb"\x80[\x02-\x05](?!.{0,9}\x8a\nl\xfc\x9c)",
        "a plain Python pickle, neither torch.save's nor paddle.save's: save the model's "
        "state_dict() with one of them, or as safetensors",
    ),
    (
        ".onnx",
        rb"\x08[\x03-\x20]\x12.[A-Za-z]",
        "an ONNX graph, which is for running a model: take the model that it was made from",
    ),
    (
        ".pb",
        rb"\x08\x01\x12",
        "a TensorFlow graph (SavedModel), which is for running a model: take the checkpoint "
        "that it was made from (*.ckpt.index, *.ckpt.data-*)",
    ),
    (
        ".gguf",
        rb"GGUF",
        "a GGUF model, which is for llama.cpp: take the model that it was made from",
    ),
    (
        ".mindir",
        rb"\n.{1,2}\n.[A-Za-z_.]+\x12",
        "a checkpoint of MindSpore: take the model's files for PyTorch or TensorFlow",
    ),
)
# The magic number with which torch.save began its files before PyTorch 1.6.
_TORCH_MAGIC = rb"\x80[\x02-\x05](\x95.{8})?\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19"
# paddle.save pickles a plain table, and its first value is an array of NumPy.
_PADDLE_MAGIC = rb"\x80[\x02-\x05](\x95.{8})?(}|(\x8c\x0b|c)collections).{0,300}numpy\._?core"


def weights_format(head: bytes) -> str | None:
    """Return ``safetensors``, ``pytorch`` (torch.save, any age), ``paddle`` (.pdparams) or None.

    >>> weights_format(b"\\x40\\0\\0\\0\\0\\0\\0\\0" + b'{"a":{}}')
    'safetensors'
    >>> weights_format(b"PK\\x03\\x04" + b"\\0" * 22 + b"\\x0a\\0\\0\\0" + b"m/data.pkl")
    'pytorch'
    """
    if re.match(rb".{6}\0\0\{\s*[\"}]", head, re.DOTALL):
        return "safetensors"
    # Only the first member of a zip counts: an archive of a whole model folder contains a file of
    # torch.save, too, but is not one.
    if _first_member(head).endswith(b"/data.pkl") or re.match(_TORCH_MAGIC, head, re.DOTALL):
        return "pytorch"
    if re.match(_PADDLE_MAGIC, head, re.DOTALL):
        return "paddle"
    return None


def _first_member(head: bytes) -> bytes:
    """Return the name of a zip's first member; empty if this is not a zip."""
    length = int.from_bytes(head[26:28], "little") if head.startswith(_ZIP) else 0
    return head[30 : 30 + length]


def no_weights(head: bytes, name: str) -> str | None:
    """Say what a file is that is not a weight file zhbert opens, and what to do with it.

    Returns None if neither its first bytes nor its name tell.

    >>> no_weights(b"GGUF\\x03", "model.bin")
    'a GGUF model, which is for llama.cpp: take the model that it was made from'
    """
    if not head:
        return "empty; fetch it again"
    if head.startswith(b"version https://git-lfs"):
        return no_text(head)
    if looks_like_a_page(head):
        return "a web page, not a model: fetch it again, from the address of the file itself"
    if (other := other_model(head, name) or no_text(head)) is not None:
        return other
    text = head[:60].decode("utf-8", "replace").strip()
    if text.isprintable() and "\ufffd" not in text[:-1]:
        return f"a text file ({text!r}), not a model; fetch it again"
    return None


def other_model(head: bytes, name: str) -> str | None:
    """Say which other program's model format a file has and what to do, or return None.

    >>> other_model(b"", "tf_model.h5")[:20]
    'Keras weights (HDF5)'
    """
    by_bytes = (what for _, magic, what in _MODELS if re.match(magic, head, re.S))
    by_name = (what for suffix, _, what in _MODELS if name.lower().endswith(suffix))
    return next(by_bytes, None) or next(by_name, None)


def looks_like_a_page(head: bytes) -> bool:
    """Return whether a file with these first bytes is a web page or XML.

    >>> looks_like_a_page(b"<!DOCTYPE html><html>"), looks_like_a_page(b"PK..")
    (True, False)
    """
    return (
        re.match(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|head|body|\?xml|!--|mediawiki)", head, re.I)
        is not None
    )


def compression_of(head: bytes) -> str | None:
    """Return the compression of a file, a key of COMPRESSIONS, or None.

    >>> compression_of(b"BZh91AY&SY"), compression_of(b"text")
    ('bzip2', None)
    """
    return next((name for name, magic in COMPRESSIONS.items() if head.startswith(magic)), None)


def utf_16_or_32(head: bytes) -> str | None:
    """Detect UTF-16 or UTF-32 by a byte order mark or by NUL bytes; return its name or None.

    >>> utf_16_or_32("今天".encode("utf-16")), utf_16_or_32("a b".encode("utf-16-be"))
    ('UTF-16', 'UTF-16BE')
    >>> utf_16_or_32("今天".encode())
    """
    if head.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")):
        return "UTF-32"
    if head.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16"
    # Without a mark: in UTF-16, every other byte of spaces, digits and Latin letters is NUL.
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if head and max(even, odd) * 20 >= len(head) and min(even, odd) * 20 <= max(even, odd):
        return "UTF-16BE" if even > odd else "UTF-16LE"
    return utf_16_by_its_han(head)


def utf_16_by_its_han(head: bytes) -> str | None:
    """Detect UTF-16 without a byte order mark in Chinese text: the high bytes are those of Han.

    >>> utf_16_by_its_han(("今天天气很好，" * 9).encode("utf-16-le"))
    'UTF-16LE'
    >>> utf_16_by_its_han(("今天天气很好，" * 9).encode("gbk"))
    """
    if len(head) < 32 or _is_utf8(head):
        return None
    even, odd = (sum(byte in _HIGH_BYTES for byte in head[k::2]) * 2 / len(head) for k in (0, 1))
    # If both halves look like high bytes, this is Latin text with a broken byte.
    if max(even, odd) < 0.9 or min(even, odd) > 0.6:
        return None
    return "UTF-16BE" if even > odd else "UTF-16LE"


# High bytes of ASCII, of general and Chinese punctuation, of Han and of full-width characters.
_HIGH_BYTES = frozenset((0x00, 0x20, 0x30, *range(0x4E, 0xA0), 0xFF))


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return True


def no_text(head: bytes) -> str | None:
    """Say what a file is that is neither text nor compressed text, and what to do with it.

    Returns None for text in any encoding, and if the type cannot be told.

    >>> no_text(b"%PDF-1.4")
    'a PDF: extract its text first, for example with pdftotext'
    >>> no_text(b"PK\\x03\\x04....a.txt")
    'a zip archive: unpack it first'
    >>> no_text("今天".encode("gbk"))
    """
    for magic, what in _BINARY:
        if head.startswith(magic):
            return what
    if weights_format(head) == "safetensors":
        return "a safetensors file"
    if (zipped := _zipped(head)) is not None:
        return zipped
    if (archive := archive_of(head)) is not None:
        return f"a {archive} archive: unpack it first"
    if looks_like_a_page(head):
        return "a web page or XML, not plain text: extract its text first"
    if re.match(rb"\x80[\x02-\x05]", head):
        return "a Python pickle"
    return None


def archive_of(head: bytes) -> str | None:
    """Return ``zip``, ``tar`` or None; formats that use zip inside (Office, PyTorch) are None.

    >>> archive_of(b"PK\\x05\\x06"), archive_of(b"PK\\x03\\x04....xl/workbook.xml")
    ('zip', None)
    """
    if head.startswith(_ZIP):
        return None if _zipped(head) else "zip"
    return "tar" if head[257:262] == b"ustar" or _OLD_TAR.match(head) else None


# The header of tar before POSIX: a name, then mode, owner, group, size, time and checksum in octal.
_OLD_TAR = re.compile(
    rb"[^\0]{1,100}\0*(?<=.{100})(?:[0-7 ]{6,7}[ \0]{1,2}){3}[0-7 ]{11,12}[ \0]?[0-7 ]{11,12}",
    re.DOTALL,
)


def _zipped(head: bytes) -> str | None:
    """Say which file format this zip is, or return None if it is a plain archive or no zip."""
    if weights_format(head) == "pytorch":
        return "a PyTorch file (torch.save)"
    if _first_member(head).endswith(b"/data/0"):
        return "a TorchScript program (torch.jit.save): save the model's state_dict() instead"
    if not head.startswith(_ZIP):
        return None
    return next((what for mark, what in _ZIPPED if mark in head), None)


def how_to_convert(head: bytes) -> str:
    """Say what to do with a file that is not UTF-8.

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
