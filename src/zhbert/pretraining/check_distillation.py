"""What a distillation would do and cost, said without training and without reading weights."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zhbert.config import DistillSettings, ModelShape, Recipe, flatten
from zhbert.distill.matching import MatchPlan, plan_matches
from zhbert.distill.teacher_folder import (
    BYTES_PER_WEIGHT,
    StudentRows,
    TeacherFolder,
    check_fills_masks,
    check_memory,
    find_teacher,
)
from zhbert.model.config import BertConfig, count_parameters_by_part
from zhbert.runtime import total_memory
from zhbert.train.cost import BYTES_PER_PARAMETER, Workload
from zhbert.wording import without_secrets
from zhbert.zoo.catalogue import find_card
from zhbert.zoo.origin import is_here

if TYPE_CHECKING:
    from zhbert.data.shards import Corpus


def check_distillation(
    recipe: Recipe, shape: ModelShape, vocabulary_size: int, corpus: Corpus | None, notes: list[str]
) -> dict[str, Any]:
    """Say what a student of a resolved shape learns from its teachers.

    Args:
        recipe: a recipe with ``[distill]``.
        shape: the student's, resolved.
        vocabulary_size: its number of pieces.
        corpus: the corpus, for the vocabularies; None: they are not compared.
        notes: remarks are appended.

    Returns:
        ``teachers``, ``matches`` and ``soft_labels`` for people; what the student's matches train
        besides it, ``projection_parameters``; and what all this adds, ``memory_bytes`` and
        ``operations_per_step``.

    Raises:
        ZhbertError: a teacher does not fit.
    """
    settings = recipe.distill
    assert settings is not None
    student = BertConfig(vocab_size=vocabulary_size, **flatten(shape))
    teachers = _teachers(recipe, settings, corpus, notes)
    plan = MatchPlan()
    if teachers and len(teachers) == len(settings.teachers):
        plan = plan_matches(settings, student, [teacher.config for teacher in teachers])
    check_memory(teachers, sum(count_parameters_by_part(student).values()), total_memory())
    parameters = sum(teacher.num_parameters for teacher in teachers)
    pieces = recipe.batch_size * recipe.sequence_length
    return {
        "teachers": [_described(teacher) for teacher in teachers],
        "matches": plan.describe(),
        "soft_labels": describe_soft_labels(settings, vocabulary_size),
        "weights": {"hard": settings.hard_weight, "soft": settings.soft_weight},
        "projection_parameters": plan.num_parameters,
        "memory_bytes": parameters * BYTES_PER_WEIGHT + plan.num_parameters * BYTES_PER_PARAMETER,
        "operations_per_step": pieces
        * sum(_forward_operations(recipe, teacher, vocabulary_size) for teacher in teachers),
    }


def _teachers(
    recipe: Recipe, settings: DistillSettings, corpus: Corpus | None, notes: list[str]
) -> list[TeacherFolder]:
    """Find the teachers that are here; note what is said only when they are."""
    if not settings.teachers:
        notes.append(
            "[distill] needs a teacher: with --teacher MODEL, this says which layer matches which, "
            "and what the teacher costs"
        )
    rows = None
    if corpus is not None:
        rows = StudentRows(
            tokenizer=corpus.tokenizer(),
            counts=corpus.piece_counts,
            longest=recipe.sequence_length,
            pairs=recipe.rows.builder == "pairs",
        )
    found = []
    for name in settings.teachers:
        if is_here(name):
            found.append(find_teacher(name, rows, settings))
            if settings.soft_labels != "none":
                check_fills_masks(found[-1])
        else:
            notes.append(_not_here(name, settings))
    return found


def _not_here(name: str, settings: DistillSettings) -> str:
    """Return what is known of a teacher before it is fetched."""
    card = find_card(name)
    if card is not None and not card.fills_masks and settings.soft_labels != "none":
        return (
            f"--teacher {name}: its published files have no trained masked-word head, so it will "
            "be refused: train it first (zhbert pretrain continue-domain --corpus CORPUS --out RUN "
            f"initial_model={name}), or set distill.soft_labels=none"
        )
    return (
        f"--teacher {without_secrets(name)}: not here: it is fetched when training begins; 'zhbert "
        "download' fetches it before, and then its matches and costs are said here"
    )


def _described(teacher: TeacherFolder) -> dict[str, Any]:
    vocabulary = teacher.vocabulary
    mapped = vocabulary is not None and not vocabulary.is_identity
    return {
        "name": teacher.name,
        "layers": teacher.config.num_hidden_layers,
        "hidden_size": teacher.config.hidden_size,
        "heads": teacher.config.num_attention_heads,
        "parameters": teacher.num_parameters,
        "vocabulary": str(vocabulary) if mapped else None,
    }


def describe_soft_labels(settings: DistillSettings, vocabulary_size: int) -> str:
    """Describe the loss of the soft labels.

    >>> describe_soft_labels(DistillSettings(top_k=10, temperature=2.0), 21128)
    "cross entropy over the teacher's 10 best pieces, temperature 2"
    """
    if settings.soft_labels == "none":
        return "none"
    loss = {"ce": "cross entropy", "mse": "squared error of the logits"}[settings.soft_labels]
    best = f"the teacher's {settings.top_k} best pieces"
    over = best if settings.top_k else f"all {vocabulary_size:,} pieces"
    text = f"{loss} over {over}, temperature {settings.temperature:g}"
    if settings.temperature_schedule != "constant":
        text += f" ({settings.temperature_schedule})"
    if len(settings.teachers) > 1:
        text += f", the mean of {len(settings.teachers)} teachers"
    return text


def _forward_operations(recipe: Recipe, teacher: TeacherFolder, vocabulary_size: int) -> float:
    """Return the floating-point operations per piece of a teacher's forward pass."""
    soft = recipe.distill is not None and recipe.distill.soft_labels != "none"
    work = Workload.of(
        teacher.config,
        vocabulary_size=vocabulary_size if soft else 0,
        sequence_length=recipe.sequence_length,
        predicted_share=max(recipe.masking.rate, recipe.masking.final_rate or 0.0) if soft else 0.0,
    )
    return work.operations() / 3
