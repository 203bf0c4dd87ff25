"""What counting alone names at the masks of held-out rows: the floor for masked language models.

    python benchmarks/ngram_floor.py CORPUS [--rows 1000] [--json]

CORPUS is a folder that ``zhbert prepare`` made. The rows and masks are those that every pretraining
run on it measures itself with, so the figures stand beside a run's held-out masked accuracy. The
sentences of benchmarks/set_phrases.py are asked besides.

The model is an n-gram model of the training split that looks both ways. Up to three visible pieces
to the left of a mask, or to the right, give a distribution each, smoothed as Witten and Bell do
(https://doi.org/10.1109/18.87000): a context that was followed by T different pieces in N places
has the weight N / (N + trust * T), and the shorter context has the rest. The two are multiplied as
if they were independent given the piece, left * right / frequency, to the power ``sharpness``; on
that, contexts of both sides together are mixed in the same way. [MASK], [CLS], [SEP] and the ends
of documents end a context. ``sharpness`` and ``trust`` are chosen by the likelihood of documents
that are set aside from the training split; the held-out documents decide nothing.

Where the input shows a piece at the place itself, the one that was left there or a random one, the
odds of the two are weighed as the masking draws them.
"""

from __future__ import annotations

import argparse
import itertools
import json
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from set_phrases import read_list
from zhbert.config import EvaluationSettings, MaskingSettings
from zhbert.data.evaluation import SEED, held_out_rows
from zhbert.data.examples import make_rows
from zhbert.data.loader import MaskedBatch, PretrainingLoader
from zhbert.data.masking import Masker, MaskingVocabulary
from zhbert.data.row_order import WholeCorpus
from zhbert.data.shards import Corpus, Documents, Shard, concatenate, write_shard
from zhbert.errors import ZhbertError
from zhbert.text.tokenizer import Tokenizer

Array = np.ndarray[Any, Any]
Pattern = tuple[int, ...]
"""The places of a context, relative to the mask: (-2, -1) are the two pieces to its left."""

# With the predicted piece a context fills a 64-bit key, 16 bits a piece.
REACH = 3
BREAK = 0xFFFF
"""Stands where nothing can be seen: a mask, a mark, the end of a document."""

STRATEGIES = ("char", "wwm")
PHRASES = "set phrases"

LEFT: tuple[Pattern, ...] = ((-1,), (-2, -1), (-3, -2, -1))
RIGHT: tuple[Pattern, ...] = ((1,), (1, 2), (1, 2, 3))
NEAREST: Pattern = (-1, 1)
WIDER: tuple[Pattern, ...] = ((-2, -1, 1), (-1, 1, 2))

SHARPNESS = (0.6, 0.7, 0.8, 0.9, 1.0, 1.1)
TRUST = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
PIECES_ASIDE = 200_000
TUNING_ROWS = 500
TUNING_MASKS = 2_000
# Masks whose distributions over all pieces are in memory at a time.
CHUNK = 128


@dataclass(frozen=True)
class Weights:
    """The two numbers that counting does not give."""

    sharpness: float = 0.8
    trust: float = 2.0


class MaskedText(NamedTuple):
    """Pieces in a row, some of them masked."""

    ids: Array  # (pieces,)
    masked: Array  # (masks,) which of them
    answers: Array  # (masks,) what stood there


@dataclass(frozen=True)
class Masks:
    """Masked places: what the input shows around each, and what stood there."""

    window: Array  # (masks, 2 * REACH + 1) uint16, the place itself in the middle
    answers: Array  # (masks,) int64

    @classmethod
    def of(cls, texts: Iterable[MaskedText], marks: Sequence[int]) -> Masks:
        """The masks of some texts; the pieces ``marks`` are not to be seen."""
        windows, answers = [], []
        for text in texts:
            shown = np.where(np.isin(text.ids, marks), BREAK, text.ids).astype(np.uint16)
            windows.append(windows_of(shown)[text.masked])
            answers.append(text.answers)
        return cls(np.concatenate(windows), np.concatenate(answers))

    def __len__(self) -> int:
        return len(self.answers)

    @property
    def shown(self) -> Array:
        """(masks,) what the input shows at the place itself."""
        middle: Array = self.window[:, REACH]
        return middle


def windows_of(pieces: Array) -> Array:
    """(pieces,) uint16 -> (pieces, 2 * REACH + 1): each piece amid its neighbours; a view."""
    padded = np.pad(pieces, REACH, constant_values=BREAK)
    return np.lib.stride_tricks.sliding_window_view(padded, 2 * REACH + 1)


def contexts(windows: Array, pattern: Pattern) -> tuple[Array, Array]:
    """The context of each window as one number, and whether all of it is to be seen."""
    keys: Array = np.zeros(len(windows), np.uint64)
    visible = np.ones(len(windows), bool)
    for place in pattern:
        column = windows[:, REACH + place]
        visible &= column != BREAK
        keys = keys << 16 | column
    return keys, visible


class Followers:
    """How often each piece stands in the contexts of some masks, in a pattern.

    Only the contexts that the masks ask for are kept: a few megabytes of any text.
    """

    def __init__(self, texts: Iterable[Array], masks: Masks, pattern: Pattern) -> None:
        asked, visible = contexts(masks.window, pattern)
        # Most places of a text stand in contexts that nobody asks for: they are passed over before
        # the sorting, by a table of hashes.
        wanted = np.zeros(1 << 22, bool)
        wanted[hashes(asked[visible])] = True
        found: list[Array] = [np.zeros(0, np.uint64)]
        for text in texts:
            keys, inside = contexts(windows_of(text), pattern)
            inside &= (text != BREAK) & wanted[hashes(keys)]
            found.append(keys[inside] << 16 | text[inside])
        keys, counts = np.unique(np.concatenate(found), return_counts=True)
        self.first = np.searchsorted(keys, asked << 16)
        last = np.searchsorted(keys, asked << 16 | 0xFFFF, side="right")
        self.types = np.where(visible, last - self.first, 0)
        self.pieces = (keys & 0xFFFF).astype(np.int64)
        self.counts = counts.astype(np.float32)

    def of(self, masks: Array) -> tuple[Array, Array, Array]:
        """The followers of some masks' contexts: the index in ``masks``, the piece, its count."""
        types = self.types[masks]
        begin = np.cumsum(types) - types
        entries = np.arange(types.sum()) + np.repeat(self.first[masks] - begin, types)
        rows = np.repeat(np.arange(len(masks)), types)
        return rows, self.pieces[entries], self.counts[entries]


def hashes(keys: Array) -> Array:
    """Numbers below 2^22."""
    return keys * np.uint64(0x9E3779B97F4A7C15) >> np.uint64(42)


class NGrams:
    """The model, counted for the contexts of some masks.

    Args:
        texts: pieces, (pieces,) uint16, with BREAK between documents.
        masks: what it will be asked.
    """

    def __init__(self, texts: Sequence[Array], masks: Masks) -> None:
        self.masks = masks
        counts = np.zeros(BREAK + 1, np.int64)
        for text in texts:
            counts += np.bincount(text, minlength=BREAK + 1)
        counts[BREAK] = 0
        self.pieces: Array = np.flatnonzero(counts)
        """The pieces of the text; distributions are over these."""
        self.column = np.full(BREAK + 1, -1)
        self.column[self.pieces] = np.arange(len(self.pieces))
        self.frequency = (counts / counts.sum())[self.pieces].astype(np.float32)
        self.followers = {
            pattern: Followers(texts, masks, pattern)
            for pattern in (*LEFT, *RIGHT, NEAREST, *WIDER)
        }

    def distribution(self, masks: Array, weights: Weights) -> Array:
        """(masks,) numbers of masks -> (masks, pieces) float32 probabilities."""
        sides = []
        for patterns in (LEFT, RIGHT):
            side = np.broadcast_to(self.frequency, (len(masks), len(self.pieces)))
            for pattern in patterns:
                side = self._mixed(side, pattern, masks, weights.trust)
            sides.append(side)
        both = (sides[0] * sides[1] / self.frequency) ** weights.sharpness
        both /= both.sum(axis=1, keepdims=True)
        both = self._mixed(both, NEAREST, masks, weights.trust)
        wider = [self._mixed(both, pattern, masks, weights.trust) for pattern in WIDER]
        return (wider[0] + wider[1]) / 2

    def _mixed(self, shorter: Array, pattern: Pattern, masks: Array, trust: float) -> Array:
        """The distribution of a context, given that of the shorter one."""
        rows, pieces, counts = self.followers[pattern].of(masks)
        total = np.bincount(rows, counts, len(masks)).astype(np.float32)
        back_off = np.float32(trust) * np.bincount(rows, minlength=len(masks)).astype(np.float32)
        # A context that was never seen leaves everything to the shorter one.
        seen = total > 0
        share = np.where(seen, back_off / np.where(seen, total + back_off, 1), np.float32(1))
        mixed = shorter * share[:, None]
        mixed[rows, self.column[pieces]] += counts / (total + back_off)[rows]
        return mixed


@dataclass(frozen=True)
class Score:
    """How well some masks were predicted."""

    right: int
    log_likelihood: float
    """Mean natural logarithm of the probability of what stood there, with 1e-9 for what the text
    lacks."""


def score(model: NGrams, chosen: Array, weights: Weights, kept_odds: float) -> Score:
    """Predict the model's masks numbered ``chosen``.

    ``kept_odds``: how much likelier a shown piece is the one that stood there than one given random
    piece is to be shown in its place.
    """
    right, logarithms = 0, 0.0
    for start in range(0, len(chosen), CHUNK):
        numbers = chosen[start : start + CHUNK]
        rows = np.arange(len(numbers))
        answers = model.column[model.masks.answers[numbers]]
        likely = model.distribution(numbers, weights)
        of_answers = np.where(answers >= 0, likely[rows, answers], 1e-9)
        logarithms += float(np.log(of_answers).sum())
        shown = model.column[model.masks.shown[numbers]]
        likely[rows[shown >= 0], shown[shown >= 0]] *= 1 + kept_odds
        right += int((likely.argmax(axis=1) == answers).sum())
    return Score(right, logarithms / len(chosen))


def text_of(shard: Shard, hidden: Array) -> Array:
    """A shard's pieces, BREAK after every document; of ``hidden`` documents nothing is seen."""
    lengths = np.diff(shard.document_starts)
    pieces = np.where(np.repeat(hidden, lengths), BREAK, shard.pieces).astype(np.uint16)
    return np.insert(pieces, shard.document_starts[1:], BREAK)


def set_aside(shards: Sequence[Shard]) -> list[Array]:
    """Which documents of each shard tune the weights: every tenth, or PIECES_ASIDE in all."""
    documents = sum(shard.documents for shard in shards)
    pieces = sum(int(shard.document_starts[-1]) for shard in shards)
    every = min(max(10, pieces // PIECES_ASIDE), max(2, documents))
    chosen = np.arange(1, documents + 1) % every == 0
    return np.split(chosen, np.cumsum([shard.documents for shard in shards])[:-1])


def texts_of(batches: Iterable[MaskedBatch]) -> list[MaskedText]:
    return [
        MaskedText(b.packed.input_ids.numpy(), b.predicted_positions.numpy(), b.labels.numpy())
        for b in batches
    ]


def phrases_of(tokenizer: Tokenizer) -> list[MaskedText]:
    """The sentences of set_phrases.tsv; BREAK is the answer that the vocabulary lacks."""
    ids_of = {piece: number for number, piece in enumerate(tokenizer.vocabulary)}
    texts = []
    for phrase in read_list():
        ids = tokenizer.encode(phrase.masked_by(tokenizer)).ids
        answer = ids_of.get(phrase.answer, BREAK)
        texts.append(MaskedText(ids, np.flatnonzero(ids == tokenizer.mask_id), np.array([answer])))
    return texts


def tuning_rows(
    shards: Sequence[Shard], aside: Sequence[Array], vocabulary: Sequence[str]
) -> dict[str, list[MaskedText]]:
    """The documents set aside, in rows that are masked as the held-out rows are."""
    documents: list[Documents] = []
    for shard, chosen in zip(shards, aside, strict=True):
        documents += [shard.part(k, k + 1) for k in np.flatnonzero(chosen).tolist()]
    if not documents:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "aside.arrow"
        write_shard(path, concatenate(documents))
        masker = Masker(MaskingSettings(), vocabulary)
        rows = make_rows(
            "full-sentences",
            [Shard(path)],
            cls_id=masker.vocabulary.cls_id,
            sep_id=masker.vocabulary.sep_id,
            sequence_length=128,
            seed=SEED,
        )
        loader = PretrainingLoader(WholeCorpus(rows), masker, batch_size=32, seed=SEED)
        return {
            kind: texts_of(loader.evaluation(TUNING_ROWS, strategy=kind)) for kind in STRATEGIES
        }


def counted(
    texts: Sequence[Array], asked: Mapping[str, Sequence[MaskedText]], marks: Sequence[int]
) -> tuple[NGrams, dict[str, Array]]:
    """The model of ``texts``, counted once for all kinds of masks, and the numbers of each kind."""
    masks = Masks.of(itertools.chain(*asked.values()), marks)
    sizes = [sum(len(text.answers) for text in several) for several in asked.values()]
    numbers = np.split(np.arange(len(masks)), np.cumsum(sizes)[:-1])
    return NGrams(texts, masks), dict(zip(asked, numbers, strict=True))


def likeliest(model: NGrams, numbers: Array, kept_odds: float) -> Weights:
    """The weights under which some masks' answers are the likeliest."""
    chosen = np.random.default_rng(0).permutation(numbers)[:TUNING_MASKS]
    grid = [Weights(*pair) for pair in itertools.product(SHARPNESS, TRUST)]
    return max(grid, key=lambda weights: score(model, chosen, weights, kept_odds).log_likelihood)


def floor(corpus: Corpus, rows: int) -> list[dict[str, Any]]:
    """A line for each kind of masks, and one for the set phrases: what counting names."""
    if corpus.vocabulary_size > BREAK:
        raise ZhbertError(f"{corpus.folder}: a vocabulary of more than {BREAK:,} pieces")
    tokenizer = corpus.tokenizer()
    settings = EvaluationSettings(rows=rows, strategies=STRATEGIES)
    held_out = held_out_rows(corpus, tokenizer.vocabulary, settings)
    if not held_out:
        raise ZhbertError(f"{corpus.folder}: no held-out documents to measure on")
    vocabulary, masking = MaskingVocabulary(tokenizer.vocabulary), MaskingSettings()
    marks = [vocabulary.mask_id, vocabulary.cls_id, vocabulary.sep_id]
    kept_share = 1 - masking.mask_share - masking.random_share
    kept_odds = kept_share / masking.random_share * len(vocabulary.random_ids)

    shards = corpus.shards("train")
    aside = set_aside(shards)
    weights = dict.fromkeys(STRATEGIES, Weights())
    if tuning := tuning_rows(shards, aside, tokenizer.vocabulary):
        model, numbers = counted([*map(text_of, shards, aside)], tuning, marks)
        weights = {kind: likeliest(model, numbers[kind], kept_odds) for kind in STRATEGIES}

    texts = [text_of(shard, np.zeros(shard.documents, bool)) for shard in shards]
    asked = {rows.strategy: texts_of(rows.batches) for rows in held_out}
    model, numbers = counted(texts, {**asked, PHRASES: phrases_of(tokenizer)}, marks)
    baselines = {rows.strategy: rows.baseline_accuracy for rows in held_out}
    lines = []
    for kind, chosen in numbers.items():
        # In a phrase a single character is masked.
        used = weights.get(kind, weights["char"])
        found = score(model, chosen, used, kept_odds)
        figures = {"accuracy": found.right / len(chosen), "baseline": baselines.get(kind)}
        lines.append({"masks": kind, "number": len(chosen), **figures, **asdict(used)})
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("corpus", type=Path, help="what 'zhbert prepare' made")
    parser.add_argument("--rows", type=int, default=1000, help="held-out rows at most (1000)")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    begun = time.perf_counter()
    try:
        corpus = Corpus.open(args.corpus)
        lines = floor(corpus, args.rows)
    except ZhbertError as error:
        raise SystemExit(str(error)) from None
    if args.json:
        print(json.dumps(lines, indent=2))
        return
    pieces = sum(len(shard.pieces) for shard in corpus.shards("train"))
    print(f"{args.corpus}: {pieces:,} training pieces, {time.perf_counter() - begun:.0f} s")
    print(f"{'masks':<12}{'number':>8}{'commonest':>11}{'n-gram':>9}   sharpness, trust")
    for line in lines:
        baseline = "" if line["baseline"] is None else f"{line['baseline']:.2%}"
        print(
            f"{line['masks']:<12}{line['number']:>8,}{baseline:>11}{line['accuracy']:>9.2%}"
            f"   {line['sharpness']}, {line['trust']}"
        )


if __name__ == "__main__":
    main()
