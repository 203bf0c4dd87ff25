"""Corpus sentences with one word masked, to show a model's predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from zhbert.data.shards import Array, Corpus
from zhbert.text.tokenizer import Tokenizer

# Minimum and maximum lengths in pieces, of a sentence that is easy to read and of the masked word.
_SENTENCE = (8, 32)
_WORD = (1, 2)


@dataclass(frozen=True)
class Cloze:
    """A sentence with one word masked."""

    text: str
    answer: str


def held_out_clozes(corpus: Corpus, count: int, seed: int = 0) -> list[Cloze]:
    """Choose up to ``count`` held-out sentences, spread over documents; mask one word in each.

    The word is one or two Han characters, and no piece of the sentence is [UNK].
    """
    tokenizer = corpus.tokenizer()
    rng = np.random.default_rng(seed)
    found: list[Cloze] = []
    for shard in corpus.shards("held_out"):
        starts = np.append(shard.sentence_starts(), len(shard.pieces))
        lengths = np.diff(starts)
        fitting = np.flatnonzero((lengths >= _SENTENCE[0]) & (lengths <= _SENTENCE[1]))
        words = shard.word_starts()
        for sentence in rng.permutation(fitting):
            part = slice(starts[sentence], starts[sentence + 1])
            cloze = _cloze(shard.pieces[part], words[part], tokenizer, rng)
            found += [cloze] if cloze and cloze not in found else []
            if len(found) == count:
                return found
    return found


def _cloze(
    pieces: Array, word_starts: Array, tokenizer: Tokenizer, rng: np.random.Generator
) -> Cloze | None:
    edges = np.append(np.flatnonzero(word_starts), len(pieces))
    sizes = np.diff(edges)
    words = [
        word
        for word in np.flatnonzero((sizes >= _WORD[0]) & (sizes <= _WORD[1]))
        if all(
            "\u4e00" <= tokenizer.vocabulary[piece] <= "\u9fff"
            for piece in pieces[edges[word] : edges[word + 1]]
        )
    ]
    if not words or tokenizer.unk_id in pieces:
        return None
    word = int(rng.choice(words))
    first, last = edges[word], edges[word + 1]
    masks = tokenizer.special_tokens["mask_token"] * int(last - first)
    text = tokenizer.decode(pieces[:first]) + masks + tokenizer.decode(pieces[last:])
    return Cloze(text, tokenizer.decode(pieces[first:last]))
