"""Labels: their keys in a card, and the code that kinds with labels share."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from zhbert.errors import ZhbertError
from zhbert.files import read_text
from zhbert.schema import check_choice
from zhbert.tasks.card import Data, TaskCard, finite_number
from zhbert.tasks.kinds.texts import TextKind
from zhbert.tasks.metrics import class_report
from zhbert.tasks.tables import TableData
from zhbert.wording import listed, nearest, shortly, show


@dataclass(frozen=True, kw_only=True)
class LabelData(Data):
    """The keys of [data] for labels."""

    labels: tuple[str, ...] = ()
    """The labels in the order of their ids; for tagging, the tags or only the types of entities."""
    labels_file: str = ""
    """A file beside the card with one label per line, instead of ``labels``."""
    label_names: tuple[str, ...] = ()
    """The names of the labels in output for people, in the same order; unset: the labels."""

    def completed(self, folder: Path, where: str) -> Self:
        """Return a copy that contains the labels of ``labels_file``."""
        if not self.labels_file:
            return self
        if self.labels:
            raise ZhbertError(f"{where}: data.labels and data.labels_file: remove one of them")
        try:
            lines = read_text(folder / self.labels_file, "a label a line").split("\n")
        except ZhbertError as error:
            raise ZhbertError(f"{where}: data.labels_file: {error}") from None
        labels = tuple(line.strip() for line in lines if line.strip())
        return dataclasses.replace(self, labels=labels)

    @property
    def spellings(self) -> Mapping[str, str]:
        """Each label, by all its spellings in files of examples."""
        return {label: label for label in self.labels}

    def could_be(self, text: str) -> bool:
        """Return whether a text is a label, in any of its spellings."""
        text = text.strip()
        return text in self.spellings or text in self.label_names

    def not_a_label(self, text: Any, what: str = "label") -> str:
        """Return an error message for a label that the card does not have."""
        if text == "":
            return f"the {what} is empty; the card's labels: {listed(self.labels)}"
        hint = nearest(text, self.labels, "the card's labels")
        return f"the {what} {shortly(text)} is not in the card{hint}"

    @property
    def shown_labels(self) -> dict[str, str]:
        """The name of each label for people, from ``label_names`` or the label itself."""
        names = self.label_names or self.labels
        pairs = zip(self.labels, names, strict=True)
        return {label: label if name == label else f"{label} {name}" for label, name in pairs}

    @property
    def labels_in_words(self) -> str:
        """The labels in one line: ``0 = different, 1 = same``."""
        pairs = zip(self.labels, self.label_names or self.labels, strict=True)
        return ", ".join(label if label == name else f"{label} = {name}" for label, name in pairs)

    @property
    def written_labels(self) -> dict[str, tuple[str, ...]]:
        """The labels that the card contains, by their keys."""
        return {"labels": self.labels}

    def check(self, where: str) -> None:
        """Require two or more different labels, each of which fits in one line."""
        super().check(where)
        labels = self.labels
        if len(labels) < 2:
            raise ZhbertError(
                f"{where}: data.labels = {show(labels)}: name two or more, in the order of their "
                "ids, or name a labels_file"
            )
        for key, values in self.written_labels.items():
            for label in values:
                # Labels in files are read without surrounding space.
                if label != label.strip() or re.search(r"[\t\r\n]", label):
                    raise ZhbertError(
                        f"{where}: data.{key}: {show(label)}: no tab or line end in a label, and "
                        "no space around it"
                    )
        if twice := next((one for n, one in enumerate(labels) if one in labels[:n]), None):
            raise ZhbertError(f"{where}: data.labels: {show(twice)} stands there twice")
        if self.label_names and len(self.label_names) != len(labels):
            raise ZhbertError(
                f"{where}: data.label_names: {len(self.label_names)} names for {len(labels)} labels"
            )


@dataclass(frozen=True, kw_only=True)
class TextLabelData(LabelData, TableData):
    """The keys of [data] for labels of texts in a table."""

    rename_labels: dict[str, str] = field(default_factory=dict)
    """Other spellings of a label in the files."""

    @property
    def spellings(self) -> Mapping[str, str]:
        """Each label, by all its spellings in files of examples."""
        return {**self.rename_labels, **super().spellings}

    @property
    def written_labels(self) -> dict[str, tuple[str, ...]]:
        """The labels that the card contains, by their keys."""
        return {**super().written_labels, "rename_labels": tuple(self.rename_labels)}

    def known_label(self, text: str) -> str | None:
        """Return the label with this spelling, renaming or numeric value; else None.

        >>> data = TextLabelData(format="tsv", labels=("0", "1"), rename_labels={"yes": "1"})
        >>> [data.known_label(text) for text in ("1", "1.0", "yes", "2")]
        ['1', '1', '1', None]
        """
        if text in self.labels:
            return text
        spelled = self.spellings
        if text in spelled or (number := finite_number(text)) is None:
            return spelled.get(text)
        return next((spelled[one] for one in spelled if finite_number(one) == number), None)

    def renamed_to(self, label: str) -> tuple[str, ...]:
        """Return the other spellings of a label."""
        return tuple(other for other, meant in self.rename_labels.items() if meant == label)

    def could_be(self, text: str) -> bool:
        """Return whether a text is a label, in any of its spellings."""
        return super().could_be(text) or self.known_label(text.strip()) is not None

    def predicted_label(self, text: str, where: str) -> str:
        """Return the label that a prediction names, which may be its name for people.

        Raises ZhbertError, which begins with ``where``, if there is no such label.
        """
        if (label := self.known_label(text)) is not None:
            return label
        if text in self.label_names:
            return self.labels[self.label_names.index(text)]
        raise ZhbertError(f"{where}: {self.not_a_label(text)}")

    def check(self, where: str) -> None:
        """Require that every renamed label is one of the labels."""
        super().check(where)
        for other, label in self.rename_labels.items():
            check_choice(label, self.labels, f"{where}: data.rename_labels.{other}")


class LabelKind(TextKind):
    """A kind of task whose texts have labels."""

    def report(
        self, gold: Sequence[Any], predicted: Sequence[Any], labels: Sequence[str]
    ) -> dict[str, Any]:
        """Return scores of each label; for single labels, also the confusion matrix."""
        return class_report(gold, predicted, labels)

    def facts(self, card: TaskCard) -> dict[str, str]:
        """Return columns and labels."""
        return {**super().facts(card), "labels": card.data.labels_in_words}

    @staticmethod
    def named(labels: Any, names: Mapping[str, str]) -> str:
        """Return a label, or several, by the names for people."""
        several = labels if isinstance(labels, list) else [labels]
        return ", ".join(names.get(str(label), str(label)) for label in several)
