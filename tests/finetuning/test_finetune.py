"""A fine-tuning run: what it leaves, that it learns, resumes to the bit, and refuses."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest
import torch
from tests.small_tasks import PIECES, QUICK, make_model, make_task, texts

from zhbert.errors import ZhbertError
from zhbert.finetuning import seed as finetune_seed
from zhbert.finetuning import training_task
from zhbert.finetuning.describe import describe_summary
from zhbert.finetuning.evaluate import evaluate
from zhbert.finetuning.run import finetune
from zhbert.report.comparison import compare_runs
from zhbert.tasks.cards import load_card, parse_card
from zhbert.tasks.learners.span import SpanLearner
from zhbert.tasks.read import read_examples, read_predictions
from zhbert.tasks.scoring import score

KINDS = ("classify", "multi_label", "regress", "tag", "span")
# Cut off between the best evaluation and the end that patience makes.
LATER = ("epochs=30", "patience=3")
SAMPLES = Path(__file__).parents[1] / "tasks" / "samples"


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return make_model(tmp_path_factory.mktemp("models") / "small")


@pytest.fixture(scope="session")
def cards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tasks")
    return {kind: make_task(folder / kind, kind) for kind in KINDS}


@pytest.fixture(scope="session")
def larger_cards(tuned):
    """The same tasks with enough examples to learn them."""
    return {kind: tuned / kind / f"my_{kind}.toml" for kind in KINDS}


@pytest.fixture(scope="session")
def runs(tuned):
    """A finished run of every kind; read them only."""
    return {kind: tuned / kind / "run" for kind in KINDS}


def json_of(path):
    return json.loads(path.read_text(encoding="utf-8"))


def lines_of(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def weights(run, seed=0):
    return (run / f"seed-{seed}" / "final" / "model.safetensors").read_bytes()


# -- what is left ----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_learns(runs, kind):
    summary = json_of(runs[kind] / "summary.json")
    best = {"classify": 90, "multi_label": 60, "regress": 70, "tag": 90, "span": 50}[kind]
    assert summary["metrics"][summary["main_metric"]]["max"] > best
    steps = [line for line in lines_of(runs[kind] / "seed-0" / "metrics.jsonl") if "loss" in line]
    assert steps[-1]["loss"] < steps[0]["loss"] * 3 / 4


@pytest.mark.parametrize("kind", KINDS)
def test_a_run_folder_holds_what_a_report_reads(runs, kind, larger_cards):
    run = runs[kind]
    summary, result = json_of(run / "summary.json"), json_of(run / "seed-0" / "result.json")
    main = summary["metrics"][summary["main_metric"]]
    assert main["values"] == [main["max"]] == [main["mean"]]
    assert main["std"] == 0.0
    assert result["metrics"] == {k: v["max"] for k, v in summary["metrics"].items()}
    assert summary["seeds"] == [0]
    assert (summary["layers"], summary["hidden_size"]) == (2, 32)
    assert summary["examples_per_second"] > 0
    assert 0 <= summary["padding_share"] < 1
    assert summary["settings"]["optimizer.learning_rate"] == 2e-3
    table = tomllib.loads((run / "task.toml").read_text(encoding="utf-8"))
    assert parse_card(table, larger_cards[kind]) == load_card(larger_cards[kind])
    assert tomllib.loads((run / "settings.toml").read_text())["batch_size"] == 8
    assert json_of(run / "provenance.json")["data"]["dev"].startswith(
        str(larger_cards[kind].parent)
    )
    evaluations = [e for e in lines_of(run / "seed-0" / "metrics.jsonl") if "evaluation" in e]
    assert [e["epoch"] for e in evaluations] == [1, 2, 3, 4, 5, 6]
    assert max(e[summary["main_metric"]] for e in evaluations) == main["max"]
    assert not (run / "seed-0" / "checkpoints").exists()


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_are_counted_without_the_model(runs, kind):
    from safetensors.torch import load_file

    tensors = load_file(runs[kind] / "seed-0" / "final" / "model.safetensors")
    counted = json_of(runs[kind] / "summary.json")["parameters"]
    assert counted == sum(tensor.numel() for tensor in tensors.values())


@pytest.mark.parametrize("kind", KINDS)
def test_predictions_and_submission_score_what_the_summary_says(runs, kind, larger_cards):
    card = load_card(larger_cards[kind])
    examples = read_examples(card, None, "dev")
    gold = next(larger_cards[kind].parent.glob("dev.*"))
    lines = lines_of(runs[kind] / "seed-0" / "predictions.jsonl")
    assert [line["id"] for line in lines] == [one.id for one in examples]
    assert all(0 <= line["score"] <= 1 for line in lines)
    (submission,) = (runs[kind] / "seed-0").glob("submission.*")
    expected = json_of(runs[kind] / "seed-0" / "result.json")["metrics"]
    for found in (
        {line["id"]: line["predicted"] for line in lines},
        read_predictions(card, submission, examples, gold, "dev"),
        read_predictions(card, runs[kind] / "seed-0" / "predictions.jsonl", examples, gold, "dev"),
    ):
        assert dict(score(card, examples, found).metrics) == pytest.approx(expected)


def test_the_folder_opens_in_transformers_with_the_same_labels(runs):
    from transformers import pipeline

    final = runs["classify"] / "seed-0" / "final"
    lines = lines_of(runs["classify"] / "seed-0" / "predictions.jsonl")
    classify = pipeline("text-classification", model=str(final), top_k=None)
    for line in lines[:8]:
        found = {one["label"]: one["score"] for one in classify([line["text"]])[0]}
        assert found == pytest.approx(line["probabilities"], abs=1e-4)
    assert json_of(final / "config.json")["id2label"] == {"0": "neg", "1": "pos"}
    assert json_of(final / "tokenizer_config.json")["model_max_length"] == 32


def test_several_labels_are_the_same_in_transformers(runs):
    from transformers import pipeline

    final = runs["multi_label"] / "seed-0" / "final"
    assert json_of(final / "config.json")["problem_type"] == "multi_label_classification"
    classify = pipeline("text-classification", model=str(final), top_k=None)
    lines = lines_of(runs["multi_label"] / "seed-0" / "predictions.jsonl")
    assert {len(line["predicted"]) for line in lines} >= {1, 2}
    for line in lines[:8]:
        found = {one["label"]: one["score"] for one in classify([line["text"]])[0]}
        assert found == pytest.approx(line["probabilities"], abs=1e-4)
        assert set(line["predicted"]) == {label for label in found if found[label] >= 0.5}


def test_numbers_are_the_same_in_transformers(runs):
    from transformers import pipeline

    regress = pipeline("text-classification", model=str(runs["regress"] / "seed-0" / "final"))
    for line in lines_of(runs["regress"] / "seed-0" / "predictions.jsonl")[:8]:
        pair = {"text": line["text"], "text_pair": line["text_pair"]}
        (found,) = regress([pair], truncation=True)
        assert found["score"] == pytest.approx(line["predicted"], abs=1e-3)


def test_tags_are_the_same_in_transformers(runs):
    from transformers import pipeline

    tag = pipeline("token-classification", model=str(runs["tag"] / "seed-0" / "final"))
    for line in lines_of(runs["tag"] / "seed-0" / "predictions.jsonl")[:8]:
        found = {one["index"] - 1: one["entity"] for one in tag("".join(line["tokens"]))}
        expected = {n: label for n, label in enumerate(line["predicted"]) if label != "O"}
        assert found == expected


def test_answers_are_the_same_in_transformers(runs, larger_cards):
    from transformers import AutoModelForQuestionAnswering, AutoTokenizer

    folder = runs["span"] / "seed-0" / "final"
    theirs = AutoModelForQuestionAnswering.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    examples = read_examples(load_card(larger_cards["span"]), None, "dev")
    lines = lines_of(runs["span"] / "seed-0" / "predictions.jsonl")
    for one, line in list(zip(examples, lines, strict=True))[:8]:
        encoded = tokenizer(
            one.question, one.context, return_offsets_mapping=True, return_tensors="pt"
        )
        offsets, own = encoded.pop("offset_mapping")[0], encoded.sequence_ids(0)
        with torch.no_grad():
            output = theirs(**encoded)
        total = output.start_logits[0][:, None] + output.end_logits[0][None, :]
        inside = torch.tensor([s == 1 for s in own])
        allowed = (inside[:, None] & inside[None, :]).triu()
        start, end = divmod(int(total.masked_fill(~allowed, -1e9).argmax()), len(own))
        assert one.context[offsets[start][0] : offsets[end][1]] == line["predicted"]


# -- seeds, resumption, grid -----------------------------------------------------------------------


def test_seeds_differ_and_finished_ones_are_not_run_again(tmp_path, model, cards, monkeypatch):
    run = tmp_path / "run"
    finetune(cards["classify"], model, None, run, QUICK, seeds=2)
    assert weights(run, 0) != weights(run, 1)
    kept = [path for path in run.glob("seed-*/**/*") if path.is_file() and path.name != "README.md"]
    before = {path: path.stat().st_mtime_ns for path in kept}  # the card tells of all seeds
    trained = []
    real = finetune_seed.SeedRun

    class Counted(real):
        def go(self):
            trained.append(self.seed)
            return super().go()

    monkeypatch.setattr(finetune_seed, "SeedRun", Counted)
    summary = finetune(cards["classify"], model, None, run, QUICK, seeds=3).summary
    assert trained == [2]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    spread = summary["metrics"]["accuracy"]
    assert summary["seeds"] == [0, 1, 2]
    assert spread["max"] == max(spread["values"])
    assert spread["mean"] == pytest.approx(sum(spread["values"]) / 3)
    # Fewer seeds than there are lose none.
    assert finetune(cards["classify"], model, None, run, QUICK, seeds=1).summary == summary
    assert json.loads((run / "summary.json").read_text(encoding="utf-8")) == summary
    assert trained == [2]


def test_a_seed_decides_head_order_and_dropout(tmp_path, model, cards, monkeypatch):
    seen = []

    def spy(module, name, seed_of):
        real = getattr(module, name)

        def spied(*arguments, **options):
            seen.append((name, seed_of(arguments, options)))
            return real(*arguments, **options)

        monkeypatch.setattr(module, name, spied)

    spy(training_task, "open_with_head", lambda arguments, options: arguments[3])
    spy(training_task, "steps_of", lambda arguments, options: options["seed"])
    spy(finetune_seed, "Trainer", lambda arguments, options: options["settings"].seed)
    finetune(cards["tag"], model, None, tmp_path / "run", [*QUICK, "epochs=1"], seeds=2)
    each = [("open_with_head", 1), ("Trainer", 1), ("steps_of", 1)]
    assert seen[-3:] == each
    assert [number for _, number in seen[:-3]] == [0] * 3


def test_the_same_seed_gives_the_same_bits(tmp_path, model, cards):
    for name in ("a", "b"):
        finetune(cards["tag"], model, None, tmp_path / name, QUICK)
    assert weights(tmp_path / "a") == weights(tmp_path / "b")


@pytest.mark.parametrize(("saves", "more"), [(1, ()), (3, ()), (4, LATER)])
def test_a_run_that_was_cut_off_goes_on_to_the_same_bits(
    tmp_path, model, cards, monkeypatch, saves, more
):
    overrides = [*QUICK, "epochs=3", "optimizer.learning_rate=2e-3"]
    overrides += more or ["checkpoint_every=3"]
    card = cards["regress"]
    finetune(card, model, None, tmp_path / "whole", overrides)
    real = finetune_seed.Checkpoints.save
    done = []

    def save(self, step, groups, info):
        if len(done) == saves:
            raise KeyboardInterrupt
        done.append(step)
        return real(self, step, groups, info)

    run = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr(finetune_seed.Checkpoints, "save", save)
        with pytest.raises(KeyboardInterrupt):
            finetune(card, model, None, run, overrides)
    finetune(card, model, None, run, overrides)
    assert weights(run) == weights(tmp_path / "whole")
    timed = ("seconds", "step_seconds", "pieces_per_second", "data_wait")
    for name in ("metrics.jsonl", "predictions.jsonl"):
        mine, whole = (lines_of(x / "seed-0" / name) for x in (run, tmp_path / "whole"))
        for line in (*mine, *whole):
            for key in timed:
                line.pop(key, None)
        assert mine == whole


def test_kill_9_loses_nothing_that_was_saved(tmp_path, model, cards):
    overrides = [*QUICK, "checkpoint_every=1", "epochs=15"]
    code = (
        "import sys; from zhbert.finetuning.run import finetune; "
        "finetune(sys.argv[1], sys.argv[2], None, sys.argv[3], sys.argv[4:])"
    )
    run = tmp_path / "run"
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(cards["regress"]), str(model), str(run), *overrides]
    )
    deadline = time.monotonic() + 120
    while not list(run.glob("seed-0/checkpoints/step-00000[3-9]")):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    said = [*QUICK, "checkpoint_every=0", "epochs=15"]
    finetune(cards["regress"], model, None, run, said)
    finetune(cards["regress"], model, None, tmp_path / "whole", said)
    assert weights(run) == weights(tmp_path / "whole")


def test_a_signal_saves_and_the_same_command_goes_on(tmp_path, model, cards, monkeypatch):
    run, overrides = tmp_path / "run", [*QUICK, "epochs=3"]
    finetune(cards["classify"], model, None, tmp_path / "whole", overrides)
    real = finetune_seed.SeedRun._judge

    def judge(self, at):
        if not (run / "signalled").exists():
            (run / "signalled").touch()
            os.kill(os.getpid(), signal.SIGTERM)
        return real(self, at)

    monkeypatch.setattr(finetune_seed.SeedRun, "_judge", judge)
    result = finetune(cards["classify"], model, None, run, overrides)
    assert result.signal == signal.SIGTERM
    assert not (run / "seed-0" / "result.json").exists()
    assert finetune(cards["classify"], model, None, run, overrides).signal is None
    assert weights(run) == weights(tmp_path / "whole")


@pytest.mark.parametrize("more", [[], ["optimizer.learning_rate=1e-3,2e-3"]])
def test_ctrl_c_in_a_seeds_last_evaluation_keeps_the_next_from_starting(
    tmp_path, model, cards, monkeypatch, more
):
    run, overrides = tmp_path / "run", [*QUICK, "epochs=1", *more]
    seeds = 1 if more else 2
    real = finetune_seed.SeedRun._judge
    judged = []

    def judge(self, at):
        judged.append(self.folder)
        if len(judged) == 1:
            os.kill(os.getpid(), signal.SIGINT)
        return real(self, at)

    monkeypatch.setattr(finetune_seed.SeedRun, "_judge", judge)
    result = finetune(cards["regress"], model, None, run, overrides, seeds=seeds)
    assert result.signal == signal.SIGINT
    assert len(judged) == 1
    assert (judged[0] / "result.json").is_file()
    result = finetune(cards["regress"], model, None, run, overrides, seeds=seeds)
    assert result.signal is None
    assert len(judged) == 2
    assert len(result.summary["seeds"]) == seeds


def test_ctrl_c_in_the_very_last_evaluation_changes_nothing(tmp_path, model, cards, monkeypatch):
    real = finetune_seed.SeedRun._judge

    def judge(self, at):
        os.kill(os.getpid(), signal.SIGINT)
        return real(self, at)

    monkeypatch.setattr(finetune_seed.SeedRun, "_judge", judge)
    run = tmp_path / "run"
    result = finetune(cards["regress"], model, None, run, [*QUICK, "epochs=1"])
    assert result.signal is None
    assert json_of(run / "summary.json") == result.summary


def test_training_ends_when_dev_gets_no_better(tmp_path, model, cards, capsys):
    card, run = cards["regress"], tmp_path / "run"
    overrides = [*QUICK, "optimizer.learning_rate=2e-3", *LATER]
    finetune(card, model, None, run, overrides, quiet=False)
    result = json_of(run / "seed-0" / "result.json")
    assert result["stopped_early"]
    assert result["steps"] == result["best_step"] + 3 * 8
    assert "evaluations without a better score (patience)" in capsys.readouterr().err
    evaluations = [e for e in lines_of(run / "seed-0" / "metrics.jsonl") if "evaluation" in e]
    best = max(evaluations, key=lambda line: line["pearson"])
    assert result["best_step"] == best["step"]
    assert result["metrics"]["pearson"] == best["pearson"] > evaluations[-1]["pearson"]
    # final/ is the best model, not the last.
    found = evaluate(run, card, card.with_name("dev.tsv"))
    assert found["metrics"] == pytest.approx(result["metrics"], abs=0.01)


def test_a_grid_names_the_best_on_dev(tmp_path, model, cards):
    run = tmp_path / "run"
    overrides = [*QUICK, "epochs=4", "optimizer.learning_rate=1e-6,2e-3"]
    summary = finetune(cards["classify"], model, None, run, overrides).summary
    assert summary["best"] == ["optimizer.learning_rate=2e-3"]
    assert [point["overrides"][0][-4:] for point in summary["grid"]] == ["1e-6", "2e-3"]
    means = [point["metrics"]["accuracy"]["mean"] for point in summary["grid"]]
    assert summary["metrics"]["accuracy"]["mean"] == max(means)
    best = run / summary["grid"][1]["folder"]
    assert weights(run) == weights(best)
    assert (run / "settings.toml").read_text() == (best / "settings.toml").read_text()
    assert "best on dev" in describe_summary(summary, run)[1]
    # A larger grid runs the new points only.
    before = (best / "seed-0" / "result.json").stat().st_mtime_ns
    more = [*QUICK, "epochs=4", "optimizer.learning_rate=1e-6,2e-3,1e-5"]
    assert len(finetune(cards["classify"], model, None, run, more).summary["grid"]) == 3
    assert (best / "seed-0" / "result.json").stat().st_mtime_ns == before
    # Fewer seeds than an earlier command has run lose none.
    for seeds in (2, 1):
        found = finetune(cards["classify"], model, None, run, overrides, seeds=seeds).summary
        assert found["seeds"] == [0, 1]
        assert {path.name for path in run.glob("seed-*")} == {"seed-0", "seed-1"}


def test_a_run_whose_card_was_written_out_in_full_is_gone_on_with(tmp_path, model, cards):
    run = tmp_path / "run"
    first = finetune(cards["classify"], model, None, run, QUICK).summary
    origin = json_of(run / "provenance.json")
    origin["identity"]["task"]["settings"] = {"epochs": 3, "doc_stride": 128}
    (run / "provenance.json").write_text(json.dumps(origin), encoding="utf-8")
    assert finetune(cards["classify"], model, None, run, QUICK).summary == first


def test_two_runs_are_compared(tmp_path, model, larger_cards, runs):
    overrides = [*QUICK, "epochs=1", "optimizer.learning_rate=1e-6"]
    finetune(larger_cards["classify"], model, None, tmp_path / "bad", overrides, seeds=2)
    result = compare_runs(runs["classify"], tmp_path / "bad")
    a, b = (
        json_of(x / "summary.json")["metrics"]["accuracy"]["mean"]
        for x in (runs["classify"], tmp_path / "bad")
    )
    assert result["difference"] == pytest.approx(a - b)
    assert result["larger_than_noise"]
    assert not compare_runs(tmp_path / "bad", tmp_path / "bad")["larger_than_noise"]
    with pytest.raises(ZhbertError, match="only runs of one task can be compared"):
        compare_runs(runs["classify"], runs["tag"])


def test_a_fine_tuned_model_is_fine_tuned_further(tmp_path, cards, runs):
    still = [*QUICK, "epochs=1", "optimizer.learning_rate=1e-12"]
    # The head of the same labels is kept, whatever scale it speaks in ...
    for kind in ("classify", "regress"):
        final = runs[kind] / "seed-0" / "final"
        run = tmp_path / kind
        finetune(cards[kind], final, None, run, still)
        assert (
            json_of(run / "summary.json")["metrics"]
            == json_of(runs[kind] / "summary.json")["metrics"]
        )
        for mine, line in zip(
            *(lines_of(x / "seed-0" / "predictions.jsonl") for x in (run, runs[kind])), strict=True
        ):
            assert mine["predicted"] == pytest.approx(line["predicted"], abs=1e-3)
    # ... and that of other labels makes room for a new one.
    final = runs["classify"] / "seed-0" / "final"
    finetune(cards["tag"], final, None, tmp_path / "tag", still)
    finetune(cards["regress"], final, None, tmp_path / "other", still)


def test_what_cannot_be_compared_is_one_line(tmp_path, runs):
    def line():
        with pytest.raises(ZhbertError) as caught:
            compare_runs(runs["classify"], tmp_path)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no run folder" in line()
    shutil.copytree(runs["classify"], tmp_path, dirs_exist_ok=True)
    summary = tmp_path / "summary.json"
    whole = summary.read_text(encoding="utf-8")
    predictions = tmp_path / "seed-0" / "predictions.jsonl"
    lines = predictions.read_text(encoding="utf-8").splitlines(keepends=True)
    predictions.unlink()
    assert line().endswith("predictions.jsonl is missing or cut short")
    predictions.write_text("".join(lines[:-3]), encoding="utf-8")
    assert "scored on other examples of one file: " in line()
    predictions.write_text("".join(['{"id": "0"}\n', *lines[1:]]), encoding="utf-8")
    assert "predictions.jsonl cannot be read (KeyError" in line()
    predictions.write_text("".join(lines), encoding="utf-8")
    for text in ("{", "[]", json.dumps({**json.loads(whole), "metrics": 3})):
        summary.write_text(text, encoding="utf-8")
        assert "not a finished run: " in line()
    text = json.dumps({**json.loads(whole), "dev_sha256": "0"})
    summary.write_text(text, encoding="utf-8")
    assert line().endswith("scored on other examples")


# -- tasks without data here -----------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(path.name for path in SAMPLES.iterdir()))
def test_samples_of_published_formats_go_end_to_end(tmp_path, model, name):
    overrides = ["epochs=1", "precision=fp32", "threads=1", "sequence_length=64"]
    result = finetune(name, model, SAMPLES / name, tmp_path / "run", overrides)
    metrics = result.summary["metrics"]
    assert set(load_card(name).metrics) <= set(metrics)
    if name == "mnli":
        assert "accuracy_mismatched" in metrics


def test_no_sample_is_forgotten():
    assert {"mnli", "qnli", "qqp", "squad2.0", "thucnews"} <= {p.name for p in SAMPLES.iterdir()}


# -- what is refused -------------------------------------------------------------------------------


def refusal(*arguments, **options):
    with pytest.raises(ZhbertError) as caught:
        finetune(*arguments, **options)
    line = str(caught.value)
    assert "\n" not in line
    return line


def test_bad_data_is_refused_before_training(tmp_path, model):
    card = make_task(tmp_path / "task", "classify")
    train, dev = card.with_name("train.tsv"), card.with_name("dev.tsv")
    good = train.read_text(encoding="utf-8")

    def line_for(text, file=train):
        before = file.read_text(encoding="utf-8")
        file.write_text(text, encoding="utf-8")
        line = refusal(card, model, None, tmp_path / "run", QUICK)
        file.write_text(before, encoding="utf-8")
        assert not (tmp_path / "run").exists()
        return line

    assert "train.tsv:3" in line_for("text\tlabel\n好\tpos\n坏\tnegg\n")
    assert "columns" in line_for("text\tlabel\n好\tpos\tmore\n")
    assert "dev set" in line_for("text\tlabel\n", dev)
    assert "no column" in line_for(good.replace("text", "words", 1))
    dev.unlink()
    assert "no dev file" in refusal(card, model, None, tmp_path / "run", QUICK)


def test_a_card_with_a_typing_error_is_refused(tmp_path, model):
    card = make_task(tmp_path / "task", "classify")
    card.write_text(card.read_text().replace("metrics", "metrisc"))
    line = refusal(card, model, None, tmp_path / "run", QUICK)
    assert line == "my_classify.toml: unknown key 'metrisc'; did you mean 'metrics'?"


def test_lost_answers_and_long_questions_are_said(tmp_path, model, capsys):
    card = make_task(tmp_path / "task", "span", train=16)
    file = card.with_name("train.json")
    table = json_of(file)
    paragraphs = table["data"][0]["paragraphs"]
    for paragraph in paragraphs[:3]:
        paragraph["qas"][0]["answers"] = [{"text": "否否否", "answer_start": 0}]
    paragraphs[5]["qas"][0]["question"] = "好" * 100
    file.write_text(json.dumps(table), encoding="utf-8")
    result = finetune(card, model, None, tmp_path / "run", QUICK, quiet=False)
    err = capsys.readouterr().err
    assert re.search(r"questions scored but not trained on.*: 3\n", err)
    assert "1 of 13 questions are longer than 14 pieces" in err
    assert result.summary["train_examples"] == 13
    for paragraph in paragraphs:
        paragraph["qas"][0]["answers"] = [{"text": "否否否", "answer_start": 0}]
    file.write_text(json.dumps(table), encoding="utf-8")
    line = refusal(card, model, None, tmp_path / "none", QUICK)
    assert "train.json: no example that can be learnt from" in line
    assert not (tmp_path / "none").exists()


def test_one_file_for_train_and_dev_is_refused(tmp_path, model):
    card = make_task(tmp_path / "task", "classify")
    line = refusal(card, model, card.with_name("dev.tsv"), tmp_path / "run", QUICK)
    assert "dev.tsv: one file for train and dev; give the folder of both" in line
    card.write_text(card.read_text().replace("train.tsv", "dev.tsv"))
    line = refusal(card, model, None, tmp_path / "run", QUICK)
    assert "dev.tsv: one file for train and dev; name two in the card" in line


def test_bom_quotes_and_a_long_text_are_read(tmp_path, model):
    card = make_task(tmp_path / "task", "classify")
    card.write_text(card.read_text().replace('"tsv"', '"csv"').replace(".tsv", ".csv"))
    for split in ("train", "dev"):
        rows = [f'"好,{text}""",pos' for text in texts(8, 1)] + ["坏" * 100_000 + ",neg"]
        file = card.with_name(f"{split}.csv")
        file.write_text("\ufefftext,label\n" + "\n".join(rows) + "\n", encoding="utf-8")
    result = finetune(card, model, None, tmp_path / "run", QUICK)
    assert result.summary["train_examples"] == 9


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_checkpoint(
    tmp_path, model, cards
):
    overrides = [*QUICK, "checkpoint_every=1", "optimizer.learning_rate=1e30"]
    overrides += ["optimizer.warmup_share=0"]
    line = refusal(cards["classify"], model, None, tmp_path / "run", overrides)
    assert "seed-0: the loss is nan at step 2 of 16 (epoch 1" in line
    assert "the checkpoint of step 1 is kept" in line
    assert (tmp_path / "run" / "seed-0" / "checkpoints" / "step-000001").is_dir()


def test_a_point_that_fails_does_not_end_its_grid(tmp_path, model, cards, capsys):
    run = tmp_path / "run"
    overrides = [*QUICK, "optimizer.warmup_share=0", "optimizer.learning_rate=1e30,2e-3"]
    for _ in range(2):  # the same command again, too
        summary = finetune(cards["classify"], model, None, run, overrides).summary
        assert summary["best"] == ["optimizer.learning_rate=2e-3"]
        assert "the loss is nan" in summary["grid"][0]["failed"]
    lines = describe_summary(summary, run)
    assert lines[0] == "optimizer.learning_rate=1e30  failed"
    assert lines[1].endswith("best on dev")
    bad = [*QUICK, "optimizer.warmup_share=0", "optimizer.learning_rate=1e30,2e30"]
    line = refusal(cards["classify"], model, None, tmp_path / "bad", bad)
    assert "every point of the grid failed; the last: " in line


def test_a_model_without_vocabulary_is_refused(tmp_path, model, cards):
    bare = tmp_path / "bare"
    shutil.copytree(model, bare)
    for name in ("vocab.txt", "tokenizer.json", "tokenizer_config.json"):
        (bare / name).unlink()
    line = refusal(cards["tag"], bare, None, tmp_path / "run", QUICK)
    assert f"{bare}: no vocab.txt in it" in line


def test_a_vocabulary_of_another_model_is_refused(tmp_path, model, cards):
    other = tmp_path / "other"
    shutil.copytree(model, other)
    from zhbert.text.tokenizer import Tokenizer

    Tokenizer([*PIECES, "多"]).save_pretrained(other)
    assert "another model's vocabulary" in refusal(cards["tag"], other, None, tmp_path / "r", QUICK)


def test_wrong_words_are_refused_before_anything_is_read(tmp_path, cards):
    card, out = cards["classify"], tmp_path / "run"

    def line(*overrides, **options):
        return refusal(card, "nowhere", None, out, overrides, **options)

    assert line("epoch=2") == "epoch=2: unknown key 'epoch'; did you mean 'epochs'?"
    assert "did you mean 'optimizer.learning_rate'" in line("learning_rate=1")
    assert line("epochs=0") == "epochs = 0: must be above 0"
    assert line("precision=fp8").startswith('precision = "fp8": not a choice')
    assert "an empty value" in line("epochs=1,")
    assert "twice" in line("epochs=1,1")
    assert line(seeds=0) == "--seeds 0: must be 1 or more"
    assert "no task 'lcqcm'" in refusal("lcqcm", "nowhere", None, out)


def test_one_process_only(monkeypatch, tmp_path, cards):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "without torchrun" in refusal(cards["tag"], "nowhere", None, tmp_path / "run")


def test_rows_longer_than_the_model_reads_are_refused(tmp_path, model, cards, capsys):
    line = refusal(cards["tag"], model, None, tmp_path / "run", ["sequence_length=65"])
    assert "reads rows of 64 pieces at most" in line
    # The card's own value is lowered with a remark.
    finetune(cards["tag"], model, None, tmp_path / "run", ["epochs=1"], quiet=False)
    assert "sequence_length = 64 instead of 128" in capsys.readouterr().err


def test_a_folder_of_something_else_is_never_touched(tmp_path, model, cards):
    card, run = cards["classify"], tmp_path / "run"
    run.mkdir()
    (run / "thesis.txt").write_text("x")
    for overwrite in (False, True):
        line = refusal(card, model, None, run, QUICK, overwrite=overwrite)
        assert "not a run of 'zhbert finetune'" in line
    assert (run / "thesis.txt").read_text() == "x"


def test_a_run_of_another_kind_is_not_gone_on_with(tmp_path, model, cards):
    run = tmp_path / "run"
    finetune(cards["classify"], model, None, run, QUICK)
    line = refusal(cards["classify"], model, None, run, [*QUICK, "epochs=3"])
    assert "epochs = 2, now 3" in line
    assert "--overwrite" in line
    other = make_model(tmp_path / "other", seed=1)
    assert "a run of another model" in refusal(cards["classify"], other, None, run, QUICK)
    assert "a run of another train file is" in refusal(cards["tag"], model, None, run, QUICK)
    # What is refused leaves the run that it would have replaced.
    before = weights(run)
    (tmp_path / "empty").mkdir()
    assert refusal(cards["tag"], tmp_path / "empty", None, run, QUICK, overwrite=True)
    assert weights(run) == before
    finetune(cards["tag"], model, None, run, QUICK, overwrite=True)
    assert json_of(run / "summary.json")["task"] == "my_tag"


def test_no_answer_is_learnt_and_its_threshold_kept(tmp_path, model):
    from zhbert.finetuning.fine_tuned import open_fine_tuned

    overrides = ["epochs=1", "precision=fp32", "threads=1", "sequence_length=64"]
    finetune("squad2.0", model, SAMPLES / "squad2.0", tmp_path / "run", overrides)
    config = json_of(tmp_path / "run" / "seed-0" / "final" / "config.json")
    learner = open_fine_tuned(tmp_path / "run").learner
    assert isinstance(learner, SpanLearner)
    assert learner.null_threshold == config["zhbert"]["null_threshold"] != 0.0
    assert learner.no_answer
