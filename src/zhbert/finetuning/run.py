"""Fine-tuning a model for a task, with several seeds and a grid of settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from zhbert import terminal
from zhbert.errors import ZhbertError
from zhbert.finetuning.locate import locate_teacher
from zhbert.finetuning.request import FineTuningRequest, FineTuningResult
from zhbert.finetuning.splits import read_splits
from zhbert.runs.folder import RunFolder
from zhbert.tasks.cards import load_card, with_encoding
from zhbert.tasks.scoring import check_metrics
from zhbert.tasks.settings import distinct_points, usual_distillation
from zhbert.wording import without_secrets
from zhbert.zoo import locate
from zhbert.zoo.layout import find_model


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
        task: a task's name, or the path of a task card.
        model: a model, given as anything that `zhbert.zoo.locate` accepts.
        data: the folder of the task's files; None: the folder of the card.
        out: the run folder; a run in it must have the same task, model, data and settings.
        overrides: ``key=value`` texts; several values, separated by commas, make a grid.
        teachers: models that were fine-tuned for the task, to learn from: each is a run folder,
            which stands for its best seed, or anything that `zhbert.zoo.locate` accepts.
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
    card = with_encoding(load_card(task), encoding)
    names = tuple(without_secrets(os.fspath(teacher)) for teacher in teachers)
    distill = usual_distillation(names)
    points = distinct_points(overrides, distill)
    run_folder = RunFolder(
        path=Path(out),
        what="a run of 'zhbert finetune'",
        settings_file="task.toml",
        overwrite=overwrite,
        goes_on=True,
    )
    run_folder.check()
    if say is None:
        say = terminal.say_nothing if quiet else terminal.say
    # Read first: checking the data takes a second, downloading a model may take minutes.
    folder = None if data is None else Path(data)
    train, scored = read_splits(card, folder, say, encoding=encoding)
    check_metrics(card, scored["dev"].examples)
    student = find_model(locate(os.fspath(model), quiet=quiet)).folder
    request = FineTuningRequest(
        card=card,
        train=train,
        scored=scored,
        model_name=without_secrets(os.fspath(model)),
        model=student,
        distill=distill,
        teachers=_find_teachers(teachers, student, run_folder.path, quiet=quiet),
        run_folder=run_folder,
        points=points,
        seeds=seeds,
        say=say,
        quiet=quiet,
    )
    # Importing torch takes seconds, so wrong arguments and data are reported first.
    from zhbert.finetuning.grid import GridRun

    return GridRun(request).go()


def _find_teachers(
    names: Iterable[str | os.PathLike[str]], student: Path, out: Path, *, quiet: bool
) -> dict[str, Path]:
    """Return the teachers' folders by their names; refuse the student's, --out's, and doubles."""
    found: dict[str, Path] = {}
    for name in names:
        folder = find_model(locate_teacher(name, quiet=quiet)).folder
        shown = without_secrets(os.fspath(name))
        others = [one.resolve() for one in found.values()]
        if out.resolve() in (folder.resolve(), *folder.resolve().parents):
            raise ZhbertError(
                f"--teacher {shown}: a model of the run in --out; choose another --out"
            )
        if folder.resolve() == student.resolve():
            raise ZhbertError(
                f"--teacher {shown}: the folder of --model: the student is its own teacher; "
                f"'zhbert shrink {shown} --layers 0,2 --out START' makes a smaller student of it"
            )
        if folder.resolve() in others:
            raise ZhbertError(f"--teacher {shown}: given twice")
        found[shown] = folder
    return found
