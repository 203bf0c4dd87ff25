"""The pretrain verb: what it writes, what it refuses, how phases and resumptions follow."""

from __future__ import annotations

import itertools
import json
import math
import re
import shutil
import sys
import tomllib
import warnings

import pytest
import torch
from safetensors.torch import load_file
from tests.small_corpora import MUON, PIECES, TINY, documents, make_corpus

from zhbert import cli
from zhbert.config import load_recipe
from zhbert.data.shards import Shard, write_shard
from zhbert.errors import ZhbertError
from zhbert.files import remove
from zhbert.folders import locked
from zhbert.model.pretrained import BertForPreTraining
from zhbert.pretraining import objective, training
from zhbert.pretraining.check import check
from zhbert.pretraining.run import pretrain
from zhbert.sentences.similar_words import make_similar_words
from zhbert.text.tokenizer import Tokenizer


def metrics(folder):
    text = (folder / "metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def steps_of(folder):
    return [line for line in metrics(folder) if "evaluation" not in line]


def evaluations_of(folder):
    return [line for line in metrics(folder) if "evaluation" in line]


def refusal(*arguments, **options):
    with pytest.raises(ZhbertError) as caught:
        pretrain(*arguments, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_a_gpu_without_memory_is_one_line(corpus, tmp_path, monkeypatch):
    def full(trainer):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr(training.Trainer, "train", full)
    said = refusal("tiny", corpus, tmp_path / "run", [*TINY, "micro_batch_size=4"])
    assert "no memory for micro-batches of 4 rows: run the same command again with --resume" in said


def test_a_run_folder_holds_everything(finished_run):
    names = sorted(path.name for path in finished_run.iterdir())
    assert names == ["checkpoints", "final", "metrics.jsonl", "provenance.json", "recipe.toml"]
    kept = sorted(path.name for path in (finished_run / "checkpoints").iterdir())
    assert kept == ["step-000010", "step-000012"]
    assert sorted(path.name for path in (finished_run / "final").iterdir()) == [
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    provenance = json.loads((finished_run / "provenance.json").read_text(encoding="utf-8"))
    assert provenance["torch"] == torch.__version__
    assert {"command", "commit", "cpu", "python", "started", "zhbert"} <= provenance.keys()


def test_metrics_hold_what_others_read(finished_run):
    steps, evaluations = steps_of(finished_run), evaluations_of(finished_run)
    assert [line["step"] for line in steps] == list(range(1, 13))
    for line in steps:
        assert line["loss"] == line["masked_lm_loss"] + line["next_sentence_loss"]
        assert line["pieces_per_second"] > 0
        assert 0 <= line["data_wait"] <= 1
        assert math.isfinite(line["grad_norm"])
    pieces = [line["pieces"] for line in steps]
    assert all(0 < b - a <= 8 * 32 for a, b in zip([0, *pieces], pieces, strict=False))
    assert [(line["step"], line["evaluation"]) for line in evaluations] == [
        (6, "char"),
        (6, "wwm"),
        (12, "char"),
        (12, "wwm"),
    ]
    for line in evaluations:
        assert 0 <= line["masked_lm_accuracy"] <= 1
        assert 0 <= line["next_sentence_accuracy"] <= 1
        assert 0 <= line["baseline_accuracy"] <= 1
        assert line["masked_lm_predictions"] > 0


def test_the_resolved_recipe_reads_back_and_holds_every_value(finished_run):
    recipe = load_recipe(finished_run / "recipe.toml")
    assert recipe.steps == 12
    assert recipe.model.num_attention_heads == 2
    assert recipe.model.layer_norm_eps == 1e-12
    values = tomllib.loads((finished_run / "recipe.toml").read_text(encoding="utf-8"))
    assert values["optimizer"]["beta2"] == 0.999


def test_the_final_model_is_the_last_checkpoint_and_opens_everywhere(finished_run):
    from transformers import AutoModelForPreTraining, AutoTokenizer

    model = BertForPreTraining.from_pretrained(finished_run / "final")
    saved = load_file(finished_run / "checkpoints" / "step-000012" / "model.safetensors")
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, saved[name])
    assert AutoTokenizer.from_pretrained(finished_run / "final").vocab_size == len(PIECES)
    theirs = AutoModelForPreTraining.from_pretrained(finished_run / "final")
    ids = torch.tensor([[2, 9, 10, 3]])
    ours = model(ids).prediction_logits
    torch.testing.assert_close(theirs(ids).prediction_logits, ours, atol=1e-4, rtol=1e-4)


def test_the_same_recipe_gives_the_same_losses_and_another_seed_others(corpus, tmp_path):
    curves = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        pretrain("tiny", corpus, tmp_path / name, [*TINY, "steps=3", f"seed={seed}"])
        curves.append([line["loss"] for line in steps_of(tmp_path / name)])
    assert curves[0] == curves[1]
    assert curves[0] != curves[2]


@pytest.mark.parametrize("settings", [[], MUON])
def test_micro_batches_change_the_losses_by_rounding_only(corpus, tmp_path, settings):
    """Dropout and candidates included: they depend on the step and a row's place in it alone."""
    overrides = [*TINY, "steps=4", "checkpoint_every=2", "rows.builder=pairs", *settings]
    runs = {}
    for size in ("0", "1", "3", "4"):
        runs[size] = tmp_path / size
        pretrain("tiny", corpus, runs[size], [*overrides, f"micro_batch_size={size}"])
    resumed = runs["resumed"] = shutil.copytree(runs["0"], tmp_path / "resumed")
    shutil.rmtree(resumed / "checkpoints" / "step-000004")
    pretrain("tiny", corpus, resumed, ["micro_batch_size=3"], resume=True)
    for run in runs.values():
        for one, two in zip(steps_of(runs["0"]), steps_of(run), strict=True):
            for key in ("masked_lm_loss", "next_sentence_loss", "grad_norm"):
                assert one[key] == pytest.approx(two[key], rel=1e-5)
            assert one["pieces"] == two["pieces"]


def test_a_run_resumed_with_other_memory_keeps_its_micro_batches(corpus, tmp_path, monkeypatch):
    from zhbert.pretraining import training as job

    def choose(rows):
        monkeypatch.setattr(job, "micro_batch_rows", lambda *_: rows)

    choose(3)
    run, overrides = tmp_path / "run", [*TINY, "steps=4", "checkpoint_every=2"]
    pretrain("tiny", corpus, run, overrides)
    losses = [line["loss"] for line in steps_of(run)]
    for rows, kept in ((8, 3), (2, 2)):  # more memory, and less
        shutil.rmtree(run / "checkpoints" / "step-000004")
        choose(rows)
        pretrain("tiny", corpus, run, resume=True)
        info = json.loads((run / "checkpoints/step-000004/checkpoint.json").read_text("utf-8"))
        assert info["micro_batch_rows"] == kept
        found = [line["loss"] for line in steps_of(run)]
        assert (found == losses) == (kept == 3)
        assert found == pytest.approx(losses, rel=1e-5)


@pytest.mark.parametrize("damaged", [0, 1])
def test_an_altered_shard_is_refused_before_anything_is_saved(corpus, tmp_path, damaged):
    """Of two shards a run of one row reads one: the other one decided which row that is."""
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    info = json.loads((folder / "corpus.json").read_text("utf-8"))
    info["shards"]["train"].append(write_shard(folder / "train-00001.arrow", documents(60, 9)))
    (folder / "corpus.json").write_text(json.dumps(info), "utf-8")
    shard = folder / f"train-0000{damaged}.arrow"
    raw = bytearray(shard.read_bytes())
    raw[raw.index(Shard(shard).pieces[:50].tobytes()) + 40] ^= 1
    shard.write_bytes(raw)
    run = tmp_path / "run"
    said = refusal("tiny", folder, run, [*TINY, "steps=1", "batch_size=1"])
    assert said == f"{shard}: its checksum differs: altered; prepare again"
    assert not list(run.glob("checkpoints/*"))


def test_a_shuffled_vocabulary_is_refused(corpus, tmp_path):
    folder = shutil.copytree(corpus, tmp_path / "corpus")
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.txt").write_text("\n".join([*PIECES[:5], *PIECES[:4:-1]]) + "\n", "utf-8")
    said = refusal("tiny", folder, tmp_path / "run", TINY)
    assert "is not the one that made the corpus" in said
    assert not (tmp_path / "run").exists()


def test_each_setting_of_small_models_changes_what_is_trained(corpus, tmp_path):
    losses = []
    for number, settings in enumerate([[], MUON[:1], MUON[1:2], MUON[2:4], MUON]):
        run = tmp_path / str(number)
        overrides = [*TINY, "steps=3", "optimizer.warmup_steps=0", *settings]
        pretrain("tiny", corpus, run, overrides)
        losses.append([line["loss"] for line in steps_of(run)])
    assert all(one[-1] != other[-1] for one, other in itertools.combinations(losses, 2))
    plain, muon, scaled, *_ = losses
    assert muon[0] == plain[0]
    # A bias at the frequencies spares the first steps.
    assert scaled[0] < plain[0] - 0.1


def test_a_softmax_over_as_many_pieces_as_there_are_is_the_exact_one(corpus, tmp_path):
    """And evaluation is over all pieces whatever the setting: an untrained model's is the same."""
    runs = {}
    for frequent in (0, len(PIECES), 10**9, 9):
        run = runs[frequent] = tmp_path / str(frequent)
        settings = ["steps=2", "evaluate_every=1", f"softmax.frequent={frequent}"]
        still = "optimizer.learning_rate=1e-30"
        pretrain("tiny", corpus, run, [*TINY, *settings, "softmax.sampled=7", still])
    losses = {frequent: [line["loss"] for line in steps_of(run)] for frequent, run in runs.items()}
    assert losses[0] == losses[len(PIECES)] == losses[10**9] != losses[9]
    assert evaluations_of(runs[9]) == evaluations_of(runs[0])


def test_training_lowers_the_loss(corpus, tmp_path):
    overrides = [*TINY, "steps=60", "batch_size=16", "optimizer.learning_rate=0.01"]
    pretrain("tiny", corpus, tmp_path / "run", [*overrides, "optimizer.warmup_steps=10"])
    losses = [line["loss"] for line in steps_of(tmp_path / "run")]
    assert sum(losses[-10:]) / 10 < losses[0] - 0.15


def test_a_damaged_log_loses_nothing_when_the_run_goes_on(corpus, run_copy, capsys):
    path = run_copy / "metrics.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    evaluation = next(n for n, line in enumerate(lines) if b'12, "evaluation": "wwm"' in line)
    # A byte of the third line, and the last step's evaluation, which is made again.
    damaged = [line.replace(b'"step"', b'"st\xffp"') if n == 2 else line
               for n, line in enumerate(lines) if n != evaluation]  # fmt: skip
    path.write_bytes(b"".join(damaged))
    pretrain("tiny", corpus, run_copy, resume=True, quiet=False)
    assert path.read_bytes().splitlines(keepends=True) == [*lines[:2], *lines[3:]]
    assert (run_copy / "metrics.damaged.jsonl").read_bytes() == damaged[2]
    assert (
        "metrics.jsonl: damaged lines, kept in metrics.damaged.jsonl: 3" in capsys.readouterr().err
    )


@pytest.mark.parametrize("settings", [[], ["optimizer.name=lamb"], MUON])
def test_resuming_is_bit_identical(corpus, tmp_path, settings):
    overrides = [*TINY, "steps=8", "checkpoint_every=3", *settings]
    pretrain("tiny", corpus, tmp_path / "whole", overrides)
    run = tmp_path / "run"
    pretrain("tiny", corpus, run, overrides)
    # As if the run had been killed after step 8, before that step's checkpoint.
    shutil.rmtree(run / "checkpoints" / "step-000008")
    shutil.rmtree(run / "final")
    older = (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:6]
    with (run / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 9, "los')
    result = pretrain("tiny", corpus, run, overrides, resume=True)
    assert result.step == 8
    assert (run / "metrics.jsonl").read_bytes().splitlines(keepends=True)[:6] == older
    for key in ("loss", "grad_norm", "pieces", "learning_rate"):
        mine = [line[key] for line in steps_of(run)]
        assert mine == [line[key] for line in steps_of(tmp_path / "whole")]
    finals = [load_file(f / "final" / "model.safetensors") for f in (run, tmp_path / "whole")]
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[1])
    assert evaluations_of(run) == evaluations_of(tmp_path / "whole")


@pytest.mark.parametrize("settings", [[], MUON])
def test_short_rows_first_and_resuming_is_bit_identical_on_either_side(
    corpus, tmp_path, capsys, settings
):
    overrides = [*TINY, *settings, "steps=8"]
    overrides += ["rows.warmup_share=[0.25,0.25]", "rows.warmup_length=[8,16]"]
    overrides += ["checkpoint_every=1", "keep_checkpoints=8"]
    whole = tmp_path / "whole"
    pretrain("tiny", corpus, whole, overrides, quiet=False)
    said = capsys.readouterr().err
    assert "warm-up: until step 2, 32 rows of up to 8 pieces a step" in said
    assert "warm-up: until step 4, 16 rows of up to 16 pieces a step" in said
    finals = [load_file(whole / "final" / "model.safetensors")]
    for done in (1, 2, 3, 4, 5):
        run = tmp_path / f"from-{done}"
        shutil.copytree(whole, run)
        shutil.rmtree(run / "final")
        for step in range(done + 1, 9):
            shutil.rmtree(run / "checkpoints" / f"step-{step:06}")
        pretrain("tiny", corpus, run, overrides, resume=True, quiet=False)
        assert ("warm-up" in capsys.readouterr().err) == (done < 4)
        for key in ("loss", "grad_norm", "pieces"):
            mine = [line[key] for line in steps_of(run)]
            assert mine == [line[key] for line in steps_of(whole)]
        finals.append(load_file(run / "final" / "model.safetensors"))
    assert all(torch.equal(finals[0][name], one[name]) for one in finals[1:] for name in one)


@pytest.mark.parametrize("recipe", ["tiny", "tiny-cn"])
def test_a_run_of_an_earlier_version_goes_on(corpus, tmp_path, recipe):
    """Its recipe.toml has one length and one share, and none of the keys that came later."""
    run = tmp_path / "run"
    pretrain(recipe, corpus, run, [*TINY, "steps=2"])
    path = run / "recipe.toml"
    text = path.read_text("utf-8")
    assert "warmup_share = [" in text
    later = ("char_share", "momentum", "keep_best", "sampled")
    lines = [line for line in text.splitlines() if not line.startswith(later)]
    old = re.sub(r"(warmup_\w+) = \[([\d.]+)\]", r"\1 = \2", "\n".join(lines))
    assert "warmup_share = 0" in old
    path.write_text(old, "utf-8")
    pretrain(recipe, corpus, run, ["steps=3"], resume=True)
    assert len(steps_of(run)) == 3


def test_rows_no_shorter_than_half_are_no_warm_up_and_a_second_phase_has_none(
    corpus, tmp_path, capsys
):
    overrides = [*TINY, "steps=2", "rows.warmup_share=1"]
    pretrain("tiny", corpus, tmp_path / "run", [*overrides, "rows.warmup_length=17"], quiet=False)
    assert "warm-up" not in capsys.readouterr().err
    overrides += ["rows.warmup_length=8", f"continue_from={tmp_path / 'run'}"]
    pretrain("tiny", corpus, tmp_path / "next", overrides, quiet=False)
    assert "warm-up" not in capsys.readouterr().err


@pytest.fixture
def run_copy(finished_run, tmp_path):
    shutil.copytree(finished_run, tmp_path / "run")
    return tmp_path / "run"


def test_resume_skips_a_corrupt_checkpoint_and_says_so(corpus, run_copy, capsys):
    file = run_copy / "checkpoints" / "step-000012" / "optimizer.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    before = steps_of(run_copy)
    # The overrides that the run began with need not be repeated.
    pretrain("tiny", corpus, run_copy, resume=True, quiet=False)
    said = capsys.readouterr().err
    assert "step-000012: corrupt (optimizer.safetensors is not what was written): skipped" in said
    assert "from step 10" in said
    assert [line["loss"] for line in steps_of(run_copy)] == [line["loss"] for line in before]


def test_resume_may_go_further_and_says_what_that_means(corpus, run_copy, capsys):
    pretrain("tiny", corpus, run_copy, ["steps=14"], resume=True, quiet=False)
    assert "steps = 14 (was 12): the learning rate now falls to zero" in capsys.readouterr().err
    assert [line["step"] for line in steps_of(run_copy)] == list(range(1, 15))
    assert load_recipe(run_copy / "recipe.toml").steps == 14
    pretrain("tiny", corpus, run_copy, resume=True)
    assert len(steps_of(run_copy)) == 14


def test_resume_refuses_what_would_change_the_run(corpus, run_copy, tmp_path):
    before = (run_copy / "metrics.jsonl").read_bytes()
    said = refusal("tiny", corpus, run_copy, ["optimizer.learning_rate=1e-5"], resume=True)
    assert "optimizer.learning_rate = 1e-05, but" in said
    assert "begun with 0.001" in said
    assert "model.hidden_size = 8" in refusal(
        "tiny", corpus, run_copy, ["model.hidden_size=8"], resume=True
    )
    for change, was in (
        ("optimizer.name = 'muon'", "'adamw'"),
        ("initial_weights = 'scaled'", "'bert'"),
        ("softmax.frequent = 9", "0"),
    ):
        said = refusal(
            "tiny", corpus, run_copy, [change.replace(" ", "").replace("'", "")], resume=True
        )
        assert said.startswith(f"{change}, but {run_copy} was begun with {was}; ")
    other = make_corpus(tmp_path / "other", seed=5)
    assert "not the corpus that" in refusal("tiny", other, run_copy, resume=True)
    assert "beyond steps = 9" in refusal("tiny", corpus, run_copy, ["steps=9"], resume=True)
    recipe = run_copy / "recipe.toml"
    text = recipe.read_text(encoding="utf-8")
    recipe.write_text(text.replace("hidden_size = 16", "hidden_size = 32"), encoding="utf-8")
    assert (run_copy / "metrics.jsonl").read_bytes() == before


def test_resume_of_another_shape_is_one_clear_line(corpus, run_copy):
    for name in ("recipe.toml", "provenance.json"):
        file = run_copy / name
        text = file.read_text(encoding="utf-8")
        text = text.replace("intermediate_size = 32", "intermediate_size = 48")
        file.write_text(text.replace("intermediate_size=32", "intermediate_size=48"), "utf-8")
    assert "a checkpoint of another shape" in refusal("tiny", corpus, run_copy, resume=True)


def test_folders_are_never_mixed_up(corpus, finished_run, tmp_path):
    assert "--resume-if-there goes on with it" in refusal("tiny", corpus, finished_run, TINY)
    (tmp_path / "empty").mkdir()
    for folder in (tmp_path / "empty", tmp_path / "missing"):
        assert "no run to go on with" in refusal("tiny", corpus, folder, TINY, resume=True)
    assert "not a run folder" in refusal("tiny", corpus, corpus, TINY, overwrite=True)
    for one, other in itertools.combinations(("overwrite", "resume", "resume_if_there"), 2):
        said = refusal("tiny", corpus, finished_run, TINY, **{one: True, other: True})
        assert "exclude each other: give one of them" in said
    said = refusal("tiny", corpus, corpus, TINY, resume_if_there=True)
    assert "not empty, and not a run folder" in said


def test_one_command_begins_goes_on_and_knows_that_it_is_done(corpus, tmp_path, capsys):
    """What a launcher needs that starts the same command again and again."""
    run = tmp_path / "run"
    command = [*TINY, "steps=4", "checkpoint_every=2"]

    def again():
        result = pretrain("tiny", corpus, run, command, resume_if_there=True, quiet=False)
        assert (result.step, result.final) == (4, run / "final")
        return capsys.readouterr().err

    assert "resuming" not in again()
    whole = steps_of(run)
    shutil.rmtree(run / "checkpoints" / "step-000004")
    assert f"resuming {run} from step 2" in again()
    assert steps_of(run)[:2] == whole[:2]
    assert [one["loss"] for one in steps_of(run)] == [one["loss"] for one in whole]
    done = again()
    assert f"resuming {run} from step 4" in done
    assert "all 4 steps, done" in done
    # Killed between its first two files.
    for path in run.iterdir():
        if path.name != "provenance.json":
            remove(path)
    assert "resuming" not in again()


def test_a_run_that_ended_before_its_first_checkpoint_is_begun_anew(corpus, finished_run, tmp_path):
    begun = tmp_path / "begun"
    begun.mkdir()
    shutil.copy(finished_run / "recipe.toml", begun)
    shutil.copy(finished_run / "provenance.json", begun)
    shutil.copy(finished_run / "metrics.jsonl", begun)
    said = refusal("tiny", corpus, tmp_path / "x", [*TINY, f"continue_from={begun}"])
    assert "no complete checkpoint in it; train it first" in said
    result = pretrain("tiny", corpus, begun, ["steps=2"], resume=True)
    assert (result.step, len(steps_of(begun))) == (2, 2)


def test_overwrite_replaces_a_run_only_when_everything_else_is_fine(corpus, run_copy):
    said = refusal("tiny", corpus, run_copy, [*TINY, "initial_model=none"], overwrite=True)
    assert "no such folder" in said
    assert (run_copy / "final").is_dir()
    pretrain("tiny", corpus, run_copy, [*TINY, "steps=2"], overwrite=True)
    assert len(steps_of(run_copy)) == 2


def test_overwrite_never_removes_what_the_run_is_made_from(corpus, run_copy):
    final = run_copy / "final"
    for override in (f"initial_model={final}", f"continue_from={run_copy}"):
        said = refusal("tiny", corpus, run_copy, [*TINY, override], overwrite=True)
        assert said.startswith("--overwrite would remove the ")
    inside = shutil.copytree(corpus, run_copy / "corpus")
    assert "would remove the corpus" in refusal("tiny", inside, run_copy, TINY, overwrite=True)
    assert (final / "model.safetensors").is_file()


def test_two_processes_never_write_one_run(corpus, run_copy):
    before = sorted(path.name for path in run_copy.rglob("*"))
    with locked(run_copy):
        for overrides, options in ((["steps=14"], {"resume": True}), (TINY, {"overwrite": True})):
            said = refusal("tiny", corpus, run_copy, overrides, **options)
            assert "another process is at work there" in said
    assert sorted(path.name for path in run_copy.rglob("*")) == before


def test_a_refused_run_leaves_no_folder(corpus, finished_run, tmp_path):
    refusal("tiny", corpus, tmp_path / "run", ["steps=0"])
    refusal("tiny", tmp_path / "none", tmp_path / "run", TINY)
    refusal("tiny", corpus, tmp_path / "run", [*TINY, "initial_model=none"])
    refusal("tiny", corpus, tmp_path / "run", [*TINY, "continue_from=none"])
    said = refusal("tiny", corpus, tmp_path / "run", [*TINY, f"initial_model={finished_run}"])
    assert f"initial_model={finished_run / 'final'}" in said
    (tmp_path / "file").touch()
    said = refusal("tiny", corpus, tmp_path / "file" / "run", TINY)
    assert f"{tmp_path / 'file' / 'run'}: Not a directory" in said
    assert not (tmp_path / "run").exists()


def test_a_second_phase_goes_on_with_model_optimiser_and_schedule(corpus, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    base = [*TINY, "optimizer.schedule_steps=8", "optimizer.warmup_steps=2"]
    pretrain("tiny", corpus, first, [*base, "steps=5"])
    overrides = [*base, "steps=3", "sequence_length=64", f"continue_from={first}"]
    result = pretrain("tiny", corpus, second, overrides)
    lines = steps_of(second)
    assert [line["step"] for line in lines] == [6, 7, 8]
    rates = [line["learning_rate"] for line in [*steps_of(first), *lines]]
    assert rates == pytest.approx(
        [1e-3 * r for r in (0.5, 1, 1, 5 / 6, 4 / 6, 3 / 6, 2 / 6, 1 / 6)]
    )
    assert lines[0]["pieces"] > steps_of(first)[-1]["pieces"]
    assert result.step == 8
    state = load_file(second / "checkpoints" / "step-000008" / "optimizer.safetensors")
    assert state["steps"] == 8
    # A phase of its own can be resumed, too.
    pretrain("tiny", corpus, second, resume=True)


def test_a_second_phase_takes_over_weights_and_moments(corpus, tmp_path):
    """A step that changes next to nothing shows what it began with."""
    pretrain("tiny", corpus, tmp_path / "one", [*TINY, "steps=2"])
    still = ["optimizer.learning_rate=1e-30", "optimizer.beta1=0.9999999"]
    overrides = [*TINY, "steps=1", f"continue_from={tmp_path / 'one'}", *still]
    pretrain("tiny", corpus, tmp_path / "two", overrides)
    folders = [tmp_path / "one/checkpoints/step-000002", tmp_path / "two/checkpoints/step-000003"]
    old, new = (load_file(folder / "model.safetensors") for folder in folders)
    assert all(torch.equal(old[name], new[name]) for name in old)
    old, new = (load_file(folder / "optimizer.safetensors") for folder in folders)
    means = [name for name in old if name.endswith(".mean")]
    assert any(old[name].any() for name in means)
    assert all(torch.allclose(old[name], new[name], atol=1e-6) for name in means)
    assert (old["steps"], new["steps"]) == (2, 3)


def test_a_second_phase_refuses_what_does_not_fit(corpus, finished_run, tmp_path):
    more = [*TINY, "model.num_hidden_layers=4", f"continue_from={finished_run}"]
    long = [*more, "model.max_position_embeddings=64", "sequence_length=65"]
    said = refusal("tiny", corpus, tmp_path / "run", long)
    assert "sequence_length = 65: must be at most model.max_position_embeddings = 64" in said
    said = refusal("tiny", corpus, tmp_path / "run", [*more, "optimizer.name=lamb"])
    assert "was trained with adamw" in said
    said = refusal("tiny", corpus, tmp_path / "run", [*more, "optimizer.name=muon"])
    assert said.startswith("tiny.toml: optimizer.name = muon: ")
    assert said.endswith(f"use initial_model={finished_run / 'final'}")
    said = refusal("tiny", corpus, tmp_path / "run", [*more, "model.hidden_size=32"])
    assert "the model to start from has 16" in said


def test_an_initial_model_gives_its_weights_and_its_first_layers(corpus, finished_run, tmp_path):
    own = [o for o in TINY if not o.startswith("model.")]
    initial = f"initial_model={finished_run / 'final'}"
    overrides = [*own, "steps=1", initial, "optimizer.learning_rate=1e-12", "model.hidden_size="]
    more = ["model.num_hidden_layers=3", "model.hidden_dropout_prob=0.25"]
    pretrain("tiny", corpus, tmp_path / "run", [*overrides, *more])
    config = json.loads((tmp_path / "run/final/config.json").read_text(encoding="utf-8"))
    assert (config["num_hidden_layers"], config["hidden_size"]) == (3, 16)
    assert config["hidden_dropout_prob"] == 0.25
    old, new = (load_file(f / "final/model.safetensors") for f in (finished_run, tmp_path / "run"))
    assert all(torch.allclose(old[name], tensor, atol=1e-6) for name, tensor in new.items())
    assert set(old) > set(new)


def test_a_corpus_with_another_vocabulary_is_refused_with_both_hashes(
    corpus, finished_run, tmp_path
):
    model = tmp_path / "model"
    shutil.copytree(finished_run / "final", model)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt"):
        (model / name).unlink()
    other = Tokenizer([*PIECES[:-1], "龘"])
    other.save_pretrained(model)
    own = [o for o in TINY if not o.startswith("model.")]
    overrides = [*own, f"initial_model={model}", "model.hidden_size=", "model.num_hidden_layers="]
    said = refusal("tiny", corpus, tmp_path / "run", overrides)
    mine = json.loads((corpus / "corpus.json").read_text(encoding="utf-8"))["tokenizer"]
    assert mine["fingerprint"][:12] in said
    assert other.fingerprint()[:12] in said
    assert f"--vocab {model}" in said


def test_an_untrained_head_of_the_initial_model_is_said(corpus, finished_run, tmp_path, capsys):
    from safetensors.torch import save_file

    model = tmp_path / "model"
    shutil.copytree(finished_run / "final", model)
    tensors = load_file(model / "model.safetensors")
    kept = {k: v for k, v in tensors.items() if not k.startswith("cls.predictions")}
    save_file(kept, model / "model.safetensors", metadata={"format": "pt"})
    own = [o for o in TINY if not o.startswith("model.")]
    overrides = [*own, "steps=1", f"initial_model={model}", "model.hidden_size="]
    overrides += ["model.num_hidden_layers="]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pretrain("tiny", corpus, tmp_path / "run", overrides, quiet=False)
    assert "no trained mask-filling head" in capsys.readouterr().err


def test_without_held_out_documents_evaluation_is_skipped_with_one_line(tmp_path, capsys):
    corpus = make_corpus(tmp_path / "corpus", held_out=0)
    result = pretrain("tiny", corpus, tmp_path / "run", [*TINY, "steps=2"], quiet=False)
    assert result.evaluations == []
    said = capsys.readouterr().err
    assert said.count("evaluation is skipped") == 1
    assert evaluations_of(tmp_path / "run") == []


def test_a_warm_up_longer_than_the_run_is_a_warning(corpus, tmp_path, capsys):
    overrides = [*TINY, "steps=2", "optimizer.warmup_steps=100"]
    pretrain("tiny", corpus, tmp_path / "run", overrides, quiet=False)
    assert "warning: optimizer.warmup_steps = 100 is longer" in capsys.readouterr().err


@pytest.mark.parametrize("every", [2, 0])
def test_a_loss_that_is_not_finite_keeps_the_last_checkpoint_and_says_how_to_go_on(
    corpus, tmp_path, monkeypatch, every
):

    class Breaking(objective.PretrainingObjective):
        calls = 0

        def __call__(self, model, batch, seed):
            self.calls += 1
            losses, correct = super().__call__(model, batch, seed)
            return (losses * math.nan if self.calls == 5 else losses), correct

    monkeypatch.setattr(objective, "PretrainingObjective", Breaking)
    run, overrides = tmp_path / "run", [*TINY, "steps=9", f"checkpoint_every={every}"]
    said = refusal("tiny", corpus, run, overrides)
    assert "the loss is nan at step 5" in said
    kept = sorted(path.name for path in (run / "checkpoints").glob("*"))
    assert kept == (["step-000002", "step-000004"] if every else [])
    assert len(steps_of(run)) == 4
    # What it says can be done.
    monkeypatch.undo()
    lower = [*TINY, "steps=1", "optimizer.learning_rate=1e-5"]
    if every:
        assert "the checkpoint of step 4 is kept; begin a run in another --out from it, " in said
        assert f"continue_from={run}, with a lower optimizer.learning_rate" in said
        result = pretrain("tiny", corpus, tmp_path / "next", [*lower, f"continue_from={run}"])
        assert result.step == 5
    else:
        assert "nothing was saved yet; begin again with a lower optimizer.learning_rate" in said
        assert pretrain("tiny", corpus, run, lower, overwrite=True).step == 1


def test_what_pairs_cut_off_is_counted_and_said(corpus, tmp_path, capsys):
    overrides = [*TINY, "steps=3", "rows.builder=pairs", "sequence_length=16"]
    result = pretrain("tiny", corpus, tmp_path / "run", overrides, quiet=False)
    assert 0 < result.dropped_share < 1
    said = f"{result.dropped_share:.2%} of the pieces were cut off to make pairs fit"
    assert said in capsys.readouterr().err


def test_rows_without_pairs_leave_the_pair_head_as_it_was(corpus, finished_run, tmp_path):
    pretrain("tiny", corpus, tmp_path / "run", [*TINY, "steps=2"])
    tensors = load_file(tmp_path / "run" / "final" / "model.safetensors")
    assert not tensors["cls.seq_relationship.bias"].any()
    assert evaluations_of(tmp_path / "run")[0]["next_sentence_accuracy"] is None


def test_bf16_trains_close_to_fp32(corpus, tmp_path):
    for precision in ("fp32", "bf16"):
        overrides = [*TINY, "steps=4", f"precision={precision}"]
        pretrain("tiny", corpus, tmp_path / precision, overrides)
    for one, two in zip(steps_of(tmp_path / "fp32"), steps_of(tmp_path / "bf16"), strict=True):
        assert one["loss"] == pytest.approx(two["loss"], rel=0.02)
        assert one["loss"] != two["loss"]


def test_without_tensorboard_no_folder_is_made_that_would_block_the_next_try(
    corpus, tmp_path, monkeypatch
):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    said = refusal("tiny", corpus, tmp_path / "run", [*TINY, "steps=2"], tensorboard=True)
    assert "tensorboard is not installed" in said
    assert not (tmp_path / "run").exists()


def test_tensorboard_files_are_written_on_wish(corpus, tmp_path):
    pytest.importorskip("tensorboard")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the package's own
        pretrain("tiny", corpus, tmp_path / "run", [*TINY, "steps=2"], tensorboard=True)
    assert list((tmp_path / "run" / "tensorboard").glob("events.*"))


def test_the_command_line_prints_the_model_or_json_and_nothing_else(corpus, tmp_path, capsys):
    words = ["pretrain", "tiny", "--corpus", str(corpus), *TINY, "--quiet", "steps=2"]
    assert cli.main([*words, "--out", str(tmp_path / "a")]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{tmp_path / 'a' / 'final'}\n"
    assert captured.err == ""
    assert cli.main([*words, "--out", str(tmp_path / "b"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["final"] == str(tmp_path / "b" / "final")
    assert result["step"] == 2
    assert [line["evaluation"] for line in result["evaluations"]] == ["char", "wwm"]
    assert cli.main([*words, "--out", str(tmp_path / "b")]) == 2
    assert capsys.readouterr().err.startswith("zhbert: error: ")


def test_a_model_beyond_the_memory_is_refused_before_it_is_made(corpus, tmp_path) -> None:
    sizes = [
        "model.hidden_size=65536",
        "model.num_hidden_layers=1000",
        "model.num_attention_heads=8",
    ]
    with pytest.raises(ZhbertError, match=r"parameters takes .* GiB to train, and there are"):
        pretrain("tiny", corpus, tmp_path / "run", sizes)


def test_activations_computed_again_change_no_bit(corpus, tmp_path):
    runs = []
    for choice in ("false", "true"):
        run = tmp_path / choice
        given = ["steps=2", "micro_batch_size=5", f"activation_checkpointing={choice}"]
        pretrain("tiny", corpus, run, [*TINY, *given])
        runs.append([(line["loss"], line["grad_norm"]) for line in steps_of(run)])
    assert runs[0] == runs[1]


@pytest.fixture
def overfitting(corpus, finished_run, tmp_path):
    """Trains on from a model, at a rate that ruins it, keeping the best."""

    def train(name, *overrides, **options):
        given = ["evaluation.keep_best=true", f"initial_model={finished_run / 'final'}"]
        given += ["model.num_hidden_layers=4", "steps=6", "evaluate_every=2"]
        given += ["optimizer.learning_rate=10", "optimizer.schedule=constant"]
        given += ["checkpoint_every=2", *overrides]
        return pretrain("tiny", corpus, tmp_path / name, [*TINY, *given], **options)

    return train


def test_the_best_evaluation_is_the_runs_model_be_it_the_one_it_began_with(
    overfitting, finished_run, corpus
):
    result = overfitting("run")
    assert (result.step, result.kept_step) == (6, 0)
    evaluations = evaluations_of(result.folder)
    assert [line["step"] for line in evaluations] == [0, 0, 2, 2, 4, 4, 6, 6]
    assert result.evaluations == evaluations[:2]
    folders = (finished_run, result.folder)
    begun, ended = (load_file(f / "final" / "model.safetensors") for f in folders)
    assert all(torch.equal(begun[name], ended[name]) for name in begun)


def test_a_gentle_run_ends_with_its_last_weights(overfitting):
    result = overfitting("run", "optimizer.learning_rate=1e-3")
    assert result.kept_step == 6
    state = load_file(result.folder / "checkpoints" / "step-000006" / "model.safetensors")
    final = load_file(result.folder / "final" / "model.safetensors")
    name = "bert.embeddings.word_embeddings.weight"
    assert torch.equal(state["encoder.embeddings.words.weight"], final[name])


def test_what_was_kept_outlives_a_kill(overfitting):
    whole = overfitting("whole")
    overfitting("run")
    # As if the run had been killed after step 6, before that step's checkpoint.
    run = whole.folder.with_name("run")
    shutil.rmtree(run / "checkpoints" / "step-000006")
    shutil.rmtree(run / "final")
    result = overfitting("run", resume=True)
    assert (result.kept_step, result.evaluations) == (whole.kept_step, whole.evaluations)
    finals = [load_file(f / "final" / "model.safetensors") for f in (run, whole.folder)]
    assert all(torch.equal(finals[0][name], finals[1][name]) for name in finals[1])
    assert evaluations_of(run) == evaluations_of(whole.folder)


def test_a_run_with_similar_words_resumes_to_the_bit_with_the_same_ones_only(corpus, tmp_path):
    similar = make_similar_words(corpus, tmp_path / "similar.tsv", min_frequency=1).out
    mac = [*TINY, "masking.strategy=mac", f"masking.similar_words={similar}", "steps=4"]
    run, again = tmp_path / "run", tmp_path / "again"
    pretrain("tiny", corpus, run, [*mac, "checkpoint_every=2"])
    shutil.copytree(run, again)
    shutil.rmtree(again / "checkpoints" / "step-000004")
    # The file may have been moved, but not changed.
    moved = similar.rename(tmp_path / "moved.tsv")
    change = [f"masking.similar_words={moved}"]
    pretrain("tiny", corpus, again, change, resume=True)
    one, other = (load_file(folder / "final" / "model.safetensors") for folder in (run, again))
    assert all(torch.equal(other[name], tensor) for name, tensor in one.items())
    with moved.open("a", encoding="utf-8") as file:
        file.write("一\t丁\t0.1\n")
    assert "not the similar words that" in refusal("tiny", corpus, again, change, resume=True)


def test_similar_words_of_another_vocabulary_leave_no_run(corpus, tmp_path):
    (tmp_path / "similar.tsv").write_text(
        "# zhbert similar words; vocabulary 12\n一\t丁\t0.1\n", encoding="utf-8"
    )
    mac = [*TINY, "masking.strategy=mac", f"masking.similar_words={tmp_path / 'similar.tsv'}"]
    assert "of another vocabulary" in refusal("tiny", corpus, tmp_path / "run", mac)
    assert not (tmp_path / "run").exists()
    with pytest.raises(ZhbertError, match="of another vocabulary"):
        check("tiny", mac, corpus=corpus)
