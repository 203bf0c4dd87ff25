from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

# Capsules and blocks of memory that support the buffer protocol.
Tables = Any
Memory = Any
Words = tuple[Memory, Memory, Memory, int, int, int, Sequence[int]]
Strings = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]

def build(
    pieces: list[str],
    unknown_id: int,
    special_ids: list[tuple[str, int]],
    kinds: NDArray[Any],
    changes: Strings,
    decompositions: Strings,
    orders: tuple[NDArray[Any], NDArray[Any]],
    /,
) -> Tables: ...
def encode(
    tables: Tables, texts: list[str], special_tokens: bool, offsets: bool, /
) -> tuple[Memory, Memory, Memory | None]: ...
def encode_words(tables: Tables, texts: list[str], word_ends: list[NDArray[Any]], /) -> Words: ...
def encode_run(
    tables: Tables,
    codes: NDArray[Any],
    text_ends: NDArray[Any],
    word_ends: NDArray[Any],
    /,
) -> Words: ...
def slices(array: NDArray[Any], starts: Memory, /) -> list[NDArray[Any]]: ...
