"""Whole word masking over one row of piece ids: which pieces are predicted, what replaces them.

The rules are Google's (`create_pretraining_data.py`), over words that a segmenter found:

* a candidate is one word, the run of pieces from one word start to the next; [CLS] and [SEP] are
  never candidates, everything else is (punctuation, digits, [UNK]);
* the quota is counted in pieces: ``min(max_predictions, max(1, int(round(pieces * rate))))``, with
  [CLS] and [SEP] counted and Python's ``round`` (halves to even);
* a chosen piece becomes [MASK] (80 %), a random piece (10 %) or stays (10 %), drawn per piece.

Pure and seeded: the same row, options and generator state give the same masks, with the native
module or without it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zhbert.errors import ZhbertError

try:
    from zhbert.data import _rows
except ImportError:  # no compiler at installation: the plain version below, with the same results
    _rows = None  # type: ignore[assignment]

IGNORED = -100
"""The label of a piece that is not predicted; PyTorch's and Hugging Face's convention."""

# The number is how the native module knows the strategy.
STRATEGIES = {"char": 0, "wwm": 1, "wwm-unbiased": 2, "ngram": 3}

# A span of n words is drawn with these odds (n = 1, 2, 3, 4).
NGRAM_SHARES = (0.4, 0.3, 0.2, 0.1)

RANDOM_PIECES = ("corpus", "all")

_NEVER_IN_TEXT = re.compile(r"\[(?:PAD|UNK|CLS|SEP|MASK|unused\d+)\]|<[ST]>")
_CONTINUED_HAN = re.compile("##[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")

IntArray = npt.NDArray[np.int64]


class MaskingVocabulary:
    """What masking needs of a vocabulary: the ids of its marks and of the pieces to draw from.

    ``random_pieces="corpus"`` draws replacements from the pieces that a text can contain: no
    special token, no [unusedN], no ``##`` before a Han character (the tokenizer never makes one).
    ``"all"`` draws from the whole vocabulary, as Google's code does.

    Raises:
        ZhbertError: a vocabulary without [CLS], [SEP] or [MASK].
    """

    def __init__(self, pieces: Sequence[str], random_pieces: str = "corpus") -> None:
        if random_pieces not in RANDOM_PIECES:
            raise ZhbertError(
                f"masking: random_pieces = {random_pieces!r}; known: {', '.join(RANDOM_PIECES)}"
            )
        self.pieces = tuple(pieces)
        self.random_pieces = random_pieces
        index = {piece: number for number, piece in enumerate(self.pieces)}
        missing = [mark for mark in ("[CLS]", "[SEP]", "[MASK]") if mark not in index]
        if missing:
            raise ZhbertError(f"masking: the vocabulary has no {', '.join(missing)}")
        self.cls_id = index["[CLS]"]
        self.sep_id = index["[SEP]"]
        self.mask_id = index["[MASK]"]
        self.pad_id = index.get("[PAD]", -1)
        self.random_ids: npt.NDArray[np.int32] = np.array(
            [
                number
                for number, piece in enumerate(self.pieces)
                if random_pieces == "all"
                or not (_NEVER_IN_TEXT.fullmatch(piece) or _CONTINUED_HAN.match(piece))
            ],
            dtype=np.int32,
        )
        if not len(self.random_ids):
            raise ZhbertError("masking: the vocabulary holds no piece that a text can contain")


@dataclass(frozen=True, kw_only=True)
class Masking:
    """How a run masks; the field names are the keys of a recipe's ``[masking]`` table."""

    strategy: str = "wwm"
    char_share: float = 0.0
    """This share of the rows is masked by single pieces, whatever the strategy."""
    rate: float = 0.15
    final_rate: float | None = None
    """If set, the rate changes linearly from ``rate`` at the first step to this at the last."""
    max_predictions: int = 20
    random_pieces: str = "corpus"
    per_word: bool = False
    mask_share: float = 0.8
    random_share: float = 0.1
    static_masks: int = 0
    """0: new masks every epoch. k: the same k masks over and over, as the published models had."""

    def rate_at(self, progress: float) -> float:
        """The masking rate when ``progress`` (0 to 1) of the run is done."""
        if self.final_rate is None:
            return self.rate
        return self.rate + (self.final_rate - self.rate) * min(max(progress, 0.0), 1.0)


def quota(num_pieces: int, rate: float, max_predictions: int) -> int:
    """How many pieces of a row of ``num_pieces`` (with [CLS] and [SEP]) are to be predicted.

    >>> quota(128, 0.15, 20), quota(512, 0.15, 77), quota(3, 0.15, 20)
    (19, 77, 1)
    """
    return min(max_predictions, max(1, round(num_pieces * rate)))


_last_vocabulary: MaskingVocabulary | None = None


def _prepared(
    vocabulary: Sequence[str] | MaskingVocabulary, random_pieces: str
) -> MaskingVocabulary:
    """The vocabulary's ids, made again only when the vocabulary differs from the last call's."""
    global _last_vocabulary
    if isinstance(vocabulary, MaskingVocabulary):
        return vocabulary
    last = _last_vocabulary
    if last is None or last.random_pieces != random_pieces or last.pieces != tuple(vocabulary):
        last = _last_vocabulary = MaskingVocabulary(vocabulary, random_pieces)
    return last


def mask_words(
    piece_ids: npt.ArrayLike,
    word_starts: npt.ArrayLike,
    *,
    strategy: str = "wwm",
    rate: float = 0.15,
    max_predictions: int = 20,
    vocabulary: Sequence[str] | MaskingVocabulary,
    rng: np.random.Generator,
    random_pieces: str = "corpus",
    per_word: bool = False,
    mask_share: float = 0.8,
    random_share: float = 0.1,
) -> tuple[IntArray, IntArray]:
    """Mask one row.

    Args:
        piece_ids: (length,) ids of the row, its [CLS] and [SEP] included, no padding.
        word_starts: (length,) True where a word starts; True at [CLS] and [SEP].
        strategy: ``char`` (each piece alone), ``wwm`` (Google's rule over words), ``wwm-unbiased``
            (each word with the same probability, whatever its length) or ``ngram`` (spans of one
            to four words).
        rate: share of the row's pieces to predict.
        max_predictions: the most pieces to predict; for ``wwm-unbiased`` a cap of the quota, not
            of the draw.
        vocabulary: the pieces in id order, or a MaskingVocabulary made from them once (which then
            decides on ``random_pieces``).
        rng: where the randomness comes from.
        random_pieces: ``corpus`` or ``all``; see MaskingVocabulary.
        per_word: draw [MASK] / random / unchanged once a word instead of once a piece.
        mask_share: share of the chosen pieces that become [MASK].
        random_share: share of them that become a random piece; the rest stays.

    Returns:
        ``(input_ids, labels)``, both (length,) int64; a label is the piece that stood there, or
        -100 where nothing is predicted.

    Raises:
        ZhbertError: an unknown strategy, a rate outside 0..1, no prediction allowed at all, shares
            that are negative or add up to more than 1, arrays of different lengths.

    >>> pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "语", "言", "模", "型"]
    >>> ids, labels = mask_words([2, 5, 6, 7, 8, 3], [1, 1, 0, 1, 0, 1], rate=0.34,
    ...     vocabulary=pieces, rng=np.random.default_rng(0), mask_share=1.0, random_share=0.0)
    >>> [pieces[i] for i in ids], labels.tolist()
    (['[CLS]', '语', '言', '[MASK]', '[MASK]', '[SEP]'], [-100, -100, -100, 7, 8, -100])
    """
    if strategy not in STRATEGIES:
        raise ZhbertError(f"masking: strategy = {strategy!r}; known: {', '.join(STRATEGIES)}")
    if not 0.0 < rate <= 1.0:
        raise ZhbertError(f"masking: rate = {rate}; it must lie above 0 and not above 1")
    if max_predictions < 1:
        raise ZhbertError(f"masking: max_predictions = {max_predictions}; it must be at least 1")
    # Written so that a share that is not a number fails, too.
    if not (mask_share >= 0.0 <= random_share and mask_share + random_share <= 1.0 + 1e-9):
        raise ZhbertError(
            f"masking: mask_share {mask_share} and random_share {random_share} must not be "
            "negative and must not add up to more than 1"
        )
    prepared = _prepared(vocabulary, random_pieces)
    row = np.array(piece_ids, dtype=np.int64)
    starts = np.ascontiguousarray(word_starts, dtype=np.bool_)
    if row.ndim != 1 or starts.shape != row.shape:
        raise ZhbertError(
            f"masking: piece_ids of shape {row.shape} and word_starts of shape {starts.shape}; "
            "one row and as many flags are needed"
        )
    labels = np.full(len(row), IGNORED, dtype=np.int64)
    mask_row = _rows.mask if _rows is not None else _mask_row
    mask_row(
        row,
        starts.view(np.uint8),
        labels,
        STRATEGIES[strategy],
        rate,
        max_predictions,
        prepared.cls_id,
        prepared.sep_id,
        prepared.pad_id,
        prepared.mask_id,
        prepared.random_ids,
        mask_share,
        random_share,
        per_word,
        rng.bit_generator.capsule if _rows is not None else rng,
    )
    return row, labels


def _mask_row(
    row: IntArray,
    starts: npt.NDArray[np.uint8],
    labels: IntArray,
    strategy: int,
    rate: float,
    max_predictions: int,
    cls_id: int,
    sep_id: int,
    pad_id: int,
    mask_id: int,
    random_ids: npt.NDArray[np.int32],
    mask_share: float,
    random_share: float,
    per_word: bool,
    rng: Any,
) -> None:
    """The native ``_rows.mask`` in Python: the same draws in the same order, so the same masks."""
    # Words as (first piece, length, sentence part); a part ends at [CLS] or [SEP].
    words: list[tuple[int, int, int]] = []
    part = 0
    num_pieces = len(row)
    after_mark = True
    for position, piece in enumerate(row.tolist()):
        if piece in (cls_id, sep_id, pad_id):
            num_pieces -= piece == pad_id
            part += 1
            after_mark = True
        elif after_mark or strategy == 0 or starts[position]:
            words.append((position, 1, part))
            after_mark = False
        else:
            first, length, where = words[-1]
            words[-1] = (first, length + 1, where)
    if not words:
        return
    limit = quota(num_pieces, rate, max_predictions)
    chosen = [False] * len(words)
    if strategy == STRATEGIES["wwm-unbiased"]:
        probability = limit / sum(length for _, length, _ in words)
        for index in range(len(words)):
            chosen[index] = rng.random() < probability
    else:
        covered = 0
        order = list(range(len(words)))
        for index in range(len(order)):
            if covered >= limit:
                break
            # A shuffle that stops as soon as the quota is reached.
            other = index + int(rng.random() * (len(order) - index))
            order[index], order[other] = order[other], order[index]
            start = order[index]
            if strategy != STRATEGIES["ngram"]:
                # A word that overshoots is skipped, not cut: half a word would leak the rest.
                if covered + words[start][1] <= limit:
                    chosen[start] = True
                    covered += words[start][1]
                continue
            if chosen[start]:
                continue
            draw = rng.random()
            n = 1 + (draw >= 0.4) + (draw >= 0.7) + (draw >= 0.9)
            while n > 0:
                span = [
                    word
                    for word in range(start, min(start + n, len(words)))
                    if words[word][2] == words[start][2]
                ]
                cost = sum(words[word][1] for word in span if not chosen[word])
                if covered + cost <= limit:
                    for word in span:
                        chosen[word] = True
                    covered += cost
                    break
                n -= 1
    for index, (first, length, _) in enumerate(words):
        if not chosen[index]:
            continue
        draw = rng.random() if per_word else 0.0
        for position in range(first, first + length):
            labels[position] = row[position]
            if not per_word:
                draw = rng.random()
            if draw < mask_share:
                row[position] = mask_id
            elif draw < mask_share + random_share:
                row[position] = random_ids[int(rng.random() * len(random_ids))]
