"""Fine-tuned models as the teachers of a student that is fine-tuned for the same task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from zhbert.config import DistillSettings
from zhbert.distill.teacher_folder import TeacherFolder, check_memory
from zhbert.distill.vocabulary import check_mapping, give_vocabulary, map_vocabulary
from zhbert.errors import ZhbertError
from zhbert.finetuning.fine_tuned import open_fine_tuned
from zhbert.finetuning.starting_model import StartingModel
from zhbert.inference.rows import PieceRows, check_segments
from zhbert.inference.run_model import Array, run_model
from zhbert.model.config import BertConfig, count_parameters_by_part
from zhbert.runtime import total_memory
from zhbert.tasks.card import TaskCard
from zhbert.tasks.kinds.embed import Embed
from zhbert.tasks.learners.base import Learner
from zhbert.text.tokenizer import Tokenizer
from zhbert.wording import counted, listed, show

Remark = Callable[[str], None]


@dataclass(frozen=True)
class TaskTeacher:
    """A fine-tuned model that reads the student's rows and knows the task's labels."""

    start: StartingModel
    """Its name, folder and configuration."""
    model: nn.Module
    columns: NDArray[np.int64] | None
    """(labels,): which of its scores belongs to each of the card's labels; None if there are no
    labels."""

    def scores(self, rows: PieceRows, learner: Learner) -> Array:
        """Return its scores of all rows in the order of the card's labels: (R, n) or (T, n)."""
        found = run_model(self.model, rows, learner.scores)
        return found if self.columns is None else found[:, self.columns]


def open_teacher(
    start: StartingModel, card: TaskCard, learner: Learner, device: torch.device, remark: Remark
) -> TaskTeacher:
    """Open a teacher of the card's task.

    Raises ZhbertError if it was fine-tuned for another kind of task or with other labels.
    """
    try:
        opened = open_fine_tuned(start.folder, pooled=card.kind == Embed.name)
    except ZhbertError as error:
        raise ZhbertError(f"--teacher {start.name}: {error}") from None
    if opened.kind.name != card.kind:
        raise ZhbertError(
            f"--teacher {start.name}: a model of the kind {opened.kind.name}, but {card.name} is "
            f"of the kind {card.kind}"
        )
    theirs, ours = opened.learner.labels, learner.labels
    if ours is not None and theirs is not None and {*theirs} != {*ours}:
        raise ZhbertError(
            f"--teacher {start.name}: fine-tuned with the labels {listed(theirs)}, and "
            f"{card.name} has {listed(ours)}: not a teacher of this task"
        )
    _check_judgements(start, opened.learner, learner)
    if opened.card is not None and opened.card.name != card.name:
        remark(f"note: {start.name}: fine-tuned for {opened.card.name}, teaches {card.name}")
    columns = None
    if ours is not None and theirs is not None:
        columns = np.array([theirs.index(label) for label in ours], np.int64)
    opened.model.to(device).requires_grad_(False)
    return TaskTeacher(start, opened.model, columns)


def _check_judgements(start: StartingModel, theirs: Learner, ours: Learner) -> None:
    """Raise ZhbertError if questions are judged by yes and no by one of both models only."""
    for key in ("yes_no", "no_answer"):
        own, other = ours.saved().get(key), theirs.saved().get(key)
        if own != other:
            raise ZhbertError(
                f"--teacher {start.name}: fine-tuned with {key} = {show(other)}, and the task has "
                f"{show(own)}: its scores mean something else"
            )


def check_teacher_rows(start: StartingModel, rows: PieceRows) -> None:
    """Raise ZhbertError if a teacher cannot read the student's rows."""
    longest, most = int(rows.lengths.max(initial=0)), start.config.max_position_embeddings
    if longest > most:
        raise ZhbertError(
            f"--teacher {start.name}: reads rows of {most} pieces at most, and the longest has "
            f"{longest}: set sequence_length={most}"
        )
    try:
        check_segments(rows, start.config.type_vocab_size)
    except ZhbertError as error:
        raise ZhbertError(f"--teacher {start.name}: {error}") from None


def adopt_vocabulary(
    teacher: TaskTeacher,
    tokenizer: Tokenizer,
    rows: PieceRows,
    settings: DistillSettings,
    say: Remark,
) -> None:
    """Give a teacher the student's vocabulary if it has another.

    Raises ZhbertError if the settings do not allow it, or too little of the text could be mapped.
    """
    start = teacher.start
    size = len(tokenizer.vocabulary)
    counts = np.bincount(rows.ids, minlength=size)[:size]
    mapping = map_vocabulary(tokenizer, start.tokenizer, counts)
    if mapping.is_identity:
        return
    check_mapping(mapping, f"--teacher {start.name}", settings)
    give_vocabulary(teacher.model, mapping, rows=size)
    say(f"vocabulary of {start.name}: {mapping}")


class Teachers:
    """The teachers of a run, whose models are opened once for all points and seeds."""

    def __init__(
        self, starts: Sequence[StartingModel], card: TaskCard, device: torch.device, say: Remark
    ) -> None:
        self.starts = starts
        """Their names, folders, configurations and tokenizers."""
        self._card, self._device, self._say = card, device, say
        self._opened: tuple[TaskTeacher, ...] = ()
        self._soft: tuple[PieceRows, NDArray[np.float32]] | None = None

    def check(self, rows: PieceRows, student: BertConfig) -> None:
        """Raise ZhbertError if a teacher cannot read the rows, or memory cannot hold them all."""
        for start in self.starts:
            check_teacher_rows(start, rows)
        folders = [TeacherFolder(one.name, one.folder, one.config) for one in self.starts]
        parameters = sum(count_parameters_by_part(student).values())
        check_memory(folders, parameters, total_memory(self._device))

    def opened(
        self, rows: PieceRows, learner: Learner, settings: DistillSettings
    ) -> tuple[TaskTeacher, ...]:
        """Return the teachers, ready for rows like these.

        Raises ZhbertError if one of them is of another task or vocabulary.
        """
        if not self._opened:
            self._opened = tuple(
                open_teacher(start, self._card, learner, self._device, self._say)
                for start in self.starts
            )
            for teacher in self._opened:
                adopt_vocabulary(teacher, learner.tokenizer, rows, settings, self._say)
        return self._opened

    def soft_targets(self, rows: PieceRows, learner: Learner) -> NDArray[np.float32]:
        """Return what is learnt from the opened teachers' scores, which are computed only once."""
        if self._soft is None or not _same(self._soft[0], rows):
            scores = [teacher.scores(rows, learner) for teacher in self._opened]
            self._soft = rows, learner.soft_targets(scores)
        return self._soft[1]


def _same(one: PieceRows, other: PieceRows) -> bool:
    return np.array_equal(one.ids, other.ids) and np.array_equal(one.cu_seqlens, other.cu_seqlens)


def describe_teachers(
    teachers: Sequence[TaskTeacher], learner: Learner, settings: DistillSettings | None
) -> Iterator[str]:
    """Yield lines on the teachers, their soft labels, and the weights of both kinds of labels."""
    if settings is None:
        return
    for teacher in teachers:
        config = teacher.start.config
        yield (
            f"teacher: {teacher.start.name}, {counted(config.num_hidden_layers, 'layer')} x "
            f"{config.hidden_size}; {teacher.start.folder}"
        )
    hard = f"labels: weight {_weight(settings.hard_weight, settings.hard_schedule)}"
    if settings.soft_labels == "none":
        yield f"soft labels: none; {hard}"
        return
    soft = f"weight {_weight(settings.soft_weight, settings.soft_schedule)}"
    yield f"soft labels: {learner.describe_soft_labels(settings)}, {soft}; {hard}"


def _weight(weight: float, schedule: str) -> str:
    return f"{weight:g}" + {"constant": "", "growth": " from 0", "decay": " to 0"}[schedule]
