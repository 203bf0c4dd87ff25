"""Embedding: one vector for a text, near those of texts that mean the same or answer it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.schema import check_choice
from zhbert.tasks.card import Column, TaskCard, finite_number
from zhbert.tasks.examples import EmbedExample, Example, Remark, TextExample, Value
from zhbert.tasks.kinds.base import Learning, Line, Mistake, Reading, as_number, imperfect_score
from zhbert.tasks.kinds.regress import NumberData, predicted_number
from zhbert.tasks.kinds.texts import TextKind
from zhbert.tasks.metrics import Metric, of_pairs, ranks_of, resampled_pearson, resampled_spearman
from zhbert.tasks.passages import with_passages
from zhbert.tasks.plain_texts import SUFFIXES, texts_in, texts_of
from zhbert.tasks.prediction_rows import PredictionRow
from zhbert.tasks.ranking_metrics import (
    OF_SEARCH,
    reciprocal_rank,
    resampled_average_precision,
    resampled_best_accuracy,
    resampled_search,
)
from zhbert.tasks.sources import Source, check_new, first_record, is_parquet
from zhbert.tasks.squad import questions
from zhbert.tasks.tables import (
    DELIMITERS,
    Record,
    cell,
    columns_in_words,
    has,
    joined_in,
    look_at_row,
    text_in,
)
from zhbert.tasks.writers import PredictionWriter, handed_in
from zhbert.wording import counted, listed, shortly, show

if TYPE_CHECKING:
    from zhbert.tasks.learners.base import Learner

SHOWN_PASSAGE = 200
"""The number of characters of a passage that are kept beside a prediction."""
ALIKE = ("spearman", "pearson")
METRICS_OF = {
    "scored": ALIKE,
    "judged": (*ALIKE, "accuracy", "ap"),
    "pairs": tuple(OF_SEARCH),
    "triples": tuple(OF_SEARCH),
    "texts": (),
}
"""The metrics by which examples of each form can be scored."""


@dataclass(frozen=True, kw_only=True)
class EmbedData(NumberData):
    """The keys of [data] for embedding; which of them a card has decides the form of its examples.

    ======================================== ========= ===========================================
    keys                                     form      an example is
    ======================================== ========= ===========================================
    text, text_pair, label, label_range      scored    two texts and how similar they are
    text, text_pair, label, yes, no          judged    two texts and whether they mean the same
    the same, and triples                    judged    the same, learnt as triples: NLI
    text, text_pair                          pairs     paraphrases, or a question and its passage
    format = "squad"                         pairs     a question and its paragraph
    text, text_pair, negative                triples   the same, and texts that do not fit
    text                                     texts     a text alone
    ======================================== ========= ===========================================
    """

    yes: tuple[str, ...] = ()
    """The labels of two texts that mean the same, or of which the second follows."""
    no: tuple[str, ...] = ()
    """The labels of two texts that do not."""
    drop_labels: tuple[str, ...] = ()
    """Rows with these labels are left out and counted."""
    triples: bool = False
    """Train on triples: a first text, a second one that means yes, and one that means no."""
    negative: Column = ()
    """The columns of texts that do not fit the first one; each contains a text, or a list."""
    train_on: tuple[str, ...] = ()
    """Other cards of this kind whose training files are also trained on: names or paths."""
    scored_on: tuple[str, ...] = ()
    """Other cards of this kind whose dev files are scored at the end of each seed."""
    haystack: tuple[str, ...] = ()
    """Further splits among whose passages, too, the right ones are searched."""

    @property
    def form(self) -> str:
        """The form of the examples, as in `EmbedExample`."""
        if self.format == "squad":
            return "pairs"
        if self.negative:
            return "triples"
        if self.label:
            return "scored" if self.label_range else "judged"
        return "pairs" if self.text_pair else "texts"

    @property
    def searched(self) -> bool:
        """True if predictions are passages that were found."""
        return self.form in ("pairs", "triples")

    @property
    def label_columns(self) -> Sequence[str | int]:
        """The columns that are read besides those of the texts."""
        return (*self.label, *self.negative)

    def similarity(self, text: str) -> float | None:
        """Return a label as a number from 0 to 1; None if it is not one of the card's."""
        number = self.number(text)
        if self.label_range:
            low, high = self.label_range
            return None if number is None else (number - low) / (high - low)
        for labels, value in ((self.yes, 1.0), (self.no, 0.0)):
            if text in labels or (number is not None and number in map(finite_number, labels)):
                return value
        return None

    def is_gold(self, text: str) -> bool:
        """Return whether a text is valid in the label column."""
        return text.strip() in self.drop_labels or self.similarity(text.strip()) is not None

    def check(self, where: str) -> None:
        """Refuse keys that do not make one of the forms."""
        if self.format == "squad":
            # As a table with these columns would be.
            dataclasses.replace(
                self, format="jsonl", text=("question",), text_pair=("context",)
            ).check(where)
            return
        super().check(where)
        if self.form != "texts":
            self.must_have("text_pair", where)
        self._check_labels(where)
        for key in ("train_on", "scored_on", "haystack"):
            names = getattr(self, key)
            if twice := [name for name in names if names.count(name) > 1]:
                raise ZhbertError(f"{where}: data.{key}: {show(twice[0])} stands there twice")
        for split in self.haystack:
            check_choice(split, tuple(self.splits), f"{where}: data.haystack")
        if self.haystack and not self.searched:
            raise ZhbertError(f"{where}: data.haystack: nothing is searched: the pairs have labels")
        if self.form == "texts" and (self.dev or self.test):
            raise ZhbertError(
                f"{where}: data: texts alone are trained on, not scored: name no dev; a card with "
                "pairs trains on this one by train_on"
            )

    def _check_labels(self, where: str) -> None:
        if self.negative and self.label:
            raise ZhbertError(f"{where}: data: label and negative: remove one of them")
        if not self.label:
            for key in ("label_range", "yes", "no", "drop_labels", "triples"):
                if getattr(self, key):
                    raise ZhbertError(f"{where}: data.{key}: without a label; name its column")
            return
        if self.label_range:
            if self.yes or self.no or self.triples:
                raise ZhbertError(
                    f"{where}: data.label_range: for numbers; yes, no and triples are for labels"
                )
            self.check_range(where)
        elif not self.yes or not self.no:
            raise ZhbertError(
                f"{where}: data.label: say what it means: label_range = [0, 5] for numbers, or "
                'yes = ["1"] and no = ["0"] for labels'
            )
        elif both := [label for label in self.yes if label in self.no]:
            raise ZhbertError(f"{where}: data: {listed(both)} in yes and in no")


class Embed(TextKind):
    """Embedding of texts: similar pairs, or passages that answer questions."""

    name = "embed"
    data_class: ClassVar[type[EmbedData]] = EmbedData
    formats = (*TextKind.formats, "squad")
    keys_in: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(
            ("text", "text_pair", "label", "id", "where", "split_column", "label_range", "yes",
             "no", "drop_labels", "triples", "negative"),
            TextKind.formats,
        ),
        **TextKind.keys_in,
    }  # fmt: skip
    metrics: ClassVar[Mapping[str, Metric]] = {
        "spearman": of_pairs(resampled_spearman),
        "pearson": of_pairs(resampled_pearson),
        "accuracy": of_pairs(resampled_best_accuracy),
        "ap": of_pairs(resampled_average_precision),
        **{name: of_pairs(partial(resampled_search, name)) for name in OF_SEARCH},
    }
    architecture = "BertModel"
    # All questions are searched in the same passages.
    predicted_together = True
    own_settings = frozenset({"loss", "pooling", "scale", "margin", "matryoshka", "hard_negatives"})

    def check(self, card: TaskCard) -> None:
        """Refuse metrics that cannot score examples of the card's form."""
        known = METRICS_OF[card.data.form]
        for metric in card.metrics:
            if known and metric not in known:
                raise ZhbertError(
                    f"{card.path.name}: metrics: {metric}: not for {card.data.form}; choose of "
                    f"{listed(known)}"
                )

    # -- examples ----------------------------------------------------------------------------------

    def read(self, file: Reading) -> Iterator[Example]:
        """Yield an example for each row, or for each right passage of a row that lists several."""
        data: EmbedData = file.card.data
        if data.format == "squad":
            found = _questions(file.source, file.card.name)
        else:
            found = self._examples(file)
        yield from with_passages(list(found)) if file.labelled and data.searched else found

    def _examples(self, file: Reading) -> Iterator[EmbedExample]:
        data: EmbedData = file.card.data
        seen: set[str] = set()
        for where, record, identity in self.rows(file):
            text = joined_in(record, data.text, where)
            positives = _texts_in(record, data.text_pair, where) if data.text_pair else []
            gold = self.kept_gold(file, record, (text, *positives), where)
            if gold is None:
                continue
            negatives = _negatives(record, data, where, {text, *positives}) if file.labelled else ()
            for number, positive in enumerate(positives or [""]):
                texts = (text, positive, *negatives) if data.text_pair else (text,)
                one = f"{identity}.{number}" if number else identity
                check_new(one, seen, where)
                yield EmbedExample(one, texts, data.form, gold.get("value"), file.card.name)

    def gold(self, record: Record, data: EmbedData, where: str, labelled: bool) -> dict[str, Any]:
        """Return the row's label as a similarity from 0 to 1; none for pairs without labels."""
        if not data.label or not (labelled or has(record, data.label)):
            return {}
        text = text_in(record, data.label, where, null=not labelled).strip()
        value = data.similarity(text)
        if value is None and labelled and text not in data.drop_labels:
            if data.label_range:
                raise data.not_a_number(text, where)
            raise ZhbertError(
                f"{where}: the label {shortly(text)} is not in the card; yes: "
                f"{listed(data.yes)}; no: {listed(data.no)}"
            )
        return {"label": text, "value": value}

    def read_inputs(
        self, card: TaskCard | None, labels: Sequence[str], source: Source, remark: Remark
    ) -> Iterator[Example]:
        """Yield pairs from the task's own files, from tables or from lines of two columns."""
        if _holds_squad(card, source):
            yield from _questions(source, "" if card is None else card.name)
            return
        for example in texts_in(self, _of_pairs(card, source), source, remark):
            if isinstance(example, TextExample):
                texts = (example.text, example.text_pair or "")
                example = EmbedExample(example.id, texts, "scored")
            yield example

    def example_of(self, card: TaskCard | None, value: Any, identity: str, where: str) -> Example:
        """Return a pair of texts."""
        data = None if card is None else card.data
        if data is None or not data.text_pair:
            data = _PAIRS
        text, text_pair = texts_of(data, value, where)
        return EmbedExample(identity, (text, text_pair or ""), "scored")

    # -- predictions -------------------------------------------------------------------------------

    def predicted(self, row: PredictionRow, data: EmbedData, where: str) -> Value:
        """Return a similarity, or the ids of the passages that were found."""
        if data.searched:
            if isinstance(row.value, list) and all(isinstance(one, str) for one in row.value):
                return tuple(dict.fromkeys(row.value))
            raise ZhbertError(
                f"{where}: {shortly(row.value)}: must be a list of the ids of passages"
            )
        return predicted_number(row, where)

    def submissions(
        self, card: TaskCard | None, labels: Sequence[str]
    ) -> dict[str, PredictionWriter]:
        """Return GLUE's table and CLUE's lines; for passages, only the lines."""
        forms = handed_in()
        if card is not None and card.data.searched:
            del forms[".tsv"]
        return forms

    # -- scores ------------------------------------------------------------------------------------

    def in_haystack(
        self, examples: Sequence[Any], further: Mapping[str, Sequence[Any]]
    ) -> list[Any]:
        """Return questions to be searched among the passages of further splits, too."""
        return list(with_passages(examples, further))

    def each(
        self, card: TaskCard, examples: Sequence[EmbedExample], predictions: Sequence[Any]
    ) -> dict[str, list[float]]:
        """Return 1 / rank of the first right passage; for a pair, how right its rank is.

        That is 1 minus the distance of its ranks by right and by predicted similarity, as a share
        of all: cosines may be right although they are not the numbers of the file.
        """
        if card.data.searched:
            pairs = zip(examples, predictions, strict=True)
            return {"score": [reciprocal_rank(one.relevant, found) for one, found in pairs]}
        weights = np.ones((1, len(examples)))
        right, found = ranks_of([one.value or 0.0 for one in examples]), ranks_of(predictions)
        distances = np.abs(right(weights) - found(weights))[0]
        return {"score": (1 - distances / len(examples)).tolist()}

    # -- for people --------------------------------------------------------------------------------

    def shown(self, example: EmbedExample) -> dict[str, Any]:
        """Return both texts, of which a passage is cut, and the right value."""
        shown = {**example.shown, "gold": example.gold}
        if example.relevant:
            shown["text_pair"] = _cut(shown["text_pair"])
        return shown

    def describe(self, card: TaskCard, example: EmbedExample) -> str:
        """Return the similarity, or the positive and the negatives."""
        if example.form == "scored":
            return f"similarity {example.value:g}"
        if example.form == "judged":
            return "yes" if example.value else "no"
        texts = [f"near {_cut(text, 40)}" for text in example.texts[1:2]]
        texts += [f"far from {_cut(text, 40)}" for text in example.texts[2:]]
        return "; ".join(texts) or "a text alone"

    def describe_all(self, card: TaskCard, examples: Sequence[EmbedExample]) -> str:
        """Return the form of the examples, with the numbers that matter to it."""
        form = examples[0].form
        if form == "judged":
            yes = sum(bool(one.value) for one in examples)
            return f"pairs: yes ({yes:,}), no ({len(examples) - yes:,})"
        if form == "scored":
            values = [one.value or 0.0 for one in examples]
            return f"pairs: similarities {min(values):g} to {max(values):g}"
        passages = examples[0].passages
        searched = "" if passages is None else f", {counted(len(passages.ids), 'passage')}"
        return form + searched

    def facts(self, card: TaskCard) -> dict[str, str]:
        """Return the form of the examples, the columns, and the cards that take part."""
        data: EmbedData = card.data
        table = data.format != "squad"
        meaning = f"yes = {listed(data.yes)}, no = {listed(data.no)}" if data.yes else ""
        if data.label_range:
            meaning = "a number from {:g} to {:g}".format(*data.label_range)
        columns = columns_in_words(data, "text", "text_pair", "negative", "label", "id")
        triples = ", triples to train on" if data.triples else ""
        return {
            "kind": f"{card.kind}, {data.form}{triples}, {card.language}",
            "format": data.format + ("" if data.header or not table else ", without a header"),
            "columns": columns,
            "labels": meaning,
            "trains on": ", ".join(data.train_on),
            "scored on": ", ".join(data.scored_on),
            "searched": ", ".join(("the split itself", *data.haystack)) if data.haystack else "",
        }

    def mistake(
        self, line: Line, labels: Sequence[str], names: Mapping[str, str]
    ) -> Mistake | None:
        """Return a mistake: how far the rank of a pair, or of the right passage, is off."""
        if (score := imperfect_score(line)) is None:
            return None
        gold, found = line.get("gold"), line.get("predicted")
        if isinstance(found, list) and isinstance(gold, list):
            rank = round(1 / score) if score else 0
            how = f"rank {rank}" if rank else f"not among the first {len(found)}"
            best = str(line.get("best") or (found or [""])[0])
            return Mistake((1 - score, 0.0), self.texts_of(line)[:1],
                           str(line.get("text_pair", "")), best, how)  # fmt: skip
        right, predicted = as_number(gold), as_number(found)
        if right is None or predicted is None:
            return None
        return Mistake(
            (1 - score, 0.0),
            self.texts_of(line),
            f"{right:.2f}",
            f"{predicted:.2f}",
            f"{100 * (1 - score):.0f} % of the ranks off",
        )

    # -- learning ----------------------------------------------------------------------------------

    def to_train(
        self, card: TaskCard, examples: Sequence[Any], where: str, remark: Remark
    ) -> list[Any]:
        """Return the examples, or triples of them; refuse pairs of which none is similar."""
        if card.data.triples:
            return _triples(examples, where, remark)
        if card.data.label and not any(one.value for one in examples):
            raise ZhbertError(f"{where}: no pair in it is similar: there is nothing to learn from")
        return list(examples)

    def learner(self, of: Learning) -> Learner:
        """Return a learner of vectors."""
        from zhbert.tasks.learners.embed import EmbedLearner

        settings = of.settings
        parameters = {"scale": settings.scale}
        if settings.margin:
            parameters["margin"] = settings.margin
        return EmbedLearner(
            of.tokenizer,
            settings.sequence_length,
            loss_name=settings.loss,
            pooling=settings.pooling,
            parameters=parameters,
            dimensions=tuple(map(int, filter(None, settings.matryoshka.split("+")))),
            hard_negatives=settings.hard_negatives,
        )

    def model_class(self) -> Any:
        """Return the class of sentence models."""
        from zhbert.sentences.model import SentenceModel

        return SentenceModel


def _texts_in(record: Record, column: Column, where: str) -> list[str]:
    """Return a column's text, or its texts if it contains a list."""
    _, value = cell(record, column, where)
    if not isinstance(value, list):
        return [text_in(record, column, where)]
    if not value or not all(isinstance(one, str) for one in value):
        raise ZhbertError(
            f"{where}: {show(column[0])} is {shortly(value)}: must be a text or a list of texts"
        )
    return value


def _negatives(record: Record, data: EmbedData, where: str, fitting: set[str]) -> tuple[str, ...]:
    """Return the texts of all negative columns that the row has; at least one if the card has."""
    there = [name for name in data.negative if name in record]
    if data.negative and not there:
        cell(record, data.negative, where)
    found = [text for name in there for text in _texts_in(record, (name,), where)]
    for text in found:
        if text in fitting:
            raise ZhbertError(f"{where}: {shortly(text)} is its own negative: remove it there")
    return tuple(found)


def _triples(rows: Sequence[EmbedExample], where: str, remark: Remark) -> list[EmbedExample]:
    """Return triples of rows with the same first text: each positive with one of the negatives."""
    sides: dict[str, tuple[list[EmbedExample], list[str]]] = {}
    for one in rows:
        positives, negatives = sides.setdefault(one.texts[0], ([], []))
        if one.value:
            positives.append(one)
        else:
            negatives.append(one.texts[1])
    triples: list[EmbedExample] = []
    left_out = 0
    for positives, negatives in sides.values():
        right = {one.texts[1] for one in positives}
        wrong = [text for text in dict.fromkeys(negatives) if text not in right]
        left_out += not (wrong and positives)
        triples += [
            dataclasses.replace(
                one, texts=(*one.texts, wrong[number % len(wrong)]), form="triples", value=None
            )
            for number, one in enumerate(positives if wrong else ())
        ]
    if not triples:
        raise ZhbertError(f"{where}: no first text in it has both a yes and a no: no triples")
    if left_out:
        name = Path(where).name
        remark(f"{name}: texts left out that have not both a yes and a no: {left_out:,}")
    return triples


def _questions(source: Source, card: str) -> Iterator[EmbedExample]:
    """Yield the questions of SQuAD's JSON with the paragraphs that they are about."""
    seen: set[str] = set()
    for question in questions(source, labelled=False):
        check_new(question.id, seen, question.where)
        yield EmbedExample(question.id, (question.text, question.context), "pairs", source=card)


def _holds_squad(card: TaskCard | None, source: Source) -> bool:
    """Return whether a file to predict for contains questions about paragraphs."""
    if is_parquet(source) or (card is not None and card.data.format != "squad"):
        return False
    record = first_record(source) or {}
    return bool({"data", "paragraphs", "qas", "context", "context_text"} & record.keys())


# Pairs in a plain table.
_PAIRS = EmbedData(format="tsv", dev=("-",), text=("text",), text_pair=("text_pair",))


def _of_pairs(card: TaskCard | None, source: Source) -> TaskCard:
    """Return a card by which the two texts of each row are read, without anything else."""
    data = None if card is None else card.data
    if data is None or data.form == "texts" or data.format == "squad":
        data = _PAIRS
    data = dataclasses.replace(data, negative=(), triples=False)
    form = SUFFIXES.get("." + source.name.rpartition(".")[2].lower())
    if form in DELIMITERS and not is_parquet(source):
        row = look_at_row(source, dataclasses.replace(data, format=form))
        named = {*data.text, *data.text_pair, "text", "text_pair"} & {*row}
        if len(row) == 2 and not named:
            data = EmbedData(format=form, dev=("-",), header=False, text=(0,), text_pair=(1,))
    if card is None:
        return TaskCard(title="pairs", kind=Embed.name, metrics=ALIKE, data=data)
    return dataclasses.replace(card, data=data)


def _cut(text: str, most: int = SHOWN_PASSAGE) -> str:
    return text if len(text) <= most else text[:most] + "…"


__all__ = ["Embed", "EmbedData"]
