from typing import Any

def supported() -> tuple[bool, bool]: ...
def attention(
    queries: Any,
    keys: Any,
    values: Any,
    query_cu_seqlens: Any,
    cu_seqlens: Any,
    heads: int,
    out: Any,
    bits: int,
    threads: int,
    /,
) -> None: ...
