"""Tagging of the tokens of a sentence.

A token's tag is predicted at its first piece. A sentence longer than a row continues in the next.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from zhbert.config import DistillSettings
from zhbert.distill.soft_labels import soft_label_sum
from zhbert.inference.run_model import Array
from zhbert.packing import PackedBatch
from zhbert.tasks.entity_spans import joint_of
from zhbert.tasks.examples import Prediction, TagExample
from zhbert.tasks.learners.base import Prepared, ScoringLearner, softmax
from zhbert.tasks.rows import NOT_A_TARGET, LabelledBatch, LabelledRows
from zhbert.tasks.schemes import TagScheme, scheme_of_model
from zhbert.text.tokenizer import Tokenizer


@dataclass(frozen=True)
class TokenPlaces:
    """The pieces that represent tokens, in the order of sentences and tokens."""

    pieces: NDArray[np.int64]
    """The first piece of each token that has pieces: (tokens,)."""
    sentences: NDArray[np.int64]
    """The index of each token's sentence: (tokens,)."""
    tokens: NDArray[np.int64]
    """The index of each token in its sentence: (tokens,)."""


@dataclass(frozen=True)
class TagLearner(ScoringLearner):
    """A learner for tagging."""

    tokenizer: Tokenizer
    labels: tuple[str, ...]
    sequence_length: int

    @property
    def scheme(self) -> TagScheme | None:
        """The scheme of the labels; None if they do not mark entities."""
        return scheme_of_model(self.labels)

    def prepare(self, examples: Sequence[TagExample], *, training: bool = False) -> Prepared:
        """Return one or more rows for each sentence."""
        rows, places, split = self._rows(examples)
        if training:
            ids = {label: number for number, label in enumerate(self.labels)}
            targets = np.full(len(rows.ids), NOT_A_TARGET, np.int64)
            every = np.array([ids[tag] for one in examples for tag in one.tags or ()], np.int64)
            begins = np.cumsum([0, *(len(one.tokens) for one in examples)])
            targets[places.pieces] = every[begins[places.sentences] + places.tokens]
            rows = LabelledRows(rows.ids, rows.cu_seqlens, rows.second, targets, of_pieces=True)
        remarks: tuple[str, ...] = ()
        if split:
            remarks = (
                f"{split:,} of {len(examples):,} sentences are longer than sequence_length = "
                f"{self.sequence_length}: they are read in parts",
            )
        return Prepared(examples, rows, places, remarks)

    def _rows(self, sentences: Sequence[TagExample]) -> tuple[LabelledRows, TokenPlaces, int]:
        room = self.sequence_length - 2
        # Sentences have few distinct tokens, so each is tokenized once.
        distinct = list({token: None for one in sentences for token in one.tokens})
        pieces = self.tokenizer.encode_batch(distinct)
        ids_of = {
            token: tuple(ids[:room].tolist()) for token, ids in zip(distinct, pieces, strict=True)
        }
        segments: list[tuple[NDArray[np.int32], ...]] = []
        firsts: list[int] = []  # among all pieces
        owners: list[int] = []
        tokens: list[int] = []
        base = 1
        split = 0
        for number, sentence in enumerate(sentences):
            row: list[int] = []
            begun = len(segments)
            for place, token in enumerate(sentence.tokens):
                ids = ids_of[token]
                if not ids:
                    continue
                if len(row) + len(ids) > room:
                    segments.append((np.array(row, np.int32),))
                    base += len(row) + 2
                    row = []
                firsts.append(base + len(row))
                owners.append(number)
                tokens.append(place)
                row.extend(ids)
            segments.append((np.array(row, np.int32),))
            base += len(row) + 2
            split += len(segments) - begun > 1
        places = TokenPlaces(*(np.array(x, np.int64) for x in (firsts, owners, tokens)))
        return LabelledRows.of_segments(self.tokenizer, segments), places, split

    def loss_of(self, scores: Tensor, batch: LabelledBatch) -> Tensor:
        """Return the summed cross entropy of the tags, at the first pieces of their tokens."""
        assert batch.targets is not None
        return functional.cross_entropy(
            scores.float(), batch.targets, reduction="sum", ignore_index=NOT_A_TARGET
        )

    def soft_loss_of(
        self, scores: Tensor, batch: LabelledBatch, settings: DistillSettings
    ) -> Tensor:
        """Return the summed loss of the tags' distributions, at the same pieces."""
        assert batch.targets is not None
        assert batch.soft is not None
        places = batch.targets != NOT_A_TARGET
        return soft_label_sum(scores[places], batch.soft[places], settings)

    def scores(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """Return the logits: (T, labels)."""
        return cast(Any, model).piece_logits(batch)  # type: ignore[no-any-return]

    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """Return the most probable tag of each token, and the entities.

        A token without pieces, such as a zero-width space, gets the tag outside of entities.
        """
        places: TokenPlaces = prepared.places
        probabilities = softmax(scores[places.pieces])
        best = probabilities.argmax(-1)
        sure = probabilities.max(-1).round(6).tolist()
        scheme = self.scheme
        outside = (scheme and scheme.outside) or self.labels[0]
        sentences: Sequence[TagExample] = prepared.examples
        tags = [[outside] * len(one.tokens) for one in sentences]
        chances = [[1.0] * len(one.tokens) for one in sentences]
        for label, chance, sentence, token in zip(
            best.tolist(), sure, places.sentences.tolist(), places.tokens.tolist(), strict=True
        ):
            tags[sentence][token] = self.labels[label]
            chances[sentence][token] = chance
        return [
            Prediction(
                tuple(row), {"probabilities": chance, "entities": _entities(one, row, scheme)}
            )
            for one, row, chance in zip(sentences, tags, chances, strict=True)
        ]


def _entities(
    sentence: TagExample, tags: list[str], scheme: TagScheme | None
) -> list[dict[str, Any]]:
    joint = joint_of(sentence.tokens)
    return [
        {"type": kind, "start": start, "end": end, "text": joint.join(sentence.tokens[start:end])}
        for kind, start, end in (scheme.entities(tags) if scheme else ())
    ]
