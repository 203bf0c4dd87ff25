"""A run folder of finetune: who may write it, what may change between commands, what is kept."""

from __future__ import annotations

import json
import shutil

import pytest
from tests.small_tasks import QUICK, make_model, make_task

from zhbert.errors import ZhbertError
from zhbert.finetuning import grid
from zhbert.finetuning import seed as finetune_seed
from zhbert.finetuning.evaluate import evaluate
from zhbert.finetuning.run import finetune
from zhbert.folders import locked
from zhbert.train import cost

FAST = [*QUICK, "epochs=1"]


@pytest.fixture
def model(tmp_path):
    return make_model(tmp_path / "model")


@pytest.fixture
def card(tmp_path):
    return make_task(tmp_path / "task", "classify")


def refusal(*arguments, **options):
    with pytest.raises(ZhbertError) as caught:
        finetune(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def edit(path, **changes):
    values = json.loads(path.read_text(encoding="utf-8"))
    values.update(changes)
    path.write_text(json.dumps(values, ensure_ascii=False), encoding="utf-8")


# -- overwriting -----------------------------------------------------------------------------------


def test_overwrite_never_removes_what_the_run_needs(tmp_path, model, card):
    run = tmp_path / "run"
    finetune(card, model, None, run, FAST)
    final = run / "seed-0" / "final"
    line = refusal(card, final, None, run, FAST, overwrite=True)
    assert line.startswith("--overwrite would remove the model, ")
    assert (final / "model.safetensors").is_file()
    (tmp_path / "link").symlink_to(final)
    assert "would remove the model" in refusal(
        card, tmp_path / "link", None, run, FAST, overwrite=True
    )
    inside = shutil.copytree(card.parent, run / "data")
    line = refusal(card, model, inside, run, FAST, overwrite=True)
    assert "would remove the train file" in line
    assert "would remove the " in refusal(
        inside / card.name, model, card.parent, run, FAST, overwrite=True
    )
    assert (inside / "dev.tsv").is_file()
    # What is elsewhere may be replaced, and what else lies there goes.
    finetune(card, model, None, run, FAST, overwrite=True)
    assert not inside.exists()


def test_a_run_that_the_full_disk_ended_at_once_is_begun_again(tmp_path, model, card):
    run = tmp_path / "run"
    run.mkdir()
    (run / "provenance.json").write_text("{}")
    assert finetune(card, model, None, run, FAST).summary["seeds"] == [0]


# -- one process at a time -------------------------------------------------------------------------


def test_two_processes_never_write_one_run(tmp_path, model, card):
    run = tmp_path / "run"
    with locked(run):
        line = refusal(card, model, None, run, FAST)
        assert line == (
            f"{run}: another process is at work there; wait for it, or choose another --out"
        )
        assert not list(run.iterdir())
    finetune(card, model, None, run, FAST)
    with locked(run):
        assert "another process" in refusal(card, model, None, run, FAST, seeds=2)
        assert "another process" in refusal(card, model, None, run, FAST, overwrite=True)
    assert (run / "seed-0" / "final").is_dir()


# -- what decides whether it is the same run -------------------------------------------------------


@pytest.mark.parametrize("text", ["", "null", '{"seed": 0}', "[" * 200_000])
def test_a_seed_whose_result_is_damaged_is_trained_again(tmp_path, model, card, text):
    run = tmp_path / "run"
    summary = finetune(card, model, None, run, FAST).summary
    (run / "seed-0" / "result.json").write_text(text)
    assert finetune(card, model, None, run, FAST).summary["metrics"] == summary["metrics"]
    assert json.loads((run / "seed-0" / "result.json").read_text())["seed"] == 0


def test_pairs_are_not_learnt_by_a_model_of_one_segment(tmp_path, model):
    from safetensors.torch import load_file, save_file

    tensors = load_file(model / "model.safetensors")
    name = "bert.embeddings.token_type_embeddings.weight"
    save_file(tensors | {name: tensors[name][:1].clone()}, model / "model.safetensors")
    edit(model / "config.json", type_vocab_size=1)
    line = refusal(make_task(tmp_path / "pairs", "regress"), model, None, tmp_path / "run", FAST)
    assert "the model has one segment only (type_vocab_size = 1" in line
    assert not (tmp_path / "run").exists()


def test_more_threads_than_a_process_can_start_are_refused(tmp_path, model, card):
    line = refusal(card, model, None, tmp_path / "run", [*FAST, "threads=100000"])
    assert line == "threads = 100000: must be 1,024 or less; 0: all cores"


def test_a_file_scored_with_dev_must_stay(tmp_path, model, card):
    text = card.read_text(encoding="utf-8").replace(
        "[data]", '[data]\nmore = { hard = "hard.tsv" }\nscored_with_dev = ["hard"]'
    )
    card.write_text(text, encoding="utf-8")
    hard = shutil.copyfile(card.with_name("dev.tsv"), card.with_name("hard.tsv"))
    run = tmp_path / "run"
    assert "accuracy_hard" in finetune(card, model, None, run, FAST).summary["metrics"]
    hard.unlink()
    assert "a run of another hard file" in refusal(card, model, None, run, FAST, seeds=2)


# -- grids -----------------------------------------------------------------------------------------


def test_a_grid_compares_equal_numbers_of_seeds(tmp_path, model, card, monkeypatch):
    run = tmp_path / "run"
    overrides = [*QUICK, "epochs=1,2"]
    real = grid.train_seed

    def train(task, folder, seed):
        if task.settings.epochs == 2:
            raise finetune_seed.Stopped(15)
        return real(task, folder, seed)

    monkeypatch.setattr(grid, "train_seed", train)
    assert finetune(card, model, None, run, overrides, seeds=2).signal == 15
    monkeypatch.undo()
    summary = finetune(card, model, None, run, overrides).summary
    assert summary["seeds"] == [0]
    for point in summary["grid"]:
        assert len(point["metrics"]["accuracy"]["values"]) == 1


def test_of_a_key_given_twice_the_last_counts(tmp_path, model, card):
    summary = finetune(card, model, None, tmp_path / "r", [*QUICK, "epochs=1,2", "epochs=1"])
    assert "grid" not in summary.summary
    assert summary.summary["settings"]["epochs"] == 1


# -- micro-batches ---------------------------------------------------------------------------------


def test_micro_batches_stay_as_they_are_when_memory_does_not(tmp_path, model, card, monkeypatch):
    """Dropout depends on them: a run that another machine goes on with keeps the first one's."""
    one, two = tmp_path / "one", tmp_path / "two"
    monkeypatch.setattr(cost, "CPU_TENSOR_BYTES", 4 * 64 * 64)
    finetune(card, model, None, one, QUICK)
    real = finetune_seed.MetricsFile.write

    def write(self, line):
        real(self, line)
        if line.get("step") == 10 and "loss" in line:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(finetune_seed.MetricsFile, "write", write)
        with pytest.raises(KeyboardInterrupt):
            finetune(card, model, None, two, [*QUICK, "checkpoint_every=4"])
    assert list(two.glob("seed-0/checkpoints/*"))
    monkeypatch.setattr(cost, "CPU_TENSOR_BYTES", 1 << 30)
    finetune(card, model, None, two, QUICK)
    assert (one / "seed-0/final/model.safetensors").read_bytes() == (
        two / "seed-0/final/model.safetensors"
    ).read_bytes()


# -- texts that no file can hold -------------------------------------------------------------------


def test_half_a_surrogate_pair_does_not_end_a_run(tmp_path, model, card):
    for name in ("train", "dev"):
        rows = [
            line.split("\t")
            for line in card.with_name(f"{name}.tsv").read_text(encoding="utf-8").splitlines()[1:]
        ]
        lines = [json.dumps({"text": f"\ud83d{text}", "label": label}) for text, label in rows]
        assert "\\ud83d" in lines[0]
        card.with_name(f"{name}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    text = card.read_text(encoding="utf-8").replace('"tsv"', '"jsonl"').replace(".tsv", ".jsonl")
    card.write_text(text, encoding="utf-8")
    run = tmp_path / "run"
    finetune(card, model, None, run, FAST)
    predictions = (run / "seed-0" / "predictions.jsonl").read_text(encoding="utf-8")
    assert json.loads(predictions.splitlines()[0])["text"].startswith("\ufffd")


# -- a model folder's own section ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sequence_length": "32"}, "sequence_length"),
        ({"sequence_length": 4}, "sequence_length = 4: must be 8 or more"),
        ({"sequence_length": 4096}, "the model reads rows of 64 pieces at most"),
    ],
)
def test_a_damaged_section_of_a_model_is_one_line(tmp_path, model, card, changes, message):
    run = tmp_path / "run"
    finetune(card, model, None, run, FAST)
    config = run / "seed-0" / "final" / "config.json"
    section = json.loads(config.read_text(encoding="utf-8"))["zhbert"]
    edit(config, zhbert={**section, **changes})
    with pytest.raises(ZhbertError) as caught:
        evaluate(run, card, card.with_name("dev.tsv"))
    assert message in str(caught.value)
    assert "config.json: zhbert" in str(caught.value)
    edit(config, zhbert=section, architectures=3)
    with pytest.raises(ZhbertError, match=r"architectures = 3: must be a list of texts"):
        evaluate(run, card, card.with_name("dev.tsv"))
