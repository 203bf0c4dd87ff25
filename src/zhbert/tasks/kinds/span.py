"""Extractive question answering: the position of an answer in a text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from zhbert.errors import ZhbertError
from zhbert.schema import check_choice
from zhbert.tasks.card import Data, TaskCard
from zhbert.tasks.examples import Example, Remark, SpanExample, Value
from zhbert.tasks.kinds.base import (
    Kind,
    Learning,
    Line,
    Mistake,
    Reading,
    as_number,
    counts_in_words,
    imperfect_score,
)
from zhbert.tasks.metrics import Metric, Resampled, Scores, of_all, resampled_mean
from zhbert.tasks.offsets import Offsets
from zhbert.tasks.prediction_rows import PredictionRow
from zhbert.tasks.predictions import PredictionFile
from zhbert.tasks.sources import Source, check_new, head
from zhbert.tasks.span_scores import SCORERS, SCORERS_OF_NO_ANSWER
from zhbert.tasks.squad import SquadQuestion, question_of, questions
from zhbert.tasks.writers import (
    ANSWER_OBJECTS,
    ANSWERS_BY_ID,
    PredictionWriter,
    json_line,
    tables,
)
from zhbert.wording import name, shortly

if TYPE_CHECKING:
    from zhbert.tasks.learners.base import Learner

SHOWN_CONTEXT = 200
"""The number of characters of the context that are kept beside a prediction."""


@dataclass(frozen=True, kw_only=True)
class SpanData(Data):
    """The keys of [data] for answers: their scorer and their types."""

    scorer: str = ""
    """The official scoring rules: cmrc2018, cjrc, squad1.1 or squad2.0."""
    yes_no: bool = False
    """The answers YES and NO are judgements, not spans of the text."""
    no_answer: bool = False
    """A question may have no answer."""

    def check(self, where: str) -> None:
        """Require a scorer, and one that supports the card's types of answers."""
        super().check(where)
        scorers = tuple(SCORERS)
        if not self.scorer:
            raise ZhbertError(
                f"{where}: data: 'scorer' is missing; write scorer = \"{scorers[0]}\", or "
                f"{', '.join(scorers[1:])}"
            )
        check_choice(self.scorer, scorers, f"{where}: data.scorer")
        if self.no_answer and self.scorer not in SCORERS_OF_NO_ANSWER:
            raise ZhbertError(
                f"{where}: data.no_answer = true: {self.scorer} has no score for a question "
                f"without an answer; the scorer must be {' or '.join(SCORERS_OF_NO_ANSWER)}"
            )

    def answer_kind(self, answer: str) -> str:
        """Return the type of an answer: span, yes, no or none."""
        if not answer:
            return "none"
        return answer.lower() if self.yes_no and answer in ("YES", "NO") else "span"


class Span(Kind):
    """Extraction of answers."""

    name = "span"
    data_class: ClassVar[type[SpanData]] = SpanData
    formats = ("squad",)
    metrics: ClassVar[Mapping[str, Metric]] = {}
    metric_names = ("f1", "em")
    architecture = "BertForQuestionAnswering"
    own_settings = frozenset({"doc_stride", "max_answer_length"})
    # The remarks are about the positions of answers in their texts.
    remarks_on_scores = False

    # -- examples ----------------------------------------------------------------------------------

    def read(self, file: Reading) -> Iterator[Example]:
        """Yield questions from the JSON of SQuAD and related formats: see `zhbert.tasks.squad`."""
        seen: set[str] = set()
        offsets = Offsets(file.counts, "answers")
        for question in questions(file.source, labelled=file.labelled):
            check_new(question.id, seen, question.where)
            if file.labelled:
                yield _answered(question, file.card.data, offsets, file.counts)
            else:
                yield SpanExample(
                    question.id, question.text, question.context, domain=question.domain
                )

    def read_inputs(
        self, card: TaskCard | None, labels: Sequence[str], source: Source, remark: Remark
    ) -> Iterator[Example]:
        """Yield questions from the JSON of SQuAD or a related format."""
        if card is None:
            data = SpanData(format="squad", dev=("-",), scorer="squad2.0", no_answer=True)
            card = TaskCard(title="questions", kind=self.name, metrics=("f1", "em"), data=data)
        if head(source, 1):
            yield from self.examples(card, source, labelled=False, remark=remark)

    def example_of(self, card: TaskCard | None, value: Any, identity: str, where: str) -> Example:
        """Return a question: a mapping with question and context, or these two."""
        if isinstance(value, list | tuple) and len(value) == 2:
            value = dict(zip(("question", "context"), value, strict=True))
        if not isinstance(value, Mapping):
            raise ZhbertError(
                f"{where} is {shortly(value)}: must be a question with its context: two texts, or "
                "a dict with both"
            )
        return SpanExample(identity, *question_of(value, where))

    # -- predictions -------------------------------------------------------------------------------

    def read_predictions(self, file: PredictionFile) -> dict[str, Value]:
        """Return an answer for each question, by its id."""
        rows = file.rows()
        if rows[0].id is None:
            raise ZhbertError(
                f'{file.path}: must be {{"id": "answer", ...}}, or a list of objects with id and '
                "answer"
            )
        return {str(row.id): _answer_in(row, file) for row in rows}

    def writers(self, card: TaskCard | None, labels: Sequence[str]) -> dict[str, PredictionWriter]:
        """Return JSON lines, tables, and answers by id or, for CJRC, a list of answers."""
        return {
            ".jsonl": PredictionWriter(json_line),
            **tables(probability=True),
            **self.submissions(card, labels),
        }

    def submissions(
        self, card: TaskCard | None, labels: Sequence[str]
    ) -> dict[str, PredictionWriter]:
        """Return answers by id or, for CJRC, a list of answers."""
        of_cjrc = card is not None and card.data.scorer == "cjrc"
        return {".json": ANSWER_OBJECTS if of_cjrc else ANSWERS_BY_ID}

    # -- scores ------------------------------------------------------------------------------------

    def takes_null_odds(self, card: TaskCard) -> bool:
        """Return whether the scorer is SQuAD 2.0's, the only one that uses them."""
        return bool(card.data.scorer == "squad2.0")

    def score(
        self,
        card: TaskCard,
        examples: Sequence[SpanExample],
        predictions: Mapping[str, Any],
        null_odds: Mapping[str, float] | None = None,
    ) -> Scores:
        """Score by the card's scorer; a question without a prediction counts 0."""
        gold = {example.id: example.answers for example in examples}
        # Some scorers take further arguments.
        more: dict[str, dict[str, object]] = {
            "squad2.0": {"null_odds": null_odds},
            "cjrc": {"domains": {one.id: one.domain for one in examples if one.domain}},
        }
        scorer = card.data.scorer
        scores = SCORERS[scorer](gold, predictions, **more.get(scorer, {}))
        parts = {"HasAns", "NoAns", *(one.domain for one in examples)}
        values = {"em": scores.per_question_em, "f1": scores.per_question_f1}
        resampled = {metric: resampled_mean(values[metric]) for metric in card.metrics}
        return Scores(
            metrics={metric: of_all(one, len(examples)) for metric, one in resampled.items()},
            resampled=resampled,
            num_examples=len(examples),
            parts={
                name: float(value)
                for name, value in scores.further.items()
                if name.rpartition("_")[0] in parts and not name.endswith("_total")
            },
            further=scores.further,
            missing=scores.missing,
            unknown=scores.unknown,
        )

    def each(
        self, card: TaskCard, examples: Sequence[SpanExample], predictions: Sequence[Any]
    ) -> dict[str, list[float]]:
        """Return each question's F1 (``score``) and exact match (``em``), as the scorer counts."""
        gold = {one.id: one.answers for one in examples}
        found = dict(zip(gold, map(str, predictions), strict=True))
        scores = SCORERS[card.data.scorer](gold, found)
        return {
            "score": (scores.per_question_f1 / 100).tolist(),
            "em": (scores.per_question_em / 100).tolist(),
        }

    def resampled(self, metric: str, lines: Sequence[Line], labels: Sequence[str]) -> Resampled:
        """Return the mean of the values that `each` wrote into the lines."""
        key = "score" if metric == "f1" else metric
        return resampled_mean([100.0 * line[key] for line in lines])

    # -- for people --------------------------------------------------------------------------------

    def shown(self, example: SpanExample) -> dict[str, Any]:
        """Return the question, the part of the context around the answer, and the answers."""
        return {**example.shown, "context": _excerpt(example), "gold": example.gold}

    def describe(self, card: TaskCard, example: SpanExample) -> str:
        """Return the answer that is learnt."""
        if example.kind in ("yes", "no"):
            return f"answer {example.kind.upper()}"
        span = example.training_span
        return f"answer {example.context[span[0] : span[1]]}" if span else "no answer"

    def describe_all(self, card: TaskCard, examples: Sequence[SpanExample]) -> str:
        """Return the counts of answers that are spans, judgements or none."""
        return "answers: " + counts_in_words(Counter(one.kind for one in examples))

    def facts(self, card: TaskCard) -> dict[str, str]:
        """Return the name of the scorer."""
        return {"metrics": f"{', '.join(card.metrics)} (as {card.data.scorer})"}

    def mistake(
        self, line: Line, labels: Sequence[str], names: Mapping[str, str]
    ) -> Mistake | None:
        """Return a mistake, ranked by its F1 (lowest first), then by its probability."""
        if (score := imperfect_score(line)) is None:
            return None
        gold = line.get("gold")
        answers = gold if isinstance(gold, list) else [gold]
        probability = as_number(line.get("probability")) or 0.0
        return Mistake(
            (1 - score, probability),
            tuple(str(line.get(key) or "") for key in ("question", "context")),
            " / ".join(dict.fromkeys(map(str, answers))),
            str(line.get("predicted")),
            f"F1 {100 * score:.0f} %" + (f", p {probability:.2f}" if probability else ""),
        )

    # -- learning ----------------------------------------------------------------------------------

    def learner(self, of: Learning) -> Learner:
        """Return a learner that minimises the cross entropy of an answer's start and end."""
        from zhbert.tasks.learners.span import SpanLearner

        settings = of.settings
        made = SpanLearner(
            of.tokenizer, settings.sequence_length, settings.doc_stride, settings.max_answer_length
        )
        return made if of.card is None else made.for_card(of.card)


def _answered(
    question: SquadQuestion, data: SpanData, offsets: Offsets, counts: Counter[str]
) -> SpanExample:
    """Return a question with its answers and their positions."""
    given = question.answers or []
    answers = tuple(answer for answer, _ in given)
    kinds = Counter(map(data.answer_kind, answers))
    # In a tie, the type that occurs first is chosen.
    kind = kinds.most_common(1)[0][0] if kinds else "none"
    if kind == "none" and not data.no_answer:
        raise ZhbertError(f"{question.where}: no answer; a card allows that with no_answer = true")
    # CJRC's annotators may disagree.
    if question.marked_impossible and answers and all(answers) and data.scorer != "cjrc":
        counts["questions with is_impossible and with answers, which count"] += 1
    starts = tuple(
        offsets.place(question.context, answer, start) if data.answer_kind(answer) == "span" else -1
        for answer, start in given
    )
    example = SpanExample(
        question.id, question.text, question.context, answers, starts, kind, question.domain
    )
    if kind == "span" and example.training_span is None:
        counts["questions scored but not trained on: no answer stands in their text"] += 1
    return example


def _answer_in(row: PredictionRow, file: PredictionFile) -> str:
    answer = row.value
    if isinstance(answer, str):
        return answer
    if isinstance(answer, list) and all(isinstance(part, str) for part in answer):
        return "".join(answer)  # CJRC's scorer accepts an answer in parts
    if isinstance(answer, int | float) and not isinstance(answer, bool):
        return str(answer)
    raise ZhbertError(
        f"{file.path}: question '{name(str(row.id))}': {shortly(answer)}: an answer must be a "
        "text, '' where there is none"
    )


def _excerpt(example: SpanExample) -> str:
    """Return `SHOWN_CONTEXT` characters around the answer."""
    context, span = example.context, example.training_span
    if len(context) <= SHOWN_CONTEXT:
        return context
    start = span[0] - SHOWN_CONTEXT // 2 if span else 0
    begin = max(0, min(start, len(context) - SHOWN_CONTEXT))
    end = begin + SHOWN_CONTEXT
    return ("…" if begin else "") + context[begin:end] + ("…" if end < len(context) else "")
