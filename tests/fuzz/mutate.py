"""Damage: what a bad disk, a bad program or a bad stranger makes of a file."""

from __future__ import annotations

import json
import random
import re
import struct
from collections.abc import Callable
from typing import Any

Random = random.Random

# What readers trip over, as bytes: marks, ends of lines, control characters, other files' heads.
_TOKENS: tuple[str | bytes, ...] = (
    "\ufeff", "\0", "\r", "\r\n", "\n\n", "\u2028", "\x85", "\x1b[31m", "\x07", "\u202e", "\t",
    '"', "'", "\\", "\\ud800", "{", "}", "[", "]", "[[", ",", ":", "=", "#", "<!doctype html>",
    "version https://git-lfs.github.com/spec/v1\n", "NaN", "-1", "0", "1e999", "null", "true",
    b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b"\x81\x30", b"PK\x03\x04", b"\x1f\x8b\x08",
    b"\x80\x02", b"PAR1", b"ARROW1", b"ustar\0", b"%PDF-",
)  # fmt: skip
_NUMBERS = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63)
_DECIMALS = ("-1", "0", "1e999", "1e308", "NaN", "-0", "9" * 20, "9" * 5000, "0.5", "2147483648")
_DEPTHS = (200, 2_000, 100_000)


def _values(rng: Random) -> Any:
    """A value that JSON can hold, and that nobody expects."""
    return rng.choice(
        (
            None, True, False, 0, -1, 1, 0.5, 2**31, 2**63, 2**64, -(2**63), 10**30, 1e308,
            float("nan"), float("inf"), "", "0", "-1", "文", "a\nb", "\x1b[31mred", "\u202e",
            "\ud800", "x" * 5_000, "../../etc/passwd", "/dev/zero", "NaN", [], {}, [[]], [None],
            ["a", 1], {"a": {}}, {"": None}, [0] * 1_000, {str(n): n for n in range(300)},
        )
    )  # fmt: skip


# --- of bytes -----------------------------------------------------------------------------------


def _flip(data: bytearray, rng: Random) -> None:
    data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _byte(data: bytearray, rng: Random) -> None:
    data[rng.randrange(len(data))] = rng.choice((0, 9, 10, 13, 27, 0x7F, 0x80, 0xFF, 34, 44, 45))


def _integer(data: bytearray, rng: Random) -> None:
    form = rng.choice(("<H", "<I", "<Q", ">H", ">I", ">Q"))
    number = rng.choice(_NUMBERS) % (1 << 8 * struct.calcsize(form))
    start = rng.randrange(len(data))
    data[start : start + struct.calcsize(form)] = struct.pack(form, number)


def _truncate(data: bytearray, rng: Random) -> None:
    del data[rng.randrange(len(data)) :]


def _cut(data: bytearray, rng: Random) -> None:
    start, stop = sorted(rng.choices(range(len(data) + 1), k=2))
    del data[start : min(stop, start + rng.choice((1, 16, 512, len(data))))]


def _block(data: bytearray, rng: Random) -> bytes:
    start = rng.randrange(len(data))
    return bytes(data[start : start + rng.choice((1, 8, 64, 512, 4096))])


def _insert(data: bytearray, rng: Random, block: bytes) -> None:
    start = rng.randrange(len(data) + 1)
    data[start:start] = block


def _repeat(data: bytearray, rng: Random) -> None:
    _insert(data, rng, _block(data, rng) * rng.choice((1, 1, 2, 50)))


def _splice(data: bytearray, rng: Random) -> None:
    block, start = _block(data, rng), rng.randrange(len(data))
    data[start : start + len(block)] = block


def _token(data: bytearray, rng: Random) -> None:
    token = rng.choice(_TOKENS)
    _insert(data, rng, token.encode() if isinstance(token, str) else token)


def _noise(data: bytearray, rng: Random) -> None:
    _insert(data, rng, rng.randbytes(rng.choice((1, 4, 64))))


def _zeros(data: bytearray, rng: Random) -> None:
    start = rng.randrange(len(data))
    stop = min(len(data), start + rng.choice((1, 8, 512)))
    data[start:stop] = bytes(stop - start)


def _decimal(data: bytearray, rng: Random) -> None:
    """Another number in the place of one written in digits."""
    if places := list(re.finditer(rb"\d+(\.\d+)?", data[: 1 << 16])):
        place = rng.choice(places)
        data[place.start() : place.end()] = rng.choice(_DECIMALS).encode()


def _nest(data: bytearray, rng: Random) -> None:
    """Brackets in brackets, where a value stands or anywhere."""
    places = [found.end() for found in re.finditer(rb"[:=\[,]\s*", data[: 1 << 16])]
    start = rng.choice(places or [0])
    data[start:start] = rng.choice((b"[", b'{"a":', b"(")) * rng.choice(_DEPTHS)


def _value(data: bytearray, rng: Random) -> None:
    """A value of another type behind a sign of equality or a colon."""
    places = list(re.finditer(rb"[=:] *([^,\n}\]]+)", data[: 1 << 16]))
    if places:
        place = rng.choice(places)
        # json.dumps escapes; TOML and JSON have all but null and NaN's spelling in common.
        data[place.start(1) : place.end(1)] = json.dumps(_values(rng)).encode()


def _line(data: bytearray, rng: Random) -> None:
    """One line twice, away, or in another place."""
    lines = bytes(data).splitlines(keepends=True)
    line = lines.pop(rng.randrange(len(lines)))
    for _ in range(rng.randrange(3)):
        lines.insert(rng.randrange(len(lines) + 1), line)
    data[:] = b"".join(lines)


def _encode(data: bytearray, rng: Random) -> None:
    """The same text in another encoding."""
    text = bytes(data).decode(errors="replace")
    data[:] = text.encode(rng.choice(("utf-16", "utf-16-be", "utf-32", "gb18030", "utf-8-sig")))


def _empty(data: bytearray, rng: Random) -> None:
    data[:] = rng.choice((b"", b"\n", b"\0" * 100, b"{}", b"[]", b"null", b'""', b"0"))


_Damage = Callable[[bytearray, Random], None]
_OF_BYTES: tuple[_Damage, ...] = (
    _flip, _byte, _integer, _truncate, _cut, _repeat, _splice, _token, _noise, _zeros,
)  # fmt: skip
_OF_TEXT: tuple[_Damage, ...] = (*_OF_BYTES, _decimal, _nest, _value, _value, _line, _encode)


# --- of JSON ------------------------------------------------------------------------------------


def _swap(value: Any, rng: Random, depth: int = 0) -> Any:
    """The same value, but for one place in it."""
    if not isinstance(value, dict | list) or not value or rng.random() < 0.15 * (depth > 0):
        return _values(rng)
    if isinstance(value, list):
        place = rng.randrange(len(value))
        return [*value[:place], _swap(value[place], rng, depth + 1), *value[place + 1 :]]
    key = rng.choice(list(value))
    match rng.randrange(8):
        case 0:
            return {other: one for other, one in value.items() if other != key}
        case 1:
            return value | {rng.choice(("", "a", "\x1b[1m", "类型", "x" * 3_000)): value[key]}
        case 2:
            return {(f"{key}x" if other == key else other): one for other, one in value.items()}
        case _:
            return value | {key: _swap(value[key], rng, depth + 1)}


def _of_json(data: bytes, rng: Random) -> bytes | None:
    """Another document than this one, or other lines than these; None where it is no JSON."""
    lines = data.splitlines() if b"\n{" in data and data.startswith(b"{") else [data]
    place = rng.randrange(len(lines))
    try:
        value = json.loads(lines[place])
    except (ValueError, RecursionError):
        return None
    lines[place] = json.dumps(_swap(value, rng)).encode()
    return b"\n".join(lines)


def mutate(data: bytes, rng: Random) -> bytes:
    """``data`` with one to three kinds of damage, as the generator decides.

    >>> mutate(b'{"steps": 10}', Random(3)) == mutate(b'{"steps": 10}', Random(3))
    True
    """
    if rng.random() < 0.01:
        found = bytearray(data)
        _empty(found, rng)
        return bytes(found)
    is_text = b"\0" not in data[:256]
    if is_text and rng.random() < 0.5 and (changed := _of_json(data, rng)) is not None:
        return changed
    found = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        if found:
            rng.choice(_OF_TEXT if is_text else _OF_BYTES)(found, rng)
    return bytes(found)
