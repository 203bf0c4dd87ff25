"""A file of predictions, and the assignment of its rows to examples."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zhbert.errors import ZhbertError
from zhbert.tasks.card import TaskCard
from zhbert.tasks.examples import Example, Remark
from zhbert.tasks.prediction_rows import PredictionRow, prediction_rows
from zhbert.wording import counted, name, shortly


@dataclass(frozen=True)
class PredictionFile:
    """A file of predictions for the examples of another file."""

    card: TaskCard
    path: Path
    examples: Sequence[Any]
    """The examples to be scored, with their labels."""
    gold: Path
    """The file of the examples."""
    every_example: Callable[[], Sequence[Example]]
    """Reads all rows of ``gold``, including those with labels that the card drops."""
    remark: Remark

    def rows(self, probabilities: Sequence[str] = ()) -> list[PredictionRow]:
        """Return the rows, as `prediction_rows` reads them."""
        data = self.card.data
        return prediction_rows(self.path, data, probabilities=probabilities)

    def ids_of(self, rows: Sequence[PredictionRow], *, drops: bool = False) -> list[str]:
        """Return the rows' ids; if they are not the examples' ids, those of the examples, in order.

        In the second case there is a remark. If ``drops``, the card leaves rows of ``gold`` out,
        for which there may be predictions.
        """
        ids = [row.id for row in rows if row.id is not None]
        own = {example.id for example in self.examples}
        if ids and own & set(ids):
            return ids
        examples = self.examples
        if len(rows) != len(examples) and drops:
            examples = self.every_example()
        if ids:
            numbers = [str(number) for number in range(len(ids) + 1)]
            if len(ids) != len(examples) or ids not in (numbers[:-1], numbers[1:]):
                return ids
            why = f"no id is in {self.gold.name}, and they count its rows: taken in its order"
        else:
            why = f"no ids found in it: its rows are taken in the order of {self.gold.name}"
        if len(rows) != len(examples):
            raise ZhbertError(
                f"{self.path}: {counted(len(rows), 'prediction')}, but {self.gold} has "
                f"{counted(len(examples), 'example')}"
            )
        self.remark(f"{self.path.name}: {why}")
        return [example.id for example in examples]


def read_null_odds(path: Path, card: TaskCard) -> dict[str, float]:
    """Return SQuAD 2.0's second file: a number per question, higher if no answer is likelier.

    It is JSON by id, or JSON lines with ``null_odds``, as a run and ``zhbert predict`` write them.
    """
    found: dict[str, float] = {}
    for row in prediction_rows(path, card.data, ("null_odds",)):
        if row.id is None:
            raise ZhbertError(f'{path}: must be {{"id": number, ...}}, not a list')
        odds = row.value
        if isinstance(odds, bool) or not isinstance(odds, int | float) or not math.isfinite(odds):
            raise ZhbertError(
                f"{path}: question '{name(row.id)}': {shortly(odds)}: must be a finite number"
            )
        found[row.id] = odds
    return found
