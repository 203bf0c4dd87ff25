from typing import Any

def supported() -> tuple[bool, bool]: ...
def linear(
    input: Any,
    weights: Any,
    scales: Any,
    sums: Any,
    bias: Any,
    added: Any,
    out: Any,
    rows: int,
    inputs: int,
    outputs: int,
    gelu: bool,
    bits: int,
    threads: int,
    /,
) -> None: ...
