"""Files of predictions, as each benchmark wants them handed in: ids and what was predicted."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from zhbert.errors import ZhbertError
from zhbert.tasks.cards import TaskCard, finite_number
from zhbert.tasks.entity_spans import SpanReader, tags_of
from zhbert.tasks.prediction_rows import PredictionRow, prediction_rows, predictions_source
from zhbert.tasks.read import Example, Remark, TagExample, read_examples
from zhbert.tasks.schemes import scheme_of
from zhbert.tasks.scoring import Prediction
from zhbert.tasks.sources import holds_json
from zhbert.tasks.tagged import COLUMNS_APART, sentence_lines, without_place
from zhbert.wording import counted, name, shortly


def read_predictions(
    card: TaskCard,
    path: Path,
    examples: Sequence[Example],
    gold: Path,
    split: str,
    remark: Remark = lambda line: None,
) -> dict[str, Prediction]:
    """Predictions by their examples' ids; ``gold`` is the file of the ``examples``.

    Raises ZhbertError with file and line where it is not such a file, or none for this task.
    """
    reader = _Reader(card, path, examples, gold, split, remark)
    found = {
        "classify": reader.labels, "multi_label": reader.labels, "regress": reader.labels,
        "tag": reader.tags, "span": reader.answers,
    }[card.kind]()  # fmt: skip
    if not found.keys() & {example.id for example in examples}:
        of = "its only id is not" if len(found) == 1 else f"none of its {len(found):,} ids is"
        raise ZhbertError(f"{path}: {of} in {gold}; is it for another file?")
    return found


def read_null_odds(path: Path, card: TaskCard) -> dict[str, float]:
    """SQuAD 2.0's second file: a number for each question, the higher the surer of no answer.

    JSON by id or JSON lines with the ``null_odds`` that a run and ``zhbert predict`` write.
    """
    found: dict[str, float] = {}
    for row in prediction_rows(path, card, ("null_odds",)):
        if row.id is None:
            raise ZhbertError(f'{path}: must be {{"id": number, ...}}, not a list')
        odds = row.value
        if isinstance(odds, bool) or not isinstance(odds, int | float) or not math.isfinite(odds):
            raise ZhbertError(
                f"{path}: question '{name(row.id)}': {shortly(odds)}: must be a finite number"
            )
        found[row.id] = odds
    return found


@dataclass(frozen=True)
class _Reader:
    """What all kinds of predictions are read with."""

    card: TaskCard
    path: Path
    examples: Sequence[Example]
    gold: Path
    split: str
    remark: Remark

    # -- questions -------------------------------------------------------------------------------

    def answers(self) -> dict[str, Prediction]:
        """An answer for each question."""
        rows = prediction_rows(self.path, self.card)
        if rows[0].id is None:
            raise ZhbertError(
                f'{self.path}: must be {{"id": "answer", ...}}, or a list of objects with id and '
                "answer"
            )
        return {str(row.id): self._answer(row) for row in rows}

    def _answer(self, row: PredictionRow) -> str:
        answer = row.value
        if isinstance(answer, str):
            return answer
        if isinstance(answer, list) and all(isinstance(part, str) for part in answer):
            return "".join(answer)  # CJRC's scorer takes an answer in parts
        if isinstance(answer, int | float) and not isinstance(answer, bool):
            return str(answer)
        raise ZhbertError(
            f"{self.path}: question '{name(str(row.id))}': {shortly(answer)}: an answer must be a "
            "text, '' where there is none"
        )

    # -- labels and numbers ----------------------------------------------------------------------

    def labels(self) -> dict[str, Prediction]:
        """A label, or a number, for each example."""
        card = self.card
        rows = prediction_rows(self.path, card)
        found = {id_: self._label(row) for id_, row in zip(self._ids_of(rows), rows, strict=True)}
        if any(isinstance(row.value, list) for row in rows) and card.kind == "classify":
            self.remark(
                f"{self.path.name}: {len(card.data.labels)} numbers for each example: the label "
                "with the largest is taken"
            )
        if card.data.drop_labels and len(found) > len(self.examples):
            # Rows of GOLD without a usable label are predicted, too: known, but not scored.
            every = read_examples(card, self.gold, self.split, labelled=False)
            dropped = {one.id for one in every} - {example.id for example in self.examples}
            found = {id_: value for id_, value in found.items() if id_ not in dropped}
        return found

    def _ids_of(self, rows: Sequence[PredictionRow]) -> list[str]:
        """The ids of the rows, or those of the examples, in whose order the rows then are."""
        ids = [row.id for row in rows if row.id is not None]
        own = {example.id for example in self.examples}
        if ids and own & set(ids):
            return ids
        examples = self.examples
        if len(rows) != len(examples) and self.card.data.drop_labels:
            examples = read_examples(self.card, self.gold, self.split, labelled=False)
        if ids:
            numbers = [str(number) for number in range(len(ids) + 1)]
            if len(ids) != len(examples) or ids not in (numbers[:-1], numbers[1:]):
                return ids
            self.remark(
                f"{self.path.name}: no id is in {self.gold.name}, and they count its rows: taken "
                "in its order"
            )
        if len(rows) != len(examples):
            raise ZhbertError(
                f"{self.path}: {counted(len(rows), 'prediction')}, but {self.gold} has "
                f"{counted(len(examples), 'example')}"
            )
        return [example.id for example in examples]

    def _label(self, row: PredictionRow) -> Prediction:
        """A label by the card's spelling, or a number."""
        where, data = f"{self.path}:{row.line}", self.card.data
        if _are_numbers(row.value) and self.card.kind == "classify":
            if len(row.value) != len(data.labels):
                raise ZhbertError(
                    f"{where}: {len(row.value)} numbers, but the card has {len(data.labels)} labels"
                )
            return data.labels[max(range(len(data.labels)), key=row.value.__getitem__)]
        text = (row.value if isinstance(row.value, str) else json.dumps(row.value)).strip()
        if self.card.kind == "regress":
            number = finite_number(text)
            if number is None:
                raise ZhbertError(f"{where}: {shortly(text)}: must be a number")
            return number
        if self.card.kind == "multi_label":
            parts = row.value if isinstance(row.value, list) else text.split(data.label_delimiter)
            spelled = [str(part).strip() for part in parts]
            found = {self._known_label(part, where) for part in spelled if part}
            return tuple(label for label in data.labels if label in found)
        return self._known_label(text, where)

    def _known_label(self, text: str, where: str) -> str:
        data = self.card.data
        if (label := data.known_label(text)) is not None:
            return label
        if text in data.label_names:
            return data.labels[data.label_names.index(text)]
        raise ZhbertError(f"{where}: {data.not_a_label(text)}")

    # -- tags ------------------------------------------------------------------------------------

    def tags(self) -> dict[str, Prediction]:
        """A row of tags for each sentence."""
        source = predictions_source(self.path, self.card.data.encoding)
        if holds_json(source) or self.path.suffix.lower() == ".jsonl":
            return self._tags_of_objects()
        sentences = list(sentence_lines(source, Counter()))
        found: dict[str, Prediction] = {}
        examples = cast("Sequence[TagExample]", self.examples)
        for lines, example in zip(sentences, examples, strict=False):
            rows = [(number, *self._token_and_tag(number, line)) for number, line in lines]
            self._compare(rows, example)
            found[example.id] = [tag for _, _, tag in rows]
        if len(sentences) != len(examples):
            raise ZhbertError(
                f"{self.path}: {counted(len(sentences), 'sentence')}, but {self.gold} has "
                f"{len(examples):,}"
            )
        return found

    def _compare(self, rows: Sequence[tuple[int, str, str]], example: TagExample) -> None:
        for (number, token, _), true in zip(rows, example.tokens, strict=False):
            if token != true:
                raise ZhbertError(
                    f"{self.path}:{number}: {shortly(token)} where {self.gold} has {shortly(true)}"
                )
        if len(rows) != len(example.tokens):
            raise ZhbertError(
                f"{self.path}:{rows[-1][0]}: a sentence of {counted(len(rows), 'token')}, in "
                f"{self.gold} it has {len(example.tokens)}"
            )

    def _token_and_tag(self, number: int, line: str) -> tuple[str, str]:
        """A token and its predicted tag, the last; the right one may stand between them."""
        where = f"{self.path}:{number}"
        fields = COLUMNS_APART.split(line.rstrip(" \t"))
        # Space at the beginning: it is itself the token.
        token, tags = fields[0] or " ", fields[1:]
        if not 1 <= len(tags) <= 2:
            raise ZhbertError(
                f"{where}: write a token and its tag a line, or the right tag between them"
            )
        if tags[-1] not in self.card.data.labels:
            raise ZhbertError(f"{where}: {self.card.data.not_a_label(tags[-1], 'tag')}")
        return without_place(token, self.card), tags[-1]

    def _tags_of_objects(self) -> dict[str, Prediction]:
        found: dict[str, Prediction] = {}
        sentences = {one.id: cast(TagExample, one) for one in self.examples}
        rows = prediction_rows(self.path, self.card)
        for id_, row in zip(self._ids_of(rows), rows, strict=True):
            where = f"{self.path}: the sentence '{name(id_)}'"
            tags, example = row.value, sentences.get(id_)
            if isinstance(tags, Mapping) and example is not None:
                tags = self._tags_of_spans(tags, example, where)
            if example is None and isinstance(tags, Mapping):
                tags = []
            if not isinstance(tags, list):
                raise ZhbertError(f"{where}: {shortly(tags)}: must be a list of tags")
            for tag in tags:
                if tag not in self.card.data.labels:
                    raise ZhbertError(f"{where}: {self.card.data.not_a_label(tag, 'tag')}")
            if example is not None and len(tags) != len(example.tokens):
                raise ZhbertError(
                    f"{where}: {counted(len(tags), 'tag')}, in {self.gold} it has "
                    f"{counted(len(example.tokens), 'token')}"
                )
            found[id_] = tags
        return found

    def _tags_of_spans(self, label: Any, example: TagExample, where: str) -> list[str]:
        """CLUENER's form: {type: {entity: [[first, last]]}} of the example's own text."""
        joint = "" if self.card.language == "zh" else " "
        counts: Counter[str] = Counter()
        reader = SpanReader(self.card.language, self.card.data.labels, counts)
        record = reader.read({"text": joint.join(example.tokens), "label": label}, where)
        assert record is not None
        for what, count in counts.items():
            self.remark(f"{self.path.name}: the sentence '{name(example.id)}': {what}: {count:,}")
        return list(tags_of(record, scheme_of(self.card.data.labels), where) or ())


def _are_numbers(values: Any) -> bool:
    return (
        isinstance(values, list)
        and bool(values)
        and all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
    )
