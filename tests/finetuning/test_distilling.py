"""Students that learn a task from fine-tuned teachers, beside its labels or from them alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from tests.small_tasks import CARDS, PIECES, QUICK, make_model, make_task
from torch.nn import functional

from zhbert.config import DistillSettings, Match
from zhbert.distill.matcher import Projections
from zhbert.distill.matching import MatchPlan, plan_matches
from zhbert.errors import ZhbertError
from zhbert.files import read_json, write_json
from zhbert.finetuning import seed as finetune_seed
from zhbert.finetuning import teachers as task_teachers
from zhbert.finetuning.distilling import Distilling
from zhbert.finetuning.fine_tuned import open_fine_tuned
from zhbert.finetuning.locate import locate_teacher
from zhbert.finetuning.run import finetune
from zhbert.finetuning.starting_model import StartingModel, open_with_head
from zhbert.finetuning.teachers import Teachers
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining
from zhbert.surgery.shrink import shrink
from zhbert.tasks.batches import BatchLimits
from zhbert.tasks.cards import load_card
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.read import read_examples
from zhbert.tasks.rows import gather
from zhbert.tasks.settings import FineTuningSettings
from zhbert.text.tokenizer import Tokenizer

CPU = torch.device("cpu")
SHORT = (*QUICK, "epochs=1")
SAME_HIDDEN = 'distill.matches=[{loss="hidden_mse"}, {loss="relations", heads=2}]'


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    """A model as the teachers started from, narrower, and with one layer."""
    folder = tmp_path_factory.mktemp("students") / "start"
    config = BertConfig(
        vocab_size=len(PIECES), hidden_size=16, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=64, initializer_range=0.05,
    )  # fmt: skip
    BertForPreTraining(config, seed=3).save_pretrained(folder)
    Tokenizer(PIECES).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    return {kind: make_task(folder / kind, kind, train=40) for kind in CARDS}


def teacher_of(tuned, kind):
    return tuned / kind / "run"


def lines_of(run):
    text = (run / "seed-0" / "metrics.jsonl").read_text(encoding="utf-8")
    return [line for line in map(json.loads, text.splitlines()) if "loss" in line]


def weights(run):
    return (run / "seed-0" / "final" / "model.safetensors").read_bytes()


def changed_config(folder, target, change):
    """A copy of a fine-tuned model whose config.json is changed."""
    shutil.copytree(folder, target)
    config = read_json(target / "config.json", dict)
    change(config)
    write_json(target / "config.json", config)
    return target


# -- what is learnt --------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", CARDS)
def test_every_kind_learns_from_a_teacher_without_labels(tuned, tmp_path, kind):
    overrides = [*QUICK, "epochs=5", "optimizer.learning_rate=2e-3"]
    overrides += ["distill.hard_weight=0", "distill.temperature=1"]
    card = tuned / kind / f"my_{kind}.toml"
    teachers = [teacher_of(tuned, kind)]
    run = finetune(card, tuned / "model", None, tmp_path / "run", overrides, teachers=teachers)
    losses = [line["soft_labels_loss"] for line in lines_of(tmp_path / "run")]
    if kind == "regress":  # this teacher's own numbers are far from right
        assert losses[-1] < 0.05 * losses[0]
    else:
        metric = run.summary["main_metric"]
        theirs = read_json(teachers[0] / "summary.json", dict)["metrics"][metric]["mean"]
        assert run.summary["metrics"][metric]["mean"] > 0.75 * theirs
    folder = str((teachers[0] / "seed-0" / "final").resolve())
    assert run.summary["teachers"] == [{"name": "run", "folder": folder}]


def objective_and_batch(tuned, kind, settings, count=12):
    """A student's objective, the student, and a batch of some training examples."""
    card = load_card(tuned / kind / f"my_{kind}.toml")
    start = StartingModel.open("t", locate_teacher(teacher_of(tuned, kind)))
    wanted = FineTuningSettings(sequence_length=32)
    learner = KINDS[kind].learner(card, start.tokenizer, wanted, card.data.labels)
    prepared = learner.prepare(read_examples(card, None, "train")[:count], training=True)
    teachers = Teachers([start], card, CPU, print)
    teachers.opened(prepared.rows, learner, settings)
    rows = replace(prepared.rows, soft=teachers.soft_targets(prepared.rows, learner))
    student = open_with_head(tuned / "model", KINDS[kind], learner, 4)
    objective = Distilling(kind, learner, settings, MatchPlan(), [])
    return objective, student, replace(prepared, rows=rows)


def padded_logits(model, rows):
    """Each row's logits by the model's padded forward, one row after another."""
    for number in range(len(rows)):
        ids = torch.tensor(rows.row(number)[None].astype(np.int64))
        types = (torch.arange(ids.shape[1])[None] >= int(rows.second[number])).long()
        output = model(ids, token_type_ids=types)
        yield (
            torch.stack((output.start_logits[0], output.end_logits[0]))
            if output.start_logits is not None
            else output.logits[0]
        )


def slow_losses(kind, own, theirs, rows, number, temperature):
    """The hard and the soft loss of one row, by torch's functions alone."""
    target = torch.from_numpy(np.asarray(rows.targets))
    if kind == "regress":
        scaled = (theirs - 0) / 4  # label_range = [0, 4]
        return (own[0] - target[number]) ** 2, (own[0] - scaled[0]) ** 2
    if kind == "multi_label":
        bce = functional.binary_cross_entropy_with_logits
        soft = bce(own / temperature, torch.sigmoid(theirs / temperature))
        return bce(own, target[number]), soft
    if kind == "tag":
        mine = target[rows.cu_seqlens[number] : rows.cu_seqlens[number + 1]]
        own, theirs, mine = own[mine >= 0], theirs[mine >= 0], mine[mine >= 0]
    else:
        mine = target[number].reshape(-1)
        own, theirs = own.reshape(len(mine), -1), theirs.reshape(len(mine), -1)
    each = 2 if kind == "span" else 1
    chances = torch.softmax(theirs / temperature, -1)
    soft = -(chances * torch.log_softmax(own / temperature, -1)).sum()
    return functional.cross_entropy(own, mine, reduction="sum") / each, soft / each


@pytest.mark.parametrize("kind", ["classify", "multi_label", "regress", "tag", "span"])
def test_hard_and_soft_losses_are_those_of_each_row_by_itself(tuned, kind):
    settings = DistillSettings(temperature=3.0)
    objective, student, prepared = objective_and_batch(tuned, kind, settings)
    rows = prepared.rows
    teacher = open_fine_tuned(locate_teacher(teacher_of(tuned, kind))).model
    with torch.no_grad():
        batch = gather(rows, np.arange(len(rows)))
        found, _ = objective(student, batch, 0)
        pairs = zip(padded_logits(student, rows), padded_logits(teacher, rows), strict=True)
        expected = torch.stack(
            [
                torch.stack(slow_losses(kind, own, theirs, rows, number, 3.0))
                for number, (own, theirs) in enumerate(pairs)
            ]
        ).sum(0)
    assert objective.parts == (kind, "soft_labels")
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert objective.counts(batch) == (batch.predictions,) * 2


def test_squared_errors_of_spans_are_means_over_each_rows_pieces(tuned):
    settings = DistillSettings(soft_labels="mse", temperature=2.0)
    objective, student, prepared = objective_and_batch(tuned, "span", settings)
    rows = prepared.rows
    teacher = open_fine_tuned(locate_teacher(teacher_of(tuned, "span"))).model
    with torch.no_grad():
        found, _ = objective(student, gather(rows, np.arange(len(rows))), 0)
        pairs = zip(padded_logits(student, rows), padded_logits(teacher, rows), strict=True)
        expected = sum(functional.mse_loss(own / 2, theirs / 2) for own, theirs in pairs)
    torch.testing.assert_close(found[1], expected, rtol=1e-4, atol=1e-5)


def test_vectors_learn_the_cosines_of_a_whole_step_however_it_is_divided(tuned):
    objective, student, prepared = objective_and_batch(tuned, "embed", DistillSettings())
    batches = objective.learner.batches(prepared)
    found = []
    for limits in (BatchLimits(10**6, 0, 10**6), BatchLimits(60, 0, 0)):
        parts = batches.gather(np.arange(len(prepared.examples)), limits)
        student.zero_grad()
        with torch.no_grad():
            ready = objective.whole_step(student, parts, 7)
        sums = torch.stack([objective(student, part, 7)[0] for part in ready])
        sums[:, 1].sum().backward()
        found.append(
            (
                len(parts),
                sums.detach().sum(0),
                student.encoder.layers[0].feed_forward.inner.weight.grad,
            )
        )
    (one, whole, gradient), (several, cached, again) = found
    assert (one, several > 1) == (1, True)
    torch.testing.assert_close(cached, whole, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(again, gradient, rtol=1e-3, atol=1e-6)
    # Each text once, in the order of the rows of the step.
    vectors = functional.normalize(
        torch.cat([objective.learner.scores(student, p.packed) for p in parts])
    )
    theirs = torch.cat([part.soft for part in parts])
    expected = functional.mse_loss(vectors @ vectors.T, theirs @ theirs.T)
    torch.testing.assert_close(whole[1] / len(prepared.examples), expected, rtol=1e-4, atol=1e-6)
