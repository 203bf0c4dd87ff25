"""The shared base of kinds whose examples are a text or a pair of texts."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from zhbert.tasks.card import TaskCard
from zhbert.tasks.examples import Example, Remark, TextExample, Value
from zhbert.tasks.kinds.base import Kind, Line, Reading
from zhbert.tasks.plain_texts import texts_in, texts_of
from zhbert.tasks.prediction_rows import PredictionRow
from zhbert.tasks.predictions import PredictionFile
from zhbert.tasks.sources import Source, check_new
from zhbert.tasks.tables import (
    DELIMITERS,
    Record,
    TableData,
    columns_in_words,
    joined_in,
    records,
    text_in,
)
from zhbert.tasks.writers import PredictionWriter, handed_in, json_line, tables
from zhbert.wording import show

EMPTY_TEXTS = "rows with an empty text, read as they are"


class TextKind(Kind):
    """A kind whose examples are table rows: a text or a pair, with its gold value."""

    data_class: ClassVar[type[TableData]]
    formats: ClassVar[tuple[str, ...]] = ("tsv", "csv", "jsonl", "parquet")
    keys_in: ClassVar[Mapping[str, tuple[str, ...]]] = dict.fromkeys(
        ("header", "quoting", "skip_broken_rows"), tuple(DELIMITERS)
    )
    architecture = "BertForSequenceClassification"

    # -- examples ----------------------------------------------------------------------------------

    def read(self, file: Reading) -> Iterator[Example]:
        """Yield an example for each row of the split."""
        data: TableData = file.card.data
        for where, record, identity in self.rows(file):
            text = joined_in(record, data.text, where)
            text_pair = joined_in(record, data.text_pair, where) if data.text_pair else None
            texts = (text,) if text_pair is None else (text, text_pair)
            gold = self.kept_gold(file, record, texts, where)
            if gold is not None:
                yield TextExample(identity, text, text_pair, **gold)

    def kept_gold(
        self, file: Reading, record: Record, texts: Iterable[str], where: str
    ) -> dict[str, Any] | None:
        """Return a row's gold value, or None if it is left out for its label; count what is odd."""
        if not all(map(str.strip, texts)):
            file.counts[EMPTY_TEXTS] += 1
        data: TableData = file.card.data
        gold = self.gold(record, data, where, file.labelled)
        if file.labelled and gold.get("label") in data.drop_labels:
            file.counts[f"rows left out for their label {show(gold['label'])}"] += 1
            return None
        return gold

    def rows(self, file: Reading) -> Iterator[tuple[str, Record, str]]:
        """Yield each row of the split: its place for errors, its values, and its id."""
        data, split = file.card.data, file.split
        seen: set[str] = set()
        for number, (where, record) in enumerate(records(file.source, data, file.counts)):
            # Numbers count rows of other splits too, as predictions for the whole file do.
            if split is not None and str(record.get(data.split_column, split)) != split:
                continue
            identity = str(number)
            if data.id:
                identity = text_in(record, data.id, where)
                check_new(identity, seen, where)
            yield where, record, identity

    @abstractmethod
    def gold(self, record: Record, data: Any, where: str, labelled: bool) -> dict[str, Any]:
        """Return the fields of a TextExample with the gold value; empty if the row has none."""

    def read_inputs(
        self, card: TaskCard | None, labels: Sequence[str], source: Source, remark: Remark
    ) -> Iterator[Example]:
        """Yield texts from a table with the task's columns or text and text_pair, or from lines."""
        return texts_in(self, card, source, remark)

    def example_of(self, card: TaskCard | None, value: Any, identity: str, where: str) -> Example:
        """Return a text or a pair of texts."""
        own = None if card is None else card.data
        return TextExample(identity, *texts_of(own, value, where))

    # -- predictions -------------------------------------------------------------------------------

    def read_predictions(self, file: PredictionFile) -> dict[str, Value]:
        """Return a label or a number for each example, from any form in `prediction_rows`."""
        data: TableData = file.card.data
        rows = file.rows(self.scored_labels(data))
        drops = bool(data.drop_labels)
        values = [self.predicted(row, data, f"{file.path}:{row.line}") for row in rows]
        ids = file.ids_of(rows, drops=drops)
        found = dict(zip(ids, values, strict=True))
        if self.scored_labels(data) and any(isinstance(row.value, list) for row in rows):
            file.remark(
                f"{file.path.name}: {len(data.labels)} numbers for each example: the label "
                "with the largest is taken"
            )
        if drops and len(found) > len(file.examples):
            # Rows without a usable label may be predicted as well: their ids are known but not
            # scored.
            dropped = {one.id for one in file.every_example()} - {one.id for one in file.examples}
            found = {id_: value for id_, value in found.items() if id_ not in dropped}
        return found

    def scored_labels(self, data: Any) -> Sequence[str]:
        """Return the labels of which the most probable is predicted; empty for other kinds."""
        return ()

    @abstractmethod
    def predicted(self, row: PredictionRow, data: Any, where: str) -> Value:
        """Return the prediction in a row."""

    def writers(self, card: TaskCard | None, labels: Sequence[str]) -> dict[str, PredictionWriter]:
        """Return JSON lines and tables."""
        return {".jsonl": PredictionWriter(json_line), **tables()}

    def submissions(
        self, card: TaskCard | None, labels: Sequence[str]
    ) -> dict[str, PredictionWriter]:
        """Return GLUE's table and CLUE's lines."""
        return handed_in()

    # -- for people --------------------------------------------------------------------------------

    def facts(self, card: TaskCard) -> dict[str, str]:
        """Return the table's columns, and whether texts come in pairs."""
        data: TableData = card.data
        return {
            "kind": f"{card.kind}{', pairs of texts' if data.pairs else ''}, {card.language}",
            "format": data.format + ("" if data.header else ", without a header"),
            "columns": columns_in_words(data, "text", "text_pair", "label", "id"),
        }

    def texts_of(self, line: Line) -> tuple[str, ...]:
        """Return the text, or both texts, of a line of predictions.jsonl."""
        return tuple(str(line[key]) for key in ("text", "text_pair") if line.get(key) is not None)
