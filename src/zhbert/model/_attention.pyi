from typing import Any

def supported() -> tuple[bool, bool]: ...
def attention(
    queries: Any,
    keys: Any,
    values: Any,
    query_starts: Any,
    starts: Any,
    heads: int,
    out: Any,
    bits: int,
    threads: int,
    /,
) -> None: ...
