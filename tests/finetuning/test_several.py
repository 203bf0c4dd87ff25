"""Several tasks with one encoder: what each has at the end, in which order they are learnt, and
that a run goes on to the same bits."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from safetensors.torch import load_file
from tests.small_tasks import LEARNING, QUICK, make_model, make_task

from zhbert.errors import ZhbertError
from zhbert.finetuning import seed as finetune_seed
from zhbert.finetuning.evaluate import evaluate
from zhbert.finetuning.fine_tuned import open_fine_tuned
from zhbert.finetuning.run import finetune
from zhbert.finetuning.shared import SharedTasks
from zhbert.report.build import gather

KINDS = ("classify", "multi_label", "regress", "tag", "span")
FAST = [*QUICK, "epochs=1"]


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="module")
def cards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    return {kind: make_task(folder / kind, kind) for kind in (*KINDS, "embed")}


@pytest.fixture(scope="module")
def together(tuned, tmp_path_factory):
    """A finished run of all kinds of tasks; read it only."""
    run = tmp_path_factory.mktemp("several") / "run"
    tasks = ",".join(str(tuned / kind / f"my_{kind}.toml") for kind in KINDS)
    finetune(tasks, tuned / "model", None, run, [*QUICK, *LEARNING])
    return run


def joined(cards, *kinds):
    return ",".join(str(cards[kind]) for kind in kinds)


def json_of(path):
    return json.loads(path.read_text(encoding="utf-8"))


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def weights(run):
    return {
        path.parents[2].name: path.read_bytes() for path in run.glob("*/seed-0/final/*.safetensors")
    }


def refusal(*arguments, **options):
    with pytest.raises(ZhbertError) as caught:
        finetune(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


# -- what is left ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns_beside_the_others(together, kind):
    summary = json_of(together / f"my_{kind}" / "summary.json")
    best = {"classify": 90, "multi_label": 60, "regress": 70, "tag": 90, "span": 50}[kind]
    assert summary["metrics"][summary["main_metric"]]["max"] > best
    assert summary["together"] == [f"my_{kind}" for kind in KINDS]


def test_all_tasks_have_the_same_encoder_and_heads_of_their_own(together):
    finals = [load_file(together / f"my_{k}" / "seed-0/final/model.safetensors") for k in KINDS]
    shared = set.intersection(*(set(one) for one in finals))
    assert sum("layer" in name for name in shared) > 20
    for name in shared - {"classifier.weight", "classifier.bias"}:
        if "pooler" not in name:
            assert all(one[name].equal(finals[0][name]) for one in finals)
    assert finals[0]["classifier.weight"].shape != finals[1]["classifier.weight"].shape


@pytest.mark.parametrize("kind", KINDS)
def test_each_task_predicts_by_its_folder_as_its_run_says(together, tuned, kind):
    final, card = together / f"my_{kind}" / "seed-0" / "final", tuned / kind / f"my_{kind}.toml"
    (dev,) = card.parent.glob("dev.*")
    expected = json_of(together / f"my_{kind}" / "seed-0" / "result.json")["metrics"]
    assert evaluate(final, card, dev)["metrics"] == pytest.approx(expected)


def test_transformers_opens_each_task(together):
    from transformers import pipeline

    lines = lines_of(together / "my_tag" / "seed-0" / "predictions.jsonl")[:4]
    tag = pipeline("token-classification", model=str(together / "my_tag" / "seed-0" / "final"))
    for line in lines:
        found = {one["index"] - 1: one["entity"] for one in tag("".join(line["tokens"]))}
        assert found == {n: label for n, label in enumerate(line["predicted"]) if label != "O"}


def test_the_kept_weights_have_the_best_mean_of_the_main_metrics(together):
    log = lines_of(together / "seed-0" / "metrics.jsonl")
    best = max((line for line in log if "evaluation" in line), key=lambda line: line["mean"])
    mains = []
    for kind in KINDS:
        summary = json_of(together / f"my_{kind}" / "summary.json")
        mains.append(summary["metrics"][summary["main_metric"]]["max"])
        assert mains[-1] == best[f"my_{kind}_{summary['main_metric']}"]
    assert best["mean"] == pytest.approx(np.mean(mains))
    assert not (together / "seed-0" / "checkpoints").exists()


def test_a_report_shows_each_task_and_the_parts_of_the_loss(together, tuned):
    folders = [together / "my_tag", together / "my_span", tuned / "tag" / "run"]
    report = gather(folders)
    assert [row.model for row in report.table.ours] == ["model, several tasks", "model"]
    parts = report.fine_tuning[0].losses
    assert {f"my_{kind}_{kind}" for kind in KINDS} < set(parts)
    assert all(run.curves for run in report.fine_tuning)
    with pytest.raises(ZhbertError, match="it holds runs: give those"):
        gather([together])


# -- steps -----------------------------------------------------------------------------------------


def test_each_task_has_its_own_steps_in_an_order_of_the_seed(model, cards, tmp_path, monkeypatch):
    seen = []
    real = finetune_seed.SeedRun.go
    monkeypatch.setattr(
        finetune_seed.SeedRun, "go", lambda run: (seen.append(run.task), real(run))[1]
    )
    larger = make_task(tmp_path / "larger", "classify", train=200)
    finetune(f"{larger},{cards['tag']}", model, None, tmp_path / "run", FAST, seeds=2)
    first, second = seen
    assert isinstance(first, SharedTasks)
    assert np.bincount(first.order).tolist() == [200 // 8, 64 // 8]
    assert first.order.tolist() != second.order.tolist()
    every = list(first.micro_batches(0, 0, first.limits))
    alone = first.tasks[0].micro_batches(0, 0, first.limits)
    for step in every:
        if step[0].task == 0:
            for own, theirs in zip(step, next(alone), strict=True):
                assert own.batch.packed.input_ids.equal(theirs.packed.input_ids)
    for done in (1, 7):
        later = list(first.micro_batches(0, done, first.limits))
        assert len(later) == len(every) - done
        for one, other in zip(later, every[done:], strict=True):
            assert one[0].batch.packed.input_ids.equal(other[0].batch.packed.input_ids)


def test_the_first_step_is_that_of_its_task_alone(model, cards, tmp_path):
    finetune(joined(cards, "tag", "span"), model, None, tmp_path / "run", FAST)
    first = lines_of(tmp_path / "run" / "seed-0" / "metrics.jsonl")[0]
    (kind,) = (kind for kind in ("tag", "span") if first[f"my_{kind}_{kind}_loss"] is not None)
    finetune(cards[kind], model, None, tmp_path / "alone", FAST)
    alone = lines_of(tmp_path / "alone" / "seed-0" / "metrics.jsonl")[0]
    assert first["loss"] == alone["loss"] == first[f"my_{kind}_{kind}_loss"]
    assert first["grad_norm"] == alone["grad_norm"]


def test_each_task_has_its_own_peak_of_the_learning_rate(model, cards, tmp_path):
    slow = cards["tag"].read_text(encoding="utf-8") + "\n[settings]\nlearning_rate = 1e-6\n"
    card = tmp_path / "slow.toml"
    card.write_text(slow, encoding="utf-8")
    for file in cards["tag"].parent.glob("*.txt"):
        shutil.copy(file, tmp_path)
    finetune(f"{cards['classify']},{card}", model, None, tmp_path / "run", FAST)
    steps = [one for one in lines_of(tmp_path / "run/seed-0/metrics.jsonl") if "loss" in one]
    for name, peak in (("my_classify_classify", 1e-4), ("slow_tag", 1e-6)):
        rates = [one["learning_rate"] for one in steps if one[f"{name}_loss"] is not None]
        assert peak / 2 < max(rates) <= peak


# -- teachers --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def taught(tuned, tmp_path_factory):
    """A finished run of two tasks with a teacher each, and one without; read it only."""
    run = tmp_path_factory.mktemp("taught") / "run"
    tasks = ",".join(str(tuned / kind / f"my_{kind}.toml") for kind in ("classify", "tag", "span"))
    teachers = [f"my_{kind}={tuned / kind / 'run'}" for kind in ("classify", "tag")]
    overrides = [*QUICK, *LEARNING, "distill.temperature=4"]
    finetune(tasks, tuned / "model", None, run, overrides, teachers=teachers)
    return run


def test_each_task_learns_from_its_own_teacher(taught, tuned):
    step = lines_of(taught / "seed-0" / "metrics.jsonl")[0]
    for kind in ("classify", "tag"):
        given = [step[f"my_{kind}_{part}_loss"] is None for part in (kind, "soft_labels")]
        assert given[0] == given[1]
        summary = json_of(taught / f"my_{kind}" / "summary.json")
        folder = (tuned / kind / "run" / "seed-0" / "final").resolve()
        assert [one["folder"] for one in summary["teachers"]] == [str(folder)]
        assert summary["settings"]["distill.temperature"] == 4
        assert summary["metrics"][summary["main_metric"]]["max"] > 90
    assert "my_span_soft_labels_loss" not in step
    assert "teachers" not in json_of(taught / "my_span" / "summary.json")


def test_a_report_finds_the_teachers_of_several_tasks(taught, tuned):
    runs = [tuned / "tag" / "run", taught / "my_tag"]
    (one,) = gather(runs).distillations
    assert one.student.model == "model, distilled, several tasks"
    assert one.taught is not None
    # The teacher started from the same model, without a teacher.
    assert one.alone is not None


@pytest.mark.parametrize("matches", ["", 'distill.matches=[{loss="hidden_mse"}]'])
def test_the_first_step_with_a_teacher_is_that_of_its_task_alone(tuned, tmp_path, matches):
    cards = [tuned / kind / f"my_{kind}.toml" for kind in ("classify", "tag")]
    overrides = [*FAST, *([matches] if matches else [])]
    runs = {f"my_{kind}": tuned / kind / "run" for kind in ("classify", "tag")}
    finetune(
        ",".join(map(str, cards)), tuned / "model", None, tmp_path / "run", overrides,
        teachers=[f"{name}={run}" for name, run in runs.items()],
    )  # fmt: skip
    first = lines_of(tmp_path / "run" / "seed-0" / "metrics.jsonl")[0]
    card = next(one for one in cards if first[f"{one.stem}_soft_labels_loss"] is not None)
    finetune(
        card, tuned / "model", None, tmp_path / "alone", overrides, teachers=[runs[card.stem]]
    )  # fmt: skip
    alone = lines_of(tmp_path / "alone" / "seed-0" / "metrics.jsonl")[0]
    for key in ("loss", "grad_norm"):
        assert first[key] == alone[key]
    parts = [key for key in alone if key.endswith("_loss")]
    assert len(parts) == (3 if matches else 2)
    assert [first[f"{card.stem}_{part}"] for part in parts] == [alone[part] for part in parts]


def test_a_teacher_of_no_task_is_refused(model, cards, tmp_path):
    two, teacher = joined(cards, "classify", "tag"), str(tmp_path / "x")
    for given in (f"my_span={teacher}", teacher, "my_tag="):
        line = refusal(two, model, None, tmp_path / "run", FAST, teachers=[given])
        expected = "say whose teacher it is: TASK=M; the tasks are my_classify, my_tag"
        assert line == f"--teacher {given}: {expected}"


# -- resumption ------------------------------------------------------------------------------------


@pytest.mark.parametrize("saves", [1, 3])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(
    tmp_path, model, cards, monkeypatch, saves
):
    overrides = [*QUICK, "checkpoint_every=3", "optimizer.learning_rate=2e-3"]
    tasks = joined(cards, "regress", "multi_label")
    finetune(tasks, model, None, tmp_path / "whole", overrides)
    real, done = finetune_seed.Checkpoints.save, []

    def save(self, step, groups, info):
        if len(done) == saves:
            raise KeyboardInterrupt
        done.append(step)
        return real(self, step, groups, info)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(finetune_seed.Checkpoints, "save", save)
        with pytest.raises(KeyboardInterrupt):
            finetune(tasks, model, None, run, overrides)
    finetune(tasks, model, None, run, overrides)
    assert weights(run) == weights(tmp_path / "whole")
    assert len(weights(run)) == 2


def test_finished_seeds_are_kept_and_more_are_added(tmp_path, model, cards):
    tasks, run = joined(cards, "classify", "tag"), tmp_path / "run"
    finetune(tasks, model, None, run, FAST)
    # The card tells of all seeds.
    kept = [path for path in run.glob("*/seed-0/final/*") if path.name != "README.md"]
    before = {path: path.stat().st_mtime_ns for path in kept}
    found = finetune(tasks, model, None, run, FAST, seeds=2).summary["tasks"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert [one["seeds"] for one in found.values()] == [[0, 1], [0, 1]]
    # A task whose result is lost is learnt again, and with it the others.
    expected = weights(run)
    (run / "my_tag" / "seed-0" / "result.json").unlink()
    finetune(tasks, model, None, run, FAST, seeds=2)
    assert weights(run) == expected
    assert open_fine_tuned(run / "my_tag" / "seed-0" / "final").kind.name == "tag"


def test_overwrite_begins_anew(tmp_path, model, cards):
    run = tmp_path / "run"
    finetune(joined(cards, "classify", "tag"), model, None, run, FAST)
    finetune(joined(cards, "regress", "tag"), model, None, run, FAST, overwrite=True)
    assert {path.name for path in run.iterdir() if path.is_dir()} == {
        "my_regress", "my_tag", "seed-0",
    }  # fmt: skip
    final = run / "my_tag" / "seed-0" / "final"
    line = refusal(joined(cards, "regress", "tag"), final, None, run, FAST, overwrite=True)
    assert line.startswith("--overwrite would remove")


# -- refused ---------------------------------------------------------------------------------------


def test_what_cannot_be_learnt_together_is_refused_in_a_line(tmp_path, model, cards):
    run = tmp_path / "run"
    two = joined(cards, "classify", "tag")
    for tasks, overrides, expected in (
        (joined(cards, "tag", "tag"), FAST, "two tasks are called my_tag"),
        ("lcqmc,,bq", FAST, "lcqmc,,bq: an empty name between commas"),
        (two, ["epochs=1,2"], "several tasks take one value a key, and no grid"),
        (joined(cards, "tag", "embed"), FAST, "my_embed: a task of vectors (embed) is trained"),
    ):
        assert expected in refusal(tasks, model, None, run, overrides)
        assert not run.exists()


def test_a_run_goes_on_only_with_the_same_tasks(tmp_path, model, cards):
    run = tmp_path / "run"
    finetune(joined(cards, "classify", "tag"), model, None, run, FAST)
    for kinds in (("tag", "classify"), ("classify", "tag", "span"), ("span", "regress")):
        line = refusal(joined(cards, *kinds), model, None, run, FAST)
        assert line.startswith(f"{run}: a run of other tasks, or in another order, is there")
    line = refusal(cards["tag"], model, None, run / "my_tag", [*FAST], seeds=2)
    assert "a run of another set of tasks with one encoder is there already" in line
    assert "not empty" in refusal(cards["tag"], model, None, run, FAST)
    finetune(cards["tag"], model, None, tmp_path / "alone", FAST)
    assert "not empty" in refusal(
        joined(cards, "classify", "tag"), model, None, tmp_path / "alone", FAST
    )
