"""BERT and its heads, with the arguments, outputs and folders of Hugging Face's classes.

BERT: https://arxiv.org/abs/1810.04805. ``forward`` takes padded batches, as in transformers;
training and prediction call the methods that take a PackedBatch. Shapes: R = rows, T = pieces of
all rows together, P = predicted pieces, H = hidden size, V = vocabulary size.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Unpack

import torch
from torch import Tensor, nn

from zhbert.model.attention import QuerySubset, RowLayout
from zhbert.model.base import Bert, BertModel
from zhbert.model.config import BertConfig
from zhbert.model.dropout import DropoutKey, Words, dropout
from zhbert.model.heads import MaskedLMHead, NextSentenceHead, Pooler
from zhbert.model.layers import Layers
from zhbert.model.loss import Candidates
from zhbert.model.outputs import ForwardOptions, ModelOutput, mean_loss
from zhbert.model.padded import Encoded
from zhbert.packing import PackedBatch


class PretrainingLoss(NamedTuple):
    """Sums over a micro-batch; the training loop divides by the counts of the global batch."""

    masked_lm_loss_sum: Tensor
    masked_lm_correct: Tensor
    next_sentence_loss_sum: Tensor | None
    next_sentence_correct: Tensor | None


class _Labelled(Bert):
    """The base of models with one kind of labels, and logits for them."""

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        **options: Unpack[ForwardOptions],
    ) -> ModelOutput | tuple[Any, ...]:
        """Compute logits of (batch, length) ids; with labels, their mean loss, ignoring -100."""
        encoded = self._encode(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, options
        )
        logits = self._logits(encoded)
        loss = None if labels is None else self._loss(encoded, logits, labels, options)
        return encoded.output(loss=loss, logits=logits)

    def _logits(self, encoded: Encoded) -> Tensor:
        raise NotImplementedError

    def _loss(
        self, encoded: Encoded, logits: Tensor, labels: Tensor, options: ForwardOptions
    ) -> Tensor:
        return _piece_loss(encoded, logits, labels, options)


class _FillsMasks(Bert):
    """The base of models with the masked-word head."""

    mlm_head: MaskedLMHead

    def masked_logits(self, batch: PackedBatch, positions: Tensor) -> Tensor:
        """Compute logits (P, V) at ``positions``, (P,) int64 into the T pieces."""
        return self._piece_scores(self.encoder(batch)[positions])

    def _piece_scores(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.mlm_head(hidden, self.encoder.embeddings.words.weight)
        return logits


class BertForMaskedLM(_FillsMasks, _Labelled):
    """The encoder with the head that fills masks; labels and logits are of pieces."""

    def _add_heads(self, config: BertConfig, layers: Layers) -> None:
        self.mlm_head = MaskedLMHead(config, layers)

    def _logits(self, encoded: Encoded) -> Tensor:
        return encoded.padded(self._piece_scores(encoded.hidden))


class BertForPreTraining(_FillsMasks):
    """The encoder with both heads of BERT's pretraining."""

    # The two losses are means over different numbers.
    accepts_loss_kwargs = False

    def _add_heads(self, config: BertConfig, layers: Layers) -> None:
        self.pooler = Pooler(config)
        self.mlm_head = MaskedLMHead(config, layers)
        self.nsp_head = NextSentenceHead(config)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        **options: Unpack[ForwardOptions],
    ) -> ModelOutput | tuple[Any, ...]:
        """Compute prediction_logits and seq_relationship_logits of (batch, length) ids.

        ``loss`` is the sum of the mean losses of the given labels.
        """
        encoded = self._encode(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, options
        )
        logits = encoded.padded(self._piece_scores(encoded.hidden))
        pair_logits = self.nsp_head(self.pooler(encoded.first()))
        loss = None if labels is None else _piece_loss(encoded, logits, labels, options)
        if next_sentence_label is not None:
            pair_loss = nn.functional.cross_entropy(
                pair_logits.float(), next_sentence_label.view(-1)
            )
            loss = pair_loss if loss is None else loss + pair_loss
        return encoded.output(
            loss=loss, prediction_logits=logits, seq_relationship_logits=pair_logits
        )

    def pretraining_loss(
        self,
        batch: PackedBatch,
        predicted_positions: Tensor,
        labels: Tensor,
        next_sentence_labels: Tensor | None = None,
        candidates: Candidates | None = None,
    ) -> PretrainingLoss:
        """Compute the losses of packed rows, with logits at predicted positions only.

        Args:
            batch: R rows with T pieces in total.
            predicted_positions: (P,) int64 into the T pieces.
            labels: (P,) int64, the original pieces at these positions; -100: of no weight.
            next_sentence_labels: (R,) int64, 0: B follows A, 1: B is random, -100: of no weight;
                None: the pooler and the next-sentence head are not computed.
            candidates: the pieces used to estimate the softmax; None: the whole vocabulary.
        """
        pairs = next_sentence_labels is not None
        predicted, first = self.states_for_heads(batch, predicted_positions, with_first=pairs)
        words = self.encoder.embeddings.words.weight
        loss, correct = self.mlm_head.loss(predicted, words, labels, candidates)
        return PretrainingLoss(loss, correct, *self.next_sentence_loss(first, next_sentence_labels))

    def states_for_heads(
        self, batch: PackedBatch, predicted_positions: Tensor, *, with_first: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Return the states (P, H) of predicted pieces, and (R, H) of the rows' first pieces.

        Args:
            batch: R rows with T pieces in total.
            predicted_positions: (P,) int64 into the T pieces, increasing, never a row's first.
            with_first: whether the first pieces' states are needed; otherwise they are None.
        """
        layout = RowLayout.of_batch(batch)
        subset = QuerySubset.of(layout, predicted_positions, with_first=with_first)
        hidden = self.encoder(batch, layout, self._keys(layout), subset=subset)
        # Not by an index in brackets, whose gradient sorts the places on a GPU.
        first = None if subset.first is None else hidden.index_select(0, subset.first)
        return hidden.index_select(0, subset.predicted), first

    def next_sentence_loss(
        self, first: Tensor | None, labels: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        """Return the summed cross entropy of pairs, from the states (R, H) of the rows' first
        pieces and (R,) labels, and the count of right predictions; None without labels."""
        if first is None or labels is None:
            return None, None
        logits = self.nsp_head(self.pooler(first)).float()
        loss = nn.functional.cross_entropy(logits, labels, reduction="sum")  # ignores -100
        return loss, (logits.argmax(-1) == labels).sum()


class _FineTuned(Bert):
    """The base of fine-tuned models: encoding of packed rows, and dropout before the head."""

    def _dropped(self, x: Tensor, words: Words | None) -> Tensor:
        rate = self.config.other.get("classifier_dropout")
        return dropout(x, self.config.hidden_dropout_prob if rate is None else float(rate), words)

    def _encode_packed(
        self, batch: PackedBatch, *, first_only: bool = False
    ) -> tuple[Tensor, DropoutKey | None]:
        """Encode to (T, H), or (R, H) of the first pieces; return it and the head's dropout key."""
        layout = RowLayout.of_batch(batch)
        subset = QuerySubset.of_first(layout) if first_only else None
        keys = self._keys(layout)
        return self.encoder(batch, layout, keys, subset=subset), keys[-1] if keys else None


class BertForSequenceClassification(_FineTuned, _Labelled):
    """The encoder with a classifier on the pooled first piece; one label means regression.

    The loss depends on the config's ``problem_type``: cross entropy for a single label; the mean
    binary cross entropy of all (batch, labels) targets for several labels; the squared error for
    regression. If it is None, one label means regression, and real numbers for more than one mean
    several labels.
    """

    def _add_heads(self, config: BertConfig, layers: Layers) -> None:
        self.pooler = Pooler(config)
        self.classifier = nn.Linear(config.hidden_size, len(config.labels))

    def _logits(self, encoded: Encoded) -> Tensor:
        words = encoded.head_key.of_rows() if encoded.head_key else None
        logits: Tensor = self.classifier(self._dropped(self.pooler(encoded.first()), words))
        return logits

    def _loss(
        self, encoded: Encoded, logits: Tensor, labels: Tensor, options: ForwardOptions
    ) -> Tensor:
        kind = self.config.problem_type
        if kind is None:
            several = labels.is_floating_point() and logits.shape[1] > 1
            kind = "multi_label_classification" if several else "single_label_classification"
            kind = "regression" if logits.shape[1] == 1 else kind
            # As in transformers, so that who opens the saved model knows it.
            self.config.other["problem_type"] = kind
        if kind == "single_label_classification":
            return mean_loss(nn.functional.cross_entropy, logits, labels.view(-1), options)
        losses: dict[str, Callable[..., Tensor]] = {
            "regression": nn.functional.mse_loss,
            "multi_label_classification": nn.functional.binary_cross_entropy_with_logits,
        }
        return mean_loss(losses[kind], logits, labels.view(logits.shape).float(), options)

    def row_logits(self, batch: PackedBatch) -> Tensor:
        """Compute logits (R, labels) of R rows; the last layer computes first pieces only."""
        first, key = self._encode_packed(batch, first_only=True)
        pooled = self.pooler(first.to(self.pooler.dense.weight.dtype))
        logits: Tensor = self.classifier(self._dropped(pooled, key.of_rows() if key else None))
        return logits


class BertForTokenClassification(_FineTuned, _Labelled):
    """The encoder with a classifier on every piece."""

    def _add_heads(self, config: BertConfig, layers: Layers) -> None:
        self.classifier = nn.Linear(config.hidden_size, len(config.labels))

    def _logits(self, encoded: Encoded) -> Tensor:
        words = encoded.head_key.of_pieces() if encoded.head_key else None
        return encoded.padded(self.classifier(self._dropped(encoded.hidden, words)))

    def piece_logits(self, batch: PackedBatch) -> Tensor:
        """Compute logits (T, labels) of T pieces."""
        hidden, key = self._encode_packed(batch)
        states = self._dropped(hidden, key.of_pieces() if key else None)
        logits: Tensor = self.classifier(states.to(self.classifier.weight.dtype))
        return logits


class BertForQuestionAnswering(_FineTuned):
    """The encoder with two scores per piece: for the start and for the end of the answer."""

    def _add_heads(self, config: BertConfig, layers: Layers) -> None:
        self.qa_outputs = nn.Linear(config.hidden_size, 2)

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        start_positions: Tensor | None = None,
        end_positions: Tensor | None = None,
        **options: Unpack[ForwardOptions],
    ) -> ModelOutput | tuple[Any, ...]:
        """Compute start_logits and end_logits (batch, length) of (batch, length) ids.

        At padding they are the lowest number, so that no answer begins or ends there. With
        ``start_positions`` and ``end_positions`` (batch,), ``loss`` is the mean of both cross
        entropies; a position outside of the row is ignored.
        """
        encoded = self._encode(
            input_ids, attention_mask, token_type_ids, position_ids, inputs_embeds, options
        )
        logits = encoded.padded(self.qa_outputs(encoded.hidden))
        logits = logits.masked_fill(~encoded.grid.there[..., None], torch.finfo(logits.dtype).min)
        start_logits, end_logits = logits.unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            sides = ((start_logits, start_positions), (end_logits, end_positions))
            loss = torch.stack([_position_loss(one, place) for one, place in sides]).mean()
        return encoded.output(loss=loss, start_logits=start_logits, end_logits=end_logits)

    def piece_logits(self, batch: PackedBatch) -> Tensor:
        """Compute the scores (T, 2) of a start and an end at T pieces."""
        hidden, _ = self._encode_packed(batch)
        logits: Tensor = self.qa_outputs(hidden.to(self.qa_outputs.weight.dtype))
        return logits


def _piece_loss(
    encoded: Encoded, logits: Tensor, labels: Tensor, options: ForwardOptions
) -> Tensor:
    """Average the cross entropy of pieces with labels; -100 and padding have none."""
    labels = labels.reshape(-1).masked_fill(~encoded.grid.there.reshape(-1), -100)
    flat = logits.reshape(-1, logits.shape[-1])
    return mean_loss(nn.functional.cross_entropy, flat, labels, options)


def _position_loss(logits: Tensor, positions: Tensor) -> Tensor:
    length = logits.shape[1]
    positions = positions.view(-1).clamp(0, length)
    return nn.functional.cross_entropy(logits.float(), positions, ignore_index=length)


__all__ = [
    "BertForMaskedLM",
    "BertForPreTraining",
    "BertForQuestionAnswering",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertModel",
    "ModelOutput",
    "PretrainingLoss",
]
