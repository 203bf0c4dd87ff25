"""Extractive question answering, with the rows and decoding of transformers' run_qa.

https://github.com/huggingface/transformers/tree/main/examples/pytorch/question-answering

A row is ``[CLS] question [SEP] context [SEP]``. A context that is too long is split into windows;
neighbours share ``doc_stride`` pieces. A window without the answer has the target [CLS].

Judgements (CJRC's YES and NO) are learnt as spans, too: if a task has them, every window begins
with the pieces of 是 and 否 (yes and no in English), and the target of YES is the first one. The
target of "no answer" is [CLS]: it is predicted if the score of [CLS] exceeds that of the best span
by more than a threshold, which is chosen on dev. So the model is transformers'
BertForQuestionAnswering.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from zhbert.config import DistillSettings
from zhbert.distill.soft_labels import soft_label_sum
from zhbert.errors import ZhbertError
from zhbert.inference.rows import Ids
from zhbert.inference.run_model import Array
from zhbert.packing import PackedBatch
from zhbert.tasks.card import TaskCard
from zhbert.tasks.examples import Prediction, SpanExample
from zhbert.tasks.learners.base import Prepared, ScoringLearner, softmax
from zhbert.tasks.metrics import Floats
from zhbert.tasks.rows import LabelledBatch, LabelledRows
from zhbert.tasks.span_scores import SCORERS
from zhbert.text.tokenizer import Tokenizer

JUDGEMENTS = ("YES", "NO")
# The words for judgements at the beginning of a window, by language.
JUDGEMENT_TEXTS = {"zh": ("是", "否"), "en": ("yes", "no")}

NOWHERE = -1e30


@dataclass(frozen=True)
class Windows:
    """The position of each row's part of a context; each array is (R,)."""

    examples: NDArray[np.int64]
    """The index of the row's example."""
    bases: NDArray[np.int64]
    """The row's index of its first context piece."""
    begins: NDArray[np.int64]
    """The context's index of the window's first piece."""
    sizes: NDArray[np.int64]
    """The number of context pieces in the window."""
    offsets: Sequence[NDArray[np.int32]]
    """For each example, (pieces, 2): begin and end of each context piece, in characters."""


@dataclass(frozen=True)
class _Candidate:
    score: float
    text: str
    start: int
    """The begin, in characters; -1: a judgement."""


@dataclass(frozen=True)
class SpanLearner(ScoringLearner):
    """Extraction of answers."""

    tokenizer: Tokenizer
    sequence_length: int
    doc_stride: int = 128
    max_answer_length: int = 30
    """The longest answer, in pieces."""
    scorer: str = "squad1.1"
    language: str = "zh"
    yes_no: bool = False
    no_answer: bool = False
    null_threshold: float = 0.0
    n_best: int = 20
    metric: str = "f1"
    """The metric that the threshold is chosen by: f1 or em."""

    labels: None = None

    def prepare(self, examples: Sequence[SpanExample], *, training: bool = False) -> Prepared:
        """Return the rows of every window of every question, in order.

        If ``training``, questions whose answers do not occur in the text are left out.
        """
        ours = list(examples)
        if training:
            ours = [one for one in ours if one.kind != "span" or one.training_span is not None]
        judgements = self._judgements()
        room, longest = self._room(), self._longest_question()
        questions = self.tokenizer.encode_batch([one.question for one in ours])
        cut = sum(len(question) > longest for question in questions)
        contexts = dict.fromkeys(one.context for one in ours)
        encoded = {context: self.tokenizer.encode(context) for context in contexts}
        segments: list[tuple[Ids, ...]] = []
        places: list[tuple[int, int, int, int]] = []
        targets: list[tuple[int, int]] = []
        for number, (one, whole_question) in enumerate(zip(ours, questions, strict=True)):
            context, question = encoded[one.context], whole_question[:longest]
            base = len(question) + 2 + len(judgements)
            for begin, end in windows(len(context), room - len(question), self.doc_stride):
                segments.append((question, np.concatenate((judgements, context.ids[begin:end]))))
                places.append((number, base, begin, end - begin))
                if training:
                    targets.append(self._target(one, context.offsets[begin:end], base))
        rows = LabelledRows.of_segments(self.tokenizer, segments)
        if training:
            rows = replace(rows, targets=np.array(targets, np.int64).reshape(-1, 2))
        numbers, bases, begins, sizes = np.array(places, np.int64).reshape(-1, 4).T
        offsets = [encoded[one.context].offsets for one in ours]
        where = Windows(numbers, bases, begins, sizes, offsets)
        remarks = (self.describe_cut(cut, len(ours)),) if cut else ()
        return Prepared(ours, rows, where, remarks, (cut, len(ours)))

    def describe_cut(self, cut: int, texts: int) -> str:
        """Return a line for people about the questions that are longer than half a row."""
        return (
            f"{cut:,} of {texts:,} questions are longer than {self._longest_question()} pieces, "
            f"half of the row (sequence_length = {self.sequence_length}): their ends are cut off"
        )

    def _room(self) -> int:
        """Return the most pieces of a question and a part of its context."""
        return self.sequence_length - 3 - len(self._judgements())

    def _longest_question(self) -> int:
        # At least half of the row is reserved for the context.
        return max(1, self._room() // 2)

    def _judgements(self) -> Ids:
        """Return the pieces of yes and no, (2,); (0,) if the task has no judgements."""
        if not self.yes_no:
            return np.empty(0, np.int32)
        words = JUDGEMENT_TEXTS.get(self.language, JUDGEMENT_TEXTS["en"])
        ids = [
            ids[0] if len(ids) else self.tokenizer.unk_id
            for ids in self.tokenizer.encode_batch(words)
        ]
        return np.array(ids, np.int32)

    def _target(self, one: SpanExample, offsets: NDArray[np.int32], base: int) -> tuple[int, int]:
        """Return start and end in the row; both 0 ([CLS]) if the window lacks the answer."""
        if one.kind in ("yes", "no"):
            place = base - (2 if one.kind == "yes" else 1)
            return place, place
        span = one.training_span
        if span is None or not len(offsets):
            return 0, 0
        start, end = span
        if not (offsets[0, 0] <= start and offsets[-1, 1] >= end):
            return 0, 0
        first = int(np.searchsorted(offsets[:, 0], start, "right")) - 1
        last = int(np.searchsorted(offsets[:, 1], end, "left"))
        return base + first, base + last

    def loss_of(self, scores: Tensor, batch: LabelledBatch) -> Tensor:
        """Return the summed loss: a row's is the mean of the cross entropies of start and end."""
        assert batch.targets is not None
        padded = _padded(scores.float(), batch.packed)
        return functional.cross_entropy(padded, batch.targets, reduction="sum") / 2

    def soft_loss_of(
        self, scores: Tensor, batch: LabelledBatch, settings: DistillSettings
    ) -> Tensor:
        """Return the summed loss of the distributions of start and end over a row's pieces."""
        assert batch.soft is not None
        own, theirs = (_padded(x, batch.packed) for x in (scores.float(), batch.soft))
        if settings.soft_labels == "mse":
            # The mean over a row's pieces must not depend on the longest row beside it.
            squares = ((own - theirs) / settings.temperature).square().sum((1, 2))
            return (squares / batch.packed.cu_seqlens.diff()).sum() / 2
        own, theirs = (x.transpose(1, 2).flatten(0, 1) for x in (own, theirs))
        return soft_label_sum(own, theirs, settings) / 2

    def describe_soft_labels(self, settings: DistillSettings) -> str:
        """Return how soft labels are learnt, for people; raise ZhbertError if they cannot be."""
        if settings.temperature_schedule == "flsw":
            raise ZhbertError(
                "distill.temperature_schedule = flsw: compares all scores of two rows, and rows of "
                "questions have different lengths; take constant or cwsm"
            )
        return super().describe_soft_labels(settings)

    def scores(self, model: nn.Module, batch: PackedBatch) -> Tensor:
        """Return the scores of start and end: (T, 2)."""
        return cast(Any, model).piece_logits(batch)  # type: ignore[no-any-return]

    def decode(self, prepared: Prepared, scores: Array) -> list[Prediction]:
        """Return each question's best answer over all windows, or no answer."""
        return [self._decide(best, null) for best, null in self._candidates(prepared, scores)]

    def _candidates(
        self, prepared: Prepared, scores: Array
    ) -> list[tuple[list[_Candidate], float]]:
        """Return each example's best spans, best first, and its lowest score of [CLS]."""
        places: Windows = prepared.places
        examples: Sequence[SpanExample] = prepared.examples
        found: list[list[_Candidate]] = [[] for _ in examples]
        nulls = [float("inf")] * len(examples)
        judged = 2 if self.yes_no else 0
        for example, base, begin, size, at in zip(
            places.examples.tolist(),
            places.bases.tolist(),
            places.begins.tolist(),
            places.sizes.tolist(),
            prepared.rows.cu_seqlens[:-1].tolist(),
            strict=True,
        ):
            nulls[example] = min(nulls[example], float(scores[at].sum()))
            for number in range(judged):
                score = float(scores[at + base - judged + number].sum())
                found[example].append(_Candidate(score, JUDGEMENTS[number], -1))
            window = scores[at + base : at + base + size]
            offsets = places.offsets[example]
            context = examples[example].context
            for score, first, last in best_spans(window, self.n_best, self.max_answer_length):
                start, end = int(offsets[begin + first, 0]), int(offsets[begin + last, 1])
                found[example].append(_Candidate(score, context[start:end], start))
        for candidates in found:
            candidates.sort(key=lambda one: -one.score)
            del candidates[self.n_best :]
        return list(zip(found, nulls, strict=True))

    def _decide(self, best: list[_Candidate], null: float) -> Prediction:
        every = [one.score for one in best]
        if self.no_answer or not best:
            every.append(null)
        chances = softmax(np.array(every)).round(6).tolist()
        details: dict[str, Any] = {}
        chosen = 0
        if self.no_answer:
            details["null_odds"] = round(null - best[0].score, 6) if best else 0.0
            if not best or null - best[0].score > self.null_threshold:
                chosen = len(best)
        answer = best[chosen] if chosen < len(best) else _Candidate(null, "", -1)
        details = {"probability": chances[chosen], "start": answer.start, **details}
        return Prediction(answer.text, details)

    def tuned(self, prepared: Prepared, scores: Array) -> Self:
        """Return this learner with the best threshold on these examples, if one is used."""
        if not self.no_answer:
            return self
        candidates = self._candidates(prepared, scores)
        odds = np.array([null - best[0].score if best else np.inf for best, null in candidates])
        answered = self._gains(
            prepared.examples, [best[0].text if best else "" for best, _ in candidates]
        )
        unanswered = self._gains(prepared.examples, [""] * len(candidates))
        return replace(self, null_threshold=best_threshold(odds, answered, unanswered))

    def _gains(self, examples: Sequence[SpanExample], answers: Sequence[str]) -> Floats:
        """Return the score of each answer, 0 to 1: (examples,)."""
        gold = {one.id: one.answers for one in examples}
        scores = SCORERS[self.scorer](gold, dict(zip(gold, answers, strict=True)))
        return (scores.per_question_f1 if self.metric == "f1" else scores.per_question_em) / 100

    def for_card(self, card: TaskCard) -> Self:
        """Return this learner with the card's types of answers and its scorer."""
        return replace(
            self,
            scorer=card.data.scorer,
            language=card.language,
            yes_no=card.data.yes_no,
            no_answer=card.data.no_answer,
            metric=card.metrics[0],
        )

    def saved(self) -> dict[str, Any]:
        """Return lengths, strides, the threshold and the types of answers."""
        return {
            **super().saved(),
            "doc_stride": self.doc_stride,
            "max_answer_length": self.max_answer_length,
            "yes_no": self.yes_no,
            "no_answer": self.no_answer,
            "null_threshold": self.null_threshold,
            "language": self.language,
        }

    def resumed(self, saved: Mapping[str, Any]) -> Self:
        """Return this learner with the saved threshold."""
        return replace(self, null_threshold=float(saved["null_threshold"]))


def _padded(scores: Tensor, packed: PackedBatch) -> Tensor:
    """Return the pieces' scores by rows, (T, 2) -> (R, longest, 2), `NOWHERE` after a row's end."""
    count, longest = packed.num_rows, packed.max_length
    row = torch.repeat_interleave(
        torch.arange(count, device=scores.device),
        packed.cu_seqlens.long().diff(),
        output_size=packed.num_pieces,
    )
    padded = scores.new_full((count * longest, 2), NOWHERE)
    padded = padded.index_copy(0, row * longest + packed.position_ids, scores)
    return padded.view(count, longest, 2)


def windows(pieces: int, room: int, doc_stride: int) -> list[tuple[int, int]]:
    """Return begin and end of each window over a context, as Hugging Face's tokenizers cut it.

    Neighbours share ``doc_stride`` pieces, or half of ``room`` if that is less.

    >>> windows(10, 5, 2)
    [(0, 5), (3, 8), (6, 10)]
    >>> windows(5, 5, 2), windows(0, 5, 2)
    ([(0, 5)], [(0, 0)])
    """
    step = room - (doc_stride if doc_stride < room else room // 2)
    found = [(begin, min(begin + room, pieces)) for begin in range(0, max(1, pieces), step)]
    first_whole = next(number for number, (_, end) in enumerate(found) if end == pieces)
    return found[: first_whole + 1]


def best_spans(
    window: NDArray[np.float32], count: int, max_length: int
) -> list[tuple[float, int, int]]:
    """Return a window's best spans (score, first, last), among its best starts and ends.

    >>> best_spans(np.array([[0, 3], [5, 1], [1, 4]], np.float32), 2, 2)
    [(9.0, 1, 2), (5.0, 2, 2)]
    """
    size = len(window)
    if not size:
        return []
    starts, ends = _top(window[:, 0], count), _top(window[:, 1], count)
    lengths = ends[None, :] - starts[:, None] + 1
    sums = window[starts, 0][:, None] + window[ends, 1][None, :]
    flat = np.where((lengths >= 1) & (lengths <= max_length), sums, -np.inf).ravel()
    best = _top(flat, count)
    best = best[np.isfinite(flat[best])]
    first, last = starts[best // len(ends)], ends[best % len(ends)]
    return list(zip(flat[best].tolist(), first.tolist(), last.tolist(), strict=True))


def _top(values: Array, count: int) -> NDArray[np.int64]:
    """Return the indices of the highest values, unordered."""
    if len(values) <= count:
        return np.arange(len(values))
    return np.argpartition(-values, count - 1)[:count]


def best_threshold(
    odds: NDArray[np.float64], answered: NDArray[np.float64], unanswered: NDArray[np.float64]
) -> float:
    """Return the best threshold; above it, a question is predicted to have no answer.

    Args:
        odds: for each question, the score of "no answer" minus that of the best span.
        answered: the score of each question if it is answered.
        unanswered: its score if it is not.

    >>> best_threshold(np.array([-1.0, 0.5, 2.0]), np.array([1.0, 1, 0]), np.array([0.0, 0, 1]))
    1.25
    """
    order = np.argsort(odds, kind="stable")
    ordered = odds[order]
    # totals[n] is the sum if only the n questions with the lowest odds are answered.
    totals = np.concatenate(([0.0], np.cumsum((answered - unanswered)[order])))
    # No threshold separates questions with equal odds.
    apart = np.concatenate(([True], ordered[1:] > ordered[:-1], [True]))
    totals[~apart] = -np.inf
    count = int(totals.argmax())
    if count == 0:
        return float(ordered[0] - 1)
    if count == len(ordered):
        return float(ordered[-1] + 1) if np.isfinite(ordered[-1]) else 0.0
    middle = (ordered[count - 1] + ordered[count]) / 2
    return float(middle if np.isfinite(middle) else ordered[count - 1] + 1)
