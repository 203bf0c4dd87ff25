"""Teachers before they are opened: found, and refused if they do not fit, without their weights."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zhbert.config import DistillSettings
from zhbert.distill.vocabulary import (
    VocabularyMap,
    check_logits,
    check_mapping,
    map_vocabulary,
)
from zhbert.errors import ZhbertError
from zhbert.files import sha256_of
from zhbert.model.config import BertConfig, count_parameters_by_part
from zhbert.model.folder import tokenizer_of
from zhbert.text.tokenizer import Tokenizer
from zhbert.train.cost import BYTES_PER_PARAMETER
from zhbert.wording import without_secrets
from zhbert.zoo import locate
from zhbert.zoo.layout import find_model

# A teacher's weights are read in single precision.
BYTES_PER_WEIGHT = 4


@dataclass(frozen=True, kw_only=True)
class StudentRows:
    """The rows that a teacher is asked about; they are made of the student's pieces."""

    tokenizer: Tokenizer
    counts: NDArray[np.int64]
    """(V,) how often each piece occurs in the text."""
    longest: int
    """Pieces of the longest row."""
    pairs: bool = False
    """Rows have two segments."""


@dataclass(frozen=True)
class TeacherFolder:
    """A teacher that is here and fits the student's rows."""

    name: str
    """As the user named it, without a password."""
    folder: Path
    config: BertConfig
    vocabulary: VocabularyMap | None = None
    """From the student's pieces to its own; None: not compared."""

    @property
    def num_parameters(self) -> int:
        """Number of parameters, with both heads of pretraining."""
        return sum(count_parameters_by_part(self.config).values())

    @cached_property
    def identity(self) -> str:
        """A hash of all that its answers depend on: weights, configuration and vocabulary."""
        from zhbert.model.checkpoint import stored_files

        files = find_model(self.folder)
        hashes = [sha256_of(file) for file in stored_files(files)]
        config = dataclasses.asdict(self.config)
        del config["other"]
        tokenizer = tokenizer_of(files, self.config.vocab_size)
        vocabulary = None if tokenizer is None else tokenizer.fingerprint()
        content = json.dumps([hashes, config, vocabulary], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()


def find_teacher(
    name: str,
    student: StudentRows | None = None,
    settings: DistillSettings | None = None,
    *,
    quiet: bool = True,
) -> TeacherFolder:
    """Find a teacher, and check that it can be asked about the student's rows.

    Args:
        name: a model, given as anything that `zhbert.zoo.locate` accepts.
        student: the rows; None: nothing is checked.
        settings: how a teacher of another vocabulary is treated; None: it is refused.
        quiet: show no progress of a download.

    Raises:
        ZhbertError: there is no such model, its rows are shorter, or its vocabulary is another.
    """
    path, named = Path(name), without_secrets(name)
    if (path / "final").is_dir() and not (path / "config.json").is_file():
        raise ZhbertError(
            f"--teacher {named}: a run folder; its model is --teacher {path / 'final'}"
        )
    try:
        folder = locate(name, quiet=quiet)
        config = BertConfig.from_pretrained(folder)
    except ZhbertError as error:
        raise ZhbertError(f"--teacher {named}: {error}") from None
    if student is None:
        return TeacherFolder(named, folder, config)
    if student.longest > (most := config.max_position_embeddings):
        raise ZhbertError(
            f"--teacher {named}: reads rows of {most} pieces at most, and the student's have up to "
            f"{student.longest}: set sequence_length={most}, or give the teacher more with zhbert "
            "extend"
        )
    if student.pairs and config.type_vocab_size < 2:
        raise ZhbertError(
            f"--teacher {named}: knows one segment, and the student's rows are pairs: set "
            "rows.builder=full-sentences"
        )
    vocabulary = _vocabulary(named, folder, config, student)
    if vocabulary is not None:
        settings = settings or DistillSettings()
        check_mapping(vocabulary, f"--teacher {named}", settings)
        check_logits(vocabulary, f"--teacher {named}", settings)
    return TeacherFolder(named, folder, config, vocabulary)


def _vocabulary(
    name: str, folder: Path, config: BertConfig, student: StudentRows
) -> VocabularyMap | None:
    tokenizer = tokenizer_of(find_model(folder), config.vocab_size)
    if tokenizer is not None:
        return map_vocabulary(student.tokenizer, tokenizer, student.counts)
    if config.vocab_size != len(student.tokenizer):
        raise ZhbertError(
            f"--teacher {name}: has {config.vocab_size:,} pieces and no vocab.txt, and the "
            f"student's vocabulary has {len(student.tokenizer):,}: put the teacher's own vocab.txt "
            "there"
        )
    return None


def check_fills_masks(teacher: TeacherFolder) -> None:
    """Raise a ZhbertError if a teacher's masked-word head was never trained."""
    from zhbert.model.checkpoint import open_checkpoint
    from zhbert.model.head_states import head_states

    entries = open_checkpoint(teacher.folder).entries
    head = head_states(entries, teacher.config.initializer_range)["masked_words"]
    if head.word in ("missing", "random"):
        raise ZhbertError(
            f"--teacher {teacher.name}: its masked-word head was never trained ({head.word}), so "
            "its soft labels are noise: train it (zhbert pretrain continue-domain --corpus CORPUS "
            f"--out RUN initial_model={teacher.name}), or set distill.soft_labels=none"
        )


def check_memory(teachers: Sequence[TeacherFolder], student_parameters: int, memory: int) -> None:
    """Raise a ZhbertError if teachers and the training of the student exceed ``memory`` bytes."""
    parameters = sum(teacher.num_parameters for teacher in teachers)
    needed = parameters * BYTES_PER_WEIGHT + student_parameters * BYTES_PER_PARAMETER
    if needed > memory:
        names = ", ".join(teacher.name for teacher in teachers)
        raise ZhbertError(
            f"--teacher {names}: {parameters:,} parameters beside a student of "
            f"{student_parameters:,} take {needed / 2**30:,.1f} GiB, and there are "
            f"{memory / 2**30:,.1f}; choose a smaller teacher"
        )
