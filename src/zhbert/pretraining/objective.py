"""What masked language models are trained on: the objective, held-out rows, and a new model."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from zhbert.config import Recipe
from zhbert.data.evaluation import MaskedRows
from zhbert.data.loader import MaskedBatch
from zhbert.data.shards import Corpus
from zhbert.model.config import BertConfig
from zhbert.model.loss import CandidateSampler
from zhbert.model.pretrained import BertForPreTraining
from zhbert.train.loop import EvaluationSet


def evaluations_of(masked: Iterable[MaskedRows]) -> list[EvaluationSet[MaskedBatch]]:
    """Held-out rows as the training loop takes them."""
    from zhbert.train.loop import EvaluationSet

    return [
        EvaluationSet(rows.strategy, rows.batches, {"baseline_accuracy": rows.baseline_accuracy})
        for rows in masked
    ]


def new_model(recipe: Recipe, config: BertConfig, corpus: Corpus) -> BertForPreTraining:
    """The model of random weights that a run begins with which starts from no other."""
    from zhbert.model.pretrained import BertForPreTraining

    model = BertForPreTraining(config, seed=recipe.seed)
    if recipe.initial_weights == "scaled":
        model.scale_initial_weights(corpus.piece_counts)
    return model


class PretrainingObjective:
    """Masked words and sentence pairs, for the training loop."""

    parts = ("masked_lm", "next_sentence")

    def __init__(self, sampler: CandidateSampler | None = None) -> None:
        self._sampler = sampler

    def counts(self, batch: MaskedBatch) -> tuple[int, ...]:
        """Predicted pieces, and rows where pairs are labelled."""
        pairs = batch.next_sentence_labels
        return len(batch.labels), 0 if pairs is None else len(pairs)

    def pieces(self, batch: MaskedBatch) -> int:
        """All pieces: a batch has no padding."""
        return batch.packed.num_pieces

    def __call__(
        self, model: torch.nn.Module, batch: MaskedBatch, seed: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Sums of both losses, and how many guesses were right."""
        import torch

        from zhbert.model.pretrained import BertForPreTraining

        assert isinstance(model, BertForPreTraining)
        model.set_dropout_seed(seed, batch.first_row)
        candidates = None
        if self._sampler is not None and model.training:
            # Of the step's seed alone, so that all its micro-batches and ranks draw the same.
            candidates = self._sampler.draw(seed).to(batch.labels.device)
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
