"""Tagging: one tag for each token of a sentence; tags mark the begin and end of entities."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np

from zhbert.errors import ZhbertError
from zhbert.files import read_text
from zhbert.tasks.card import Column, TaskCard
from zhbert.tasks.entity_spans import SpanReader, joint_of, tags_of, tokens_of
from zhbert.tasks.examples import Example, Prediction, Remark, TagExample, Value
from zhbert.tasks.kinds.base import (
    Kind,
    Learning,
    Line,
    Mistake,
    Reading,
    counts_in_words,
    imperfect_score,
)
from zhbert.tasks.kinds.labels import LabelData
from zhbert.tasks.metrics import (
    Metric,
    Scores,
    entity_counts,
    entity_report,
    of_pairs,
    resampled_entity_f1,
    resampled_tag_accuracy,
)
from zhbert.tasks.prediction_rows import predictions_source
from zhbert.tasks.predictions import PredictionFile
from zhbert.tasks.schemes import (
    Entity,
    SchemeError,
    TagScheme,
    entities,
    scheme_of,
    scheme_of_model,
    tags_of_types,
)
from zhbert.tasks.sources import (
    Source,
    StandardInput,
    check_new,
    head,
    holds_json,
    plain_lines,
)
from zhbert.tasks.tables import LOOKED_AT, columns_in_words
from zhbert.tasks.tagged import COLUMNS_APART, is_joined, sentence_lines, sentences, without_place
from zhbert.tasks.writers import PredictionWriter, cluener_line, json_line, tagged_lines
from zhbert.wording import counted, name, shortly, show

if TYPE_CHECKING:
    from zhbert.tasks.learners.base import Learner

# The number of lines of stdin that are examined for tags, smaller than LOOKED_AT because stdin may
# contain only a few sentences.
LOOKED_AT_STDIN = 3
# A token, which may be a space or an ideographic space, and its tag.
_TAGGED = re.compile(r"([^ \t]*[ \t]*)[ \t](O|[BI]|[BIMELSWU][-_][^ \t]+)", re.IGNORECASE)

NOT_FOUND = "—"
"""The confusion matrix's class for entities that were missed or that do not exist."""


@dataclass(frozen=True, kw_only=True)
class TagData(LabelData):
    """The keys of [data] for tags."""

    text: Column = ()
    """For bio: the index of the character's column, from 0."""
    label: Column = ()
    """For bio: the index of the tag's column, from 0."""
    scheme: str = ""
    """One of `zhbert.tasks.schemes.SCHEMES`; unset: derived from the labels."""
    drop_word_places: bool = False
    """Each character is followed by its index in its word (``科0``), which is dropped."""

    def completed(self, folder: Path, where: str) -> Self:
        """Return a copy with the tags of the entity types, if the card lists only types."""
        made = super().completed(folder, where)
        return dataclasses.replace(made, labels=tags_of_types(made.labels, self.scheme))

    def check(self, where: str) -> None:
        """Require columns that are numbers."""
        super().check(where)
        for key in ("text", "label"):
            for number in getattr(self, key):
                if not isinstance(number, int) or number < 0:
                    raise ZhbertError(
                        f"{where}: data.{key} = {show(number)}: must be a number, from 0"
                    )


_PLAIN = TaskCard(
    title="a sentence",
    kind="tag",
    metrics=("f1",),
    data=TagData(format="bio", dev=("-",), scheme="BIO", labels=("O", "B")),
)
"""The task of a model that another program fine-tuned."""


class Tag(Kind):
    """Tagging of tokens."""

    name = "tag"
    data_class: ClassVar[type[TagData]] = TagData
    formats = ("bio", "jsonl")
    keys_in: ClassVar[Mapping[str, tuple[str, ...]]] = {"text": ("bio",), "label": ("bio",)}
    metrics: ClassVar[Mapping[str, Metric]] = {
        "f1": lambda gold, predicted, labels: resampled_entity_f1(
            gold, predicted, scheme_of(labels) if labels else None
        ),
        "accuracy": of_pairs(resampled_tag_accuracy),
    }
    architecture = "BertForTokenClassification"
    class_name = "entity"

    def check(self, card: TaskCard) -> None:
        """Require labels of a single scheme."""
        try:
            scheme_of(card.data.labels, card.data.scheme)
        except SchemeError as error:
            raise ZhbertError(f"{_place_of(card, error.label)}: data: {error}") from None

    # -- examples ----------------------------------------------------------------------------------

    def read(self, file: Reading) -> Iterator[Example]:
        """Yield sentences from lines or from spans in JSON: see `zhbert.tasks.tagged`."""
        seen: set[str] = set()
        found = sentences(file.card, file.source, file.counts, labelled=file.labelled)
        for number, one in enumerate(found):
            if one.id is not None:
                check_new(one.id, seen, one.where)
            yield TagExample(one.id if one.id is not None else str(number), one.tokens, one.tags)

    def read_inputs(
        self, card: TaskCard | None, labels: Sequence[str], source: Source, remark: Remark
    ) -> Iterator[Example]:
        """Yield sentences from a file in the task's form, or with one sentence per line."""
        card = card or _PLAIN
        if (
            source.name.lower().endswith((".jsonl", ".json"))
            or holds_json(source)
            or is_joined(card, source)
            or _is_tagged(source, card.language, labels)
        ):
            yield from self.examples(card, source, labelled=False, remark=remark)
            return
        for number, line in plain_lines(source, remark):
            yield TagExample(str(number - 1), tuple(tokens_of(line, card.language)))

    def example_of(self, card: TaskCard | None, value: Any, identity: str, where: str) -> Example:
        """Return a sentence: a text, its tokens, or a mapping with either."""
        if isinstance(value, str):
            value = {"text": value}
        elif isinstance(value, list | tuple):
            value = {"tokens": [*value]}
        if not isinstance(value, Mapping):
            raise ZhbertError(f"{where} is {shortly(value)}: must be a text, or a list of tokens")
        card = card or _PLAIN
        reader = SpanReader(card.language, card.data.labels, Counter())
        record = reader.read(value, where, labelled=False)
        if record is None or not record.tokens:
            raise ZhbertError(f"{where}: an empty sentence")
        return TagExample(identity, record.tokens)

    # -- predictions -------------------------------------------------------------------------------

    def read_predictions(self, file: PredictionFile) -> dict[str, Value]:
        """Return a sequence of tags for each sentence, from tagged tokens or from JSON objects."""
        source = predictions_source(file.path, file.card.data.encoding)
        if holds_json(source) or file.path.suffix.lower() == ".jsonl":
            return _tags_of_objects(file)
        return _tags_of_lines(file, source)

    def writers(self, card: TaskCard | None, labels: Sequence[str]) -> dict[str, PredictionWriter]:
        """Return JSON lines, tagged tokens, and CLUENER's lines."""
        scheme, tagged = (
            scheme_of_model(tuple(labels)),
            PredictionWriter(tagged_lines, separator="\n"),
        )

        def cluener(example: Any, prediction: Prediction) -> str:
            return cluener_line(example, _entities(prediction.value, scheme))

        return {
            ".jsonl": PredictionWriter(json_line),
            ".txt": tagged,
            ".tsv": tagged,
            ".json": PredictionWriter(cluener),
        }

    def submissions(
        self, card: TaskCard | None, labels: Sequence[str]
    ) -> dict[str, PredictionWriter]:
        """Return CLUENER's lines if the examples are spans of texts, else tagged tokens."""
        suffix = ".json" if card is not None and card.data.format == "jsonl" else ".txt"
        return {suffix: self.writers(card, labels)[suffix]}

    # -- scores ------------------------------------------------------------------------------------

    def score(
        self,
        card: TaskCard,
        examples: Sequence[Any],
        predictions: Mapping[str, Any],
        null_odds: Mapping[str, float] | None = None,
    ) -> Scores:
        """Return the metrics, with precision and recall over all entities."""
        scores = super().score(card, examples, predictions)
        gold, predicted = self.paired(examples, predictions)
        counts = entity_counts(gold, predicted, scheme_of(card.data.labels))
        right, found, there = counts.sum(axis=0)
        further = {
            "precision": 100 * right / found if found else 0.0,
            "recall": 100 * right / there if there else 0.0,
        }
        return dataclasses.replace(scores, further=further)

    def each(
        self, card: TaskCard, examples: Sequence[TagExample], predictions: Sequence[Any]
    ) -> dict[str, list[float]]:
        """Return each sentence's F1 of entities; 1 if there are none and none was predicted."""
        gold = [example.tags or () for example in examples]
        counts = entity_counts(gold, predictions, scheme_of_model(card.data.labels))
        both = counts[:, 1] + counts[:, 2]
        f1 = np.where(both > 0, 2 * counts[:, 0] / np.maximum(both, 1), 1.0)
        return {"score": f1.tolist()}

    def report(
        self, gold: Sequence[Any], predicted: Sequence[Any], labels: Sequence[str]
    ) -> dict[str, Any]:
        """Return scores of each type of entity."""
        return entity_report(gold, predicted, labels)

    # -- for people --------------------------------------------------------------------------------

    def describe(self, card: TaskCard, example: TagExample) -> str:
        """Return the entities of the sentence."""
        found = _entities(example.tags, scheme_of_model(card.data.labels))
        return "entities " + (_in_words(example.tokens, found) or "none")

    def describe_all(self, card: TaskCard, examples: Sequence[TagExample]) -> str:
        """Return the count of each type of entity."""
        scheme = scheme_of(card.data.labels)
        rows = (scheme.entities(one.tags or ()) for one in examples)
        return "entities: " + counts_in_words(Counter(kind for row in rows for kind, *_ in row))

    def facts(self, card: TaskCard) -> dict[str, str]:
        """Return the scheme and the labels."""
        data: TagData = card.data
        return {
            "columns": columns_in_words(data, "text", "label"),
            "scheme": scheme_of(data.labels).name,
            "labels": data.labels_in_words,
        }

    def confused(self, line: Line, labels: Sequence[str]) -> list[tuple[str, str]]:
        """Return pairs of gold and predicted entity type.

        Two entities are a pair if begin and end are the same; any other is missed or spurious.
        """
        there, found = (
            {(start, end): kind for kind, start, end in side} for side in _sides(line, labels)
        )
        pairs = [(kind, found.get(ends, NOT_FOUND)) for ends, kind in there.items()]
        return pairs + [(NOT_FOUND, kind) for ends, kind in found.items() if ends not in there]

    def classes(self, labels: Sequence[str], seen: Collection[str]) -> list[str]:
        """Return the types of entities, followed by `NOT_FOUND`."""
        return [*sorted(set(seen) - {NOT_FOUND}), NOT_FOUND]

    def mistake(
        self, line: Line, labels: Sequence[str], names: Mapping[str, str]
    ) -> Mistake | None:
        """Return a mistake, ranked by its F1 (lowest first), then by its number of entities."""
        if (score := imperfect_score(line)) is None:
            return None
        tokens = line.get("tokens")
        tokens = [str(token) for token in tokens] if isinstance(tokens, list) else []
        sides = _sides(line, labels)
        right, predicted = (_in_words(tokens, side) for side in sides)
        badness = 1 - score, float(sum(map(len, sides)))
        text = joint_of(tokens).join(tokens)
        return Mistake(badness, (text,), right, predicted, f"F1 {100 * score:.0f} %")

    # -- learning ----------------------------------------------------------------------------------

    def learner(self, of: Learning) -> Learner:
        """Return a learner that minimises the cross entropy over the tags of each token."""
        from zhbert.tasks.learners.tag import TagLearner

        return TagLearner(of.tokenizer, of.labels, of.settings.sequence_length)


def _entities(tags: Any, scheme: TagScheme | None) -> list[Entity]:
    return scheme.entities(list(tags or ())) if scheme else []


def _in_words(tokens: Sequence[str], found: Sequence[Entity]) -> str:
    joint = joint_of(tokens)
    return ", ".join(f"{joint.join(tokens[start:end])} {kind}" for kind, start, end in found)


def _sides(line: Line, labels: Sequence[str]) -> list[list[Entity]]:
    """Return the gold and the predicted entities of a line of predictions.jsonl."""
    scheme = scheme_of_model(tuple(labels)) if labels else None
    sides = []
    for key in ("gold", "predicted"):
        tags = line.get(key)
        try:
            sides.append(entities(tags if isinstance(tags, list) else (), scheme))
        except (ZhbertError, TypeError, KeyError):
            # There are no tags, or they belong to another card than the run's.
            sides.append([])
    return sides


def _place_of(card: TaskCard, value: str) -> str:
    """Return the file and line that contain a label of the card, as far as they are found."""
    path, written = card.path, [show(value), f"'{value}'"]
    if card.data.labels_file:
        path, written = path.parent / card.data.labels_file, [value]
    if path.is_file():
        for number, line in enumerate(read_text(path).split("\n"), start=1):
            if any(one in line for one in written):
                return f"{path.name}:{number}"
    return path.name


def _is_tagged(source: Source, language: str, labels: Sequence[str]) -> bool:
    """Return whether every examined line is a token and its tag.

    In stdin and in equally short files, "血型 O" may be a sentence. So Chinese tokens must be
    single characters there, and tags must be the model's own ``labels``.
    """
    most = LOOKED_AT_STDIN if isinstance(source, StandardInput) else LOOKED_AT
    found = [_TAGGED.fullmatch(line.rstrip(" \t")) for line in head(source, most)]
    matches = [match for match in found if match]
    if len(matches) < max(2, len(found)):
        return False
    if len(matches) > LOOKED_AT_STDIN:
        return True
    tokens = [match[1].strip(" \t") for match in matches]
    short = language != "zh" or all(
        len(token) <= 1 or token.isascii() or token[1:].isdigit() for token in tokens
    )
    return short and all(match[2] in labels for match in matches)


# -- files of predicted tags -----------------------------------------------------------------------


def _tags_of_lines(file: PredictionFile, source: Source) -> dict[str, Value]:
    """Return the tags in lines of token and tag; the gold tag may be between them."""
    rows_of = list(sentence_lines(source, Counter()))
    found: dict[str, Value] = {}
    for lines, example in zip(rows_of, file.examples, strict=False):
        rows = [_token_and_tag(file, number, line) for number, line in lines]
        for (number, _), (token, _), true in zip(lines, rows, example.tokens, strict=False):
            if token != true:
                raise ZhbertError(
                    f"{file.path}:{number}: {shortly(token)} where {file.gold} has {shortly(true)}"
                )
        if len(rows) != len(example.tokens):
            raise ZhbertError(
                f"{file.path}:{lines[-1][0]}: a sentence of {counted(len(rows), 'token')}, in "
                f"{file.gold} it has {len(example.tokens)}"
            )
        found[example.id] = [tag for _, tag in rows]
    if len(rows_of) != len(file.examples):
        raise ZhbertError(
            f"{file.path}: {counted(len(rows_of), 'sentence')}, but {file.gold} has "
            f"{len(file.examples):,}"
        )
    return found


def _token_and_tag(file: PredictionFile, number: int, line: str) -> tuple[str, str]:
    """Return a token and its predicted tag, which is the last column of the line."""
    fields = COLUMNS_APART.split(line.rstrip(" \t"))
    # A line that begins with a space: the space is the token.
    token, tags = fields[0] or " ", fields[1:]
    if not 1 <= len(tags) <= 2:
        raise ZhbertError(
            f"{file.path}:{number}: write a token and its tag a line, or the right tag between them"
        )
    _check_tag(file, tags[-1], f"{file.path}:{number}")
    return without_place(token, file.card), tags[-1]


def _check_tag(file: PredictionFile, tag: Any, where: str) -> None:
    data: TagData = file.card.data
    if tag not in data.labels:
        raise ZhbertError(f"{where}: {data.not_a_label(tag, 'tag')}")


def _tags_of_objects(file: PredictionFile) -> dict[str, Value]:
    """Return the tags in JSON objects, one per sentence, with tags or with CLUENER's spans."""
    found: dict[str, Value] = {}
    by_id: dict[str, TagExample] = {one.id: one for one in file.examples}
    rows = file.rows()
    for id_, row in zip(file.ids_of(rows), rows, strict=True):
        where = f"{file.path}: the sentence '{name(id_)}'"
        tags, example = row.value, by_id.get(id_)
        if isinstance(tags, Mapping):
            tags = [] if example is None else _tags_of_spans(file, tags, example, where)
        if not isinstance(tags, list):
            raise ZhbertError(f"{where}: {shortly(tags)}: must be a list of tags")
        for tag in tags:
            _check_tag(file, tag, where)
        if example is not None and len(tags) != len(example.tokens):
            raise ZhbertError(
                f"{where}: {counted(len(tags), 'tag')}, in {file.gold} it has "
                f"{counted(len(example.tokens), 'token')}"
            )
        found[id_] = tags
    return found


def _tags_of_spans(file: PredictionFile, label: Any, example: TagExample, where: str) -> list[str]:
    """Return the tags for CLUENER's {type: {entity: [[first, last]]}} in the example's text."""
    card = file.card
    joint = "" if card.language == "zh" else " "
    counts: Counter[str] = Counter()
    reader = SpanReader(card.language, card.data.labels, counts)
    record = reader.read({"text": joint.join(example.tokens), "label": label}, where)
    assert record is not None
    for what, count in counts.items():
        file.remark(f"{file.path.name}: the sentence '{name(example.id)}': {what}: {count:,}")
    return list(tags_of(record, scheme_of(card.data.labels), where) or ())
