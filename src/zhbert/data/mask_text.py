"""One text masked by several strategies, to show the effect of masking."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from zhbert.config import MaskingSettings
from zhbert.data.masking import IGNORED, IntArray, Masker, MaskingVocabulary, quota
from zhbert.errors import ZhbertError
from zhbert.masking_strategies import by_similar_words
from zhbert.text.segmenters import Segmenter
from zhbert.text.segmenters.protocol import word_ends_of
from zhbert.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class Masks:
    """One strategy's masks of a text's pieces."""

    pieces: tuple[str, ...]
    """the model's input pieces"""
    predicted: tuple[int, ...]
    """indices of the predicted pieces in ``pieces``"""
    actions: tuple[str, ...]
    """for each of them: ``mask``, ``random`` or ``kept``; with ``mac``: ``replaced`` or ``kept``"""


@dataclass(frozen=True)
class MaskedText:
    """A text, its words and pieces, and its masks by strategy."""

    text: str
    words: tuple[str, ...]
    pieces: tuple[str, ...]
    word_starts: tuple[bool, ...]
    quota: int
    """number of pieces to predict"""
    masks: dict[str, Masks]


def mask_text(
    text: str,
    tokenizer: Tokenizer,
    segmenter: Segmenter,
    *,
    strategies: Sequence[str] = ("char", "wwm"),
    rate: float = 0.15,
    seed: int = 0,
    replace: bool = False,
    vocabulary: MaskingVocabulary | None = None,
    similar_words: str = "",
) -> MaskedText:
    """Cut ``text`` into words and pieces, and mask it as one row by each strategy.

    Special tokens in the text are plain text, as in ``zhbert prepare``.

    Args:
        text: the text, of any length: it is always one row.
        tokenizer: makes the pieces.
        segmenter: finds the words.
        strategies: names in ``zhbert.masking_strategies.STRATEGIES``.
        rate: share of the pieces to predict; their number is not limited otherwise.
        seed: the seed of each strategy's generator.
        replace: mask as in training: 80 % [MASK], 10 % a random piece, 10 % kept. Otherwise all
            predicted pieces become [MASK]; with ``mac``, similar words.
        vocabulary: the tokenizer's, to be made once for many texts.
        similar_words: with ``mac``, the file of similar words.

    Raises:
        ZhbertError: the text has no pieces, or a strategy or rate is invalid.
    """
    if seed < 0:
        raise ZhbertError(f"--seed {seed}: must be 0 or more")
    if any(0xD800 <= ord(character) <= 0xDFFF for character in text):
        raise ZhbertError("the text is not UTF-8; convert it first")
    ends = word_ends_of(segmenter, [text])[0]
    aligned = tokenizer.encode_words([text], [ends])
    if not len(aligned.ids):
        raise ZhbertError("no text to mask: give a text with at least one character in it")
    vocabulary = vocabulary or MaskingVocabulary(tokenizer.vocabulary, similar_words=similar_words)
    row = np.concatenate(([vocabulary.cls_id], aligned.ids, [vocabulary.sep_id])).astype(np.int64)
    starts = np.concatenate(([True], aligned.word_starts, [True]))
    masks = {}
    for strategy in strategies:
        settings = MaskingSettings(
            strategy=strategy,
            similar_words=similar_words,
            rate=rate,
            # A recipe's limit would leave the end of a long text without masks.
            max_predictions=len(row),
            mask_share=0.8 if replace else 1.0,
            random_share=0.1 if replace else 0.0,
        )
        masked = row.copy()
        labels = Masker(settings, vocabulary).mask(masked, starts, np.random.default_rng(seed))
        other = "replaced" if by_similar_words(strategy) else "random"
        masks[strategy] = _masks(masked[1:-1], labels[1:-1], vocabulary, other)
    words = (without_controls(text[a:b]).strip() for a, b in pairwise([0, *ends.tolist()]))
    return MaskedText(
        text=text,
        words=tuple(word for word in words if word),
        pieces=tuple(tokenizer.vocabulary[piece] for piece in aligned.ids.tolist()),
        word_starts=tuple(aligned.word_starts.tolist()),
        quota=quota(len(row), rate, len(row)),
        masks=masks,
    )


def _masks(masked: IntArray, labels: IntArray, vocabulary: MaskingVocabulary, other: str) -> Masks:
    predicted = np.flatnonzero(labels != IGNORED).tolist()
    actions = []
    for piece, label in zip(masked[predicted], labels[predicted], strict=True):
        replaced = "kept" if piece == label else other
        actions.append("mask" if piece == vocabulary.mask_id else replaced)
    return Masks(
        pieces=tuple(vocabulary.pieces[piece] for piece in masked.tolist()),
        predicted=tuple(predicted),
        actions=tuple(actions),
    )


def without_controls(text: str) -> str:
    """Replace line ends and other characters that move a terminal's cursor with blanks."""
    return "".join(" " if unicodedata.category(c) in ("Cc", "Zl", "Zp") else c for c in text)
