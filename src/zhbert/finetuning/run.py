"""Fine-tuning a model for a task, with several seeds and a grid of settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from zhbert import terminal
from zhbert.config import DistillSettings
from zhbert.errors import ZhbertError
from zhbert.finetuning.locate import locate_fine_tuned
from zhbert.finetuning.request import FineTuningRequest, FineTuningResult
from zhbert.finetuning.splits import read_splits
from zhbert.runs.folder import RunFolder
from zhbert.tasks.card import TaskCard
from zhbert.tasks.cards import load_card, with_encoding
from zhbert.tasks.scoring import check_metrics
from zhbert.tasks.settings import distinct_points, usual_distillation
from zhbert.wording import listed, without_secrets
from zhbert.zoo import locate
from zhbert.zoo.layout import find_model

Name = str | os.PathLike[str]


def finetune(
    task: str | os.PathLike[str],
    model: str | os.PathLike[str],
    data: str | os.PathLike[str] | None,
    out: str | os.PathLike[str],
    overrides: Iterable[str] = (),
    *,
    teachers: Sequence[str | os.PathLike[str]] = (),
    seeds: int = 1,
    encoding: str | None = None,
    overwrite: bool = False,
    quiet: bool = True,
    say: Callable[[str], None] | None = None,
) -> FineTuningResult:
    """Fine-tune ``model`` for ``task`` in the run folder ``out``, resuming a run that exists there.

    Args:
        task: a task's name, or the path of a task card; several, separated by commas, share one
            encoder, and each has a folder of its own in ``out``.
        model: a model, given as anything that `zhbert.zoo.locate` accepts.
        data: the folder of the task's files; None: the folder of the card.
        out: the run folder; a run in it must have the same task, model, data and settings.
        overrides: ``key=value`` texts; several values, separated by commas, make a grid.
        teachers: models that were fine-tuned for the task, to learn from: each is a run folder,
            which stands for its best seed, or anything that `zhbert.zoo.locate` accepts. Those of
            several tasks are given as ``TASK=M``.
        seeds: the number of seeds, numbered from 0.
        encoding: the encoding of the task's files; None: the card's.
        overwrite: remove ``out`` first if it is a run folder.
        quiet: print neither remarks nor progress on stderr.
        say: called with each remark, one line each; None: print to stderr, unless ``quiet``.

    Raises:
        ZhbertError: the card, data, model, settings or a folder is unusable, or the loss is not
            finite.
    """
    if seeds < 1:
        raise ZhbertError(f"--seeds {seeds}: must be 1 or more")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ZhbertError("finetune runs in one process: start it without torchrun")
    cards = [with_encoding(load_card(name), encoding) for name in _names_of(task)]
    together = tuple(card.name for card in cards) if len(cards) > 1 else ()
    taught = _by_task(teachers, together) if together else {cards[0].name: teachers}
    points = _points(tuple(overrides), {name: _distillation(taught[name]) for name in taught})
    run_folder = RunFolder(
        path=Path(out),
        what="a run of 'zhbert finetune'" + (" for several tasks" if together else ""),
        settings_file="tasks.toml" if together else "task.toml",
        overwrite=overwrite,
        goes_on=True,
    )
    run_folder.check()
    if say is None:
        say = terminal.say_nothing if quiet else terminal.say
    # Read first: checking the data takes a second, downloading a model may take minutes.
    folder = None if data is None else Path(data)
    splits = [read_splits(card, folder, say, encoding=encoding) for card in cards]
    for card, (_, scored) in zip(cards, splits, strict=True):
        check_metrics(card, scored["dev"].examples)
    student = find_model(locate(os.fspath(model), quiet=quiet)).folder
    requests = [
        FineTuningRequest(
            card=card,
            train=train,
            scored=scored,
            model_name=without_secrets(os.fspath(model)),
            model=student,
            distill=_distillation(taught[card.name]),
            teachers=_find_teachers(taught[card.name], student, run_folder.path, quiet=quiet),
            run_folder=_of_task(run_folder, card) if together else run_folder,
            points=points[card.name],
            seeds=seeds,
            say=say,
            quiet=quiet,
            together=together,
        )
        for card, (train, scored) in zip(cards, splits, strict=True)
    ]
    # Importing torch takes seconds, so wrong arguments and data are reported first.
    if together:
        from zhbert.finetuning.several import SeveralRun

        return SeveralRun(run_folder, requests).go()
    from zhbert.finetuning.grid import GridRun

    return GridRun(requests[0]).go()


def _names_of(task: str | os.PathLike[str]) -> list[str]:
    """Return the names or paths of the tasks; raise ZhbertError if one is there twice."""
    text = os.fspath(task)
    names = [name.strip() for name in text.split(",")]
    if os.path.exists(text):  # noqa: PTH110 - Path.exists raises for a name that is too long
        names = [text]
    if len(names) > 1 and not all(names):
        raise ZhbertError(f"{text}: an empty name between commas")
    stems = [Path(name).name.removesuffix(".toml") for name in names]
    for stem in stems:
        if stems.count(stem) > 1:
            raise ZhbertError(f"{text}: two tasks are called {stem}")
    return names


def _by_task(teachers: Iterable[Name], tasks: Sequence[str]) -> dict[str, list[Name]]:
    """Return the teachers of each of several tasks, which are given as ``TASK=M``."""
    found: dict[str, list[Name]] = {name: [] for name in tasks}
    for teacher in teachers:
        task, _, name = os.fspath(teacher).partition("=")
        if not name or task not in found:
            raise ZhbertError(
                f"--teacher {without_secrets(os.fspath(teacher))}: say whose teacher it is: "
                f"TASK=M; the tasks are {listed(tasks)}"
            )
        found[task].append(name)
    return found


def _distillation(teachers: Iterable[Name]) -> DistillSettings | None:
    return usual_distillation(tuple(without_secrets(os.fspath(name)) for name in teachers))


def _points(
    overrides: Sequence[str], distill: Mapping[str, DistillSettings | None]
) -> dict[str, list[tuple[str, ...]]]:
    """Return the points of each task's grid; raise ZhbertError if several tasks have one."""
    points = {}
    for name, own in distill.items():
        taught = own or not any(distill.values())
        texts = [one for one in overrides if taught or not one.lstrip().startswith("distill.")]
        points[name] = distinct_points(texts, own)
        if len(distill) > 1 and len(points[name]) > 1:
            raise ZhbertError("several tasks take one value a key, and no grid")
    return points


def _of_task(run: RunFolder, card: TaskCard) -> RunFolder:
    """Return the folder of one task in a run of several."""
    what = f"a run of 'zhbert finetune {card.name}'"
    return replace(run, path=run.path / card.name, what=what, settings_file="task.toml")


def _find_teachers(
    names: Iterable[Name], student: Path, out: Path, *, quiet: bool
) -> dict[str, Path]:
    """Return the teachers' folders by their names; refuse the student's, --out's, and doubles."""
    found: dict[str, Path] = {}
    for name in names:
        folder = find_model(locate_fine_tuned(name, quiet=quiet)).folder
        shown = without_secrets(os.fspath(name))
        others = [one.resolve() for one in found.values()]
        if out.resolve() in (folder.resolve(), *folder.resolve().parents):
            raise ZhbertError(
                f"--teacher {shown}: a model of the run in --out; choose another --out"
            )
        if folder.resolve() == student.resolve():
            raise ZhbertError(
                f"--teacher {shown}: the folder of --model: the student is its own teacher; "
                f"'zhbert shrink {folder} --layers 0,2 --out START' makes a smaller student of it"
            )
        if folder.resolve() in others:
            raise ZhbertError(f"--teacher {shown}: given twice")
        found[shown] = folder
    return found
