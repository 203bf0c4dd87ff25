"""The objective of pretraining: masked language modelling and next-sentence prediction."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from zhbert.config import SoftmaxSettings
from zhbert.data.evaluation import MaskedRows
from zhbert.data.loader import MaskedBatch
from zhbert.data.shards import Corpus
from zhbert.inference.onnx_model import OnnxModel
from zhbert.model.dropout import dropout_table
from zhbert.model.loss import Candidates, CandidateSampler
from zhbert.model.pretrained import BertForPreTraining
from zhbert.pretraining.fixed_shapes import with_fixed_shape
from zhbert.train.loop import EvaluationSet


@dataclass(frozen=True, kw_only=True)
class PreparedBatch(MaskedBatch):
    """A batch of one of few shapes, with everything that its step draws on the host."""

    dropout_table: Tensor
    """(sites + rows, 2) int32"""
    candidates: Candidates | None
    """the pieces in the softmax; None: all"""


class PretrainingObjective:
    """The losses of masked pieces and of sentence pairs, for the training loop.

    Args:
        sampler: draws the pieces in a training step's softmax; None: all pieces.
    """

    parts = ("masked_lm", "next_sentence")

    def __init__(self, sampler: CandidateSampler | None = None) -> None:
        self._sampler = sampler

    def counts(self, batch: MaskedBatch) -> tuple[int, ...]:
        """Count the masked pieces and the labelled pairs."""
        pairs = batch.next_sentence_labels
        return len(batch.labels), 0 if pairs is None else len(pairs)

    def pieces(self, batch: MaskedBatch) -> int:
        """Count all pieces; a batch has no padding."""
        return batch.packed.num_pieces

    def prepared(self, model: nn.Module, batch: MaskedBatch, seed: int) -> PreparedBatch:
        """Return a micro-batch of one of few shapes, with what is drawn by the step's seed."""
        assert isinstance(model, BertForPreTraining)
        fixed = with_fixed_shape(batch, model.config.pad_token_id)
        rows = fixed.packed.num_rows
        # Numbers that differ between batches of one shape, but that no computation reads, are 0.
        return PreparedBatch(
            **{**vars(fixed), "first_row": 0, "dropped_pieces": 0},
            dropout_table=dropout_table(seed, model.dropout_sites, rows, batch.first_row),
            candidates=self._sampler.draw(seed) if self._sampler else None,
        )

    def __call__(self, model: nn.Module, batch: MaskedBatch, seed: int) -> tuple[Tensor, Tensor]:
        """Return (2,) sums of both losses, and (2,) counts of correct predictions."""
        assert isinstance(model, BertForPreTraining)
        if isinstance(batch, PreparedBatch):
            model.set_dropout_table(batch.dropout_table)
        else:
            model.set_dropout_seed(seed, batch.first_row)
        candidates = self.candidates(model, batch, seed)
        loss = model.pretraining_loss(
            batch.packed,
            batch.predicted_positions,
            batch.labels,
            batch.next_sentence_labels,
            candidates,
        )
        pair_loss, pair_correct = loss.next_sentence_loss_sum, loss.next_sentence_correct
        if pair_loss is None or pair_correct is None:
            pair_loss = loss.masked_lm_loss_sum.new_zeros(())
            pair_correct = loss.masked_lm_correct.new_zeros(())
        return (
            torch.stack([loss.masked_lm_loss_sum, pair_loss]),
            torch.stack([loss.masked_lm_correct, pair_correct]),
        )

    def candidates(
        self, model: BertForPreTraining, batch: MaskedBatch, seed: int
    ) -> Candidates | None:
        """Return the pieces in the softmax of a training step; None: all."""
        if isinstance(batch, PreparedBatch):
            return batch.candidates
        if self._sampler is None or not model.training:
            return None
        # All micro-batches and ranks of a step have the same seed and so the same candidates.
        return self._sampler.draw(seed).to(batch.labels.device)


class MaskedWordsObjective(PretrainingObjective):
    """The same for an ONNX graph, which cannot be trained and knows no pairs."""

    def __call__(self, model: nn.Module, batch: MaskedBatch, seed: int) -> tuple[Tensor, Tensor]:
        """Return (2,) sums of losses, and (2,) counts of correct predictions; pairs have 0."""
        assert isinstance(model, OnnxModel)
        logits = model.masked_logits(batch.packed, batch.predicted_positions)
        loss = torch.nn.functional.cross_entropy(logits, batch.labels, reduction="sum")
        correct = (logits.argmax(-1) == batch.labels).sum()
        of_pairs = torch.zeros_like(loss), torch.zeros_like(correct)
        return torch.stack([loss, of_pairs[0]]), torch.stack([correct, of_pairs[1]])


def candidate_sampler(softmax: SoftmaxSettings, corpus: Corpus) -> CandidateSampler | None:
    """Make the sampler for these settings; None if the softmax is over all pieces."""
    if not 0 < softmax.frequent < corpus.vocabulary_size:
        return None
    return CandidateSampler(corpus.piece_counts, softmax.frequent, softmax.sampled)


def evaluations_of(masked: Iterable[MaskedRows]) -> list[EvaluationSet[MaskedBatch]]:
    """Convert held-out rows to evaluation sets of the training loop."""
    return [
        EvaluationSet(rows.strategy, rows.batches, {"baseline_accuracy": rows.baseline_accuracy})
        for rows in masked
    ]
