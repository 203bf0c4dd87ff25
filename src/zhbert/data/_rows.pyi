from typing import Any

def mask(
    row: Any,
    starts: Any,
    labels: Any,
    strategy: int,
    rate: float,
    max_predictions: int,
    cls_id: int,
    sep_id: int,
    pad_id: int,
    mask_id: int,
    random_ids: Any,
    mask_share: float,
    random_share: float,
    per_word: bool,
    similar_words: tuple[Any, Any, Any, Any] | None,
    generator: Any,
    /,
) -> None: ...
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
