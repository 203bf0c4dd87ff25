"""Any text has the ids that transformers' tokenizer gives it: thousands of texts, or a million."""

from __future__ import annotations

import os
import random

from tests.text.test_tokenizer import ODD, OPTIONS, assert_same_as_tokenizers, points, trio

NUMBER = int(os.environ.get("FUZZ_TEXTS") or 5_000)
SEED = int(os.environ.get("FUZZ_SEED") or 0)
BATCH = 500

_RANGES = (
    (0x20, 0x7F), (0, 0x250), (0x4E00, 0xA000), (0x20000, 0x323B0), (0xAC00, 0xD7A4),
    (0x1F300, 0x1FB00), (0x2000, 0x3100), (0xE000, 0x110000),
)  # fmt: skip
_CHARACTERS = (
    [*ODD, "[MASK]", "[SEP]", "[UNK]"],
    *(sorted(table) for table in (points.orders, points.decompositions, points.lower)),
    [*sorted(points.spaces), "\0", "\x85", "\ufffd", "\u200b", "\u200d"],
)


def any_text(rng: random.Random) -> str:
    """Characters of one to three scripts, mixed."""
    parts: list[str] = []
    for _ in range(rng.randint(1, 3)):
        count = rng.choice((1, 2, 5, 20))
        if rng.random() < 0.5:
            parts += rng.choices(rng.choice(_CHARACTERS), k=count)
        else:
            first, end = rng.choice(_RANGES)
            parts += (chr(rng.randrange(first, end)) for _ in range(count))
    rng.shuffle(parts)
    return "".join(parts)


def test_texts_have_the_ids_and_offsets_of_tokenizers() -> None:
    for number in range(0, NUMBER, BATCH):
        # Of the seed and the number alone: a failure is found again without what came before.
        rng = random.Random(f"{SEED} {number}")
        tokenizer, _, reference = trio(number // BATCH % len(OPTIONS))
        texts = [any_text(rng) for _ in range(BATCH)]
        assert_same_as_tokenizers(tokenizer._core, reference, texts)
