"""One file of predictions, and how its rows belong to the examples that they are for."""

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
    """What is scored, with its labels."""
    gold: Path
    """The file of the examples."""
    every_example: Callable[[], Sequence[Example]]
    """Reads all rows of ``gold``, those too whose label the card leaves out."""
    remark: Remark

    def rows(self, probabilities: Sequence[str] = ()) -> list[PredictionRow]:
        """The rows, as `prediction_rows` reads them."""
        data = self.card.data
        return prediction_rows(self.path, data, probabilities=probabilities)

    def ids_of(self, rows: Sequence[PredictionRow], *, drops: bool = False) -> list[str]:
        """The ids of the rows, or those of the examples, in whose order the rows then are.

        Rows without ids of examples are taken in the order of ``gold``, with a remark.

        ``drops``: the card leaves rows of ``gold`` out, which may be predicted all the same.
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
    """SQuAD 2.0's second file: a number for each question, the higher the surer of no answer.

    JSON by id or JSON lines with the ``null_odds`` that a run and ``zhbert predict`` write.
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
