"""Masks one row of piece ids: which pieces are predicted, and what stands in their place.

The rules are Google's ``create_masked_lm_predictions``, over the words that a segmenter found:
https://github.com/google-research/bert/blob/master/create_pretraining_data.py

* A candidate is one word: the run of pieces from one word start to the next. [CLS] and [SEP] are
  never candidates; punctuation, digits and [UNK] are.
* The quota is counted in pieces: ``min(max_predictions, max(1, round(pieces * rate)))``, with [CLS]
  and [SEP] counted, and halves rounded to even.
* A masking strategy chooses words up to that quota (``zhbert.masking_strategies``).
* A chosen piece becomes [MASK] (80 %), a random piece (10 %) or stays as it is (10 %).
* With a strategy that is ``by_similar_words``, a chosen word becomes a similar word (80 %), a
  random word (10 %) or stays (10 %), always one of as many pieces. A word without similar words
  becomes a random word; if no word of its length is known, all its pieces become random pieces.

Everything here is a pure function of its arguments: the same row, settings and generator state give
the same masks, with the native module or without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from zhbert.config import MaskingSettings, check_masking
from zhbert.data.similar_words import SimilarWords, WordIds, read_similar_words
from zhbert.errors import ZhbertError
from zhbert.masking_strategies import (
    STRATEGIES,
    CharacterMasking,
    MacMasking,
    MaskingStrategy,
    NgramMasking,
    UnbiasedMasking,
    WholeWordMasking,
    Word,
    by_similar_words,
)

try:
    from zhbert.data import _rows
except ImportError:  # not compiled: the functions in Python below give the same results, slowly
    _rows = None  # type: ignore[assignment]

IGNORED = -100
"""The label of a piece that is not predicted; PyTorch's and Hugging Face's convention."""

# The strategies that the native module knows, too, and their numbers there.
_NATIVE = {
    CharacterMasking: 0,
    WholeWordMasking: 1,
    UnbiasedMasking: 2,
    NgramMasking: 3,
    MacMasking: 4,
}

_NEVER_IN_TEXT = re.compile(r"\[(?:PAD|UNK|CLS|SEP|MASK|unused\d+)\]|<[ST]>")
_CONTINUED_HAN = re.compile("##[\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]")

IntArray = npt.NDArray[np.int64]
BoolArray = npt.NDArray[np.bool_]


class MaskingVocabulary:
    """What masking needs of a vocabulary: the special tokens' ids, random pieces, similar words.

    Args:
        pieces: the vocabulary in id order.
        random_pieces: with ``corpus``, a random piece is one that a text can contain: no special
            token, no [unusedN], no ``##`` before a Han character (the tokenizer never makes one).
            With ``all``, it is any piece of the vocabulary, as in Google's code.
        similar_words: a file of similar words, for strategies that need one.

    Raises:
        ZhbertError: a vocabulary without [CLS], [SEP] or [MASK], or without a random piece; or a
            file of similar words that cannot be used.
    """

    def __init__(
        self, pieces: Sequence[str], random_pieces: str = "corpus", similar_words: str = ""
    ) -> None:
        self.pieces = tuple(pieces)
        self.random_pieces = random_pieces
        self.similar_words: SimilarWords | None = None
        if similar_words:
            self.similar_words = read_similar_words(similar_words, self.pieces)
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


def quota(num_pieces: int, rate: float, max_predictions: int) -> int:
    """Return the number of pieces to predict in a row of ``num_pieces``, [CLS] and [SEP] included.

    >>> quota(128, 0.15, 20), quota(512, 0.15, 77), quota(3, 0.15, 20)
    (19, 77, 1)
    """
    return min(max_predictions, max(1, round(num_pieces * rate)))


class Masker:
    """Masks rows by the settings of a recipe's ``[masking]`` table.

    Args:
        settings: the settings; their rates and strategy can be overridden for each row.
        vocabulary: the pieces in id order, or what was made of them before.

    Raises:
        ZhbertError: a setting out of range, or a vocabulary that nothing can be masked with.
    """

    def __init__(
        self, settings: MaskingSettings, vocabulary: Sequence[str] | MaskingVocabulary
    ) -> None:
        check_masking(settings)
        _strategy_named(settings.strategy)
        self.settings = settings
        if not isinstance(vocabulary, MaskingVocabulary):
            vocabulary = MaskingVocabulary(
                vocabulary, settings.random_pieces, settings.similar_words
            )
        self.vocabulary = vocabulary
        self.native_settings = (
            settings.max_predictions,
            vocabulary.cls_id,
            vocabulary.sep_id,
            vocabulary.pad_id,
            vocabulary.mask_id,
            vocabulary.random_ids,
            settings.mask_share,
            settings.random_share,
            settings.per_word,
            vocabulary.similar_words.arrays if vocabulary.similar_words else None,
        )
        """What the native module reads of the settings and the vocabulary."""

    def native_strategy(self, strategy: str | None = None) -> tuple[int, float] | None:
        """Return the strategy's number in the native module, and the share of rows by ``char``.

        None: rows have to be masked in Python, since a strategy or the module is not there.
        """
        share = 0.0 if strategy else self.settings.char_share
        chooser = self._chooser(strategy or self.settings.strategy)
        native = _NATIVE.get(type(chooser))
        if (
            _rows is None
            or native is None
            or (share and type(_strategy_named("char")) not in _NATIVE)
        ):
            return None
        return native, share

    def _chooser(self, strategy: str) -> MaskingStrategy:
        """Return the strategy of this name; raise ZhbertError if it lacks its similar words."""
        if by_similar_words(strategy) and self.vocabulary.similar_words is None:
            raise ZhbertError(f"masking strategy '{strategy}': it needs a file of similar words")
        return _strategy_named(strategy)

    def mask(
        self,
        row: IntArray,
        word_starts: BoolArray,
        rng: np.random.Generator,
        *,
        rate: float | None = None,
        strategy: str | None = None,
    ) -> IntArray:
        """Mask one row in place.

        Args:
            row: (length,) piece ids with [CLS] and [SEP]; contiguous, and overwritten.
            word_starts: (length,) True where a word starts; contiguous.
            rng: where the randomness comes from.
            rate: another masking rate than the settings'.
            strategy: another strategy than the settings'; ``char_share`` has then no effect.

        Returns:
            (length,) labels: the piece that stood there, -100 where nothing is predicted.

        Raises:
            ZhbertError: a strategy from outside chose what ``MaskingStrategy.choose`` rules out.
        """
        settings, vocabulary = self.settings, self.vocabulary
        rate = settings.rate if rate is None else rate
        if strategy is None:
            strategy = settings.strategy
            if settings.char_share and rng.random() < settings.char_share:
                strategy = "char"
        chooser = self._chooser(strategy)
        labels = np.full(len(row), IGNORED, dtype=np.int64)
        native = _NATIVE.get(type(chooser))
        if _rows is not None and native is not None:
            starts, capsule = word_starts.view(np.uint8), rng.bit_generator.capsule
            _rows.mask(row, starts, labels, native, rate, self.native_settings, capsule)
        elif words := _find_words(row, word_starts, vocabulary):
            num_pieces = len(row) - int(np.count_nonzero(row == vocabulary.pad_id))
            limit = quota(num_pieces, rate, settings.max_predictions)
            if native is None:
                chosen = _choose_checked(strategy, chooser, words, limit, rng)
            else:
                chosen = chooser.choose(words, limit, rng)
            replace = self._replace_words if by_similar_words(strategy) else self._replace
            replace(row, labels, chosen, rng)
        return labels

    def _replace(
        self, row: IntArray, labels: IntArray, chosen: Iterable[Word], rng: np.random.Generator
    ) -> None:
        """Label the chosen pieces, and put [MASK] or a random piece in place of most of them."""
        settings, vocabulary = self.settings, self.vocabulary
        masked, replaced = settings.mask_share, settings.mask_share + settings.random_share
        random_ids = vocabulary.random_ids
        for start, length, _ in sorted(chosen):
            draw = rng.random() if settings.per_word else 0.0
            for position in range(start, start + length):
                labels[position] = row[position]
                if not settings.per_word:
                    draw = rng.random()
                if draw < masked:
                    row[position] = vocabulary.mask_id
                elif draw < replaced:
                    row[position] = random_ids[int(rng.random() * len(random_ids))]

    def _replace_words(
        self, row: IntArray, labels: IntArray, chosen: Iterable[Word], rng: np.random.Generator
    ) -> None:
        """Label the chosen words, and put similar or random words in place of most of them."""
        settings, random_ids = self.settings, self.vocabulary.random_ids
        masked, replaced = settings.mask_share, settings.mask_share + settings.random_share
        words = self.vocabulary.similar_words
        assert words is not None
        for start, length, _ in sorted(chosen):
            place = slice(start, start + length)
            labels[place] = row[place]
            other: WordIds | list[int] | None = None
            if (draw := rng.random()) < masked:
                other = words.draw_similar(tuple(row[place].tolist()), rng)
            elif draw >= replaced:
                continue
            other = other or words.draw_any(length, rng)
            if other is None:
                other = [random_ids[int(rng.random() * len(random_ids))] for _ in range(length)]
            row[place] = other


def _find_words(row: IntArray, word_starts: BoolArray, vocabulary: MaskingVocabulary) -> list[Word]:
    """Return the words of a row by position; special tokens separate words and belong to none."""
    words: list[Word] = []
    part = 0
    new_part = True
    specials = (vocabulary.cls_id, vocabulary.sep_id, vocabulary.pad_id)
    for position, (piece, starts) in enumerate(
        zip(row.tolist(), word_starts.tolist(), strict=True)
    ):
        if piece in specials:
            part += 1
            new_part = True
        elif new_part or starts:
            words.append(Word(position, 1, part))
            new_part = False
        else:
            start, length, _ = words[-1]
            words[-1] = Word(start, length + 1, part)
    return words


def _strategy_named(name: str) -> MaskingStrategy:
    strategy = STRATEGIES[name]
    if isinstance(strategy, type):
        raise ZhbertError(
            f"masking strategy '{name}': its entry in STRATEGIES is a class; "
            f"add {strategy.__name__}() instead"
        )
    return strategy


def _choose_checked(
    name: str,
    strategy: MaskingStrategy,
    words: Sequence[Word],
    limit: int,
    rng: np.random.Generator,
) -> list[Word]:
    """Return the choice of a strategy from outside; raise ZhbertError if it breaks the contract."""
    # It gets a list of its own, which it may shuffle in place.
    chosen = list(strategy.choose(list(words), limit, rng))
    exact = not getattr(strategy, "limit_is_expected", False)
    if problem := _problem_of(chosen, words, limit if exact else None):
        raise ZhbertError(f"masking strategy '{name}': chose {problem}")
    return chosen


def _problem_of(chosen: Sequence[Word], words: Sequence[Word], limit: int | None) -> str | None:
    """Return what is wrong with a choice: its words, or that it has too many pieces; or None."""
    ends = {
        position: start + length
        for start, length, _ in words
        for position in range(start, start + length)
    }
    for word in chosen:
        if not isinstance(word, Word):
            return f"{word!r}, which is not a Word"
        end = ends.get(word.start)
        if end is None or word.length < 1 or word.start + word.length > end:
            return f"{word}, which is not inside any of the row's words"
    for word, following in pairwise(sorted(chosen)):
        if word.start + word.length > following.start:
            return f"{word} and {following}, which overlap"
    total = sum(word.length for word in chosen)
    if limit is not None and total > limit:
        return f"{total} pieces, but the limit is {limit}"
    return None


_last: tuple[MaskingSettings, object, Masker] | None = None


def _masker(settings: MaskingSettings, vocabulary: Sequence[str] | MaskingVocabulary) -> Masker:
    """Return the last call's masker if its arguments are equal, else a new one."""
    global _last
    if not isinstance(vocabulary, MaskingVocabulary):
        vocabulary = tuple(vocabulary)
    # Not lru_cache: hashing a vocabulary takes longer than comparing it.
    if _last is None or _last[:2] != (settings, vocabulary):
        _last = settings, vocabulary, Masker(settings, vocabulary)
    return _last[2]


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
    similar_words: str = "",
) -> tuple[IntArray, IntArray]:
    """Mask one row.

    Args:
        piece_ids: (length,) ids of the row, its [CLS] and [SEP] included, no padding.
        word_starts: (length,) True where a word starts; True at [CLS] and [SEP].
        strategy: a name in ``zhbert.masking_strategies.STRATEGIES``: ``char`` (single pieces),
            ``wwm`` (Google's rule over words), ``wwm-unbiased`` (every word with the same
            probability, whatever its length), ``ngram`` (spans of one to four words) or ``mac``
            (such spans, replaced by similar words).
        rate: share of the row's pieces to predict.
        max_predictions: the most pieces to predict. (With ``wwm-unbiased``, the most that are
            expected: the number itself varies.)
        vocabulary: the pieces in id order, or a MaskingVocabulary made from them once (which then
            decides on ``random_pieces`` and ``similar_words``).
        rng: where the randomness comes from.
        random_pieces: ``corpus`` or ``all``; see MaskingVocabulary.
        per_word: draw [MASK], random or unchanged once a word instead of once a piece.
        mask_share: share of the chosen pieces that become [MASK].
        random_share: share of them that become a random piece; the rest stays.
        similar_words: with ``mac``, a file that ``zhbert similar-words`` has made.

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
    settings = MaskingSettings(
        strategy=strategy,
        rate=rate,
        max_predictions=max_predictions,
        random_pieces=random_pieces,
        per_word=per_word,
        mask_share=mask_share,
        random_share=random_share,
        similar_words=similar_words,
    )
    row = np.array(piece_ids, dtype=np.int64)
    starts = np.ascontiguousarray(word_starts, dtype=np.bool_)
    if row.ndim != 1 or starts.shape != row.shape:
        raise ZhbertError(
            f"masking: piece_ids of shape {row.shape} and word_starts of shape {starts.shape}; "
            "one row and as many flags are needed"
        )
    labels = _masker(settings, vocabulary).mask(row, starts, rng)
    return row, labels
