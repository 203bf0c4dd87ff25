"""Students that learn a task from fine-tuned teachers, beside its labels or from them alone."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.small_tasks import CARDS, PIECES, QUICK, make_model, make_task
from torch.nn import functional

from zhbert.config import DistillSettings
from zhbert.distill.matching import MatchPlan
from zhbert.errors import ZhbertError
from zhbert.files import read_json, write_json
from zhbert.finetuning import seed as finetune_seed
from zhbert.finetuning import teachers as task_teachers
from zhbert.finetuning.distilling import Distilling
from zhbert.finetuning.fine_tuned import open_fine_tuned
from zhbert.finetuning.locate import locate_fine_tuned
from zhbert.finetuning.run import finetune
from zhbert.finetuning.starting_model import StartingModel, open_with_head
from zhbert.finetuning.teachers import Teachers
from zhbert.model.config import BertConfig
from zhbert.model.pretrained import BertForPreTraining
from zhbert.tasks.batches import BatchLimits
from zhbert.tasks.cards import load_card
from zhbert.tasks.kinds import KINDS
from zhbert.tasks.kinds.base import Learning
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
    start = StartingModel.open("t", locate_fine_tuned(teacher_of(tuned, kind)))
    wanted = FineTuningSettings(sequence_length=32)
    learner = KINDS[kind].learner(Learning(card, start.tokenizer, wanted, card.data.labels))
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
    teacher = open_fine_tuned(locate_fine_tuned(teacher_of(tuned, kind))).model
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
    teacher = open_fine_tuned(locate_fine_tuned(teacher_of(tuned, "span"))).model
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


# -- several teachers, labels in another order, another vocabulary ---------------------------------


def soft_targets(tuned, folders, kind="classify", settings=None):
    """What is learnt from these teachers on the first training examples, and the rows."""
    card = load_card(tuned / kind / f"my_{kind}.toml")
    own = StartingModel.open("s", tuned / "model")
    wanted = FineTuningSettings(sequence_length=32)
    learner = KINDS[kind].learner(Learning(card, own.tokenizer, wanted, card.data.labels))
    rows = learner.prepare(read_examples(card, None, "train")[:20], training=True).rows
    teachers = Teachers([StartingModel.open("t", one) for one in folders], card, CPU, print)
    teachers.opened(rows, learner, settings or DistillSettings())
    return teachers.soft_targets(rows, learner)


def with_labels_turned(folder, target, labels):
    """A classifier as transformers writes it, whose labels stand in the opposite order."""

    def change(config):
        del config["zhbert"]
        config["id2label"] = dict(enumerate(labels[::-1]))
        config["label2id"] = {label: row for row, label in enumerate(labels[::-1])}

    changed_config(folder, target, change)
    tensors = load_file(target / "model.safetensors")
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name].flip(0).contiguous()
    save_file(tensors, target / "model.safetensors")
    return target


def test_labels_of_a_teacher_may_stand_in_any_order(tuned, tmp_path):
    final = locate_fine_tuned(teacher_of(tuned, "classify"))
    turned = with_labels_turned(final, tmp_path / "turned", ["neg", "pos"])
    np.testing.assert_allclose(
        soft_targets(tuned, [turned]), soft_targets(tuned, [final]), atol=1e-6
    )


def test_several_teachers_are_averaged_as_by_textbrewer(tuned, tmp_path):
    """The mean of their logits, and of the cosines of their vectors."""
    final = locate_fine_tuned(teacher_of(tuned, "classify"))
    other = changed_config(final, tmp_path / "other", lambda config: None)
    tensors = load_file(other / "model.safetensors")
    tensors["classifier.weight"] *= -3
    save_file(tensors, other / "model.safetensors")
    one, two = (soft_targets(tuned, [folder]) for folder in (final, other))
    np.testing.assert_allclose(soft_targets(tuned, [final, other]), (one + two) / 2, atol=1e-5)

    final = locate_fine_tuned(teacher_of(tuned, "embed"))
    vectors = [soft_targets(tuned, one, "embed") for one in ([final], [tuned / "model"])]
    both = soft_targets(tuned, [final, tuned / "model"], "embed")
    cosines = sum(one @ one.T for one in vectors) / 2
    np.testing.assert_allclose(both @ both.T / 2, cosines, atol=1e-5)


def test_a_teacher_of_another_vocabulary_says_the_same(tuned, tmp_path):
    final = locate_fine_tuned(teacher_of(tuned, "classify"))
    order = np.random.default_rng(1).permutation(len(PIECES))
    other = changed_config(final, tmp_path / "other", lambda config: None)
    name = "bert.embeddings.word_embeddings.weight"
    tensors = load_file(other / "model.safetensors")
    tensors[name] = tensors[name][torch.from_numpy(order)].contiguous()
    save_file(tensors, other / "model.safetensors")
    Tokenizer([PIECES[row] for row in order]).save_pretrained(other)
    with pytest.raises(ZhbertError, match="other_vocabulary=map"):
        soft_targets(tuned, [other])
    mapped = soft_targets(tuned, [other], settings=DistillSettings(other_vocabulary="map"))
    np.testing.assert_allclose(mapped, soft_targets(tuned, [final]), atol=1e-6)


def test_a_run_stands_for_its_best_seed(tmp_path):
    for seed in (0, 2):
        make_model(tmp_path / f"seed-{seed}" / "final")
    metrics = {"f1": {"values": [70.0, 80.0]}}
    summary = {"main_metric": "f1", "seeds": [0, 2], "metrics": metrics}
    write_json(tmp_path / "summary.json", summary)
    assert locate_fine_tuned(tmp_path) == tmp_path / "seed-2" / "final"
    write_json(tmp_path / "summary.json", {"title": "of something else"})
    with pytest.raises(ZhbertError, match="not that of a fine-tuning run"):
        locate_fine_tuned(tmp_path)


# -- runs ------------------------------------------------------------------------------------------


def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(
    tuned, tmp_path, start, cards, monkeypatch
):
    """With projections, which are trained, in checkpoints, and not in the final model."""
    overrides = [*QUICK, "optimizer.learning_rate=2e-3", "checkpoint_every=3", SAME_HIDDEN]
    overrides += ["distill.soft_schedule=decay", "distill.hard_schedule=growth"]
    card, teachers = cards["tag"], [teacher_of(tuned, "tag")]
    whole = finetune(card, start, None, tmp_path / "whole", overrides, teachers=teachers)
    real = finetune_seed.Checkpoints.save
    done = []

    def save(self, step, groups, info):
        if len(done) == 2:
            raise KeyboardInterrupt
        assert "matching.maps.hidden_mse.0.weight" in groups["model"]
        done.append(step)
        return real(self, step, groups, info)

    with monkeypatch.context() as patch:
        patch.setattr(finetune_seed.Checkpoints, "save", save)
        with pytest.raises(KeyboardInterrupt):
            finetune(card, start, None, tmp_path / "run", overrides, teachers=teachers)
    finetune(card, start, None, tmp_path / "run", overrides, teachers=teachers)
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    mine, theirs = (lines_of(tmp_path / name) for name in ("run", "whole"))
    parts = ("tag_loss", "soft_labels_loss", "hidden_mse_loss", "relations_loss")
    assert [[line[one] for one in parts] for line in mine] == [
        [line[one] for one in parts] for line in theirs
    ]
    # At first the labels weigh nothing, and the soft ones what they usually do.
    soft, *matched = (mine[0][one] for one in parts[1:])
    assert mine[0]["loss"] == pytest.approx(16 * soft + sum(matched))
    tensors = load_file(tmp_path / "run" / "seed-0" / "final" / "model.safetensors")
    assert whole.summary["parameters"] == sum(one.numel() for one in tensors.values())
    assert whole.summary["settings"]["distill.matches"][1]["heads"] == 2


def test_a_teacher_runs_once_for_all_epochs_seeds_and_points(
    tuned, tmp_path, start, cards, monkeypatch
):
    seen = []
    real = task_teachers.run_model

    def counted(model, rows, forward):
        seen.append(len(rows))
        return real(model, rows, forward)

    monkeypatch.setattr(task_teachers, "run_model", counted)
    overrides = [*SHORT, "distill.temperature=1,4"]
    teachers = [teacher_of(tuned, "classify")]
    run = finetune(cards["classify"], start, None, tmp_path, overrides, teachers=teachers, seeds=2)
    assert seen == [40]
    varied = [point["overrides"] for point in run.summary["grid"]]
    assert varied == [["distill.temperature=1"], ["distill.temperature=4"]]


@pytest.mark.parametrize("kind", ["classify", "embed"])
def test_mixed_precision_and_matches_alone(tuned, tmp_path, start, cards, kind):
    overrides = [*SHORT, SAME_HIDDEN, "distill.soft_labels=none", "precision=bf16"]
    teachers = [teacher_of(tuned, kind)]
    finetune(cards[kind], start, None, tmp_path / "run", overrides, teachers=teachers)
    first, *_, last = lines_of(tmp_path / "run")
    assert "soft_labels_loss" not in first
    assert last["hidden_mse_loss"] < first["hidden_mse_loss"]


def test_the_opening_lines_say_what_is_learnt_from_whom(tuned, tmp_path, start, cards):
    said = []
    overrides = [*SHORT, SAME_HIDDEN, "distill.temperature=4", "distill.hard_weight=0.5"]
    teacher = teacher_of(tuned, "classify")
    finetune(
        cards["classify"], start, None, tmp_path / "run", overrides,
        teachers=[teacher], say=said.append,
    )  # fmt: skip
    text = "\n".join(said)
    assert f"teacher: {teacher}, 2 layers x 32; {teacher / 'seed-0' / 'final'}" in text
    assert "soft labels: cross entropy, temperature 4, weight 16; labels: weight 0.5" in text
    assert "hidden_mse: student 1 <- teacher 2; linear 16 -> 32" in text
    final = teacher / "seed-0" / "final"  # the student is random, and has one layer
    assert f"zhbert shrink {final} --layers 0 --out START" in text
    assert "distill." not in text


# -- what is refused -------------------------------------------------------------------------------


def test_another_teacher_is_another_run(tuned, tmp_path, start, cards):
    final = locate_fine_tuned(teacher_of(tuned, "classify"))
    copy = changed_config(final, tmp_path / "copy", lambda config: None)
    other = with_labels_turned(final, tmp_path / "other", ["neg", "pos"])
    card, run = cards["classify"], tmp_path / "run"
    finetune(card, start, None, run, SHORT, teachers=[final])
    finetune(card, start, None, run, SHORT, teachers=[copy])  # the same, in another place
    for teachers in ([other], [final, other], []):
        with pytest.raises(ZhbertError, match="a run of another teacher is there already"):
            finetune(card, start, None, run, SHORT, teachers=teachers)
    with pytest.raises(ZhbertError, match=r"distill\.temperature = 4"):
        finetune(card, start, None, run, [*SHORT, "distill.temperature=2"], teachers=[final])


def refused(tuned, tmp_path, start, cards, kind="classify", teacher=None, overrides=(), model=None):
    """The one line with which a run is refused; nothing is written."""
    teachers = [teacher or teacher_of(tuned, kind)]
    run = tmp_path / "refused"
    with pytest.raises(ZhbertError) as error:
        finetune(cards[kind], model or start, None, run, [*SHORT, *overrides], teachers=teachers)
    assert not run.exists()
    (line,) = str(error.value).splitlines()
    return line


@pytest.mark.parametrize(
    ("kind", "override", "said"),
    [
        ("classify", "distill.top_k=5", "distill.top_k=5: for pretraining"),
        ("classify", "distill.cache=x", "distill.cache=x: for pretraining"),
        ("classify", "distill.teachers=x", "give --teacher RUN, once for each teacher"),
        ("classify", "distill.temperature=0", "temperature = 0.0: must be above 0"),
        ("classify", "distill.temprature=1", "did you mean 'temperature'"),
        ("classify", 'distill.matches=[{loss="cos", student=[2]}]', "no layer 2"),
        ("classify", 'distill.matches=[{student=[0, 1, 1]}]', "3 layers are matched"),
        ("span", "distill.temperature_schedule=flsw", "rows of questions have different lengths"),
        ("embed", "loss=tsdae", "damaged anew in each epoch"),
    ],
)  # fmt: skip
def test_settings_that_cannot_be(tuned, tmp_path, start, cards, kind, override, said):
    assert said in refused(tuned, tmp_path, start, cards, kind, overrides=[override])


def test_teachers_that_do_not_suit(tuned, tmp_path, start, cards):
    final = locate_fine_tuned(teacher_of(tuned, "classify"))

    def line(teacher, kind="classify", **options):
        return refused(tuned, tmp_path, start, cards, kind, teacher, **options)

    said = line(teacher_of(tuned, "tag"))
    assert "a model of the kind tag, but my_classify is of the kind classify" in said
    assert "not fine-tuned for a task" in line(tuned / "model")
    assert "the folder of --model" in line(final, model=final)
    assert "nothing" in line(tmp_path / "nothing")

    def renamed(config):
        del config["zhbert"]
        config["id2label"], config["label2id"] = {0: "yes", 1: "no"}, {"yes": 0, "no": 1}

    other = changed_config(final, tmp_path / "labels", renamed)
    assert "fine-tuned with the labels yes, no, and my_classify has neg, pos" in line(other)


def test_teachers_that_cannot_read_the_rows(tuned, tmp_path, start, cards):
    def narrow(config):
        config["max_position_embeddings"] = 12
        config["zhbert"]["sequence_length"] = 12

    short = changed_config(locate_fine_tuned(teacher_of(tuned, "regress")), tmp_path / "s", narrow)
    tensors = load_file(short / "model.safetensors")
    name = "bert.embeddings.position_embeddings.weight"
    tensors[name] = tensors[name][:12].contiguous()
    save_file(tensors, short / "model.safetensors")
    said = refused(tuned, tmp_path, start, cards, "regress", short)
    assert "reads rows of 12 pieces at most" in said
    assert said.endswith("set sequence_length=12")

    one = changed_config(
        locate_fine_tuned(teacher_of(tuned, "regress")),
        tmp_path / "one",
        lambda config: config.update(type_vocab_size=1),
    )
    tensors = load_file(one / "model.safetensors")
    name = "bert.embeddings.token_type_embeddings.weight"
    tensors[name] = tensors[name][:1].contiguous()
    save_file(tensors, one / "model.safetensors")
    said = refused(tuned, tmp_path, start, cards, "regress", one)
    assert "the model has one segment only" in said


def test_teachers_larger_than_memory(tuned, tmp_path, start, cards, monkeypatch):
    monkeypatch.setattr(task_teachers, "total_memory", lambda device: 10_000)
    assert "choose a smaller teacher" in refused(tuned, tmp_path, start, cards)


def test_a_teacher_in_the_runs_own_folder(tuned, tmp_path, start, cards):
    run = tmp_path / "run"
    finetune(cards["classify"], start, None, run, SHORT)
    for overwrite in (False, True):
        with pytest.raises(ZhbertError, match="a model of the run in --out"):
            finetune(
                cards["classify"], start, None, run, SHORT, teachers=[run], overwrite=overwrite
            )
    with pytest.raises(ZhbertError, match=r"distill\.temperature=2: there is no teacher"):
        finetune(cards["classify"], start, None, run, [*SHORT, "distill.temperature=2"])
