"""The learner of vectors of texts.

A loss of vectors compares the texts of a whole batch with each other, so a batch is made of
examples, each with two or more texts, and its rows are its distinct texts. Where their activations
are too many for memory, the gradient is computed in two passes ("gradient cache",
https://arxiv.org/abs/2101.06983): all vectors without gradients, the loss and its gradient with
respect to the vectors, and then each part of the batch again, with gradients. Dropout is a function
of the seed and of a row's number, so both passes drop the same.

Shapes: R = rows, that is, distinct texts; E = examples; D = dimensions of a vector.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from zhbert.config import DistillSettings
from zhbert.errors import ZhbertError
from zhbert.inference.rows import Ids
from zhbert.inference.run_model import Array
from zhbert.packing import PackedBatch
from zhbert.sentences.denoising import DenoisingModel
from zhbert.sentences.encoder import SentenceEncoder
from zhbert.sentences.hard_negatives import Mining, mine_hard_negatives
from zhbert.sentences.losses import LOSSES, Ranking, Scored, Triplets
from zhbert.sentences.nearest import nearest
from zhbert.tasks.batches import Batches
from zhbert.tasks.examples import EmbedExample, Passages, Prediction
from zhbert.tasks.learners.base import SOFT_LABELS, Learner, Prepared
from zhbert.tasks.learners.embed_batches import (
    EmbedBatch,
    ExampleBatches,
    Group,
    TextsOfExamples,
)
from zhbert.tasks.rows import LabelledBatch, text_rows
from zhbert.text.tokenizer import Tokenizer
from zhbert.wording import counted, listed

USUAL_LOSS = {
    "scored": "cosent",
    "judged": "cosent",
    "pairs": "multiple_negatives",
    "triples": "multiple_negatives",
    "texts": "simcse",
}
"""The losses for ``loss = "auto"``, by the form of the examples."""

CENTRED_BY = 1000
"""The number of pairs whose mean is subtracted from vectors before negatives are mined."""

NUM_FOUND = 100
"""The number of passages that are predicted for a question."""
SHOWN_PASSAGE = 200

MARGIN_OF_MINING = 0.05
"""By how much a mined negative is less similar to the anchor than the positive, as a share."""

LEAST_DROPOUT = 0.1
"""The rate of dropout, if the model has none, for a loss that encodes a text twice."""


@dataclass(frozen=True)
class EmbedLearner(Learner):
    """A learner of vectors."""

    tokenizer: Tokenizer
    sequence_length: int
    loss_name: str = "auto"
    """A name in `LOSSES`, used for examples of the forms that it takes; auto: `USUAL_LOSS`."""
    pooling: str = "auto"
    """A mode of `zhbert.sentences.pooling`; auto: the model's own."""
    parameters: Mapping[str, float] = field(default_factory=dict)
    """The parameters of losses, by name, that differ from their usual values."""
    dimensions: tuple[int, ...] = ()
    """The dimensions of `zhbert.sentences.losses.matryoshka`; (): all alone."""
    hard_negatives: int = 0
    """The number of negatives that are mined for each pair."""

    labels: None = None

    # -- rows --------------------------------------------------------------------------------------

    def prepare(self, examples: Sequence[EmbedExample], *, training: bool = False) -> Prepared:
        """Return a row for each distinct text.

        If ``training``, groups are made, and ZhbertError is raised if nothing can be learnt.
        """
        remarks: list[str] = []
        if training:
            examples, groups = self._grouped(list(examples), remarks)
        passages = None if training else _passages(examples)
        ids: dict[str, int] = {}
        used = [one.texts if passages is None else one.texts[:1] for one in examples]
        texts = [ids.setdefault(text, len(ids)) for some in used for text in some]
        searched = [ids.setdefault(text, len(ids)) for text in passages.texts] if passages else []
        rows = text_rows(self.tokenizer, list(ids), [None] * len(ids), self.sequence_length)
        places = TextsOfExamples(
            np.array(texts, np.int64),
            np.cumsum([0, *map(len, used)]),
            np.array([one.value for one in examples], np.float32),
            None if passages is None else np.array(searched, np.int64),
            groups if training else (),
        )
        if rows.cut:
            remarks.append(self.describe_cut(rows.cut, len(rows)))
        return Prepared(examples, rows, places, tuple(remarks), (rows.cut, len(rows)))

    def preview(self, example: EmbedExample) -> Ids:
        """Return the pieces of the first two texts, each with [CLS] and [SEP]."""
        texts = list(example.texts[:2])
        rows = text_rows(self.tokenizer, texts, [None] * len(texts), self.sequence_length)
        return rows.ids

    def _grouped(
        self, examples: list[EmbedExample], remarks: list[str]
    ) -> tuple[list[EmbedExample], tuple[Group, ...]]:
        """Return the examples that can be learnt from, and their groups."""
        forms = {example.form for example in examples}
        takes = self._forms()
        if takes and forms and not forms & {*takes}:
            others = [name for name, one in LOSSES.items() if forms <= {*one.forms}]
            raise ZhbertError(
                f"loss = {self.loss_name}: learns from {listed(takes)}, and the training "
                f"examples are {listed(sorted(forms))}; choose auto or {listed(others)}"
            )
        by_loss: dict[tuple[str, str], list[EmbedExample]] = {}
        for one in examples:
            by_loss.setdefault((one.source, self.loss_of(one.form)), []).append(one)
        kept: list[EmbedExample] = []
        groups: list[Group] = []
        for (source, loss), some in by_loss.items():
            usable = _usable(some, loss, source, remarks)
            where = f"{source}: " if source else ""
            remarks.append(f"{where}{counted(len(usable), 'example')}, learnt by {loss}")
            groups.append(Group(loss, len(kept), len(kept) + len(usable)))
            kept += usable
        return kept, tuple(groups)

    def loss_of(self, form: str) -> str:
        """Return the name of the loss for examples of a form."""
        return self.loss_name if form in self._forms() else USUAL_LOSS[form]

    def _forms(self) -> tuple[str, ...]:
        """Return the forms of examples that the loss takes; () for auto."""
        return LOSSES[self.loss_name].forms if self.loss_name in LOSSES else ()

    def batches(self, prepared: Prepared) -> Batches:
        """Return batches of examples."""
        return ExampleBatches(prepared.rows, prepared.places)

    # -- the loss ----------------------------------------------------------------------------------

    def scores(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """Return the vectors of R rows: (R, D)."""
        return cast(Any, model).embed(batch)  # type: ignore[no-any-return]

    def loss(self, model: nn.Module, batch: LabelledBatch) -> Tensor:
        """Return the loss of a step times its examples, or this batch's share of it."""
        assert isinstance(batch, EmbedBatch)
        if batch.originals is not None:
            restore = cast(Any, model).restoring_loss
            return restore(self.scores(model, batch.packed), batch.originals)  # type: ignore[no-any-return]
        return self._losses(model, batch)[0]

    def distilled_losses(
        self, model: nn.Module, batch: LabelledBatch, settings: DistillSettings
    ) -> Tensor:
        """Return `loss`, and the squared difference of all cosines from the teachers': (2,).

        Cosines are what the vectors are used for, and need not have the teachers' dimensions.
        """
        assert isinstance(batch, EmbedBatch)
        return self._losses(model, batch)

    def describe_soft_labels(self, settings: DistillSettings) -> str:
        """Return how the teachers' vectors are learnt, for people."""
        if self._restores:
            raise ZhbertError(
                f"loss = {self.loss_name}: its texts are damaged anew in each epoch, and a teacher "
                "has read the whole ones; choose another loss, or distill.soft_labels=none"
            )
        return f"{SOFT_LABELS['mse']} of cosines"

    def soft_targets(self, scores: Sequence[Array]) -> NDArray[np.float32]:
        """Return vectors whose cosines are the means of those of the teachers' vectors."""
        parts = [
            one / np.maximum(np.linalg.norm(one, axis=1, keepdims=True), 1e-12) for one in scores
        ]
        return np.concatenate(parts, axis=1, dtype=np.float32)

    def _losses(self, model: nn.Module, batch: EmbedBatch) -> Tensor:
        """Return the losses of a step times its examples, or this batch's share: (1,) or (2,)."""
        vectors = self._vectors(model, batch)
        if batch.gradient is None:
            return batch.predictions * self._mean_losses(vectors, batch, batch.soft)
        assert batch.values is not None
        # The values of the step's losses, with the gradients that they have here.
        along = (vectors * batch.gradient).sum((1, 2))
        return along - along.detach() + batch.values

    def whole_step(
        self, model: nn.Module, batches: Sequence[LabelledBatch]
    ) -> Sequence[LabelledBatch]:
        """Return the batches with the gradient of the step's loss, if there are several."""
        ours = cast(Sequence[EmbedBatch], batches)
        if len(ours) == 1 or ours[0].compared is None:
            return batches
        parts = [self._vectors(model, batch) for batch in ours]
        vectors = torch.cat(parts).requires_grad_()
        with torch.enable_grad():
            soft = [batch.soft for batch in ours if batch.soft is not None]
            losses = ours[0].predictions * self._mean_losses(
                vectors, ours[0], torch.cat(soft) if soft else None
            )
            gradients = torch.stack(
                [torch.autograd.grad(loss, vectors, retain_graph=True)[0] for loss in losses]
            )
        values = [losses.detach(), *[torch.zeros_like(losses)] * (len(ours) - 1)]
        shares = torch.split(gradients, [len(part) for part in parts], dim=1)
        return [
            replace(batch, gradient=share, values=value)
            for batch, share, value in zip(ours, shares, values, strict=True)
        ]

    def _vectors(self, model: nn.Module, batch: EmbedBatch) -> Tensor:
        """Return the vectors of all rows of a batch: (R, D) float32."""
        ours = cast(Any, model)
        seed, first = ours.dropout_seed, batch.first_row
        found = []
        with _with_dropout(ours) if LOSSES[batch.loss].twice else nullcontext():
            for part in batch.parts:
                ours.set_dropout_seed(seed, first)
                found.append(self.scores(model, part).float())
                first += part.num_rows
        return torch.cat(found)

    def _mean_losses(self, vectors: Tensor, batch: EmbedBatch, soft: Tensor | None) -> Tensor:
        """Return the loss of a step's vectors, and that by the teachers' if given: (1,) or (2,)."""
        assert batch.compared is not None
        loss = LOSSES[batch.loss]
        given = {key: value for key, value in self.parameters.items() if key in loss.parameters}
        # Cosines have too few digits in bfloat16.
        with torch.autocast(vectors.device.type, enabled=False):
            found = [loss(vectors, batch.compared, self.dimensions, **given)]
            if soft is not None:
                own, theirs = functional.normalize(vectors), functional.normalize(soft)
                found.append(functional.mse_loss(own @ own.T, theirs @ theirs.T))
            return torch.stack(found)

    # -- predictions -------------------------------------------------------------------------------

    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """Return the cosine of each example's two texts, or the ids of the nearest passages."""
        places: TextsOfExamples = prepared.places
        examples = np.arange(len(prepared.examples))
        first = scores[places.of(examples, 0)]
        if places.passages is None:
            values = _cosines(first, scores[places.of(examples, 1)])
            return [Prediction(value) for value in values.round(6).tolist()]
        passages = _passages(prepared.examples)
        assert passages is not None
        _, found = nearest(first, scores[places.passages], NUM_FOUND)
        return [
            Prediction(
                tuple(passages.ids[place] for place in row),
                {"best": passages.texts[row[0]][:SHOWN_PASSAGE]},
            )
            for row in found.tolist()
        ]

    # -- hard negatives ----------------------------------------------------------------------------

    def completed(
        self, examples: Sequence[EmbedExample], open_model: Callable[[], nn.Module]
    ) -> tuple[list[EmbedExample], list[str]]:
        """Return training examples, of which pairs have got hard negatives, and remarks.

        The negatives of a pair are those texts of the other pairs of its card that the untrained
        model finds nearest to its anchor. Those nearly as near as the positive are left out, since
        they may be right, too.
        """
        found = list(examples)
        if not self.hard_negatives:
            return found, []
        places: dict[str, list[int]] = {}
        for place, one in enumerate(found):
            loss = LOSSES[self.loss_of(one.form)]
            ranks = loss.compares in (Ranking, Triplets) and not loss.twice
            if len(one.texts) > 1 and one.value != 0 and ranks:
                places.setdefault(one.source, []).append(place)
        if not places:
            return found, ["hard_negatives: no pairs that a ranking loss learns from: none mined"]
        model = cast(Any, open_model())
        self.finish(model)  # sets the row length
        encoder = SentenceEncoder(model, self.tokenizer)
        mining = Mining(num_negatives=self.hard_negatives, relative_margin=MARGIN_OF_MINING)
        remarks = []
        for source, own in places.items():
            pairs = [(found[place].texts[0], found[place].texts[1]) for place in own]
            mined = mine_hard_negatives(_Centred(encoder, pairs), pairs, mining=mining)
            for place, negatives in zip(own, mined, strict=True):
                if negatives:
                    texts = tuple(dict.fromkeys((*found[place].texts, *negatives)))
                    found[place] = replace(found[place], texts=texts, form="triples", value=None)
            where = f"{source}: " if source else ""
            count, with_some = sum(map(len, mined)), sum(map(bool, mined))
            remarks.append(
                f"{where}{counted(count, 'hard negative')} mined, for {with_some:,} of "
                f"{counted(len(own), 'pair')}"
            )
        return found, remarks

    # -- models ------------------------------------------------------------------------------------

    def begin(self, model: nn.Module) -> None:
        """Set the pooling; raise ZhbertError if the model's vectors do not suit the settings."""
        ours = cast(Any, model)
        if self.pooling != "auto":
            pooled = replace(ours.sentence, pooling=(self.pooling,))
            pooled.check(ours.config.hidden_size, f"pooling = {self.pooling}")
            ours.sentence = pooled
        if self.dimensions and max(self.dimensions) > ours.embedding_dimension:
            raise ZhbertError(
                f"matryoshka: {max(self.dimensions)} dimensions: the model's vectors have "
                f"{ours.embedding_dimension}"
            )
        if self._restores and ours.embedding_dimension != ours.config.hidden_size:
            raise ZhbertError(
                f"loss = {self.loss_name}: a vector must have as many dimensions as a piece, "
                f"{ours.config.hidden_size}; the model's have {ours.embedding_dimension}"
            )

    @property
    def _restores(self) -> bool:
        """True if texts are restored from their vectors."""
        return self.loss_name in LOSSES and LOSSES[self.loss_name].compares is None

    def training_class(self, usual: Any) -> Any:
        """Return the class with a decoder if texts are restored."""
        return DenoisingModel if self._restores else usual

    def finish(self, model: nn.Module) -> None:
        """Note the row length, to which every program then cuts the texts."""
        ours = cast(Any, model)
        ours.sentence = replace(ours.sentence, max_seq_length=self.sequence_length)


@contextmanager
def _with_dropout(model: Any) -> Iterator[None]:
    """Give a model without dropout some for a while."""
    config = model.config
    rates = config.hidden_dropout_prob, config.attention_probs_dropout_prob
    if any(rates):
        yield
        return
    places = [one for one in model.modules() if hasattr(one, "rate")]
    try:
        config.hidden_dropout_prob = config.attention_probs_dropout_prob = LEAST_DROPOUT
        for place in places:
            place.rate = LEAST_DROPOUT
        yield
    finally:
        config.hidden_dropout_prob, config.attention_probs_dropout_prob = rates
        for place in places:
            place.rate = 0.0


class _Centred:
    """An encoder whose vectors have their common part removed.

    The vectors of a BERT that was not trained for them are all nearly alike, so that no cosine is
    much below another: https://arxiv.org/abs/1702.01417.
    """

    def __init__(self, encoder: SentenceEncoder, pairs: Sequence[tuple[str, str]]) -> None:
        some = [text for pair in pairs[:CENTRED_BY] for text in pair]
        self._encoder, self._mean = encoder, encoder.encode(some).mean(0)

    def encode_query(self, sentences: list[str], *, normalize_embeddings: bool) -> Array:
        return self._centred(self._encoder.encode_query(sentences), normalize_embeddings)

    def encode_document(self, sentences: list[str], *, normalize_embeddings: bool) -> Array:
        return self._centred(self._encoder.encode_document(sentences), normalize_embeddings)

    def _centred(self, vectors: Array, normalize: bool) -> Array:
        centred = vectors - self._mean
        norms = np.linalg.norm(centred, axis=1, keepdims=True) if normalize else 1.0
        return centred / np.maximum(norms, 1e-12)  # type: ignore[no-any-return]


def _passages(examples: Sequence[EmbedExample]) -> Passages | None:
    return examples[0].passages if examples else None


def _cosines(left: Array, right: Array) -> NDArray[np.float64]:
    """Return the cosine of each two vectors, 0 for zero vectors: (E, D), (E, D) -> (E,)."""
    one, two = (torch.from_numpy(side.astype(np.float64)) for side in (left, right))
    cosines: NDArray[np.float64] = functional.cosine_similarity(one, two).numpy()
    return cosines


def _usable(
    examples: list[EmbedExample], loss: str, source: str, remarks: list[str]
) -> list[EmbedExample]:
    """Return the examples that a loss can learn from.

    Raises ZhbertError if there are none, or if all of them say the same.
    """
    where = f"{source}: " if source else ""
    if LOSSES[loss].compares is None:
        return _texts_alone(examples)
    if LOSSES[loss].twice:
        texts = _texts_alone(examples)
        remarks.append(
            f"{where}{counted(len(texts), 'different text')}; {loss} tells a text's two rows apart "
            f"by dropout, of a rate of {LEAST_DROPOUT} if the model has none"
        )
        return texts
    if LOSSES[loss].compares is Scored:
        values = {one.value for one in examples}
        if len(values) == 1:
            raise ZhbertError(
                f"{where}all {counted(len(examples), 'pair')} to train on have the same value "
                f"({values.pop():g}), so there is nothing to learn"
            )
        return examples
    positive = [one for one in examples if one.value != 0]
    if not positive:
        raise ZhbertError(f"{where}no pair to train on means yes: {loss} needs some")
    if left := len(examples) - len(positive):
        of_all = f"{left:,} of {counted(len(examples), 'pair')}"
        remarks.append(f"{where}{of_all} mean no: {loss} leaves them out")
    for one in examples:
        if {*one.texts[:2]} & {*one.texts[2:]}:
            raise ZhbertError(
                f"{where}example {one.id}: its negative is its own "
                f"{'anchor' if one.texts[0] in one.texts[2:] else 'positive'}"
            )
    return positive


def _texts_alone(examples: Sequence[EmbedExample]) -> list[EmbedExample]:
    """Return each text that occurs in the examples as one of its own."""
    texts = {text: one.id for one in examples for text in one.texts}
    source = examples[0].source
    return [EmbedExample(id_, (text,), "texts", source=source) for text, id_ in texts.items()]
