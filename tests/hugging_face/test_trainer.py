"""transformers' Trainer, 5 and 4, with our classes: the losses of transformers' own classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.model.conftest import SHAPE, enlarge
from tests.transformers4 import ROOT, run_with_transformers4

import zhbert
from zhbert import BertConfig, BertForMaskedLM, BertForSequenceClassification

# Trainer warns of how it uses PyTorch.
pytestmark = pytest.mark.filterwarnings("ignore")

# Runs in the process of transformers 4, too.
TRAIN = """
import torch, transformers


def rows_of(kind, count=24, length=9):
    "Rows of unequal length, except for questions: transformers' loss sees their padding."
    generator = torch.Generator().manual_seed(3)
    rows = []
    for number in range(count):
        size = length if "Question" in kind else 4 + number % 6
        ids = torch.randint(1, 97, (size,), generator=generator).tolist()
        padding = [0] * (length - size)
        row = {"input_ids": ids + padding, "attention_mask": [1] * size + padding}
        of_pieces = [i % 3 if i % 4 == 1 else -100 for i in ids] + [-100] * len(padding)
        row |= {
            "BertForMaskedLM": {"labels": of_pieces},
            "BertForTokenClassification": {"labels": of_pieces},
            "BertForSequenceClassification": {"labels": ids[0] % 3},
            "BertForQuestionAnswering": {"start_positions": ids[0] % 9, "end_positions": 8},
        }[kind]
        rows.append(row)
    return rows


def trainer_of(model, folder, kind, **options):
    settings = {
        "per_device_train_batch_size": 4, "max_steps": 6, "learning_rate": 1e-3, "seed": 1,
        "logging_steps": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True,
        "save_strategy": "no",
    }
    rows = rows_of(kind)
    return transformers.Trainer(
        model=model, args=transformers.TrainingArguments(str(folder), **settings | options),
        train_dataset=rows, eval_dataset=rows[:10],
    )


def trained(model, folder, kind, **options):
    trainer = trainer_of(model, folder, kind, **options)
    trainer.train()
    losses = [one["loss"] for one in trainer.state.log_history if "loss" in one]
    evaluated = trainer.evaluate()["eval_loss"]
    predicted = trainer.predict(rows_of(kind)[:5]).predictions
    return losses, evaluated, predicted
"""
PROGRAM: dict[str, Any] = {}
exec(TRAIN, PROGRAM)

KINDS = [
    "BertForMaskedLM",
    "BertForSequenceClassification",
    "BertForTokenClassification",
    "BertForQuestionAnswering",
]


def write_model(kind: str, folder: Path) -> Path:
    shape = {**SHAPE, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    labels = {"num_labels": 3} if "Classification" in kind else {}
    enlarge(getattr(zhbert, kind)(BertConfig(**shape, **labels))).save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_has_the_loss_of_transformers_own_class(kind: str, tmp_path: Path) -> None:
    import transformers

    folder = write_model(kind, tmp_path / "model")
    theirs = getattr(transformers, kind).from_pretrained(folder)
    ours = getattr(zhbert, kind).from_pretrained(folder)
    expected, found = (PROGRAM["trained"](model, tmp_path, kind) for model in (theirs, ours))
    assert len(found[0]) == 6
    assert found[0][0] != found[0][5]
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found[1], expected[1], rtol=1e-4)
    if kind != "BertForQuestionAnswering":
        there = np.array([row["attention_mask"] for row in PROGRAM["rows_of"](kind)[:5]]) == 1
        both = [p if kind == KINDS[1] else p[there] for p in (found[2], expected[2])]
        np.testing.assert_allclose(*both, rtol=1e-3, atol=1e-3)


def test_transformers_4_trains_them_too(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification

    kind = "BertForSequenceClassification"
    folder = write_model(kind, tmp_path / "model")
    # Its process has the hub's library of that time, which the newest datasets cannot use.
    program = f"""
import sys
from transformers.utils import import_utils
import_utils._datasets_available = False
{TRAIN}
sys.path.insert(0, {str(ROOT / "src")!r})
import zhbert
folder = sys.argv[1]
losses, evaluated, _ = trained(zhbert.{kind}.from_pretrained(folder), folder, {kind!r})
result = [transformers.__version__, losses, evaluated]
"""
    version, losses, evaluated = run_with_transformers4(program, str(folder))
    assert version.startswith("4.")
    theirs = AutoModelForSequenceClassification.from_pretrained(folder)
    expected = PROGRAM["trained"](theirs, tmp_path, kind)
    np.testing.assert_allclose(losses, expected[0], atol=1e-4)
    np.testing.assert_allclose(evaluated, expected[1], rtol=1e-3)


def test_accumulated_gradients_are_those_of_the_whole_batch(tmp_path: Path) -> None:
    folder = write_model("BertForMaskedLM", tmp_path / "model")
    weights = []
    for size, parts in ((4, 1), (2, 2)):
        model = BertForMaskedLM.from_pretrained(folder)
        trainer = PROGRAM["trainer_of"](
            model, tmp_path, "BertForMaskedLM", max_steps=2, optim="sgd",
            per_device_train_batch_size=size, gradient_accumulation_steps=parts,
        )  # fmt: skip
        trainer.train()
        weights.append(model.mlm_head.bias.detach().clone())
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)


def test_checkpoints_resume_and_the_best_one_is_loaded(tmp_path: Path) -> None:
    kind = "BertForSequenceClassification"
    folder = write_model(kind, tmp_path / "model")
    saving = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}

    def run(name: str, resume: str | None = None, **options: Any) -> Any:
        model = BertForSequenceClassification.from_pretrained(folder)
        trainer = PROGRAM["trainer_of"](model, tmp_path / name, kind, **saving, **options)
        trainer.train(resume_from_checkpoint=resume)
        return trainer

    whole = run("whole")
    again = run("again", str(tmp_path / "whole" / "checkpoint-4"))
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        torch.testing.assert_close(one, other)
    best = run("best", load_best_model_at_end=True, learning_rate=0.5)
    assert best.evaluate()["eval_loss"] == pytest.approx(best.state.best_metric)
    best.model.save_pretrained(tmp_path / "final")
    final = BertForSequenceClassification.from_pretrained(tmp_path / "final")
    assert torch.equal(final.classifier.weight, best.model.classifier.weight)


def test_gradient_checkpointing_and_label_smoothing(tmp_path: Path) -> None:
    import transformers

    kind = "BertForTokenClassification"
    folder = write_model(kind, tmp_path / "model")
    options = {"gradient_checkpointing": True, "label_smoothing_factor": 0.1}
    theirs = getattr(transformers, kind).from_pretrained(folder)
    ours = getattr(zhbert, kind).from_pretrained(folder)
    expected, found = (
        PROGRAM["trained"](model, tmp_path, kind, **options) for model in (theirs, ours)
    )
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-4)


def test_an_accelerator_prepares_trains_and_saves(tmp_path: Path) -> None:
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState

    AcceleratorState._reset_state(reset_partial_state=True)
    model: Any = BertForMaskedLM.from_pretrained(write_model("BertForMaskedLM", tmp_path / "model"))
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), lr=0.1))
    batch = PROGRAM["rows_of"]("BertForMaskedLM")[:4]
    output = model(**{name: torch.tensor([row[name] for row in batch]) for name in batch[0]})
    assert output.logits.dtype == torch.float32
    accelerator.backward(output.loss)
    optimizer.step()
    accelerator.unwrap_model(model).save_pretrained(
        tmp_path / "out",
        is_main_process=accelerator.is_main_process,
        save_function=accelerator.save,
        state_dict=accelerator.get_state_dict(model),
    )
    AcceleratorState._reset_state(reset_partial_state=True)
    again = BertForMaskedLM.from_pretrained(tmp_path / "out")
    assert torch.equal(again.mlm_head.bias, accelerator.unwrap_model(model).mlm_head.bias)


def test_lora_of_peft_is_trained_saved_and_merged(tmp_path: Path) -> None:
    import peft

    kind = "BertForSequenceClassification"
    folder = write_model(kind, tmp_path / "model")
    settings = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["qkv"], r=2)
    adapted = peft.get_peft_model(BertForSequenceClassification.from_pretrained(folder), settings)
    options = {"learning_rate": 0.1, "label_names": ["labels"]}
    trainer = PROGRAM["trainer_of"](adapted, tmp_path, kind, **options)
    trainer.train()
    expected = trainer.predict(PROGRAM["rows_of"](kind)[:5]).predictions
    adapted.save_pretrained(tmp_path / "adapter")
    again = peft.PeftModel.from_pretrained(
        BertForSequenceClassification.from_pretrained(folder), tmp_path / "adapter"
    )
    again.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = BertForSequenceClassification.from_pretrained(tmp_path / "merged")
    found = PROGRAM["trainer_of"](merged, tmp_path, kind).predict(PROGRAM["rows_of"](kind)[:5])
    np.testing.assert_allclose(found.predictions, expected, rtol=1e-4, atol=1e-4)
