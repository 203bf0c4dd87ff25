from typing import Any

def mask(
    row: Any,
    starts: Any,
    labels: Any,
    strategy: int,
    rate: float,
    settings: Any,
    generator: Any,
    /,
) -> None: ...
def make_batch(
    shards: tuple[tuple[int, Any, Any, Any], ...],
    plan: Any,
    first_key: int,
    keys: Any,
    max_pieces: int,
    strategy: int,
    char_share: float,
    rate: float,
    settings: Any,
    threads: int,
    /,
) -> tuple[
    bytearray, bytearray, bytearray, bytearray, bytearray, bytearray, bytearray, int, int
]: ...
def plan_pairs(
    sentences: Any,
    documents: Any,
    max_pieces: int,
    short_probability: float,
    generator: Any,
    /,
) -> bytes: ...
def truncate_pair(
    a: Any, b: Any, max_pieces: int, generator: Any, /
) -> tuple[int, int, int, int]: ...
def plan_packed(
    sentences: Any, groups: Any, bits: Any, capacity: int, extra_separators: int, /
) -> bytes: ...
