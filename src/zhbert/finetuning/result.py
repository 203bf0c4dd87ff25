"""The files of a finished seed: predictions, model and, written last, result.json."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from torch import nn

from zhbert.files import atomic_folder, read_json_if_sound, to_json, write_json, write_text
from zhbert.finetuning.best import Best
from zhbert.finetuning.fine_tuned import section_of
from zhbert.finetuning.training_task import ScoredSplit, TrainingTask
from zhbert.inference.run_model import run_model
from zhbert.model.config import SECTION
from zhbert.tasks.examples import Prediction
from zhbert.tasks.learners.base import Learner
from zhbert.tasks.scoring import (
    check_submission,
    metrics_of,
    prediction_lines,
    report,
    write_submission,
)
from zhbert.train.loop import Outcome

RESULT = "result.json"
# The keys of result.json that a summary needs.
RESULT_KEYS = {
    "seed", "metrics", "seconds", "examples_per_second", "pieces_per_second", "padding_share",
}  # fmt: skip


def finished(folder: Path) -> dict[str, Any] | None:
    """Return the result of a finished seed, or None if it is not finished."""
    result = read_json_if_sound(folder / RESULT)
    return result if result.keys() >= RESULT_KEYS and (folder / "final").is_dir() else None


def write_result(
    folder: Path, task: TrainingTask, model: nn.Module, best: Best, *, seed: int, outcome: Outcome
) -> dict[str, Any]:
    """Write all files of a finished seed's folder and return the content of result.json.

    Args:
        folder: the seed's folder.
        task: the task that was trained.
        model: the model with the best weights; its head is converted to the usual output form.
        best: the best weights and their scores.
        seed: the seed's number.
        outcome: how the training ended.
    """
    learner = task.learner.resumed(best.kind)
    scores = best.scores
    if scores is None:
        scores = run_model(model, task.dev.rows, learner.scores)
    predictions = learner.decode(task.dev, scores)
    classes = _write_dev(folder, task, predictions)
    metrics = dict(best.metrics)
    for name, split in task.also.items():
        metrics |= _write_further_split(folder, learner, model, name, split)
    write_model(folder / "final", task, learner, model)
    steps, pieces, seconds = outcome.step, outcome.pieces, outcome.seconds
    examples = steps / task.steps_per_epoch * len(task.train.examples)
    result = {
        "seed": seed,
        "metrics": metrics,
        **classes,
        "best_step": best.step,
        "best_epoch": best.epoch,
        "steps": steps,
        "stopped_early": steps < task.steps,
        "seconds": seconds,
        "examples_per_second": examples / seconds if seconds else None,
        "pieces_per_second": pieces / seconds if seconds else None,
        "padding_share": task.padding_share(seed),
    }
    write_json(folder / RESULT, result)
    return result


def _write_dev(folder: Path, task: TrainingTask, predictions: list[Prediction]) -> dict[str, Any]:
    """Write predictions.jsonl and the submission for dev; return the scores of each class."""
    card, examples = task.card, task.dev.examples
    lines = prediction_lines(card, examples, predictions)
    write_text(folder / "predictions.jsonl", "".join(to_json(line) + "\n" for line in lines))
    path = write_submission(card, examples, predictions, folder / "submission")
    check_submission(card, examples, predictions, path, task.say)
    pairs = zip(examples, predictions, strict=True)
    by_id = {one.id: prediction.value for one, prediction in pairs}
    return report(card, examples, by_id)


def _write_further_split(
    folder: Path, learner: Learner, model: nn.Module, name: str, split: ScoredSplit
) -> dict[str, float]:
    """Write the submission for a further split; return its metrics, suffixed with its name."""
    prepared = split.prepared
    scores = run_model(model, prepared.rows, learner.scores)
    predictions = learner.decode(prepared, scores)
    write_submission(split.card, prepared.examples, predictions, folder / f"submission-{name}")
    found = metrics_of(split.card, prepared.examples, predictions)
    suffix = name.removeprefix("dev_")
    return {f"{metric}_{suffix}": value for metric, value in found.items()}


def write_model(folder: Path, task: TrainingTask, learner: Learner, model: nn.Module) -> None:
    """Write the model folder, with the task in config.json so that the folder can predict."""
    learner.finish(model)
    other = cast(Any, model).config.other
    other[SECTION] = section_of(task.card, learner)
    other.pop("problem_type", None)
    if task.kind.problem_type is not None:
        other["problem_type"] = task.kind.problem_type
    with atomic_folder(folder) as temporary:
        cast(Any, model).save_pretrained(temporary)
        length = task.settings.sequence_length
        learner.tokenizer.save_pretrained(temporary, model_max_length=length)
