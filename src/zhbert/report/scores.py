"""Tables of scores: models in rows, metrics in columns, with published and relative scores.

A column is a metric on a split of a task. Two scores, of runs or published, are compared only if
both are on the same examples.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from zhbert.errors import ZhbertError
from zhbert.report.runs import FineTuningRun
from zhbert.schema import suggest
from zhbert.tasks.card import Published
from zhbert.tasks.kinds import KINDS
from zhbert.zoo.catalogue import find_card

RELATIVE_TO = "RoBERTa-wwm-ext"
"""The model that small ones are compared with at https://github.com/ymcui/Chinese-BERT-wwm."""


@dataclass(frozen=True)
class Column:
    """A column of the table: a metric on a split of a task."""

    task: str
    metric: str
    split: str
    kind: str

    @property
    def key(self) -> str:
        """The key in summary.json: the metric, followed by the name of a further split.

        >>> Column("mnli", "accuracy", "dev_mismatched", "classify").key
        'accuracy_mismatched'
        """
        if self.split == "dev":
            return self.metric
        return f"{self.metric}_{self.split.removeprefix('dev_')}"


@dataclass(frozen=True)
class Score:
    """The content of a cell, in per cent."""

    max: float
    mean: float | None
    std: float | None = None
    seeds: int | None = None
    """The number of seeds; None for published scores."""
    elsewhere: bool = False
    """True if scored on other examples than the rest of the column, so not comparable."""
    note: str = ""


@dataclass(frozen=True)
class ModelRow:
    """A row of the table: a model."""

    model: str
    source: str
    """The publisher; empty for the models of runs."""
    scores: Mapping[Column, Score]
    runs: tuple[FineTuningRun, ...] = ()

    @property
    def name(self) -> str:
        """The model's name and its publisher."""
        return f"{self.model} ({self.source})" if self.source else self.model


@dataclass(frozen=True)
class ScoreTable:
    """A table of the models of the runs, then published ones."""

    columns: tuple[Column, ...]
    rows: tuple[ModelRow, ...]
    notes: tuple[str, ...]
    """The reasons why scores cannot be compared."""
    about: tuple[str, ...]
    """The cards' notes on their tasks, and the teachers of models."""

    @property
    def ours(self) -> tuple[ModelRow, ...]:
        """The rows of the models of runs."""
        return tuple(row for row in self.rows if not row.source)

    def find(self, model: str) -> ModelRow:
        """Return the row of a model, preferably a run's; raise ZhbertError if there is none."""
        for row in self.rows:
            # Its name in the table, or on the command line that trained it.
            alone = (run.given_as for run in row.runs if not run.manner)
            if model in (row.model, row.name, *alone):
                return row
        for row in self.rows:
            if model.lower() in (row.model.lower(), row.name.lower()):
                return row
        if not self.rows:
            raise ZhbertError(f"--base {model}: no fine-tuned model here to compare with")
        names = [row.model for row in self.rows]
        raise ZhbertError(f"--base {model}: no such model here{suggest(model, names)}")


def score_table(runs: Iterable[FineTuningRun], first: str | None = None) -> ScoreTable:
    """Return the table of finished runs.

    If the runs of a task were scored on different examples, those of the model ``first`` (default:
    the model of the task's first run) are the reference, and runs with other examples are marked.
    """
    finished = [run for run in runs if run.finished]
    by_task: dict[str, list[FineTuningRun]] = {}
    for run in finished:
        by_task.setdefault(run.task, []).append(run)
    columns: list[Column] = []
    notes: list[str] = []
    about: list[str] = []
    ours: dict[str, dict[Column, Score]] = {run.model: {} for run in finished}
    published: dict[tuple[str, str], dict[Column, Score]] = {}
    for task, of_task in by_task.items():
        leader = next((run for run in of_task if run.model == first), of_task[0])
        own = _columns(leader, of_task)
        columns += own
        for run in of_task:
            elsewhere = run.dev_sha256 != leader.dev_sha256
            ours[run.model] |= _scores(run, own, elsewhere)
            if elsewhere:
                notes.append(
                    f"{task}: {run.model} was scored on other examples than {leader.model}: "
                    "marked †, not compared"
                )
        beside = list(_published_beside(leader, own))
        for column, one in beside:
            scores = published.setdefault((one.source, one.model), {})
            scores[column] = Score(one.max, one.mean, note=one.note)
        notes += _notes(leader, bool(beside))
        if leader.card and leader.card.note:
            about.append(f"{task}: {leader.card.note}")
    about += dict.fromkeys(
        f"{run.model}: pretrained by distillation from {', '.join(run.pretrained_with)}"
        for run in finished
        if run.pretrained_with
    )
    rows = [
        ModelRow(model, "", scores, tuple(run for run in finished if run.model == model))
        for model, scores in ours.items()
    ]
    rows += [ModelRow(model, source, scores) for (source, model), scores in published.items()]
    return ScoreTable(tuple(columns), tuple(rows), tuple(notes), tuple(about))


def _scores(run: FineTuningRun, columns: Iterable[Column], elsewhere: bool) -> dict[Column, Score]:
    return {
        column: Score(spread.max, spread.mean, spread.std, len(spread.values), elsewhere)
        for column in columns
        if (spread := run.scores.get(column.key)) is not None
    }


def _columns(leader: FineTuningRun, runs: Sequence[FineTuningRun]) -> list[Column]:
    data = leader.card.data if leader.card else None
    further = data.scored_with_dev if data else ()
    possible = [
        Column(leader.task, metric, split, leader.kind)
        for split in (leader.split, *further)
        for metric in leader.metrics
    ]
    for name in data.scored_on if data else ():
        # Other cards have metrics of their own; the first one stands for them.
        split = Path(name).stem
        own = (Column(leader.task, one, split, leader.kind) for one in _metrics_on(leader, split))
        possible += islice(own, 1)
    return [column for column in possible if any(column.key in run.scores for run in runs)]


def _metrics_on(run: FineTuningRun, card: str) -> Iterator[str]:
    """Yield the metrics of another card that the run was scored on, the main one first."""
    for key in run.scores:
        metric = key.removesuffix(f"_{card}")
        if metric != key and metric in KINDS[run.kind].metric_names:
            yield metric


def _published_beside(
    run: FineTuningRun, columns: Sequence[Column]
) -> Iterable[tuple[Column, Published]]:
    """Yield published scores of the same metric and split, if the run has the official split."""
    if run.card is None:
        return
    for one in run.card.published:
        for column in columns:
            here = (one.split, one.metric) == (column.split, column.metric)
            if here and not _split_note(run, column.split):
                yield column, one


def _split_note(run: FineTuningRun, split: str) -> str:
    return run.split_note if split == run.split else run.further_split_notes.get(split, "")


def _notes(run: FineTuningRun, beside: bool) -> Iterable[str]:
    """Yield the reasons why the scores of a task cannot be compared with published ones."""
    published = run.card.published if run.card else ()
    for split in (run.split, *run.further_split_notes):
        if note := _split_note(run, split):
            left_out = any(one.split == split for one in published)
            yield note + ("; published figures are left out" if left_out else "")
    if run.split_note:
        return
    if published and not beside:
        other = sorted({f"{one.metric} of {one.split}" for one in published})
        yield f"{run.task}: published are {', '.join(other)}, which this is not"


# -- shares of a base's scores ---------------------------------------------------------------------


@dataclass(frozen=True)
class RelativeRow:
    """A model's scores as shares of the base's, in per cent."""

    row: ModelRow
    shares: Mapping[Column, float]
    mean: float | None
    """The mean over all columns; None if one is missing, as the means would not be comparable."""
    mean_of_classification: float | None
    """The mean over the columns of classification tasks."""


@dataclass(frozen=True)
class RelativeTable:
    """The base, and every model of a run that has scores in the same columns."""

    base: ModelRow
    columns: tuple[Column, ...]
    rows: tuple[RelativeRow, ...]


def choose_base(table: ScoreTable, base: str | None = None) -> ModelRow | None:
    """Return the row to compare the others with: ``base``, or else the first of several models.

    A single model is compared with `RELATIVE_TO` if scores of that were published for its tasks.
    """
    if base is not None:
        return table.find(base)
    ours = table.ours
    if len(ours) > 1:
        return ours[0]
    published = (row for row in table.rows if row.source and row.model == RELATIVE_TO)
    return next(published, ours[0] if ours else None)


def relative_table(table: ScoreTable, base: ModelRow) -> RelativeTable:
    """Return each score as a share of the base's: of means, or of maxima if a mean is missing.

    In means over columns each column counts once, so a task with F1 and EM counts twice, as in the
    table of https://github.com/ymcui/Chinese-BERT-wwm.
    """
    columns = tuple(
        column
        for column in table.columns
        if column in base.scores and not base.scores[column].elsewhere
    )
    rows = []
    for row in table.rows:
        if row.source and row is not base:
            continue
        shares = {
            column: share
            for column in columns
            if column in row.scores
            and (share := _share(row.scores[column], base.scores[column])) is not None
        }
        if shares:
            classification = [column for column in columns if column.kind == "classify"]
            rows.append(
                RelativeRow(row, shares, _mean(shares, columns), _mean(shares, classification))
            )
    return RelativeTable(base, columns, tuple(rows))


def _share(score: Score, base: Score) -> float | None:
    if score.elsewhere:
        return None
    both = score.mean is not None and base.mean is not None
    upper, lower = (one.mean if both else one.max for one in (score, base))
    assert upper is not None
    assert lower is not None
    return 100.0 * upper / lower if lower > 0 else None


def _mean(shares: Mapping[Column, float], columns: Sequence[Column]) -> float | None:
    if not columns or any(column not in shares for column in columns):
        return None
    return statistics.fmean(shares[column] for column in columns)


# -- a line for each score -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class ScoreRecord:
    """A line of report.csv; ``run`` is empty for a score that is only published."""

    run: str = ""
    model: str
    task: str
    metric: str
    split: str
    max: float | None = None
    mean: float | None = None
    std: float | None = None
    seeds: int | None = None
    published_max: float | None = None
    published_mean: float | None = None
    published_by: str = ""
    note: str = ""


def records(table: ScoreTable) -> list[ScoreRecord]:
    """Return all scores: the runs', with published ones of the same model, then other published."""
    of_model = {
        row.model: found for row in table.ours if (found := _published_row(table, row)) is not None
    }
    return [
        record
        for row in table.rows
        if row not in of_model.values()
        for column in table.columns
        if (record := _record(row, row if row.source else of_model.get(row.model), column))
    ]


def _record(row: ModelRow, published: ModelRow | None, column: Column) -> ScoreRecord | None:
    """Return a model's score with its ``published`` score; None if there is neither."""
    ours = None if row.source else row.scores.get(column)
    theirs = published.scores.get(column) if published else None
    if ours is None and theirs is None:
        return None
    run = next((run for run in row.runs if run.task == column.task), None)
    note = theirs.note if theirs else ""
    if run is not None:
        note = _split_note(run, column.split)
    if ours and ours.elsewhere:
        note = f"scored on other examples than the others; {note}".rstrip("; ")
    return ScoreRecord(
        run=str(run.folder) if ours and run else "",
        model=row.model,
        task=column.task,
        metric=column.metric,
        split=column.split,
        max=ours.max if ours else None,
        mean=ours.mean if ours else None,
        std=ours.std if ours else None,
        seeds=ours.seeds if ours else None,
        published_max=theirs.max if theirs else None,
        published_mean=theirs.mean if theirs else None,
        published_by=published.source if published and theirs else "",
        note=note,
    )


def _published_row(table: ScoreTable, row: ModelRow) -> ModelRow | None:
    """Find the published row of the model that a run started from, by the catalogue's names."""
    names = set()
    for given in {run.given_as for run in row.runs if not run.manner}:
        card = find_card(given)
        if card is not None:
            names |= {
                name.lower() for name in (card.name, card.display_name, *card.aliases) if name
            }
    return next((one for one in table.rows if one.source and one.model.lower() in names), None)
