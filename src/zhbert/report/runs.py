"""Reading of run folders of 'zhbert pretrain' and 'zhbert finetune', complete or not."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from zhbert.errors import ZhbertError
from zhbert.files import json_lines, read_json_if_sound, read_toml
from zhbert.tasks.card import TaskCard
from zhbert.tasks.cards import card_names, load_card
from zhbert.tasks.kinds.base import as_number
from zhbert.wording import counted
from zhbert.zoo.origin import short_name

_Json = TypeVar("_Json", dict[str, Any], list[Any], str)

Points = tuple[tuple[float, float], ...]
"""The points (x, y) of a curve."""
Losses = Mapping[str, NDArray[np.float64]]
"""The steps of a run and their losses, (n, 2), of each part of the loss and of the whole, "loss".
"""


@dataclass(frozen=True)
class NamedTeacher:
    """A fine-tuned model that a run was distilled from."""

    name: str
    folder: Path


@dataclass(frozen=True)
class Spread:
    """The values of a metric, one for each seed, in per cent.

    >>> spread = Spread((80.0, 84.0))
    >>> spread.max, spread.mean, round(spread.std, 3)
    (84.0, 82.0, 2.828)
    """

    values: tuple[float, ...]

    @property
    def max(self) -> float:
        """The best seed's value."""
        return max(self.values)

    @property
    def mean(self) -> float:
        """The mean of the seeds."""
        return statistics.fmean(self.values)

    @property
    def std(self) -> float | None:
        """The sample standard deviation; None for one seed."""
        return statistics.stdev(self.values) if len(self.values) > 1 else None


@dataclass(frozen=True, kw_only=True)
class FineTuningRun:
    """A run of 'zhbert finetune'; missing parts are empty or None."""

    folder: Path
    task: str
    kind: str
    """A name in `zhbert.tasks.kinds.KINDS`."""
    title: str
    model: str
    """The model's name for tables; several runs of one model share it."""
    model_key: str
    """A key that is equal for runs that started from the same weights."""
    given_as: str
    """The model's name on the command line."""
    card: TaskCard | None
    """The task; None if task.toml is damaged."""
    split: str
    split_note: str
    """The reason why scores on this split cannot be compared with published ones, or ""."""
    further_split_notes: Mapping[str, str]
    """The same for further splits that cannot be compared, by name."""
    dev_sha256: str
    main_metric: str
    scores: Mapping[str, Spread]
    """The scores by metric; the key of a further split's metric ends in the split's name."""
    seeds: tuple[int, ...]
    """The finished seeds."""
    curves: Mapping[int, Points]
    """The points (epoch, main metric on dev) by seed."""
    losses: Losses
    """The losses of training, of all seeds together."""
    teachers: tuple[NamedTeacher, ...]
    """The models that the run was distilled from."""
    together: tuple[str, ...]
    """The tasks that share the encoder; empty for one alone."""
    pretrained_with: tuple[str, ...]
    """The names of the teachers that the model was pretrained with, if its run is there."""
    facts: Mapping[str, Any]
    """The content of summary.json: parameters, seconds, examples_per_second, ..."""
    remarks: tuple[str, ...]
    """Remarks on missing parts."""

    @property
    def finished(self) -> bool:
        """True if there is a score."""
        return bool(self.scores)

    @property
    def scored(self) -> tuple[str, str, str]:
        """What the main metric depends on besides the model: runs that share it are comparable."""
        return self.task, self.dev_sha256, self.main_metric

    @property
    def manner(self) -> str:
        """What distinguishes it from a run of the same model alone, to follow the model's name."""
        return ", distilled" * bool(self.teachers) + ", several tasks" * bool(self.together)

    @property
    def metrics(self) -> tuple[str, ...]:
        """The task's metrics, the main one first."""
        if self.card is not None:
            return self.card.metrics
        return tuple(self.scores) or (self.main_metric,)

    def number(self, fact: str) -> float | None:
        """Return a number of summary.json, or None."""
        return as_number(self.facts.get(fact))


@dataclass(frozen=True)
class HeldOutEvaluation:
    """The evaluation on held-out text at one step."""

    step: int
    loss: float | None
    accuracy: float | None
    """The share of correctly predicted masked pieces, 0 to 1."""
    baseline: float | None
    """The accuracy of always predicting the most frequent piece."""
    pair_accuracy: float | None


@dataclass(frozen=True, kw_only=True)
class PretrainingRun:
    """A run of 'zhbert pretrain'."""

    folder: Path
    name: str
    recipe: Mapping[str, Any]
    """The content of recipe.toml, resolved."""
    origin: Mapping[str, Any]
    """The content of provenance.json."""
    steps: NDArray[np.float64]
    """(n,): the steps of ``losses``."""
    losses: NDArray[np.float64]
    """(n,): the training loss of masked words."""
    parts: Losses
    """The losses of training, by part."""
    evaluations: Mapping[str, tuple[HeldOutEvaluation, ...]]
    """The evaluations by masking strategy."""
    pieces: int
    seconds: float
    finished: bool
    remarks: tuple[str, ...] = field(default=())

    @property
    def planned_steps(self) -> int | None:
        """The number of steps in the recipe."""
        steps = self.recipe.get("steps")
        return steps if isinstance(steps, int) else None

    @property
    def teachers(self) -> tuple[str, ...]:
        """The names of the models that the run is distilled from."""
        return _teachers_of(self.recipe)

    @property
    def last_step(self) -> int:
        """The last step in the log."""
        return int(self.steps[-1]) if len(self.steps) else 0

    @property
    def last_loss(self) -> float | None:
        """The mean loss of the last 100 steps."""
        return float(self.losses[-100:].mean()) if len(self.losses) else None


Run = FineTuningRun | PretrainingRun


def read_runs(folders: Sequence[str | Path]) -> list[Run]:
    """Read run folders in the given order, each once.

    Raises ZhbertError if a folder is not a run; other missing parts become remarks.
    """
    seen: dict[Path, Path] = {}
    for folder in map(Path, folders):
        seen.setdefault(folder.resolve(), folder)
    readers = [(_reader_of(folder), folder) for folder in seen.values()]
    return _with_distinct_names([reader(folder) for reader, folder in readers])


def _reader_of(folder: Path) -> Any:
    if not folder.is_dir():
        what = "a file" if folder.exists() else "no such folder"
        raise ZhbertError(f"{folder}: {what}; give run folders, as --out of 'zhbert finetune' is")
    for name, reader in (("task.toml", _read_fine_tuning), ("recipe.toml", _read_pretraining)):
        if (folder / name).is_file():
            return reader
    hint = "; give folders that 'zhbert finetune' or 'zhbert pretrain' wrote"
    names = ("task.toml", "recipe.toml")
    if any((folder.resolve().parent / name).is_file() for name in names):
        hint = f"; its run is {folder.parent}"
    elif any(child for name in names for child in folder.glob(f"*/{name}")):
        hint = f"; it holds runs: give those, for example {folder}/*"
    raise ZhbertError(f"{folder}: no run folder: neither task.toml nor recipe.toml in it{hint}")


def _with_distinct_names(runs: list[Run]) -> list[Run]:
    """Give runs of the same model the same name, and other runs different ones."""
    names: dict[str, str] = {}  # of a model's key
    taken: dict[tuple[str, str], Path] = {}  # (name, task) -> the run that has it
    result: list[Run] = []
    # Finished runs come first: the short name of a model is recorded only with a score.
    for run in sorted(runs, key=lambda run: isinstance(run, FineTuningRun) and not run.finished):
        if isinstance(run, FineTuningRun) and run.model_key not in names:
            clash = run.model in names.values()
            names[run.model_key] = run.given_as if clash else run.model
    used: set[str] = set()
    for run in runs:
        if isinstance(run, FineTuningRun):
            name = names[run.model_key] + run.manner
            if (name, run.task) in taken:
                # The same model and task with other settings gets a separate row.
                same, name = name, f"{name} ({run.folder.name})"
                if (name, run.task) in taken:
                    name = f"{same} ({run.folder})"
            taken[name, run.task] = run.folder
            result.append(replace(run, model=name))
        else:
            name = run.name if run.name not in used else str(run.folder)
            used.add(name)
            result.append(replace(run, name=name))
    return result


# -- fine-tuning -----------------------------------------------------------------------------------


def _read_fine_tuning(folder: Path) -> FineTuningRun:
    remarks: list[str] = []
    summary = _read_object(folder / "summary.json", remarks, required=False)
    origin = _read_object(folder / "provenance.json", remarks)
    identity = value_of(origin, "identity", dict)
    card = _read_card(folder / "task.toml", remarks)
    scores = _scores(summary)
    seeds = tuple(seed for seed in value_of(summary, "seeds", list) if isinstance(seed, int))
    begun = _seeds_begun(folder)
    unfinished = sorted(begun - set(seeds))
    remarks += _what_is_missing(folder, bool(summary), bool(origin), bool(scores))
    if scores and unfinished:
        numbers = ", ".join(map(str, unfinished))
        remarks.append(f"unfinished: seeds begun: {numbers}; seeds done: {len(seeds)}")
    main_metric = value_of(summary, "main_metric", str) or (card.metrics[0] if card else "")
    given_as = value_of(summary, "model", str) or value_of(origin, "model", str) or folder.name
    weights = identity.get("model")
    curves, losses = _training(folder, begun, main_metric, remarks)
    return FineTuningRun(
        folder=folder,
        task=value_of(summary, "task", str) or _task_name(card, folder),
        kind=value_of(summary, "kind", str) or (card.kind if card else ""),
        title=value_of(summary, "title", str) or (card.title if card else ""),
        model=value_of(summary, "model_name", str) or given_as,
        model_key=json.dumps(weights) if weights else given_as,
        given_as=given_as,
        card=card,
        split=value_of(summary, "split", str) or "dev",
        split_note=value_of(summary, "split_note", str),
        further_split_notes=_notes_by_split(summary),
        dev_sha256=value_of(summary, "dev_sha256", str) or value_of(identity, "dev", str),
        main_metric=main_metric,
        scores=scores,
        seeds=seeds,
        curves=curves,
        losses=losses,
        teachers=tuple(_teachers(summary)),
        together=tuple(map(str, value_of(summary, "together", list))),
        pretrained_with=_pretrained_with(origin),
        facts=summary,
        remarks=tuple(remarks),
    )


def _read_card(path: Path, remarks: list[str]) -> TaskCard | None:
    try:
        return load_card(path)
    except ZhbertError as error:
        remarks.append(str(error))
        return None


def _seeds_begun(folder: Path) -> set[int]:
    names = (path.name.removeprefix("seed-") for path in folder.glob("seed-*"))
    return {int(name) for name in names if name.isdecimal()}


def _what_is_missing(folder: Path, summary: bool, origin: bool, scores: bool) -> Iterator[str]:
    """Yield remarks on missing parts of a run."""
    if summary and not scores:
        yield f"{folder / 'summary.json'}: holds no scores"
    points = len(list(folder.glob("grid/*/summary.json")))
    if points and not summary:
        yield f"unfinished: points of its grid with a score so far: {points}"
    elif origin and not scores:
        yield "unfinished: no seed is done"


def _scores(summary: Mapping[str, Any]) -> dict[str, Spread]:
    """Return the values of the seeds, from which `Spread` computes the statistics."""
    scores = {}
    for name, spread in value_of(summary, "metrics", dict).items():
        values = spread.get("values") if isinstance(spread, dict) else None
        numbers = [as_number(value) for value in values] if isinstance(values, list) else []
        found = tuple(number for number in numbers if number is not None)
        if found and len(found) == len(numbers):
            scores[name] = Spread(found)
    return scores


def _notes_by_split(summary: Mapping[str, Any]) -> dict[str, str]:
    notes = value_of(summary, "further_split_notes", dict)
    return {split: note for split, note in notes.items() if isinstance(note, str) and note}


def _task_name(card: TaskCard | None, folder: Path) -> str:
    """Return the task's name, found by its title, as task.toml does not contain the name."""
    if card is None:
        return folder.name
    shipped = (name for name in card_names() if load_card(name).title == card.title)
    return next(shipped, card.title.partition(":")[0])


def _teachers(summary: Mapping[str, Any]) -> Iterator[NamedTeacher]:
    for one in value_of(summary, "teachers", list):
        if isinstance(one, dict) and (folder := value_of(one, "folder", str)):
            yield NamedTeacher(short_name(value_of(one, "name", str) or folder), Path(folder))


def _pretrained_with(origin: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the teachers of the pretraining run that the model, RUN/final, comes from."""
    try:
        return _teachers_of(
            read_toml(Path(value_of(origin, "model_folder", str)).parent / "recipe.toml")
        )
    except (ZhbertError, OSError):
        return ()


def _teachers_of(recipe: Mapping[str, Any]) -> tuple[str, ...]:
    names = value_of(value_of(recipe, "distill", dict), "teachers", list)
    return tuple(short_name(name) for name in names if isinstance(name, str))


def _training(
    folder: Path, seeds: set[int], metric: str, remarks: list[str]
) -> tuple[dict[int, Points], Losses]:
    """Return the curve on dev of each evaluated seed, and all seeds' losses."""
    curves: dict[int, Points] = {}
    losses: _Losses = {}
    for seed in sorted(seeds):
        points: dict[float, float] = {}
        for line in read_lines(folder / f"seed-{seed}" / "metrics.jsonl", remarks):
            epoch, value = as_number(line.get("epoch")), as_number(line.get(metric))
            if "evaluation" not in line:
                _add_losses(losses, line)
            elif line["evaluation"] == "dev" and epoch is not None and value is not None:
                points[epoch] = value
        if points:
            curves[seed] = tuple(sorted(points.items()))
    return curves, _arrays(losses)


_Losses = dict[str, list[tuple[float, float]]]


def _add_losses(losses: _Losses, line: Mapping[str, Any]) -> None:
    """Add the steps and the losses in the line of a training step."""
    step = as_number(line.get("step"))
    for key, value in line.items():
        loss = as_number(value) if key == "loss" or key.endswith("_loss") else None
        if step is not None and loss is not None:
            losses.setdefault(key.removesuffix("_loss"), []).append((step, loss))


def _arrays(losses: _Losses) -> Losses:
    return {name: np.array(sorted(points)) for name, points in losses.items()}


# -- pretraining -----------------------------------------------------------------------------------


def _read_pretraining(folder: Path) -> PretrainingRun:
    remarks: list[str] = []
    recipe = {}
    try:
        recipe = read_toml(folder / "recipe.toml")
    except ZhbertError as error:
        remarks.append(str(error))
    origin = _read_object(folder / "provenance.json", remarks)
    log = _TrainingLog()
    for line in read_lines(folder / "metrics.jsonl", remarks):
        log.add(line)
    finished = (folder / "final" / "config.json").is_file()
    if not finished:
        planned = recipe.get("steps")
        of = f" of {planned:,}" if isinstance(planned, int) else ""
        remarks.append(f"unfinished: step {int(log.steps[-1]) if log.steps else 0:,}{of}")
    return PretrainingRun(
        folder=folder,
        name=folder.resolve().name,
        recipe=recipe,
        origin=origin,
        steps=np.array(log.steps, dtype=np.float64),
        losses=np.array(log.losses, dtype=np.float64),
        parts=_arrays(log.parts),
        evaluations={name: tuple(lines) for name, lines in log.evaluations.items()},
        pieces=int(log.pieces),
        seconds=log.seconds,
        finished=finished,
        remarks=tuple(remarks),
    )


@dataclass
class _TrainingLog:
    """The values collected from the lines of metrics.jsonl."""

    steps: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    parts: _Losses = field(default_factory=dict)
    evaluations: dict[str, list[HeldOutEvaluation]] = field(default_factory=dict)
    pieces: float = 0.0
    seconds: float = 0.0

    def add(self, line: Mapping[str, Any]) -> None:
        step = as_number(line.get("step"))
        if step is None:
            return
        if "evaluation" in line:
            values = [as_number(line.get(name)) for name in _EVALUATION]
            self.evaluations.setdefault(str(line["evaluation"]), []).append(
                HeldOutEvaluation(int(step), *values)
            )
            return
        _add_losses(self.parts, line)
        self.pieces = as_number(line.get("pieces")) or self.pieces
        self.seconds = as_number(line.get("seconds")) or self.seconds
        loss = as_number(line.get("masked_lm_loss", line.get("loss")))
        if loss is not None:
            self.steps.append(step)
            self.losses.append(loss)


# Keys of a line of metrics.jsonl, in the order of HeldOutEvaluation's fields after ``step``.
_EVALUATION = (
    "masked_lm_loss",
    "masked_lm_accuracy",
    "baseline_accuracy",
    "next_sentence_accuracy",
)

# -- files -----------------------------------------------------------------------------------------


def read_lines(path: Path, remarks: list[str] | None = None) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON-lines file; nothing if it is missing.

    Damaged lines are left out and become a remark, except an incomplete last line, as the file may
    be in use.
    """
    damaged = 0
    try:
        for raw, value in json_lines(path):
            if value is not None:
                yield value
            else:
                damaged += raw.endswith(b"\n")
    except OSError:
        return
    if damaged and remarks is not None:
        remarks.append(f"{path}: {counted(damaged, 'damaged line')} left out")


def _read_object(path: Path, remarks: list[str], *, required: bool = True) -> dict[str, Any]:
    if path.exists():
        return read_json_if_sound(path, remarks.append)
    if required:
        remarks.append(f"{path}: missing")
    return {}


def value_of(values: Mapping[str, Any], key: str, kind: type[_Json]) -> _Json:
    """Return a key's value; an empty one if it is missing or of another type."""
    value = values.get(key)
    return value if isinstance(value, kind) else kind()
